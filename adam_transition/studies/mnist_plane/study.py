"""The study of the authors' map on MNIST: which training of ours has its shape."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import xarray as xr

from adam_transition.studies.mnist_plane import claims, data
from adam_transition.studies.networks import data as networks
from adam_transition.sweeps.claims import Claim
from adam_transition.sweeps.study import Filled, Part

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class MnistPlaneStudy(networks.NetworkSpec):
    """The digitised map of training loss beside networks at several batch sizes and rates."""

    name = "mnist_plane"

    def coordinates(self) -> xr.Dataset:
        return networks.coordinates(self)

    def parts(self) -> Mapping[str, Part | Filled]:
        return {
            "training": networks.training(self),
            "outcomes": lambda dataset, _: networks.outcomes_of_training(self, dataset),
            "shapes": lambda dataset, _: data.shapes(dataset),
        }

    def claims(self, data: xr.Dataset) -> list[Claim]:
        return claims.claims(data)

    def summary(self, data: xr.Dataset) -> dict[str, Any]:
        return {"nearest": claims.nearest(data), "rows": claims.rows(data)}

    def figures(self) -> Mapping[str, "Callable[[xr.Dataset], Figure]"]:
        from adam_transition.studies.mnist_plane import figures

        return {"mnist_plane": figures.beside}
