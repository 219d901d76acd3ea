"""Is β2 large enough for this batch size? The stationary drift of a user's own gradients.

The probe freezes the parameters and computes where Adam would go with the mini-batch gradients of a
table: E[m/(√v + ε)] with independent mini-batches, exactly (`field`). It compares the progress
⟨∇f, E[m/(√v + ε)]⟩ with its limit as β2 → 1, ⟨∇f, ∇f/(√(E g²) + ε)⟩, and the mean square of the
steps with its own limit, (E[m²])/(√(E g²) + ε)². If both ratios are 1, noise does not matter. If
progress is below 0, Adam goes uphill. If progress or squares are above 1, v forgets between large
gradients and single steps are too long. Gradients of larger batches are means of draws.

The table is a sample. Every ratio is that of the table, with an interval for the ratio of the data
(`sampling_error`). In the interval the noise of the mean gradient is subtracted from its square; if
only some coordinates are kept, the interval includes the error of that choice.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Array, Float, Key

from adam_transition.advise import arguments
from adam_transition.advise.ratios import ratios
from adam_transition.advise.sampling_error import ConfidenceInterval
from adam_transition.advise.tables import GradientTable

EPSILON = 1e-8
"""The default of optax and PyTorch, in the units of the gradient."""

LEAST, MOST, SQUARES = 0.5, 1.1, 2.0
"""A β2 is good if progress lies between the first two and squares are below the third."""


class Probe(NamedTuple):
    """What Adam would do with these gradients; S batch sizes, Q values of β2.

    Each ratio is that of the table; the 95 % interval is for the data that its batches come from,
    and infinite if the table cannot decide. `stderr` is the distance to the farther end over 1.96.

    Intervals are of first order in the rows. Close to an extremum of squares in β2, with a rare
    kind of batch of which the table holds only a few, their upper end is too low: with one large
    gradient in twenty and n = 100 to 400 the interval covers the value in 83 to 98 % of tables.
    """

    batch_factors: np.ndarray  # [S] batch sizes over that of the table
    one_minus_beta2: np.ndarray  # [Q]
    progress: Float[np.ndarray, "S Q"]  # ⟨∇f, E[m/(√v+ε)]⟩ over its limit as β2 → 1
    progress_stderr: Float[np.ndarray, "S Q"]
    wrong_mass: Float[np.ndarray, "S Q"]  # share of Σ|∇f| in coordinates with the wrong sign
    progress_low: Float[np.ndarray, "S Q"]
    progress_high: Float[np.ndarray, "S Q"]
    squares: Float[np.ndarray, "S Q"]  # E‖m/(√v+ε)‖² over its limit as β2 → 1
    squares_low: Float[np.ndarray, "S Q"]
    squares_high: Float[np.ndarray, "S Q"]
    unseen: float  # batches rarer than this may be missing from the table


class Answer(NamedTuple):
    """Whether a β2 is large enough; see `Probe` for the numbers."""

    verdict: Literal["good", "too small", "cannot tell"]
    reason: str
    progress: float
    progress_low: float
    progress_high: float
    squares: float
    squares_low: float
    squares_high: float
    unseen: float


def probe(
    table: GradientTable,
    one_minus_beta2: Sequence[float] | np.ndarray,
    key: Key[Array, ""],
    *,
    beta1: float = 0.9,
    batch_factors: Sequence[int] = (1,),
    epsilon: float = EPSILON,
) -> Probe:
    """Progress, squares and wrong signs over a grid of β2 and batch sizes.

    It takes a few milliseconds per coordinate of the table, and about ten times as long for each
    batch size other than that of the table.

    Args:
      table: from `gradient_table` or `GradientTable.from_rows`.
      one_minus_beta2: values in (0, 1].
      key: for drawing larger batches; at batch factor 1 nothing is drawn.
      beta1: in [0, 1).
      batch_factors: batch sizes in units of that of the table, 1 or more.
      epsilon: that of the optimiser, outside the square root, in the units of the gradient. With 0,
        a coordinate that is exactly 0 in many rows can have an infinite mean step or square.

    Raises:
      ValueError: naming the argument: values outside their ranges, or rows that are not finite.
    """
    try:
        q = np.asarray(one_minus_beta2, np.float64)
    except (TypeError, ValueError):
        q = np.zeros(0)
    if q.ndim != 1 or not q.size or not ((q > 0) & (q <= 1)).all():
        raise ValueError(f"one_minus_beta2={one_minus_beta2}: needs a list of values in (0, 1]")
    beta1 = arguments.in_unit("beta1", beta1)
    epsilon = arguments.not_negative("epsilon", epsilon)
    if isinstance(batch_factors, str) or not np.iterable(batch_factors) or not len(batch_factors):
        raise ValueError(f"batch_factors={batch_factors}: needs a list of whole numbers from 1 on")
    factors = [arguments.whole("batch_factors", factor) for factor in batch_factors]
    found = [ratios(table, q, key, 1 - beta1, epsilon, factor) for factor in factors]
    return Probe(
        batch_factors=np.asarray(factors),
        one_minus_beta2=q,
        progress=np.stack([one.progress for one in found]),
        progress_stderr=np.stack([one.progress_stderr for one in found]),
        wrong_mass=np.stack([one.wrong_mass for one in found]),
        progress_low=np.stack([np.asarray(one.progress_interval.low) for one in found]),
        progress_high=np.stack([np.asarray(one.progress_interval.high) for one in found]),
        squares=np.stack([one.squares for one in found]),
        squares_low=np.stack([np.asarray(one.squares_interval.low) for one in found]),
        squares_high=np.stack([np.asarray(one.squares_interval.high) for one in found]),
        unseen=table.unseen,
    )


def is_large_enough(
    table: GradientTable,
    key: Key[Array, ""],
    *,
    beta2: float,
    beta1: float = 0.9,
    batch_factor: int = 1,
    epsilon: float = EPSILON,
    least: float = LEAST,
    most: float = MOST,
    squares: float = SQUARES,
) -> Answer:
    """Good, too small, or cannot tell: the probe at one β2, in words.

    - *too small*: progress is outside [`least`, `most`], or squares are above `squares`, by more
      than the error; or β1 ≥ √β2, where single steps are unbounded.
    - *good*: progress and squares lie within the limits, with their whole intervals.
    - *cannot tell*: an interval contains a limit, for instance because the mean gradient is lost in
      the noise of too few batches.

    Args:
      table: from `gradient_table` or `GradientTable.from_rows`.
      key: for drawing larger batches.
      beta2: in [0, 1).
      beta1: in [0, 1).
      batch_factor: the batch size in units of that of the table.
      epsilon: that of the optimiser.
      least: the smallest good progress, below 1.
      most: the largest good progress, above 1.
      squares: the largest good mean square of a step, in units of its limit, above 1.

    Raises:
      ValueError: naming the argument: values outside their ranges, or rows that are not finite.
    """
    beta1, beta2 = arguments.in_unit("beta1", beta1), arguments.in_unit("beta2", beta2)
    batch_factor = arguments.whole("batch_factor", batch_factor)
    check_levels(least, most, squares)
    found = probe(
        table, [1 - beta2], key, beta1=beta1, batch_factors=[batch_factor], epsilon=epsilon
    )
    numbers = {name: float(getattr(found, name)[0, 0]) for name in Answer._fields[2:8]}
    verdict, reason = _verdict(*numbers.values(), least=least, most=most, squares=squares)
    if beta1 > 0 and beta1 >= np.sqrt(beta2):
        verdict = "too small"
        reason = (
            f"β1={beta1:g} is not below √β2={np.sqrt(beta2):.4g}: single steps are unbounded"
            + (f"; {reason}" if reason else "")
        )
    if verdict == "good" and not table.complete:
        reason += (
            f"; batches rarer than one in {1 / table.unseen:.0f} may be missing from the table"
        )
    return Answer(verdict, reason, **numbers, unseen=table.unseen)


class Margins(NamedTuple):
    """How far progress and squares lie inside their limits; negative outside.

    Three rows: progress above its lower limit, progress below its upper limit, squares below
    theirs.
    """

    sure: Float[np.ndarray, "3 ..."]  # for the worse end of the interval; "good" if all are ≥ 0
    possible: Float[np.ndarray, "3 ..."]  # for the better end; "too small" if any is below 0


def margins(
    progress: ConfidenceInterval,
    square: ConfidenceInterval,
    *,
    least: float,
    most: float,
    squares: float,
) -> Margins:
    """The margins that decide whether a β2 is good, in `is_large_enough` and `needed_beta2`.

    Args:
      progress: interval of the progress.
      square: interval of the squares.
      least: the smallest good progress.
      most: the largest good progress.
      squares: the largest good squares.
    """
    (low, high), (square_low, square_high) = (
        [np.asarray(end) for end in one] for one in (progress, square)
    )
    return Margins(
        np.stack([low - least, most - high, squares - square_high]),
        np.stack([high - least, most - low, squares - square_low]),
    )


def _verdict(
    progress: float, low: float, high: float, square: float, square_low: float, square_high: float,
    *, least: float, most: float, squares: float,
) -> tuple[Literal["good", "too small", "cannot tell"], str]:  # fmt: skip
    numbers = f"progress {progress:.3g} ({low:.3g} to {high:.3g})"
    steps = f"squares {square:.3g} ({square_low:.3g} to {square_high:.3g})"
    found = margins(
        ConfidenceInterval(low, high), ConfidenceInterval(square_low, square_high),
        least=least, most=most, squares=squares,
    )  # fmt: skip
    too_low, too_high, too_long = (found.possible < 0).tolist()
    if too_low:
        return "too small", f"{numbers} is below {least:g}"
    if too_high:
        return "too small", f"{numbers} is above {most:g}: v forgets between large gradients"
    if too_long:
        return "too small", f"{steps} of single steps are above {squares:g} times their limit"
    if (found.sure >= 0).all():
        return "good", f"{numbers}, {steps}"
    if not (np.isfinite(low) and np.isfinite(high)):
        return "cannot tell", (
            "the mean gradient is lost in the noise of these batches: take more of them, or more "
            "coordinates"
        )
    return "cannot tell", f"{numbers} or {steps} reach across a limit: take more batches"


def check_levels(least: float, most: float, squares: float) -> None:
    """Raises ValueError if one of the limits of a good β2 is outside its range."""
    arguments.in_unit("least", least)
    for name, value in (("most", most), ("squares", squares)):
        arguments.number(name, value, "(1, ∞)", lambda x: 1 < x < np.inf)
