"""Outcomes of training curves: late loss, spikes, and the window of good β2.

A run is *good* if its late loss lies within 15 % of the way, in the logarithm, from the best late
loss to that of guessing, log(classes). The best late loss is the lowest decile of those compared,
which is less sensitive to noise than the minimum. So the same criterion applies to a task that is
learnt to 1e-2 nats and to one that stays at 1.
"""

import math
from typing import NamedTuple

import chex
import numpy as np
import scipy  # imports its modules lazily
from jaxtyping import Bool, Float, Int

TOLERANCE = 0.15
_BEST = 0.1  # quantile
SPIKE = 1.5


class Window(NamedTuple):
    """Edges of the good β2, as 1 − β2 (S seeds); NaN where nothing is learnt."""

    low: Float[np.ndarray, " S"]  # at the threshold β2*: smaller β2 are bad; +inf if none is
    high: Float[np.ndarray, " S"]  # larger β2 are bad; 0 if none on the grid is


class Mean(NamedTuple):
    """A mean over seeds with its confidence interval."""

    value: float
    half_width: float  # of the 95 % interval, Student's t


def late_loss(loss: Float[np.ndarray, "... R"]) -> Float[np.ndarray, "..."]:
    """Mean loss over the last quarter of the records, in nats; +inf for a run that overflowed."""
    loss = np.asarray(loss, np.float64)
    late = loss[..., -max(1, loss.shape[-1] // 4) :].mean(axis=-1)
    return np.where(np.isfinite(loss).all(axis=-1), late, np.inf)


def spikes(loss: Float[np.ndarray, "... R"]) -> Int[np.ndarray, "..."]:
    """How often the loss rises from below to above `SPIKE` times its running minimum.

    A loss that is not finite counts as infinite.
    """
    loss = np.where(np.isfinite(loss), loss, np.inf)
    lowest = np.minimum.accumulate(loss, axis=-1)
    above = loss > SPIKE * lowest
    return np.asarray((above[..., 1:] & ~above[..., :-1]).sum(axis=-1))


def log(late: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Logarithm of a late loss; losses below 1e-7, the resolution of float32, count as 1e-7."""
    return np.log(np.maximum(late, 1e-7))


def log_mean(late: Float[np.ndarray, "... S"]) -> Float[np.ndarray, "..."]:
    """Logarithm of the geometric mean over seeds; +inf if a seed overflowed."""
    return np.asarray(log(late).mean(axis=-1))


def good_level(
    log_loss: Float[np.ndarray, "..."], guess: float, axis: int | tuple[int, ...] = -1
) -> Float[np.ndarray, "..."]:
    """Logarithm of the late loss up to which a run is good.

    Args:
      log_loss: logarithms of late losses.
      guess: loss of guessing.
      axis: the axes of the runs compared with each other; kept with length 1.
    """
    # how much worse than guessing a run is does not matter, and infinity cannot be interpolated
    height = np.minimum(log_loss, math.log(guess))
    best = np.quantile(height, _BEST, axis=axis, keepdims=True)
    return best + TOLERANCE * (math.log(guess) - best)


def is_good(log_loss: Float[np.ndarray, "... B1 B2"], guess: float) -> Bool[np.ndarray, "..."]:
    """Which cells of each plane are good; none where nothing is learnt."""
    level = good_level(log_loss, guess, axis=(-2, -1))
    return (log_loss <= level) & (level < math.log(guess))


def window(
    one_minus_beta2: Float[np.ndarray, " Q"], late: Float[np.ndarray, "S Q"], guess: float
) -> Window:
    """The window of good β2 around the best one, for each seed.

    An edge is where log loss, linear in log(1 − β2) between grid points, crosses the good level of
    this seed.

    Args:
      one_minus_beta2: the grid.
      late: late losses.
      guess: loss of guessing.

    Raises:
      AssertionError: the shapes do not match.
      ValueError: 1 − β2 not positive.
    """
    chex.assert_shape(late, (None, len(one_minus_beta2)))
    q = np.asarray(one_minus_beta2, np.float64)
    if not (q > 0).all():
        raise ValueError("the window needs β2 < 1")
    order = np.argsort(q)  # from the largest β2 down
    edges = [_edges(np.log(q[order]), log(values[order]), guess) for values in np.asarray(late)]
    low, high = np.array(edges).T
    return Window(low, high)


def _edges(log_q: np.ndarray, log_loss: np.ndarray, guess: float) -> tuple[float, float]:
    height = np.minimum(log_loss, math.log(guess))
    level = float(good_level(height, guess)[0])
    best = int(np.argmin(height))
    if level >= math.log(guess):
        return math.nan, math.nan

    def crossing(steps: range, back: int, none: float) -> float:
        for i in steps:
            if height[i] > level:
                share = (level - height[i + back]) / (height[i] - height[i + back])
                return math.exp(log_q[i + back] + share * (log_q[i] - log_q[i + back]))
        return none

    low = crossing(range(best + 1, len(log_q)), -1, math.inf)
    return low, crossing(range(best - 1, -1, -1), 1, 0.0)


def geometric_mean(edge: Float[np.ndarray, "... S"]) -> Float[np.ndarray, "..."]:
    """Geometric mean of an edge over seeds; NaN where a seed has none on the grid."""
    on_grid = np.where(np.isfinite(edge) & (edge > 0), edge, np.nan)
    return np.asarray(np.exp(np.log(on_grid).mean(axis=-1)))


def mean(values: Float[np.ndarray, " S"]) -> Mean:
    """The mean over seeds with its 95 % confidence interval; NaN if any value is."""
    values = np.asarray(values, np.float64)
    if len(values) < 2:
        return Mean(float(values.mean()), math.nan)
    factor = scipy.stats.t.ppf(0.975, len(values) - 1) / math.sqrt(len(values))
    return Mean(float(values.mean()), float(factor * values.std(ddof=1)))


def exponents(x: Float[np.ndarray, "K V"], y: Float[np.ndarray, "S K"]) -> Float[np.ndarray, "V S"]:
    """Exponents of y ∝ Π x_v^e_v for each seed, by least squares in logarithms.

    NaN with too few points for the exponents and the factor, or points that do not separate them.

    Raises:
      AssertionError: the shapes do not match.
    """
    chex.assert_shape(y, (None, len(x)))
    design = np.column_stack([np.log(x), np.ones(len(x))])
    if len(x) <= design.shape[1] or np.linalg.matrix_rank(design) < design.shape[1]:
        return np.full((x.shape[1], len(y)), np.nan)
    return np.linalg.lstsq(design, np.log(y).T)[0][:-1]


def trend(x: Float[np.ndarray, " K"], y: Float[np.ndarray, "S K"]) -> Float[np.ndarray, " S"]:
    """Kendall's τ of y with x for each seed: 1 if y only grows.

    Infinite values rank highest, missing ones (NaN) are left out; NaN with fewer than three points.

    Raises:
      AssertionError: the shapes do not match.
    """
    chex.assert_shape(y, (None, len(x)))
    taus = []
    for values in y:
        used = ~np.isnan(values)
        ordered = np.where(np.isinf(values), np.finfo(float).max, values)
        taus.append(scipy.stats.kendalltau(x[used], ordered[used])[0] if used.sum() > 2 else np.nan)
    return np.array(taus)


def excess_at_the_end(late: Float[np.ndarray, "S Q"], end: int) -> Float[np.ndarray, " S"]:
    """Log loss at grid point `end` minus that at the best point, which the other seeds choose.

    So noise in the choice does not look like an optimum.
    """
    height = log(late)
    excesses = []
    for seed in range(len(late)):
        others = np.delete(height, seed, axis=0).mean(axis=0)
        excesses.append(height[seed, end] - height[seed, int(np.argmin(others))])
    return np.array(excesses)
