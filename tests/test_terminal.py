"""Programs in rough surroundings: encodings, closed streams, signals, children, locks, jobs."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from adam_transition.commands import (
    _compilation_cache,
    _flags,
    _terminal,
    boundary,
    paper,
)
from adam_transition.sweeps import memory, store
from tests import experiment

EXPLORER = [sys.executable, "-m", "experiments.explorer"]


@pytest.mark.parametrize(
    ("character", "plain"),
    [("β", "beta"), ("√", "sqrt "), ("≤", "<="), ("ⁿ", "^n"), ("é", "e"), ("雪", "\\u96ea")],
)
def test_what_an_encoding_lacks_is_said_in_ascii(character, plain):
    assert _terminal._in_ascii(character) == plain


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_help_in_any_encoding(encoding):
    done = subprocess.run(
        [sys.executable, "-m", "experiments.phase", "--help"], capture_output=True, check=True,
        env={**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"},
    )  # fmt: skip
    text = done.stdout.decode(encoding)
    assert ("(β1, β2)" if encoding == "utf-8" else "(beta1, beta2)") in text


@pytest.mark.parametrize("closed", [">&-", "2>&-", "2>/dev/full", "<&- >&- 2>&-"])
def test_closed_streams_are_no_obstacle(tmp_path, closed):
    command = f"{sys.executable} -m experiments.explorer --out={tmp_path} {closed}"
    assert subprocess.run(["bash", "-c", command], check=False, timeout=120).returncode == 0
    assert (tmp_path / "explorer.html").stat().st_size > 10_000


def test_a_pipe_that_nobody_reads_ends_it_as_it_ends_others():
    command = f"{sys.executable} -m experiments.phase --help | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "141"
    assert done.stderr == ""


def test_a_full_disk_behind_stdout_is_said():
    command = f"{sys.executable} -m experiments.phase --help > /dev/full"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "phase: cannot write to stdout: No space left on device\n"


LONG = (
    "--n=5", "--beta1=0:0.9:64", "--beta2=0:0.9:64", "--sampling=cyclic", "--steps=100000000",
    "--chunk_cells=64",
)  # fmt: skip


@pytest.mark.parametrize(
    ("signum", "word", "status"),
    [(signal.SIGTERM, "terminated", 143), (signal.SIGHUP, "its terminal hung up", 129),
     (signal.SIGINT, "interrupted", 130)],
)  # fmt: skip
def test_a_signal_ends_a_run_at_once_with_one_line(tmp_path, signum, word, status):
    # what a shell without job control puts in the background is deaf to SIGINT, under nohup SIGHUP
    code = (
        "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL);"
        "runpy.run_module('experiments.phase', run_name='__main__', alter_sys=True)"
    )
    command = [sys.executable, "-c", code, *LONG, f"--out={tmp_path}"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        _wait_for(lambda: (tmp_path / "phase.zarr").is_dir())
        time.sleep(1)
        process.send_signal(signum)
        message = process.communicate(timeout=60)[1]  # of a run that would take hours
    finally:
        process.kill()
    assert process.returncode == status
    assert message == f"phase: {word}; finished chunks are kept, run again to continue\n"


def _wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL])
def test_a_paper_leaves_no_child_behind(tmp_path, signum):
    command = [sys.executable, "-m", "experiments.paper", "--scale=smoke", "--only=theorem_3_1"]
    parent = subprocess.Popen(
        [*command, f"--out={tmp_path}"], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    _wait_for(lambda: (tmp_path / "theorem_3_1/theorem_3_1.zarr").is_dir())
    [child] = _children(parent.pid)
    parent.send_signal(signum)
    assert parent.wait(30) == {signal.SIGTERM: 143, signal.SIGKILL: -9}[signum]
    _wait_for(lambda: not _runs(child), 30)


def _children(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(one) for one in file.read().split()]


def _runs(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_two_papers_do_not_share_a_folder(tmp_path, capsys):
    lock = store.hold(tmp_path / "paper.json")
    assert experiment.run(paper, f"--out={tmp_path}", "--scale=smoke", "--only=phase") == 2
    assert "paper.json: another run is using it" in capsys.readouterr().err
    lock.release()


def test_a_job_whose_processes_never_come_ends_in_one_line(tmp_path):
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.phase", f"--out={tmp_path / 'out'}",
         f"--coordinator_address=localhost:{port}", "--num_processes=2", "--process_id=1",
         "--join_timeout=2"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert f"localhost:{port}: not all processes of the job have come within 2 s" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("address", ["nonsense", "a:b", ":1", "localhost:99999999", "a..b:1"])
def test_an_address_must_be_one(tmp_path, capsys, address):
    args = [f"--coordinator_address={address}", "--num_processes=2", "--process_id=0"]
    experiment.assert_refused(boundary, tmp_path / "out", capsys, args, f"address={address}: ")


def test_a_lock_of_the_compilation_cache_that_is_kept_turns_the_cache_off(tmp_path):
    folder = tmp_path / "adam_transition" / f"jax-{_compilation_cache._machine()}"
    folder.mkdir(parents=True)
    code = (
        "import filelock, sys; l = filelock.FileLock(sys.argv[1]); l.acquire(); print(flush=True)"
    )
    keeper = subprocess.Popen(
        [sys.executable, "-c", f"{code}; sys.stdin.read()", str(folder / ".lockfile")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    keeper.stdout.readline()
    kept = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    done = subprocess.run(
        [sys.executable, "-m", "experiments.phase", "--n=5", "--beta1=0", "--beta2=0,0.5",
         "--steps=50", "--sampling=cyclic", "--nofigures", f"--out={tmp_path / 'out'}"],
        env={**kept, "XDG_CACHE_HOME": str(tmp_path)}, stderr=subprocess.PIPE, text=True,
        check=True, timeout=120,
    )  # fmt: skip
    keeper.communicate()
    assert done.stderr == f"phase: {_compilation_cache.IN_USE}\n"


@pytest.mark.parametrize("path", ["", "{0}", "{0}/file/x.json"])
def test_a_summary_that_could_not_be_written_is_found_at_once(tmp_path, capsys, path):
    (tmp_path / "file").touch()
    args = [f"--json={path.format(tmp_path)}"]
    experiment.assert_refused(boundary, tmp_path / "out", capsys, args, "--json=")


def test_flagfiles_without_a_name_or_within_themselves(tmp_path, capsys):
    (tmp_path / "a.flags").write_text(f"# a\n--flagfile={tmp_path}/b.flags\n")
    (tmp_path / "b.flags").write_text(f"--n=5\n--flagfile={tmp_path}/a.flags\n")
    for args, message in (
        (["--flagfile="], "--flagfile=: must name a file"),
        ([f"--flagfile={tmp_path}/a.flags"], "includes itself"),
        ([f"--flagfile={tmp_path}"], "cannot read: Is a directory"),
    ):
        experiment.assert_refused(boundary, tmp_path / "out", capsys, args, message)


@pytest.mark.parametrize(
    ("value", "wanted"),
    [(float("nan"), "finite"), (1e39, "float32 cannot hold it"), (1e-60, "float32 cannot hold it"),
     (0.0, "must be above 0"), (-1.0, "must be above 0")],
)  # fmt: skip
def test_numbers_that_the_precision_cannot_hold(value, wanted):
    with pytest.raises(ValueError, match=rf"--step_size=.*{wanted}"):
        _flags.check_number("step_size", value, dtype="float32", above=0)
    _flags.check_number("step_size", 0.1, dtype="float32", above=0)


def test_what_does_not_fit_says_what_it_would_take():
    with pytest.raises(
        ValueError, match=r"--n=5: needs about 1e\+06 PB of memory, and .* are avail"
    ):
        _flags.check_memory("--n=5", 1e21)
    _flags.check_memory("--n=5", 1e3)
    assert 1e6 < memory.available() < 1e15
