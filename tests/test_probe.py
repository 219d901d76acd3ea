"""The probe of a user's loss: the exact boundary, batch sizes, any pytree, and its errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adam_transition import adam, sampling
from adam_transition.advise import gradient_table, needed_beta2, probe
from adam_transition.boundary import divergence_intervals
from adam_transition.drift import counterexample_table, stationary_drift

KEY = sampling.stream_key(0)


def _counterexample(n):
    slopes = jnp.asarray(counterexample_table(n)[:, 0], jnp.float32)
    return gradient_table(lambda w, i: slopes[i] * w["x"].sum(), {"x": jnp.zeros(1)}, range(n), KEY)


@pytest.mark.parametrize("n", [5, 20, 50])
def test_the_counterexample_turns_at_the_exact_boundary(n):
    found = needed_beta2(_counterexample(n), KEY, beta1=0.0, progress=0.0)
    [intervals] = divergence_intervals(
        counterexample_table(n), [0.0], "with_replacement", key=KEY, num_samples=1_000_000
    )
    exact = intervals[-1].high
    error = np.hypot(found.stderr, exact.stderr)
    assert abs(found.one_minus_beta2 - exact.one_minus_beta2) < 4 * error
    assert found.stderr < 0.05 * exact.one_minus_beta2 + 0.001


def test_progress_is_the_stationary_drift():
    rng = np.random.default_rng(0)
    rows = jnp.asarray(rng.exponential(size=(12, 3)) - 0.8, jnp.float32)
    table = gradient_table(lambda w, i: rows[i] @ w, jnp.zeros(3), range(12), KEY)
    q = np.array([0.3, 0.05])
    found = probe(table, q, KEY, beta1=0.5)
    hyper = adam.Hyperparameters(np.full(2, 0.5), q)
    drift = stationary_drift(
        np.asarray(rows, np.float64), hyper, "with_replacement", key=KEY, num_samples=1_000_000
    ).drift
    gradient = np.asarray(rows, np.float64).mean(axis=0)
    limit = gradient @ (gradient / np.sqrt((np.asarray(rows, np.float64) ** 2).mean(axis=0)))
    expected = -drift / 12 @ gradient / limit
    assert (np.abs(found.progress[0] - expected) < 4 * found.progress_stderr[0] + 0.01).all()


def test_standard_errors_are_honest():
    table = _counterexample(10)
    found = [probe(table, [0.1], sampling.stream_key(seed), beta1=0.3) for seed in range(24)]
    values = np.array([one.progress[0, 0] for one in found])
    claimed = np.sqrt(np.mean([one.progress_stderr[0, 0] ** 2 for one in found]))
    assert 0.6 < values.std(ddof=1) / claimed < 1.6


def test_larger_batches_need_a_smaller_beta2():
    """Beside the drift of a table of all sums of two components, which is exact."""
    slopes = counterexample_table(50)[:, 0]
    table = _counterexample(50)
    one, two = (
        needed_beta2(table, KEY, beta1=0.0, progress=0.0, batch_factor=b, least=1e-2)
        for b in (1, 2)
    )
    assert two.one_minus_beta2 > one.one_minus_beta2 + 4 * np.hypot(one.stderr, two.stderr)
    # a pair has two hits with probability 1/2500 only: two rows of 51 with a hit and a miss, and
    # the others with two misses, are nearly the same
    pairs = np.array([(slopes[0] + slopes[1]) / 2] * 2 + [slopes[1]] * 49)[:, None]
    [intervals] = divergence_intervals(
        pairs, [0.0], "with_replacement", key=KEY, num_samples=500_000
    )
    assert two.one_minus_beta2 == pytest.approx(intervals[-1].high.one_minus_beta2, rel=0.2)


def test_a_pytree_of_parameters_and_a_real_loss():
    """Logistic regression with a bias: shapes, constants, and wrong signs that vanish as β2 → 1."""
    rng = np.random.default_rng(0)
    data = [(rng.normal(size=(4, 6)), rng.integers(0, 2, 4)) for _ in range(40)]
    params = {"w": jnp.zeros((6, 1)), "b": jnp.zeros(())}

    def loss(params, batch):
        x, y = batch
        logits = (x @ params["w"])[:, 0] + params["b"]
        return jnp.mean(jax.nn.softplus(logits) - y * logits)

    table = gradient_table(loss, params, data, KEY, num_coordinates=5)
    assert table.rows.shape == (40, 5)
    assert table.num_parameters == 7
    assert table.noise_ratio > 1
    assert table.skewness.shape == (5,)
    full = gradient_table(loss, params, data, KEY, num_coordinates=100)
    assert full.rows.shape == (40, 7)
    np.testing.assert_allclose(full.squared_norms, (full.rows**2).sum(axis=1), rtol=1e-4)
    assert full.mean_squared_norm == pytest.approx((full.rows.mean(axis=0) ** 2).sum(), rel=1e-3)
    found = probe(full, [0.9, 0.01], KEY, batch_factors=(1, 4))
    assert found.progress.shape == (2, 2)
    assert found.progress[0, 1] > 0.95 - 4 * found.progress_stderr[0, 1]
    assert found.wrong_mass[1, 1] < 0.2
    again = probe(full, [0.9, 0.01], KEY, batch_factors=(1, 4))
    np.testing.assert_array_equal(found.progress, again.progress)


def _linear(w, batch):
    return w @ batch


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gradient_table(_linear, jnp.ones(2), [], KEY), "0 batches"),
        (lambda: gradient_table(_linear, jnp.ones(2), [jnp.ones(2)], KEY), "1 batches"),
        (
            lambda: gradient_table(_linear, jnp.ones(2), [jnp.full(2, jnp.nan)] * 2, KEY),
            "batch 0: loss=nan",
        ),
        (
            lambda: gradient_table(lambda w, b: w * b, jnp.ones(2), [jnp.ones(2)] * 2, KEY),
            "loss has shape",
        ),
        (lambda: gradient_table(_linear, jnp.ones(2), [jnp.zeros(2)] * 2, KEY), "gradient is zero"),
        (
            lambda: gradient_table(_linear, jnp.ones(2), [jnp.ones(2)] * 2, KEY, num_coordinates=0),
            "num_coordinates=0",
        ),
        (lambda: probe(_counterexample(5), [0.0], KEY), "one_minus_beta2"),
        (lambda: probe(_counterexample(5), 0.1, KEY), "one_minus_beta2=0.1: needs a list"),
        (lambda: needed_beta2(_counterexample(5), KEY, batch_factor=0), "batch_factor=0"),
        (lambda: needed_beta2(_counterexample(5), KEY, least=0.0), "least=0.0 is outside"),
        (lambda: needed_beta2(_counterexample(5), KEY, progress=2.0), "progress=2.0 is outside"),
        (lambda: probe(_counterexample(5), [0.1], KEY, beta1=1.0), "beta1=1.0"),
        (lambda: probe(_counterexample(5), [0.1], KEY, batch_factors=(0,)), "batch_factors"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()
