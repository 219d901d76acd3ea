"""The concentration lemma: the band in which 1/√v stays, its probability, and draws of v.

With β2 very near 1, where the lemma speaks, v forgets over millions of steps; but it is a linear
filter of the index stream, so it can be drawn in blocks.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Key

from adam_transition.sweeps import keys


class Band(NamedTuple):
    """The concentration lemma: C_lower ≤ √(E_k v/v) ≤ C_upper with probability ≥ `probability`.

    E_k is the expectation given everything before the draw of step k:
    E_k v_k = β2 v_{k−1} + (1−β2) Σ g_i²/n.
    """

    probability: float  # may be negative: then it says nothing
    lower: float  # may be negative: then only the upper side says something
    upper: float  # inf where the inner bracket is not positive

    @property
    def informative(self) -> bool:
        """Whether probability and both sides say something."""
        return self.probability > 0 and self.lower > 0 and math.isfinite(self.upper)


def concentration(n: int, one_minus_beta2: float, delta: float) -> Band:
    """The lemma's band and probability, for 0 < δ ≤ 1/(4n).

    Raises:
      ValueError: n < 1, 1 − β2 outside (0, 1), or δ outside (0, 1/(4n)].
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
    """The greatest 1 − β2 for which the lemma says something at this δ, to 12 digits.

    Everything that must be positive falls as 1 − β2 grows, so below it the lemma always speaks.

    >>> 2.5e-4 < largest_informative(10, 1 / 40) < 3e-4
    True
    """
    low, high = 0.0, 1.0
    concentration(n, 0.5, delta)  # refuses what is out of range
    for _ in range(80):
        middle = (low + high) / 2
        if 0 < middle < 1 and concentration(n, middle, delta).informative:
            low = middle
        else:
            high = middle
    return low


_CHAINS = 64


_MEMORIES_OF_BURN_IN = 12


_MEMORIES_APART = 3


_BLOCK = 0.05  # of a memory


class Draws(NamedTuple):
    """Draws of the second moments of a table of d columns."""

    before: Float[np.ndarray, "S chains d"]  # stationary v
    after: Float[np.ndarray, "S chains d"]  # a step later


def second_moments(
    table: Float[np.ndarray, "n d"],
    one_minus_beta2: float,
    key: Key[Array, ""],
    *,
    num_samples: int,
) -> Draws:
    """Draws of the stationary v with replacement, `num_samples` or a little more over all chains.

    Chains are independent; draws of a chain lie 3/(1−β2) steps apart. Of a block of up to
    0.05/(1−β2) steps only the number of visits to each component is drawn, and the visits share
    their mean weight: that changes the variance of v by a factor of at least 1 − 0.05²/12. Each
    draw is followed by one step of Adam's.
    """
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
