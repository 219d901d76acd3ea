"""The ledger of a store, which lists its content with checksums, and the layout of arrays."""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from adam_transition.sweeps import _files
from adam_transition.sweeps._files import StoreError

METADATA = "zarr.json"
LEDGERS = (f"ledger/{METADATA}", f"ledger/copy/{METADATA}")
JOURNALS = "ledger/journals"
ANEW = "pass --noresume to begin anew"
_IDENTITY_BEFORE = "identity"  # attribute with the identity in stores of version 0.2.0


@dataclass
class Ledger:
    """The content of a store; files are named by their paths in the store."""

    identity: dict[str, Any]
    attrs: dict[str, Any]  # of the root group
    coords: dict[str, str]  # name → digest of the values
    planned: list[str]  # variables that the store was created with
    metadata: dict[str, str] = field(default_factory=dict)  # array → text of its zarr.json
    checksums: dict[str, int] = field(default_factory=dict)  # finished file → checksum
    parts: dict[str, list[str]] = field(default_factory=dict)  # complete part → its arrays
    revision: int = 0  # the copy with the higher revision is valid


class Layout(NamedTuple):
    """The dimensions, shape and chunks of an array."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]

    @classmethod
    def of(cls, name: str, metadata: str) -> "Layout":
        """The layout of an array of this package or of xarray, from the text of its zarr.json."""
        parsed = json.loads(metadata)
        chunks = parsed["chunk_grid"]["configuration"]["chunk_shape"]
        return cls(
            name, tuple(parsed.get("dimension_names") or ()), tuple(parsed["shape"]), tuple(chunks)
        )

    def slices(self, region: Mapping[str, slice]) -> tuple[slice, ...]:
        """A region as slices of the axes; dimensions that it omits are taken whole."""
        sizes = zip(self.dims, self.shape, strict=True)
        return tuple(region.get(dim, slice(0, size)) for dim, size in sizes)

    def files(self, index: tuple[slice, ...]) -> list[str]:
        """The files of all chunks that overlap the slices."""
        first = [part.start // size for part, size in zip(index, self.chunks, strict=True)]
        last = [-(-part.stop // size) for part, size in zip(index, self.chunks, strict=True)]
        offsets = np.ndindex(*(max(0, b - a) for a, b in zip(first, last, strict=True)))
        return ["/".join((self.name, "c", *map(str, np.add(first, offset)))) for offset in offsets]


def group_text(attrs: Mapping[str, Any]) -> str:
    """The zarr.json of a group with these attributes."""
    return json.dumps({"attributes": attrs, "zarr_format": 3, "node_type": "group"}, indent=2)


def text_of(ledger: Ledger) -> str:
    """The ledger as the zarr.json of a group, so that a store contains only valid zarr files."""
    text = json.dumps(vars(ledger))
    return group_text({"checksum": zlib.crc32(text.encode()), "ledger": text})


def write(path: Path, ledger: Ledger) -> None:
    """Writes both copies of the ledger with the next revision number."""
    ledger.revision += 1
    for place in LEDGERS:
        _files.write_text(path / place, text_of(ledger))


def read(path: Path) -> Ledger | None:
    """The newest undamaged copy, or None."""
    copies = []
    for place in LEDGERS:
        text = _files.read_text(path / place)
        try:
            ledger = Ledger(**json.loads(json.loads(text or "")["attributes"]["ledger"]))
        except (ValueError, KeyError, TypeError):
            continue
        if text_of(ledger) == text:
            copies.append(ledger)
    return max(copies, key=lambda ledger: ledger.revision, default=None)


def enter_journals(path: Path, ledger: Ledger) -> None:
    """Enters the journals into the ledger in memory; lines that cannot be parsed are ignored."""
    for journal in sorted(path.glob(f"{JOURNALS}/*")):
        for line in (_files.read_text(journal) or "").splitlines():
            checksum, _, file = line.partition(" ")
            is_number = checksum.isascii() and checksum.isdigit()
            if is_number and file.partition("/")[0] in ledger.planned:
                ledger.checksums[file] = int(checksum)


def known_identity(path: Path, ledger: Ledger | None) -> dict[str, Any]:
    """The identity of a store, also of version 0.2.0, which kept it in an attribute.

    Raises:
      StoreError: `path` is not a store, or both copies of its ledger are damaged.
    """
    if ledger is not None:
        return ledger.identity
    if (before := _identity_before(path)) is not None:
        return before
    raise StoreError(f"{path}: {no_store(path)}")


def _identity_before(path: Path) -> dict[str, Any] | None:
    try:
        text = json.loads(_files.read_text(path / METADATA) or "")["attributes"][_IDENTITY_BEFORE]
        identity = json.loads(text)
    except (ValueError, KeyError, TypeError):
        return None
    return identity if isinstance(identity, dict) else None


def is_ours(path: Path, ledger: Ledger | None) -> bool:
    """Whether `path` is a store of this program, damaged or not, and so may be replaced."""
    return ledger is not None or _identity_before(path) is not None or _ledger_folder(path).is_dir()


def _ledger_folder(path: Path) -> Path:
    return path / Path(LEDGERS[0]).parent


def no_store(path: Path) -> str:
    """The message for a path that is not a store, or whose ledger is damaged."""
    if _ledger_folder(path).is_dir():
        return f"both copies of its ledger ({' and '.join(LEDGERS)}) are damaged; {ANEW}"
    return "not a store of this program; remove it or choose another folder"


def compare(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Compares the identity of a store with the wanted one.

    Raises:
      StoreError: they differ; the message names the first difference.
    """
    for key in sorted(found.keys() | wanted.keys()):
        if found.get(key) != wanted.get(key):
            raise StoreError(
                f"{path}: made with {key}={_shown(found.get(key))}, not "
                f"{key}={_shown(wanted.get(key))}; choose another --out, or pass --noresume to "
                "replace it"
            )


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
