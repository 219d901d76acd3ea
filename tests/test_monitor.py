"""The monitor: untouched updates, diagnostics against the exact drift, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adam_transition import adam
from adam_transition.advise import beta2_too_small, diagnostics, monitor
from adam_transition.drift import counterexample_table, stationary_drift

PARAMS = {"w": jnp.ones((7, 5)), "b": [jnp.zeros(3), jnp.ones(())]}


def _gradients(step):
    rng = np.random.default_rng(step)
    return jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape), jnp.float32), PARAMS)


@pytest.mark.parametrize(
    "inner",
    [
        optax.adam(1e-2),
        optax.adamw(1e-2),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-2)),
    ],
)
def test_updates_are_bit_equal_to_those_of_the_wrapped_optimiser(inner):
    wrapped = monitor(inner, beta1=0.9, beta2=0.999, num_coordinates=10)

    def train(optimiser):
        params, state = PARAMS, optimiser.init(PARAMS)
        step = jax.jit(optimiser.update)
        for k in range(5):
            updates, state = step(_gradients(k), state, params)
            params = optax.apply_updates(params, updates)
        return params

    for one, other in zip(
        jax.tree.leaves(train(inner)), jax.tree.leaves(train(wrapped)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("beta2", [0.5, 0.9])
def test_progress_has_the_value_of_the_drift_on_both_sides_of_the_boundary(beta2):
    """n = 20 cyclic, β1 = 0: the boundary is at 0.629. Whole epochs in a long horizon."""
    table = counterexample_table(20)[:, 0]
    watched = monitor(optax.identity(), beta1=0.0, beta2=beta2, horizon=4000)

    def step(state, k):
        _, state = watched.update(jnp.asarray(table, jnp.float32)[k % 20][None], state)
        return state, None

    state, _ = jax.lax.scan(step, watched.init(jnp.zeros(1)), jnp.arange(20_000))
    found = diagnostics(state)
    drift = float(stationary_drift(table[:, None], adam.hyperparameters(0.0, beta2)).drift[0])
    limit = table.mean() / np.sqrt((table**2).mean())
    # weights decay by half a percent over an epoch: the mean of the gradient feels it
    assert float(found.progress) == pytest.approx(-drift / 20 / limit, abs=0.05)
    assert bool(beta2_too_small(found)) is (beta2 == 0.5)
    assert float(found.wrong_mass) == (1.0 if beta2 == 0.5 else 0.0)
    assert float(found.noise_ratio) == pytest.approx(
        (table**2).mean() / table.mean() ** 2, rel=0.05
    )


def test_moments_of_the_noise():
    """Exponential noise with mean 1: skewness 2, noise ratio 2, every mean resolved."""
    rng = np.random.default_rng(0)
    watched = monitor(optax.sgd(0.1), beta1=0.9, beta2=0.99, num_coordinates=64, horizon=10**6)
    state = watched.init(jnp.zeros(64))
    update = jax.jit(watched.update)
    for _ in range(400):
        _, state = update(jnp.asarray(rng.exponential(size=64), jnp.float32), state)
    found = diagnostics(state)
    assert float(found.noise_ratio) == pytest.approx(2, rel=0.05)
    assert float(found.skewness) == pytest.approx(2, rel=0.15)
    assert float(found.resolved) == 1
    assert float(found.progress) == pytest.approx(1, abs=0.05)
    assert int(found.step) == 400


def test_symmetric_noise_without_a_signal_is_not_resolved():
    rng = np.random.default_rng(0)
    watched = monitor(optax.identity(), beta1=0.9, beta2=0.99, num_coordinates=200)
    state = watched.init(jnp.zeros(200))
    for _ in range(100):
        _, state = watched.update(jnp.asarray(rng.normal(size=200), jnp.float32), state)
    # four variances: two standard errors, which one in twenty exceeds
    assert float(diagnostics(state).resolved) < 0.12


def test_watched_coordinates_are_the_same_in_every_step():
    """With one more coordinate watched than there are, all are."""
    watched = monitor(optax.identity(), beta1=0.0, beta2=0.9, num_coordinates=100)
    state = watched.init(PARAMS)
    gradients = _gradients(0)
    _, state = watched.update(gradients, state)
    flat = np.sort(np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradients)]))
    np.testing.assert_array_equal(np.sort(state.sums[0]), flat)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"beta1": 1.0, "beta2": 0.9}, "beta1=1.0"),
        ({"beta1": 0.9, "beta2": 1.0}, "beta2=1.0"),
        ({"beta1": 0.9, "beta2": 0.9, "num_coordinates": 0}, "num_coordinates=0"),
        ({"beta1": 0.9, "beta2": 0.9, "horizon": 1}, "horizon=1"),
    ],
)
def test_errors_name_the_argument(kwargs, message):
    with pytest.raises(ValueError, match=message):
        monitor(optax.adam(1e-3), **kwargs)


def test_the_state_of_another_optimiser_is_refused():
    with pytest.raises(ValueError, match="needs that of an optimiser wrapped in monitor"):
        diagnostics(optax.adam(1e-3).init(jnp.zeros(3)))
