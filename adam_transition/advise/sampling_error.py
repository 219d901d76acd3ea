"""Errors of statistics of a table's rows, due to the choice of batches from the same data.

The influence values of a statistic, its derivatives by the weights of the rows, give its variance
over tables. Three things make such errors too small, and all are accounted for:

- *Few rows matter.* If m rows carry a statistic, its variance has about 2m degrees of freedom
  (Satterthwaite), and Student's quantile replaces 1.96.
- *They matter on one side.* A table that happens to contain few of the rare rows underestimates
  both their effect and its error. If the influences are skewed, the error on the side to which the
  missing rows would move the statistic is from Hall's transformation (1992); for a count of m rare
  rows it is close to that of the Poisson law.
- *Larger rows than any in the table.* A sample contains no information beyond its largest row; by
  the rule of three, up to 3/n of all batches may lie there (with 95 % confidence). If the largest
  rows fall off slowly, like a power of their rank, the statistic is recomputed with a tail of that
  power and mass beyond them, and the interval covers both results.

None of these accounts for a kind of batch that is unlike all batches in the table.

All of this is linear in the weights of the rows. A statistic that is nonlinear within the range of
its error is also computed at the ends of the table's *tilted* family (Efron 1981; DiCiccio & Romano
1990, Int. Stat. Rev. 58): weights ∝ e^{λ·influence}, with the two λ beyond which a tilted table
would hardly ever yield the table that was met.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Float
from scipy import special, stats
from scipy.optimize import elementwise

_LEVEL = 0.975
_UNSEEN = 3.0  # rows, by the rule of three
_HEAVY = 0.22  # 1/α of a tail P(|g| > x) ~ x^−α from which on fourth moments are uncertain
_HEAVY_THIRD = 0.3  # 1/α from which on third moments are uncertain
_STEEPEST = 0.8  # heavier tails are reduced to this 1/α; E g² is infinite from 1/2 on
_REACH = np.geomspace(1, 1e-4, 13)  # shares of the tail that lie beyond its nodes
_SHRUNK = 20  # number of own spacings with the same weight as all coordinates together


class ConfidenceInterval(NamedTuple):
    """95 % interval over the choice of batches; infinite if the table cannot decide."""

    low: ArrayLike
    high: ArrayLike


class Tail(NamedTuple):
    """A coordinate with additional rows beyond the largest, and the probabilities of all rows."""

    column: Float[np.ndarray, " m"]  # the rows of the table first
    weights: Float[np.ndarray, " m"]
    num_rows: int


class HalfWidths(NamedTuple):
    """Distances from a value down and up to the ends of its 95 % interval, both ≥ 0."""

    down: np.ndarray
    up: np.ndarray


def half_widths(influence: Float[np.ndarray, "n ..."], n: int | None = None) -> HalfWidths:
    """Half-widths of the 95 % interval of a statistic.

    With W the error over the standard error and a the skewness of the influences over √rows, Hall's
    W + aW²/3 + a²W³/27 + a/6 is nearly normal. Neither side is shorter than Student's.

    Args:
      influence: influences of the rows.
      n: number of rows, if not all influences are given.
    """
    centred = influence - influence.mean(axis=0)
    largest = np.abs(centred).max(axis=0)
    largest = np.where(largest > 0, largest, 1.0)
    centred = centred / largest  # as fourth powers may overflow
    square = (centred**2).sum(axis=0)
    fourth = (centred**4).sum(axis=0)
    count = len(influence)
    freedom = 2 * square**2 / np.maximum(fourth - square**2 / count, 1e-300)
    freedom = np.clip(np.where(square > 0, freedom, 1e6), 1, 1e6)
    variance = square / (count - 1) / (count if n is None else n)
    student = stats.t.ppf(_LEVEL, freedom)
    third = (centred**3).sum(axis=0)
    skew = third / np.where(square > 0, square, 1.0) ** 1.5
    sides = (np.maximum(student, _hall(skew * sign)) for sign in (-1, 1))
    down, up = (side * np.sqrt(variance) * largest for side in sides)
    return HalfWidths(down, up)


def _hall(a: ArrayLike) -> np.ndarray:
    """Half-width, in standard errors, on the side to which influences are skewed if a > 0."""
    z = stats.norm.ppf(_LEVEL)
    a = np.maximum(a, 1e-6)  # on the other side Student's is longer
    # beyond the turning point of the cubic the half-width is kept at its value there
    return np.asarray(3 / a * (1 - np.cbrt(np.maximum(1 - a * (z + a / 6), 0))))


def tilts(influence: Float[np.ndarray, "n Q"]) -> Float[np.ndarray, "2 Q n"]:
    """Logarithms of weights, up to a constant, that move statistics down and up by their error.

    Under these weights a table as low, or as high, as the one met has a probability of 2.5 %, by
    the saddlepoint formula of Lugannani and Rice for the mean influence of n draws. With
    K(λ) = log mean e^{λu}, r = √(2nK) and λ solves r + log(λ√n sd/r)/r = 1.96.
    """
    centred = influence - influence.mean(axis=0)
    n, deviation = len(centred), centred.std(axis=0)
    unit = centred / np.where(deviation > 0, deviation, 1)

    def beyond(log_size: np.ndarray, place: np.ndarray, sign: np.ndarray) -> np.ndarray:
        size = np.exp(log_size)
        cumulant = special.logsumexp(sign * size * unit[:, place], axis=0) - np.log(n)
        r = np.sqrt(2 * n * np.maximum(cumulant, 1e-300))
        return r + np.log(size * np.sqrt(n) / r) / r - stats.norm.ppf(_LEVEL)

    places, signs = np.tile(np.arange(unit.shape[1]), 2), np.repeat([-1.0, 1.0], unit.shape[1])
    ends = np.log(np.array([1e-3, 1e4]) / np.sqrt(n))
    found = elementwise.find_root(
        beyond, tuple(np.full(len(places), end) for end in ends), args=(places, signs)
    )
    size = np.where(found.success, np.exp(found.x), 0) * signs
    return (size * unit[:, places]).T.reshape(2, -1, n)


def tail_exponents(rows: Float[np.ndarray, "n k"]) -> Float[np.ndarray, " k"]:
    """1/α of tails P(|g| > x) ~ x^−α, from the largest twentieth of the rows.

    With i the rank, the i·log(x_i/x_{i+1}) of such a tail are exponential with mean 1/α (Rényi).
    Their median is insensitive to a single gap, such as that below rare gradients of one size. The
    estimate of a coordinate is shrunk towards that of all, as it rests on few rows.
    """
    count = _num_largest(len(rows))
    largest = np.sort(np.abs(rows), axis=0)[::-1][: count + 1]
    above, below = largest[:-1], largest[1:]
    ratio = np.divide(above, below, out=np.ones_like(above), where=below > 0)
    spacings = np.arange(1, len(above) + 1)[:, None] * np.log(ratio)
    own, common = np.median(spacings, axis=0), np.median(spacings)
    weight = len(above) / (len(above) + _SHRUNK)
    return (weight * own + (1 - weight) * common) / np.log(2)


def with_tail(
    column: Float[np.ndarray, " n"], exponent: float, *, num_drawn: int = 1
) -> Tail | None:
    """The column with what may lie beyond its largest row; None if its tail is light.

    The tail has the given exponent 1/α, the signs of the largest rows, and the mass of the rule of
    three, times `num_drawn` for means of this many rows.
    """
    if exponent <= _HEAVY or not column.any():
        return None
    n = len(column)
    places = np.argsort(-np.abs(column), kind="stable")[: _num_largest(n)]
    positive = float(np.mean(column[places] > 0))
    share = _REACH[:-1] - _REACH[1:]
    middle = np.sqrt(_REACH[:-1] * _REACH[1:])
    sizes = np.abs(column[places[0]]) * middle ** -min(exponent, _STEEPEST)
    mass = min(0.5, num_drawn * _UNSEEN / n) * share / share.sum()
    extra = np.concatenate([sizes, -sizes])
    weights = np.concatenate([positive * mass, (1 - positive) * mass])
    return Tail(
        np.concatenate([column, extra]),
        np.concatenate([np.full(n, (1 - weights.sum()) / n), weights]),
        n,
    )


def mean_with_tail(squares: Float[np.ndarray, " n"]) -> float:
    """The mean of ‖g‖², including what may lie beyond the largest."""
    size = np.sqrt(squares)
    [exponent] = tail_exponents(size[:, None])
    tail = with_tail(size, float(exponent))
    return float(squares.mean() if tail is None else tail.weights @ tail.column**2)


def skewness(rows: Float[np.ndarray, "n k"]) -> Float[np.ndarray, " k"]:
    """Third standardised moment of each coordinate; 0 where it does not vary."""
    return (_standardised(rows) ** 3).mean(axis=0)


def skewness_interval(rows: Float[np.ndarray, "n k"]) -> ConfidenceInterval:
    """See `GradientTable.skewness_interval`."""
    z, doubt = _standardised(rows), 1 + 1.44 / np.sqrt(_num_largest(len(rows)))
    cube = z**3
    value = cube.mean(axis=0)
    influence = cube - value - 3 * z - 1.5 * value * (z**2 - 1)
    half = half_widths(influence)
    low, high = value - half.down, value + half.up
    # one row has most of the third moment, or the decay is so slow that it may not exist
    size = np.abs(rows - rows.mean(axis=0))
    places = np.argsort(-size, axis=0, kind="stable")[: _num_largest(len(rows))]
    positive = np.mean(np.take_along_axis(z, places, axis=0) > 0, axis=0)
    slow = doubt * tail_exponents(size) > _HEAVY_THIRD
    slow |= np.abs(cube).max(axis=0) > 0.5 * np.abs(cube).sum(axis=0)
    varies = z.any(axis=0)
    low[slow & varies & (positive < 0.9)] = -np.inf
    high[slow & varies & (positive > 0.1)] = np.inf
    return ConfidenceInterval(low, high)


def _standardised(rows: np.ndarray) -> np.ndarray:
    centred = rows - rows.mean(axis=0)
    scale = np.sqrt((centred**2).mean(axis=0))
    # a constant coordinate has only rounding errors
    varies = scale > 1e-12 * np.abs(rows).max(axis=0)
    return np.divide(centred, scale, out=np.zeros_like(centred), where=varies)


def _num_largest(n: int) -> int:
    return min(n - 1, max(5, n // 20))
