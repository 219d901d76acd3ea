"""The phase study: simulated verdicts over the (β1, β2) plane, the exact drift, trajectories."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import xarray as xr

from adam_transition.studies.phase import claims, data, diagram, drift
from adam_transition.sweeps.claims import Claim
from adam_transition.sweeps.study import Filled, Part

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class PhaseStudy:
    """A phase diagram, with trajectories at selected points."""

    diagram: diagram.PhaseDiagram
    points: tuple[tuple[float, float], ...] = ()  # (β1, β2) of the trajectories
    cells_per_chunk: int = 0  # written at once, lost at most when interrupted; 0: the default

    name = "phase"

    def coordinates(self) -> xr.Dataset:
        start = diagram.start_distance(self.diagram)
        attrs = {"simulation_backend": self.diagram.backend}
        return diagram.coordinates(self.diagram).assign_attrs(
            attrs if start is None else {**attrs, "start_distance": start}
        )

    def parts(self) -> Mapping[str, Part | Filled]:
        parts: dict[str, Part | Filled] = {
            "simulation": data.simulated(self.diagram, self.cells_per_chunk),
            "drift": lambda *_: drift.drift_of_diagram(self.diagram),
        }
        if self.points:
            parts["trajectories"] = lambda *_: data.trajectories(self.diagram, self.points)
        return parts

    def claims(self, data: xr.Dataset) -> list[Claim]:
        return claims.claims(self.diagram, data)

    def summary(self, data: xr.Dataset) -> dict[str, Any]:
        return {
            "shares": claims.shares(self.diagram, data),
            "notes": claims.notes(self.diagram, data),
        }

    def figures(self) -> Mapping[str, "Callable[[xr.Dataset], Figure]"]:
        from adam_transition.studies.phase import figures

        found = {"phase": figures.draw_phase_diagram}
        return {**found, "trajectories": figures.trajectories} if self.points else found
