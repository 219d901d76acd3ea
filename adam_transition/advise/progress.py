"""How far Adam's mean update follows the mean gradient: from sums over blocks of steps.

Progress is the ratio of Σ ⟨G_b, U_c⟩ to Σ ⟨G_b, L_c⟩, summed over pairs of blocks that are not
neighbours. G is the gradient, U = m/(√v + ε), and L = m/(√V + ε), with V the mean of v in the
surrounding blocks, is what U becomes as β2 → 1. The noise of different blocks is independent and
averages out of the sums; V shares its noise with m in one block of nine, and with G. V is a mean of
v and not of g² because v remembers earlier gradients: if these were larger, every update is small,
at every β2.

Errors are from a jackknife: everything, including V, is recomputed without each block in turn. That
gives the standard error, including that of V, and the bias of a V that a few large gradients carry.
The bias is subtracted, and half of it counts as an error because it is known to first order only.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from adam_transition.advise.watch import ROWS

LEAST_BLOCKS = 8  # with fewer, a standard error is a guess
_NEAR = 4  # blocks on each side over which v is averaged; with fewer, V follows the noise of g
_DOUBT = 0.5  # fraction of the bias that counts as a standard error
_OUTSIDE = 0.1  # weight of a share of Σ g² outside the record, relative to one inside
_FIELLER = 2.0  # the denominator must be this many standard errors from zero


class Progress(NamedTuple):
    """The estimates from a record; scalars. See `Diagnostics`."""

    progress: Float[Array, ""]
    progress_stderr: Float[Array, ""]  # infinite while it is unknown
    hits: Float[Array, ""]  # number of gradients that carry the Σ g² of a coordinate
    signal: Float[Array, ""]  # the sum of ⟨G, L⟩ over its standard error
    wrong_mass: Float[Array, ""]
    noise_ratio: Float[Array, ""]
    skewness: Float[Array, ""]
    resolved: Float[Array, ""]
    squared_step: Float[Array, ""]  # mean of u², where a nonzero gradient was seen


def estimate(
    blocks: Float[Array, "B rows k"],
    steps: Int[Array, " B"],
    age: Int[Array, " B"],
    largest: Float[Array, " k"],
    *,
    gap: Array,
    epsilon: Array,
    epsilon_root: Array,
) -> Progress:
    """The estimates from the sums over blocks.

    Args:
      blocks: sums; a number that is not finite spoils its coordinate in that block only.
      steps: number of steps in each block; 0 in unused blocks.
      age: of each block, in blocks.
      largest: the largest squared gradient of the whole run, times the fraction of the run that is
        in the record.
      gap: blocks share memory if their ages differ by at most this much.
      epsilon: Adam's ε.
      epsilon_root: Adam's ε inside the square root.
    """
    row, used = _used_rows(blocks, steps)
    many = jnp.where(used, steps[:, None], 0).astype(jnp.float32)
    scale = _positive(jnp.max(jnp.abs(row["gradient"]), initial=0.0))
    near = ((jnp.abs(age[:, None] - age[None]) <= _NEAR) & (steps > 0)[None]).astype(jnp.float32)
    gradient = row["gradient"] / scale
    far, pairs = _pairs(steps, age, gap)

    def limit_of(kept: Float[Array, " B"]) -> tuple[Float[Array, "B k"], Bool[Array, "B k"]]:
        """Sums of m/(√V + ε), with V from the blocks kept; and where V is positive."""
        around = jnp.einsum("bc,ck->bk", near * kept[None], row["second"])
        second = around / _positive(jnp.einsum("bc,ck->bk", near * kept[None], many))
        denominator = _positive(jnp.sqrt(second + epsilon_root) + epsilon)
        seen = used & (second > 0)
        return jnp.where(seen, row["first"] / denominator, 0), seen

    def sums(kept: Float[Array, " B"]) -> Float[Array, "2"]:
        """Σ ⟨G, U⟩ and Σ ⟨G, L⟩ over the pairs of the blocks kept."""
        both = jnp.where(pairs, kept[:, None] * kept[None], 0)
        limited = gradient @ limit_of(kept)[0].T
        return jnp.stack([jnp.sum(both * updated), jnp.sum(both * limited)])

    updated = gradient @ row["step"].T
    num_blocks = jnp.sum(jnp.any(far, axis=1))
    known = num_blocks >= LEAST_BLOCKS
    every = jnp.ones((1, len(steps)))
    found = jax.vmap(sums)(jnp.concatenate([every, 1 - jnp.eye(len(steps))]))
    whole, without = found[0], found[1:]  # all blocks; without one block each
    direct = whole[0] / whole[1]
    off, shift = _jackknife(without[:, 0] - direct * without[:, 1], 0.0, pairs, num_blocks)
    spread, _ = _jackknife(without[:, 1], whole[1], pairs, num_blocks)
    signal = whole[1] / _positive(spread)
    bias = shift / whole[1]
    limit, seen = limit_of(every[0])

    total, length = {name: value.sum(axis=0) for name, value in row.items()}, many.sum(axis=0)
    mean = total["gradient"] / scale / _positive(length)
    square = total["square"] / scale**2 / _positive(length)
    variance = jnp.maximum(square - mean**2, 0)
    mass = jnp.sum(jnp.abs(mean))
    num_seen = _positive(jnp.sum(jnp.where(seen, many, 0)))
    return Progress(
        progress=direct - jnp.where(known, bias, 0),
        progress_stderr=_widened(jnp.hypot(off / whole[1], _DOUBT * bias), signal, known),
        hits=_hits(
            total["square"] / scale**2,
            total["fourth"] / scale**4,
            largest / scale**2,
            jnp.abs(mean * limit.sum(axis=0)),
        ),
        signal=jnp.where(known, signal, 0),
        wrong_mass=jnp.sum(jnp.abs(mean), where=mean * total["step"] < 0) / mass,
        noise_ratio=jnp.sum(square) / jnp.sum(mean**2),
        skewness=_skewness(mean, variance, square, total["cube"] / scale**3 / _positive(length)),
        resolved=jnp.mean((mean**2 > 4 * variance / _positive(length)) & (length > 0)),
        squared_step=jnp.sum(jnp.where(seen, row["step_square"], 0)) / num_seen,
    )


def _used_rows(
    blocks: Float[Array, "B rows k"], steps: Int[Array, " B"]
) -> tuple[dict[str, Float[Array, "B k"]], Bool[Array, "B k"]]:
    """The sums by name, 0 where a block is not used; and where it is used."""
    row = {name: blocks[:, i] for i, name in enumerate(ROWS)}
    used = (steps > 0)[:, None] & jnp.isfinite(
        sum(value for name, value in row.items() if name not in ("cube", "fourth"))
    )
    return {name: jnp.where(used, value, 0) for name, value in row.items()}, used


def _pairs(
    steps: Int[Array, " B"], age: Int[Array, " B"], gap: Array
) -> tuple[Bool[Array, "B B"], Bool[Array, "B B"]]:
    """Pairs of used blocks that share no memory, and the pairs to use: these, or all of them."""
    used = (steps > 0)[:, None] & (steps > 0)[None]
    far = (jnp.abs(age[:, None] - age[None]) > gap) & used
    return far, jnp.where(jnp.any(far), far, used)


def _widened(stderr: Array, signal: Array, known: Array) -> Array:
    """An uncertain denominator widens the interval, as in Fieller's interval for a ratio."""
    sharp = jnp.where(signal > _FIELLER, 1 - (_FIELLER / _positive(signal)) ** 2, 0)
    widened = stderr / jnp.where(sharp > 0, sharp, 1)
    return jnp.where(known & (sharp > 0), widened, jnp.inf)


def _jackknife(
    without: Float[Array, " B"], whole: Float[Array, ""] | float, pairs: Array, num_blocks: Array
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Standard error and bias of a sum over pairs of blocks, from the sums without one block each.

    Without a block, a sum over pairs loses 2/n of its value on average; any excess is bias.

    Args:
      without: the sum without each block.
      whole: the sum with all blocks.
      pairs: the pairs of blocks summed over.
      num_blocks: the number of blocks in use.
    """
    n = num_blocks.astype(jnp.float32)
    # unused blocks have no influence, and must not count as far from the mean
    used = jnp.any(pairs, axis=0) | jnp.any(pairs, axis=1)
    influence = jnp.where(used, whole - without, 0)
    mean = influence.sum() / _positive(n)
    centred = jnp.where(used, influence - mean, 0)
    error = jnp.sqrt(jnp.sum(centred**2) * n / _positive(n - 1))
    return error, 2 * whole - influence.sum()


def _hits(
    square: Float[Array, " k"],
    fourth: Float[Array, " k"],
    largest: Float[Array, " k"],
    weight: Float[Array, " k"],
) -> Float[Array, ""]:
    """How many gradients carry a coordinate's Σ g², a weighted mean over coordinates.

    For gradients of equal size their number is (Σ g²)²/Σ g⁴. It is reduced if the largest gradient
    of the whole run is outside the record and large compared with the sum inside.
    """
    total = _positive(square)
    alone = jnp.maximum(fourth / total / total, _OUTSIDE * largest / total)
    # where only rounding errors were met, the largest is many times the sum
    alone = jnp.where(square > 0, jnp.where(alone < 1, alone, 1), 0)  # 1 for NaN too
    return jnp.sum(weight) / _positive(jnp.sum(weight * alone))


def _skewness(mean: Array, variance: Array, square: Array, cube: Array) -> Float[Array, ""]:
    """Root mean square over coordinates; 0 where a gradient does not vary."""
    # a variance below the rounding error of the square counts as zero
    varies = variance > 1e-5 * square
    third = cube - 3 * mean * square + 2 * mean**3
    one = jnp.where(varies, third / _positive(variance) ** 1.5, 0)
    return jnp.sqrt(jnp.mean(one**2))


def _positive(value: Array) -> Array:
    return jnp.where(value > 0, value, 1)
