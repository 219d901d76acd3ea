"""Labelled results on disk: a zarr group that xarray reads. Knows nothing of Adam.

A store is created whole (written beside its place, then renamed) and filled region by region; every
file is written beside its place and renamed as well. Whoever opens one to fill it holds its lock:
two runs never mix.

What the store holds stands in its *ledger*: the identity, the attributes, the metadata of every
array, a checksum of every file that is finished, and which parts are complete. The ledger is kept
twice, in two groups of the store in which xarray sees nothing, each with a checksum of its own. So
no damage passes unseen: metadata and attributes are written again from the ledger, coordinates from
the plan, chunks and parts are computed again. The checksums of chunks that belong to no complete
part yet stand in *journals*, a file for each process, which are entered in the ledger by the next
run: a chunk in another's place, or of another store, is none.
"""

import contextlib
import io
import json
import os
import platform
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
import zarr
from filelock import FileLock, Timeout
from zarr.codecs import Crc32cCodec, ZstdCodec

_METADATA = "zarr.json"
_LEDGERS = (f"ledger/{_METADATA}", f"ledger/copy/{_METADATA}")
_PIECES = ".pieces"
_JOURNALS = "ledger/journals"
_IDENTITY_BEFORE = "identity"  # the attribute in which version 0.2.0 kept it
_ANEW = "pass --noresume to begin anew"


class StoreError(Exception):
    """A store that cannot be created, opened, written or read; the message is one line."""


@dataclass(frozen=True)
class Variable:
    """A variable of the data set, to be filled region by region."""

    dims: tuple[str, ...]
    dtype: np.dtype | type
    long_name: str
    units: str = "1"

    @property
    def attrs(self) -> dict[str, Any]:
        return {"long_name": self.long_name, "units": self.units}


@dataclass
class _Ledger:
    """What a store holds; a file is named by its path in the store."""

    identity: dict[str, Any]
    attrs: dict[str, Any]  # of the root group
    coords: dict[str, str]  # by name, a digest of the values
    planned: list[str]  # the variables that it was created with
    metadata: dict[str, str] = field(default_factory=dict)  # by array, the text of its zarr.json
    checksums: dict[str, int] = field(default_factory=dict)  # of files that are finished
    parts: dict[str, list[str]] = field(default_factory=dict)  # by name, the arrays they fill
    revision: int = 0  # the newer of the two copies holds


class _Layout(NamedTuple):
    """Where the values of an array lie."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]

    @classmethod
    def of(cls, name: str, metadata: str) -> "_Layout":
        """From the text of its zarr.json, as this module and xarray make arrays."""
        found = json.loads(metadata)
        chunks = found["chunk_grid"]["configuration"]["chunk_shape"]
        return cls(
            name, tuple(found.get("dimension_names") or ()), tuple(found["shape"]), tuple(chunks)
        )

    def slices(self, region: Mapping[str, slice]) -> tuple[slice, ...]:
        """A region as slices of the axes; those that it does not name are taken whole."""
        sizes = zip(self.dims, self.shape, strict=True)
        return tuple(region.get(dim, slice(0, size)) for dim, size in sizes)

    def files(self, index: tuple[slice, ...]) -> list[str]:
        """The files of the chunks that it touches."""
        first = [part.start // size for part, size in zip(index, self.chunks, strict=True)]
        last = [-(-part.stop // size) for part, size in zip(index, self.chunks, strict=True)]
        places = np.ndindex(*(max(0, b - a) for a, b in zip(first, last, strict=True)))
        return ["/".join((self.name, "c", *map(str, np.add(first, one)))) for one in places]


@dataclass(frozen=True)
class Store:
    """A labelled data set on disk; made by `open_or_create`, or by its path to be read.

    One that is made by `open_or_create` holds the lock as long as it lives.
    """

    path: Path
    _ledger_read: list[_Ledger] = field(default_factory=list, repr=False, compare=False)
    _lock: FileLock | None = field(default=None, repr=False, compare=False)
    _is_new: bool = field(default=False, repr=False, compare=False)  # made by this run
    _part: set[str] | None = field(default=None, repr=False, compare=False)  # what it fills so far
    _part_name: str = field(default="", repr=False, compare=False)

    def close(self) -> None:
        """Lets others open it; when the object or the process is gone, they may as well."""
        if self._lock is not None:
            self._lock.release()

    @contextlib.contextmanager
    def closed_on_error(self) -> Iterator[None]:
        """Closes it where something fails within.

        Of a store that was made by this very run nothing is left after a ValueError: what was asked
        for cannot be computed.
        """
        try:
            yield
        except ValueError:
            if self._is_new:
                self._discard()
            self.close()
            raise
        except BaseException:
            self.close()
            raise

    def _discard(self) -> None:
        shutil.rmtree(_pieces_folder(self.path), ignore_errors=True)
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            _lock_file(self.path).unlink()
            self.path.parent.rmdir()  # if nothing else is in it

    def chunk_sizes(self, name: str) -> dict[str, int]:
        """Length of a chunk along each dimension of a variable."""
        layout = self._layout(name)
        return dict(zip(layout.dims, layout.chunks, strict=True))

    def write(self, region: Mapping[str, slice], values: Mapping[str, np.ndarray]) -> None:
        """Writes one region of some variables; whole chunks, or results may be lost in a crash.

        Raises:
          StoreError: the disk is full or not writable.
        """
        self._note(values)
        with _writing(self.path):
            for name, block in values.items():
                layout = self._layout(name)
                index = layout.slices(region)
                files = layout.files(index)
                self._forget(files)
                self._make_way(files)
                self._array(name)[index] = block
                self._enter(files)

    def is_complete(self, region: Mapping[str, slice], names: Sequence[str]) -> bool:
        """Whether a region of these variables is there, with checksums that agree."""
        self._note(names)
        return all(self._is_complete(name, region) for name in names)

    def complete(self, part: str, compute: Callable[["Store"], None]) -> None:
        """Computes a part of the data set, unless it is there, whole and right.

        `compute` is given the store to fill. What it adds and writes counts when all of it is
        there: a part that was stopped in the middle is not taken for a finished one.

        Args:
          part: its name.
          compute: adds variables, or fills some that the store was created with.

        Raises:
          StoreError: see `add` and `write`.
        """
        ledger = self._ledger()
        if part in ledger.parts and all(self._is_complete(name, {}) for name in ledger.parts[part]):
            return
        filled: set[str] = set()
        compute(replace(self, _part=filled, _part_name=part))
        self._commit(part, filled)
        shutil.rmtree(_pieces_folder(self.path) / part, ignore_errors=True)

    def piece(self, name: str, compute: Callable[[], Sequence[np.ndarray]]) -> Sequence[np.ndarray]:
        """Arrays on the way to a part that takes long: a run that is stopped computes them once.

        They are kept until the part is complete, beside the store. Outside of `complete` nothing
        is.

        Args:
          name: of the piece, in its part.
          compute: returns the arrays; numbers only.

        Raises:
          StoreError: the disk is full or not writable.
        """
        pieces = self.pieces()
        found = pieces.load(name)
        if found is None:
            found = [np.asarray(one) for one in compute()]
            pieces.save(name, found)
        return found

    def pieces(self, group: str = "") -> "Pieces":
        """The same, to be loaded and saved by name."""
        if self._part is None:
            return Pieces(None, 0)
        text = json.dumps([self._ledger().identity, self._part_name, group])
        folder = _pieces_folder(self.path) / self._part_name / group
        return Pieces(folder, zlib.crc32(text.encode()))

    def add(self, name: str, variable: Variable, values: np.ndarray) -> None:
        """Writes a small variable at once, replacing one of that name.

        Raises:
          StoreError: the disk is full or not writable.
        """
        array_values = np.asarray(values)
        with _writing(self.path):
            self._forget([f for f in self._ledger().checksums if f.startswith(f"{name}/")])
            shape = array_values.shape
            _create_array(self._group(), name, variable, shape, tuple(max(1, n) for n in shape))
            self._array(name)[...] = array_values
        if self._part is None:
            self._commit(name, {name})
        else:
            self._part.add(name)

    def has(self, name: str) -> bool:
        """Whether a variable is there, whole and right."""
        return name in self._ledger().metadata and self._is_complete(name, {})

    @property
    def attrs(self) -> dict[str, Any]:
        """The attributes of the data set."""
        return dict(self._ledger().attrs)

    def update_attrs(self, attrs: Mapping[str, Any]) -> None:
        """Sets attributes of the data set.

        Raises:
          StoreError: the disk is full or not writable.
        """
        ledger = self._ledger()
        ledger.attrs.update(dict(attrs))
        with _writing(self.path):
            _write_ledger(self.path, ledger)
            _write_text(self.path / _METADATA, _group_text(ledger.attrs))

    def finish(self, **attrs: Any) -> None:
        """Sets attributes, and keeps a checksum of every chunk of what is complete.

        Raises:
          StoreError: the disk is full or not writable.
        """
        _enter_journals(self.path, self._ledger())
        self.update_attrs(attrs)
        shutil.rmtree(self.path / _JOURNALS, ignore_errors=True)
        shutil.rmtree(_pieces_folder(self.path), ignore_errors=True)

    def load(self) -> xr.Dataset:
        """The whole data set in memory.

        Raises:
          StoreError: a chunk is missing, or a file does not match its checksum.
        """
        ledger = self._ledger()
        for name in ledger.metadata:
            self._check(name)
        if _read_text(self.path / _METADATA) != _group_text(ledger.attrs):
            raise StoreError(f"{self.path / _METADATA}: missing or damaged; run again")
        others = [p.name for p in self.path.iterdir() if p.name not in ledger.metadata]
        try:
            with warnings.catch_warnings():  # zarr warns of files that are not its own
                warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
                return xr.open_zarr(self.path, consolidated=False, drop_variables=others).load()
        except Exception as error:  # what a decoder raises on damaged data may be anything
            for name in ledger.metadata:
                for file in self._chunk_files(name):
                    if not self._decodes(name, file):
                        raise StoreError(f"{self.path / file}: damaged; run again") from error
            raise StoreError(f"{self.path}: cannot be read ({_one_line(error)})") from error

    def _check(self, name: str) -> None:
        ledger = self._ledger()
        if _read_text(self.path / name / _METADATA) != ledger.metadata[name]:
            raise StoreError(f"{self.path / name / _METADATA}: missing or damaged; run again")
        files = self._chunk_files(name)
        missing = [file for file in files if not (self.path / file).is_file()]
        if missing:
            raise StoreError(f"{self.path}: {len(missing)} chunks of {name} are missing; run again")
        for file in files:
            if file in ledger.checksums and not self._is_whole(file):
                raise StoreError(f"{self.path / file}: damaged; run again")

    def _note(self, names: Sequence[str] | Mapping[str, Any]) -> None:
        if self._part is not None:
            self._part.update(names)

    def _ledger(self) -> _Ledger:
        if not self._ledger_read:
            found = _read_ledger(self.path)
            if found is None:
                raise StoreError(f"{self.path}: {_no_store(self.path)}")
            self._ledger_read.append(found)
        return self._ledger_read[0]

    def _commit(self, part: str, names: set[str]) -> None:
        """Enters a part in the ledger: all at once, by one file that is renamed."""
        ledger = self._ledger()
        with _writing(self.path):
            _enter_journals(self.path, ledger)
            for name in sorted(names):
                if name not in ledger.coords:
                    ledger.metadata[name] = (self.path / name / _METADATA).read_text("utf-8")
                for file in self._chunk_files(name):
                    is_known = file in ledger.checksums and self._lock is not None
                    if not is_known and (content := _read(self.path / file)):
                        ledger.checksums[file] = zlib.crc32(content)
            ledger.parts[part] = sorted(names)
            _write_ledger(self.path, ledger)

    def _enter(self, files: Sequence[str]) -> None:
        """Notes the checksums of chunks that were just written."""
        checksums = {file: zlib.crc32((self.path / file).read_bytes()) for file in files}
        self._ledger().checksums.update(checksums)
        journal = self.path / _JOURNALS / f"{platform.node()}.{os.getpid()}"
        journal.parent.mkdir(parents=True, exist_ok=True)
        with journal.open("a", encoding="utf-8") as file:
            file.writelines(f"{known} {name}\n" for name, known in checksums.items())

    def _make_way(self, files: Sequence[str]) -> None:
        """Removes what lies in the place of these files or of their folders."""
        for file in files:
            _make_way(self.path / file, self.path)

    def _forget(self, files: Sequence[str]) -> None:
        """Before files are written again: a part in the middle of that is not complete."""
        ledger = self._ledger()
        known = [file for file in files if file in ledger.checksums]
        if known and self._lock is not None:
            for file in known:
                del ledger.checksums[file]
            names = {file.partition("/")[0] for file in known}
            ledger.parts = {k: v for k, v in ledger.parts.items() if not names & set(v)}
            _write_ledger(self.path, ledger)

    def _group(self) -> zarr.Group:
        # a chunk of fill values must be written too, or it would look missing
        with zarr.config.set({"array.write_empty_chunks": True}):
            return zarr.open_group(self.path, mode="r+")

    def _array(self, name: str) -> zarr.Array:
        with zarr.config.set({"array.write_empty_chunks": True}):
            return zarr.open_array(self.path / name, mode="r+")

    def _layout(self, name: str) -> _Layout:
        """Of an array of the ledger, or of one that is being added."""
        text = self._ledger().metadata.get(name) or _read_text(self.path / name / _METADATA)
        return _Layout.of(name, text or "")

    def _chunk_files(self, name: str) -> list[str]:
        layout = self._layout(name)
        return layout.files(layout.slices({}))

    def _is_complete(self, name: str, region: Mapping[str, slice]) -> bool:
        try:
            layout = self._layout(name)
        except (ValueError, KeyError, TypeError):  # an array that is not there
            return False
        return all(self._is_whole(file) for file in layout.files(layout.slices(region)))

    def _is_whole(self, file: str) -> bool:
        """Whether a chunk is there and is the one that was written."""
        content = _read(self.path / file)
        if content is None:
            return False
        return zlib.crc32(content) == self._ledger().checksums.get(file)

    def _decodes(self, name: str, file: str) -> bool:
        place = [int(part) for part in file.removeprefix(f"{name}/c").split("/") if part]
        chunks = self._layout(name).chunks
        try:
            self._array(name)[tuple(slice(i * n, (i + 1) * n) for i, n in zip(place, chunks))]
        except Exception:  # what a decoder raises on damaged data may be anything
            return False
        return (self.path / file).is_file()


@dataclass(frozen=True)
class Pieces:
    """Arrays that are kept until a part of a store is complete; made by `Store.pieces`."""

    folder: Path | None  # None: nothing is kept
    identity: int  # of what they belong to

    def load(self, name: str) -> list[np.ndarray] | None:
        """Those of that name, or None if they are not there, or damaged."""
        content = None if self.folder is None else _read(self.folder / f"{name}.piece")
        if content is None or len(content) < 8:
            return None
        head = f"{self.identity:08x} {name}".encode()
        if _checksum(head + content[8:]) != content[:8]:
            return None
        with np.load(io.BytesIO(content[8:]), allow_pickle=False) as found:
            return [found[key] for key in found.files]

    def save(self, name: str, arrays: Sequence[np.ndarray]) -> None:
        """Keeps arrays of numbers.

        Raises:
          StoreError: the disk is full or not writable.
        """
        if self.folder is None:
            return
        written = io.BytesIO()
        np.savez(written, *arrays)
        content = written.getvalue()
        head = f"{self.identity:08x} {name}".encode()
        with _writing(self.folder):
            _make_way(self.folder / f"{name}.piece", _pieces_root(self.folder))
            _write_bytes(self.folder / f"{name}.piece", _checksum(head + content) + content)


def _checksum(content: bytes) -> bytes:
    return f"{zlib.crc32(content):08x}".encode()


def _pieces_folder(path: Path) -> Path:
    return path.with_name(f".{path.name}{_PIECES}")


def _pieces_root(folder: Path) -> Path:
    """Where the folder of a store's pieces lies."""
    return next(one.parent for one in (folder, *folder.parents) if one.name.endswith(_PIECES))


def open_or_create(
    path: Path,
    *,
    coords: xr.Dataset,
    variables: Mapping[str, Variable],
    chunks: Mapping[str, int],
    identity: Mapping[str, Any],
    attrs: Mapping[str, Any],
    resume: bool = True,
    shared: bool = False,
) -> Store:
    """A store to fill: the one begun with the same identity if there is one, else a new one.

    Nobody else can open it so until the store that is returned is dropped, or the process ends. Of
    one that exists, damaged metadata, attributes and coordinates are written again.

    Args:
      path: where it lives; its folder is made.
      coords: the coordinates, with their attributes.
      variables: what will be written, by name.
      chunks: length of a chunk for each dimension; a store that exists keeps its own.
      identity: everything that the numbers depend on, JSON-able; compared on reopening.
      attrs: further attributes of the data set.
      resume: continue a store that exists; otherwise it is replaced.
      shared: another process of this job has opened it and holds the lock; this one only writes
        chunks.

    Raises:
      StoreError: the folder cannot be written, or another run uses it, or what is at `path` is no
        store, or it was begun with another identity.
    """
    wanted = json.loads(json.dumps(identity))
    if path.is_symlink():
        if not path.is_dir():
            raise StoreError(f"{path}: a symbolic link that leads to no folder; remove it")
        path = path.resolve()
    if shared:
        found = _read_ledger(path)
        if found is None:
            raise StoreError(f"{path}: not there; the processes of a job need a folder they share")
        _compare(path, found.identity, wanted)
        return Store(path, [found])
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = hold(path)
        draft, old = (path.with_name(f".{path.name}.{word}") for word in ("draft", "old"))
        try:
            _remove(draft)
            if path.exists():
                found = _read_ledger(path)
                if resume:
                    _compare(path, _known_identity(path, found), wanted)
                    if found is None:
                        raise StoreError(f"{path / 'ledger'}: missing or damaged; {_ANEW}")
                    store = Store(path, [found], lock)
                    _heal(store, found, coords, draft)
                    return store
                if not _is_ours(path, found):
                    raise StoreError(f"{path}: {_no_store(path)}")
            ledger = _create(draft, coords, variables, chunks, wanted, attrs)
            shutil.rmtree(_pieces_folder(path), ignore_errors=True)
            if path.exists():  # at once, as a store of which half is removed is nobody's
                _remove(old)
                path.rename(old)
            draft.rename(path)
            shutil.rmtree(old, ignore_errors=True)
        except BaseException:
            lock.release()
            raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return Store(path, [ledger], lock, _is_new=True)


def hold(path: Path) -> FileLock:
    """Takes the lock of a file or folder, which the kernel drops when this process ends.

    The lock is another file beside it, which stays. It is held until what is returned is released
    or dropped.

    Raises:
      StoreError: another run has it, or the file system knows no locks.
    """
    place = _lock_file(path)
    # only a lock of the kernel's: one that a dead process leaves would have to be found stale
    lock = FileLock(place, blocking=False, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        holder = (_read_text(place) or "").strip()
        raise StoreError(
            f"{path}: another run is using it{f' ({holder})' if holder else ''}; wait until it has "
            "ended, or choose another --out"
        ) from None
    except OSError as error:
        raise StoreError(
            f"{place}: cannot lock: {error.strerror or error}; remove it, or choose another --out"
        ) from error
    with contextlib.suppress(OSError):  # a help for people only
        place.write_text(f"process {os.getpid()} on {platform.node()}\n", encoding="utf-8")
    return lock


def _lock_file(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def _create(
    draft: Path,
    coords: xr.Dataset,
    variables: Mapping[str, Variable],
    chunks: Mapping[str, int],
    identity: dict[str, Any],
    attrs: Mapping[str, Any],
) -> _Ledger:
    """Writes a new store at a place where it is not in use yet."""
    _write_coordinates(draft, coords.assign_attrs(attrs))
    group = zarr.open_group(draft, mode="r+")
    for name, variable in variables.items():
        shape = tuple(coords.sizes[dim] for dim in variable.dims)
        chunk = tuple(
            min(chunks.get(dim, size), size) for dim, size in zip(variable.dims, shape, strict=True)
        )
        _create_array(group, name, variable, shape, chunk)
    names = [*map(str, coords.coords), *variables]
    ledger = _Ledger(
        identity=identity,
        attrs=json.loads((draft / _METADATA).read_text("utf-8"))["attributes"],
        coords=_digests(coords),
        planned=list(variables),
        metadata={name: (draft / name / _METADATA).read_text("utf-8") for name in names},
        checksums={
            str(file.relative_to(draft)): zlib.crc32(file.read_bytes())
            for name in coords.coords
            for file in (draft / str(name) / "c").rglob("*")
            if file.is_file()
        },
    )
    _write_text(draft / _METADATA, _group_text(ledger.attrs))
    _write_ledger(draft, ledger)
    return ledger


def _write_coordinates(path: Path, coords: xr.Dataset) -> None:
    with zarr.config.set({"array.write_empty_chunks": True}):  # a coordinate may be all zeros
        coords.to_zarr(path, zarr_format=3, consolidated=False, mode="w")


def _heal(store: Store, ledger: _Ledger, coords: xr.Dataset, draft: Path) -> None:
    """Writes again what follows from the ledger and the plan, where the disk has something else."""
    path = store.path
    _enter_journals(path, ledger)
    for file in (_METADATA, *_LEDGERS, *(f"{name}/{_METADATA}" for name in ledger.metadata)):
        _make_way(path / file, path)
    for name, text in {"": _group_text(ledger.attrs), **ledger.metadata}.items():
        if _read_text(path / name / _METADATA) != text:
            _write_text(path / name / _METADATA, text)
    _drop_incomplete_parts(store, ledger)
    if any(_read_text(path / place) != _ledger_text(ledger) for place in _LEDGERS):
        _write_ledger(path, ledger)
    shutil.rmtree(path / _JOURNALS, ignore_errors=True)
    for left in path.rglob("*.partial"):  # of a process that was killed
        left.unlink(missing_ok=True)
    damaged = [name for name in ledger.coords if not store._is_complete(name, {})]
    if not damaged:
        return
    planned = _digests(coords)
    _write_coordinates(draft, coords)
    for name in damaged:
        if planned.get(name) != ledger.coords[name]:
            file = next(f for f in store._chunk_files(name) if not store._is_whole(f))
            raise StoreError(f"{path / file}: missing or damaged; {_ANEW}")
        store._make_way(store._chunk_files(name))
        for file in store._chunk_files(name):
            target = path / file
            target.parent.mkdir(parents=True, exist_ok=True)
            (draft / file).replace(target)
            ledger.checksums[file] = zlib.crc32(target.read_bytes())
    _write_ledger(path, ledger)


def _drop_incomplete_parts(store: Store, ledger: _Ledger) -> None:
    """They are computed again; until then what they added is not taken for a part of the data."""
    for part, names in list(ledger.parts.items()):
        if not all(store._is_complete(name, {}) for name in names):
            del ledger.parts[part]
            for name in set(names) - set(ledger.planned) - set(ledger.coords):
                ledger.metadata.pop(name, None)
                known = [file for file in ledger.checksums if file.startswith(f"{name}/")]
                for file in known:
                    del ledger.checksums[file]


def _create_array(
    group: zarr.Group,
    name: str,
    variable: Variable,
    shape: tuple[int, ...],
    chunks: tuple[int, ...],
) -> None:
    dtype = np.dtype(variable.dtype)
    group.create_array(
        name,
        shape=shape,
        chunks=chunks,
        dtype=dtype,
        dimension_names=variable.dims,
        attributes=dict(variable.attrs),
        fill_value=np.nan if dtype.kind == "f" else 0,
        compressors=(ZstdCodec(level=1), Crc32cCodec()),
        overwrite=True,
    )


def _digests(coords: xr.Dataset) -> dict[str, str]:
    """Of the values of every coordinate, whatever their place in memory or on disk."""
    found = {}
    for name, one in coords.coords.items():
        values = one.values
        content = (
            json.dumps(values.tolist()).encode()
            if values.dtype.kind in "OUT"
            else np.ascontiguousarray(values).tobytes()
        )
        found[str(name)] = f"{zlib.crc32(content):08x} {zlib.adler32(content):08x} {one.shape}"
    return found


def _group_text(attrs: Mapping[str, Any]) -> str:
    return json.dumps({"attributes": attrs, "zarr_format": 3, "node_type": "group"}, indent=2)


def _ledger_text(ledger: _Ledger) -> str:
    """The ledger as the metadata of a group, so that it belongs where it lies."""
    text = json.dumps(vars(ledger))
    return _group_text({"checksum": zlib.crc32(text.encode()), "ledger": text})


def _write_ledger(path: Path, ledger: _Ledger) -> None:
    ledger.revision += 1
    for place in _LEDGERS:
        _write_text(path / place, _ledger_text(ledger))


def _read_ledger(path: Path) -> _Ledger | None:
    """The newest copy that is whole, or None."""
    found = []
    for place in _LEDGERS:
        text = _read_text(path / place)
        try:
            ledger = _Ledger(**json.loads(json.loads(text or "")["attributes"]["ledger"]))
        except (ValueError, KeyError, TypeError):
            continue
        if _ledger_text(ledger) == text:
            found.append(ledger)
    return max(found, key=lambda ledger: ledger.revision, default=None)


def _enter_journals(path: Path, ledger: _Ledger) -> None:
    """Into the ledger in memory; what cannot be read is as if it had not been written."""
    for journal in sorted(path.glob(f"{_JOURNALS}/*")):
        for line in (_read_text(journal) or "").splitlines():
            known, _, file = line.partition(" ")
            if known.isascii() and known.isdigit() and file.partition("/")[0] in ledger.planned:
                ledger.checksums[file] = int(known)


def _remove(path: Path) -> None:
    """Whatever it is, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _make_way(file: Path, root: Path) -> None:
    """Removes a folder that lies where a file belongs, and a file where one of its folders does."""
    if file.is_dir() and not file.is_symlink():
        shutil.rmtree(file)
    for folder in file.parents:
        if folder == root:
            break
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            folder.unlink()


def _known_identity(path: Path, ledger: _Ledger | None) -> dict[str, Any]:
    """What the store was begun with; that of version 0.2.0 stood in an attribute."""
    if ledger is not None:
        return ledger.identity
    if (before := _identity_before(path)) is not None:
        return before
    raise StoreError(f"{path}: {_no_store(path)}")


def _identity_before(path: Path) -> dict[str, Any] | None:
    try:
        text = json.loads(_read_text(path / _METADATA) or "")["attributes"][_IDENTITY_BEFORE]
        found = json.loads(text)
    except (ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, dict) else None


def _is_ours(path: Path, ledger: _Ledger | None) -> bool:
    """Whether a store may be replaced: one of this program's, however damaged."""
    return ledger is not None or _identity_before(path) is not None or _ledger_folder(path).is_dir()


def _ledger_folder(path: Path) -> Path:
    return path / Path(_LEDGERS[0]).parent


def _no_store(path: Path) -> str:
    if _ledger_folder(path).is_dir():
        return f"both copies of its ledger ({' and '.join(_LEDGERS)}) are damaged; {_ANEW}"
    return "not a store of this program; remove it or choose another folder"


def _compare(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for key in sorted(found.keys() | wanted.keys()):
        if found.get(key) != wanted.get(key):
            raise StoreError(
                f"{path}: made with {key}={_shown(found.get(key))}, not "
                f"{key}={_shown(wanted.get(key))}; choose another --out, or pass --noresume to "
                "replace it"
            )


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Failures of the file system as one line."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path}: cannot write: {error.strerror or error}") from error


def _write_text(path: Path, text: str) -> None:
    _write_bytes(path, text.encode())


def _write_bytes(path: Path, content: bytes) -> None:
    """Writes a file whole, or leaves the one that is there; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.partial")
    draft.write_bytes(content)
    draft.replace(path)


def _read(path: Path) -> bytes | None:
    """What a file holds; None if it is not there, or is none.

    Raises:
      StoreError: it is there and may not be read, which is no damage.
    """
    try:
        return path.read_bytes() if path.is_file() else None  # to open a FIFO is to wait
    except PermissionError as error:
        raise StoreError(f"{path}: cannot read: {error.strerror}") from error
    except OSError:
        return None


def _read_text(path: Path) -> str | None:
    content = _read(path)
    try:
        return None if content is None else content.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
