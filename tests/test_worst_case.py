"""The worst-case region: below the drift of every order of the epochs, and close to it."""

import itertools

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adam_transition import adam, sampling
from adam_transition.problems.constructions import counterexample_table
from adam_transition.theory.boundary import divergence_intervals
from adam_transition.theory.divergence import drift_of_places, patterns, worst_case_drift
from adam_transition.theory.stationary_drift import stationary_drift

_GRID = np.arange(100) / 100


def _grid():
    return adam.Hyperparameters(1 - _GRID[:, None], 1 - _GRID)


def _drift_of_places(n, a, beta1, beta2, places):
    return float(drift_of_places(n, a, adam.hyperparameters(beta1, beta2), places))


def test_drift_of_places_is_that_of_a_long_run():
    n, a, beta1, beta2, places = 4, 0.1, 0.6, 0.8, (0, 3, 1)
    m = v = total = 0.0
    for k in range(400 * 12):
        g = 1.3 if k % n == places[k // n % 3] else -a
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        total -= m / v**0.5 if k >= 200 * 12 else 0
    assert _drift_of_places(n, a, beta1, beta2, places) == pytest.approx(total / 600, rel=1e-12)


def test_patterns_are_all_places_up_to_rotation():
    assert list(patterns(3, 2)) == [(0, 0), (0, 1), (0, 2)]
    assert len(set(patterns(5, 3))) == 25


def test_cyclic_order_is_not_the_order_of_least_drift():
    """The conjecture of least drift is false: two hits in a row, then a long wait, beat it."""
    hyper = adam.hyperparameters(0.98, 0.14)
    assert drift_of_places(3, 0.25, hyper, (0, 2)) < drift_of_places(3, 0.25, hyper, (0,)) - 0.1


def test_no_pattern_is_negative_at_the_cyclic_boundary():
    for n, a in ((3, 1.0), (5, 1 / 16), (5, 0.3)):
        for beta1 in (0.0, 0.3, 0.6):
            [intervals] = divergence_intervals(counterexample_table(n, a), [beta1])
            for edge in (end for interval in intervals for end in interval if 0 < end.beta2 < 1):
                hyper = adam.Hyperparameters(1 - beta1, edge.one_minus_beta2)
                least = min(drift_of_places(n, a, hyper, places) for places in patterns(n, 3))
                assert least > -1e-10


def _bound_by_hand(n, a, beta1, beta2):
    r = 1 / a + n - 1
    kappa, s = (r * r - 1) * (1 - beta2), 1 + beta2 / (1 - beta2**n)
    away = sum((1 + kappa * s * beta2**i) ** -0.5 for i in range(n))
    back = sum(beta1**i * (1 + kappa * beta2**i) ** -0.5 for i in range(5000))
    return away - (1 - beta1) * (r + 1) * back


@given(st.integers(3, 40), st.floats(-4, 1), st.floats(0, 0.98), st.floats(0, 0.999))
@settings(max_examples=50)
def test_is_the_formula_of_the_proof(n, log_a, beta1, beta2):
    found = worst_case_drift(n, 10.0**log_a, adam.hyperparameters(beta1, beta2))
    expected = _bound_by_hand(n, 10.0**log_a, beta1, beta2)
    assert float(found) == pytest.approx(expected, rel=1e-8, abs=1e-8)


@given(st.integers(3, 12), st.floats(-3, 0.5), st.floats(0, 0.95), st.floats(0, 0.99), st.data())
@settings(max_examples=60)
def test_is_below_the_drift_of_any_sequence_of_orders(n, log_a, beta1, beta2, data):
    a = 10.0**log_a
    places = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=8))
    bound = float(worst_case_drift(n, a, adam.hyperparameters(beta1, beta2)))
    assert bound <= _drift_of_places(n, a, beta1, beta2, places) + 1e-9


def test_is_below_the_drift_of_all_short_patterns():
    for n, length in ((4, 4), (6, 3)):
        for beta1, beta2 in ((0.0, 0.0), (0.0, 0.4), (0.3, 0.5), (0.6, 0.9)):
            bound = float(worst_case_drift(n, 0.1, adam.hyperparameters(beta1, beta2)))
            least = min(
                _drift_of_places(n, 0.1, beta1, beta2, places)
                for places in itertools.product(range(n), repeat=length)
            )
            assert bound <= least + 1e-12


@pytest.mark.parametrize("a", [None, 1.0])
@pytest.mark.parametrize("n", [5, 20, 100])
def test_region_lies_inside_the_exact_ones_and_is_most_of_the_cyclic_one(n, a):
    table = counterexample_table(n, a)
    region = worst_case_drift(n, -table[1, 0], _grid()) > 0
    cyclic = stationary_drift(table, _grid()).drift[..., 0] > 0
    assert not (region & ~cyclic).any()
    if n >= 20:
        assert region.sum() > 0.85 * cyclic.sum()
    coarse = adam.Hyperparameters(1 - _GRID[::10, None], 1 - _GRID[::10])
    shuffled = stationary_drift(
        table, coarse, "random_shuffling", key=sampling.stream_key(0), num_samples=100_000
    )
    inside = region[::10, ::10]
    assert (shuffled.drift[..., 0] + 4 * shuffled.stderr[..., 0])[inside].min(initial=1) > 0


def test_drift_itself_is_bounded_on_the_whole_grid():
    for n in (5, 20):
        table = counterexample_table(n)
        exact = stationary_drift(table, _grid()).drift[..., 0]
        assert (worst_case_drift(n, -table[1, 0], _grid()) <= exact + 1e-9).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((2, 1.0, adam.hyperparameters(0, 0)), "n=2"),
        ((3, 0.0, adam.hyperparameters(0, 0)), "a=0.0"),
        ((3, 1.0, adam.Hyperparameters(0.0, 0.5)), "one_minus_beta1"),
        ((3, 1.0, adam.Hyperparameters(0.5, np.nan)), "one_minus_beta2"),
        ((3, 1.0, adam.Hyperparameters(0.5, 0.5, -1.0)), "epsilon"),
        ((3, 1.0, adam.Hyperparameters(0.5, 0.5, 0.0, np.inf)), "epsilon_root"),
        ((3, 1e-200, adam.hyperparameters(0.5, 0.5)), "does not fit in float64"),
    ],
)
def test_errors_name_the_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        worst_case_drift(*arguments)


def _in_many_digits(n, a, p, q, epsilon, epsilon_root):
    """W of the proof, and the sum of its two parts."""
    with mpmath.workdps(40):
        p, q, a, e, root = map(mpmath.mpf, (p, q, a, epsilon, epsilon_root))
        r, beta1, beta2 = 1 / a + n - 1, 1 - p, 1 - q
        kappa, s = (r * r - 1) * q, 1 + beta2 / (1 - beta2**n)

        def d(y):
            return 1 / (mpmath.sqrt(1 + root / a**2 + y) + e / a)

        away = sum(d(kappa * s * beta2**i) for i in range(n))
        back, weight, fallen = mpmath.mpf(0), p * (r + 1), mpmath.mpf(1)
        while weight > 1e-25:
            back += weight * d(kappa * fallen)
            weight, fallen = weight * beta1, fallen * beta2
        return away - back, float(away + back)


def test_is_below_the_true_bound_whatever_rounding_did():
    """And by no more than some 1e-12 of what is summed."""
    rng = np.random.default_rng(0)
    for i in range(50):
        n = int(rng.choice([3, 5, 20, 100])) if i else 3000
        a, p, q = (
            10.0 ** rng.uniform(-7, 1),
            rng.choice([1.0, 0.5, 0.1]),
            10.0 ** -rng.uniform(0, 6),
        )
        epsilon = a * 10 ** rng.uniform(-3, 1) * (i % 3 == 0)
        epsilon_root = a * a * 10 ** rng.uniform(-3, 1) * (i % 4 == 0)
        hyper = adam.Hyperparameters(p, q, epsilon, epsilon_root)
        true, size = _in_many_digits(n, a, *hyper)
        below = true - mpmath.mpf(float(worst_case_drift(n, a, hyper)))
        assert 0 < below < 3e-12 + 1e-14 * (n + 300) * size


@given(st.integers(3, 8), st.floats(-3, 0.5), st.floats(0, 0.9), st.floats(0, 0.99), st.data())
@settings(max_examples=30)
def test_with_epsilon_it_is_below_the_drift_of_any_sequence_of_orders(n, log_a, b1, b2, data):
    a = 10.0**log_a
    places = data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=6))
    epsilon = a * data.draw(st.floats(0.01, 30))
    hyper = adam.hyperparameters(b1, b2, epsilon=epsilon, epsilon_root=epsilon**2)
    drift = a * float(drift_of_places(n, a, hyper, places))
    assert a * float(worst_case_drift(n, a, hyper)) <= drift + 1e-12
