"""Which β2 is enough for every one-dimensional member of a class with D0 = 0.

The members are finite sums f_i = s_i·u of `problems.slope_table` with n components and
D1 = n² Σ s_i²/(Σ s_i)²; more generally, what is proved holds wherever the gradients of a problem in
one dimension satisfy A2 with D0 = 0 at the point in question. `sufficient` is proved in
docs/mathematics/class_threshold.md. `hardest` is the exact threshold of the worst table with two
different slopes: a lower bound on that of the class. With replacement no table was found that needs
more (36 settings, SLSQP from 22 starts each); in cyclic order there are such.
"""

import math
from typing import NamedTuple, assert_never

import numpy as np
from jaxtyping import Float

from adam_transition.sampling import Sampling
from adam_transition.theory.boundary import divergence_intervals


class Hardest(NamedTuple):
    """The table of two different slopes that needs the largest β2."""

    one_minus_beta2: float  # D > 0 for some 1 − β2 above this and for none below; 1: nowhere
    num_positive: int  # k equal positive slopes, n − k equal negative ones
    slopes: Float[np.ndarray, " n"]  # sum 1, the positive ones first


def sufficient(n: int, d1: float, sampling: Sampling, beta1: float = 0.0) -> float:
    """1 − β2 up to which D < 0 for every table of the class (proved); 0 if none is proved.

    With replacement the largest gradient is at most ρ = 1 + √((n−1)(D1/n − 1)) times the mean, and
    √β2 > 1 − 1/ρ is enough, for any β1. In the orders that draw each component once per epoch the
    negative gradients are in sum at most (r−1)/(r+1) times the positive ones, r = √(D1/n), and
    β2^(n−1/2) > c·(r−1)/(r+1) is enough, with c = 1 for β1 = 0 or a periodic order, and
    c = (1 + β1 − β1^n)/(1 − β1 + β1^n) otherwise.

    Args:
      n: number of components, at least 2.
      d1: D1, at least n.
      sampling: the sampling scheme.
      beta1: β1, in [0, 1).

    Raises:
      ValueError: an argument is outside its range.

    >>> round(1 - sufficient(20, 800.0, "with_replacement"), 4)
    0.9304
    """
    _check(n, d1, beta1)
    ratio = 1 + math.sqrt((n - 1) * max(d1 / n - 1, 0))
    return _enough(ratio, _share(math.sqrt(d1 / n)), n, sampling, beta1)


def sufficient_for(
    gradients: Float[np.ndarray, " n"], sampling: Sampling, beta1: float = 0.0
) -> float:
    """1 − β2 up to which the drift of one table points down the mean gradient; see `sufficient`.

    Args:
      gradients: of one coordinate, of shape (n,); their mean is not 0. Its sign has no effect.
      sampling: the sampling scheme.
      beta1: β1, in [0, 1).

    Raises:
      ValueError: the table is not of shape (n,) and finite, its mean is 0, or β1 is outside [0, 1).

    >>> table = np.array([20.0, *[-1.0] * 19])
    >>> round(1 - sufficient_for(table, "with_replacement"), 4)
    0.995
    """
    table = np.asarray(gradients, np.float64)
    if table.ndim != 1 or not table.size or not np.isfinite(table).all():
        raise ValueError(f"gradients of shape {table.shape}: need finite numbers of shape (n,)")
    table = table / max(np.abs(table).max(), np.finfo(float).tiny)
    mean = table.mean()
    if mean == 0:
        raise ValueError("gradients: their mean is 0, so there is no direction to go")
    table = table * np.sign(mean)
    _check(len(table), math.inf, beta1)
    positive, negative = table[table > 0].sum(), -table[table < 0].sum()
    ratio = table.max() / table.mean()
    return _enough(float(ratio), float(negative / positive), len(table), sampling, beta1)


def _check(n: int, d1: float, beta1: float) -> None:
    if not n >= 2:
        raise ValueError(f"n={n}: must be at least 2")
    if not d1 >= n:
        raise ValueError(f"d1={d1}: must be at least n={n}, as for any table (Cauchy–Schwarz)")
    if not 0 <= beta1 < 1:
        raise ValueError(f"beta1={beta1}: must lie in [0, 1)")


def _share(r: float) -> float:
    """The largest sum of negative gradients over that of the positive ones."""
    return (r - 1) / (r + 1)


def _enough(ratio: float, share: float, n: int, sampling: Sampling, beta1: float) -> float:
    match sampling:
        case "with_replacement":
            return (2 - 1 / ratio) / ratio
        case "cyclic" | "shuffle_once":
            factor = 1.0
        case "random_shuffling":
            factor = (1 + beta1 - beta1**n) / (1 - beta1 + beta1**n)
        case _:
            assert_never(sampling)
    if share == 0:
        return 1.0
    return max(0.0, -math.expm1(math.log(factor * share) / (n - 0.5)))


def two_valued(n: int, num_positive: int, d1: float) -> Float[np.ndarray, " n"]:
    """K equal positive slopes and n − k equal others, with sum 1 and Σ s² = D1/n².

    The others are negative if k·D1 > n².

    Raises:
      ValueError: k is not in [1, n − 1], or D1 < n.
    """
    _check(n, d1, 0.0)
    k = num_positive
    if not 1 <= k < n:
        raise ValueError(f"num_positive={k}: must lie in [1, {n - 1}]")
    spread = math.sqrt((d1 / n - 1) / (n * n))  # standard deviation of the slopes
    high = 1 / n + spread * math.sqrt((n - k) / k)
    low = 1 / n - spread * math.sqrt(k / (n - k))
    return np.array([high] * k + [low] * (n - k))


def hardest(
    n: int, d1: float, sampling: Sampling = "with_replacement", beta1: float = 0.0
) -> Hardest:
    """The table of two different slopes that needs the largest β2, among k ≤ n/2.

    Its threshold is exact (`divergence_intervals`); every member of the class with this table
    diverges just below it. With more positive slopes than negative ones the sign of a short average
    is right, and no such table was ever the hardest.

    Args:
      n: number of components, at least 3.
      d1: D1, above n.
      sampling: the sampling scheme; `shuffle_once` has the threshold of one order only.
      beta1: β1, in [0, 1).

    Raises:
      ValueError: an argument is outside its range.

    >>> found = hardest(5, 50.0)
    >>> found.num_positive, round(1 - found.one_minus_beta2, 4)
    (1, 0.6093)
    """
    _check(n, d1, beta1)
    if n < 3:
        raise ValueError(f"n={n}: must be at least 3")
    if sampling == "shuffle_once":
        raise ValueError("sampling=shuffle_once: its threshold depends on the order that it draws")
    best = Hardest(1.0, 1, two_valued(n, 1, d1))
    for k in range(1, n // 2 + 1):
        slopes = two_valued(n, k, d1)
        if slopes[-1] >= 0:
            continue  # all gradients have one sign
        [intervals] = divergence_intervals(slopes[:, None], [beta1], sampling)
        if intervals and intervals[-1].high.one_minus_beta2 < best.one_minus_beta2:
            best = Hardest(intervals[-1].high.one_minus_beta2, k, slopes)
    return best
