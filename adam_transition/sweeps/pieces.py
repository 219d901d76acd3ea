"""Intermediate arrays of a slow part of a store, kept so that a resumed run has them."""

import io
import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from adam_transition.sweeps import _files

_PIECES = ".pieces"

K = TypeVar("K", bound=tuple[Any, ...])


@dataclass(frozen=True)
class Pieces:
    """Arrays kept until a part of a store is complete; `Store.complete` passes them to the part."""

    folder: Path | None  # None: nothing is kept
    identity: int  # checksum of the store's identity and the part

    def keep(self, name: str, compute: Callable[[], Sequence[np.ndarray]]) -> Sequence[np.ndarray]:
        """The arrays of that name; computed and saved unless they are kept already.

        Args:
          name: name of the piece.
          compute: returns the arrays, which hold numbers.

        Raises:
          StoreError: the disk is full or not writable.
        """
        arrays = self.load(name)
        if arrays is None:
            arrays = [np.asarray(values) for values in compute()]
            self.save(name, arrays)
        return arrays

    def keep_all(
        self, jobs: Mapping[K, Callable[[], Sequence[np.ndarray]]]
    ) -> dict[K, Sequence[np.ndarray]]:
        """The arrays of many pieces, which are computed side by side, one per core.

        Args:
          jobs: what computes each piece, by a key whose parts make its name. As with `keep`; each
            must be a function of nothing but its arguments.

        Raises:
          StoreError: as for `keep`.
        """
        pool = ThreadPoolExecutor(os.cpu_count())
        try:
            names = {key: " ".join(map(str, key)) for key in jobs}
            futures = {key: pool.submit(self.keep, names[key], jobs[key]) for key in jobs}
            return {key: future.result() for key, future in futures.items()}
        finally:
            pool.shutdown(cancel_futures=True)

    def within(self, group: str) -> "Pieces":
        """Pieces in a namespace of their own."""
        if self.folder is None:
            return self
        return Pieces(self.folder / group, zlib.crc32(f"{self.identity:08x} {group}".encode()))

    def load(self, name: str) -> list[np.ndarray] | None:
        """The arrays of that name, or None if they are missing or damaged."""
        content = None if self.folder is None else _files.read(self.folder / f"{name}.piece")
        if content is None or len(content) < 8:
            return None
        head = f"{self.identity:08x} {name}".encode()
        if _checksum(head + content[8:]) != content[:8]:
            return None
        with np.load(io.BytesIO(content[8:]), allow_pickle=False) as archive:
            return [archive[key] for key in archive.files]

    def save(self, name: str, arrays: Sequence[np.ndarray]) -> None:
        """Saves arrays of numbers.

        Raises:
          StoreError: the disk is full or not writable.
        """
        if self.folder is None:
            return
        written = io.BytesIO()
        np.savez(written, *arrays)
        content = written.getvalue()
        head = f"{self.identity:08x} {name}".encode()
        with _files.writing(self.folder):
            _files.make_way(self.folder / f"{name}.piece", _pieces_root(self.folder))
            _files.write_bytes(self.folder / f"{name}.piece", _checksum(head + content) + content)


NOTHING_KEPT = Pieces(None, 0)


def _checksum(content: bytes) -> bytes:
    return f"{zlib.crc32(content):08x}".encode()


def folder_of(path: Path) -> Path:
    """The folder of a store's pieces, which lies beside the store."""
    return path.with_name(f".{path.name}{_PIECES}")


def _pieces_root(folder: Path) -> Path:
    """The folder that contains the store and the folder of its pieces."""
    folders = (folder, *folder.parents)
    return next(parent.parent for parent in folders if parent.name.endswith(_PIECES))
