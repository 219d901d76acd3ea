"""Adam as a pure function: the paper's Algorithm 1, on any pytree of parameters.

    m ← β1 m + (1−β1) g,   v ← β2 v + (1−β2) g∘g,   x ← x − η_k m/(√v + ε)

Hyperparameters are arrays, so they can be vmapped and traced. They are stored as

    p = 1 − β1,   q = 1 − β2,

because 1 − β2 loses its digits in float32 if β2 is close to 1. The whole library uses p and q in
this sense.

Dimension letters in the shapes of the whole library: n components of a finite sum, d coordinates of
a point, T steps of a run, S seeds (or starts), C cells, each with its own (β1, β2, ε).
R is a number of rows: the rows of a table of R × W cells, or the records of a run. K is a number of
items without a meaning of its own. A comment [] marks a scalar.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, assert_never, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, PyTree

if TYPE_CHECKING:
    import optax

Initialization = Literal["zero", "first_gradient", "bias_correction"]
"""Initial m and v: zero; the NeurIPS version's m = ∇f(x0), v = max_i ∇f_i(x0)²
(arXiv:2208.09632); or zero with the bias correction of Kingma & Ba (arXiv:1412.6980)."""

Schedule = Literal["constant", "inverse_sqrt", "inverse_sqrt_epoch"]
"""Step sizes: η0; η0/√k for step k; η0/√k for epoch k. Both counts start at 1."""

SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)
INITIALIZATIONS: tuple[Initialization, ...] = get_args(Initialization)


def check_schedule(schedule: str) -> None:
    """Raises ValueError unless `schedule` is one of `SCHEDULES`."""
    if schedule not in SCHEDULES:
        raise ValueError(f"schedule={schedule!r} is not one of {', '.join(SCHEDULES)}")


def check_initialization(initialization: str) -> None:
    """Raises ValueError unless `initialization` is one of `INITIALIZATIONS`."""
    if initialization not in INITIALIZATIONS:
        allowed = ", ".join(INITIALIZATIONS)
        raise ValueError(f"initialization={initialization!r} is not one of {allowed}")


class Hyperparameters(NamedTuple):
    """Hyperparameters of Adam; every field may be traced or batched."""

    one_minus_beta1: ArrayLike  # [] p
    one_minus_beta2: ArrayLike  # [] q
    epsilon: ArrayLike = 0.0  # [] outside the square root
    epsilon_root: ArrayLike = 0.0  # [] inside the square root, as in optax; 0 in the paper


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
    """Hyperparameters from β1 and β2, numbers or arrays, which may be traced.

    If β2 is within 1e-6 of 1, construct `Hyperparameters` from 1 − β2 instead.

    Args:
      beta1: β1 in [0, 1).
      beta2: β2 in [0, 1).
      epsilon: ε outside the square root, in units of the gradients.
      epsilon_root: ε inside the square root, in units of their squares.

    Raises:
      ValueError: a β is outside [0, 1), or an ε is negative or not finite; traced values are not
        checked.
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
    """The state with zero moments, for the initializations `zero` and `bias_correction`."""
    zeros = jax.tree.map(jnp.zeros_like, params)
    return AdamState(first=zeros, second=zeros, step=jnp.zeros((), jnp.int32))


def init_from_gradients(full_gradient: PyTree, largest_square: PyTree) -> AdamState:
    """The state of the NeurIPS version (arXiv:2208.09632): m = ∇f(x0), v = max_i ∇f_i(x0)².

    Raises:
      ValueError: the arguments have different shapes.
    """
    _check_shapes(full_gradient=full_gradient, largest_square=largest_square)
    return AdamState(first=full_gradient, second=largest_square, step=jnp.zeros((), jnp.int32))


def update(
    grads: PyTree, state: AdamState, hyper: Hyperparameters, *, bias_correction: bool = False
) -> tuple[PyTree, AdamState]:
    """One update of Algorithm 1: returns (direction m/(√v + ε), new state).

    The direction is 0 where the denominator is 0. Then either all gradients so far were 0, or v has
    lost gradients that m still holds (at β2 = 0 after a zero gradient, or if v underflows). In the
    second case the true ratio is infinite or unknown, not 0.

    Args:
      grads: pytree of gradients.
      state: moments with the same structure and shapes.
      hyper: scalars, or arrays that broadcast against every leaf. They do not widen the dtypes of
        moments and direction; the arithmetic is in the widest dtype.
      bias_correction: divide m and v by 1 − β^k first, as in Kingma & Ba (arXiv:1412.6980); static.

    Raises:
      ValueError: gradients and moments have different shapes, which would broadcast.
    """
    _check_shapes(grads=grads, first=state.first, second=state.second)
    p, q, epsilon, epsilon_root = hyper
    step = state.step + 1
    # m − p·m instead of β1·m, because 1 − p rounds p; v + q(g² − v) would cancel at small β2
    first = jax.tree.map(lambda m, g: _as_both(m - p * m + p * g, m, g), state.first, grads)
    second = jax.tree.map(lambda v, g: _as_both(v - q * v + q * (g * g), v, g), state.second, grads)
    m_hat, v_hat = first, second
    if bias_correction:
        m_hat = jax.tree.map(lambda m: m / one_minus_power(p, step), first)
        v_hat = jax.tree.map(lambda v: v / one_minus_power(q, step), second)
    direction = jax.tree.map(
        lambda m, v, like_m, like_v: _as_both(ratio(m, v, epsilon, epsilon_root), like_m, like_v),
        m_hat, v_hat, first, second,
    )  # fmt: skip
    return direction, AdamState(first, second, step)


def has_underflowed(state: AdamState) -> Bool[Array, ""]:
    """Whether Adam cannot move in some coordinate: v is 0 although m ≠ 0, or v has overflowed."""
    first, second, _ = state
    stands = [
        jnp.any((v == 0) & (m != 0) | ~jnp.isfinite(v))
        for m, v in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
    ]
    return jnp.any(jnp.stack(stands)) if stands[1:] else stands[0]


class UpdateRule(NamedTuple):
    """An update rule as pure functions: a static choice of a simulation.

    States are NamedTuples with a field `step`, the number of updates so far, and arrays of the
    parameters' shapes; so a kernel can carry them cell by cell. Hyperparameters are arrays.
    """

    init: Callable[..., Any]  # params → state
    init_from_gradients: Callable[..., Any]  # (∇f(x0), max_i ∇f_i(x0)²) → state
    update: Callable[..., tuple[Any, Any]]  # (gradients, state, hyper) → (direction, state)
    has_underflowed: Callable[..., Array]  # state → whether it stands still for lack of range


def one_minus_power(one_minus_beta: ArrayLike, power: ArrayLike) -> Array:
    """1 − β^k from 1 − β, accurate as β → 1; equals 1 at β = 0 for k ≥ 1."""
    return -jnp.expm1(power * jnp.log1p(-jnp.asarray(one_minus_beta)))


ADAM = UpdateRule(init, init_from_gradients, update, has_underflowed)
"""Algorithm 1."""


def step_size(
    schedule: Schedule, initial: ArrayLike, step: ArrayLike, num_components: ArrayLike = 1
) -> Array:
    """η_k for the step that follows `step` updates.

    Args:
      schedule: one of `SCHEDULES`.
      initial: η0; its dtype is that of the result.
      step: number of updates before the step, an integer or an array.
      num_components: n, the number of steps per epoch for `inverse_sqrt_epoch`.

    Returns:
      Step sizes of the shape of `step`.

    Raises:
      ValueError: the schedule is unknown.
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
    """`update` as an optax transformation, with direction m/(√v + ε).

    With `bias_correction` it equals `optax.scale_by_adam`. An optax transformation has no access to
    the components, so `first_gradient` takes m and v from the first gradient.
    """
    import optax  # imported here, so that simulations need only JAX

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
    """The paper's Adam as an optax optimiser; `learning_rate` is a number or an optax schedule.

    With `initialization="bias_correction"` it equals `optax.adam`. For the paper's η0/√k pass
    `functools.partial(step_size, "inverse_sqrt", eta0)`.
    """
    import optax

    return optax.chain(
        scale_by_adam(hyper, initialization=initialization),
        optax.scale_by_learning_rate(learning_rate),
    )


def _check_shapes(**trees: PyTree) -> None:
    """Raises ValueError unless corresponding leaves have equal shapes."""
    # leaves, because a user's containers need not compare equal; `tree.map` compares structures
    for leaves in zip(*map(jax.tree.leaves, trees.values()), strict=True):
        shapes = [jnp.shape(leaf) for leaf in leaves]
        if shapes.count(shapes[0]) < len(shapes):
            given = ", ".join(f"{name} {shape}" for name, shape in zip(trees, shapes, strict=True))
            raise ValueError(f"need equal shapes: {given}")


def _as_both(value: Array, first: Array, second: Array) -> Array:
    """The value in the common dtype of two arrays, which array hyperparameters do not widen."""
    return jnp.asarray(value).astype(jnp.result_type(first, second))


def ratio(
    m: Float[Array, "..."], v: Float[Array, "..."], epsilon: ArrayLike, epsilon_root: ArrayLike
) -> Float[Array, "..."]:
    """m/(√(v + ε_root) + ε), and 0 where the denominator is 0."""
    denominator = jnp.sqrt(v + epsilon_root) + epsilon
    # == 0 instead of not > 0: a NaN must not become a step of 0
    return jnp.where(denominator == 0, 0, m / denominator)
