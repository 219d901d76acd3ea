"""Optimisers other than Adam: update rules, by name or from optax."""

from adam_transition.optimizers.adapter import from_optax
from adam_transition.optimizers.registry import ADAM, OPTIMIZERS, Optimizer, named, own

__all__ = ["ADAM", "OPTIMIZERS", "Optimizer", "from_optax", "named", "own"]
