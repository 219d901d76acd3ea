"""Interpolation on a grid: the drift of the random orders is met within the reported error."""

import numpy as np
import pytest

from adam_transition import adam
from adam_transition.problems import counterexample_table
from adam_transition.theory import chebyshev
from adam_transition.theory.stationary_drift import stationary_drift


def _drift(table, sampling):
    return lambda p, q: stationary_drift(table, adam.Hyperparameters(p, q), sampling).drift


@pytest.mark.parametrize("sampling", ["with_replacement", "random_shuffling"])
@pytest.mark.parametrize(
    "beta2",
    [np.linspace(0, 0.98, 99), 1 - np.geomspace(0.9, 1e-3, 90), np.linspace(0.5, 0.6, 80)],
    ids=["even", "logarithmic", "narrow"],
)
def test_the_drift_is_met_within_its_error(sampling, beta2):
    table = counterexample_table(10, 1.0)
    beta1 = np.linspace(0, 0.98, 99)
    found = chebyshev.on_grid(_drift(table, sampling), 1 - beta1, 1 - beta2)
    rows, columns = np.random.default_rng(0).integers(0, [[99], [len(beta2)]], (2, 200))
    exact = _drift(table, sampling)(1 - beta1[rows], 1 - beta2[columns])
    error = found.error[rows, columns]
    assert (np.abs(found.values[rows, columns] - exact) <= error + 1e-12).all()
    assert error.max() < 1e-3 * np.abs(exact).max()


def test_beta2_of_0_is_not_the_limit():
    """Gradients of very different size: the drift at 0 is far from that just above."""
    table = counterexample_table(50)
    beta = np.linspace(0, 0.98, 99)
    found = chebyshev.on_grid(_drift(table, "with_replacement"), 1 - beta, 1 - beta)
    exact = _drift(table, "with_replacement")(1 - beta, np.ones(99))
    np.testing.assert_allclose(found.values[:, 0], exact, atol=1e-4 * np.abs(exact).max())


@pytest.mark.parametrize(
    "function",
    [
        lambda p, q: np.abs(p - 0.5)[:, None],  # a kink
        lambda p, q: np.where(q > 0.3, 1.0, -1.0)[:, None],  # a jump
        lambda p, q: np.where(q > 0.3, p, np.nan)[:, None],
    ],
)
def test_a_function_that_is_not_smooth_is_refused(function):
    beta = np.linspace(0, 0.98, 200)
    assert chebyshev.on_grid(function, 1 - beta, 1 - beta) is None


def test_small_grids_are_left_to_the_caller():
    beta = np.linspace(0, 0.9, 20)
    assert chebyshev.on_grid(lambda p, q: p[:, None], 1 - beta, 1 - beta) is None


def test_coordinates_and_single_values():
    """Each coordinate by itself; an axis of one value; a function that is 0."""
    beta = np.linspace(0.1, 0.98, 400)

    def function(p, q):
        return np.stack([np.exp(-p) / q, np.sin(3 * p * q), 0 * p], axis=-1)

    found = chebyshev.on_grid(function, np.array([0.3]), 1 - beta)
    exact = function(np.full(400, 0.3), 1 - beta)
    assert (np.abs(found.values[0] - exact) <= found.error[0]).all()
    assert found.error.max() < 2e-4 * exact.max()
    assert (found.error[..., 2] == 0).all()


def test_equal_calls_give_equal_bits():
    beta = np.linspace(0, 0.98, 200)

    def call():
        return chebyshev.on_grid(lambda p, q: np.exp(p * q)[:, None], 1 - beta, 1 - beta).values

    assert (call() == call()).all()
