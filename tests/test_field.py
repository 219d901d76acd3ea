"""The exact steps of Adam on frozen gradients: other exact values, long runs, and derivatives."""

import jax
import numpy as np
import pytest

from adam_transition import adam
from adam_transition.advise import field
from adam_transition.theory import random_sampling

Q = np.array([0.5, 0.1, 1e-2, 1e-3])


@pytest.mark.parametrize("p", [1.0, 0.5, 0.1])
@pytest.mark.parametrize("shape", ["exponential", "two_values", "heavy"])
def test_the_mean_step_is_the_stationary_drift(p, shape):
    rng = np.random.default_rng(0)
    column = {
        "exponential": rng.exponential(size=12) - 0.8,
        "two_values": np.array([19.0] + [-1.0] * 19),
        "heavy": rng.standard_t(3, size=60) + 0.1,
    }[shape]
    with jax.enable_x64(True):
        drift = random_sampling.random_drift(
            column[:, None], adam.Hyperparameters(np.full(len(Q), p), Q), "with_replacement"
        )
    found = field.steps(column, p, Q, 0.0)
    np.testing.assert_allclose(found.mean.value, -drift[:, 0] / len(column), atol=2e-7)


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e150])
def test_every_size_of_epsilon_is_that_of_the_stationary_drift(scale):
    """Gradients are tiny beside ε where they vanish, with the default ε of every optimiser."""
    rng = np.random.default_rng(0)
    column = np.where(rng.random(40) < 0.5, 0.0, rng.normal(0.5, 1, 40))
    q = np.array([0.3, 1e-2])
    for epsilon in (1e-12, 1e-4, 1.0, 1e4, 1e8, 1e12):
        with jax.enable_x64(True):
            hyper = adam.Hyperparameters(np.full(2, 0.1), q, epsilon)
            drift = random_sampling.random_drift(column[:, None], hyper, "with_replacement")
        mean, square = field.steps(scale * column, 0.1, q, scale * epsilon)
        np.testing.assert_allclose(mean.value, -drift[:, 0] / 40, rtol=2e-6)
        if epsilon > 1e6:  # the denominator is ε, and the step linear
            of_rows = (column - column.mean()) / epsilon
            np.testing.assert_allclose(
                mean.influence, np.outer(of_rows, [1, 1]), atol=1e-5 / epsilon
            )
            linear = (column.mean() ** 2 + 0.1 / 1.9 * column.var()) / epsilon**2
            np.testing.assert_allclose(square.value, linear, rtol=1e-5)


def _run(column, p, q, epsilon, num_steps, chains=256, seed=1):
    """Mean and mean square of m/(√v + ε) along chains in NumPy, with standard errors."""
    rng = np.random.default_rng(seed)
    m, v = np.full(chains, column.mean()), np.full(chains, (column**2).mean())
    total, squares = np.zeros((2, chains))
    for k in range(2 * num_steps):
        g = rng.choice(column, chains)
        m, v = (1 - p) * m + p * g, (1 - q) * v + q * g * g
        if k >= num_steps:
            step = m / (np.sqrt(v) + epsilon)
            total, squares = total + step, squares + step**2
    found = []
    for one in (total / num_steps, squares / num_steps):
        found += [one.mean(), one.std(ddof=1) / np.sqrt(chains)]
    return found


@pytest.mark.parametrize(
    ("zeros", "p", "q", "epsilon"),
    [(0.0, 0.1, 0.1, 0.3), (0.9, 0.1, 0.1, 1e-3), (0.5, 0.3, 0.05, 0.0), (0.5, 0.1, 0.3, 1e-2)],
)
def test_mean_and_square_are_those_of_long_runs(zeros, p, q, epsilon):
    rng = np.random.default_rng(3)
    column = np.where(rng.random(100) < zeros, 0.0, rng.normal(0.5, 1, 100))
    found = field.steps(column, p, np.array([q]), epsilon)
    mean, mean_error, square, square_error = _run(column, p, q, epsilon, 4000)
    assert abs(found.mean.value[0] - mean) < 4 * mean_error
    assert abs(found.square.value[0] - square) < 4 * square_error


def test_sign_sgd_in_closed_form():
    column = np.random.default_rng(0).normal(0.3, 1, 50)
    found = field.steps(column, 1.0, np.array([1.0]), 0.25)
    step = column / (np.abs(column) + 0.25)
    assert found.mean.value[0] == pytest.approx(step.mean(), abs=1e-7)
    assert found.square.value[0] == pytest.approx((step**2).mean(), rel=1e-6)


def test_zeros_of_sign_sgd_are_steps_of_zero():
    """β1 = β2 = 0 and no ε: needed_beta2's grid ends there."""
    column = np.array([2.0, -1.0, 0.5, 0.0, 0.0])
    found = field.steps(column, 1.0, np.array([0.5, 1.0]), 0.0)
    assert found.mean.value[1] == pytest.approx(0.2, abs=1e-6)
    assert found.square.value[1] == pytest.approx(0.6, abs=1e-6)


def test_the_limit_of_beta2_to_1():
    column = np.random.default_rng(0).normal(0.3, 1, 50)
    p = 0.1
    found = field.steps(column, p, np.array([1e-6]), 0.1)
    size = np.sqrt((column**2).mean()) + 0.1
    square = column.mean() ** 2 + p / (2 - p) * column.var()
    assert found.mean.value[0] == pytest.approx(column.mean() / size, rel=1e-4)
    assert found.square.value[0] == pytest.approx(square / size**2, rel=1e-4)


@pytest.mark.parametrize("epsilon", [0.0, 1e-8, 0.1])
def test_influences_are_derivatives_by_the_weights(epsilon):
    column = np.random.default_rng(0).exponential(size=30) - 0.8
    if epsilon:
        column[3] = 0
    n, h = len(column), 1e-3
    found = field.steps(column, 0.3, Q, epsilon)
    assert np.abs(found.mean.influence.mean(axis=0)).max() < 1e-11
    for row in (3, 5):
        both = []
        for sign in (1, -1):
            weights = np.full(n, (1 - sign * h) / n)
            weights[row] += sign * h
            both.append(field.steps(column, 0.3, Q, epsilon, weights[None], influences=False))
        for name in ("mean", "square"):
            up, down = (getattr(one, name).value for one in both)
            expected = getattr(found, name).influence[row]
            np.testing.assert_allclose((up - down) / (2 * h), expected, rtol=1e-3, atol=1e-5)


def test_exact_zeros_are_infinite_only_without_epsilon():
    """Between hits m falls like β1 and √v like √β2; a wait of j has probability z^j."""
    column = np.array([1.0] + [0.0] * 49)
    z, beta1 = 0.98, 0.9
    endless = 1 - (z * beta1) ** 2  # β2 = (zβ1)²
    q = np.array([endless * 1.02, endless * 0.98])
    without = field.steps(column, 1 - beta1, q, 0.0).mean.value
    assert np.isinf(without).tolist() == [True, False]
    squares = field.steps(column, 1 - beta1, 1 - z * beta1**2 * np.array([0.98, 1.02]), 0.0)
    assert np.isinf(squares.square.value).tolist() == [True, False]
    values = [field.steps(column, 1 - beta1, q, epsilon).mean.value for epsilon in (1e-4, 1e-8)]
    assert np.isfinite(values).all()
    assert (values[1] > values[0]).all()


def test_scaling_gradients_and_epsilon_changes_nothing():
    column = np.random.default_rng(0).normal(0.3, 1, 40)
    one = field.steps(column, 0.1, Q, 1e-3)
    for scale in (1e-20, 1e12):
        other = field.steps(scale * column, 0.1, Q, 1e-3 * scale)
        np.testing.assert_allclose(other.mean.value, one.mean.value, rtol=1e-9)
        np.testing.assert_allclose(other.square.influence, one.square.influence, rtol=1e-6)


def test_a_coordinate_that_is_always_zero_stands_still():
    found = field.steps(np.zeros(5), 0.1, Q, 0.0)
    assert not found.mean.value.any()
    assert not found.square.value.any()


def test_a_step_of_the_library_is_a_step_of_the_field():
    """One long run with `adam.update` itself."""
    column = np.random.default_rng(0).normal(0.5, 1, 20)
    with jax.enable_x64(True):
        hyper = adam.Hyperparameters(0.1, 0.1, 0.05)
        drawn = jax.numpy.asarray(np.random.default_rng(1).choice(column, (20_000, 64)))

        def step(state, g):
            direction, state = adam.update(g, state, hyper)
            return state, direction

        _, directions = jax.lax.scan(step, adam.init(drawn[0]), drawn)
    chains = np.asarray(directions)[200:].mean(axis=0)
    found = field.steps(column, 0.1, np.array([0.1]), 0.05).mean.value[0]
    assert abs(chains.mean() - found) < 4 * chains.std(ddof=1) / 8
