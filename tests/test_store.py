"""The store: durable chunks, damage found, foreign stores refused."""

import errno
import os
import pathlib

import numpy as np
import pytest
import xarray as xr

from adam_transition.sweeps import store
from adam_transition.sweeps.store import StoreError, Variable
from adam_transition.sweeps.study import variable

IDENTITY = {"--steps": 10, "--n": ["5", "6"]}


def _create(path, identity=IDENTITY, resume=True, chunks=None):
    coords = xr.Dataset(
        coords={
            "scheme": ("scheme", np.array(["cyclic", "other"], dtype=object)),
            "beta1": ("beta1", np.linspace(0, 0.9, 10), {"long_name": "β1"}),
            "seed": ("seed", np.array([0])),  # zeros only, zarr's fill value
        }
    )
    variables = {
        "gap": Variable(("scheme", "beta1"), np.float32, "a gap"),
        "diverged": Variable(("scheme", "beta1"), bool, "a verdict"),
    }
    return store.open_or_create(
        path,
        coords=coords,
        variables=variables,
        chunks=chunks or {"scheme": 1, "beta1": 4},
        identity=identity,
        attrs={"device": "test"},
        resume=resume,
    )


def _region(i, part):
    return {"scheme": slice(i, i + 1), "beta1": part}


def _fill(results):
    for i in range(2):
        for part in (slice(0, 4), slice(4, 8), slice(8, 10)):
            values = np.arange(part.start, part.stop, dtype=np.float32)[None] + 100 * i
            # zeros and False equal the fill values and must be stored all the same
            results.write(_region(i, part), {"gap": values, "diverged": values > 103})


def _chunk_files(path, name):
    return sorted(p for p in (path / name / "c").rglob("*") if p.is_file())


def test_round_trip_with_labels(tmp_path):
    results = _create(tmp_path / "x.zarr")
    _fill(results)
    results.add("extra", variable("step", np.arange(3.0), "extra", "s"))
    dataset = results.load()
    assert dataset["gap"].dims == ("scheme", "beta1")
    np.testing.assert_array_equal(dataset["gap"].sel(scheme="other"), np.arange(10) + 100)
    assert dataset["diverged"].dtype == bool
    assert dataset["gap"].attrs == {"long_name": "a gap", "units": "1"}
    assert dataset["extra"].attrs["units"] == "s"
    assert dataset.attrs["device"] == "test"
    assert results.has("extra")
    assert not results.has("absent")


def test_completeness_chunk_by_chunk(tmp_path):
    results = _create(tmp_path / "x.zarr")
    part = _region(0, slice(4, 8))
    assert not results.is_complete(part, ["gap", "diverged"])
    results.write(part, {"gap": np.zeros((1, 4), np.float32)})
    assert not results.is_complete(part, ["gap", "diverged"])
    results.write(part, {"diverged": np.zeros((1, 4), bool)})
    assert results.is_complete(part, ["gap", "diverged"])
    assert not results.is_complete(_region(0, slice(0, 8)), ["gap"])


def test_reopening_keeps_results_and_chunks(tmp_path):
    _fill(_create(tmp_path / "x.zarr"))
    again = _create(tmp_path / "x.zarr", chunks={"beta1": 10})
    assert again.chunk_sizes("gap") == {"scheme": 1, "beta1": 4}
    assert again.is_complete({}, ["gap", "diverged"])


def test_no_resume_starts_anew(tmp_path):
    _fill(_create(tmp_path / "x.zarr"))
    again = _create(tmp_path / "x.zarr", resume=False)
    assert not again.is_complete(_region(0, slice(0, 4)), ["gap"])


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty", "remove"])
def test_a_damaged_chunk_is_noticed(tmp_path, damage):
    results = _create(tmp_path / "x.zarr")
    _fill(results)
    file = _chunk_files(results.path, "gap")[1]
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x10
    if damage == "remove":
        file.unlink()
    else:
        kept = {"flip": len(content), "truncate": len(content) // 2, "empty": 0}[damage]
        file.write_bytes(bytes(content[:kept]))
    assert not results.is_complete({}, ["gap"])
    assert results.is_complete({}, ["diverged"])
    with pytest.raises(StoreError, match=r"x\.zarr.*run again"):
        results.load()


def test_an_unfinished_store_does_not_load(tmp_path):
    with pytest.raises(StoreError, match=r"chunks of .* are missing"):
        _create(tmp_path / "x.zarr").load()


def test_a_store_of_other_flags_is_refused_and_kept(tmp_path):
    _fill(_create(tmp_path / "x.zarr"))
    with pytest.raises(StoreError, match=r"made with --steps=10, not --steps=11"):
        _create(tmp_path / "x.zarr", identity={**IDENTITY, "--steps": 11})
    assert _create(tmp_path / "x.zarr").is_complete({}, ["gap"])


@pytest.mark.parametrize("resume", [True, False])
def test_a_foreign_folder_or_file_is_refused_and_kept(tmp_path, resume):
    folder = tmp_path / "x.zarr"
    folder.mkdir()
    (folder / "precious.txt").write_text("keep me")
    with pytest.raises(StoreError, match="not a store of this program"):
        _create(folder, resume=resume)
    assert (folder / "precious.txt").read_text() == "keep me"
    (tmp_path / "y.zarr").write_text("a file")
    with pytest.raises(StoreError, match="not a store of this program"):
        _create(tmp_path / "y.zarr", resume=resume)


def test_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/x\.zarr: cannot write"):
        _create(tmp_path / "file" / "x.zarr")


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    results = _create(tmp_path / "x.zarr")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pathlib.Path, "replace", full)
    with pytest.raises(StoreError, match="No space left on device"):
        results.write(_region(0, slice(0, 4)), {"gap": np.zeros((1, 4), np.float32)})
    monkeypatch.undo()
    assert not results.is_complete(_region(0, slice(0, 4)), ["gap"])


def test_pieces_are_kept_until_their_part_is_complete(tmp_path):
    results = _create(tmp_path / "x.zarr")
    calls = []

    def part(pieces, *, stop):
        def compute():
            calls.append(stop)
            return [np.arange(3), np.eye(2)]

        one, two = pieces.keep("first", compute)
        if stop:
            raise KeyboardInterrupt
        return {"sum": variable((), one.sum() + two.sum(), "sum")}

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            results.complete("sums", lambda _, pieces: part(pieces, stop=True))
    assert calls == [True]
    [piece] = (tmp_path / ".x.zarr.pieces/sums").glob("*.piece")
    content = bytearray(piece.read_bytes())
    content[len(content) // 2] ^= 1
    piece.write_bytes(bytes(content))
    results.complete("sums", lambda _, pieces: part(pieces, stop=False))
    assert calls == [True, False]  # what was damaged is computed again
    assert not piece.exists()
    assert float(results._array("sum")[()]) == 5


def test_pieces_of_other_flags_are_not_taken(tmp_path):
    for steps in (10, 11):
        results = _create(tmp_path / "x.zarr", {"--steps": steps}, resume=steps == 10)
        found = []

        def part(_, pieces, steps=steps, found=found):
            found += pieces.keep("only", lambda: [np.array(steps)])
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            results.complete("part", part)
        assert found == [steps]
        del results


def test_a_refused_run_leaves_nothing(tmp_path):
    results = _create(tmp_path / "out" / "x.zarr")
    with pytest.raises(ValueError, match="cannot be"), results.closed_on_error():
        raise ValueError("cannot be")
    assert not (tmp_path / "out").exists()
    _create(tmp_path / "out" / "x.zarr")
    again = _create(tmp_path / "out" / "x.zarr")
    with pytest.raises(ValueError, match="cannot be"), again.closed_on_error():
        raise ValueError("cannot be")
    assert (tmp_path / "out" / "x.zarr").is_dir()  # another run began it
