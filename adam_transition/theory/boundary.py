"""The phase boundary: where the stationary drift of a one-dimensional table changes sign.

For a given β1 all sign changes in β2 are bracketed by a scan that is even in u = log(β2/(1−β2)),
so equal ratios of β2 near 0 and of 1 − β2 near 1; where the drift comes close to zero between two
points of the scan without crossing it, the scan is refined. Brackets are then bisected together.

With ε the drift sees the scale of the table, and so does the boundary.
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
_SCAN = {True: 97, False: 513}  # points of a scan, for estimates and exact drifts
_HALVINGS = {"cyclic": 60, "shuffle_once": 60}  # to the last digit
_RANDOM_HALVINGS = 36  # to the last that is right


class Edge(NamedTuple):
    """An end of an interval of β2."""

    beta2: float
    one_minus_beta2: float  # with its own digits where β2 is near 1
    stderr: float  # standard error of β2; 0 where the drift is exact, and at 0 and 1


class Interval(NamedTuple):
    """An interval of β2 in which the drift points away from the minimiser."""

    low: Edge
    high: Edge


_ZERO, _ONE = Edge(0.0, 1.0, 0.0), Edge(1.0, 0.0, 0.0)


def divergence_intervals(
    gradients: Float[np.ndarray, "n 1"],
    beta1: Sequence[float] | np.ndarray,
    sampling: Sampling = "cyclic",
    *,
    key: Key[Array, ""] | None = None,
    num_samples: int = 2_000_000,
    least_one_minus_beta2: float | None = None,
    epsilon: float = 0.0,
    epsilon_root: float = 0.0,
) -> list[list[Interval]]:
    """For each β1 the intervals of β2 in [0, 1) with D > 0: none, one or more, ascending.

    β2 below 2e-12 is taken to be like 2e-12.

    Edges are exact: for cyclic order to a few units of rounding (1e-15 in β2, relative in 1 − β2),
    for the random schemes to about 1e-12. Where the drift has to be estimated (`is_estimated`),
    they are so to 1e-7 for the histories that the key stands for, and to the standard error for all
    histories.

    Args:
      gradients: a table of one-dimensional gradients with positive mean, so that D > 0 is the
        wrong direction.
      beta1: values in [0, 1).
      sampling: the sampling scheme.
      key: for `shuffle_once` and for estimates.
      num_samples: for estimates, steps averaged for each (β1, β2).
      least_one_minus_beta2: how near to 1 to look, beyond which the drift is taken to have no more
        sign changes. Default: 1e-13, and for the random schemes a sixteenth of where the cyclic
        boundary is, or nearer, until the drift is negative there.
      epsilon: ε outside the root, in the units of the gradients.
      epsilon_root: ε inside the root, in those of their squares.

    Raises:
      ValueError: a table that is not (n, 1) or whose mean is not positive; a β1 outside [0, 1) or
        none; a boundary that is nearer to β2 = 1 than the drift can be had
        (`least_one_minus_beta`); a drift that has no value at some β2, as with replacement where
        gradients are 0, β1 > 0 and ε = 0; or what `stationary_drift` raises.
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
        found = stationary_drift(table, hyper, sampling, key=key, histories=histories)
        return Drift(found.drift[..., 0], found.stderr[..., 0])

    def drift(p: np.ndarray, u: np.ndarray) -> np.ndarray:
        return evaluate(p, u).drift

    greatest_u = np.log1p(-least_one_minus_beta2) - np.log(least_one_minus_beta2)
    if estimated and (drift(p, np.full(len(p), greatest_u)) > 0).any():
        _refuse(sampling, least_one_minus_beta2)
    scan = np.linspace(first_u, greatest_u, _SCAN[estimated])
    rows, low, high = _brackets(drift, p, scan)
    roots = _bisect(drift, p[rows], low, high, _HALVINGS.get(sampling, _RANDOM_HALVINGS))
    stderr = _stderr_of_roots(evaluate, p[rows], roots) if estimated else np.zeros(len(roots))
    q = _one_minus_beta2(roots)
    edges = [Edge(*values) for values in zip(_beta2(roots).tolist(), q.tolist(), stderr.tolist())]
    # at β2 = 0 itself D may be 0, or have no value
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
    """The zero set of the drift in the (β1, β2) plane, as lines of points, folds included.

    The drift is contoured on a grid that is even in β1 and in log(β2/(1−β2)); each vertex is then
    moved along its grid line to the zero of the drift (to 1e-6 of a grid spacing), so it does not
    matter how the grid lies. Lines end where the region that is asked for ends; by default it
    reaches to 1 − β2 = 1e-3, and for the random schemes no farther than a sixteenth of where the
    cyclic boundary is. Where the drift has no value there is no line.

    Raises:
      ValueError: a greatest β1 outside (0, 1), fewer than two points along an axis; and as for
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
            1e-3, _a_sixteenth(table, sampling, beta1, eps) if random else 0
        )
    greatest_u = np.log1p(-least_one_minus_beta2) - np.log(least_one_minus_beta2)
    u = np.linspace(-12, greatest_u, num_points[1])
    histories = None
    if is_estimated(table, sampling):
        memory = 1 / min(least_one_minus_beta2, 1 - greatest_beta1)
        histories = _histories(table, sampling, key, memory, num_samples)

    def drift(b1: np.ndarray, u: np.ndarray) -> np.ndarray:
        hyper = adam.Hyperparameters(1 - b1, _one_minus_beta2(u), *eps)
        found = stationary_drift(table, hyper, sampling, key=key, histories=histories)
        return found.drift[..., 0]

    values = drift(beta1[:, None], u)
    lines = contourpy.contour_generator(u, beta1, values).lines(0.0)
    return [_polish(drift, np.asarray(line)[:, ::-1], beta1, u) for line in lines]


def _table(gradients: Float[np.ndarray, "n 1"]) -> Float[np.ndarray, "n 1"]:
    table = np.asarray(gradients, np.float64)
    # the mean of numbers near the largest would overflow
    scale = float(np.abs(table).max(initial=0)) or 1.0
    if table.ndim != 2 or table.shape[1] != 1 or not (table / scale).mean() > 0:
        raise ValueError(f"gradients of shape {table.shape}: need (n, 1) with a positive mean")
    return table


def _least_u(table: np.ndarray) -> float:
    """How near to β2 = 0 the drift is a number, where gradients are 0 and ε is.

    A run of them multiplies v by β2 each time; under random shuffling two may meet.
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
    return 1 / (1 + np.exp(-u))


def _one_minus_beta2(u: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(u))


def _least_q(
    table: np.ndarray, sampling: Sampling, beta1: np.ndarray, eps: tuple[float, float]
) -> float:
    """Where a random scheme's drift is negative at every β1, as it is in the limit β2 → 1.

    Raises:
      ValueError: it cannot be had so near to 1.
    """
    q, least = _a_sixteenth(table, sampling, beta1, eps), least_one_minus_beta(table, sampling)[1]
    while not is_estimated(table, sampling):
        hyper = adam.Hyperparameters(1 - beta1, q, *eps)
        if (stationary_drift(table, hyper, sampling).drift < 0).all():
            break
        if q == least:
            _refuse(sampling, q)
        q = max(least, q / 16)
    return q


def _a_sixteenth(
    table: np.ndarray, sampling: Sampling, beta1: np.ndarray, eps: tuple[float, float]
) -> float:
    """Of the least 1 − β2 at which the cyclic drift changes its sign, as near as can be had."""
    epsilon, epsilon_root = eps
    cyclic = divergence_intervals(
        table, beta1, "cyclic", epsilon=epsilon, epsilon_root=epsilon_root
    )
    ends = [interval.high.one_minus_beta2 for row in cyclic for interval in row]
    return max(least_one_minus_beta(table, sampling)[1], min(ends, default=0.16) / 16)


def _refuse(sampling: Sampling, q: float) -> NoReturn:
    raise ValueError(
        f"sampling={sampling!r}: the drift is still positive at 1 − β2 = {q:g}, so the boundary is "
        "nearer to 1 than it can be found"
    )


def _brackets(
    drift: Callable, p: np.ndarray, scan: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row numbers and ends of the brackets of all sign changes, ascending in each row."""
    values = drift(p[:, None], scan)
    u = np.broadcast_to(scan, values.shape)
    for _ in range(3):
        u, values = _refine_near_misses(drift, p, u, values)
    rows, columns = np.nonzero(np.signbit(values[:, :-1]) != np.signbit(values[:, 1:]))
    return rows, u[rows, columns], u[rows, columns + 1]


def _refine_near_misses(
    drift: Callable, p: np.ndarray, u: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Adds points around each local minimum of |D| that the scan does not see crossing zero."""
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
    # rows get points of their own; those without a near miss repeat their last point
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


def _bisect(
    function: Callable, p: np.ndarray, low: np.ndarray, high: np.ndarray, halvings: int
) -> np.ndarray:
    """The zeros between `low` and `high`, all brackets at once."""
    if not len(low):
        return low
    sign = np.signbit(function(p, low))
    for _ in range(halvings):
        middle = (low + high) / 2
        below = np.signbit(function(p, middle)) == sign
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2


def _stderr_of_roots(evaluate: Callable, p: np.ndarray, roots: np.ndarray) -> np.ndarray:
    """Standard error of D at the root over its slope in β2."""
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
    # each vertex lies on a line of the grid, but for rounding
    on_beta1 = np.abs(line[:, :1] - beta1).min(axis=1) < 1e-9 * beta1[-1]
    moved = line.copy()
    for axis, grid, chosen in ((1, u, on_beta1), (0, beta1, ~on_beta1)):
        points = line[chosen]
        cell = np.clip(np.searchsorted(grid, points[:, axis], side="right") - 1, 0, len(grid) - 2)

        def along(fixed: np.ndarray, value: np.ndarray, axis: int = axis) -> np.ndarray:
            return drift(fixed, value) if axis == 1 else drift(value, fixed)

        other = beta1 if axis == 1 else u
        fixed = other[np.abs(points[:, 1 - axis, None] - other).argmin(axis=1)]
        moved[chosen, axis] = _bisect(along, fixed, grid[cell], grid[cell + 1], 24)
        moved[chosen, 1 - axis] = fixed
    return np.column_stack([moved[:, 0], _beta2(moved[:, 1])])
