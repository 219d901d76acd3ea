"""The stationary drift: closed form, estimates with honest errors, and its invariances."""

import os
import subprocess
import sys

import jax
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adam_transition import adam, sampling
from adam_transition.problems.constructions import counterexample_table
from adam_transition.sampling import RANDOM
from adam_transition.theory.chains import draw_histories
from adam_transition.theory.drift_domain import LEAST_ESTIMATED, at_least, reason_against
from adam_transition.theory.stationary_drift import drift_of_groups, stationary_drift

BETAS = st.floats(0, 0.99)
MANY = np.arange(1.0, 11.0)[:, None] - 4.5  # different gradients: too many states for shuffling


def _drift(table, beta1, beta2, scheme="cyclic", *, epsilon=0.0, epsilon_root=0.0, **kwargs):
    hyper = adam.hyperparameters(beta1, beta2, epsilon=epsilon, epsilon_root=epsilon_root)
    return stationary_drift(table, hyper, scheme, **kwargs)


def _estimate(table, beta1, beta2, scheme, seed, num_samples=1_000_000):
    hyper, memory = adam.hyperparameters(beta1, beta2), 1 / (1 - max(beta1, beta2))
    histories = draw_histories(
        table, scheme, sampling.stream_key(seed), memory=memory, num_samples=num_samples
    )
    return stationary_drift(table, hyper, scheme, histories=histories)


def _table(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)) + 0.3


def _exact_drift(table, beta1, q, digits=40):
    """Cyclic drift in multiple precision, by summing the periodic orbit as geometric series."""
    with mpmath.workdps(digits):
        p, q = 1 - mpmath.mpf(beta1), mpmath.mpf(q)
        gradients = [mpmath.mpf(float(g)) for g in table]
        n, total = len(gradients), mpmath.mpf(0)
        for k in range(n):
            m = sum(p * (1 - p) ** j * gradients[(k - j) % n] for j in range(n))
            v = sum(q * (1 - q) ** j * gradients[(k - j) % n] ** 2 for j in range(n))
            total -= (m / (1 - (1 - p) ** n)) / mpmath.sqrt(v / (1 - (1 - q) ** n))
        return float(total)


def _enumerated_drift(n, a, beta1, beta2, num_epochs):
    """Random shuffling of c, −a, …, −a: the mean over all places of c in the last epochs."""
    c = 1 + (n - 1) * a
    m, v = np.full(1, 1 / n), np.full(1, (c * c + (n - 1) * a * a) / n)
    for _ in range(num_epochs):
        moments, totals = [], []
        for place in range(n):
            mm, vv, total = m.copy(), v.copy(), 0.0
            for k in range(n):
                g = c if k == place else -a
                mm, vv = beta1 * mm + (1 - beta1) * g, beta2 * vv + (1 - beta2) * g * g
                total = total + mm / np.sqrt(vv)
            moments.append((mm, vv))
            totals.append(total)
        m, v = (np.concatenate(part) for part in zip(*moments))
    return -np.mean(np.concatenate(totals))


@pytest.mark.parametrize("beta1", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("q", [1.0, 0.5, 1e-3, 1e-9])
def test_cyclic_drift_to_many_digits(beta1, q):
    for table in (counterexample_table(12), _table(7, 1)):
        hyper = adam.Hyperparameters(1 - beta1, q)
        found = float(stationary_drift(table, hyper).drift[0])
        # 1 − β1 is rounded to double precision before it is passed
        expected = _exact_drift(table[:, 0], beta1, q)
        assert found == pytest.approx(expected, rel=1e-10, abs=1e-12)


@given(BETAS, BETAS, st.integers(1, 9), st.integers(1, 3))
@settings(max_examples=25)
def test_cyclic_drift_is_the_long_run_average_of_a_simulation(beta1, beta2, n, d):
    table = _table(n, d)
    m, v, total = np.zeros(d), np.zeros(d), np.zeros(d)
    burn_in = n * int(np.ceil(4000 / n))
    for k in range(burn_in + n):
        m = beta1 * m + (1 - beta1) * table[k % n]
        v = beta2 * v + (1 - beta2) * table[k % n] ** 2
        if k >= burn_in:
            total -= m / np.sqrt(v)
    np.testing.assert_allclose(_drift(table, beta1, beta2).drift, total, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(("beta1", "beta2"), [(0.0, 0.5), (0.0, 0.7), (0.5, 0.6), (0.3, 0.05)])
def test_random_shuffling_is_the_mean_over_all_orders(beta1, beta2):
    table = counterexample_table(10)
    expected = _enumerated_drift(10, 1 / 81, beta1, beta2, 5)
    estimate = _estimate(table, beta1, beta2, "random_shuffling", 0)
    assert abs(estimate.drift[0] - expected) < 4 * estimate.stderr[0]
    assert 0 < estimate.stderr[0] < 0.02
    exact = _drift(table, beta1, beta2, "random_shuffling").drift[0]
    assert exact == pytest.approx(expected, abs=2 * max(beta1, beta2) ** 50 + 1e-9)


@pytest.mark.parametrize("scheme", RANDOM)
@pytest.mark.parametrize(("beta1", "beta2"), [(0.0, 0.9), (0.7, 0.6), (0.9, 0.99)])
def test_random_schemes_agree_with_a_plain_simulation(scheme, beta1, beta2):
    """Both the exact drift and its estimate."""
    table = _table(6, 2)
    rng = np.random.default_rng(0)
    chains, burn_in, steps = 2000, 600, 600
    m, v = np.tile(table.mean(0), (chains, 1)), np.tile((table**2).mean(0), (chains, 1))
    total = np.zeros((chains, 2))
    for k in range(burn_in + steps):
        if scheme == "with_replacement":
            index = rng.integers(6, size=chains)
        else:
            if k % 6 == 0:
                order = np.argsort(rng.random((chains, 6)), axis=1)
            index = order[:, k % 6]
        m = beta1 * m + (1 - beta1) * table[index]
        v = beta2 * v + (1 - beta2) * table[index] ** 2
        if k >= burn_in:
            total -= 6 * m / np.sqrt(v) / steps
    stderr = total.std(0, ddof=1) / np.sqrt(chains)
    exact = _drift(table, beta1, beta2, scheme)
    for found in (exact, _estimate(table, beta1, beta2, scheme, 1)):
        z = (found.drift - total.mean(0)) / np.hypot(found.stderr, stderr)
        assert np.abs(z).max() < 4


@pytest.mark.parametrize("scheme", RANDOM)
def test_the_standard_error_covers(scheme):
    """±1.96 standard errors hold the exact drift about 95 times in 100, of 120 seeds."""
    for beta2 in (0.5, 0.8):
        found = [
            _estimate(counterexample_table(8), 0.0, beta2, scheme, seed, num_samples=30_000)
            for seed in range(120)
        ]
        drift, stderr = (np.array([one[k][0] for one in found]) for k in (0, 1))
        exact = _drift(counterexample_table(8), 0.0, beta2, scheme).drift[0]
        # three standard errors of a share of 0.95 in 120
        assert (np.abs(drift - exact) < 1.96 * stderr).mean() > 0.95 - 3 * 0.02
        np.testing.assert_allclose(drift.std(ddof=1), np.sqrt((stderr**2).mean()), rtol=0.25)


@pytest.mark.parametrize("scheme", ["cyclic", *RANDOM])
def test_invariances(scheme):
    """Scale, sign, order of the coordinates; and cyclic order does not see where it starts."""
    table, key = _table(5, 3), sampling.stream_key(2)
    kwargs = {}
    if scheme in RANDOM:  # exact drifts have a test of their own
        kwargs["histories"] = draw_histories(table, scheme, key, memory=5.0, num_samples=2000)
    drift = _drift(table, 0.5, 0.8, scheme, **kwargs).drift
    scaled = table * [1e-6, 1.0, 1e6]
    np.testing.assert_allclose(_drift(scaled, 0.5, 0.8, scheme, **kwargs).drift, drift, rtol=1e-9)
    np.testing.assert_allclose(_drift(-table, 0.5, 0.8, scheme, **kwargs).drift, -drift, rtol=1e-12)
    turned = _drift(table[:, ::-1], 0.5, 0.8, scheme, **kwargs).drift
    np.testing.assert_allclose(turned, drift[::-1], rtol=1e-12)
    if scheme == "cyclic":
        rolled = _drift(np.roll(table, 2, axis=0), 0.5, 0.8).drift
        np.testing.assert_allclose(rolled, drift, rtol=1e-12)


@pytest.mark.parametrize("scheme", RANDOM)
def test_common_histories_make_the_drift_smooth(scheme):
    q, table = np.linspace(0.2, 0.6, 81), counterexample_table(10)
    histories = draw_histories(
        table, scheme, sampling.stream_key(0), memory=5.0, num_samples=20_000
    )
    found = stationary_drift(table, adam.Hyperparameters(1.0, q), scheme, histories=histories)
    # fourth differences of a smooth function vanish; those of independent errors are 8 of them
    roughness = np.abs(np.diff(found.drift[:, 0], 4)).max()
    assert roughness < 0.05 * found.stderr.mean()


def test_histories_may_be_shared():
    table, key = MANY, sampling.stream_key(3)
    hyper = adam.Hyperparameters(0.5, np.array([0.5, 0.1]))
    shared = draw_histories(table, "random_shuffling", key, memory=10.0, num_samples=20_000)
    again = stationary_drift(table, hyper, "random_shuffling", histories=shared)
    once = stationary_drift(table, hyper, "random_shuffling", key=key, num_samples=20_000)
    np.testing.assert_array_equal(again.drift, once.drift)


def test_cells_do_not_meet_and_any_number_of_them_fits():
    rng = np.random.default_rng(0)
    p, q = rng.uniform(0.01, 1, (2, 70_000))
    together = stationary_drift(counterexample_table(3), adam.Hyperparameters(p, q)).drift
    for i in (0, 1234, 65_535, 65_536, 69_999):
        alone = stationary_drift(counterexample_table(3), adam.Hyperparameters(p[i], q[i])).drift
        np.testing.assert_allclose(together[i], alone, rtol=1e-12)


def _one_by_one(table, grid):
    """The same cells as a list, which is not computed as a product."""
    arrays = np.broadcast_arrays(*(np.asarray(value, np.float64) for value in grid))
    found = stationary_drift(table, adam.Hyperparameters(*(one.ravel() for one in arrays))).drift
    return found.reshape(*arrays[0].shape, -1)


@given(
    table=st.lists(st.floats(-10, 10).filter(lambda g: abs(g) > 1e-3), min_size=1, max_size=9),
    epsilon=st.sampled_from([0.0, 1e-3, 1.0]),
    epsilon_root=st.sampled_from([0.0, 0.1]),
    seed=st.integers(0, 9),
)
@settings(max_examples=30, deadline=None)
def test_a_grid_as_a_product_has_the_drift_of_its_cells(table, epsilon, epsilon_root, seed):
    rng = np.random.default_rng(seed)
    gradients = np.stack([table, np.roll(table, 1) * 1e6, np.zeros(len(table))], axis=1)
    p = np.concatenate([[1.0, 0.5, 1e-9], rng.uniform(1e-4, 1, 61)])
    q = np.concatenate([[1.0, 0.5, 1e-13], 10 ** rng.uniform(-12, 0, 63)])
    grid = adam.Hyperparameters(p[:, None], q, epsilon, epsilon_root)
    product = stationary_drift(gradients, grid)
    assert (product.stderr == 0).all()
    unit = np.abs(stationary_drift(np.abs(gradients), grid).drift)  # at least n E|m|/√v
    cells = _one_by_one(gradients, grid)
    assert (np.abs(product.drift - cells) <= 1e-13 * unit).all()
    turned = grid._replace(one_minus_beta1=p, one_minus_beta2=q[:, None])
    np.testing.assert_array_equal(
        stationary_drift(gradients, turned).drift, product.drift.transpose(1, 0, 2)
    )


def test_a_grid_of_several_axes_and_one_that_is_none():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(7, 2))
    p, q = rng.uniform(0.01, 1, (8, 1, 20, 1)), rng.uniform(0.01, 1, (5, 1, 16))
    grid = adam.Hyperparameters(p, q)
    found = stationary_drift(table, grid).drift
    assert found.shape == (8, 5, 20, 16, 2)
    np.testing.assert_allclose(found, _one_by_one(table, grid), rtol=1e-11, atol=1e-13)
    # a zero gradient, and a cell that is refused, are looked at one by one
    table[3, 1] = 0
    grid = adam.Hyperparameters(p[:, 0], np.array([1.0, 0.5, 0.1]))
    found = stationary_drift(table, grid).drift
    np.testing.assert_array_equal(found, _one_by_one(table, grid))
    assert np.isnan(found[..., 0, 1]).all()
    with pytest.raises(ValueError, match="one_minus_beta2=2"):
        stationary_drift(table, adam.Hyperparameters(np.ones((99, 1)), np.full(99, 2.0)))


def test_shuffle_once_is_one_fixed_order():
    table, key = _table(6, 1), sampling.stream_key(4)
    order = np.asarray(sampling.indices("shuffle_once", key, 0, 6, 6, max_components=6))
    found = _drift(table, 0.3, 0.6, "shuffle_once", key=key).drift
    np.testing.assert_allclose(found, _drift(table[order], 0.3, 0.6).drift, rtol=1e-13)
    # all but one component of the counterexample are alike, so there every order is cyclic
    table = counterexample_table(6)
    found = _drift(table, 0.3, 0.6, "shuffle_once", key=key).drift
    np.testing.assert_allclose(found, _drift(table, 0.3, 0.6).drift, rtol=1e-12)


def test_float64_whatever_the_caller_uses():
    with jax.enable_x64(False):
        single = _drift(counterexample_table(20), 0.3, 0.999).drift
    with jax.enable_x64(True):
        np.testing.assert_array_equal(_drift(counterexample_table(20), 0.3, 0.999).drift, single)
    assert single.dtype == np.float64


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: _drift(np.ones((3, 1)), 0, 0, "Random"), "sampling='Random' is not one of cyclic"),
        (lambda: counterexample_table(2), "n=2: the counterexample needs n ≥ 3"),
        (lambda: counterexample_table(5, 0.0), "a=0.0: the counterexample needs"),
        (lambda: _drift(np.ones(3), 0, 0), r"gradients of shape \(3,\)"),
        (lambda: _drift(np.full((3, 1), np.nan), 0, 0), "need a finite table"),
        (lambda: _drift(MANY, 0, 0, RANDOM[0]), "needs a key"),
        (lambda: _drift(np.ones((3, 1)), 0, 0, "shuffle_once"), "needs a key"),
        (
            lambda: stationary_drift(np.ones((3, 1)), adam.Hyperparameters(1.0, 0.0)),
            "one_minus_beta2=0: values must lie in .0, 1]",
        ),
        (
            lambda: stationary_drift(
                MANY, adam.Hyperparameters(LEAST_ESTIMATED / 2, 1.0), RANDOM[0],
                key=sampling.stream_key(0),
            ),
            "one_minus_beta1=5e-05: values must lie in .0.0001, 1]",
        ),
        (
            lambda: stationary_drift(
                np.ones((4, 1)), adam.Hyperparameters(1.0, 0.5), RANDOM[1],
                histories=draw_histories(
                    np.ones((3, 1)), RANDOM[1], sampling.stream_key(0), memory=2.0, num_samples=100
                ),
            ),
            "histories of n=3 for a table of n=4",
        ),
        (
            lambda: stationary_drift(
                np.ones((3, 1)), adam.Hyperparameters(1.0, 0.01), RANDOM[1],
                histories=draw_histories(
                    np.ones((3, 1)), RANDOM[1], sampling.stream_key(0), memory=2.0, num_samples=100
                ),
            ),
            "histories burn in for",
        ),
    ],
)  # fmt: skip
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def _long_run(column, beta1, beta2, epsilon, epsilon_root, num_epochs=400):
    m = v = total = 0.0
    for k in range(num_epochs * len(column)):
        g = column[k % len(column)]
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        total -= (
            m / (np.sqrt(v + epsilon_root) + epsilon) if k >= (num_epochs - 1) * len(column) else 0
        )
    return total


@pytest.mark.parametrize(
    ("beta1", "beta2", "epsilon", "epsilon_root"),
    [(0.0, 0.5, 0.1, 0), (0.9, 0.5, 0.3, 0.2), (0.5, 0.9, 1e-3, 0), (0.3, 0.95, 0, 0.7)],
)
def test_epsilon_counts_in_cyclic_order(beta1, beta2, epsilon, epsilon_root):
    for column in ([3.0, -1, 0.5, -0.2], [0, 3.0, 0, -1, 0]):
        found = _drift(
            np.array(column)[:, None], beta1, beta2, epsilon=epsilon, epsilon_root=epsilon_root
        )
        expected = _long_run(column, beta1, beta2, epsilon, epsilon_root)
        assert found.drift[0] == pytest.approx(expected, rel=1e-7)


def test_the_given_epsilon_is_not_dropped():
    """The counterexample at n = 20, (0, 0.5): its small gradients are 0.0028."""
    table = counterexample_table(20)
    assert _drift(table, 0.0, 0.5).drift[0] > 0
    assert _drift(table, 0.0, 0.5, epsilon=0.1).drift[0] < 0
    for scheme in RANDOM:
        assert _drift(table, 0.0, 0.5, scheme).drift[0] > 0
        assert _drift(table, 0.0, 0.5, scheme, epsilon=0.1).drift[0] < 0


@pytest.mark.parametrize("scheme", ["cyclic", *RANDOM])
def test_scale_matters_with_epsilon_alone(scheme):
    """D(sG, sε) = D(G, ε); a large ε leaves −n·mean/ε."""
    table = np.array([[3.0], [-1.0], [0.0], [0.5]])
    once = _drift(table, 0.4, 0.7, scheme, epsilon=0.2).drift
    again = _drift(table * 1e200, 0.4, 0.7, scheme, epsilon=0.2e200).drift
    np.testing.assert_allclose(again, once, rtol=1e-12)
    flat = _drift(table, 0.4, 0.7, scheme, epsilon=1e9).drift[0]
    assert flat == pytest.approx(-2.5e-9, rel=1e-8)


@pytest.mark.parametrize("scheme", ["cyclic", *RANDOM])
@pytest.mark.parametrize("scale", [1e155, 1e-160, 1e300, 1e-300])
def test_no_scale_is_too_large_or_too_small(scheme, scale):
    table = np.array([[3.0], [-1.0], [-1.0]])
    found = _drift(scale * table, 0.3, 0.7, scheme).drift
    np.testing.assert_allclose(found, _drift(table, 0.3, 0.7, scheme).drift, rtol=1e-11)


def test_runs_of_zeros_are_followed_past_the_smallest_number():
    """One gradient in 30: v falls by 1e-12 a step, to 1e-348, and m/√v grows to its true size."""
    beta1, beta2 = 0.9, mpmath.mpf(1) - mpmath.mpf(1 - 1e-12)
    table = np.zeros((30, 1))
    table[0] = 1
    with mpmath.workdps(40):
        first = (1 - mpmath.mpf(beta1)) / (1 - mpmath.mpf(beta1) ** 30)
        first /= mpmath.sqrt((1 - beta2) / (1 - beta2**30))
        ratio = mpmath.mpf(beta1) / mpmath.sqrt(beta2)
        expected = float(-first * sum(ratio**j for j in range(30)))
    for turn in (0, 7):
        hyper = adam.Hyperparameters(1 - beta1, 1 - 1e-12)
        found = stationary_drift(np.roll(table, turn, axis=0), hyper)
        assert found.drift[0] == pytest.approx(expected, rel=1e-12)


def test_what_cannot_be_had_is_nan_at_its_own_cell():
    table = np.array([[3.0, 1.0], [-1.0, -2.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    hyper = adam.Hyperparameters(1 - np.array([0.9, 0.0, 0.9]), 1 - np.array([0.25, 0.25, 0.99]))
    found = stationary_drift(table, hyper, "with_replacement")
    np.testing.assert_array_equal(np.isnan(found.drift[:, 0]), [True, False, False])
    for k in (1, 2):
        alone = stationary_drift(
            table, adam.Hyperparameters(*(np.asarray(one)[k] for one in hyper[:2])),
            "with_replacement",
        )  # fmt: skip
        np.testing.assert_allclose(found.drift[k], alone.drift, rtol=1e-12)
    near = adam.Hyperparameters(1.0, np.array([0.5, 1e-10]))
    drift = stationary_drift(counterexample_table(5), near, "with_replacement").drift[:, 0]
    assert np.isfinite(drift[0])
    assert np.isnan(drift[1])


@pytest.mark.parametrize(
    ("table", "hyper", "scheme", "reason"),
    [
        ([3.0, -1, 0, 0, 0], (0.9, 0.25), "with_replacement", r"mean of m/√v is infinite .* 1.08"),
        ([3.0, -1, 0, 0], (0.5, 0.0), "with_replacement", "v = 0 there but m ≠ 0"),
        ([3.0, -1, 0, 0], (0.5, 0.0), "random_shuffling", "half of the gradients .* are 0"),
        ([3.0, -1, 0, 0], (0.5, 0.0), "cyclic", "beta2=0: half of the gradients of coordinate 0"),
        ([1.0, 1e-160], (0.5, 0.5), "cyclic", "coordinate 0: their sizes differ by more than"),
        ([1.0, -2], (0.0, 1 - 1e-10), "with_replacement", "values must lie in .1e-09, 1]"),
        (np.arange(10_000.0) + 1, (0.0, 0.9), "random_shuffling", "n=10000: .* 13.4 GiB"),
        ([1.0] + [-1e-3] * 999_999, (0.0, 0.9999), "random_shuffling", "2e.12 operations"),
    ],
)
def test_a_drift_that_cannot_be_had_is_refused_with_the_reason(table, hyper, scheme, reason):
    table = np.reshape(np.asarray(table, float), (-1, 1))
    hyper = adam.hyperparameters(*hyper)
    with pytest.raises(ValueError, match=reason):
        stationary_drift(table, hyper, scheme, key=sampling.stream_key(0))
    with pytest.raises(ValueError, match=reason):
        raise ValueError(reason_against(table, hyper, scheme))


def test_an_estimate_that_rare_runs_of_zeros_carry_is_refused():
    """The variance is infinite where p0 β1² ≥ β2; the mean is not, and is had exactly."""
    table = np.array([[3.0], [-1.0], [0.0], [0.0], [0.0]])
    hyper = adam.hyperparameters(0.9, 0.45)
    assert np.isfinite(stationary_drift(table, hyper, "with_replacement").drift).all()
    histories = draw_histories(
        table, "with_replacement", sampling.stream_key(0), memory=10.0, num_samples=1000
    )
    with pytest.raises(ValueError, match="an estimate has no standard error"):
        stationary_drift(table, hyper, "with_replacement", histories=histories)
    with pytest.raises(ValueError, match="an estimate has no standard error"):
        drift_of_groups(table, hyper, histories)


def test_limits_hold_for_the_decimal_that_was_typed():
    assert at_least(1 - 0.9999, 1e-4)
    assert at_least(1 - 0.99999, 1e-5)
    assert not at_least(1 - 0.999991, 1e-5)
    assert not at_least(0.0, np.finfo(np.float64).tiny)
    key = sampling.stream_key(0)
    assert reason_against(MANY, adam.hyperparameters(0.0, 0.9999), "random_shuffling") is None
    draw_histories(MANY, "random_shuffling", key, memory=1 / (1 - 0.9999), num_samples=1)
    assert reason_against(np.ones((3, 1)), adam.hyperparameters(0.0, 0.99999), RANDOM[1]) is None


@pytest.mark.parametrize("name", adam.Hyperparameters._fields)
@pytest.mark.parametrize("value", [np.nan, -1.0, np.inf, [0.5, np.nan]])
def test_hyperparameters_that_mean_nothing_are_refused(name, value):
    hyper = adam.hyperparameters(0.0, 0.5)._replace(**{name: value})
    for scheme in ("cyclic", *RANDOM):
        with pytest.raises(ValueError, match=f"{name}=.*: values must"):
            stationary_drift(counterexample_table(3), hyper, scheme)


def test_samples_and_histories_that_mean_nothing_are_refused():
    key = sampling.stream_key(0)
    with pytest.raises(ValueError, match="num_samples=0"):
        _drift(MANY, 0.0, 0.5, "random_shuffling", key=key, num_samples=0)
    with pytest.raises(ValueError, match="memory=nan"):
        draw_histories(MANY, "random_shuffling", key, memory=np.nan, num_samples=10)
    with pytest.raises(ValueError, match="sampling='cyclic'"):
        draw_histories(MANY, "cyclic", key, memory=2.0, num_samples=10)
    histories = draw_histories(MANY, "random_shuffling", key, memory=2.0, num_samples=10)
    with pytest.raises(ValueError, match="histories of random_shuffling"):
        _drift(MANY, 0.0, 0.1, "with_replacement", histories=histories)


def test_estimates_count_epsilon():
    """Ten gradients two of which are alike to 1e-9, and those that are alike: nearly one drift."""
    alike = np.array([5.0] + [-1.0] * 9)[:, None]
    apart = alike + 1e-9 * np.arange(10)[:, None]
    for epsilon in (0.0, 0.5):
        exact = _drift(alike, 0.3, 0.7, "random_shuffling", epsilon=epsilon).drift
        found = _drift(
            apart, 0.3, 0.7, "random_shuffling", epsilon=epsilon, key=sampling.stream_key(0),
            num_samples=100_000,
        )  # fmt: skip
        assert 0 < found.stderr[0] < 0.05
        assert abs(found.drift[0] - exact[0]) < 4 * found.stderr[0]


_BITS = """
import hashlib, numpy as np
from adam_transition import adam
from adam_transition.problems import counterexample_table
from adam_transition.theory.stationary_drift import stationary_drift
beta = (np.arange(16) + 0.5) / 16
hyper = adam.Hyperparameters(1 - beta[:, None], 1 - beta, 0.01)
for table in (counterexample_table(20), np.random.default_rng(0).normal(size=(9, 2))):
    for scheme in ("cyclic", "with_replacement", "random_shuffling"):
        if len(table) > 9 or scheme != "random_shuffling":
            drift = stationary_drift(table, hyper, scheme).drift
            print(hashlib.sha256(drift.tobytes()).hexdigest())
"""


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core")
def test_one_core_gives_the_same_bits_as_several():
    cores = os.sched_getaffinity(0)
    found = [
        subprocess.run(
            [sys.executable, "-c", f"import os; os.sched_setaffinity(0, {some}){_BITS}"],
            capture_output=True, text=True, check=True,
        ).stdout
        for some in (cores, {min(cores)})
    ]  # fmt: skip
    assert found[0].count("\n") == 5
    assert found[0] == found[1]
