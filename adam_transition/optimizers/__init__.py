"""Optimisers other than Adam: update rules, by name or from optax."""

from adam_transition.optimizers.adapter import Factory, from_optax
from adam_transition.optimizers.registry import (
    ADAM,
    OPTIMIZERS,
    Optimizer,
    muon_of_matrices,
    named,
    own,
    resolved,
)

__all__ = [
    "ADAM",
    "OPTIMIZERS",
    "Factory",
    "Optimizer",
    "from_optax",
    "muon_of_matrices",
    "named",
    "own",
    "resolved",
]
