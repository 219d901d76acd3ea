"""How far Adam's mean update follows the mean gradient: from sums over blocks of steps.

Progress is Σ ⟨G_b, U_c⟩ over Σ ⟨G_b, L_c⟩, over pairs of blocks that are not neighbours: G the
gradient, U = m/(√v + ε), and L = m/(√V + ε) with V the mean of v in the blocks around: what U
becomes as β2 → 1. Noise of one block meets noise of another and adds nothing to a sum; V shares
its noise with m in one block of nine. Against the mean of v and not of g² since v remembers earlier
gradients: where these were larger every update is small, at every β2.

The standard errors are those of sums over pairs: an influence for every block, as in the jackknife.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from adam_transition.advise.watch import ROWS

LEAST_BLOCKS = 8  # with fewer, a standard error is a guess
_NEAR = 4  # blocks on each side over which v is averaged: fewer, and V feels the noise of g
_FIELLER = 2.0  # standard errors within which the denominator must not come to zero


class Progress(NamedTuple):
    """What a record says; scalars."""

    progress: Float[Array, ""]
    progress_stderr: Float[Array, ""]  # infinite while it cannot be known
    signal: Float[Array, ""]  # the sum of ⟨G, L⟩ in its standard errors
    wrong_mass: Float[Array, ""]
    noise_ratio: Float[Array, ""]
    skewness: Float[Array, ""]
    resolved: Float[Array, ""]
    squared_step: Float[Array, ""]  # mean of u², where a gradient was seen


def estimate(
    blocks: Float[Array, "B rows k"],
    steps: Int[Array, " B"],
    age: Int[Array, " B"],
    *,
    gap: Array,
    epsilon: Array,
    epsilon_root: Array,
) -> Progress:
    """From the sums over blocks.

    Args:
      blocks: sums; a number that is not finite spoils its coordinate in that block only.
      steps: in each block; 0 in one that is not in use.
      age: of each block, in blocks.
      gap: blocks closer than this, or as close, share memory.
      epsilon: Adam's ε.
      epsilon_root: Adam's ε inside the root.
    """
    row = {name: blocks[:, i] for i, name in enumerate(ROWS)}
    used = (steps > 0)[:, None] & jnp.isfinite(
        sum(value for name, value in row.items() if name != "cube")
    )
    row = {name: jnp.where(used, value, 0) for name, value in row.items()}
    many = jnp.where(used, steps[:, None], 0).astype(jnp.float32)
    scale = _positive(jnp.max(jnp.abs(row["gradient"]), initial=0.0))
    near = ((jnp.abs(age[:, None] - age) <= _NEAR) & (steps > 0)).astype(jnp.float32)
    around = jnp.einsum("bc,ck->bk", near, row["second"])
    second = around / _positive(jnp.einsum("bc,ck->bk", near, many))
    denominator = _positive(jnp.sqrt(second + epsilon_root) + epsilon)
    seen = used & (second > 0)
    limit = jnp.where(seen, row["first"] / denominator, 0)
    gradient = row["gradient"] / scale

    far = jnp.abs(age[:, None] - age) > gap
    far &= (steps > 0)[:, None] & (steps > 0)
    enough = jnp.any(far)
    pairs = jnp.where(enough, far, (steps > 0)[:, None] & (steps > 0))
    updated = jnp.where(pairs, gradient @ row["step"].T, 0)
    limited = jnp.where(pairs, gradient @ limit.T, 0)
    num_blocks = jnp.sum(jnp.any(far, axis=1))
    known = num_blocks >= LEAST_BLOCKS
    progress = jnp.sum(updated) / jnp.sum(limited)
    off = _spread(updated - progress * limited, num_blocks)
    signal = jnp.sum(limited) / _positive(_spread(limited, num_blocks))
    # a denominator that is known badly widens the interval, as in Fieller's for two errors
    sharp = jnp.where(signal > _FIELLER, 1 - (_FIELLER / _positive(signal)) ** 2, 0)

    total, length = {name: value.sum(axis=0) for name, value in row.items()}, many.sum(axis=0)
    mean = total["gradient"] / scale / _positive(length)
    square = total["square"] / scale**2 / _positive(length)
    variance = jnp.maximum(square - mean**2, 0)
    mass = jnp.sum(jnp.abs(mean))
    num_seen = _positive(jnp.sum(jnp.where(seen, many, 0)))
    return Progress(
        progress=progress,
        progress_stderr=jnp.where(
            known & (sharp > 0), off / (jnp.sum(limited) * jnp.where(sharp > 0, sharp, 1)), jnp.inf
        ),
        signal=jnp.where(known, signal, 0),
        wrong_mass=jnp.sum(jnp.abs(mean), where=mean * total["step"] < 0) / mass,
        noise_ratio=jnp.sum(square) / jnp.sum(mean**2),
        skewness=_skewness(mean, variance, square, total["cube"] / scale**3 / _positive(length)),
        resolved=jnp.mean((mean**2 > 4 * variance / _positive(length)) & (length > 0)),
        squared_step=jnp.sum(jnp.where(seen, row["step_square"], 0)) / num_seen,
    )


def _spread(pairs: Float[Array, "B B"], num_blocks: Array) -> Float[Array, ""]:
    """The standard error of a sum over pairs of blocks."""
    influence = pairs.sum(axis=0) + pairs.sum(axis=1)
    n = num_blocks.astype(jnp.float32)
    centred = influence - influence.sum() / _positive(n)
    # blocks that are not in use have no influence, and must not count as far from the mean
    used = jnp.any(pairs != 0, axis=0) | jnp.any(pairs != 0, axis=1)
    return jnp.sqrt(jnp.sum(jnp.where(used, centred, 0) ** 2) * n / _positive(n - 1))


def _skewness(mean: Array, variance: Array, square: Array, cube: Array) -> Float[Array, ""]:
    """Root mean square over coordinates; 0 where a gradient does not vary."""
    # a variance below the rounding of the square is none
    varies = variance > 1e-5 * square
    third = cube - 3 * mean * square + 2 * mean**3
    one = jnp.where(varies, third / _positive(variance) ** 1.5, 0)
    return jnp.sqrt(jnp.mean(one**2))


def _positive(value: Array) -> Array:
    return jnp.where(value > 0, value, 1)
