"""A claim: a statement with its reference, the expected and the measured number, and a verdict.

Verdicts are computed from the interval measured ± uncertainty, never typed. A statement of the
paper or of another source is `reproduced`, `not reproduced` or `inconclusive`. A statement of this
project `holds`, `fails` or is `open`. The paper is known to us from a transcription in our own
words, without its appendix and the constants in its O(·): if a negative verdict could be due to
that, the statement says "as transcribed".
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
import scipy  # imports its modules lazily
from jaxtyping import Shaped

SourceVerdict = Literal["reproduced", "not reproduced", "inconclusive"]
OurVerdict = Literal["holds", "fails", "open"]
Verdict = SourceVerdict | OurVerdict

VERDICTS: tuple[tuple[SourceVerdict, ...], tuple[OurVerdict, ...]] = (
    get_args(SourceVerdict),
    get_args(OurVerdict),
)
"""Verdicts on a source's statements and on our own, each as positive, negative, undecided."""


@dataclass(frozen=True)
class Claim:
    """A statement and its measurement; made with `assess` or `assess_equal`."""

    id: str
    statement: str
    reference: str
    expected: str
    measured: float
    uncertainty: float
    verdict: Verdict

    def as_json(self) -> dict[str, Any]:
        """The claim as plain data; numbers that are not finite become None."""
        record = asdict(self)
        for key in ("measured", "uncertainty"):
            record[key] = record[key] if math.isfinite(record[key]) else None
        return record


def assess(
    id: str,  # noqa: A002  the contract's word
    statement: str,
    reference: str,
    *,
    measured: float,
    at_least: float = -math.inf,
    at_most: float = math.inf,
    uncertainty: float = 0.0,
    ours: bool = False,
) -> Claim:
    """Judges a claim that a number lies in [at_least, at_most].

    The verdict is positive if measured ± uncertainty lies inside, negative if it lies outside, and
    undecided if it straddles an end or is NaN.

    Args:
      id: a name without spaces.
      statement: the statement, with the measured quantity in brackets.
      reference: the source of the statement.
      measured: the measured number.
      at_least: lower end of the claimed interval.
      at_most: upper end of the claimed interval.
      uncertainty: half-width of the interval of `measured`, about 95 % unless the statement says
        otherwise.
      ours: whether it is a statement of this project, which then `holds`, `fails` or is `open`.

    >>> assess("x", "x is 1", "Lemma 0", measured=1.1, uncertainty=0.05, at_most=1.0).verdict
    'not reproduced'
    >>> assess("x", "x is 1", "Lemma 0", measured=0.9, at_most=1.0, ours=True).verdict
    'holds'
    """
    low, high = measured - uncertainty, measured + uncertainty
    outcome = _UNDECIDED
    if at_least <= low and high <= at_most:
        outcome = _POSITIVE
    elif high < at_least or low > at_most:
        outcome = _NEGATIVE
    verdict = VERDICTS[ours][outcome]
    expected = _interval(at_least, at_most)
    return Claim(id, statement, reference, expected, measured, uncertainty, verdict)


def assess_equal(
    id: str,  # noqa: A002  the contract's word
    statement: str,
    reference: str,
    *,
    measured: float,
    value: float,
    uncertainty: float,
    resolution: float,
    tolerance: float = 0.0,
    ours: bool = False,
) -> Claim:
    """Judges a claim that a number equals `value`, from a measurement with an error.

    No measurement shows equality. The verdict is negative if measured ± uncertainty is farther than
    `tolerance` from the value. Otherwise it is positive if the uncertainty is at most `resolution`,
    so that a deviation twice as large would have been negative, and undecided if not.

    Args:
      id: as for `assess`.
      statement: as for `assess`.
      reference: as for `assess`.
      measured: the measured number.
      value: the claimed number.
      uncertainty: half-width of the interval of `measured`.
      resolution: the uncertainty at which alternatives to the claim can be distinguished from it.
      tolerance: the error of the claim itself, its next-order term.
      ours: as for `assess`.

    >>> assess_equal("x", "", "", measured=1.1, value=1, uncertainty=0.2, resolution=0.5).verdict
    'reproduced'
    >>> assess_equal("x", "", "", measured=1.1, value=1, uncertainty=2, resolution=0.5).verdict
    'inconclusive'
    """
    outcome = _UNDECIDED
    if abs(measured - value) - uncertainty > tolerance:
        outcome = _NEGATIVE
    elif abs(measured - value) - uncertainty <= tolerance and uncertainty <= resolution:
        outcome = _POSITIVE
    expected = f"{value:g}" + (f" ± {tolerance:g}" if tolerance else "")
    expected += f", told to {resolution:.2g}"
    verdict = VERDICTS[ours][outcome]
    return Claim(id, statement, reference, expected, measured, uncertainty, verdict)


def share_error(values: Shaped[np.ndarray, " N"]) -> float:
    """Half-width of a share's 95 % interval, the longer side of Wilson's: not 0 at 0 or 1.

    Args:
      values: 0 or 1 for each case. The result is NaN if there is none or one is NaN.
    """
    if not len(values) or np.isnan(values.astype(float)).any():
        return math.nan
    interval = scipy.stats.binomtest(round(float(np.sum(values))), len(values)).proportion_ci(
        method="wilson"
    )
    share = float(np.mean(values))
    return float(max(share - interval.low, interval.high - share))


_POSITIVE, _NEGATIVE, _UNDECIDED = range(3)


def _interval(low: float, high: float) -> str:
    if low == high:
        return f"{low:g}"
    if math.isinf(high):
        return f">= {low:g}"
    if math.isinf(low):
        return f"<= {high:g}"
    return f"{low:g} to {high:g}"
