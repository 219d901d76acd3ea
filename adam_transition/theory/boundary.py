"""The phase boundary: where the stationary drift of a one-dimensional table changes sign.

For a given β1, a scan with equal spacing in u = log(β2/(1−β2)) brackets all sign changes in β2.
That spacing means equal ratios of β2 close to 0 and of 1 − β2 close to 1. The scan is refined where
the drift comes close to zero between two points without changing sign. All brackets are then
narrowed together.

With ε > 0 the drift, and hence the boundary, depends on the scale of the table.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn

import contourpy
import numpy as np
from jaxtyping import Array, Float, Key

from adam_transition import adam
from adam_transition.sampling import RANDOM, Sampling, check
from adam_transition.theory.chains import Histories, draw_histories
from adam_transition.theory.drift_domain import is_estimated, least_one_minus_beta, reason_against
from adam_transition.theory.stationary_drift import Drift, stationary_drift

_LEAST_U = -27.0  # β2 = 2e-12
_SCAN = {True: 97, False: 513}  # points of a scan; keyed by whether the drift is estimated
_HALVINGS = {"cyclic": 60, "shuffle_once": 60}  # down to the last digit
_RANDOM_HALVINGS = 36  # down to the last accurate digit


class Edge(NamedTuple):
    """An end of an interval of β2."""

    beta2: float
    one_minus_beta2: float  # stored separately, to keep its digits as β2 → 1
    stderr: float  # standard error of β2; 0 if the drift is exact, and at β2 = 0 and 1


class Interval(NamedTuple):
    """An interval of β2 in which the drift points away from the minimiser."""

    low: Edge
    high: Edge


_ZERO, _ONE = Edge(0.0, 1.0, 0.0), Edge(1.0, 0.0, 0.0)


def divergence_intervals(
    gradients: Float[np.ndarray, "n 1"] | Sequence[Sequence[float]],
    beta1: Sequence[float] | np.ndarray,
    sampling: Sampling = "cyclic",
    *,
    key: Key[Array, ""] | None = None,
    num_samples: int = 2_000_000,
    least_one_minus_beta2: float | None = None,
    epsilon: float = 0.0,
    epsilon_root: float = 0.0,
) -> list[list[Interval]]:
    """Intervals of β2 in [0, 1) on which D > 0, for each β1, in ascending order.

    The drift at any β2 below 2e-12 is taken to have the sign it has at 2e-12.

    Edges are exact up to rounding: to a few units of rounding in cyclic order (1e-15 in β2,
    relative in 1 − β2) and to about 1e-12 for the random schemes. If the drift is estimated
    (`is_estimated`), they are accurate to 1e-7 for the given key, and overall to the reported
    standard error.

    Args:
      gradients: a table of shape (n, 1) with positive mean, so that D > 0 points away from the
        minimiser.
      beta1: values in [0, 1).
      sampling: the sampling scheme.
      key: needed for `shuffle_once` and for estimates.
      num_samples: number of steps averaged for each (β1, β2), for estimates.
      least_one_minus_beta2: smallest 1 − β2 to scan; the drift is assumed to have no sign change
        below it. Default: 1e-13 in cyclic order. For the random schemes, a sixteenth of 1 − β2 at
        the cyclic boundary, reduced further until the drift there is negative.
      epsilon: ε outside the square root, in units of the gradients.
      epsilon_root: ε inside the square root, in units of their squares.

    Returns:
      For each β1 a list of zero or more intervals.

    Raises:
      ValueError: the table is not of shape (n, 1) or its mean is not positive; `beta1` is empty or
        has a value outside [0, 1); the boundary is closer to β2 = 1 than the drift can be computed
        (`least_one_minus_beta`); the drift has no value at some β2 (with replacement, zero
        gradients, β1 > 0 and ε = 0); or as for `stationary_drift`.
    """
    check(sampling)
    table = _table(gradients)
    p = 1 - np.asarray(beta1, np.float64)
    if p.ndim != 1 or not p.size or not ((p > 0) & (p <= 1)).all():
        raise ValueError(f"beta1={beta1}: must be a list of one or more values in [0, 1)")
    eps = (epsilon, epsilon_root)
    estimated = is_estimated(table, sampling)
    if least_one_minus_beta2 is None:
        random = sampling in RANDOM
        least_one_minus_beta2 = (
            _least_q(table, sampling, np.asarray(beta1), eps) if random else 1e-13
        )
    first_u = _least_u(table) if (table == 0).any() and not any(eps) else _LEAST_U
    hyper = adam.Hyperparameters(p, _one_minus_beta2(np.array(first_u)), *eps)
    reason = reason_against(table, hyper, sampling, num_samples=num_samples)
    if reason is not None:
        raise ValueError(reason)

    histories = None
    if estimated:
        memory = 1 / min(least_one_minus_beta2, float(p.min()))
        histories = _histories(table, sampling, key, memory, num_samples)

    def evaluate(p: np.ndarray, u: np.ndarray) -> Drift:
        hyper = adam.Hyperparameters(p, _one_minus_beta2(u), *eps)
        result = stationary_drift(table, hyper, sampling, key=key, histories=histories)
        return Drift(result.drift[..., 0], result.stderr[..., 0])

    def drift(p: np.ndarray, u: np.ndarray) -> np.ndarray:
        return evaluate(p, u).drift

    greatest_u = np.log1p(-least_one_minus_beta2) - np.log(least_one_minus_beta2)
    if estimated and (drift(p, np.full(len(p), greatest_u)) > 0).any():
        _refuse(sampling, least_one_minus_beta2)
    scan = np.linspace(first_u, greatest_u, _SCAN[estimated])
    rows, low, high = _brackets(drift, p, scan)
    at_once = 1 if estimated else 3
    roots = _section(drift, p[rows], low, high, _HALVINGS.get(sampling, _RANDOM_HALVINGS), at_once)
    stderr = _stderr_of_roots(evaluate, p[rows], roots) if estimated else np.zeros(len(roots))
    q = _one_minus_beta2(roots)
    edges = [Edge(*values) for values in zip(_beta2(roots).tolist(), q.tolist(), stderr.tolist())]
    # at β2 = 0 itself D may be 0 or undefined
    starts = drift(p, np.full(len(p), first_u)) > 0
    return [
        _intervals([edges[i] for i in np.flatnonzero(rows == row)], bool(starts[row]))
        for row in range(len(p))
    ]


def boundary_curve(
    gradients: Float[np.ndarray, "n 1"],
    sampling: Sampling = "cyclic",
    *,
    key: Key[Array, ""] | None = None,
    num_samples: int = 200_000,
    greatest_beta1: float = 0.995,
    least_one_minus_beta2: float | None = None,
    num_points: tuple[int, int] = (160, 240),
    epsilon: float = 0.0,
    epsilon_root: float = 0.0,
) -> list[Float[np.ndarray, "V 2"]]:
    """The zero set of the drift in the (β1, β2) plane as polylines, including folds.

    The drift is contoured on a grid with equal spacing in β1 and in log(β2/(1−β2)). Each vertex is
    then moved along its grid line to the zero of the drift (to 1e-6 of a grid spacing), so the
    vertices do not depend on the position of the grid. Lines end at the edge of the region, and
    where the drift has no value.

    Args:
      gradients: a table of shape (n, 1) with positive mean.
      sampling: the sampling scheme.
      key: needed for `shuffle_once` and for estimates.
      num_samples: number of steps averaged for each (β1, β2), for estimates.
      greatest_beta1: the region covers β1 from 0 to this value, which lies in (0, 1).
      least_one_minus_beta2: smallest 1 − β2 of the region. Default: 1e-3; for the random schemes, a
        sixteenth of 1 − β2 at the cyclic boundary if that is larger.
      num_points: grid points along β1 and along β2.
      epsilon: ε outside the square root, in units of the gradients.
      epsilon_root: ε inside the square root, in units of their squares.

    Returns:
      Polylines; a polyline of V vertices has shape (V, 2), with columns β1 and β2.

    Raises:
      ValueError: `greatest_beta1` is outside (0, 1); an axis has fewer than two points; or as for
        `divergence_intervals`.
    """
    check(sampling)
    if not 0 < greatest_beta1 < 1:
        raise ValueError(
            f"greatest_beta1={greatest_beta1} is outside (0, 1); "
            "divergence_intervals gives the boundary at one β1"
        )
    if len(num_points) != 2 or min(num_points) < 2:
        raise ValueError(f"num_points={num_points}: needs two numbers of 2 or more")
    table = _table(gradients)
    eps = (epsilon, epsilon_root)
    beta1 = np.linspace(0, greatest_beta1, num_points[0])
    if least_one_minus_beta2 is None:
        random = sampling in RANDOM
        least_one_minus_beta2 = max(
            1e-3, _sixteenth_of_cyclic_edge(table, sampling, beta1, eps) if random else 0
        )
    greatest_u = np.log1p(-least_one_minus_beta2) - np.log(least_one_minus_beta2)
    u = np.linspace(-12, greatest_u, num_points[1])
    histories = None
    if is_estimated(table, sampling):
        memory = 1 / min(least_one_minus_beta2, 1 - greatest_beta1)
        histories = _histories(table, sampling, key, memory, num_samples)

    def drift(b1: np.ndarray, u: np.ndarray) -> np.ndarray:
        hyper = adam.Hyperparameters(1 - b1, _one_minus_beta2(u), *eps)
        return stationary_drift(table, hyper, sampling, key=key, histories=histories).drift[..., 0]

    values = drift(beta1[:, None], u)
    lines = contourpy.contour_generator(u, beta1, values).lines(0.0)
    return [_polish(drift, np.asarray(line)[:, ::-1], beta1, u) for line in lines]


def _table(
    gradients: Float[np.ndarray, "n 1"] | Sequence[Sequence[float]],
) -> Float[np.ndarray, "n 1"]:
    table = np.asarray(gradients, np.float64)
    # the mean of gradients close to the largest float would overflow
    scale = float(np.abs(table).max(initial=0)) or 1.0
    if table.ndim != 2 or table.shape[1] != 1 or not (table / scale).mean() > 0:
        raise ValueError(f"gradients of shape {table.shape}: need (n, 1) with a positive mean")
    return table


def _least_u(table: np.ndarray) -> float:
    """Smallest u at which the drift fits in float64, for a table with zero gradients and ε = 0.

    Every zero gradient multiplies v by β2. Under random shuffling the zeros at the end of one epoch
    and at the start of the next form a single run.
    """
    log_beta2 = -1370 / (2 * int((table == 0).sum()))
    return max(_LEAST_U, float(log_beta2 - np.log(-np.expm1(log_beta2))))


def _histories(
    table: np.ndarray,
    sampling: Sampling,
    key: Key[Array, ""] | None,
    memory: float,
    num_samples: int,
) -> Histories:
    if key is None:
        raise ValueError(f"sampling={sampling!r} needs a key")
    return draw_histories(table, sampling, key, memory=memory, num_samples=num_samples)


def _beta2(u: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-u)))


def _one_minus_beta2(u: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(u)))


def _least_q(
    table: np.ndarray, sampling: Sampling, beta1: np.ndarray, eps: tuple[float, float]
) -> float:
    """A value of 1 − β2 at which a random scheme's drift is negative for every β1.

    The drift is negative in the limit β2 → 1.

    Raises:
      ValueError: the drift cannot be computed at a 1 − β2 that small.
    """
    q, least = (
        _sixteenth_of_cyclic_edge(table, sampling, beta1, eps),
        least_one_minus_beta(table, sampling)[1],
    )
    while not is_estimated(table, sampling):
        hyper = adam.Hyperparameters(1 - beta1, q, *eps)
        if (stationary_drift(table, hyper, sampling).drift < 0).all():
            break
        if q == least:
            _refuse(sampling, q)
        q = max(least, q / 16)
    return q


def _sixteenth_of_cyclic_edge(
    table: np.ndarray, sampling: Sampling, beta1: np.ndarray, eps: tuple[float, float]
) -> float:
    """One sixteenth of the smallest 1 − β2 at which the cyclic drift changes sign.

    Not smaller than `least_one_minus_beta`, the smallest that the drift supports.
    """
    epsilon, epsilon_root = eps
    cyclic = divergence_intervals(
        table, beta1, "cyclic", epsilon=epsilon, epsilon_root=epsilon_root
    )
    ends = [interval.high.one_minus_beta2 for row in cyclic for interval in row]
    return max(least_one_minus_beta(table, sampling)[1], min(ends, default=0.16) / 16)


def _refuse(sampling: Sampling, q: float) -> NoReturn:
    raise ValueError(
        f"sampling={sampling!r}: the drift is still positive at 1 − β2 = {q:g}, so the boundary is "
        "closer to β2 = 1 than the drift can be computed"
    )


def _brackets(
    drift: Callable, p: np.ndarray, scan: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row numbers and both ends of the brackets of all sign changes, ascending within each row."""
    values = drift(p[:, None], scan)
    u = np.broadcast_to(scan, values.shape)
    for _ in range(3):
        u, values = _refine_near_misses(drift, p, u, values)
    rows, columns = np.nonzero(np.signbit(values[:, :-1]) != np.signbit(values[:, 1:]))
    return rows, u[rows, columns], u[rows, columns + 1]


def _refine_near_misses(
    drift: Callable, p: np.ndarray, u: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Adds points around each local minimum of |D| at which the scan shows no sign change."""
    size = np.abs(values)
    inner = (size[:, 1:-1] < size[:, :-2]) & (size[:, 1:-1] < size[:, 2:])
    same_sign = np.signbit(values[:, :-2]) == np.signbit(values[:, 2:])
    same_sign &= np.signbit(values[:, :-2]) == np.signbit(values[:, 1:-1])
    rows, columns = np.nonzero(inner & same_sign)
    if not len(rows):
        return u, values
    fractions = np.linspace(0, 1, 18)[1:-1]
    first, last = u[rows, columns], u[rows, columns + 2]
    extra = first[:, None] + (last - first)[:, None] * fractions
    extra_values = drift(p[rows, None], extra)
    # each row gets its own points; rows with fewer points repeat their last one
    count = np.bincount(rows, minlength=len(p)).max() * len(fractions)
    more_u = np.repeat(u[:, -1:], count, axis=1)
    more_values = np.repeat(values[:, -1:], count, axis=1)
    for row in np.unique(rows):
        added = extra[rows == row].ravel()
        more_u[row, : added.size] = added
        more_values[row, : added.size] = extra_values[rows == row].ravel()
    u, values = np.hstack([u, more_u]), np.hstack([values, more_values])
    order = np.argsort(u, axis=1, kind="stable")
    return np.take_along_axis(u, order, axis=1), np.take_along_axis(values, order, axis=1)


def _section(
    function: Callable,
    p: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
    halvings: int,
    halvings_per_call: int = 1,
) -> np.ndarray:
    """The zeros between `low` and `high`, for all brackets at once.

    A call costs more than a few points more, so each halves the brackets several times: it cuts
    them into equal sections and keeps the first in which the sign changes.
    """
    if not len(low):
        return low
    sign = np.signbit(function(p, low))[:, None]
    fractions = np.linspace(0, 1, (1 << halvings_per_call) + 1)
    for _ in range(-(-halvings // halvings_per_call)):
        points = low[:, None] + (high - low)[:, None] * fractions
        points[:, -1] = high
        beyond = np.signbit(function(p[:, None], points[:, 1:-1])) != sign
        beyond = np.column_stack([beyond, np.ones(len(low), bool)])
        first, rows = beyond.argmax(axis=1), np.arange(len(low))
        low, high = points[rows, first], points[rows, first + 1]
    return (low + high) / 2


def _stderr_of_roots(evaluate: Callable, p: np.ndarray, roots: np.ndarray) -> np.ndarray:
    """Standard error of each root in β2: that of D at the root, divided by |dD/dβ2|."""
    if not len(roots):
        return roots
    step = 0.02
    above, below = evaluate(p, roots + step), evaluate(p, roots - step)
    slope = (above.drift - below.drift) / (_beta2(roots + step) - _beta2(roots - step))
    return evaluate(p, roots).stderr / np.abs(slope)


def _intervals(edges: list[Edge], starts_inside: bool) -> list[Interval]:
    ends = [_ZERO, *edges] if starts_inside else list(edges)
    if len(ends) % 2:
        ends.append(_ONE)
    return [Interval(low, high) for low, high in zip(ends[::2], ends[1::2])]


def _polish(
    drift: Callable, line: np.ndarray, beta1: np.ndarray, u: np.ndarray
) -> Float[np.ndarray, "V 2"]:
    """Moves the vertices (β1, u) of a contour along their grid lines onto the zero set."""
    # each vertex lies on a grid line, up to rounding
    on_beta1 = np.abs(line[:, :1] - beta1).min(axis=1) < 1e-9 * beta1[-1]
    moved = line.copy()
    for axis, grid, chosen in ((1, u, on_beta1), (0, beta1, ~on_beta1)):
        points = line[chosen]
        cell = np.clip(np.searchsorted(grid, points[:, axis], side="right") - 1, 0, len(grid) - 2)

        def along(fixed: np.ndarray, value: np.ndarray, axis: int = axis) -> np.ndarray:
            return drift(fixed, value) if axis == 1 else drift(value, fixed)

        other = beta1 if axis == 1 else u
        fixed = other[np.abs(points[:, 1 - axis, None] - other).argmin(axis=1)]
        moved[chosen, axis] = _section(along, fixed, grid[cell], grid[cell + 1], 24)
        moved[chosen, 1 - axis] = fixed
    return np.column_stack([moved[:, 0], _beta2(moved[:, 1])])
