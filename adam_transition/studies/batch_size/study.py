"""The batch-size study: batch size against β2."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import xarray as xr

from adam_transition.studies.batch_size import claims, data
from adam_transition.sweeps.claims import Claim
from adam_transition.sweeps.study import Filled, Part

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class BatchSizeStudy(data.BatchSizeSpec):
    """Which β2 a batch size needs, which β2 is too large, and what the rules predict."""

    name = "batch_size"

    def coordinates(self) -> xr.Dataset:
        return data.coordinates(self)

    def parts(self) -> Mapping[str, Part | Filled]:
        return {
            "training": data.training(self),
            "outcomes": lambda dataset, _: data.outcomes_of_training(self, dataset),
            "windows": lambda dataset, _: data.windows(self, dataset),
            "rules": lambda dataset, _: data.rules(self, dataset),
        }

    def claims(self, data: xr.Dataset) -> list[Claim]:
        return claims.claims(data)

    def summary(self, data: xr.Dataset) -> dict[str, Any]:
        return {"rows": claims.rows(data)}

    def figures(self) -> Mapping[str, "Callable[[xr.Dataset], Figure]"]:
        from adam_transition.studies.batch_size import figures

        return {
            "batch_size": figures.batch_size_planes,
            "batch_size_threshold": figures.batch_size_threshold,
        }
