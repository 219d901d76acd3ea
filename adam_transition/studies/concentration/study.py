"""The concentration study: the lemma, and the direction of the update as β2 changes."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import xarray as xr

from adam_transition.studies.concentration import claims, data
from adam_transition.sweeps.claims import Claim
from adam_transition.sweeps.study import Part

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ConcentrationStudy(data.ConcentrationSpec):
    """How often 1/√v leaves the lemma's band, and where the expected update points."""

    name = "concentration"

    def coordinates(self) -> xr.Dataset:
        return data.coordinates(self)

    def parts(self) -> Mapping[str, Part]:
        return {
            "band": lambda _, pieces: data.band(self, pieces),
            "direction_of_one": lambda *_: data.direction_of_one(self),
            "direction_of_many": lambda *_: data.direction_of_many(self),
        }

    def claims(self, data: xr.Dataset) -> list[Claim]:
        return claims.claims(data)

    def summary(self, data: xr.Dataset) -> dict[str, Any]:
        return {"rows": claims.rows(data)}

    def figures(self) -> Mapping[str, "Callable[[xr.Dataset], Figure]"]:
        from adam_transition.studies.concentration import figures

        return {"concentration": figures.concentration, "direction": figures.direction}
