"""Which β2 to train further: successive halving around the edge of the good β2.

Pure functions of the loss curves seen so far. All β2 are trained for a sixteenth of the run; then
those near the edge, and one far on its good side as a reference, for a quarter, a half and the
whole of it. The edge of a part of the run lies at too small a β2, mostly by less than a factor of
3 in 1 − β2 (`EDGE_MOVES`), so long runs are needed near the edge only.

Arrays are ordered by 1 − β2, which increases. K values of β2, S seeds, R records of a whole run.
"""

import itertools
import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import scipy  # imports its modules lazily
from jaxtyping import Bool, Float, Int

from adam_transition.networks import outcomes

SHARES = (1 / 16, 1 / 4, 1 / 2, 1.0)
"""Parts of the run after which the runs to be continued are chosen."""

EDGE_MOVES = {1 / 16: (0.65, 0.85), 1 / 4: (0.5, 0.5), 1 / 2: (0.25, 0.3), 1.0: (0.0, 0.0)}
"""Share of the run → mean and standard deviation of the change of −log(1 − β2) at the edge from
there to the end. Measured on MLPs (digits, MNIST-1D, digits of MNIST), 26 settings of batch size
and learning rate with 8 seeds each."""

FAR = 3.5
"""Distance of the reference from the expected edge, in log(1 − β2): good at the end too."""

_SEED_SD, _SEED_WEIGHT = 0.45, 3  # a prior of the scatter of edges over seeds, and its seeds
_GRID_SD = 0.12  # of an edge between two grid points


Verdict = Literal["found", "every beta2 is good", "cannot tell"]

NOTHING = "nothing is learnt at any β2 in this time"

_WIDEST = 100.0  # high over low, beyond which an interval is no answer: a convention
_DEAD = 0.05  # of the log loss: who learns less has learnt nothing: a convention
_SIGNAL = 4.5  # by how much the margin of a good loss must exceed the noise: chosen on some tasks
_TRAINABLE = 0.5  # share of the β2 whose first record is finite: a convention
_CONTRAST = 2.0  # by how much the loss of a bad β2 must exceed that margin: a convention


class Seen(NamedTuple):
    """Curves of the runs so far."""

    one_minus_beta2: Float[np.ndarray, " K"]  # increasing
    loss: Float[np.ndarray, "S K R"]  # a run's first records; the rest is not read
    records: Int[np.ndarray, " K"]  # how many there are of each


class FoundEdge(NamedTuple):
    """The largest good 1 − β2 of the whole run, as far as the curves tell."""

    value: float  # at the end of the run; NaN if nothing is learnt, beyond the grid if none is bad
    low: float  # 95 % confidence interval
    high: float  # +inf if no β2 is bad
    share: float  # of the run, after which it was seen


def sizes(num_beta2: int, budget: float) -> tuple[int, ...]:
    """How many β2 are trained on to each of `SHARES`; the first is all of them.

    Args:
      num_beta2: K.
      budget: share of the cost of training all to the end.

    Raises:
      ValueError: the budget does not allow a second stage with two values.
    """
    parts = np.diff((0.0, *SHARES))
    best: tuple[int, ...] = ()
    counts = range(num_beta2, -1, -1)
    for more in itertools.combinations_with_replacement(counts, len(SHARES) - 1):
        cost = parts @ (num_beta2, *more)
        if more[0] >= 2 and cost <= budget * num_beta2 + 1e-9:
            best = max(best, more, key=_worth)
    if not best:
        raise ValueError(f"budget={budget:g}: must be {least_budget(num_beta2):g} or more")
    return (num_beta2, *best)


def least_budget(num_beta2: int) -> float:
    """The least share of the cost of a full sweep that buys a second stage with two values."""
    return SHARES[0] + 2 * (SHARES[1] - SHARES[0]) / num_beta2


def _worth(more: tuple[int, ...]) -> tuple[int, ...]:
    """Three runs to the end are worth most: two that enclose the edge, and the reference."""
    if not more:
        return ()
    enough = [min(count, 3 if stage else 4) for stage, count in enumerate(more)]
    return (*reversed(enough), *reversed(more))


def search(
    seen: Seen,
    guess: float,
    budget: float,
    extend: Callable[[Seen, Int[np.ndarray, " K"]], Seen],
) -> Seen:
    """Trains stage by stage, and with what is left of the budget the neighbours of the edge.

    Args:
      seen: without records.
      guess: loss of guessing.
      budget: see `sizes`.
      extend: trains every β2 up to a number of records, at least as many as it has.

    Raises:
      ValueError: see `sizes`.
    """
    num, records = len(seen.records), seen.loss.shape[-1]
    counts = sizes(num, budget)
    allowed = np.cumsum(np.diff((0.0, *SHARES)) * counts)
    seen = extend(seen, np.full(num, round(SHARES[0] * records)))
    reference = None
    for target, count, cost in zip(SHARES[1:], counts[1:], allowed[1:], strict=True):
        if count:
            wanted, reference = advance(seen, guess, target, float(cost), reference)
            seen = extend(seen, wanted)
    while not _is_enclosed(seen, guess):
        longer = [
            advance(seen, guess, target, budget * num, reference)[0] for target in SHARES[::-1]
        ]
        affordable = [wanted for wanted in longer if (wanted > seen.records).any()]
        if not affordable:
            break
        seen = extend(seen, affordable[0])
    return seen


def _is_enclosed(seen: Seen, guess: float) -> bool:
    """Whether both neighbours of the edge belong to the longest runs."""
    expected = _expected(seen, guess) + EDGE_MOVES[_share(seen)][0]
    return bool((_around(seen, expected) == seen.records.max()).all())


def _around(seen: Seen, place: float) -> Int[np.ndarray, " N"]:
    """Records of the two neighbours of a place in log(1 − β2), or of one at an end of the grid."""
    above = int(np.searchsorted(np.log(seen.one_minus_beta2), place))
    return seen.records[max(0, above - 1) : above + 1]


def heights(seen: Seen, guess: float) -> Float[np.ndarray, "S K"]:
    """Logarithms of the late loss after the longest run's records, for all β2; at most log(guess).

    For a shorter run its own late loss is used, and the change from there to the longest runs is
    interpolated from those that have both.
    """
    stages = np.unique(seen.records)
    found = _late(seen.loss, int(stages[0]), guess)
    place = np.log(seen.one_minus_beta2)
    for stage in stages[1:]:
        known = np.flatnonzero(seen.records >= stage)
        change = _late(seen.loss, int(stage), guess)[:, known] - found[:, known]
        moved = [np.interp(place, place[known], one) for one in change]
        found = found + np.array(moved)
    return np.minimum(found, math.log(guess))


def _late(loss: Float[np.ndarray, "S K R"], records: int, guess: float) -> Float[np.ndarray, "S K"]:
    # how much worse than guessing a run is does not matter, and would spoil the interpolation
    return np.minimum(outcomes.log(outcomes.late_loss(loss[..., :records])), math.log(guess))


def edge(seen: Seen, guess: float) -> FoundEdge:
    """The edge after the longest runs, and what that says about the end.

    The edge is that of the geometric mean of the losses over seeds, so that noise in the loss of
    one seed does not look like an edge. Its error is the jackknife's, with a prior.

    Args:
      seen: the curves.
      guess: loss of guessing.
    """
    num = len(seen.loss)
    (place, spread), *rest = (
        _place(seen._replace(loss=loss), guess)
        for loss in (seen.loss, *(np.delete(seen.loss, i, axis=0) for i in range(num)))
    )
    others = np.array([one for one, _ in rest])
    share = _share(seen)
    if np.isnan([place, *others]).any():
        return FoundEdge(math.nan, math.nan, math.nan, share)
    jackknife = (num - 1) / num * float(np.square(others - others.mean()).sum())
    seeds = ((num - 1) * jackknife + _SEED_WEIGHT * _SEED_SD**2 / num) / (num - 1 + _SEED_WEIGHT)
    half = scipy.stats.t.ppf(0.975, num - 1 + _SEED_WEIGHT) * math.sqrt(
        seeds + _GRID_SD**2 + spread**2
    )
    is_beyond = place + EDGE_MOVES[share][0] > math.log(seen.one_minus_beta2[-1])
    low = min(place - half, _lowest(seen, guess))
    high = math.inf if is_beyond else math.exp(place + half)
    return FoundEdge(math.exp(place), math.exp(low), high, share)


def _lowest(seen: Seen, guess: float) -> float:
    """log(1 − β2) up to which runs were seen to be good; +inf if no long run is bad.

    Runs that ended early count as far as the edge may still move, by three standard deviations.
    """
    grid, found = np.log(seen.one_minus_beta2), -math.inf
    bad = _bad(seen, guess)
    if not bad.any():
        return math.inf
    for share in SHARES[1:]:
        count = round(share * seen.loss.shape[-1])
        there = seen.records >= count
        if not there.any():
            break
        part = seen._replace(records=np.where(there, count, 0))
        good = there & ~_bad(part, guess) & (grid < grid[bad].min())
        mean, spread = EDGE_MOVES[share]
        found = max(found, grid[good].max(initial=-math.inf) - mean - 3 * spread)
    return float(found)


def _bad(seen: Seen, guess: float) -> Bool[np.ndarray, " K"]:
    """Which of the longest runs are bad, beyond the best of them."""
    count = int(seen.records.max())
    long = np.flatnonzero(seen.records == count)
    height = _late(seen.loss[:, long], count, guess).mean(axis=0)
    best = int(np.argmin(height))
    level = height[best] + outcomes.TOLERANCE * (math.log(guess) - height[best])
    bad = np.zeros(len(seen.records), bool)
    bad[long[best:]] = height[best:] > level
    return bad


def _place(seen: Seen, guess: float) -> tuple[float, float]:
    """log(1 − β2) of the edge at the end of the run, and the standard deviation of its move there.

    Unless two of the longest runs enclose the edge, as neighbours on the grid, it rests on shorter
    runs, whose change since is interpolated over a gap. So it stays within a standard deviation of
    where the shorter runs alone see it.
    """
    grid = np.log(seen.one_minus_beta2)
    height = heights(seen, guess).mean(axis=0)
    [low] = outcomes.window(seen.one_minus_beta2, np.exp(height)[None], guess).low
    place = min(math.log(low), 2 * grid[-1] - grid[-2])  # NaN stays
    mean, spread = EDGE_MOVES[_share(seen)]
    stages = np.unique(seen.records)
    if len(stages) == 1 or math.isnan(place) or (_around(seen, place) == stages[-1]).all():
        return place - mean, spread
    shorter = seen._replace(records=np.minimum(seen.records, stages[-2]))
    earlier, spread = _place(shorter, guess)
    if math.isnan(earlier):
        return place - mean, spread
    return float(np.clip(place - mean, earlier - spread, earlier + spread)), spread


def judge(seen: Seen, guess: float) -> tuple[Verdict, str]:
    """The verdict, and the reason if it is `cannot tell`.

    Args:
      seen: the curves.
      guess: loss of guessing.
    """
    found, height = edge(seen, guess), heights(seen, guess)
    mean = height.mean(axis=0)
    gain = math.log(guess) - float(np.sort(mean)[: max(2, len(mean) // 8)].mean())
    margin = outcomes.TOLERANCE * gain
    first = seen.loss[:, :, 0]
    if not (np.isfinite(first).all(axis=0).mean() > _TRAINABLE):
        return "cannot tell", "the loss is not finite from the start for most values of β2"
    if np.nanmin(seen.loss[np.isfinite(seen.loss)]) <= 0:
        return "cannot tell", "the loss reaches 0, where its logarithm ends: add a small constant"
    if not gain > _DEAD or math.isnan(found.value):
        return "cannot tell", NOTHING
    if margin < _SIGNAL * _noise(seen, height, found):
        return "cannot tell", "the loss is too noisy"
    if math.isinf(found.high):
        return "every beta2 is good", ""
    long = mean[seen.records == seen.records.max()]
    if long[0] - long.min() > outcomes.TOLERANCE * (math.log(guess) - long.min()):
        return "cannot tell", "the largest β2 are bad as well"
    if np.ptp(mean) < _CONTRAST * margin:
        return "cannot tell", "no β2 is clearly bad"
    if min(found.high, 1.0) > _WIDEST * found.low:
        ends = f"{found.low:.1g} to {found.high:.1g}"
        return "cannot tell", f"seeds or lengths of runs disagree: 1 − β2 from {ends}"
    return "found", ""


def _noise(seen: Seen, height: Float[np.ndarray, "S K"], found: FoundEdge) -> float:
    """Standard deviation of the mean height over seeds, from neighbours on the good side."""
    good = max(2, int(np.searchsorted(seen.one_minus_beta2, found.value)) - 1)
    # second differences, where there are enough, leave out a trend
    order, factor = (2, 6) if good > 2 else (1, 2)
    steps = np.diff(height[:, :good], n=order, axis=1)
    return math.sqrt(float(np.square(steps).mean()) / factor / len(steps))


def _share(seen: Seen) -> float:
    records = seen.loss.shape[-1]
    return min(SHARES, key=lambda share: abs(share * records - seen.records.max()))


def advance(
    seen: Seen, guess: float, target: float, allowed: float, reference: int | None
) -> tuple[Int[np.ndarray, " K"], int]:
    """How many records each β2 should have after the next stage.

    The reference is trained on, and then the β2 nearest to the edge that is expected at the end of
    the run, as many as the cost allows.

    Args:
      seen: the curves.
      guess: loss of guessing.
      target: share of the run to train to, one of `SHARES`.
      allowed: cost of all stages so far and of this one, in whole runs of one β2.
      reference: index of the reference, None to choose it.

    Returns:
      Records [K], unchanged if the cost allows nothing, and the reference.
    """
    records = seen.loss.shape[-1]
    grid = np.log(seen.one_minus_beta2)
    expected = _expected(seen, guess)
    if reference is None:
        far = np.flatnonzero(grid <= expected - FAR)
        far = far if len(far) else np.arange(1)
        reference = int(far[len(far) // 2])
    wanted = seen.records.copy()
    nearest = np.argsort(np.abs(grid - expected), kind="stable")
    for index in (reference, *nearest[nearest != reference]):
        longer = wanted.copy()
        longer[index] = max(longer[index], round(target * records))
        if longer.sum() > allowed * records + 1e-9:
            break
        wanted = longer
    return wanted, reference


def _expected(seen: Seen, guess: float) -> float:
    """log(1 − β2) of the edge at the end of the run; the end of the grid if nothing is learnt."""
    place, _ = _place(seen, guess)
    return math.log(seen.one_minus_beta2[0]) if math.isnan(place) else place
