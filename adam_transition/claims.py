"""A claim: a statement with its reference, the number expected, the number measured, a verdict.

Verdicts are computed from the interval measured ± uncertainty, never typed.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

Verdict = Literal["reproduced", "not reproduced", "inconclusive", "beyond the paper"]


@dataclass(frozen=True)
class Claim:
    """A statement beside what was measured; made by `assess`."""

    id: str
    statement: str
    reference: str
    expected: str
    measured: float
    uncertainty: float
    verdict: Verdict

    def as_json(self) -> dict[str, Any]:
        """The claim as plain data; numbers that JSON lacks become None."""
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
    beyond_the_paper: bool = False,
) -> Claim:
    """Judges a claim that a number lies in [at_least, at_most].

    The verdict is `reproduced` if measured ± uncertainty lies inside, `not reproduced` if it lies
    outside, `inconclusive` if it straddles an end or is not a number. A statement that the paper
    does not make is `beyond the paper` if it holds, and judged like the others if it does not.

    >>> assess("x", "x is 1", "Lemma 0", measured=1.1, uncertainty=0.05, at_most=1.0).verdict
    'not reproduced'
    """
    low, high = measured - uncertainty, measured + uncertainty
    verdict: Verdict = "inconclusive"
    if at_least <= low and high <= at_most:
        verdict = "beyond the paper" if beyond_the_paper else "reproduced"
    elif high < at_least or low > at_most:
        verdict = "not reproduced"
    return Claim(
        id, statement, reference, _interval(at_least, at_most), measured, uncertainty, verdict
    )


def _interval(low: float, high: float) -> str:
    if low == high:
        return f"{low:g}"
    if math.isinf(high):
        return f">= {low:g}"
    if math.isinf(low):
        return f"<= {high:g}"
    return f"{low:g} to {high:g}"
