"""The rows of the scoreboard, judged."""

import xarray as xr

from adam_transition.studies.literature.entries import ENTRIES, Entry
from adam_transition.studies.literature.measurements import Measured
from adam_transition.sweeps.claims import Claim


def entries(ids: tuple[str, ...]) -> list[Entry]:
    """The rows of these names, in the order of the scoreboard."""
    return [entry for entry in ENTRIES if entry.id in ids]


def claims(data: xr.Dataset) -> list[Claim]:
    """Every row, judged."""
    ids = tuple(data["row"].values.tolist())
    values, errors = data["measured"].values, data["uncertainty"].values
    return [
        entry.claim(Measured(float(value), float(error)))
        for entry, value, error in zip(entries(ids), values, errors, strict=True)
    ]
