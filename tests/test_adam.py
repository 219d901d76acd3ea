"""Adam: equality with optax, with a step-by-step reference, and the invariances of Algorithm 1."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from adam_transition import adam

BETAS = st.floats(0, 1 - 1e-6, exclude_max=True)
_ELEMENTS = st.floats(-4, 4).filter(lambda g: g == 0 or abs(g) > 1e-6)
GRADIENTS = hnp.arrays(np.float64, (12, 3), elements=_ELEMENTS)


@pytest.fixture(autouse=True)
def _double_precision():
    with jax.enable_x64(True):
        yield


def _directions(gradients, hyper, *, bias_correction=False):
    """Directions of all steps, [T, …], for gradients [T, …]."""
    hyper = adam.Hyperparameters(*(jnp.asarray(value, jnp.float64) for value in hyper))
    return np.asarray(_scan(jnp.asarray(gradients), hyper, bias_correction))


@functools.partial(jax.jit, static_argnums=2)
def _scan(gradients, hyper, bias_correction):
    def step(state, gradient):
        direction, state = adam.update(gradient, state, hyper, bias_correction=bias_correction)
        return state, direction

    return jax.lax.scan(step, adam.init(jnp.zeros_like(gradients[0])), gradients)[1]


def _reference_directions(gradients, beta1, beta2, epsilon, epsilon_root, bias_correction):
    """Algorithm 1 with Python floats, one coordinate and one step at a time."""
    directions = np.zeros_like(gradients)
    for j in range(gradients.shape[1]):
        m = v = 0.0
        for k, g in enumerate(gradients[:, j].tolist(), start=1):
            m = beta1 * m + (1 - beta1) * g
            v = beta2 * v + (1 - beta2) * g * g
            m_hat, v_hat = (m / (1 - beta1**k), v / (1 - beta2**k)) if bias_correction else (m, v)
            denominator = math.sqrt(v_hat + epsilon_root) + epsilon
            directions[k - 1, j] = m_hat / denominator if denominator > 0 else 0.0
    return directions


@pytest.mark.parametrize("schedule", ["constant", "inverse_sqrt"])
def test_equals_optax_adam_over_1000_steps(schedule):
    learning_rate = functools.partial(adam.step_size, schedule, 0.01)
    params = {"w": jnp.ones((3, 2)), "b": (jnp.zeros(4), jnp.float64(2.0))}

    @functools.partial(jax.jit, static_argnums=0)
    def run(is_ours, b1, b2, eps, eps_root):
        if is_ours:
            hyper = adam.Hyperparameters(1 - b1, 1 - b2, eps, eps_root)
            optimizer = adam.adam(learning_rate, hyper, initialization="bias_correction")
        else:
            optimizer = optax.adam(learning_rate, b1=b1, b2=b2, eps=eps, eps_root=eps_root)

        def step(carry, key):
            params, state = carry
            leaves, tree = jax.tree.flatten(params)
            keys = jax.random.split(key, len(leaves))
            draws = [jax.random.normal(k, leaf.shape) * 3 for k, leaf in zip(keys, leaves)]
            updates, state = optimizer.update(jax.tree.unflatten(tree, draws), state, params)
            return (optax.apply_updates(params, updates), state), None

        keys = jax.random.split(jax.random.key(1), 1000)
        return jax.lax.scan(step, (params, optimizer.init(params)), keys)[0][0]

    betas = itertools.product([0.0, 0.3, 0.9, 0.999], [0.0, 0.5, 0.999])
    epsilons = [(1e-8, 0.0), (1e-3, 0.0), (0.0, 1e-6), (1e-8, 1e-2)]
    for (b1, b2), (eps, eps_root) in itertools.product(betas, epsilons):
        found, expected = (run(is_ours, b1, b2, eps, eps_root) for is_ours in (True, False))
        for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias_correction", [False, True])
@pytest.mark.parametrize(("beta1", "beta2"), [(0, 0), (0, 0.9), (0.9, 0.1), (0.9, 0.999), (0.5, 0)])
@pytest.mark.parametrize(("epsilon", "epsilon_root"), [(0.0, 0.0), (1e-3, 0.0), (0.1, 0.2)])
def test_equals_a_step_by_step_reference(beta1, beta2, epsilon, epsilon_root, bias_correction):
    gradients = np.random.default_rng(0).normal(size=(300, 2)) * [1.0, 1e-3]
    gradients[:5, 1] = 0  # no gradient yet
    hyper = adam.hyperparameters(beta1, beta2, epsilon=epsilon, epsilon_root=epsilon_root)
    expected = _reference_directions(
        gradients, beta1, beta2, epsilon, epsilon_root, bias_correction
    )
    found = _directions(gradients, hyper, bias_correction=bias_correction)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-14)


def test_no_gradient_ever_seen_means_no_move():
    hyper = adam.hyperparameters(0.9, 0.99)
    assert (_directions(np.zeros((5, 2)), hyper) == 0).all()
    assert (_directions(np.zeros((5, 2)), hyper, bias_correction=True) == 0).all()


def test_neurips_initialization_sets_the_moments():
    full, largest = jnp.array([1.0, -2.0]), jnp.array([9.0, 16.0])
    state = adam.init_from_gradients(full, largest)
    direction, new = adam.update(jnp.zeros(2), state, adam.hyperparameters(0.5, 0.25))
    np.testing.assert_allclose(new.first, [0.5, -1.0])
    np.testing.assert_allclose(new.second, [2.25, 4.0])
    np.testing.assert_allclose(direction, [0.5 / 1.5, -1.0 / 2.0])
    with pytest.raises(ValueError, match="equal shapes"):
        adam.init_from_gradients(full, jnp.ones(3))


def test_the_optax_adapter_takes_its_first_moments_from_the_first_gradient():
    optimizer = adam.scale_by_adam(adam.hyperparameters(0.9, 0.99), initialization="first_gradient")
    gradient = jnp.array([4.0, -3.0])
    direction, _ = optimizer.update(gradient, optimizer.init(gradient))
    np.testing.assert_allclose(direction, [1.0, -1.0], rtol=1e-14)


def test_vmap_over_hyperparameters_equals_one_at_a_time():
    gradients = np.random.default_rng(1).normal(size=(50, 3))
    p, q = np.array([0.1, 0.5, 1.0]), np.array([1e-3, 0.3, 1.0])
    together = jax.vmap(
        lambda p, q: jax.lax.scan(
            lambda s, g: adam.update(g, s, adam.Hyperparameters(p, q))[::-1],
            adam.init(jnp.zeros(3)),
            jnp.asarray(gradients),
        )[1]
    )(p, q)
    for i in range(3):
        alone = _directions(gradients, adam.Hyperparameters(p[i], q[i]))
        np.testing.assert_allclose(together[i], alone, rtol=1e-13)


@given(BETAS, BETAS, GRADIENTS, st.sampled_from([1e-6, 0.5, 3.0, 1e6]))
@settings(max_examples=50)
def test_direction_is_invariant_to_the_scale_of_the_gradients(beta1, beta2, gradients, scale):
    hyper = adam.hyperparameters(beta1, beta2)
    found = _directions(gradients * scale, hyper)
    np.testing.assert_allclose(found, _directions(gradients, hyper), rtol=1e-8, atol=1e-8)


@given(BETAS, BETAS, GRADIENTS)
@settings(max_examples=50)
def test_direction_is_odd_in_the_gradients(beta1, beta2, gradients):
    hyper = adam.hyperparameters(beta1, beta2)
    np.testing.assert_array_equal(_directions(-gradients, hyper), -_directions(gradients, hyper))


@given(BETAS, BETAS, GRADIENTS, st.permutations(range(3)))
@settings(max_examples=50)
def test_coordinates_do_not_meet(beta1, beta2, gradients, order):
    hyper = adam.hyperparameters(beta1, beta2)
    permuted = _directions(gradients[:, order], hyper)
    np.testing.assert_array_equal(permuted, _directions(gradients, hyper)[:, order])


@given(BETAS, st.floats(0.01, 1 - 1e-6), GRADIENTS)
@settings(max_examples=100)
def test_steps_are_bounded_where_beta1_is_below_the_root_of_beta2(fraction, beta2, gradients):
    """Cauchy–Schwarz: |m|/√v ≤ (1−β1)/√((1−β2)(1−β1²/β2)) exactly when β1 < √β2."""
    beta1 = fraction * math.sqrt(beta2)
    bound = (1 - beta1) / math.sqrt((1 - beta2) * (1 - beta1**2 / beta2))
    directions = _directions(gradients, adam.hyperparameters(beta1, beta2))
    assert np.abs(directions).max() <= bound * (1 + 1e-6)


def test_steps_are_unbounded_above_the_line():
    gradients = np.array([1.0, *[0.0] * 40])[:, None]
    directions = _directions(gradients, adam.hyperparameters(0.9, 0.5))
    assert directions[-1] > 1e3


def test_one_minus_beta2_keeps_its_digits_in_single_precision():
    """At 1 − β2 = 1e-6 the float32 number β2 is off by 1 %; the update must not be."""
    q, num_steps = 1e-6, 2000
    with jax.enable_x64(False):
        gradients = jnp.ones((num_steps, 1), jnp.float32)
        state = adam.init(jnp.zeros(1, jnp.float32))
        hyper = adam.Hyperparameters(jnp.float32(1), jnp.float32(q))
        step = lambda s, g: (adam.update(g, s, hyper)[1], None)  # noqa: E731
        second = float(jax.lax.scan(step, state, gradients)[0].second[0])
    expected = -math.expm1(num_steps * math.log1p(-q))
    assert second == pytest.approx(expected, rel=1e-4)
    assert abs((1 - float(np.float32(1 - q))) / q - 1) > 0.01


@pytest.mark.parametrize("beta2", [1e-5, 1e-3, 0.1])
def test_second_moment_keeps_its_digits_as_it_falls_over_decades(beta2):
    """v + q(g² − v) would cancel here: after a gradient of 1, v falls by β2 a step to 1e-12."""
    gradients = np.array([1.0] + [1e-6] * 8)[:, None]
    with jax.enable_x64(False):
        state = adam.init(jnp.zeros(1, jnp.float32))
        hyper = adam.Hyperparameters(jnp.float32(1), jnp.float32(1 - beta2))
        for gradient in gradients.astype(np.float32):
            state = adam.update(jnp.asarray(gradient), state, hyper)[1]
    q = float(np.float32(1 - beta2))
    expected = sum(q * (1 - q) ** k * g**2 for k, g in enumerate(gradients[::-1, 0]))
    assert float(state.second[0]) == pytest.approx(expected, rel=1e-3)


@given(st.floats(1e-9, 1), st.integers(1, 10**6))
def test_one_minus_power(q, k):
    expected = -math.expm1(k * math.log1p(-q)) if q < 1 else 1.0
    assert float(adam.one_minus_power(q, k)) == pytest.approx(expected, rel=1e-12)


def test_step_sizes():
    steps = jnp.arange(7)
    np.testing.assert_array_equal(adam.step_size("constant", 0.5, steps), 0.5)
    np.testing.assert_allclose(
        adam.step_size("inverse_sqrt", 0.5, steps), 0.5 / np.sqrt(np.arange(1, 8))
    )
    np.testing.assert_allclose(
        adam.step_size("inverse_sqrt_epoch", 0.5, steps, 3),
        0.5 / np.sqrt([1, 1, 1, 2, 2, 2, 3]),
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: adam.hyperparameters(1.0, 0.5), "beta1=1.0 is outside"),
        (lambda: adam.hyperparameters(0.5, -0.1), "beta2=-0.1 is outside"),
        (lambda: adam.hyperparameters(0.5, math.nan), "beta2=nan is outside"),
        (lambda: adam.hyperparameters(0.5, 0.5, epsilon=-1), "epsilon=-1 is negative"),
        (lambda: adam.hyperparameters(0.5, 0.5, epsilon_root=-1), "epsilon_root=-1 is negative"),
        (lambda: adam.step_size("linear", 1.0, 0), "schedule='linear' is not one of constant"),
        (
            lambda: adam.scale_by_adam(adam.hyperparameters(0, 0), initialization="one"),
            "initialization='one' is not one of zero",
        ),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_hyperparameters_may_be_traced_and_arrays():
    beta2 = jnp.array([0.5, 0.9])
    swept = jax.vmap(lambda beta: adam.hyperparameters(0.0, beta).one_minus_beta2)(beta2)
    np.testing.assert_array_equal(swept, 1 - beta2)
    np.testing.assert_array_equal(adam.hyperparameters(0.0, beta2).one_minus_beta2, 1 - beta2)
    with pytest.raises(ValueError, match=r"beta2=1\.5 is outside"):
        adam.hyperparameters(0.0, np.array([0.5, 1.5]))
