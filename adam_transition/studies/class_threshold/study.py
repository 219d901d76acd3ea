"""The class-threshold study: which β2 is enough for a class, proved and found."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import xarray as xr

from adam_transition.studies.class_threshold import claims, data
from adam_transition.sweeps.claims import Claim
from adam_transition.sweeps.study import Part

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ClassThresholdStudy(data.ClassThresholdSpec):
    """What is proved to be enough for every member, and the hardest tables of two slopes."""

    name = "class_threshold"

    def coordinates(self) -> xr.Dataset:
        return data.coordinates(self)

    def parts(self) -> Mapping[str, Part]:
        return {
            "proved": lambda *_: data.proved(self),
            "found": lambda _, pieces: data.found(self, pieces),
        }

    def claims(self, data: xr.Dataset) -> list[Claim]:
        return claims.claims(data)

    def summary(self, data: xr.Dataset) -> dict[str, Any]:
        return {"rows": claims.rows(data)}

    def figures(self) -> Mapping[str, "Callable[[xr.Dataset], Figure]"]:
        from adam_transition.studies.class_threshold import figures

        return {"class_threshold": figures.thresholds}
