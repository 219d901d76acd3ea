"""Labelled results on disk: a zarr group that xarray reads. Knows nothing of Adam.

A store is created whole (written beside its place, then renamed) and filled region by region; each
zarr chunk is written beside its place and renamed as well, and carries a checksum. So a chunk is
there and right, or it is missing or found corrupt and can be computed again.
"""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

_IDENTITY = "identity"


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


@dataclass(frozen=True)
class Store:
    """A labelled data set on disk; made by `open_or_create`."""

    path: Path

    def chunk_sizes(self, name: str) -> dict[str, int]:
        """Length of a chunk along each dimension of a variable."""
        array = self._array(name)
        return dict(zip(_dims(array), array.chunks, strict=True))

    def write(self, region: Mapping[str, slice], values: Mapping[str, np.ndarray]) -> None:
        """Writes one region of some variables; whole chunks, or results may be lost in a crash.

        Raises:
          StoreError: the disk is full or not writable.
        """
        try:
            for name, block in values.items():
                array = self._array(name)
                array[_index(array, region)] = block
        except OSError as error:
            raise StoreError(f"{self.path}: cannot write: {error.strerror or error}") from error

    def is_complete(self, region: Mapping[str, slice], names: list[str]) -> bool:
        """Whether a region of these variables is there, with checksums that agree."""
        return all(self._is_complete(name, region) for name in names)

    def add(self, name: str, variable: Variable, values: np.ndarray) -> None:
        """Writes a small variable at once, replacing one of that name."""
        try:
            _create_array(self._group(), name, variable, values.shape, values.shape)
            self._array(name)[...] = values
        except OSError as error:
            raise StoreError(f"{self.path}: cannot write: {error.strerror or error}") from error

    def has(self, name: str) -> bool:
        """Whether a variable is there, whole and right."""
        return name in self._group() and self._is_complete(name, {})

    @property
    def attrs(self) -> dict[str, Any]:
        """The attributes of the data set."""
        return dict(self._group().attrs)

    def update_attrs(self, attrs: Mapping[str, Any]) -> None:
        """Sets attributes of the data set."""
        try:
            self._group().attrs.update(dict(attrs))
        except OSError as error:
            raise StoreError(f"{self.path}: cannot write: {error.strerror or error}") from error

    def load(self) -> xr.Dataset:
        """The whole data set in memory.

        Raises:
          StoreError: a chunk is missing or does not match its checksum.
        """
        for name, array in self._group().arrays():
            if array.nchunks_initialized < array.nchunks:
                missing = array.nchunks - array.nchunks_initialized
                raise StoreError(f"{self.path}: {missing} chunks of {name} are missing; run again")
        try:
            return xr.open_zarr(self.path, consolidated=False).load()
        except (ValueError, RuntimeError) as error:
            raise StoreError(f"{self.path}: a chunk is corrupt ({error}); run again") from error

    def _group(self) -> zarr.Group:
        # a chunk of fill values must be written too, or it would look missing
        with zarr.config.set({"array.write_empty_chunks": True}):
            return zarr.open_group(self.path, mode="r+")

    def _array(self, name: str) -> zarr.Array:
        with zarr.config.set({"array.write_empty_chunks": True}):
            array = self._group()[name]
        assert isinstance(array, zarr.Array)
        return array

    def _is_complete(self, name: str, region: Mapping[str, slice]) -> bool:
        array = self._array(name)
        index = _index(array, region)
        first = [part.start // size for part, size in zip(index, array.chunks, strict=True)]
        last = [(part.stop - 1) // size for part, size in zip(index, array.chunks, strict=True)]
        for chunk in np.ndindex(*(b - a + 1 for a, b in zip(first, last, strict=True))):
            key = array.metadata.encode_chunk_key(tuple(np.add(first, chunk)))
            if not (self.path / name / key).is_file():
                return False
        try:
            array[index]
        except (ValueError, RuntimeError):  # the checksum or the decompression failed
            return False
        return True


def open_or_create(
    path: Path,
    *,
    coords: xr.Dataset,
    variables: Mapping[str, Variable],
    chunks: Mapping[str, int],
    identity: Mapping[str, Any],
    attrs: Mapping[str, Any],
    resume: bool = True,
) -> Store:
    """A store to fill: the one begun with the same identity if there is one, else a new one.

    Args:
      path: where it lives; its folder is made.
      coords: the coordinates, with their attributes.
      variables: what will be written, by name.
      chunks: length of a chunk for each dimension; a store that exists keeps its own.
      identity: everything that the numbers depend on, JSON-able; compared on reopening.
      attrs: further attributes of the data set.
      resume: continue a store that exists; otherwise it is replaced.

    Raises:
      StoreError: the folder cannot be written, or what is at `path` is no store, or it was begun
        with another identity.
    """
    wanted = json.loads(json.dumps(identity))
    try:
        if path.exists():
            found = _read_identity(path)
            if resume:
                _compare(path, found, wanted)
                return Store(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        labelled = coords.assign_attrs({**attrs, _IDENTITY: json.dumps(wanted)})
        with zarr.config.set({"array.write_empty_chunks": True}):  # a coordinate may be all zeros
            labelled.to_zarr(draft, zarr_format=3, consolidated=False, mode="w")
        group = zarr.open_group(draft, mode="r+")
        for name, variable in variables.items():
            shape = tuple(coords.sizes[dim] for dim in variable.dims)
            chunk = tuple(
                min(chunks.get(dim, size), size)
                for dim, size in zip(variable.dims, shape, strict=True)
            )
            _create_array(group, name, variable, shape, chunk)
        if path.exists():
            shutil.rmtree(path)
        draft.rename(path)
    except OSError as error:
        raise StoreError(f"{path}: cannot write: {error.strerror or error}") from error
    return Store(path)


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


def _index(array: zarr.Array, region: Mapping[str, slice]) -> tuple[slice, ...]:
    return tuple(
        region.get(dim, slice(0, size)) for dim, size in zip(_dims(array), array.shape, strict=True)
    )


def _dims(array: zarr.Array) -> tuple[str, ...]:
    return tuple(str(name) for name in array.metadata.dimension_names or ())  # type: ignore[union-attr]


def _read_identity(path: Path) -> dict[str, Any]:
    try:
        return json.loads(zarr.open_group(path, mode="r").attrs[_IDENTITY])  # type: ignore
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path}: not a store of this program; remove it or choose another folder"
        ) from error


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
