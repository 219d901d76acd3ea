"""The concentration lemma: a band for 1/√v, its probability, and samples of the stationary v.

The lemma is informative only for β2 very close to 1, where v has a memory of millions of steps. But
v is a linear filter of the index stream, so it can be sampled in blocks of steps.
"""

import math
from typing import NamedTuple

import chex
import numpy as np
from jaxtyping import Array, Float, Key

from adam_transition.sweeps import keys


class Band(NamedTuple):
    """The concentration lemma: C_lower ≤ √(E_k v/v) ≤ C_upper with probability ≥ `probability`.

    E_k is the expectation conditional on everything before the draw of step k:
    E_k v_k = β2 v_{k−1} + (1−β2) Σ g_i²/n.
    """

    probability: float  # the bound is trivial if negative
    lower: float  # trivial if negative
    upper: float  # inf if the inner bracket is not positive

    @property
    def informative(self) -> bool:
        """Whether the probability and both sides of the band are non-trivial."""
        return self.probability > 0 and self.lower > 0 and math.isfinite(self.upper)


def concentration(n: int, one_minus_beta2: float, delta: float) -> Band:
    """The lemma's band and its probability, for 0 < δ ≤ 1/(4n).

    Raises:
      ValueError: n < 1, 1 − β2 is outside (0, 1), or δ is outside (0, 1/(4n)].
    """
    q = one_minus_beta2
    if n < 1:
        raise ValueError(f"n={n} is below 1")
    if not 0 < q < 1:
        raise ValueError(f"one_minus_beta2={q} is outside (0, 1)")
    if not 0 < delta <= 1 / (4 * n):
        raise ValueError(f"delta={delta} is outside (0, 1/(4n)] = (0, {1 / (4 * n):g}]")
    probability = 1 - n * math.exp(-(delta**2) / (q * (28 / (3 * n) + 8 / 3 * delta)))
    unit = q * n / ((1 - 2 * n * delta) * (1 - q) ** n) if (1 - q) ** n > 0 else math.inf
    bracket = 1 - 8 * unit
    return Band(probability, 1 - 4 * unit, bracket**-0.5 if bracket > 0 else math.inf)


def largest_informative(n: int, delta: float) -> float:
    """The largest 1 − β2 for which the lemma is informative at this δ, to 12 digits.

    All quantities that must be positive decrease in 1 − β2, so the lemma is informative at every
    smaller 1 − β2.

    >>> 2.5e-4 < largest_informative(10, 1 / 40) < 3e-4
    True
    """
    low, high = 0.0, 1.0
    concentration(n, 0.5, delta)  # raises if n or δ is out of range
    for _ in range(80):
        middle = (low + high) / 2
        if 0 < middle < 1 and concentration(n, middle, delta).informative:
            low = middle
        else:
            high = middle
    return low


_CHAINS = 64
_MEMORIES_OF_BURN_IN = 12
_MEMORIES_APART = 3  # between two draws of a chain
_BLOCK = 0.05  # length of a block, in memories


class Draws(NamedTuple):
    """Samples of the second moments of a table of d columns; S draws of each chain."""

    before: Float[np.ndarray, "S chains d"]  # stationary v
    after: Float[np.ndarray, "S chains d"]  # v one step later


def second_moments(
    table: Float[np.ndarray, "n d"],
    one_minus_beta2: float,
    key: Key[Array, ""],
    *,
    num_samples: int,
) -> Draws:
    """Samples the stationary v of sampling with replacement.

    Chains are independent; the samples of a chain are 3/(1−β2) steps apart. Only the number of
    visits to each component is drawn for a block of up to 0.05/(1−β2) steps, and all visits get the
    mean weight of the block. That changes the variance of v by a factor of at least 1 − 0.05²/12.
    Each sample is followed by one exact step.

    Args:
      table: component gradients.
      one_minus_beta2: 1 − β2.
      key: read, not consumed.
      num_samples: number of samples over all chains, rounded up to a multiple of 64.

    Raises:
      AssertionError: the table does not have two axes, or is not finite.
    """
    chex.assert_rank(table, 2)
    chex.assert_tree_all_finite(table)
    q, squares = one_minus_beta2, table**2
    n = len(table)
    block = max(1, int(_BLOCK / q))
    kept = (1 - q) ** block
    blocks_apart = int(np.ceil(_MEMORIES_APART / (q * block)))
    burn_in = int(np.ceil(_MEMORIES_OF_BURN_IN / (q * block)))
    per_chain = -(-num_samples // _CHAINS)
    generator = keys.generator(key)
    v = np.broadcast_to(squares.mean(axis=0), (_CHAINS, table.shape[1]))
    before, after = [], []
    for k in range(burn_in + blocks_apart * per_chain):
        visits = generator.multinomial(block, np.full(n, 1 / n), size=_CHAINS)
        v = kept * v + (1 - kept) / block * (visits @ squares)
        if k >= burn_in and (k - burn_in + 1) % blocks_apart == 0:
            before.append(v)
            after.append((1 - q) * v + q * squares[generator.integers(0, n, _CHAINS)])
    return Draws(np.stack(before), np.stack(after))
