"""The theorems and the lemma as functions, against values worked out by hand."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adam_transition.theory import concentration, convergence


def test_hypotheses_say_which_fails():
    beta1, q = np.array([0.9, 0.9, 0.0]), np.array([0.01, 0.2, 0.5])
    found = convergence.hypotheses(10, beta1, q, drift=np.array([-1.0, -1.0, 1.0]))
    assert found.bounded_steps.tolist() == [True, False, True]
    assert found.attracts.tolist() == [True, True, False]
    assert found.hold.tolist() == [True, False, False]
    np.testing.assert_allclose(1 - found.needed_constant * (1 - beta1**10) / 10**5, 1 - q)
    assert not convergence.hypotheses(10, beta1, q, schedule="constant").hold.any()


def test_a_drift_says_nothing_within_its_error_or_where_it_is_not_known():
    drift, stderr = np.array([-1.0, -1.0, np.nan]), np.array([0.2, 0.3, 0.0])
    found = convergence.hypotheses(
        10, np.zeros(3), np.full(3, 0.1), drift=drift, drift_stderr=stderr
    )
    assert found.attracts.tolist() == [True, False, True]


@given(
    st.floats(1e-3, 1e3), st.just(0.0) | st.floats(1e-6, 100), st.floats(3, 1e4), st.integers(1, 6)
)
def test_stationarity_is_the_smaller_of_the_two(norm, d0, d1, d):
    gradient = jnp.full(d, norm / math.sqrt(d))
    slow = norm / (2 * math.sqrt(d * d1))
    expected = min(norm**2 / math.sqrt(d0), slow) if d0 else slow
    assert float(convergence.stationarity(gradient, d0, d1)) == pytest.approx(expected, rel=1e-5)


def test_left_hand_side_is_the_running_minimum_of_means():
    values = np.array([[4.0, 1.0, 3.0, 1.0], [2.0, 3.0, 1.0, 0.0]])
    least, stderr = convergence.left_hand_side(values)
    np.testing.assert_allclose(least, [3, 2, 2, 0.5])
    np.testing.assert_allclose(stderr, [1, 1, 1, 0.5])  # a tie takes the later step
    spoilt = np.array([[4.0, np.nan, 1.0], [2.0, 1.0, 1.0]])
    np.testing.assert_allclose(convergence.left_hand_side(spoilt)[0], [3, 3, 1])


def test_the_allowed_slope_is_that_of_the_rate():
    """Means over (T/2, T] of log k/√k, by adding them up; −1/2 + 1/log T for T large."""
    ends = np.array([1e4, 2e4, 4e4])
    means = [(np.log(k) / np.sqrt(k)).mean() for k in (np.arange(t / 2 + 1, t + 1) for t in ends)]
    expected = np.polyfit(np.log(ends), np.log(means), 1)[0]
    assert convergence.sufficient_slope(ends) == pytest.approx(expected, abs=1e-4)
    assert convergence.sufficient_slope(1e12 * ends) == pytest.approx(
        -0.5 + 1 / np.log(2e16), abs=1e-3
    )


def test_concentration_by_hand():
    band = concentration.concentration(10, 1e-4, 1 / 40)
    inner = (1 / 1600) / (1e-4 * (28 / 30 + 8 / 120))
    assert band.probability == pytest.approx(1 - 10 * math.exp(-inner))
    assert band.lower == pytest.approx(1 - 1e-4 * 40 / (0.5 * 0.9999**10))
    assert band.upper == pytest.approx((1 - 1e-4 * 80 / (0.5 * 0.9999**10)) ** -0.5)


@given(st.integers(1, 200), st.floats(0.01, 1))
def test_the_lemma_speaks_exactly_below_the_largest_informative_value(n, share):
    delta = share / (4 * n)
    largest = concentration.largest_informative(n, delta)
    assert 0 < largest < 1
    assert concentration.concentration(n, largest * (1 - 1e-9), delta).informative
    assert not concentration.concentration(n, largest * (1 + 1e-9), delta).informative


def test_the_band_closes_as_beta2_tends_to_one():
    wide, narrow = (concentration.concentration(5, q, 0.05) for q in (1e-4, 1e-7))
    assert wide.lower < narrow.lower < 1 < narrow.upper < wide.upper
    assert narrow.probability == pytest.approx(1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 0.1, 0.1), "n=0"),
        ((5, 0.0, 0.05), "one_minus_beta2=0.0"),
        ((5, 0.1, 0.06), "delta=0.06"),
    ],
)
def test_errors_name_the_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        concentration.concentration(*arguments)
