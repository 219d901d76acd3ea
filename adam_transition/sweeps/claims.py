"""A claim: a statement with its reference, the number expected, the number measured, a verdict.

Verdicts are computed from the interval measured ± uncertainty, never typed. There are two families
of them. What the paper, or another source, states is `reproduced`, `not reproduced` or
`inconclusive`; what this project states itself `holds`, `fails` or is `open`. The paper is known
to us from a transcription in our own words, without its appendix and the constants in its O(·):
where a negative verdict could be due to that, the statement says "as transcribed".
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

SourceVerdict = Literal["reproduced", "not reproduced", "inconclusive"]
OurVerdict = Literal["holds", "fails", "open"]
Verdict = SourceVerdict | OurVerdict

VERDICTS: tuple[tuple[SourceVerdict, ...], tuple[OurVerdict, ...]] = (
    get_args(SourceVerdict),
    get_args(OurVerdict),
)
"""Of a source's statements and of our own; each: positive, negative, undecided."""


@dataclass(frozen=True)
class Claim:
    """A statement beside what was measured; made by `assess` and `assess_equal`."""

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
    ours: bool = False,
) -> Claim:
    """Judges a claim that a number lies in [at_least, at_most].

    The verdict is positive if measured ± uncertainty lies inside, negative if it lies outside, and
    undecided if it straddles an end or is not a number.

    Args:
      id: a name without spaces.
      statement: what is claimed, and in brackets what was measured.
      reference: whose statement it is.
      measured: the number.
      at_least: the lower end of what is claimed.
      at_most: the upper one.
      uncertainty: half the width of the interval of `measured`, about 95 % unless the statement
        says otherwise.
      ours: whether it is a statement of this project, which then `holds`, `fails` or is `open`.

    >>> assess("x", "x is 1", "Lemma 0", measured=1.1, uncertainty=0.05, at_most=1.0).verdict
    'not reproduced'
    >>> assess("x", "x is 1", "Lemma 0", measured=0.9, at_most=1.0, ours=True).verdict
    'holds'
    """
    low, high = measured - uncertainty, measured + uncertainty
    found = _UNDECIDED
    if at_least <= low and high <= at_most:
        found = _POSITIVE
    elif high < at_least or low > at_most:
        found = _NEGATIVE
    verdict = VERDICTS[ours][found]
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
    """Judges a claim that a number is `value`, from a measurement with an error.

    No measurement shows equality. The verdict is negative if measured ± uncertainty is farther than
    `tolerance` from the value; positive if it is not and the uncertainty is at most `resolution`,
    so that a number that is twice as far off would have been called negative; undecided otherwise.

    Args:
      id: as for `assess`, like the other arguments.
      statement: what is claimed.
      reference: whose statement it is.
      measured: the number.
      value: what it is claimed to be.
      uncertainty: half the width of the interval of `measured`.
      resolution: the uncertainty at which the alternatives to the claim can be told from it.
      tolerance: by how much the claim itself is only approximate: its next-order term.
      ours: as for `assess`.

    >>> assess_equal("x", "", "", measured=1.1, value=1, uncertainty=0.2, resolution=0.5).verdict
    'reproduced'
    >>> assess_equal("x", "", "", measured=1.1, value=1, uncertainty=2, resolution=0.5).verdict
    'inconclusive'
    """
    found = _UNDECIDED
    if abs(measured - value) - uncertainty > tolerance:
        found = _NEGATIVE
    elif abs(measured - value) - uncertainty <= tolerance and uncertainty <= resolution:
        found = _POSITIVE
    expected = f"{value:g}" + (f" ± {tolerance:g}" if tolerance else "")
    expected += f", told to {resolution:.2g}"
    return Claim(id, statement, reference, expected, measured, uncertainty, VERDICTS[ours][found])


_POSITIVE, _NEGATIVE, _UNDECIDED = range(3)


def _interval(low: float, high: float) -> str:
    if low == high:
        return f"{low:g}"
    if math.isinf(high):
        return f">= {low:g}"
    if math.isinf(low):
        return f"<= {high:g}"
    return f"{low:g} to {high:g}"
