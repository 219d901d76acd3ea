"""Optimisers other than Adam: update rules, by name or from optax."""

from adam_transition.optimizers.adapter import from_optax
from adam_transition.optimizers.registry import (
    ADAM,
    OPTIMIZERS,
    Optimizer,
    muon_of_matrices,
    named,
    own,
)

__all__ = ["ADAM", "OPTIMIZERS", "Optimizer", "from_optax", "muon_of_matrices", "named", "own"]
