"""Several devices and several processes: the same bits as one; a death is noticed, work is kept."""

import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
import xarray as xr

from adam_transition.commands import phase
from tests import experiment

ROOT = Path(__file__).parent.parent
VARIABLES = ("gap", "late_gap", "speed", "speed_error", "diverged", "undecided", "underflowed")
FLAGS = (
    "--n=5,20",
    "--beta1=0:0.99:48",
    "--beta2=0:0.99:48",
    "--sampling=cyclic,with_replacement",
    "--chunk_cells=700",
    "--nofigures",
)
DEFAULTS = {**os.environ, "XLA_FLAGS": ""}
"""The environment of users, without the settings of the tests (`conftest`)."""


def _start(out, *args, env=None, program=("-m", "experiments.phase")):
    command = [sys.executable, *program, f"--out={out}", *args]
    return subprocess.Popen(
        command, cwd=ROOT, env={**DEFAULTS, **(env or {})}, stderr=subprocess.PIPE, text=True
    )


def _job(out, num_processes, *args, **how):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    job = f"--coordinator_address=localhost:{port}", f"--num_processes={num_processes}"
    return [_start(out, *args, *job, f"--process_id={i}", **how) for i in range(num_processes)]


def _finish(process):
    """Exit status and what was said on stderr."""
    message = process.communicate(timeout=300)[1]
    return process.returncode, message


def _load(out):
    return xr.open_zarr(out / "phase.zarr", consolidated=False).load()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    out = tmp_path_factory.mktemp("alone")
    status, message = _finish(_start(out, *FLAGS, "--steps=1000"))
    assert status == 0, message
    return _load(out)


def test_processes_give_the_bits_of_one(alone, tmp_path):
    ended = [_finish(one) for one in _job(tmp_path, 3, *FLAGS, "--steps=1000", "--figures")]
    assert [status for status, _ in ended] == [0, 0, 0], ended
    assert _load(tmp_path).equals(alone)
    assert (tmp_path / "phase.png").is_file()


WATCHED = """
import sys
from adam_transition.commands import _distributed, phase
status = phase.COMMAND.run(sys.argv[1:])
alive = [thread.is_alive() for thread in _distributed._WATCHERS]
sys.exit(status or alive != [False, False])
"""


def test_no_thread_is_left_in_jax_when_a_process_of_a_job_ends(tmp_path):
    """Python's exit would abort the process if one were."""
    small = "--n=5", "--beta1=0,0.5", "--beta2=0,0.5", "--sampling=cyclic", "--steps=100"
    job = _job(tmp_path, 2, *small, "--nofigures", program=("-c", WATCHED))
    ended = [_finish(one) for one in job]
    assert [status for status, _ in ended] == [0, 0], ended


def test_four_devices_give_the_bits_of_one(alone, tmp_path):
    env = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    assert _finish(_start(tmp_path, *FLAGS, "--steps=1000", env=env))[0] == 0
    found = _load(tmp_path)
    assert found.equals(alone)
    assert found.attrs["device"].startswith("4 ×")


@pytest.mark.parametrize("victim", [0, 1])
def test_a_death_ends_the_job_and_a_restart_goes_on(tmp_path, victim):
    args = (*FLAGS, "--steps=150000")
    job = _job(tmp_path, 2, *args)
    # the cells are far from done when the first chunks are there
    deadline = time.monotonic() + 300
    while len(kept := _finished_chunks(tmp_path / "phase.zarr")) < 2:
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in job)
        time.sleep(0.05)
    job[victim].send_signal(signal.SIGKILL)
    _finish(job[victim])
    status, message = _finish(job[1 - victim])
    assert status != 0
    # without process 0, which they meet at, JAX may be the first to say it
    assert "process of this job has ended" in message or (victim == 0 and "task died" in message)
    assert not (tmp_path / "phase.json").exists()
    status, message = _finish(_start(tmp_path, *args))  # one may finish what two began
    assert status == 0, message
    # the run has entered its journals in the ledger, so only the files are left to compare
    assert _times(tmp_path / "phase.zarr", kept) == kept


def _finished_chunks(zarr):
    """When the chunks were written that all variables have, and that a journal lists.

    A file is there before its line in the journal: a process may die between the two, and between
    two variables.
    """
    listed = set()
    for journal in zarr.glob("ledger/journals/*"):
        lines = journal.read_text(encoding="utf-8").split("\n")[:-1]  # whole lines only
        listed |= {line.partition(" ")[2] for line in lines}
    chunks = [file.removeprefix("gap/") for file in listed if file.startswith("gap/")]
    paths = {chunk: [f"{name}/{chunk}" for name in VARIABLES] for chunk in chunks}
    return _times(zarr, [chunk for chunk, files in paths.items() if listed.issuperset(files)])


def _times(zarr, chunks):
    return {
        chunk: [(zarr / name / chunk).stat().st_mtime_ns for name in VARIABLES] for chunk in chunks
    }


FAKE_SRUN = """#!/bin/bash
shift  # --kill-on-bad-exit
for i in 0 1; do
  SLURM_PROCID=$i SLURM_LOCALID=$i "$@" & pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid" || exit 1; done
"""


def test_the_slurm_script_runs_as_written(alone, tmp_path):
    """With an srun that starts two tasks here, and the variables that SLURM sets for them."""
    srun = tmp_path / "srun"
    srun.write_text(FAKE_SRUN)
    srun.chmod(srun.stat().st_mode | stat.S_IEXEC)
    slurm = {
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "SLURM_SUBMIT_DIR": str(ROOT),
        "PYTHON": sys.executable,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }
    script = ROOT / "docs/clusters/phase.sbatch"
    command = ["bash", str(script), *FLAGS, "--steps=1000", f"--out={tmp_path / 'out'}"]
    subprocess.run(command, env={**DEFAULTS, **slurm}, check=True, cwd=tmp_path)
    found = _load(tmp_path / "out")
    assert found.equals(alone)
    assert found.attrs["device"].startswith("2 ×")


def test_the_tpu_script_starts_every_host_with_flags_that_exist(tmp_path):
    gcloud = tmp_path / "gcloud"
    gcloud.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    gcloud.chmod(gcloud.stat().st_mode | stat.S_IEXEC)
    script = [
        str(ROOT / "docs/clusters/tpu_slice.sh"),
        "slice",
        "zone",
        "host:/share",
        "repository",
    ]
    path = f"{tmp_path}:{os.environ['PATH']}"
    text = subprocess.run(
        [*script, "--n=5,20", "--trajectories=0.9/0.99"],
        env={**os.environ, "PATH": path},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert "--worker=all" in text
    command = text[text.index("set -eu") :]
    subprocess.run(["bash", "-n", "-c", command], check=True)
    flags = shlex.split(command[command.index("experiments.phase") :])[1:]
    phase.FLAGS(["phase", *flags])
    phase.FLAGS.unparse_flags()
    assert flags == ["--out=/mnt/results/phase", "--n=5,20", "--trajectories=0.9/0.99"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--num_processes=2"], "--num_processes=2: goes with --coordinator_address, --process_id"),
        (
            ["--coordinator_address=localhost:1", "--num_processes=2", "--process_id=2"],
            "--process_id=2: must be below --num_processes=2",
        ),
    ],
)
def test_flags_of_a_job_go_together(tmp_path, capsys, args, message):
    experiment.assert_refused(phase, tmp_path / "out", capsys, args, message)
