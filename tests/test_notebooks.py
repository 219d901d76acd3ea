"""The notebooks run from top to bottom, and are fit to be opened in Colab and read on a page."""

import sys
import types
from pathlib import Path

import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def _code_cells(path):
    return [c for c in nbformat.read(path, as_version=4).cells if c.cell_type == "code"]


def _run_install_cell(monkeypatch, *, in_colab, repository=""):
    """Runs the cell in a namespace of its own; returns the magics it called."""
    source = _code_cells(NOTEBOOKS[0])[0].source
    source = source.replace('repository = ""', f'repository = "{repository}"')
    if in_colab:
        monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    called = []
    shell = types.SimpleNamespace(run_line_magic=lambda *call: called.append(call))
    exec(TransformerManager().transform_cell(source), {"get_ipython": lambda: shell})
    return called


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.slow
@each
def test_runs_from_top_to_bottom(path, tmp_path):
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=600, resources=resources).execute()


@each
def test_stored_outputs_are_whole_and_small(path):
    assert path.stat().st_size < 400_000
    cells = _code_cells(path)
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]


@each
def test_starts_with_a_badge_and_the_install_cell_of_all(path):
    title = nbformat.read(path, as_version=4).cells[0]
    assert title.source.startswith("# ")
    assert BADGE in title.source
    install = _code_cells(path)[0]
    assert install.source == _code_cells(NOTEBOOKS[0])[0].source
    assert not install.outputs


def test_the_install_cell_installs_in_colab_alone(monkeypatch):
    assert not _run_install_cell(monkeypatch, in_colab=False)
    with pytest.raises(ValueError, match="repository"):
        _run_install_cell(monkeypatch, in_colab=True)
    ((magic, arguments, *_),) = _run_install_cell(
        monkeypatch, in_colab=True, repository="https://example.org/us/it"
    )
    assert magic == "pip"
    # IPython puts the address in the place of the name
    assert arguments == 'install -q "adam-transition[networks] @ git+{repository}"'
