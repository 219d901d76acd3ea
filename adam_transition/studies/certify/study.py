"""The certificate study: the diagram and the boundary, proved in ball arithmetic."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import xarray as xr

from adam_transition.studies.certify import claims, data
from adam_transition.sweeps.claims import Claim
from adam_transition.sweeps.study import Part

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class CertifyStudy(data.CertifySpec):
    """Proved signs of the drift in rectangles of the plane, and proved sign changes in β2."""

    name = "certify"

    def coordinates(self) -> xr.Dataset:
        return data.coordinates(self)

    def parts(self) -> Mapping[str, Part]:
        return {
            "area": lambda *_: data.area(self),
            "edges": lambda _, pieces: data.edges(self, pieces),
        }

    def claims(self, data: xr.Dataset) -> list[Claim]:
        return claims.claims(data)

    def summary(self, data: xr.Dataset) -> dict[str, Any]:
        return claims.summary(data)

    def figures(self) -> Mapping[str, "Callable[[xr.Dataset], Figure]"]:
        from adam_transition.studies.certify import figures

        return {"certify": figures.proved}
