"""The smallest β2 that is large enough for a table of gradients."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Key
from scipy import interpolate, optimize

from adam_transition.advise import arguments
from adam_transition.advise._probe import EPSILON, LEAST, MOST, SQUARES, check_levels, margins
from adam_transition.advise.ratios import Sums, contrast, ratios_of, sums
from adam_transition.advise.tables import GradientTable

_NUM_Q, _NUM_INSIDE = 25, 7
_BELOW = 1 - 1e-6  # of 1 − β1²: β1 < √β2


class Needed(NamedTuple):
    """The smallest β2 that is large enough, as the largest 1 − β2."""

    one_minus_beta2: float  # NaN if even `least` is too large
    stderr: float  # distance to the farther end over 1.96; infinite if no limit was met
    low: float  # up to here the answer is "good"; 0 if below `least`
    high: float  # beyond here the answer is "too small"
    reason: str  # the limit that is met there
    unseen: float  # batches rarer than this may be missing from the table


def needed_beta2(
    table: GradientTable,
    key: Key[Array, ""],
    *,
    beta1: float = 0.9,
    batch_factor: int = 1,
    progress: float = LEAST,
    most: float = MOST,
    squares: float = SQUARES,
    least: float = 1e-4,
    epsilon: float = EPSILON,
) -> Needed:
    """The largest 1 − β2 up to which Adam's steps follow the gradient.

    That is, up to which progress is between `progress` and `most`, and the mean square of a step is
    at most `squares` times its limit (see `Probe`). The result always satisfies β1 < √β2, as single
    steps are unbounded beyond: if no other limit is met it is 1 − β1², and `reason` says so. The
    search is on a grid that is even in log(1 − β2) and starts at `least`; the result is NaN if even
    1 − β2 = `least` is too large. With `progress=0` the result is where the update reverses: the
    phase boundary, if there is one.

    The 95 % interval contains the values for which the table cannot decide: up to `low` the answer
    of `is_large_enough` is "good", beyond `high` it is "too small" (on the grid, interpolated
    between its points). It is widened to include the result.

    Args:
      table: from `gradient_table` or `GradientTable.from_rows`.
      key: for drawing larger batches; at batch factor 1 nothing is drawn.
      beta1: in [0, 1).
      batch_factor: batch size in units of that of the table, 1 or more.
      progress: the smallest good progress, in [0, 1).
      most: the largest good progress, above 1.
      squares: the largest good mean square, in units of its limit, above 1.
      least: the smallest 1 − β2 of the search, in (0, 1 − β1²).
      epsilon: that of the optimiser, outside the square root, in the units of the gradient.

    Raises:
      ValueError: naming the argument: values outside their ranges, or rows that are not finite.
    """
    batch_factor = arguments.whole("batch_factor", batch_factor)
    beta1 = arguments.in_unit("beta1", beta1)
    progress = arguments.in_unit("progress", progress)
    check_levels(progress, most, squares)
    epsilon = arguments.not_negative("epsilon", epsilon)
    bound = (1 - beta1) * (1 + beta1) * (_BELOW if beta1 > 0 else 1)
    allowed = f"(0, 1 − β1² = {bound:.6g})"
    least = arguments.number("least", least, allowed, lambda x: 0 < x < bound)

    limits = [
        (f"progress is below {progress:g}", np.array([1, -progress, 0, 0])),
        (
            f"progress is above {most:g}: v forgets between large gradients",
            np.array([-1, most, 0, 0]),
        ),
        (
            f"squares of single steps are above {squares:g} times their limit",
            np.array([0, 0, -1, squares]),
        ),
    ]

    def at(q: np.ndarray, *, errors: bool) -> Sums:
        return sums(table, q, key, 1 - beta1, epsilon, batch_factor, errors=errors)

    grid = np.geomspace(least, bound, _NUM_Q)
    found = at(grid, errors=True)
    low, high = _interval(grid, found, least=progress, most=most, squares=squares)
    value, stopped_by = _first_below(grid, [contrast(found, one) for _, one in limits])
    if stopped_by is None:
        reason = (
            f"nothing up to 1 − β1² = {bound:.4g} is too much; from β1 = √β2 on single steps are "
            "unbounded"
            if beta1 > 0
            else "no β2 is too small"
        )
    elif value == least:
        reason = f"even at 1 − β2 = {least:g} {limits[stopped_by][0]}"
        return Needed(np.nan, np.inf, low, high, reason, table.unseen)
    else:
        place = int(np.searchsorted(grid, value))
        inside = np.geomspace(grid[place - 1], grid[place], _NUM_INSIDE)
        finer = at(inside, errors=False)
        value, inner = _first_below(inside, [contrast(finer, one) for _, one in limits])
        stopped_by = stopped_by if inner is None else inner
        reason = limits[stopped_by][0]
    if table.complete:
        return Needed(value, 0.0, value, value, reason, 0.0)
    low, high = min(low, value), max(high, value)
    reason += f"; batches rarer than one in {1 / table.unseen:.0f} may be missing from the table"
    # with no limit met the error is not 0: batches missing from the table may meet one
    stderr = max(value - low, high - value) / 1.96 or np.inf
    return Needed(value, stderr, low, high, reason, table.unseen)


def _interval(grid: np.ndarray, found: Sums, **levels: float) -> tuple[float, float]:
    """The 1 − β2 up to which all are good, and the one beyond which all are too small."""
    ratios = ratios_of(found)
    inside = margins(ratios.progress_interval, ratios.squares_interval, **levels)
    low, _ = _first_below(grid, list(inside.sure))
    possible = inside.possible.min(axis=0)
    allowed = np.flatnonzero(possible >= 0)
    last = int(allowed[-1]) if allowed.size else -1
    if last < 0:
        high = float(grid[0])
    elif last == len(grid) - 1:
        high = float(grid[-1])
    else:
        high = _crossing(grid, possible, last + 1)
    return (0.0 if inside.sure[:, 0].min() < 0 else low), high


def _first_below(
    q: Float[np.ndarray, " Q"], margins: list[Float[np.ndarray, " Q"]]
) -> tuple[float, int | None]:
    """The first 1 − β2 at which a margin is below 0, and its index; else the last, and None."""
    found: tuple[float, int | None] = (float(q[-1]), None)
    for i, margin in enumerate(margins):
        below = np.flatnonzero(~(margin >= 0))
        if below.size:
            where = _crossing(q, margin, int(below[0]))
            if found[1] is None or where < found[0]:
                found = where, i
    return found


def _crossing(q: np.ndarray, margin: np.ndarray, first: int) -> float:
    """The 1 − β2 at which a margin crosses 0 before the entry `first`."""
    if first == 0 or not np.isfinite(margin[: first + 1]).all():
        return float(q[max(first - 1, 0)])
    known = np.isfinite(margin)
    curve = interpolate.PchipInterpolator(np.log(q[known]), margin[known])
    ends = np.log(q[first - 1]), np.log(q[first])
    return float(np.exp(optimize.brentq(curve, *ends)))
