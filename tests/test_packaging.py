"""The wheel: what it holds, and that it runs beside a user's own package called experiments."""

import os
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from adam_transition.commands import phase


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "-d", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    [path] = folder.glob("*.whl")
    return path


def test_the_wheel_holds_the_package_and_the_flagfiles(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"adam_transition"}
    flagfiles = {path.relative_to("experiments") for path in Path("experiments").rglob("*.flags")}
    held = {Path(name).relative_to("adam_transition") for name in names if name.endswith(".flags")}
    assert held == flagfiles
    modules = {str(path) for path in Path("adam_transition").rglob("*.py")}
    assert modules <= set(names)
    assert "adam_transition/py.typed" in names


def test_a_wheel_runs_beside_a_package_called_experiments(wheel, tmp_path):
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    user = tmp_path / "user"
    (user / "experiments").mkdir(parents=True)
    (user / "experiments" / "__init__.py").write_text("raise ImportError('not this one')\n")
    code = "import adam_transition, sys; from adam_transition.commands import main;"
    code += "assert adam_transition.__file__.startswith(sys.argv.pop(1)); sys.exit(main())"
    where = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{user}"}
    command = [
        sys.executable,
        "-c",
        code,
        str(site),
        "phase",
        "--flagfile=smoke/phase",
        "--out=out",
    ]
    done = subprocess.run(
        [*command, "--nofigures"], cwd=user, env=where, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (user / "out" / "phase.json").exists()


def test_a_source_tree_that_is_not_installed_is_refused(monkeypatch, capsys, tmp_path):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    assert phase.COMMAND.run([f"--out={tmp_path}"]) == 2
    assert capsys.readouterr().err == (
        "phase: adam-transition is not installed: pip install -e .\n"
    )
