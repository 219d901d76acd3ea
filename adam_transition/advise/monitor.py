"""A monitor for training: the probe's diagnostics, kept as running means while Adam runs.

It watches a few hundred coordinates of the gradient, chosen once, and keeps for them Adam's own
moments and the running means of g, g², g³ and m/√v over a horizon of steps. The wrapped
optimiser's updates pass through untouched.

The means are over the steps of the horizon, in which the parameters move: they tell about the
gradients met there. Where the mean gradient is smaller than the noise of such a mean, that is below
√(g²/horizon), progress is biased towards 1; `Diagnostics.resolved` tells.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, PyTree

from adam_transition import adam


class MonitorState(NamedTuple):
    """State of `monitor`; k watched coordinates."""

    inner: Any
    moments: adam.AdamState  # of the watched coordinates, [k]
    sums: Float[Array, "4 k"]  # of g, g², g³ and m/√v, with weights that decay
    horizon: Int[Array, ""]


class Diagnostics(NamedTuple):
    """What the watched coordinates say about β2; scalars, to be logged."""

    progress: Float[Array, ""]  # ⟨∇f, E[m/√v]⟩ over its limit as β2 → 1
    wrong_mass: Float[Array, ""]  # share of Σ|∇f| in coordinates that Adam moves the wrong way
    noise_ratio: Float[Array, ""]  # Σ E g²/Σ (E g)²
    skewness: Float[Array, ""]  # root mean square over coordinates
    resolved: Float[Array, ""]  # share of coordinates whose mean stands out of the noise
    step: Int[Array, ""]


def monitor(
    inner: optax.GradientTransformation,
    *,
    beta1: float,
    beta2: float,
    num_coordinates: int = 256,
    horizon: int = 1000,
    seed: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """Wraps an optimiser; its updates do not change by a bit.

    Args:
      inner: the optimiser, `optax.adam(…)` or a chain.
      beta1: that of the optimiser.
      beta2: that of the optimiser.
      num_coordinates: how many to watch; all if there are fewer.
      horizon: steps over which means are taken.
      seed: chooses the coordinates.

    Raises:
      ValueError: values outside their ranges.
    """
    if num_coordinates < 1:
        raise ValueError(f"num_coordinates={num_coordinates} is below 1")
    if horizon < 2:
        raise ValueError(f"horizon={horizon} is below 2")
    hyper = adam.hyperparameters(beta1, beta2)
    inner = optax.with_extra_args_support(inner)
    pick = _picker(num_coordinates, seed)

    def init_fn(params: PyTree) -> MonitorState:
        watched = jnp.zeros_like(pick(params))
        return MonitorState(
            inner.init(params),
            adam.init(watched),
            jnp.zeros((4, *watched.shape), watched.dtype),
            jnp.asarray(horizon, jnp.int32),
        )

    def update_fn(
        updates: PyTree, state: MonitorState, params: PyTree | None = None, **extra: Any
    ) -> tuple[PyTree, MonitorState]:
        g = pick(updates)
        direction, moments = adam.update(g, state.moments, hyper, bias_correction=True)
        # one packed array: small operations cost more than the arithmetic in them
        sums = (1 - 1 / horizon) * state.sums + jnp.stack([g, g * g, g * g * g, direction])
        new, inner_state = inner.update(updates, state.inner, params, **extra)
        return new, MonitorState(inner_state, moments, sums, state.horizon)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def diagnostics(state: MonitorState) -> Diagnostics:
    """The running diagnostics; NaN before the first step.

    Raises:
      ValueError: a state that is not that of an optimiser wrapped in `monitor`.
    """
    if not isinstance(state, MonitorState):
        raise ValueError(f"state: needs that of an optimiser wrapped in monitor, not {type(state)}")
    weight = adam.one_minus_power(1 / state.horizon, state.moments.step) * state.horizon
    mean, square, cube, direction = state.sums / weight
    size = jnp.sqrt(square)
    limit = jnp.where(size > 0, mean / jnp.where(size > 0, size, 1), 0)
    variance = jnp.maximum(square - mean**2, 0)
    third = cube - 3 * mean * square + 2 * mean**3
    skewness = jnp.where(variance > 0, third / jnp.where(variance > 0, variance, 1) ** 1.5, 0)
    mass = jnp.sum(jnp.abs(mean))
    return Diagnostics(
        progress=mean @ direction / (mean @ limit),
        wrong_mass=jnp.sum(jnp.abs(mean), where=mean * direction < 0) / mass,
        noise_ratio=jnp.sum(square) / jnp.sum(mean**2),
        skewness=jnp.sqrt(jnp.mean(skewness**2)),
        resolved=jnp.mean(mean**2 > 4 * variance / weight),
        step=state.moments.step,
    )


def beta2_too_small(found: Diagnostics, *, progress: float = 0.5) -> Bool[Array, ""]:
    """Whether less than that part of the progress is left, measured over 100 steps or more."""
    return (found.progress < progress) & (found.step >= 100)


def _picker(num_coordinates: int, seed: int) -> Callable[[PyTree], Float[Array, " k"]]:
    """A function from a pytree to some of its numbers: the same ones for the same shapes."""

    def pick(tree: PyTree) -> Array:
        leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.size(leaf)]
        sizes = [int(np.prod(leaf.shape)) for leaf in leaves]
        count = min(num_coordinates, sum(sizes))
        places = np.random.default_rng(seed).choice(sum(sizes), count, replace=False)
        starts = np.concatenate([[0], np.cumsum(sizes)])
        parts = []
        for leaf, start, stop in zip(leaves, starts, starts[1:], strict=False):
            inside = np.sort(places[(places >= start) & (places < stop)]) - start
            parts.append(leaf.reshape(-1)[inside].astype(jnp.float32))
        return jnp.concatenate(parts)

    return pick
