"""Any optax transformation as an update rule.

A factory makes the transformation from the two axes of a plane, for instance

    lambda beta1, beta2: optax.contrib.adopt(1.0, beta1, beta2)

with the learning rate 1, because the simulation multiplies by its own step sizes. What the leaves
of its state are is found out by making a few updates: counts of updates become the step, numbers
that stay what they were are constants, and all others are the state of the rule.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PyTree

from adam_transition import adam

Factory = Callable[[Any, Any], Any]
"""(first β, second β) → an optax transformation with learning rate 1."""

_Leaf = Literal["count", "constant", "number"]

_BETAS = (0.9, 0.99), (0.5, 0.7)
_GRADIENTS = 0.7, -0.3, 1.1, 0.0, -0.2


class OptaxState(NamedTuple):
    """The numbers of a transformation's state that its updates change."""

    numbers: tuple[Array, ...]
    step: Int[Array, ""]


def from_optax(factory: Factory, name: str = "optimizer") -> adam.UpdateRule:
    """The update rule of an optax transformation, for arrays of parameters.

    The rule computes β = 1 − p in the dtype of the simulation; for β within 1e-5 of 1 use float64.
    Of `adam.Hyperparameters`, ε has no effect, and neither has the initialization of a method: ε,
    bias corrections and initial moments are those of the transformation.

    Args:
      factory: makes the transformation from two numbers, which may be traced; a rule with one
        hyperparameter ignores the second.
      name: what errors call it.

    Raises:
      ValueError: the factory does not take two numbers, which may be traced, or does not return a
        transformation; the update needs the parameters (weight decay, for example) or is not finite
        at finite gradients; the initial state depends on the hyperparameters; or the state holds an
        integer that does not count updates, or a random key. For parameters that are not scalar,
        raised at the first use.
    """

    @lru_cache
    def leaves_for(shape: tuple[int, ...]) -> tuple[_Leaf, ...]:
        with jax.ensure_compile_time_eval():
            return _examined(factory, shape, name)

    leaves_for(())

    def init(params: Array) -> OptaxState:
        state = jax.tree.leaves(factory(*_BETAS[0]).init(params))
        kinds = leaves_for(jnp.shape(params))
        numbers = (leaf for kind, leaf in zip(kinds, state, strict=True) if kind == "number")
        return OptaxState(tuple(jnp.asarray(one) for one in numbers), jnp.zeros((), jnp.int32))

    def init_from_gradients(full_gradient: Array, largest_square: Array) -> OptaxState:
        del largest_square  # the transformation does not say what it would do with it
        return init(full_gradient)

    def update(
        gradients: Array, state: OptaxState, hyper: adam.Hyperparameters, *, bias_correction: bool
    ) -> tuple[Array, OptaxState]:
        del bias_correction
        p, q = (jnp.asarray(value, gradients.dtype) for value in hyper[:2])
        transformation = factory(1 - p, 1 - q)
        start, structure = jax.tree.flatten(transformation.init(gradients))
        kinds = leaves_for(jnp.shape(gradients))
        numbers = iter(state.numbers)
        leaves = [
            _leaf(kind, first, numbers, state.step)
            for kind, first in zip(kinds, start, strict=True)
        ]
        updates, inner = transformation.update(gradients, jax.tree.unflatten(structure, leaves))
        kept = tuple(
            leaf.astype(before.dtype)
            for kind, leaf, before in zip(kinds, jax.tree.leaves(inner), start, strict=True)
            if kind == "number"
        )
        direction = jnp.negative(updates).astype(gradients.dtype)
        return direction, OptaxState(kept, state.step + 1)

    return adam.UpdateRule(init, init_from_gradients, update, _never)


def _leaf(kind: _Leaf, start: Array, numbers: Iterator[Array], step: Array) -> Array:
    match kind:
        case "count":
            return (start + step).astype(jnp.asarray(start).dtype)
        case "constant":
            return start
        case "number":
            return next(numbers)


def _never(state: Any) -> Bool[Array, ""]:
    del state
    return jnp.array(False)


def _examined(factory: Factory, shape: tuple[int, ...], name: str) -> tuple[_Leaf, ...]:
    """What each leaf of the state is, for parameters of a shape.

    Raises:
      ValueError: as for `from_optax`.
    """
    params = jnp.zeros(shape)
    starts = [_attempt(partial(_start, factory, betas, params), name) for betas in _BETAS]
    first, second = (jax.tree.leaves(start) for start in starts)
    for leaf in first:
        if jnp.issubdtype(jnp.asarray(leaf).dtype, jax.dtypes.prng_key):
            raise ValueError(
                f"{name}: its state holds a random key, but updates must be a function"
            )
    if not _equal(first, second):
        raise ValueError(f"{name}: its initial state depends on the hyperparameters")
    states = [starts[0]]
    directions = np.linspace(1, 2, max(1, params.size)).reshape(shape)
    for gradient in _GRADIENTS:
        scaled = jnp.asarray(gradient * directions, params.dtype)
        updates, state = _attempt(partial(_updated, factory, scaled, states[-1]), name)
        if not np.isfinite(np.asarray(updates)).all():
            raise ValueError(f"{name}: its update is not finite at the gradient {gradient}")
        states.append(state)
    _attempt(partial(_traced, factory, params, states[-1]), name)
    histories = zip(*(jax.tree.leaves(state) for state in states), strict=True)
    return tuple(_kind([np.asarray(one) for one in history], name) for history in histories)


def _start(factory: Factory, betas: tuple[float, float], params: Array) -> PyTree:
    return factory(*betas).init(params)


def _updated(factory: Factory, gradients: Array, state: PyTree) -> tuple[Array, PyTree]:
    return factory(*_BETAS[0]).update(gradients, state)


def _traced(factory: Factory, params: Array, state: PyTree) -> PyTree:
    """Updates with hyperparameters that are arrays, mapped over cells."""

    def update(betas: Array) -> PyTree:
        return factory(betas[0], betas[1]).update(params, state)

    return jax.eval_shape(jax.vmap(update), jnp.asarray(_BETAS))


def _attempt(function: Callable[[], Any], name: str) -> Any:
    """Calls a user's code; whatever it raises becomes one line."""
    try:
        return function()
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise ValueError(
            f"{name}: must be a factory (beta1, beta2) → optax transformation whose update needs "
            f"no parameters and can be traced: {type(error).__name__}: {reason}"
        ) from error


def _kind(history: list[np.ndarray], name: str) -> _Leaf:
    start = history[0]
    is_integer = np.issubdtype(start.dtype, np.integer) and start.ndim == 0
    if is_integer and [int(one - start) for one in history] == list(range(len(history))):
        return "count"
    if all(np.array_equal(one, start) for one in history):
        return "constant"
    if not np.issubdtype(start.dtype, np.floating):
        raise ValueError(f"{name}: its state holds {start.dtype} that does not count updates")
    return "number"


def _equal(first: list[Any], second: list[Any]) -> bool:
    return len(first) == len(second) and all(
        np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(first, second, strict=True)
    )
