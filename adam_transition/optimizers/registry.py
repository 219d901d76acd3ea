"""Optimisers by name: their update rules, what the axes of the plane mean for them, defaults."""

import hashlib
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from jaxtyping import Float

from adam_transition import adam
from adam_transition.optimizers import rules
from adam_transition.optimizers.adapter import Factory, from_optax

Limit = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""A table of gradients (n, d), ε and ε_root of C cells → the drift (C, d), whatever the βs."""


@dataclass(frozen=True)
class Optimizer:
    """An update rule in the (β1, β2) plane."""

    name: str
    rule: adam.UpdateRule
    axes: tuple[str, str | None] = ("beta1", "beta2")  # the rule's own names; None: has no effect
    defaults: Mapping[str, float] = field(default_factory=dict)  # of its library, by axis
    source: str = ""
    bounds_steps: bool = False  # whether β1 = √β2 bounds its steps: |m|/√v for averages m and v
    has_epsilon: bool = True  # whether ε and the bias correction are those of the simulation
    slowest: float = 1.0  # memory in steps that no axis sets
    steps_of_one_size: bool = False  # ±constant, up to a small ε: D is 0 on intervals
    counts_steps: bool = False  # whether its update at step k depends on k in the long run
    limit: Limit | None = None  # the drift with replacement, and its sign under shuffling

    def __hash__(self) -> int:
        return hash((self.name, self.rule))


def amsgrad_limit(
    gradients: Float[np.ndarray, "n d"],
    epsilon: Float[np.ndarray, " C"],
    epsilon_root: Float[np.ndarray, " C"],
) -> Float[np.ndarray, "C d"]:
    """AMSGrad's drift with replacement, −Σ_i g_i/(√(max_i g_i² + ε_root) + ε).

    Runs of the largest gradient of any length occur, so v comes as close to its square as one likes
    and stays there. As the mean of m is that of the gradients, D has the sign of −Σ g_i for every
    β1 and β2: AMSGrad returns wherever the full gradient points back. Under random shuffling v
    stays at a value below the largest square, so only the sign is that of this formula.
    """
    largest = (gradients**2).max(axis=0)
    denominator = np.sqrt(largest + epsilon_root[:, None]) + epsilon[:, None]
    return -gradients.sum(axis=0) / np.where(denominator > 0, denominator, 1)


_ADAM = MappingProxyType({"beta1": 0.9, "beta2": 0.999})
_SLOW_BETA = 0.9999

ADAM = Optimizer("adam", adam.ADAM, defaults=_ADAM, source="arXiv:1412.6980", bounds_steps=True)

OPTIMIZERS: Mapping[str, Optimizer] = MappingProxyType(
    {
        one.name: one
        for one in (
            ADAM,
            Optimizer(
                "amsgrad", rules.AMSGRAD, defaults=_ADAM, source="arXiv:1904.09237",
                bounds_steps=True, limit=amsgrad_limit,
            ),
            Optimizer(
                "adopt", rules.adopt(), defaults={"beta1": 0.9, "beta2": 0.9999},
                source="arXiv:2411.02853", counts_steps=True,
            ),
            Optimizer(
                "adopt_unclipped", rules.adopt(clip=False),
                defaults={"beta1": 0.9, "beta2": 0.9999}, source="arXiv:2411.02853",
            ),
            Optimizer("adabelief", rules.ADABELIEF, defaults=_ADAM, source="arXiv:2010.07468"),
            Optimizer("nadam", rules.NADAM, defaults=_ADAM, source="Dozat 2016", bounds_steps=True),
            Optimizer("radam", rules.RADAM, defaults=_ADAM, source="arXiv:1908.03265"),
            Optimizer("adamax", rules.ADAMAX, defaults=_ADAM, source="arXiv:1412.6980"),
            Optimizer("yogi", rules.YOGI, defaults=_ADAM, source="Zaheer et al. 2018", slowest=200),
            Optimizer(
                "rmsprop", rules.RMSPROP, ("momentum", "decay"), {"momentum": 0.0, "decay": 0.9},
                "Tieleman & Hinton 2012",
            ),
            Optimizer(
                "ademamix", rules.ademamix(_SLOW_BETA), defaults=_ADAM, source="arXiv:2409.03137",
                slowest=1 / (1 - _SLOW_BETA),
            ),
            Optimizer(
                "adan", rules.adan(), ("beta1", "beta3"), {"beta1": 0.98, "beta3": 0.99},
                "arXiv:2208.06677", slowest=1 / (1 - rules.ADAN_BETA2),
            ),
            Optimizer(
                "lion", rules.LION, defaults={"beta1": 0.9, "beta2": 0.99},
                source="arXiv:2302.06675", has_epsilon=False, steps_of_one_size=True,
            ),
            Optimizer(
                "signum", rules.SIGNUM, ("momentum", None), {"momentum": 0.9}, "arXiv:1802.04434",
                has_epsilon=False, steps_of_one_size=True,
            ),
            Optimizer(
                "sgd", rules.SGD, ("momentum", None), {"momentum": 0.9}, "Polyak 1964",
                has_epsilon=False,
            ),
            Optimizer(
                "muon", rules.MUON, ("momentum", None), {"momentum": 0.95}, "Jordan et al. 2024",
                has_epsilon=False, steps_of_one_size=True,
            ),
        )
    }
)  # fmt: skip
"""The built-in optimisers, by name."""


def muon_of_matrices(rows: int, columns: int) -> Optimizer:
    """Muon of one matrix of parameters, which a problem or a table holds flattened by rows.

    The name `muon` takes every number for a 1 × 1 matrix of its own.

    Raises:
      ValueError: a size is below 1.
    """
    if min(rows, columns) < 1:
        raise ValueError(f"rows={rows}, columns={columns}: must be at least 1")
    rule = rules.muon_of_matrices(rows, columns)
    return replace(OPTIMIZERS["muon"], name=f"muon_{rows}x{columns}", rule=rule)


def named(name: str) -> Optimizer:
    """A built-in optimiser, or the user's own as `package.module:factory`.

    Args:
      name: one of `OPTIMIZERS`, or where to import a factory from; see `from_optax`.

    Raises:
      ValueError: there is none of this name, the factory cannot be imported, or it is none.
    """
    if name in OPTIMIZERS:
        return OPTIMIZERS[name]
    module, separator, attribute = name.partition(":")
    if not separator or not module or not attribute:
        allowed = ", ".join(OPTIMIZERS)
        raise ValueError(f"{name!r} is not one of {allowed}, or package.module:factory")
    try:
        factory = getattr(importlib.import_module(module), attribute)
    except Exception as error:
        raise ValueError(f"{name!r}: cannot be imported: {type(error).__name__}: {error}") from None
    return own(factory, name)


def source_digest(name: str) -> str:
    """A digest of the module that a user's factory comes from: its results depend on that code.

    Args:
      name: as for `named`; empty for a built-in optimiser.
    """
    module, separator, _ = name.partition(":")
    file = getattr(importlib.import_module(module), "__file__", None) if separator else None
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16] if file else ""


def own(factory: Factory, name: str = "optimizer", *, slowest: float = 100.0) -> Optimizer:
    """The optimiser of a factory (beta1, beta2) → optax transformation with learning rate 1.

    Args:
      factory: see `from_optax`.
      name: what errors and figures call it.
      slowest: steps that its state remembers beyond 1/(1 − β) of the axes; a drift is averaged only
        after that, so give more for a rule with a slower average of its own.

    Raises:
      ValueError: see `from_optax`.
    """
    return Optimizer(name, from_optax(factory, name), has_epsilon=False, slowest=slowest)
