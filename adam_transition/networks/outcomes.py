"""What a training curve says: how good it ends, whether it spikes, and the window of good β2.

A run is *good* if its late loss lies within 15 % of the way, in the logarithm, from the best late
loss (the lowest decile of those compared, which noise moves less than the least) to that of
guessing, log(classes). So the criterion is the same for a task that is learnt to 1e-2 nats and for
one that stays at 1.
"""

import math
from typing import NamedTuple

import numpy as np
import scipy  # loads its modules when they are used
from jaxtyping import Bool, Float, Int

TOLERANCE = 0.15
_BEST = 0.1  # quantile
SPIKE = 1.5


class Window(NamedTuple):
    """Edges of the good β2, as 1 − β2 (S seeds); NaN where nothing is learnt."""

    low: Float[np.ndarray, " S"]  # at the threshold β2*: a smaller β2 is bad; +inf if none is
    high: Float[np.ndarray, " S"]  # a greater β2 is bad; 0 if none on the grid is


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
    """How often the loss rises from below to above 1.5 times its least value so far.

    A loss that is not finite is above everything.
    """
    loss = np.where(np.isfinite(loss), loss, np.inf)
    least = np.minimum.accumulate(loss, axis=-1)
    above = loss > SPIKE * least
    return (above[..., 1:] & ~above[..., :-1]).sum(axis=-1)


def log(late: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Logarithm of a late loss; what float32 rounds to 0 counts as 1e-7, its resolution."""
    return np.log(np.maximum(late, 1e-7))


def log_mean(late: Float[np.ndarray, "... S"]) -> Float[np.ndarray, "..."]:
    """Logarithm of the geometric mean over seeds; +inf if a seed overflowed."""
    return log(late).mean(axis=-1)


def good_level(
    log_loss: Float[np.ndarray, "..."], guess: float, axis: int | tuple[int, ...] = -1
) -> Float[np.ndarray, "..."]:
    """Logarithm of the late loss up to which a run is good, among those along `axis` (kept)."""
    # beyond guessing, how bad a run is does not matter, and infinity cannot be interpolated
    height = np.minimum(log_loss, math.log(guess))
    best = np.quantile(height, _BEST, axis=axis, keepdims=True)
    return best + TOLERANCE * (math.log(guess) - best)


def is_good(log_loss: Float[np.ndarray, "... B1 B2"], guess: float) -> Bool[np.ndarray, "..."]:
    """Which cells of a plane, or of a stack of them, are good; none where nothing is learnt."""
    level = good_level(log_loss, guess, axis=(-2, -1))
    return (log_loss <= level) & (level < math.log(guess))


def window(
    one_minus_beta2: Float[np.ndarray, " Q"], late: Float[np.ndarray, "S Q"], guess: float
) -> Window:
    """The window of good β2 around the best one, for each seed.

    An edge is where log loss, linear in log(1 − β2) between grid points, crosses the level that
    follows from this seed's own best.

    Raises:
      ValueError: 1 − β2 not positive.
    """
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
    """Of an edge over seeds; NaN where a seed has none on the grid."""
    on_grid = np.where(np.isfinite(edge) & (edge > 0), edge, np.nan)
    return np.exp(np.log(on_grid).mean(axis=-1))


def mean(values: Float[np.ndarray, " S"]) -> Mean:
    """The mean over seeds with 95 % confidence; NaN where a seed has none."""
    values = np.asarray(values, np.float64)
    if len(values) < 2:
        return Mean(float(values.mean()), math.nan)
    factor = scipy.stats.t.ppf(0.975, len(values) - 1) / math.sqrt(len(values))
    return Mean(float(values.mean()), float(factor * values.std(ddof=1)))


def exponents(x: Float[np.ndarray, "K V"], y: Float[np.ndarray, "S K"]) -> Float[np.ndarray, "V S"]:
    """Exponents of y ∝ Π x_v^e_v for each seed, by least squares in logarithms.

    NaN with no more points than exponents, or where the points do not tell them apart.
    """
    design = np.column_stack([np.log(x), np.ones(len(x))])
    if len(x) <= design.shape[1] or np.linalg.matrix_rank(design) < design.shape[1]:
        return np.full((x.shape[1], len(y)), np.nan)
    return np.linalg.lstsq(design, np.log(y).T)[0][:-1]


def trend(x: Float[np.ndarray, " K"], y: Float[np.ndarray, "S K"]) -> Float[np.ndarray, " S"]:
    """Kendall's τ of each seed's y (infinite or missing at times) with x: 1 if it only grows."""
    found = []
    for one in y:
        used = ~np.isnan(one)
        ordered = np.where(np.isinf(one), np.finfo(float).max, one)
        found.append(
            scipy.stats.kendalltau(x[used], ordered[used])[0] if used.sum() > 2 else np.nan
        )
    return np.array(found)


def excess_at_the_end(late: Float[np.ndarray, "S Q"], end: int) -> Float[np.ndarray, " S"]:
    """Log loss at grid point `end` above that at the best point, which the other seeds choose.

    So that noise in the choice does not look like an optimum.
    """
    height = log(late)
    found = []
    for seed in range(len(late)):
        others = np.delete(height, seed, axis=0).mean(axis=0)
        found.append(height[seed, end] - height[seed, int(np.argmin(others))])
    return np.array(found)
