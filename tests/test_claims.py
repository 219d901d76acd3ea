"""Verdicts come from intervals and can come out negative."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adam_transition.claims import assess


@pytest.mark.parametrize(
    ("measured", "uncertainty", "verdict"),
    [
        (1.5, 0.1, "reproduced"),
        (1.05, 0.1, "inconclusive"),
        (0.5, 0.1, "not reproduced"),
        (2.5, 0.1, "not reproduced"),
        (math.nan, 0.1, "inconclusive"),
        (1.5, math.inf, "inconclusive"),
        (1.5, math.nan, "inconclusive"),
    ],
)
def test_verdict_of_a_number_expected_between_1_and_2(measured, uncertainty, verdict):
    claim = assess("i", "s", "r", measured=measured, uncertainty=uncertainty, at_least=1, at_most=2)
    assert claim.verdict == verdict
    assert claim.expected == "1 to 2"
    json.dumps(claim.as_json(), allow_nan=False)


@given(st.floats(-5, 5), st.floats(0, 3))
def test_beyond_the_paper_is_said_only_of_what_holds(measured, uncertainty):
    def judge(beyond):
        return assess(
            "i", "s", "r", measured=measured, uncertainty=uncertainty, at_least=0,
            beyond_the_paper=beyond,
        ).verdict  # fmt: skip

    expected = judge(False)
    assert judge(True) == ("beyond the paper" if expected == "reproduced" else expected)
