"""Any optax transformation as an update rule.

A factory makes the transformation from the two axes of a plane, for instance

    lambda beta1, beta2: optax.contrib.adopt(1.0, beta1, beta2)

with the learning rate 1, because the simulation multiplies by its own step sizes. All numbers of
its state are carried along, except integers that count updates: they become the step, which cells
share.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, PyTree

from adam_transition import adam

Factory = Callable[[Any, Any], Any]
"""(first β, second β) → an optax transformation with learning rate 1."""

_BETAS = (0.9, 0.99), (0.5, 0.7)
_GRADIENTS = 0.7, -0.3, 1.1, 0.0, -0.2
_CONSTANT_STEPS = 32  # with one gradient, which an update must go against
_COUNTED = (*range(4097), 1 << 20, (1 << 30) + 7)  # values at which a count must go up by 1
_LATE = 10**4, 10**6, 10**8  # steps at which a rule that forgets its beginning does the same
_SIZES = 1e-6, 1.0, 1e6  # of gradients there


class OptaxState(NamedTuple):
    """The state of a transformation without its counts."""

    numbers: tuple[Array, ...]
    step: Int[Array, ""]


class _Form(NamedTuple):
    """What the state of a transformation is made of."""

    structure: Any  # a treedef
    counts: tuple[int | None, ...]  # for each leaf: where it starts to count updates, or None


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
        transformation; the update needs the parameters (weight decay, for example), is not one
        array of real numbers of the shape of the gradient, is not finite at finite gradients, or
        goes along a constant gradient and not against it; the initial state depends on the
        hyperparameters or the parameters; or the state holds other things than arrays, a random
        key, or arrays that change their shape. For parameters that are not scalar, raised at the
        first use.
    """

    @lru_cache
    def form_for(shape: tuple[int, ...]) -> _Form:
        with jax.ensure_compile_time_eval():
            return _examined(factory, shape, name)

    form_for(())

    def init(params: Array) -> OptaxState:
        start = jax.tree.leaves(factory(*_BETAS[0]).init(jnp.zeros_like(params)))
        counts = form_for(jnp.shape(params)).counts
        numbers = (leaf for count, leaf in zip(counts, start, strict=True) if count is None)
        return OptaxState(tuple(jnp.asarray(one) for one in numbers), jnp.zeros((), jnp.int32))

    def init_from_gradients(full_gradient: Array, largest_square: Array) -> OptaxState:
        del largest_square  # the transformation does not say what it would do with it
        return init(full_gradient)

    def update(
        gradients: Array, state: OptaxState, hyper: adam.Hyperparameters, *, bias_correction: bool
    ) -> tuple[Array, OptaxState]:
        del bias_correction
        p, q = (jnp.asarray(value, gradients.dtype) for value in hyper[:2])
        form = form_for(jnp.shape(gradients))
        numbers = iter(state.numbers)
        leaves = [_leaf(count, numbers, state.step) for count in form.counts]
        inner = jax.tree.unflatten(form.structure, leaves)
        updates, inner = factory(1 - p, 1 - q).update(gradients, inner)
        after = zip(form.counts, leaves, jax.tree.leaves(inner), strict=True)
        kept = tuple(
            jnp.asarray(leaf).astype(before.dtype) for count, before, leaf in after if count is None
        )
        direction = jnp.negative(updates).astype(gradients.dtype)
        return direction, OptaxState(kept, state.step + 1)

    return adam.UpdateRule(init, init_from_gradients, update, _never)


def uses_second(factory: Factory) -> bool:
    """Whether the updates of a factory that `from_optax` takes depend on its second number."""
    one, other = (_directions(factory, jnp.array([0.9, second])) for second in (0.99, 0.6))
    return not np.array_equal(one, other)


def has_steps_of_one_size(factory: Factory) -> bool:
    """Whether all updates of a factory that `from_optax` takes have one size, up to a small ε."""
    sizes = np.abs(_directions(factory, jnp.asarray(_BETAS[0])))
    return bool(np.ptp(sizes) < 1e-3 * sizes.max())


def counts_in_the_long_run(rule: adam.UpdateRule) -> bool:
    """Whether the updates of the rule still depend on the step number after many steps.

    Those of a rule with a bias correction do not; a step size that decays or a clip that grows do.

    Args:
      rule: what `from_optax` made of a factory.
    """
    hyper, state = adam.hyperparameters(*_BETAS[0]), rule.init(jnp.zeros(()))
    step = jax.jit(partial(rule.update, hyper=hyper, bias_correction=False))
    for gradient in _GRADIENTS:
        _, state = step(jnp.asarray(gradient), state)
    states = [state._replace(step=jnp.asarray(count, jnp.int32)) for count in _LATE]
    late = np.array([[step(jnp.asarray(size), one)[0] for size in _SIZES] for one in states])
    return not np.allclose(late, late[0], rtol=1e-3, atol=0, equal_nan=True)


def _directions(factory: Factory, betas: Array) -> np.ndarray:
    step = jax.jit(lambda gradient, state: factory(betas[0], betas[1]).update(gradient, state))
    state, found = factory(*_BETAS[0]).init(jnp.zeros(())), []
    for gradient in _GRADIENTS * 4:
        update, state = step(jnp.asarray(gradient), state)
        found.append(update)
    return np.asarray(found)


def _leaf(count: int | None, numbers: Iterator[Array], step: Array) -> Array:
    return next(numbers) if count is None else count + step


def _never(state: Any) -> Bool[Array, ""]:
    del state
    return jnp.array(False)


def _examined(factory: Factory, shape: tuple[int, ...], name: str) -> _Form:
    """What a transformation's state is made of, for parameters of a shape, after trial updates.

    Raises:
      ValueError: as for `from_optax`.
    """
    params = jnp.zeros(shape)
    other = jnp.linspace(1.0, 2.0, max(1, params.size)).reshape(shape)
    start = _start(factory, _BETAS[0], params, name)
    _check_leaves(start, name)
    for betas, point, of in (
        (_BETAS[1], params, "hyperparameters"), (_BETAS[0], other, "parameters"),
    ):  # fmt: skip
        if not _equal(start, _start(factory, betas, point, name)):
            raise ValueError(f"{name}: its initial state depends on the {of}")
    step = _traced(factory, other, start, name)
    state = start
    for gradient in _GRADIENTS:
        updates, state = step(gradient * other, state)
        if not np.isfinite(np.asarray(updates)).all():
            raise ValueError(f"{name}: its update is not finite at the gradient {gradient}")
    _check_sign(step, other, start, name)
    counts = tuple(
        _first_count(factory, other, start, state, i, name)
        for i in range(len(jax.tree.leaves(start)))
    )
    return _Form(jax.tree.structure(start), counts)


def _start(factory: Factory, betas: tuple[float, float], params: Array, name: str) -> PyTree:
    if not callable(factory):
        kind = type(factory).__name__
        raise ValueError(f"{name}: must be a function (beta1, beta2), not a {kind}")
    made = _attempt(partial(factory, *betas), f"{name}: cannot be called as factory(beta1, beta2)")
    if not hasattr(made, "init") or not hasattr(made, "update"):
        kind = type(made).__name__
        raise ValueError(f"{name}: must be a factory of an optax transformation, not of a {kind}")
    return _attempt(partial(made.init, params), f"{name}: its init fails")


def _updated(factory: Factory, gradient: Array, state: PyTree, name: str) -> tuple[Array, PyTree]:
    updates, after = _attempt(
        partial(factory(*_BETAS[0]).update, gradient, state),
        f"{name}: its update(gradient, state), which must do without the parameters, fails",
    )
    is_array = isinstance(updates, jax.Array | np.ndarray) and updates.shape == gradient.shape
    if not is_array or not jnp.issubdtype(updates.dtype, jnp.floating):
        found = jax.tree.map(lambda leaf: jnp.asarray(leaf).aval.str_short(), updates)
        raise ValueError(
            f"{name}: its update must be one array of real numbers of the shape of the gradient, "
            f"not {found}"
        )
    return updates, after


def _check_leaves(state: PyTree, name: str) -> None:
    for leaf in jax.tree.leaves(state):
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic | bool | int | float):
            raise ValueError(f"{name}: its state holds a {type(leaf).__name__}, not only arrays")
        if jnp.issubdtype(jnp.asarray(leaf).dtype, jax.dtypes.prng_key):
            raise ValueError(
                f"{name}: its state holds a random key, but updates must be a function"
            )


_Step = Callable[[Array, PyTree], tuple[Array, PyTree]]


def _traced(factory: Factory, gradient: Array, start: PyTree, name: str) -> _Step:
    """A compiled update (gradient, state), which is checked against one that is not."""
    updates, state = _updated(factory, gradient, start, name)
    _check_same(start, state, name)

    def update(betas: Array, gradient: Array, state: PyTree) -> tuple[Array, PyTree]:
        return factory(betas[0], betas[1]).update(gradient, state)

    cells = jax.tree.map(lambda leaf: jnp.stack([jnp.asarray(leaf)] * 2), (gradient, start))
    mapped = _attempt(
        lambda: jax.jit(jax.vmap(update))(jnp.asarray(_BETAS), *cells),
        f"{name}: its update cannot be traced by JAX",
    )
    pairs = zip(jax.tree.leaves(mapped), jax.tree.leaves((updates, state)), strict=False)
    same = _structure(mapped) == _structure((updates, state)) and all(
        np.allclose(one[0], other, rtol=1e-3, atol=1e-6, equal_nan=True) for one, other in pairs
    )
    if not same:
        raise ValueError(f"{name}: what it returns depends on whether a β is a number or an array")
    betas = jnp.asarray(_BETAS[0])
    return jax.jit(lambda gradient, state: update(betas, gradient, state))


def _check_same(before: PyTree, after: PyTree, name: str) -> None:
    if _structure(before) != _structure(after):
        raise ValueError(f"{name}: an update changes the structure of its state")
    for one, two in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        if np.shape(one) != np.shape(two):
            raise ValueError(
                f"{name}: an update changes the shape of an array of its state from "
                f"{np.shape(one)} to {np.shape(two)}"
            )


def _structure(tree: PyTree) -> Any:
    return jax.tree.structure(tree)


def _check_sign(step: _Step, gradient: Array, state: PyTree, name: str) -> None:
    total = np.zeros(gradient.shape)
    for _ in range(_CONSTANT_STEPS):
        updates, state = step(gradient, state)
        total = total + np.asarray(updates)
    if (total * np.asarray(gradient)).sum() > 0:
        raise ValueError(
            f"{name}: its updates go along a constant gradient, not against it; chain "
            "optax.scale(-1.0) behind it"
        )


def _first_count(
    factory: Factory, gradient: Array, start: PyTree, state: PyTree, i: int, name: str
) -> int | None:
    """Where leaf i of the state starts to count updates; None if it does not.

    It does if it is one integer that goes up by one at thousands of values, whatever the rest.
    """
    first = jax.tree.leaves(start)[i]
    if np.ndim(first) or not jnp.issubdtype(jnp.asarray(first).dtype, jnp.integer):
        return None
    values = jnp.asarray(_COUNTED, jnp.asarray(first).dtype)

    def after(rest: PyTree, gradient: Array, value: Array) -> Array:
        leaves, structure = jax.tree.flatten(rest)
        leaves[i] = value
        moved = factory(*_BETAS[0]).update(gradient, jax.tree.unflatten(structure, leaves))[1]
        return jax.tree.leaves(moved)[i]

    for rest, at in ((start, gradient), (state, -3 * gradient)):
        found = _attempt(
            partial(jax.vmap(partial(after, rest, at)), values),
            f"{name}: its update cannot be traced by JAX",
        )
        if not np.array_equal(found, values + 1):
            return None
    return int(first)


def _attempt(function: Callable[[], Any], what: str) -> Any:
    """Calls a user's code; whatever it raises becomes one line that begins with `what`."""
    try:
        return function()
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise ValueError(f"{what}: {type(error).__name__}: {reason}") from error


def _equal(first: PyTree, second: PyTree) -> bool:
    one, two = jax.tree.leaves(first), jax.tree.leaves(second)
    return len(one) == len(two) and all(
        np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(one, two, strict=True)
    )
