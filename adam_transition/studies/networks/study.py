"""The network study: networks over the (β1, β2) plane."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import xarray as xr

from adam_transition.studies.networks import claims, data
from adam_transition.sweeps.claims import Claim
from adam_transition.sweeps.study import Filled, Part

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class NetworkStudy(data.NetworkSpec):
    """Training loss of networks over the (β1, β2) plane: loss curves, good cells, spikes."""

    name = "networks"

    def coordinates(self) -> xr.Dataset:
        return data.coordinates(self)

    def parts(self) -> Mapping[str, Part | Filled]:
        return {
            "training": data.training(self),
            "outcomes": lambda dataset, _: data.outcomes_of_training(self, dataset),
        }

    def claims(self, data: xr.Dataset) -> list[Claim]:
        return claims.claims(data)

    def summary(self, data: xr.Dataset) -> dict[str, Any]:  # noqa: ARG002  of the protocol
        return {}

    def figures(self) -> Mapping[str, "Callable[[xr.Dataset], Figure]"]:
        from adam_transition.studies.networks import figures

        return {
            "networks": figures.network_planes,
            "networks_curves": figures.network_curves,
            "networks_spikes": figures.network_spikes,
        }
