"""The optimiser study: where other update rules diverge, and whether they do at their defaults."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import xarray as xr

from adam_transition.studies.optimizers import claims, data
from adam_transition.sweeps.claims import Claim
from adam_transition.sweeps.study import Part

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class OptimizerStudy(data.OptimizerSpec):
    """Intervals of divergence, diagrams, and the drift at the libraries' defaults."""

    name = "optimizers"

    def coordinates(self) -> xr.Dataset:
        return data.coordinates(self)

    def parts(self) -> Mapping[str, Part]:
        return {
            "intervals": lambda _, pieces: data.intervals(self, pieces),
            "diagrams": lambda _, pieces: data.diagrams(self, pieces),
            "at_defaults": lambda _, pieces: data.at_defaults(self, pieces),
        }

    def claims(self, data: xr.Dataset) -> list[Claim]:
        return claims.claims(data)

    def summary(self, data: xr.Dataset) -> dict[str, Any]:
        named = {one.name: one for one in self.optimizers}
        first = {one.name: self.first(one) for one in self.optimizers}
        return {"rows": claims.rows(data, named, first), "defaults": claims.defaults(data)}

    def figures(self) -> Mapping[str, "Callable[[xr.Dataset], Figure]"]:
        from adam_transition.studies.optimizers import figures

        return {"optimizers": figures.boundaries, "optimizers_thresholds": figures.thresholds}
