"""Finished smoke runs, each made once in a session, by the first test that asks for it."""

import importlib
import os
from pathlib import Path

from filelock import FileLock

from adam_transition.commands.paper.plan import RUNS
from tests import experiment

FOLDER = "ADAM_TRANSITION_SMOKE_RUNS"
"""Environment variable: where they are, for all processes of a session."""


def folder() -> Path:
    return Path(os.environ[FOLDER])


def arguments(name: str) -> list[str]:
    return [f"--flagfile=experiments/flagfiles/smoke/{name}.flags", f"--out={folder() / name}"]


def finished(name: str) -> Path:
    """The folder of a finished smoke run of `experiments.paper`; only to be read."""
    command = next(run.command for run in RUNS if run.name == name)
    done = folder() / name / f"{command}.json"
    with FileLock(folder() / f"{name}.lock"):
        if not done.exists():
            assert (
                experiment.run(
                    importlib.import_module(f"adam_transition.commands.{command}"), *arguments(name)
                )
                == 0
            )
    return done.parent
