"""The ledger of a store: what it holds, with checksums; and where the values of an array lie."""

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


_IDENTITY_BEFORE = "identity"  # the attribute in which version 0.2.0 kept it


ANEW = "pass --noresume to begin anew"


@dataclass
class Ledger:
    """What a store holds; a file is named by its path in the store."""

    identity: dict[str, Any]
    attrs: dict[str, Any]  # of the root group
    coords: dict[str, str]  # by name, a digest of the values
    planned: list[str]  # the variables that it was created with
    metadata: dict[str, str] = field(default_factory=dict)  # by array, the text of its zarr.json
    checksums: dict[str, int] = field(default_factory=dict)  # of files that are finished
    parts: dict[str, list[str]] = field(default_factory=dict)  # by name, the arrays they fill
    revision: int = 0  # the newer of the two copies holds


class Layout(NamedTuple):
    """Where the values of an array lie."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]

    @classmethod
    def of(cls, name: str, metadata: str) -> "Layout":
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


def group_text(attrs: Mapping[str, Any]) -> str:
    return json.dumps({"attributes": attrs, "zarr_format": 3, "node_type": "group"}, indent=2)


def text_of(ledger: Ledger) -> str:
    """The ledger as the metadata of a group, so that it belongs where it lies."""
    text = json.dumps(vars(ledger))
    return group_text({"checksum": zlib.crc32(text.encode()), "ledger": text})


def write(path: Path, ledger: Ledger) -> None:
    ledger.revision += 1
    for place in LEDGERS:
        _files.write_text(path / place, text_of(ledger))


def read(path: Path) -> Ledger | None:
    """The newest copy that is whole, or None."""
    found = []
    for place in LEDGERS:
        text = _files.read_text(path / place)
        try:
            ledger = Ledger(**json.loads(json.loads(text or "")["attributes"]["ledger"]))
        except (ValueError, KeyError, TypeError):
            continue
        if text_of(ledger) == text:
            found.append(ledger)
    return max(found, key=lambda ledger: ledger.revision, default=None)


def enter_journals(path: Path, ledger: Ledger) -> None:
    """Into the ledger in memory; what cannot be read is as if it had not been written."""
    for journal in sorted(path.glob(f"{JOURNALS}/*")):
        for line in (_files.read_text(journal) or "").splitlines():
            known, _, file = line.partition(" ")
            if known.isascii() and known.isdigit() and file.partition("/")[0] in ledger.planned:
                ledger.checksums[file] = int(known)


def known_identity(path: Path, ledger: Ledger | None) -> dict[str, Any]:
    """What the store was begun with; that of version 0.2.0 stood in an attribute."""
    if ledger is not None:
        return ledger.identity
    if (before := _identity_before(path)) is not None:
        return before
    raise StoreError(f"{path}: {no_store(path)}")


def _identity_before(path: Path) -> dict[str, Any] | None:
    try:
        text = json.loads(_files.read_text(path / METADATA) or "")["attributes"][_IDENTITY_BEFORE]
        found = json.loads(text)
    except (ValueError, KeyError, TypeError):
        return None
    return found if isinstance(found, dict) else None


def is_ours(path: Path, ledger: Ledger | None) -> bool:
    """Whether a store may be replaced: one of this program's, however damaged."""
    return ledger is not None or _identity_before(path) is not None or _ledger_folder(path).is_dir()


def _ledger_folder(path: Path) -> Path:
    return path / Path(LEDGERS[0]).parent


def no_store(path: Path) -> str:
    if _ledger_folder(path).is_dir():
        return f"both copies of its ledger ({' and '.join(LEDGERS)}) are damaged; {ANEW}"
    return "not a store of this program; remove it or choose another folder"


def compare(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for key in sorted(found.keys() | wanted.keys()):
        if found.get(key) != wanted.get(key):
            raise StoreError(
                f"{path}: made with {key}={_shown(found.get(key))}, not "
                f"{key}={_shown(wanted.get(key))}; choose another --out, or pass --noresume to "
                "replace it"
            )


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
