"""The README's walk from the command to the arithmetic is the path that really runs."""

import re
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys, traceback
from adam_transition import adam

def ratio(*arguments):
    stack = [frame.filename for frame in traceback.extract_stack()]
    if any(name.endswith("sweep.py") for name in stack):  # not when the flags are checked
        print("STACK", *stack, sep="\\n", flush=True)
        adam.ratio = plain
    return plain(*arguments)

plain, adam.ratio = adam.ratio, ratio
sys.argv = ["phase", *sys.argv[1:]]
import runpy
runpy.run_module("experiments.phase", run_name="__main__", alter_sys=True)
"""


def test_the_walk_of_the_readme_is_the_path_of_an_adam_step(tmp_path):
    text = Path("README.md").read_text(encoding="utf-8")
    walk = re.search(r"from the command to the arithmetic:(.*?)\. With", text, re.DOTALL)[1]
    named = re.findall(r"`([\w/]+\.py)`", walk)
    arguments = ["--n=5", "--beta1=0", "--beta2=0,0.5", "--steps=10", f"--out={tmp_path / 'out'}"]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments, "--nofigures"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    stack = done.stdout.partition("STACK\n")[2].splitlines()
    files = [_in_package(path) for path in stack]
    hit = list(dict.fromkeys(path for path in files if path))
    assert [path for path in hit if path in named] == named
    assert len([path for path in hit if path not in named]) <= 2


def _in_package(path):
    """The path from the package on, "" for other files."""
    import adam_transition

    package = Path(adam_transition.__file__).parent
    place = Path(path)
    return place.relative_to(package).as_posix() if place.is_relative_to(package) else ""
