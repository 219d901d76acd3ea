"""A smooth function on a grid of (β1, β2), from its values at few points.

The stationary drift of a random order is smooth in β1 in [0, 1) and in β2 in (0, 1), but steep near
their ends: there its scale is that of 1 − β, and of β2 itself where gradients of different size
change places. In z = −log(1 − β1 + c), and in z = log(β2 + c0) − log(1 − β2 + c1), it is close to a
polynomial, which Chebyshev points determine to high accuracy (Trefethen, Approximation Theory and
Approximation Practice, 2013). β2 = 0, where the limit need not be the value, is computed by itself.
The error is measured, not bounded: at some cells of the grid the function is computed as well.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

_POINTS_PER_UNIT = (5.5, 8.0)  # of z, for β1 and β2
_FEWEST_POINTS = 12
_SOFTENING = 5.0  # c in units of the smallest 1 − β or β
_NUM_COMPARED = 64
_MOST_ROUNDS = 2


class OnGrid(NamedTuple):
    """A function of (β1, β2) at A × B cells, with d coordinates."""

    values: Float[np.ndarray, "A B d"]
    error: Float[np.ndarray, "A B d"]


def on_grid(
    function: Callable[[np.ndarray, np.ndarray], np.ndarray],
    one_minus_beta1: Float[np.ndarray, " A"],
    one_minus_beta2: Float[np.ndarray, " B"],
    *,
    tolerance: float = 1e-3,
) -> OnGrid | None:
    """Interpolates a function on a grid.

    Args:
      function: takes 1 − β1 and 1 − β2, both of shape (K,), and returns its values, (K, d).
      one_minus_beta1: values in (0, 1].
      one_minus_beta2: values in (0, 1].
      tolerance: largest allowed error, in units of √(s² + f²) with the median s of |f|.

    Returns:
      The values and their errors: four times the largest at the cells of comparison, in these
      units.
      None if the function would be computed at half of the cells or more, if the error is larger
      than the tolerance, or if a value is not finite.
    """
    p, q = one_minus_beta1, one_minus_beta2
    inner = q < 1
    compared = _spread_cells(len(p), len(q))
    for attempt in range(_MOST_ROUNDS):
        of_beta1, of_beta2 = (2**attempt * density for density in _POINTS_PER_UNIT)
        p_points, p_matrix = _points(p, of_beta1, _ends(p)._replace(first=None))
        q_points, q_matrix = _points(q[inner], of_beta2, _ends(q[inner]))
        q_points = q_points if inner.all() else np.append(q_points, 1.0)
        num_points = len(p_points) * len(q_points)
        if 2 * (num_points + len(compared[0])) >= len(p) * len(q):
            return None
        outer = np.meshgrid(p_points, q_points, indexing="ij")
        found = function(
            np.concatenate([outer[0].ravel(), p[compared[0]]]),
            np.concatenate([outer[1].ravel(), q[compared[1]]]),
        )
        at_points = found[:num_points].reshape(len(p_points), len(q_points), -1)
        # not by BLAS, whose rounding may depend on the number of threads
        by_beta1 = np.einsum("am,mnd->and", p_matrix, at_points)
        values = np.empty((len(p), len(q), found.shape[-1]))
        values[:, inner] = np.einsum("bn,and->abd", q_matrix, by_beta1[:, : q_matrix.shape[1]])
        values[:, ~inner] = by_beta1[:, -1:]
        if not np.isfinite(found).all():
            return None
        unit = np.hypot(np.median(np.abs(values), axis=(0, 1)), values)
        difference = np.abs(values[compared] - found[num_points:])
        # a function that is 0 has no error
        np.divide(difference, unit[compared], out=difference, where=unit[compared] > 0)
        error = 4 * difference.max(axis=0)
        if (error <= tolerance).all():
            return OnGrid(values, error * unit)
    return None


class _Ends(NamedTuple):
    """Softenings of the logarithms at both ends of an axis."""

    first: float | None  # of β near 0; None: the function is smooth there
    last: float  # of 1 − β


def _ends(rest: np.ndarray) -> _Ends:
    if not len(rest):
        return _Ends(None, 1.0)
    return _Ends(_SOFTENING * (1 - rest.max()), _SOFTENING * rest.min())


def _points(rest: np.ndarray, density: float, ends: _Ends) -> tuple[np.ndarray, np.ndarray]:
    """Chebyshev points of an axis as values of 1 − β, and the matrix from them to `rest`."""
    z = _stretched(rest, ends)
    if not len(rest) or np.ptp(z) == 0:
        return rest[:1], np.ones((len(rest), min(len(rest), 1)))
    low, high = z.min(), z.max()
    count = max(_FEWEST_POINTS, math.ceil(density * (high - low)))
    if count >= len(rest):
        return rest, np.eye(len(rest))
    angles = math.pi * (np.arange(count) + 0.5) / count
    points = (low + high) / 2 + (high - low) / 2 * np.cos(angles)
    inverse = np.clip(_relaxed(points, ends), rest.min(), rest.max())
    # the barycentric formula; SciPy's interpolator orders the points by chance, which changes bits
    weights = np.where(np.arange(count) % 2, -1.0, 1.0) * np.sin(angles)
    distance = z[:, None] - points
    hit = distance == 0
    terms = weights / np.where(hit, 1.0, distance)
    matrix = terms / terms.sum(axis=1, keepdims=True)
    return inverse, np.where(hit.any(axis=1, keepdims=True), hit, matrix)


def _stretched(rest: np.ndarray, ends: _Ends) -> np.ndarray:
    near_one = -np.log(rest + ends.last)
    return near_one if ends.first is None else np.log(1 - rest + ends.first) + near_one


def _relaxed(z: np.ndarray, ends: _Ends) -> np.ndarray:
    """The inverse of `_stretched`."""
    if ends.first is None:
        return np.exp(-z) - ends.last
    ratio = np.exp(z)
    return (1 + ends.first - ratio * ends.last) / (1 + ratio)


def _spread_cells(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Cells of a grid, evenly spread (Roberts' R2 sequence), and its corners."""
    golden = 1.32471795724474602596  # the root of x³ = x + 1
    k = np.arange(1, _NUM_COMPARED + 1)
    at = [(k / golden**power) % 1 for power in (1, 2)]
    i, j = ((share * size).astype(int) for share, size in zip(at, (rows, columns), strict=True))
    return np.append(i, [0, 0, rows - 1, rows - 1]), np.append(j, [0, columns - 1] * 2)
