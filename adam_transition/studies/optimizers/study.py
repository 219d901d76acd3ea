"""The optimiser study: where other update rules diverge, and whether they do at their defaults."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import xarray as xr

from adam_transition.studies.optimizers import claims, data, direct
from adam_transition.sweeps.claims import Claim
from adam_transition.sweeps.study import Part

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class OptimizerStudy(data.OptimizerSpec):
    """Intervals of divergence, diagrams, and the drift at the libraries' defaults."""

    name = "optimizers"

    def coordinates(self) -> xr.Dataset:
        return data.coordinates(self).merge(
            direct.coordinates(self.matrix_sizes, self.matrix_noise)
        )

    def parts(self) -> Mapping[str, Part]:
        named = {one.name: one for one in self.optimizers}
        parts: dict[str, Part] = {
            "intervals": lambda _, pieces: data.intervals(self, pieces),
            "diagrams": lambda _, pieces: data.diagrams(self, pieces),
            "at_defaults": lambda _, pieces: data.at_defaults(self, pieces),
        }
        if "muon" in named:
            parts["matrices"] = lambda _, pieces: direct.matrices(
                self.matrix_sizes, self.matrix_noise, self.seed, pieces
            )
        if "adopt" in named:
            parts["climbs"] = lambda _, pieces: direct.climbs(named["adopt"], pieces)
        return parts

    def claims(self, data: xr.Dataset) -> list[Claim]:
        return claims.claims(data)

    def summary(self, data: xr.Dataset) -> dict[str, Any]:
        named = {one.name: one for one in self.optimizers}
        first = {one.name: self.first(one) for one in self.optimizers}
        about = {
            one.name: {"source": one.source, "defaults": dict(one.defaults)}
            for one in self.optimizers
        }
        return {
            "optimizers": about,
            "rows": claims.rows(data, named, first),
            "defaults": claims.defaults(data, named),
        }

    def figures(self) -> Mapping[str, "Callable[[xr.Dataset], Figure]"]:
        from adam_transition.studies.optimizers import figures

        names = {one.name for one in self.optimizers}
        return {
            "optimizers": figures.boundaries,
            "optimizers_thresholds": figures.thresholds,
            **({"optimizers_muon": figures.muon_on_matrices} if "muon" in names else {}),
            **({"optimizers_adopt": figures.adopt_climbs} if "adopt" in names else {}),
        }
