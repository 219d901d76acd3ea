"""The documentation's site: `make docs` builds it in out/docs."""

import sys
import tomllib
from pathlib import Path

from adam_transition.commands import explorer

_HERE = Path(__file__).parent
sys.path.insert(0, str(_HERE))  # for the extension beside this file


def _copy_notebooks(source: Path, target: Path) -> None:
    """Sphinx reads one folder: copies, with the outputs that they store, links as from there."""
    target.mkdir(exist_ok=True)
    for old in target.glob("*.ipynb"):
        if not (source / old.name).exists():
            old.unlink()
    for notebook in source.glob("*.ipynb"):
        text = notebook.read_text(encoding="utf-8").replace("](../docs/", "](../")
        copy = target / notebook.name
        if not copy.exists() or copy.read_text(encoding="utf-8") != text:
            copy.write_text(text, encoding="utf-8")


_copy_notebooks(_HERE.parent / "notebooks", _HERE / "notebooks")
(_HERE / "extra").mkdir(exist_ok=True)
(_HERE / "extra" / "explorer.html").write_text(explorer.page(), encoding="utf-8")

project = "adam_transition"
author = "The adam_transition authors"
copyright = author  # noqa: A001  Sphinx's word
with (_HERE.parent / "pyproject.toml").open("rb") as file:
    release = tomllib.load(file)["project"]["version"]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx.ext.mathjax",
    "sphinx-mathjax-offline",
    "docstrings",
]
exclude_patterns = ["**/.ipynb_checkpoints", "extra"]
default_role = "py:obj"  # `name` in a docstring is a link if there is such an object, and code

html_theme = "furo"
html_extra_path = ["extra"]
html_title = "adam_transition"
html_show_copyright = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True}

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
myst_dmath_double_inline = True
nb_execution_mode = "off"
suppress_warnings = ["mystnb.unknown_mime_type"]

add_module_names = False
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
nitpicky = True  # names of the package that are written in full must exist
nitpick_ignore_regex = [("py:.*", r"(?!adam_transition\.).*")]
maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
python_use_unqualified_type_names = True
toc_object_entries_show_parents = "hide"
viewcode_follow_imported_members = False
