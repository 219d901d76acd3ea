"""The trap study: starts near the minimiser that stay where the drift points away."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import xarray as xr

from adam_transition.studies.trap import claims, data
from adam_transition.sweeps.claims import Claim
from adam_transition.sweeps.study import Part

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class TrapStudy(data.TrapSpec):
    """How far the trap reaches in the region D > 0, and whether Adam falls into it."""

    name = "trap"

    def coordinates(self) -> xr.Dataset:
        return data.coordinates(self)

    def parts(self) -> Mapping[str, Part]:
        return {
            "basins": lambda _, pieces: data.basins(self, pieces),
            "runs": lambda dataset, pieces: data.runs(self, dataset, pieces),
        }

    def claims(self, data: xr.Dataset) -> list[Claim]:
        return claims.claims(data)

    def summary(self, data: xr.Dataset) -> dict[str, Any]:
        return {"rows": claims.rows(data)}

    def figures(self) -> Mapping[str, "Callable[[xr.Dataset], Figure]"]:
        from adam_transition.studies.trap import figures

        return {"trap": figures.traps}
