"""The finder study: `find_beta2` against full training."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import xarray as xr

from adam_transition.studies.finder import claims, data
from adam_transition.sweeps.claims import Claim
from adam_transition.sweeps.study import Filled, Part

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class FinderStudy(data.FinderSpec):
    """Error, coverage and cost of the finder, and the laws of 1 − β2*, on several tasks."""

    name = "finder"

    def coordinates(self) -> xr.Dataset:
        return data.coordinates(self)

    def parts(self) -> Mapping[str, Part | Filled]:
        return {
            "training": data.training(self),
            "searches": lambda dataset, _: data.searches(self, dataset),
            "laws": lambda dataset, _: data.laws(self, dataset),
        }

    def claims(self, data: xr.Dataset) -> list[Claim]:
        return claims.claims(data)

    def summary(self, data: xr.Dataset) -> dict[str, Any]:
        notes = [f"left out, as their data are not there: {', '.join(self.missing)}"]
        return {"rows": claims.rows(data), **({"notes": notes} if self.missing else {})}

    def figures(self) -> Mapping[str, "Callable[[xr.Dataset], Figure]"]:
        from adam_transition.studies.finder import figures

        return {"finder": figures.found_and_true, "finder_laws": figures.thresholds}
