"""Adam as a pure function: the paper's Algorithm 1, on any pytree of parameters.

    m ← β1 m + (1−β1) g,   v ← β2 v + (1−β2) g∘g,   x ← x − η_k m/(√v + ε)

Hyperparameters are arrays, so they can be vmapped and traced, and they are held as 1 − β1
and 1 − β2: in float32 the difference 1 − β2 loses its digits when β2 is near 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, NamedTuple, assert_never, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, PyTree

if TYPE_CHECKING:
    import optax

Initialization = Literal["zero", "first_gradient", "bias_correction"]
"""How the first moments are set: zero; the NeurIPS version's m = ∇f(x0), v = max_i ∇f_i(x0)²;
or zero with the bias correction of Kingma & Ba (2015)."""

Schedule = Literal["constant", "inverse_sqrt", "inverse_sqrt_epoch"]
"""Step sizes: η0; η0/√k with k the step; η0/√k with k the epoch. Both counts start at 1."""


SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)
INITIALIZATIONS: tuple[Initialization, ...] = get_args(Initialization)


def check_schedule(schedule: str) -> None:
    """Raises ValueError unless it is one of `SCHEDULES`."""
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule={schedule!r} is not one of {', '.join(SCHEDULES)}")


def check_initialization(initialization: str) -> None:
    """Raises ValueError unless it is one of `INITIALIZATIONS`."""
    if initialization not in INITIALIZATIONS:
        allowed = ", ".join(INITIALIZATIONS)
        raise ValueError(f"initialization={initialization!r} is not one of {allowed}")


class Hyperparameters(NamedTuple):
    """Hyperparameters of Adam; every field may be traced or batched."""

    one_minus_beta1: ArrayLike  # []
    one_minus_beta2: ArrayLike  # []
    epsilon: ArrayLike = 0.0  # [] outside the root
    epsilon_root: ArrayLike = 0.0  # [] inside the root, as optax has it; the paper has none


class AdamState(NamedTuple):
    """Moments of Adam. Leaves of the moments have the parameters' shapes."""

    first: PyTree  # m_k
    second: PyTree  # v_k
    step: Int[Array, ""]  # number of updates so far


def hyperparameters(
    beta1: ArrayLike,
    beta2: ArrayLike,
    *,
    epsilon: ArrayLike = 0.0,
    epsilon_root: ArrayLike = 0.0,
) -> Hyperparameters:
    """Hyperparameters from β1 and β2 in [0, 1), numbers or arrays, which may be traced.

    For β2 within 1e-6 of 1 build `Hyperparameters` from 1 − β2 itself.

    Raises:
      ValueError: a β outside [0, 1), or an ε that is negative or not finite, if it is not traced.
    """
    for name, value, most, allowed in (
        ("beta1", beta1, 1.0, "is outside [0, 1)"),
        ("beta2", beta2, 1.0, "is outside [0, 1)"),
        ("epsilon", epsilon, float("inf"), "is negative or not finite"),
        ("epsilon_root", epsilon_root, float("inf"), "is negative or not finite"),
    ):
        if isinstance(value, jax.core.Tracer):
            continue
        values = np.asarray(value)
        wrong = values[~((values >= 0) & (values < most))]
        if wrong.size:
            raise ValueError(f"{name}={wrong.flat[0]} {allowed}")
    return Hyperparameters(1.0 - beta1, 1.0 - beta2, epsilon, epsilon_root)


def init(params: PyTree) -> AdamState:
    """Zero moments, for the initializations `zero` and `bias_correction`."""
    zeros = jax.tree.map(jnp.zeros_like, params)
    return AdamState(first=zeros, second=zeros, step=jnp.zeros((), jnp.int32))


def init_from_gradients(full_gradient: PyTree, largest_square: PyTree) -> AdamState:
    """Moments of the NeurIPS version (arXiv:2208.09632): m = ∇f(x0), v = max_i ∇f_i(x0)²."""
    if jax.tree.map(jnp.shape, full_gradient) != jax.tree.map(jnp.shape, largest_square):
        raise ValueError("full_gradient and largest_square must have the same shapes")
    return AdamState(first=full_gradient, second=largest_square, step=jnp.zeros((), jnp.int32))


def update(
    grads: PyTree, state: AdamState, hyper: Hyperparameters, *, bias_correction: bool = False
) -> tuple[PyTree, AdamState]:
    """One update of Algorithm 1: returns (direction m/(√v + ε), new state).

    Where the denominator is zero the direction is 0. Then either no gradient was ever seen, or v
    holds none of those that m still holds: at β2 = 0 after a gradient 0, or where v underflows; the
    ratio is then not 0 but infinite or lost. With `bias_correction` (static) m and v are divided by
    1 − β^k first, as in Kingma & Ba (2015).
    Moments and direction have the types of moments and gradients, whatever that of hyperparameters
    that are arrays; the arithmetic is in the widest of them.
    """
    p, q, epsilon, epsilon_root = hyper
    step = state.step + 1
    # m − p·m, not β1·m: β = 1 − p would round p, and v + q(g² − v) would cancel at small β2.
    first = jax.tree.map(lambda m, g: _as_both(m - p * m + p * g, m, g), state.first, grads)
    second = jax.tree.map(lambda v, g: _as_both(v - q * v + q * (g * g), v, g), state.second, grads)
    m_hat, v_hat = first, second
    if bias_correction:
        m_hat = jax.tree.map(lambda m: m / one_minus_power(p, step), first)
        v_hat = jax.tree.map(lambda v: v / one_minus_power(q, step), second)
    direction = jax.tree.map(
        lambda m, v, one, other: _as_both(_ratio(m, v, epsilon, epsilon_root), one, other),
        m_hat, v_hat, first, second,
    )  # fmt: skip
    return direction, AdamState(first, second, step)


def one_minus_power(one_minus_beta: ArrayLike, power: ArrayLike) -> Array:
    """1 − β^k from 1 − β, accurate as β → 1 (and 1 at β = 0 when k ≥ 1)."""
    return -jnp.expm1(power * jnp.log1p(-jnp.asarray(one_minus_beta)))


def step_size(
    schedule: Schedule, initial: ArrayLike, step: ArrayLike, num_components: ArrayLike = 1
) -> Array:
    """η_k for the step that follows `step` updates, of the shape of `step`.

    `num_components` turns steps into epochs, for `inverse_sqrt_epoch`.
    """
    check_schedule(schedule)
    initial = jnp.asarray(initial)
    match schedule:
        case "constant":
            return jnp.broadcast_to(initial, jnp.shape(step))
        case "inverse_sqrt":
            count = jnp.asarray(step) + 1
        case "inverse_sqrt_epoch":
            count = jnp.asarray(step) // num_components + 1
        case _:
            assert_never(schedule)
    return initial / jnp.sqrt(count.astype(initial.dtype))


def scale_by_adam(
    hyper: Hyperparameters, *, initialization: Initialization = "zero"
) -> optax.GradientTransformation:
    """The update above as an optax transformation, with direction m/(√v + ε).

    With `bias_correction` it equals `optax.scale_by_adam`. An optax transformation never sees the
    components, so `first_gradient` takes m and v from the first gradient that it is given.
    """
    import optax  # here, so that simulations need nothing but JAX

    check_initialization(initialization)

    def init_fn(params: PyTree) -> AdamState:
        return init(params)

    def update_fn(
        updates: PyTree, state: AdamState, params: PyTree | None = None
    ) -> tuple[PyTree, AdamState]:
        del params
        if initialization == "first_gradient":
            is_first = state.step == 0
            state = state._replace(
                first=jax.tree.map(lambda m, g: jnp.where(is_first, g, m), state.first, updates),
                second=jax.tree.map(
                    lambda v, g: jnp.where(is_first, g * g, v), state.second, updates
                ),
            )
        return update(updates, state, hyper, bias_correction=initialization == "bias_correction")

    return optax.GradientTransformation(init_fn, update_fn)


def adam(
    learning_rate: ArrayLike | Callable[[ArrayLike], ArrayLike],
    hyper: Hyperparameters,
    *,
    initialization: Initialization = "zero",
) -> optax.GradientTransformation:
    """The paper's Adam for optax users; `learning_rate` is a number or an optax schedule.

    With `initialization="bias_correction"` it equals `optax.adam`. For the paper's η0/√k pass
    `functools.partial(step_size, "inverse_sqrt", eta0)`.
    """
    import optax

    return optax.chain(
        scale_by_adam(hyper, initialization=initialization),
        optax.scale_by_learning_rate(learning_rate),
    )


def _as_both(value: Array, one: Array, other: Array) -> Array:
    """In the type of the two together: a hyperparameter that is an array does not widen it."""
    return jnp.asarray(value).astype(jnp.result_type(one, other))


def _ratio(
    m: Float[Array, "..."], v: Float[Array, "..."], epsilon: ArrayLike, epsilon_root: ArrayLike
) -> Float[Array, "..."]:
    denominator = jnp.sqrt(v + epsilon_root) + epsilon
    # not where it is above 0: a NaN must not become a step of 0
    return jnp.where(denominator == 0, 0, m / denominator)
