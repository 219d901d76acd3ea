"""The trap near x*: starts within a few steps of the minimiser that stay although D > 0.

Where |x − x*| is a few steps η, gradients change within the memory of (m, v), and the stationary
drift of frozen gradients does not decide. There f_i' = s_i·(x − x*) on both sides of x* for the
paper's counterexample and every problem with a quadratic minimum, and y = (x − x*)/η follows a map
without a scale,

    g = s_i y,    m ← β1 m + (1 − β1) g,    v ← β2 v + (1 − β2) g²,    y ← y − m/√v,

which has no parameter besides the table and (β1, β2). Whatever stays bounded under it is, with
steps η_k → 0 that change slowly, a run that converges. Everything here is computed, not proved
(docs/mathematics/trap.md).
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Key

from adam_transition import adam
from adam_transition.sampling import Sampling, check, indices, stream_key

FAR = 60.0
"""|y| from which a start counts as gone."""

LEAST_TRAVEL = 2.0
"""Smallest D·epochs/`FAR` at which a start that is still near counts as trapped."""

_EPOCHS_PER_BLOCK = 32


class Near(NamedTuple):
    """Where starts of C cells end; |y| is their distance from x* in steps."""

    distance: Float[np.ndarray, "C S"]  # |y| at the end; inf from `FAR` on at the end of any block
    basin: Float[np.ndarray, " C"]  # largest start that stays; 0 if none does


def stays_near(
    slopes: Float[np.ndarray, " n"],
    beta1: Float[np.ndarray, " C"],
    beta2: Float[np.ndarray, " C"],
    starts: Float[np.ndarray, " S"],
    *,
    sampling: Sampling = "cyclic",
    num_epochs: int = 4096,
    key: Key[Array, ""] | None = None,
) -> Near:
    """Follows the map without a scale from zero moments; ε = 0.

    The map is odd: −y goes where y does, mirrored. In the random orders, all cells and starts share
    the indices.

    Args:
      slopes: the table, in its order, with a positive sum.
      beta1: β1 of C cells, in [0, 1).
      beta2: β2 of C cells, in [0, 1).
      starts: distances from x* in steps, above 0 and below `FAR`.
      sampling: the sampling scheme.
      num_epochs: length of the runs. A cell should have D·num_epochs ≥ `LEAST_TRAVEL`·`FAR`, or a
        start that escapes may not yet be gone.
      key: of the index stream; needed for all schemes but `cyclic`.

    Raises:
      ValueError: a start lies outside (0, `FAR`), a β outside [0, 1), the slopes have no positive
        sum, the scheme is unknown, or a needed key is missing.
    """
    check(sampling)
    hyper = adam.hyperparameters(beta1, beta2)
    starts = np.asarray(starts, float)
    if not starts.size or not ((starts > 0) & (starts < FAR)).all():
        raise ValueError(f"starts={starts}: must lie in (0, {FAR:g})")
    if not np.sum(slopes) > 0:
        raise ValueError("slopes: their sum must be positive")
    if key is None and sampling != "cyclic":
        raise ValueError(f"sampling={sampling!r} needs a key")
    with jax.enable_x64(True):
        scaled = jnp.asarray(np.asarray(slopes) / np.abs(slopes).max())
        cells = adam.Hyperparameters(
            *(jnp.asarray(one)[:, None] for one in (hyper.one_minus_beta1, hyper.one_minus_beta2))
        )
        key = stream_key(0) if key is None else key  # cyclic order draws nothing
        run = partial(_run, sampling=sampling, num_blocks=-(-num_epochs // _EPOCHS_PER_BLOCK))
        distance = np.asarray(run(scaled, cells, jnp.asarray(starts), key))
    stayed = distance < FAR
    return Near(distance, np.where(stayed, starts, 0.0).max(axis=1))


@partial(jax.jit, static_argnames=("sampling", "num_blocks"))
@jax.numpy_rank_promotion("allow")
def _run(
    slopes: Float[Array, " n"],
    hyper: adam.Hyperparameters,
    starts: Float[Array, " S"],
    key: Key[Array, ""],
    *,
    sampling: Sampling,
    num_blocks: int,
) -> Float[Array, "C S"]:
    n = len(slopes)
    length = n * _EPOCHS_PER_BLOCK

    def block(b: ArrayLike, carry: tuple) -> tuple:
        stream = indices(sampling, key, b * length, length, n, max_components=n)

        def step(k: Array, carry: tuple) -> tuple:
            y, state = carry
            direction, state = adam.update(slopes[stream[k]] * y, state, hyper)
            return y - direction, state

        y, state = jax.lax.fori_loop(0, length, step, carry)
        # who is gone stays gone: infinities turn to NaN in the next block, which is far as well
        return jnp.where(jnp.abs(y) < FAR, y, jnp.inf), state

    cells, _ = jnp.broadcast_arrays(starts, hyper.one_minus_beta1)
    y, _ = jax.lax.fori_loop(0, num_blocks, block, (cells, adam.init(cells)))
    return jnp.where(jnp.isfinite(y), jnp.abs(y), jnp.inf)
