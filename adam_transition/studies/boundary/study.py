"""The boundary study: the exact phase boundary of the counterexample."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import xarray as xr

from adam_transition.studies.boundary import claims, data
from adam_transition.sweeps.claims import Claim
from adam_transition.sweeps.study import Part

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class BoundaryStudy(data.BoundarySpec):
    """The intervals of β2 on which Adam diverges, and how they move with n, a and D1."""

    name = "boundary"

    def coordinates(self) -> xr.Dataset:
        return data.coordinates(self)

    def parts(self) -> Mapping[str, Part]:
        return {
            "intervals": lambda _, pieces: data.intervals(self, pieces),
            "curves": lambda _, pieces: data.curves(self, pieces),
            "scaling": lambda *_: data.scaling(self),
            "against_a": lambda *_: data.against_a(),
            "replacement": lambda *_: data.replacement(),
        }

    def claims(self, data: xr.Dataset) -> list[Claim]:
        return claims.claims(data)

    def summary(self, data: xr.Dataset) -> dict[str, Any]:
        return {"rows": claims.rows(data)}

    def figures(self) -> Mapping[str, "Callable[[xr.Dataset], Figure]"]:
        from adam_transition.studies.boundary import figures

        return {"boundary": figures.boundary_curves, "boundary_scaling": figures.boundary_scaling}
