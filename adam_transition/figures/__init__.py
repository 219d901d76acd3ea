"""Figures: a data set in, a matplotlib figure out. Nothing is computed here."""

from adam_transition.figures.advise import probe_and_training
from adam_transition.figures.batch_size import batch_size_planes, batch_size_threshold
from adam_transition.figures.boundary import boundary_curves, boundary_scaling
from adam_transition.figures.common import COLOURS, TITLES, style
from adam_transition.figures.concentration import concentration, direction
from adam_transition.figures.divergence import (
    divergence_areas,
    divergence_d1,
    divergence_regions,
    divergence_trajectories,
)
from adam_transition.figures.networks import network_curves, network_planes, network_spikes
from adam_transition.figures.phase import phase_diagram, trajectories
from adam_transition.figures.theorems import (
    theorem_conditions,
    theorem_neighbourhood,
    theorem_rate,
    theorem_reddi,
)

__all__ = [
    "COLOURS",
    "TITLES",
    "batch_size_planes",
    "batch_size_threshold",
    "boundary_curves",
    "boundary_scaling",
    "concentration",
    "direction",
    "divergence_areas",
    "divergence_d1",
    "divergence_regions",
    "divergence_trajectories",
    "network_curves",
    "network_planes",
    "network_spikes",
    "phase_diagram",
    "probe_and_training",
    "style",
    "theorem_conditions",
    "theorem_neighbourhood",
    "theorem_rate",
    "theorem_reddi",
    "trajectories",
]
