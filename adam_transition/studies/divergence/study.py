"""The divergence study: the divergence theorem."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import xarray as xr

from adam_transition.studies.divergence import claims, data
from adam_transition.sweeps.claims import Claim
from adam_transition.sweeps.study import Part

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class DivergenceStudy(data.DivergenceSpec):
    """Where Adam diverges for every order, how it goes to infinity, and from which D1 on."""

    name = "divergence"

    def coordinates(self) -> xr.Dataset:
        return data.coordinates(self)

    def parts(self) -> Mapping[str, Part]:
        return {
            "proven_regions": lambda *_: data.proven_regions(self),
            "exact_regions": lambda _, pieces: data.exact_regions(self, pieces),
            "areas": lambda *_: data.areas(self),
            "trajectories": lambda *_: data.trajectories(self),
            "growth": lambda *_: data.growth(self),
            "d1_of_members": lambda *_: data.d1_of_members(self),
            "least_d1": lambda _, pieces: data.least_d1_tables(self, pieces),
            "patterns": lambda *_: data.patterns_of_hits(),
        }

    def claims(self, data: xr.Dataset) -> list[Claim]:
        return claims.claims(data)

    def summary(self, data: xr.Dataset) -> dict[str, Any]:  # noqa: ARG002  of the protocol
        return {}

    def figures(self) -> Mapping[str, "Callable[[xr.Dataset], Figure]"]:
        from adam_transition.studies.divergence import figures

        return {
            "divergence_regions": figures.divergence_regions,
            "divergence_areas": figures.divergence_areas,
            "divergence_trajectories": figures.divergence_trajectories,
            "divergence_d1": figures.divergence_d1,
        }
