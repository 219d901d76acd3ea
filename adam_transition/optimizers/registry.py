"""Optimisers by name: their update rules, what the axes of the plane mean for them, defaults."""

import hashlib
import importlib
import inspect
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from jaxtyping import Float

from adam_transition import adam
from adam_transition.optimizers import rules
from adam_transition.optimizers.adapter import (
    Factory,
    counts_in_the_long_run,
    from_optax,
    has_steps_of_one_size,
    uses_second,
)

Limit = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""A table of gradients (n, d), ε and ε_root of C cells → the drift (C, d), whatever the βs."""

Growth = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(first β, second β) → the factor by which a direction grows in each step of a run of draws."""


@dataclass(frozen=True)
class Optimizer:
    """An update rule in the (β1, β2) plane."""

    name: str
    rule: adam.UpdateRule
    axes: tuple[str, str | None] = ("beta1", "beta2")  # the rule's own names; None: has no effect
    defaults: Mapping[str, float] = field(default_factory=dict)  # of its library, by axis
    source: str = ""
    bounds_steps: bool = False  # whether β1 = √β2 bounds its steps: |m|/√v for averages m and v
    has_epsilon: bool = True  # whether ε and the initialization are those of the simulation
    has_bias_correction: bool = True
    slowest: float = 1.0  # memory in steps that no axis sets
    steps_of_one_size: bool = False  # ±constant, up to a small ε: D is 0 on intervals
    counts_steps: bool = False  # whether its update at step k depends on k in the long run
    limit: Limit | None = None  # the drift with replacement, and its sign under shuffling
    starts: tuple[float, ...] = (1.0,)  # first v of an orbit over the mean square: what it may keep
    growth_on_zeros: Growth | None = None  # in a run of zero gradients, at ε = 0
    growth_on_repeats: Growth | None = None  # in a run of equal gradients, at ε = 0

    def __hash__(self) -> int:
        return hash((self.name, self.rule))

    def ignored(self, epsilon: float, initialization: str) -> str | None:
        """Which of two settings of a simulation has no effect although it is not the default."""
        if not self.has_epsilon and epsilon != 0:
            return "epsilon"
        if initialization == "zero":
            return None
        is_used = self.has_epsilon and (
            self.has_bias_correction or initialization != "bias_correction"
        )
        return None if is_used else "initialization"


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


def _over_root(beta1: np.ndarray, beta2: np.ndarray) -> np.ndarray:
    """The average decays with β1 and √v with √β2."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(beta1 > 0, beta1 / np.sqrt(beta2), 0.0)


def _slower_over_root(slower: float) -> Growth:
    """A numerator that decays no faster than `slower`, over √v."""
    return lambda beta1, beta2: _over_root(np.maximum(beta1, slower), beta2)


def _over_maximum(beta1: np.ndarray, beta2: np.ndarray) -> np.ndarray:
    """AdaMax's denominator decays with β2 itself."""
    return _over_root(beta1, beta2**2)


def _belief(beta1: np.ndarray, beta2: np.ndarray) -> np.ndarray:
    """In a run of equal gradients g − m decays with β1, so √v does with the larger of β1, √β2."""
    with np.errstate(divide="ignore"):
        return 1 / np.maximum(beta1, np.sqrt(beta2))


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
                bounds_steps=True, limit=amsgrad_limit, starts=(0.0,),
            ),
            Optimizer(
                "adopt", rules.adopt(), defaults={"beta1": 0.9, "beta2": 0.9999},
                source="arXiv:2411.02853", counts_steps=True, has_bias_correction=False,
            ),
            Optimizer(
                "adopt_unclipped", rules.adopt(clip=False),
                defaults={"beta1": 0.9, "beta2": 0.9999}, source="arXiv:2411.02853",
                growth_on_zeros=_slower_over_root(1.0), has_bias_correction=False,
            ),
            Optimizer(
                "adabelief", rules.ADABELIEF, defaults=_ADAM, source="arXiv:2010.07468",
                growth_on_repeats=_belief,
            ),
            Optimizer(
                "nadam", rules.NADAM, defaults=_ADAM, source="Dozat 2016", bounds_steps=True,
                growth_on_zeros=_over_root,
            ),
            Optimizer(
                "radam", rules.RADAM, defaults=_ADAM, source="arXiv:1908.03265",
                growth_on_zeros=_over_root,
            ),
            Optimizer(
                "adamax", rules.ADAMAX, defaults=_ADAM, source="arXiv:1412.6980",
                growth_on_zeros=_over_maximum,
            ),
            Optimizer(
                "yogi", rules.YOGI, defaults=_ADAM, source="Zaheer et al. 2018", slowest=200,
                starts=(1.0, 0.37),
            ),
            Optimizer(
                "rmsprop", rules.RMSPROP, ("momentum", "decay"), {"momentum": 0.0, "decay": 0.9},
                "Tieleman & Hinton 2012",
            ),
            Optimizer(
                "ademamix", rules.ademamix(_SLOW_BETA), defaults=_ADAM, source="arXiv:2409.03137",
                slowest=1 / (1 - _SLOW_BETA), growth_on_zeros=_slower_over_root(_SLOW_BETA),
            ),
            Optimizer(
                "adan", rules.adan(), ("beta1", "beta3"), {"beta1": 0.98, "beta3": 0.99},
                "arXiv:2208.06677", slowest=1 / (1 - rules.ADAN_BETA2),
                growth_on_zeros=_slower_over_root(rules.ADAN_BETA2),
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


def resolved(optimizer: Optimizer | Factory | str) -> Optimizer:
    """The optimiser that an argument `optimizer` means: one, a factory, or a name.

    Raises:
      ValueError: see `named` and `own`; the message names the argument.
    """
    if isinstance(optimizer, Optimizer):
        return optimizer
    if isinstance(optimizer, str):
        try:
            return named(optimizer)
        except ValueError as error:
            raise ValueError(f"optimizer={error}") from None
    return own(optimizer)


def source_digest(name: str) -> str:
    """A digest of the code that a user's factory comes from: its results depend on that.

    It covers the loaded modules of the packages of the named module and of the factory, or if they
    are single files the loaded modules beside them.

    Args:
      name: as for `named`; empty for a built-in optimiser.
    """
    module, separator, attribute = name.partition(":")
    if not separator:
        return ""
    factory = getattr(importlib.import_module(module), attribute)
    owners = {module, getattr(factory, "__module__", None) or module}
    digest = hashlib.sha256()
    for path in sorted(set().union(*(_files_of(owner) for owner in owners))):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _files_of(module: str) -> set[Path]:
    """The files of the loaded modules of the same package, or in the same folder."""
    package, dot, _ = module.partition(".")
    paths = {name: getattr(found, "__file__", None) for name, found in list(sys.modules.items())}
    files = {
        name: Path(path).resolve() for name, path in paths.items() if path and path.endswith(".py")
    }
    if dot or hasattr(sys.modules.get(module), "__path__"):
        return {file for name, file in files.items() if name.partition(".")[0] == package}
    folder = files[module].parent if module in files else None
    return {file for file in files.values() if file.parent == folder}


def own(
    factory: Factory,
    name: str = "optimizer",
    *,
    slowest: float = 100.0,
    counts_steps: bool | None = None,
) -> Optimizer:
    """The optimiser of a factory (beta1, beta2) → optax transformation with learning rate 1.

    Its axes have the names of the factory's arguments, and their defaults. A second one that has no
    effect on some updates is no axis.

    Args:
      factory: see `from_optax`.
      name: what errors and figures call it.
      slowest: steps that its state remembers beyond 1/(1 − β) of the axes; a drift is averaged only
        after that, so give more for a rule with a slower average of its own.
      counts_steps: whether its updates depend on the step number in the long run; default: found
        out by trial.

    Raises:
      ValueError: see `from_optax`; or `slowest` is not finite or below 1.
    """
    if not (isinstance(slowest, int | float) and 1 <= slowest < math.inf):
        raise ValueError(f"slowest={slowest!r}: must be a finite number of steps, at least 1")
    rule = from_optax(factory, name)
    counts_steps = counts_in_the_long_run(rule) if counts_steps is None else counts_steps
    first, second = _arguments(factory)
    axes = (first.name, second.name if uses_second(factory) else None)
    defaults = {
        one.name: float(one.default)
        for one in (first, second)
        if isinstance(one.default, int | float) and 0 <= one.default < 1 and one.name in axes
    }
    return Optimizer(
        name, rule, axes, defaults, has_epsilon=False, slowest=slowest, counts_steps=counts_steps,
        steps_of_one_size=has_steps_of_one_size(factory),
    )  # fmt: skip


def _arguments(factory: Factory) -> tuple[inspect.Parameter, inspect.Parameter]:
    """The first two arguments of a factory; called beta1 and beta2 if they have no names."""
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = inspect.Parameter("beta1", kind), inspect.Parameter("beta2", kind)
    try:
        found = list(inspect.signature(factory).parameters.values())
    except (TypeError, ValueError):
        return names
    first, second = (*found, *names)[:2] if len(found) >= 2 else names
    return first, second
