"""The study of Theorems 3.1 and 3.3, which differ in the sampling scheme."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import xarray as xr

from adam_transition.studies.theorems import claims, conditions, data, neighbourhood, reddi
from adam_transition.studies.theorems.spec import TheoremSpec
from adam_transition.sweeps.claims import Claim
from adam_transition.sweeps.study import Part

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class TheoremStudy(TheoremSpec):
    """Rate, neighbourhood and conditions of a theorem, and the example of Reddi et al."""

    @property
    def name(self) -> Literal["theorem_3_1", "theorem_3_3"]:
        return "theorem_3_1" if self.sampling == "with_replacement" else "theorem_3_3"

    def coordinates(self) -> xr.Dataset:
        return data.coordinates(self)

    def parts(self) -> Mapping[str, Part]:
        return {
            "triples": lambda _, pieces: data.triples(self, pieces),
            "drift": lambda *_: data.drift_at_minimisers(self),
            "bands": lambda dataset, _: data.bands(dataset),
            "region": lambda *_: data.region_runs(self),
            "limits": lambda _, pieces: neighbourhood.limits(self, pieces),
            "many_dimensions": lambda _, pieces: neighbourhood.many_dimensions(self, pieces),
            "dimensions": lambda _, pieces: conditions.dimensions(self, pieces),
            "window": lambda _, pieces: neighbourhood.window(self, pieces),
            "line": lambda _, pieces: conditions.line(self, pieces),
            "threshold": lambda *_: conditions.threshold(self),
            "reddi": lambda *_: reddi.iterates(self),
        }

    def claims(self, data: xr.Dataset) -> list[Claim]:
        return claims.claims(data)

    def summary(self, data: xr.Dataset) -> dict[str, Any]:
        return {"rows": claims.rows(data)}

    def figures(self) -> Mapping[str, "Callable[[xr.Dataset], Figure]"]:
        from adam_transition.studies.theorems import figures

        return {
            f"{self.name}_rate": figures.theorem_rate,
            f"{self.name}_neighbourhood": figures.theorem_neighbourhood,
            f"{self.name}_conditions": figures.theorem_conditions,
            f"{self.name}_reddi": figures.theorem_reddi,
        }
