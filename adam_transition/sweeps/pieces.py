"""Arrays on the way to a part of a store that takes long, so that they are computed once."""

import io
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adam_transition.sweeps import _files

_PIECES = ".pieces"


@dataclass(frozen=True)
class Pieces:
    """Arrays that are kept until a part of a store is complete; made by `Store.pieces`."""

    folder: Path | None  # None: nothing is kept
    identity: int  # of what they belong to

    def keep(self, name: str, compute: Callable[[], Sequence[np.ndarray]]) -> Sequence[np.ndarray]:
        """The arrays of that name, which are computed unless they are kept already.

        Args:
          name: of the piece.
          compute: returns the arrays; numbers only.

        Raises:
          StoreError: the disk is full or not writable.
        """
        found = self.load(name)
        if found is None:
            found = [np.asarray(values) for values in compute()]
            self.save(name, found)
        return found

    def within(self, group: str) -> "Pieces":
        """Pieces with names of their own."""
        if self.folder is None:
            return self
        return Pieces(self.folder / group, zlib.crc32(f"{self.identity:08x} {group}".encode()))

    def load(self, name: str) -> list[np.ndarray] | None:
        """Those of that name, or None if they are not there, or damaged."""
        content = None if self.folder is None else _files.read(self.folder / f"{name}.piece")
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
        with _files.writing(self.folder):
            _files.make_way(self.folder / f"{name}.piece", _pieces_root(self.folder))
            _files.write_bytes(self.folder / f"{name}.piece", _checksum(head + content) + content)


NOTHING_KEPT = Pieces(None, 0)


def _checksum(content: bytes) -> bytes:
    return f"{zlib.crc32(content):08x}".encode()


def folder_of(path: Path) -> Path:
    """Where the pieces of a store lie: beside it."""
    return path.with_name(f".{path.name}{_PIECES}")


def _pieces_root(folder: Path) -> Path:
    """Where the folder of a store's pieces lies."""
    return next(one.parent for one in (folder, *folder.parents) if one.name.endswith(_PIECES))
