"""Damage and death: every file of a store, every kind of fault, a kill at every write."""

import contextlib
import errno
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

from adam_transition.commands import phase
from adam_transition.sweeps import ledgers, store, study
from adam_transition.sweeps.store import StoreError, Variable
from adam_transition.sweeps.study import Filled, variable
from tests import experiment

FAULTS = {
    "flip": lambda content, rng: _flip(content, rng),
    "truncate": lambda content, rng: content[: rng.integers(len(content))],
    "empty": lambda content, rng: b"",
    "delete": lambda content, rng: None,
    "garbage": lambda content, rng: rng.bytes(len(content)),
    "json": lambda content, rng: b"{}",
}


def _flip(content, rng):
    changed = bytearray(content)
    changed[rng.integers(len(content))] ^= 1 << rng.integers(8)
    return bytes(changed)


class _Study:
    """Text, two axes and one that has no values; a part by chunks, and two of several variables."""

    name = "x"

    def coordinates(self):
        return xr.Dataset(
            coords={
                "scheme": ("scheme", np.array(["cyclic", "häufig"], dtype=object)),
                "beta1": ("beta1", np.linspace(0, 0.9, 4), {"long_name": "β1"}),
                "drawn": (("scheme", "triple"), np.arange(6.0).reshape(2, 3) / 7),
            }
        )

    def parts(self):
        dims = ("scheme", "beta1")
        variables = {
            "gap": Variable(dims, np.float64, "a gap"), "diverged": Variable(dims, bool, "verdict"),
        }  # fmt: skip
        simulation = Filled(variables, {"scheme": 1, "beta1": 2}, self._fill)
        return {"simulation": simulation, "squares": self._squares, "means": self._means}

    def _fill(self, results):
        for i, j in np.ndindex(2, 2):
            region = {"scheme": slice(i, i + 1), "beta1": slice(2 * j, 2 * j + 2)}
            if not results.is_complete(region, ["gap", "diverged"]):
                gap = np.sin(np.arange(2.0) + 2 * j + 10 * i)[None]
                results.write(region, {"gap": gap, "diverged": gap > 0})

    def _squares(self, data, _):
        return {
            "step": variable("step", np.arange(3), "step k"),
            "square": variable(("scheme", "beta1"), data["gap"].values ** 2, "gap²"),
        }

    def _means(self, data, _):
        square = data["square"].values
        return {
            "count": variable((), square.size, "how many"),
            "mean": variable("scheme", square.mean(axis=1), "mean"),
        }


def _run(path, steps=10, resume=True):
    results = study.run(
        _Study(), path, identity={"--steps": steps}, attrs={"device": "test"}, resume=resume
    )
    with contextlib.closing(results):
        results.finish(wall_time_s=1.5)
        return results.load()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    path = tmp_path_factory.mktemp("finished") / "x.zarr"
    _run(path)
    return path


def _damage(path, fault, seed):
    if fault == "folder":
        path.unlink()
        (path / "of").mkdir(parents=True)
        return
    content = path.read_bytes()
    changed = FAULTS[fault](content, np.random.default_rng([seed, len(content)]))
    path.unlink() if changed is None else path.write_bytes(changed)


def _read_by_others(path):
    return xr.open_zarr(path, consolidated=False).load()


def _files(path):
    return sorted(p.relative_to(path) for p in path.rglob("*") if p.is_file())


@pytest.mark.parametrize("fault", [*FAULTS, "folder"])
def test_every_file_is_healed_to_the_same_bits(finished, tmp_path, fault):
    """And what is loaded before that is refused in a line that names the file, or is right."""
    good, copy = _read_by_others(finished), tmp_path / "x.zarr"
    for i, file in enumerate(_files(finished)):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(finished, copy)
        _damage(copy / file, fault, seed=1)
        if file.parts[0] != "ledger" and i % 2:  # of the ledger one copy is enough
            with pytest.raises(StoreError) as refused:
                store.Store(copy).load()
            assert "\n" not in str(refused.value)
            assert file.parts[0] in str(refused.value)
        assert _run(copy).identical(good), file
        assert _files(copy) == _files(finished)


def test_a_whole_chunk_in_the_place_of_another_is_noticed(finished, tmp_path):
    copy = tmp_path / "x.zarr"
    shutil.copytree(finished, copy)
    shutil.copyfile(copy / "gap/c/0/0", copy / "gap/c/1/1")
    with pytest.raises(StoreError, match=r"gap/c/1/1: damaged"):
        store.Store(copy).load()
    _run(copy)
    xr.testing.assert_identical(_read_by_others(copy), _read_by_others(finished))


def _stopped(path, monkeypatch, writes):
    """A run that was killed after so many files."""
    with monkeypatch.context() as patch:
        _kill_at(patch, writes)
        with pytest.raises(_Killed):
            _run(path)


def test_half_of_a_store_with_a_chunk_of_elsewhere(finished, tmp_path, monkeypatch):
    """In another's place, or of a store with other flags; without what tells them apart."""
    good, path = _read_by_others(finished), tmp_path / "x.zarr"
    other = tmp_path / "other.zarr"
    shutil.copytree(finished, other)
    (other / "gap/c/0/0").write_bytes((other / "gap/c/1/1").read_bytes())

    def damage(source):
        shutil.copyfile(source, path / "gap/c/0/0")

    writes = 0
    while not (path / "gap/c/0/1").exists():
        writes += 2
        shutil.rmtree(path, ignore_errors=True)
        _stopped(path, monkeypatch, writes)

    for doctor in (
        lambda: damage(path / "gap/c/0/1"),
        lambda: damage(other / "gap/c/0/0"),
        lambda: shutil.rmtree(path / "ledger/journals"),
        lambda: [_damage(one, "flip", 0) for one in (path / "ledger/journals").iterdir()],
        lambda: [_damage(one, "folder", 0) for one in (path / "ledger/journals").iterdir()],
    ):
        shutil.rmtree(path, ignore_errors=True)
        _stopped(path, monkeypatch, writes)
        assert {"gap/c/0/0", "gap/c/0/1"} <= set(map(str, _files(path)))
        assert ledgers.read(path).parts == {}
        doctor()
        assert _run(path).drop_attrs().identical(good.drop_attrs())
        assert not (path / "ledger/journals").exists()


def test_a_store_that_is_replaced_is_never_half_there(finished, tmp_path, monkeypatch):
    """Killed while what it replaces is removed, ledger first; and before."""
    good, path = _read_by_others(finished), tmp_path / "x.zarr"
    shutil.copytree(finished, path)

    def killed(folder, **_):
        if folder.name in ("x.zarr", ".x.zarr.old") and (folder / "ledger").exists():
            real(folder / "ledger")
            raise _Killed

    real = shutil.rmtree
    with monkeypatch.context() as patch:
        patch.setattr(store.shutil, "rmtree", killed)
        with pytest.raises(_Killed):
            _run(path, resume=False)
    assert _run(path).drop_attrs().identical(good.drop_attrs())
    for number in (5, 15, 25):
        with monkeypatch.context() as patch:
            _kill_at(patch, number)
            with pytest.raises(_Killed):
                _run(path, resume=False)
        assert _run(path).drop_attrs().identical(good.drop_attrs())


def test_pieces_are_those_of_their_place(tmp_path):
    results = store.open_or_create(
        tmp_path / "x.zarr", coords=xr.Dataset(), variables={}, chunks={}, identity={}, attrs={}
    )

    def part(_, pieces):
        for i in range(2):
            pieces.save(f"{i}", [np.array(i)])
        assert pieces.load("1")[0] == 1
        folder = pieces.folder
        shutil.copyfile(folder / "0.piece", folder / "1.piece")
        assert pieces.load("1") is None
        _damage(folder / "0.piece", "folder", 0)
        shutil.rmtree(folder / "0.piece")
        assert pieces.load("0") is None
        for place in (folder, folder.parent):
            shutil.rmtree(place)
            place.parent.mkdir(exist_ok=True)
            place.write_text("in the way")
            pieces.save("0", [np.array(5)])
            assert pieces.load("0")[0] == 5
        return {"done": variable((), 1, "done")}

    results.complete("part", part)


def test_a_store_behind_a_link_is_filled_and_replaced_where_it_is(finished, tmp_path):
    link, target = tmp_path / "x.zarr", tmp_path / "elsewhere.zarr"
    shutil.copytree(finished, target)
    link.symlink_to(target)
    for resume in (True, False):
        assert _run(link, resume=resume).drop_attrs().identical(_run(finished).drop_attrs())
        assert link.is_symlink()
    shutil.rmtree(target)
    with pytest.raises(StoreError, match=r"x\.zarr: a symbolic link that leads to no folder"):
        _run(link)


def test_what_may_not_be_read_is_not_called_damaged(finished, tmp_path, monkeypatch):
    copy = tmp_path / "x.zarr"
    shutil.copytree(finished, copy)

    def refuse(path):  # root may read everything
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(pathlib.Path, "read_bytes", refuse)
    with pytest.raises(StoreError, match="cannot read: Permission denied"):
        _run(copy, resume=False)


def test_without_a_ledger_the_way_out_is_named(finished, tmp_path):
    copy = tmp_path / "x.zarr"
    shutil.copytree(finished, copy)
    for file in (copy / "ledger").rglob("*.json"):
        file.write_text("")
    with pytest.raises(StoreError, match=r"copies of its ledger .* --noresume"):
        _run(copy)
    with pytest.raises(StoreError, match=r"copies of its ledger"):
        store.Store(copy).load()
    xr.testing.assert_identical(_run(copy, resume=False), _read_by_others(finished))


def test_a_store_of_the_version_before_is_named_and_may_be_replaced(finished, tmp_path):
    path = tmp_path / "x.zarr"
    old = xr.Dataset(attrs={"identity": '{"version": "0.2.0"}'})
    old.to_zarr(path, zarr_format=3, consolidated=False)
    with pytest.raises(StoreError, match=r"made with --steps=None|made with version=0\.2\.0"):
        _run(path)
    xr.testing.assert_identical(_run(path, resume=False), _read_by_others(finished))


def _kill():
    raise _Killed


class _Killed(BaseException):
    pass


def _kill_at(monkeypatch, number):
    """The number-th file that is put in its place is not, and nothing is done after it."""
    count = [0]

    def counted(real):
        def put(self, target):
            count[0] += 1
            if count[0] > number:
                raise _Killed
            return real(self, target)

        return put

    for name in ("replace", "rename"):
        monkeypatch.setattr(pathlib.Path, name, counted(getattr(pathlib.Path, name)))
    return count


def test_a_kill_at_every_write_is_healed(finished, tmp_path, monkeypatch):
    good = _read_by_others(finished)
    with monkeypatch.context() as patch:
        writes = _kill_at(patch, 10**9)
        _run(tmp_path / "whole.zarr")
    assert writes[0] > 40
    for number in range(0, writes[0], 2):  # every second one: each takes a while
        path = tmp_path / str(number) / "x.zarr"
        with monkeypatch.context() as patch:
            _kill_at(patch, number)
            with pytest.raises(_Killed):
                _run(path)
        assert _run(path).drop_attrs().identical(good.drop_attrs()), number
        shutil.rmtree(path.parent)


def test_a_part_is_done_when_all_of_it_is_there(tmp_path, monkeypatch):
    results = store.open_or_create(
        tmp_path / "x.zarr", coords=xr.Dataset(), variables={}, chunks={}, identity={}, attrs={}
    )
    calls = []

    def part(data, pieces):
        calls.append(len(calls))
        return {"last_of_the_names": variable((), 2, "b"), "first": variable((), 1, "a")}

    with monkeypatch.context() as patch:
        patch.setattr(store.Store, "_commit", lambda *_: _kill())
        with pytest.raises(_Killed):
            results.complete("part", part)
    for _ in range(2):
        results.complete("part", part)
    assert calls == [0, 1]
    assert int(results.load()["first"]) == 1


def test_nobody_else_may_fill_a_store_in_use(tmp_path):
    path = tmp_path / "x.zarr"
    _run(path)
    code = (
        "import sys, pathlib; from adam_transition.sweeps import store\n"
        "lock = store.hold(pathlib.Path(sys.argv[1])); print('held', flush=True)\n"
        "sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout.readline() == b"held\n"
    for resume in (True, False):
        with pytest.raises(StoreError, match=rf"another run is using it \(process {other.pid} on"):
            _run(path, steps=11, resume=resume)
    store.Store(path).load()  # reading is free
    other.send_signal(signal.SIGKILL)  # the kernel gives the lock back
    other.communicate()
    assert _run(path, steps=11, resume=False).attrs["wall_time_s"] == 1.5


SMALL = ("--n=5", "--beta1=0:0.9:16", "--beta2=0:0.96:16", "--sampling=cyclic", "--chunk_cells=32")


def test_two_runs_with_different_flags_never_mix(tmp_path):
    def start(*args):
        command = [sys.executable, "-m", "experiments.phase", *SMALL, *args]
        return subprocess.Popen([*command, f"--out={tmp_path}"], stderr=subprocess.PIPE, text=True)

    jobs = {steps: start(f"--steps={steps}", "--noresume") for steps in (30_000, 31_000)}
    ends = {steps: (job.communicate()[1], job.returncode) for steps, job in jobs.items()}
    won = [steps for steps, (_, status) in ends.items() if status == 0]
    for steps, (message, status) in ends.items():
        if steps not in won:
            assert status == 2
            assert "another run is using it" in message
            assert message.count("\n") == 1
    assert won, ends
    kept = store.Store(tmp_path / "phase.zarr").load()
    again = tmp_path / "again"
    [steps] = [steps for steps in won if f'"steps": {steps}' in kept.attrs["flags"]]
    assert experiment.run(phase, *SMALL, f"--steps={steps}", f"--out={again}") == 0
    assert kept.equals(store.Store(again / "phase.zarr").load())


def test_a_phase_diagram_heals(tmp_path, monkeypatch):
    """Through the command, a few of its files."""
    out = tmp_path / "out"
    args = ["--n=5", "--beta1=0:0.9:3", "--beta2=0:0.96:3", "--steps=50", "--sampling=cyclic"]
    args += ["--trajectories=0/0.1"]
    monkeypatch.setattr("adam_transition.commands._outputs.save_figure", lambda *_: [])
    assert experiment.run(phase, f"--out={out}", *args) == 0
    good = _read_by_others(out / "phase.zarr")
    for i, file in enumerate(_files(out / "phase.zarr")[::4]):
        _damage(out / "phase.zarr" / file, list(FAULTS)[i % len(FAULTS)], seed=i)
        assert experiment.run(phase, f"--out={out}", *args) == 0, file
        assert _read_by_others(out / "phase.zarr").equals(good), file


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(pathlib.Path, "mkdir", denied)
    with pytest.raises(StoreError, match=r"x\.zarr: cannot write: Permission denied"):
        _run(tmp_path / "x.zarr")
