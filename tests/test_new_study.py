"""A new experiment touches its folder, its command, its flagfile and the paper's plan only."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

STUDY = '''"""The upper edge of divergence against n."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from adam_transition.studies.plotting import style, subplots
from adam_transition.sweeps.claims import assess
from adam_transition.sweeps.study import variable
from adam_transition.theory import laws


@dataclass(frozen=True)
class EdgeStudy:
    """The upper edge of divergence in cyclic order."""

    num_components: tuple[int, ...]

    name = "edges"

    def coordinates(self):
        return xr.Dataset(coords={"n": np.array(self.num_components)})

    def parts(self):
        return {"edge": lambda *_: self._edges(), "growth": lambda data, _: self._growth(data)}

    def _edges(self):
        n = self.num_components
        edges = laws.upper_edges(n, [1.0] * len(n), 0.0)
        return {"edge": variable("n", [edge.beta2 for edge in edges], "β2*")}

    def _growth(self, data):
        return {"growth": variable("step", np.diff(data["edge"].values), "growth of β2*")}

    def claims(self, data):
        growth = float(data["growth"].min())
        return [assess("grows", "β2* grows with n", "here", measured=growth, at_least=0, ours=True)]

    def summary(self, data):
        return {"rows": data["edge"].values.tolist()}

    def figures(self):
        return {"edges": draw}


def draw(data):
    with style():
        figure, ax = subplots(1, 1, figsize=(3, 2))
        ax.plot(data["n"], data["edge"])
        return figure
'''

COMMAND = '''"""The upper edge of divergence against n."""

import sys

from absl import flags

from adam_transition.commands import _flags, _outputs, _runner

FLAGS = _flags.common_flags("edges")
flags.DEFINE_list("n", "5,10", "Numbers of components.", flag_values=FLAGS)


def main(values):
    from adam_transition.studies.edges.study import EdgeStudy

    n = tuple(_flags.parse_integers("n", values["n"]))
    _outputs.run_study(values, EdgeStudy(n))


COMMAND = _runner.Command("edges", __doc__, FLAGS, main)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
'''

FLAGFILE = """# The upper edge. Runs: none. Time: 1 s on two cores. Result: it grows.
--n=5,10,20
"""

PLAN = """

RUNS = (*RUNS, Run("edges", "Edges", captions={"edges": "The edge against n."}))
STATEMENTS = (*STATEMENTS, Statement("Edges", "here", "β2* grows.", ("edges:*",), ("edges/edges",)))
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the repository with one more study, added in four places."""
    root = tmp_path_factory.mktemp("checkout")
    hidden = shutil.ignore_patterns("__pycache__")
    for folder in ("adam_transition", "experiments"):
        shutil.copytree(folder, root / folder, ignore=hidden)
    package = root / "adam_transition"
    (package / "studies/edges").mkdir()
    (package / "studies/edges/__init__.py").touch()
    (package / "studies/edges/study.py").write_text(STUDY, encoding="utf-8")
    (package / "commands/edges.py").write_text(COMMAND, encoding="utf-8")
    for name in ("edges", "smoke/edges"):
        (root / f"experiments/flagfiles/{name}.flags").write_text(FLAGFILE, encoding="utf-8")
    with (package / "commands/paper/plan.py").open("a", encoding="utf-8") as file:
        file.write(PLAN)
    return root


def _run(checkout, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=checkout, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_run_like_the_others(checkout):
    flagfile = "--flagfile=experiments/flagfiles/edges.flags"
    printed = _run(checkout, "-m", "experiments.edges", flagfile, "--n=5,10,20,40")
    assert "holds" in printed
    summary = json.loads((checkout / "out/edges/edges.json").read_text(encoding="utf-8"))
    assert len(summary["rows"]) == 4
    assert (checkout / "out/edges/edges.png").is_file()
    assert "edges" in _run(checkout, "-m", "adam_transition", "--help")


def test_it_is_on_the_page_of_the_paper(checkout):
    _run(checkout, "-m", "adam_transition", "paper", "--scale=smoke", "--only=edges", "--out=paper")
    [claim] = json.loads(Path(checkout, "paper/claims.json").read_text(encoding="utf-8"))
    assert claim["verdict"] == "holds"
    assert "The edge against n." in Path(checkout, "paper/index.html").read_text(encoding="utf-8")
