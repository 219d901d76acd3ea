"""Finds every Adam in an optimiser, with the β1, β2 and ε that it runs with.

An optimiser is a tree of optax transformations, and its state is a tree of their states. `find`
lists Adam's moments in a state, whatever surrounds them: `chain`, `MultiSteps`, `partition`,
`inject_hyperparams`, a train state. `read` lists, in the same order, the settings of each Adam,
from the transformations themselves: an optax transformation is a pair of functions, and its
hyperparameters are the variables in their closures.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from types import FunctionType, MethodType
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jaxtyping import Array, Int, PyTree

from adam_transition import adam

_INJECTED = (optax.InjectHyperparamsState, optax.InjectStatefulHyperparamsState)
_OTHER_RULES = ("scale_by_adamax", "scale_by_yogi", "scale_by_radam", "scale_by_adopt")
"""Rules whose states have the same fields as Adam's, but whose v or step differs."""
_DEPTH = 50


class Moments(NamedTuple):
    """The moments of one Adam in a state."""

    path: str  # of the moments in the state
    first: PyTree
    second: PyTree
    steps: Int[Array, ""]


class Settings(NamedTuple):
    """The settings of one Adam; the numbers may be traced."""

    hyper: adam.Hyperparameters
    nesterov: bool = False
    bias_correction: bool = True
    injected: bool = False  # the numbers may change from step to step
    rule: str = "scale_by_adam"

    @property
    def is_adam(self) -> bool:
        return self.rule == "scale_by_adam"


class _Injection(NamedTuple):
    """An `inject_hyperparams`, which rebuilds its transformation in every step."""

    make: Callable[..., Any]
    static: Mapping[str, Any]


class _Known(NamedTuple):
    """A function that could be interpreted, and its meaning."""

    function: FunctionType
    says: Settings | _Injection


def find(state: PyTree) -> list[Moments]:
    """The moments of every Adam in a state."""
    found = []
    for path, node in jax.tree_util.tree_flatten_with_path(state, is_leaf=_has_moments)[0]:
        if _has_moments(node):
            parts = (
                (node.first, node.second, node.step)
                if isinstance(node, adam.AdamState)
                else (node.mu, node.nu, node.count)
            )
            found.append(Moments(jax.tree_util.keystr(path), *parts))
    return found


def read(optimiser: Any, state: PyTree) -> list[Settings] | None:
    """The settings of every Adam in `find(state)`; None if they cannot be determined.

    Args:
      optimiser: the transformation.
      state: its state after a step; injected hyperparameters are those of that step.
    """
    found = list(_settings(optimiser, state))
    return found if len(found) == len(find(state)) else None


def written(optimiser: Any) -> list[Settings]:
    """The settings held by the transformations themselves, without injected ones."""
    return [one.says for one in _known(optimiser) if isinstance(one.says, Settings)]


def relatives(state: PyTree) -> list[str]:
    """Names of the states that hold a second moment, such as those of RMSProp and AMSGrad."""
    nodes = jax.tree.leaves(state, is_leaf=_has_second_moment)
    return [type(node).__name__ for node in nodes if _has_second_moment(node)]


def _has_moments(node: Any) -> bool:
    if isinstance(node, optax.ScaleByAdamState | adam.AdamState):
        return True
    own = not type(node).__module__.startswith("optax.")  # a user's class with the same fields
    return own and _has_second_moment(node) and {"mu", "count"} <= set(node._fields)


def _has_second_moment(node: Any) -> bool:
    return isinstance(node, tuple) and "nu" in getattr(node, "_fields", ())


def _settings(optimiser: Any, state: PyTree) -> Iterator[Settings]:
    nodes = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, _INJECTED))
    injected = iter([node for node in nodes if isinstance(node, _INJECTED)])
    for one in _known(optimiser):
        if isinstance(one.says, Settings):
            yield one.says
        elif (node := next(injected, None)) is not None:
            made = one.says.make(**one.says.static, **node.hyperparams)
            for inner in _settings(made, node.inner_state):
                yield inner._replace(injected=True)


def _known(node: Any, above: tuple[int, ...] = ()) -> list[_Known]:
    """The functions that can be interpreted, ordered as the states: tuples, then sorted keys."""
    if id(node) in above or len(above) > _DEPTH:
        return []
    inner = partial(_known, above=(*above, id(node)))
    if isinstance(node, optax.GradientTransformation):  # also a tuple
        return inner(node.update)
    if isinstance(node, Mapping):
        return [one for key in _in_order(node) for one in inner(node[key])]
    if isinstance(node, tuple | list):
        return [one for part in node for one in inner(part)]
    if isinstance(node, partial):
        return _distinct(inner(one) for one in (node.func, *node.args, *node.keywords.values()))
    if isinstance(node, MethodType):
        return inner(node.__self__)
    if isinstance(node, FunctionType):
        enclosed = _enclosed(node)
        says = _understood(node, enclosed)
        if says is not None:
            return [_Known(node, says)]
        return _distinct(inner(one) for one in enclosed.values())
    if hasattr(node, "__wrapped__"):  # a jitted function
        return inner(node.__wrapped__)
    if callable(getattr(node, "update", None)) and not isinstance(node, type):  # MultiSteps
        return _distinct(inner(one) for one in getattr(node, "__dict__", {}).values())
    return []


def _distinct(parts: Iterable[list[_Known]]) -> list[_Known]:
    """Concatenates the parts, counting once what several variables of a function share."""
    found: list[_Known] = []
    for part in parts:
        seen = [one.function for one in found]
        if not all(any(one.function is other for other in seen) for one in part):
            found += part
    return found


def _enclosed(function: FunctionType) -> dict[str, Any]:
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:  # not bound yet
            continue
    return found


def _understood(function: FunctionType, enclosed: dict[str, Any]) -> Settings | _Injection | None:
    maker, _, rest = function.__qualname__.partition(".<locals>.")
    if not rest.endswith("update_fn"):
        return None
    ours = function.__module__ == adam.__name__ and maker == "scale_by_adam"
    if ours and {"initialization", "hyper"} <= set(enclosed):
        correction = enclosed["initialization"] == "bias_correction"
        return Settings(enclosed["hyper"], bias_correction=correction)
    if function.__module__.partition(".")[0] != "optax":
        return None
    if maker == "scale_by_adam" and {"b1", "b2", "eps", "eps_root"} <= set(enclosed):
        hyper = adam.Hyperparameters(
            1 - enclosed["b1"], 1 - enclosed["b2"], enclosed["eps"], enclosed["eps_root"]
        )
        return Settings(hyper, nesterov=bool(enclosed.get("nesterov", False)))
    if maker in _OTHER_RULES:
        return Settings(adam.Hyperparameters(np.nan, np.nan), rule=maker)
    if maker == "inject_hyperparams" and "inner_factory" in enclosed:
        return _Injection(enclosed["inner_factory"], enclosed.get("other_hps", {}))
    return None


def _in_order(mapping: Mapping[Any, Any]) -> list[Any]:
    try:
        return sorted(mapping)
    except TypeError:
        return sorted(mapping, key=repr)
