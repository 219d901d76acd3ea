"""The advice study: the probe compared with training."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import xarray as xr

from adam_transition.studies.advise import claims, data
from adam_transition.sweeps.claims import Claim
from adam_transition.sweeps.study import Part

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class AdviseStudy(data.AdviseSpec):
    """How well the probe and the rules predict the threshold of training."""

    name = "advise"

    def coordinates(self) -> xr.Dataset:
        return data.coordinates(self)

    def parts(self) -> Mapping[str, Part]:
        return {
            "measured": lambda *_: data.measured(self),
            "probe": lambda *_: data.probe(self),
            "probed": lambda dataset, _: data.probed(dataset),
        }

    def claims(self, data: xr.Dataset) -> list[Claim]:
        return claims.claims(data)

    def summary(self, data: xr.Dataset) -> dict[str, Any]:
        return {"networks": claims.rows(data)}

    def figures(self) -> Mapping[str, "Callable[[xr.Dataset], Figure]"]:
        from adam_transition.studies.advise import figures

        return {"advise": figures.probe_and_training}
