"""Verdicts come from intervals and can come out negative."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adam_transition.sweeps.claims import VERDICTS, assess, assess_equal


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
def test_our_own_claims_have_verdicts_of_their_own(measured, uncertainty):
    def judge(**whose):
        return assess(
            "i", "s", "r", measured=measured, uncertainty=uncertainty, at_least=0, **whose
        ).verdict

    source, own = VERDICTS
    assert source.index(judge()) == own.index(judge(ours=True))


@pytest.mark.parametrize(
    ("measured", "uncertainty", "verdict"),
    [
        (1.05, 0.1, "holds"),
        (1.25, 0.2, "fails"),  # the interval excludes 1
        (1.25, 0.3, "open"),  # it does not, but could not tell 1 from 1.5
        (1.25, 0.1, "fails"),
        (math.nan, 0.1, "open"),
        (1.0, math.nan, "open"),
        (math.inf, 0.0, "fails"),
    ],
)
def test_verdict_of_a_number_claimed_to_be_1(measured, uncertainty, verdict):
    def judge(ours):
        return assess_equal(
            "i", "s", "r", measured=measured, uncertainty=uncertainty, value=1, resolution=0.25,
            ours=ours,
        )  # fmt: skip

    assert judge(ours=True).verdict == verdict
    assert VERDICTS[0].index(judge(ours=False).verdict) == VERDICTS[1].index(verdict)
    assert judge(ours=True).expected == "1, told to 0.25"
    json.dumps(judge(ours=True).as_json(), allow_nan=False)


def test_a_law_is_allowed_its_next_order_term_and_no_more():
    def judge(measured):
        return assess_equal(
            "i", "s", "r", measured=measured, value=1, uncertainty=0.0, resolution=0.1,
            tolerance=0.01,
        ).verdict  # fmt: skip

    assert [judge(one) for one in (1.009, 1.04)] == ["reproduced", "not reproduced"]
