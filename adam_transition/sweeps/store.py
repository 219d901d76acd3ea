"""Labelled results on disk: a zarr group that xarray reads. Independent of Adam.

A store is created atomically (written to another path, then renamed) and filled region by region;
every file is written atomically too. A process that opens a store to fill it holds its lock, so two
runs never mix.

The content of a store is listed in its *ledger*: the identity, the attributes, the metadata of
every array, a checksum of every finished file, and the complete parts. The store holds two copies
of the ledger, each with its own checksum, in two groups that xarray ignores. So all damage is
detected: metadata and attributes are restored from the ledger and coordinates from the plan, while
chunks and parts are computed again. The checksums of chunks that do not yet belong to a complete
part are kept in *journals*, one file per process, which the next run enters in the ledger. A chunk
that was moved, or copied from another store, does not match its checksum.
"""

import contextlib
import json
import os
import platform
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from filelock import FileLock, Timeout
from zarr.codecs import Crc32cCodec, ZstdCodec

from adam_transition.sweeps import _files, ledgers, pieces
from adam_transition.sweeps._files import StoreError
from adam_transition.sweeps.pieces import Pieces


@dataclass(frozen=True)
class Variable:
    """A variable of the data set, to be filled region by region."""

    dims: tuple[str, ...]
    dtype: np.dtype | type | str
    long_name: str
    units: str = "1"

    @property
    def attrs(self) -> dict[str, Any]:
        """Attributes of the variable in the data set."""
        return {"long_name": self.long_name, "units": self.units}


@dataclass(frozen=True)
class Store:
    """A labelled data set on disk; made with `open_or_create`, or from its path for reading.

    A store from `open_or_create` holds the lock as long as the object exists.
    """

    path: Path
    _ledger_read: list[ledgers.Ledger] = field(default_factory=list, repr=False, compare=False)
    _lock: FileLock | None = field(default=None, repr=False, compare=False)
    _is_new: bool = field(default=False, repr=False, compare=False)  # created by this run
    _part: set[str] | None = field(default=None, repr=False, compare=False)  # written so far

    def close(self) -> None:
        """Releases the lock, as the end of the object or of the process also does."""
        if self._lock is not None:
            self._lock.release()

    @contextlib.contextmanager
    def closed_on_error(self) -> Iterator[None]:
        """Context manager that closes the store on an error.

        A store that this run has created is removed on a ValueError, which means that the study
        cannot be computed.
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
        shutil.rmtree(pieces.folder_of(self.path), ignore_errors=True)
        shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            _lock_file(self.path).unlink()
            self.path.parent.rmdir()  # if nothing else is in it

    def chunk_sizes(self, name: str) -> dict[str, int]:
        """The length of a chunk along each dimension of a variable."""
        layout = self._layout(name)
        return dict(zip(layout.dims, layout.chunks, strict=True))

    def write(self, region: Mapping[str, slice], values: Mapping[str, np.ndarray]) -> None:
        """Writes one region of some variables.

        The region must consist of whole chunks, or results may be lost in a crash.

        Raises:
          StoreError: the disk is full or not writable.
        """
        self._note(values)
        with _files.writing(self.path):
            for name, block in values.items():
                layout = self._layout(name)
                index = layout.slices(region)
                files = layout.files(index)
                self._forget(files)
                self._make_way(files)
                self._array(name)[index] = block
                self._enter(files)

    def is_complete(self, region: Mapping[str, slice], names: Sequence[str]) -> bool:
        """Whether a region of these variables exists, with matching checksums."""
        self._note(names)
        return all(self._is_complete(name, region) for name in names)

    def complete(
        self, part: str, compute: Callable[[xr.Dataset, Pieces], Mapping[str, xr.Variable]]
    ) -> None:
        """Computes a part of the data set, unless it is complete and undamaged.

        A part is committed as a whole, so an interrupted part does not count as complete.

        Args:
          part: name of the part.
          compute: takes the data computed so far and storage for intermediate arrays, and returns
            the variables of the part.

        Raises:
          StoreError: the disk is full or not writable.
        """
        if self._has_part(part):
            return
        folder = pieces.folder_of(self.path) / part
        text = json.dumps([self._ledger().identity, part])
        computed = compute(self.load(self._computed()), Pieces(folder, zlib.crc32(text.encode())))
        for name, variable in computed.items():
            self._add(name, variable)
        self._commit(part, set(computed))
        shutil.rmtree(folder, ignore_errors=True)

    def fill(
        self,
        part: str,
        write: Callable[["Store"], None],
        *,
        owner: bool = True,
        shared: bool = False,
    ) -> None:
        """Fills variables with which the store was created; `complete` adds others.

        Args:
          part: name of the part.
          write: writes all missing chunks; must check all chunks (`is_complete`).
          owner: whether this process commits the part, after all processes have done their share.
          shared: whether other processes fill the part too; then `write` is always called.

        Raises:
          StoreError: the disk is full or not writable.
        """
        if not shared and self._has_part(part):
            return
        filled: set[str] = set()
        write(replace(self, _part=filled))
        if owner:
            self._commit(part, filled)

    def add(self, name: str, variable: xr.Variable) -> None:
        """Writes a small variable as a part of its own; replaces a variable of that name.

        Raises:
          StoreError: the disk is full or not writable.
        """
        self._add(name, variable)
        self._commit(name, {name})

    def _add(self, name: str, variable: xr.Variable) -> None:
        values = np.asarray(variable.values)
        kind = Variable(
            tuple(map(str, variable.dims)),
            values.dtype,
            variable.attrs["long_name"],
            variable.attrs["units"],
        )
        chunks = tuple(max(1, size) for size in values.shape)
        with _files.writing(self.path):
            self._forget([f for f in self._ledger().checksums if f.startswith(f"{name}/")])
            _create_array(self._group(), name, kind, values.shape, chunks)
            self._array(name)[...] = values

    def _has_part(self, part: str) -> bool:
        parts = self._ledger().parts
        return part in parts and all(self._is_complete(name, {}) for name in parts[part])

    def _computed(self) -> list[str]:
        """The variables of the complete parts."""
        return [name for names in self._ledger().parts.values() for name in names]

    def has(self, name: str) -> bool:
        """Whether a variable is complete and undamaged."""
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
        with _files.writing(self.path):
            ledgers.write(self.path, ledger)
            _files.write_text(self.path / ledgers.METADATA, ledgers.group_text(ledger.attrs))

    def finish(self, **attrs: Any) -> None:
        """Sets attributes, enters the journals in the ledger and removes temporary files.

        Raises:
          StoreError: the disk is full or not writable.
        """
        ledgers.enter_journals(self.path, self._ledger())
        self.update_attrs(attrs)
        shutil.rmtree(self.path / ledgers.JOURNALS, ignore_errors=True)
        shutil.rmtree(pieces.folder_of(self.path), ignore_errors=True)

    def load(self, variables: Sequence[str] | None = None) -> xr.Dataset:
        """Loads the data set into memory, with its coordinates.

        Args:
          variables: names of the variables to load; default: all.

        Raises:
          StoreError: a chunk is missing, or a file does not match its checksum.
        """
        ledger = self._ledger()
        names = ledger.metadata if variables is None else {*ledger.coords, *variables}
        for name in names:
            self._check(name)
        if _files.read_text(self.path / ledgers.METADATA) != ledgers.group_text(ledger.attrs):
            raise StoreError(f"{self.path / ledgers.METADATA}: missing or damaged; run again")
        others = [p.name for p in self.path.iterdir() if p.name not in names]
        try:
            with warnings.catch_warnings():  # zarr warns about unknown files
                warnings.simplefilter("ignore", zarr.errors.ZarrUserWarning)
                return xr.open_zarr(self.path, consolidated=False, drop_variables=others).load()
        except Exception as error:  # decoders may raise any error on damaged data
            for name in names:
                for file in self._chunk_files(name):
                    if not self._decodes(name, file):
                        raise StoreError(f"{self.path / file}: damaged; run again") from error
            raise StoreError(f"{self.path}: cannot be read ({_files.one_line(error)})") from error

    def _check(self, name: str) -> None:
        ledger = self._ledger()
        if _files.read_text(self.path / name / ledgers.METADATA) != ledger.metadata[name]:
            raise StoreError(
                f"{self.path / name / ledgers.METADATA}: missing or damaged; run again"
            )
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

    def _ledger(self) -> ledgers.Ledger:
        if not self._ledger_read:
            ledger = ledgers.read(self.path)
            if ledger is None:
                raise StoreError(f"{self.path}: {ledgers.no_store(self.path)}")
            self._ledger_read.append(ledger)
        return self._ledger_read[0]

    def _commit(self, part: str, names: set[str]) -> None:
        """Enters a part in the ledger atomically."""
        ledger = self._ledger()
        with _files.writing(self.path):
            ledgers.enter_journals(self.path, ledger)
            for name in sorted(names):
                if name not in ledger.coords:
                    ledger.metadata[name] = (self.path / name / ledgers.METADATA).read_text("utf-8")
                for file in self._chunk_files(name):
                    is_known = file in ledger.checksums and self._lock is not None
                    if not is_known and (content := _files.read(self.path / file)):
                        ledger.checksums[file] = zlib.crc32(content)
            ledger.parts[part] = sorted(names)
            ledgers.write(self.path, ledger)

    def _enter(self, files: Sequence[str]) -> None:
        """Records the checksums of newly written chunks in the ledger and in a journal."""
        checksums = {file: zlib.crc32((self.path / file).read_bytes()) for file in files}
        self._ledger().checksums.update(checksums)
        journal = self.path / ledgers.JOURNALS / f"{platform.node()}.{os.getpid()}"
        journal.parent.mkdir(parents=True, exist_ok=True)
        with journal.open("a", encoding="utf-8") as file:
            file.writelines(f"{checksum} {name}\n" for name, checksum in checksums.items())

    def _make_way(self, files: Sequence[str]) -> None:
        """Removes anything that blocks the paths of these files."""
        for file in files:
            _files.make_way(self.path / file, self.path)

    def _forget(self, files: Sequence[str]) -> None:
        """Removes files that are about to be rewritten, and their parts, from the ledger."""
        ledger = self._ledger()
        known = [file for file in files if file in ledger.checksums]
        if known and self._lock is not None:
            for file in known:
                del ledger.checksums[file]
            names = {file.partition("/")[0] for file in known}
            ledger.parts = {k: v for k, v in ledger.parts.items() if not names & set(v)}
            ledgers.write(self.path, ledger)

    def _group(self) -> zarr.Group:
        # chunks of fill values must be written too, otherwise they would look missing
        with zarr.config.set({"array.write_empty_chunks": True}):
            return zarr.open_group(self.path, mode="r+")

    def _array(self, name: str) -> zarr.Array:
        with zarr.config.set({"array.write_empty_chunks": True}):
            return zarr.open_array(self.path / name, mode="r+")

    def _layout(self, name: str) -> ledgers.Layout:
        """The layout of an array in the ledger, or of one that is being added."""
        text = self._ledger().metadata.get(name) or _files.read_text(
            self.path / name / ledgers.METADATA
        )
        return ledgers.Layout.of(name, text or "")

    def _chunk_files(self, name: str) -> list[str]:
        layout = self._layout(name)
        return layout.files(layout.slices({}))

    def _is_complete(self, name: str, region: Mapping[str, slice]) -> bool:
        try:
            layout = self._layout(name)
        except (ValueError, KeyError, TypeError):  # the array does not exist
            return False
        return all(self._is_whole(file) for file in layout.files(layout.slices(region)))

    def _is_whole(self, file: str) -> bool:
        """Whether a chunk exists and matches its checksum."""
        content = _files.read(self.path / file)
        if content is None:
            return False
        return zlib.crc32(content) == self._ledger().checksums.get(file)

    def _decodes(self, name: str, file: str) -> bool:
        place = [int(part) for part in file.removeprefix(f"{name}/c").split("/") if part]
        chunks = self._layout(name).chunks
        try:
            self._array(name)[tuple(slice(i * n, (i + 1) * n) for i, n in zip(place, chunks))]
        except Exception:  # decoders may raise any error on damaged data
            return False
        return (self.path / file).is_file()


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
    """Opens a store for filling: an existing one of the same identity, or a new one.

    The store is locked for other runs until the returned object is dropped or the process ends.
    Damaged metadata, attributes and coordinates of an existing store are restored.

    Args:
      path: path of the store; its folder is created.
      coords: the coordinates, with their attributes.
      variables: variables that will be filled, by name.
      chunks: length of a chunk for each dimension; an existing store keeps its chunks.
      identity: all inputs on which the numbers depend, JSON-serialisable; compared with those of
        an existing store.
      attrs: further attributes of the data set.
      resume: continue an existing store; otherwise replace it.
      shared: another process of this job has opened the store and holds the lock; this process only
        writes chunks.

    Raises:
      StoreError: the folder cannot be written, another run uses the store, `path` exists and is not
        a store, or the store has another identity.
    """
    wanted_identity = json.loads(json.dumps(identity))
    if path.is_symlink():
        if not path.is_dir():
            raise StoreError(f"{path}: a symbolic link that leads to no folder; remove it")
        path = path.resolve()
    if shared:
        existing = ledgers.read(path)
        if existing is None:
            raise StoreError(f"{path}: missing; the processes of a job need a shared folder")
        ledgers.compare(path, existing.identity, wanted_identity)
        return Store(path, [existing])
    with _files.writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = hold(path)
        draft, old = (path.with_name(f".{path.name}.{word}") for word in ("draft", "old"))
        try:
            _files.remove(draft)
            if path.exists():
                existing = ledgers.read(path)
                if resume:
                    ledgers.compare(path, ledgers.known_identity(path, existing), wanted_identity)
                    if existing is None:
                        raise StoreError(f"{path / 'ledger'}: missing or damaged; {ledgers.ANEW}")
                    store = Store(path, [existing], lock)
                    _heal(store, existing, coords, draft)
                    return store
                if not ledgers.is_ours(path, existing):
                    raise StoreError(f"{path}: {ledgers.no_store(path)}")
            ledger = _create(draft, coords, variables, chunks, wanted_identity, attrs)
            shutil.rmtree(pieces.folder_of(path), ignore_errors=True)
            if path.exists():  # renamed first: a half-removed store would not be recognised
                _files.remove(old)
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
    """Locks a file or folder until the returned lock is released or dropped, or the process ends.

    The lock is a separate file beside it, which remains.

    Raises:
      StoreError: another run holds the lock, or the file system does not support locks.
    """
    place = _lock_file(path)
    # kernel locks only: a lock file of a dead process could not be told from a valid one
    lock = FileLock(place, blocking=False, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout:
        holder = (_files.read_text(place) or "").strip()
        raise StoreError(
            f"{path}: another run is using it{f' ({holder})' if holder else ''}; wait until it has "
            "ended, or choose another --out"
        ) from None
    except OSError as error:
        raise StoreError(
            f"{place}: cannot lock: {error.strerror or error}; remove it, or choose another --out"
        ) from error
    with contextlib.suppress(OSError):  # for people only
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
) -> ledgers.Ledger:
    """Writes a new store to a temporary path."""
    _write_coordinates(draft, coords.assign_attrs(attrs))
    group = zarr.open_group(draft, mode="r+")
    for name, variable in variables.items():
        shape = tuple(coords.sizes[dim] for dim in variable.dims)
        chunk = tuple(
            min(chunks.get(dim, size), size) for dim, size in zip(variable.dims, shape, strict=True)
        )
        _create_array(group, name, variable, shape, chunk)
    names = [*map(str, coords.coords), *variables]
    ledger = ledgers.Ledger(
        identity=identity,
        attrs=json.loads((draft / ledgers.METADATA).read_text("utf-8"))["attributes"],
        coords=_digests(coords),
        planned=list(variables),
        metadata={name: (draft / name / ledgers.METADATA).read_text("utf-8") for name in names},
        checksums={
            str(file.relative_to(draft)): zlib.crc32(file.read_bytes())
            for name in coords.coords
            for file in (draft / str(name) / "c").rglob("*")
            if file.is_file()
        },
    )
    _files.write_text(draft / ledgers.METADATA, ledgers.group_text(ledger.attrs))
    ledgers.write(draft, ledger)
    return ledger


def _write_coordinates(path: Path, coords: xr.Dataset) -> None:
    with zarr.config.set({"array.write_empty_chunks": True}):  # a coordinate may be all zeros
        coords.to_zarr(path, zarr_format=3, consolidated=False, mode="w")


def _heal(store: Store, ledger: ledgers.Ledger, coords: xr.Dataset, draft: Path) -> None:
    """Restores all files that differ from the ledger or the plan."""
    path = store.path
    ledgers.enter_journals(path, ledger)
    for file in (
        ledgers.METADATA,
        *ledgers.LEDGERS,
        *(f"{name}/{ledgers.METADATA}" for name in ledger.metadata),
    ):
        _files.make_way(path / file, path)
    for name, text in {"": ledgers.group_text(ledger.attrs), **ledger.metadata}.items():
        if _files.read_text(path / name / ledgers.METADATA) != text:
            _files.write_text(path / name / ledgers.METADATA, text)
    _drop_incomplete_parts(store, ledger)
    if any(_files.read_text(path / place) != ledgers.text_of(ledger) for place in ledgers.LEDGERS):
        ledgers.write(path, ledger)
    shutil.rmtree(path / ledgers.JOURNALS, ignore_errors=True)
    for partial in path.rglob("*.partial"):  # left by a process that was killed
        partial.unlink(missing_ok=True)
    damaged = [name for name in ledger.coords if not store._is_complete(name, {})]
    if not damaged:
        return
    planned = _digests(coords)
    _write_coordinates(draft, coords)
    for name in damaged:
        if planned.get(name) != ledger.coords[name]:
            file = next(f for f in store._chunk_files(name) if not store._is_whole(f))
            raise StoreError(f"{path / file}: missing or damaged; {ledgers.ANEW}")
        store._make_way(store._chunk_files(name))
        for file in store._chunk_files(name):
            target = path / file
            target.parent.mkdir(parents=True, exist_ok=True)
            (draft / file).replace(target)
            ledger.checksums[file] = zlib.crc32(target.read_bytes())
    ledgers.write(path, ledger)


def _drop_incomplete_parts(store: Store, ledger: ledgers.Ledger) -> None:
    """Removes incomplete parts and the arrays they added from the ledger; they are recomputed."""
    for part, names in list(ledger.parts.items()):
        if not all(store._is_complete(name, {}) for name in names):
            del ledger.parts[part]
            for name in set(names) - set(ledger.planned) - set(ledger.coords):
                ledger.metadata.pop(name, None)
                files = [file for file in ledger.checksums if file.startswith(f"{name}/")]
                for file in files:
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
    """Digests of the values of every coordinate, independent of their layout."""
    digests = {}
    for name, coordinate in coords.coords.items():
        values = coordinate.values
        content = (
            json.dumps(values.tolist()).encode()
            if values.dtype.kind in "OUT"
            else np.ascontiguousarray(values).tobytes()
        )
        checksums = f"{zlib.crc32(content):08x} {zlib.adler32(content):08x}"
        digests[str(name)] = f"{checksums} {coordinate.shape}"
    return digests
