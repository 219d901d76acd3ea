"""The scoreboard of the literature: every row a published statement, measured and judged."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from adam_transition.studies.literature.claims import claims, entries
from adam_transition.studies.literature.entries import UNTESTED, Entry
from adam_transition.sweeps.claims import Claim
from adam_transition.sweeps.pieces import Pieces
from adam_transition.sweeps.study import Part, variable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class LiteratureStudy:
    """The rows to measure."""

    ids: tuple[str, ...]

    name = "literature"

    def coordinates(self) -> xr.Dataset:
        return xr.Dataset(coords={"row": ("row", np.array(self.ids, dtype=object))})

    def parts(self) -> Mapping[str, Part]:
        return {"measurements": lambda _, pieces: _measurements(entries(self.ids), pieces)}

    def claims(self, data: xr.Dataset) -> list[Claim]:
        return claims(data)

    def summary(self, _: xr.Dataset) -> dict[str, Any]:
        return {"untested": [row._asdict() for row in UNTESTED]}

    def figures(self) -> Mapping[str, "Callable[[xr.Dataset], Figure]"]:
        from adam_transition.studies.literature import figures

        return {"literature": figures.scoreboard}


def _measurements(rows: list[Entry], pieces: Pieces) -> Mapping[str, xr.Variable]:
    found = [pieces.keep(entry.id, partial(_as_arrays, entry)) for entry in rows]
    value, error = np.array([[float(one) for one in pair] for pair in found]).T
    return {
        "measured": variable("row", value, "measured number"),
        "uncertainty": variable("row", error, "its error"),
    }


def _as_arrays(entry: Entry) -> list[np.ndarray]:
    return [np.array(number) for number in entry.measure()]
