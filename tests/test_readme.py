"""The README: its scripts run as they are written, and its numbers are those of the library."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

import adam_transition as at

TEXT = Path("README.md").read_text(encoding="utf-8")


def test_the_scripts_run_and_have_their_results():
    blocks = re.findall(r"^```python\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    names = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert isinstance(names["figure"], plt.Figure)
    plt.close(names["figure"])
    assert set(names["plane"].sizes) >= {"sampling", "beta1", "beta2"}
    edge = names["interval"].high.beta2
    assert f"{edge:.7f}" == re.search(r"interval\.high\.beta2  # (0\.\d+)", TEXT)[1]


def test_the_boundary_is_that_of_each_order():
    found = re.search(r"β2 > (0\.\d+) in cyclic order,\s+(0\.\d+) under.*?(0\.\d+) with", TEXT)
    table = at.counterexample_table(20)
    for number, sampling in zip(
        found.groups(), ("cyclic", "random_shuffling", "with_replacement"), strict=True
    ):
        [intervals] = at.divergence_intervals(table, [0.0], sampling)
        assert f"{intervals[-1].high.beta2:.4f}" == number


def test_files_that_it_names_exist():
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", TEXT):
        assert link.startswith("https://") or Path(link).exists(), link


@pytest.mark.parametrize("line", re.findall(r"^adam-transition .*$", TEXT, re.MULTILINE))
def test_commands_run(line, tmp_path):
    _, *arguments = shlex.split(line)
    command = [sys.executable, "-m", "adam_transition", *arguments, f"--out={tmp_path}"]
    subprocess.run(command, check=True, capture_output=True)
