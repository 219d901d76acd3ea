"""The study of the authors' heat map: which settings give the picture, and which do not."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import xarray as xr

from adam_transition.studies.published import claims, data
from adam_transition.sweeps.claims import Claim
from adam_transition.sweeps.study import Part

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class PublishedStudy(data.PublishedSpec):
    """The digitised map of the counterexample beside ours, at every setting that it leaves open."""

    name = "published"

    def coordinates(self) -> xr.Dataset:
        return data.coordinates(self)

    def parts(self) -> Mapping[str, Part]:
        return {
            "maps": lambda _, pieces: data.maps(self, pieces),
            "scores": lambda dataset, _: data.scores(dataset),
        }

    def claims(self, data: xr.Dataset) -> list[Claim]:
        return claims.claims(data)

    def summary(self, data: xr.Dataset) -> dict[str, Any]:
        return {"best": claims.best(data), "rivals": claims.rivals(data)}

    def figures(self) -> Mapping[str, "Callable[[xr.Dataset], Figure]"]:
        from adam_transition.studies.published import figures

        return {"published": figures.side_by_side}
