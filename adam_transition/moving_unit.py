"""Iterates closer to a minimiser at 0 than floats can represent: x and m in a unit that moves.

If D0 = 0, Adam can get that close: while v remembers large gradients, x − x* falls geometrically,
to e^(−1000) for β2 close to 1, before it grows again. In plain floats such a run lands on x* and
stays there forever, which is not a property of Adam. With x* = 0 and gradients proportional to x
close to it, x and m are linear in the unit and v does not depend on it, so x and m are stored as
multiples of a power of two that follows them. Scaling by powers of two is exact, so a run that
needs no other unit has the same bits as without one.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, ArrayLike, Float

from adam_transition import adam


class _Unit(NamedTuple):
    """Powers of two: by which the unit moves, below which it falls, above which it rises."""

    move: int
    low: int
    high: int


_UNITS = {"float32": _Unit(40, -55, -8), "float64": _Unit(400, -450, -20)}

Level = Float[Array, ""]
"""How often the unit has moved: a whole number, 0 or below. x and m are multiples of
2^(move·level)."""


def update(
    gradient: Float[Array, "..."], state: adam.AdamState, hyper: adam.Hyperparameters, level: Level
) -> tuple[Array, adam.AdamState]:
    """`adam.update` with gradient and m in the unit of a level, and v in the first unit.

    One level down g² is negligible compared with v. There it counts as 0, as processors are slow on
    products below the range of normal numbers.
    """
    of_square = gradient * jnp.where(level == 0, 1, 0).astype(gradient.dtype)
    second = adam.update(of_square, state, hyper)[1].second
    moments = adam.update(gradient, state, hyper)[1]._replace(second=second)
    return adam.ratio(moments.first, second, hyper.epsilon, hyper.epsilon_root), moments


def move(
    x: Float[Array, "..."], first: Float[Array, "..."], level: Level
) -> tuple[Array, Array, Level]:
    """x, m and the level after the unit has followed them, by at most one level."""
    unit = _UNITS[x.dtype.name]
    largest = jnp.maximum(jnp.max(jnp.abs(x)), jnp.max(jnp.abs(first)))
    falls = largest < 2.0**unit.low
    rises = (largest > 2.0**unit.high) & (level < 0)
    factor = jnp.where(falls, 2.0**unit.move, jnp.where(rises, 2.0**-unit.move, 1.0))
    level = level + jnp.where(rises, 1.0, 0.0) - jnp.where(falls, 1.0, 0.0)
    factor, level = factor.astype(x.dtype), level.astype(x.dtype)
    return x * factor, first * factor, level


def in_first_unit(x: Float[Array, "..."], level: Level) -> Float[Array, "..."]:
    """The iterate itself: 0 two levels down, which is below the range of its type."""
    lower = jnp.where(level == -1, 2.0 ** -_UNITS[x.dtype.name].move, 0.0)
    return x * jnp.where(level == 0, 1.0, lower).astype(x.dtype)


def reason_against(
    minimiser: ArrayLike | None, dtype: DTypeLike, initialization: str
) -> str | None:
    """Why the unit of a run cannot move; None if it can.

    That gradients are proportional to x close to 0 is not checked.
    """
    if minimiser is None or np.any(np.asarray(minimiser)):
        return "needs a problem with its minimiser at 0"
    if np.dtype(dtype).name not in _UNITS:
        return f"needs iterates of type {' or '.join(_UNITS)}"
    if initialization == "bias_correction":
        return "needs moments without bias correction"
    return None
