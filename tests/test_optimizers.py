"""Every update rule is that of optax, by itself and through both simulation paths."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import adam_transition as at
from adam_transition import adam, kernels, optimizers, problems, sampling, simulate
from adam_transition.optimizers import OPTIMIZERS, from_optax, rules

EPSILON = 1e-8


def _matrix_muon(beta, _):
    return optax.contrib.scale_by_muon(
        ns_coeffs=jnp.array((3.4445, -4.775, 2.0315)), beta=beta, weight_dimension_numbers=None
    )


OPTAX = {
    "adam": partial(optax.scale_by_adam, eps=EPSILON),
    "amsgrad": partial(optax.scale_by_amsgrad, eps=EPSILON),
    "adopt": partial(optax.contrib.scale_by_adopt, eps=EPSILON),
    "adopt_unclipped": partial(optax.contrib.scale_by_adopt, eps=EPSILON, use_clipping=False),
    "adabelief": partial(optax.scale_by_belief, eps=EPSILON, eps_root=0.0),
    "nadam": partial(optax.scale_by_adam, eps=EPSILON, nesterov=True),
    "radam": partial(optax.scale_by_radam, eps=EPSILON),
    "adamax": partial(optax.scale_by_adamax, eps=EPSILON),
    "yogi": partial(optax.scale_by_yogi, eps=EPSILON),
    "rmsprop": lambda momentum, decay: optax.chain(
        optax.scale_by_rms(decay, EPSILON, eps_in_sqrt=False, bias_correction=True),
        optax.trace(momentum),
    ),
    "ademamix": partial(optax.contrib.scale_by_ademamix, alpha=5.0, eps=EPSILON),
    "adan": lambda beta1, beta3: optax.scale_by_adan(beta1, 0.92, beta3, eps=EPSILON),
    "lion": optax.scale_by_lion,
    "signum": lambda beta, _: optax.chain(optax.ema(beta), optax.scale_by_sign()),
    "sgd": lambda beta, _: optax.ema(beta),
}


def _factory(name):
    """The user's way to write it, with the learning rate 1."""
    return lambda beta1, beta2: optax.chain(OPTAX[name](beta1, beta2), optax.scale(-1.0))


def _directions(rule, hyper, gradients):
    @jax.jit
    def run(gradients):
        def step(state, gradient):
            direction, state = rule.update(gradient, state, hyper, bias_correction=True)
            return state, direction

        return jax.lax.scan(step, rule.init(gradients[0]), gradients)[1]

    return run(gradients)


def _directions_of_optax(transformation, gradients):
    @jax.jit
    def run(gradients):
        def step(state, gradient):
            update, state = transformation.update(gradient, state)
            return state, update

        return jax.lax.scan(step, transformation.init(gradients[0]), gradients)[1]

    return run(gradients)


def test_every_name_has_its_optax():
    assert set(OPTIMIZERS) == {*OPTAX, "muon"}


@pytest.mark.parametrize(("beta1", "beta2"), [(0.0, 0.5), (0.95, 0.9999)])
@pytest.mark.parametrize("name", list(OPTAX))
def test_rules_are_those_of_optax(name, beta1, beta2):
    with jax.enable_x64(True):
        gradients = jnp.asarray(np.random.default_rng(1).normal(size=(1000, 3)))
        hyper = adam.hyperparameters(beta1, beta2, epsilon=EPSILON)
        found = _directions(OPTIMIZERS[name].rule, hyper, gradients)
        expected = _directions_of_optax(OPTAX[name](beta1, beta2), gradients)
        np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", [(4, 4), (3, 5), (5, 3)])
def test_muon_is_that_of_optax(shape):
    with jax.enable_x64(True):
        gradients = jnp.asarray(np.random.default_rng(2).normal(size=(100, *shape)))
        hyper = adam.hyperparameters(0.95, 0.0)
        found = _directions(rules.muon_of_matrices(*shape), hyper, gradients.reshape(100, -1))
        expected = _directions_of_optax(_matrix_muon(0.95, 0.0), gradients)
        np.testing.assert_allclose(found.reshape(-1, *shape), expected, rtol=1e-7, atol=1e-9)


def test_numbers_are_matrices_of_one_entry_to_muon():
    with jax.enable_x64(True):
        gradients = jnp.asarray(np.random.default_rng(2).normal(size=(50, 1)))
        hyper = adam.hyperparameters(0.95, 0.0)
        matrices = _directions(rules.muon_of_matrices(1, 1), hyper, gradients)
        numbers = _directions(rules.MUON, hyper, gradients)
        np.testing.assert_allclose(matrices, numbers, rtol=1e-9)


@pytest.mark.parametrize("name", list(OPTAX))
def test_the_adapter_gives_the_same(name):
    with jax.enable_x64(True):
        gradients = jnp.asarray(np.random.default_rng(3).normal(size=(60, 3)))
        hyper = adam.hyperparameters(0.8, 0.95)
        found = _directions(from_optax(_factory(name), name), hyper, gradients)
        expected = -_directions_of_optax(_factory(name)(0.8, 0.95), gradients)
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-9)


def _cell(rule, beta1, beta2, dtype=np.float32, bias_correction=False):
    initialization = "bias_correction" if bias_correction else "zero"
    static = {
        "method": simulate.Method("cyclic", initialization=initialization, rule=rule),
        "num_steps": 90,
        "record_every": 30,
        "max_components": 5,
    }
    p, q = (np.full((1, 3), 1 - beta, dtype) for beta in (beta1, beta2))
    problem = problems.stack([problems.counterexample(5)], dtype)
    none = jnp.zeros(1, dtype)
    hyper = adam.Hyperparameters(jnp.asarray(p), jnp.asarray(q), none, none)
    arguments = problem, hyper, jnp.ones(1, dtype), jnp.full(1, 0.1, dtype)
    return (*arguments, sampling.stream_key(0)[None]), static


def _with_xla(arguments, static):
    problem, hyper, *rest = jax.tree.map(lambda leaf: leaf[0], arguments)

    def one(p, q):
        cell = adam.Hyperparameters(p, q, hyper.epsilon)
        return simulate.simulate(problem, cell, *rest, **static)

    return jax.jit(jax.vmap(one))(hyper.one_minus_beta1, hyper.one_minus_beta2).x


@pytest.mark.parametrize(
    ("name", "bias_correction"),
    [
        *((name, False) for name in OPTIMIZERS),
        *((name, True) for name in ("adan", "radam", "muon")),
    ],
)
def test_rules_run_in_blocks(name, bias_correction):
    arguments, static = _cell(OPTIMIZERS[name].rule, 0.9, 0.95, bias_correction=bias_correction)
    found = jax.jit(partial(kernels.simulate_table, kernel="cpu", **static))(*arguments)
    assert np.isfinite(found.x).all()
    np.testing.assert_allclose(found.x[0], _with_xla(arguments, static), rtol=1e-5, atol=1e-5)


def test_a_users_rule_runs_in_blocks():
    rule = from_optax(lambda b1, b2: optax.contrib.adopt(1.0, b1, b2), "adopt")
    arguments, static = _cell(rule, 0.9, 0.95)
    found = jax.jit(partial(kernels.simulate_table, kernel="cpu", **static))(*arguments)
    np.testing.assert_allclose(found.x[0], _with_xla(arguments, static), rtol=1e-5, atol=1e-5)
    own, static = _cell(rules.adopt(), 0.9, 0.95)
    np.testing.assert_allclose(found.x[0], _with_xla(own, static), rtol=1e-4, atol=1e-4)


def _state(start, update):
    """A transformation with one array of state: (gradient, state) → (direction, state)."""

    def updated(gradient, state, params=None):
        direction, state = update(gradient, state)
        return -direction, state

    return optax.GradientTransformation(start, updated)


def _large_maximum(beta1, beta2):
    def update(gradient, largest):
        largest = jnp.maximum(largest, jnp.abs(gradient))
        return gradient / largest, largest

    return _state(lambda params: jnp.full_like(params, 2.0), update)


def _refreshed(beta1, beta2):
    """A preconditioner that is recomputed every 10 steps."""

    def update(gradient, state):
        v, root, step = state
        v = beta2 * v + (1 - beta2) * gradient**2
        root = jnp.where((step + 1) % 10 == 0, jnp.sqrt(v), root)
        return gradient / root, (v, root, step + 1)

    return _state(lambda x: (jnp.zeros_like(x), jnp.ones_like(x), jnp.zeros((), int)), update)


def _every_seventh(beta1, beta2):
    return _state(
        lambda _: jnp.zeros((), jnp.int32), lambda g, state: (g * (state == 0), (state + 1) % 7)
    )


def _in_tens(beta1, beta2):
    return optax.MultiSteps(optax.adam(1.0, beta1, beta2), 10).gradient_transformation()


@pytest.mark.parametrize("factory", [_large_maximum, _refreshed, _every_seventh, _in_tens])
def test_state_that_changes_late_or_counts_in_circles_is_carried(factory):
    rng = np.random.default_rng(5)
    gradients = jnp.asarray(rng.normal(size=60) * np.geomspace(1, 30, 60), jnp.float32)
    found = _directions(from_optax(factory, "mine"), adam.hyperparameters(0.8, 0.95), gradients)
    expected = -_directions_of_optax(factory(0.8, 0.95), gradients)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def _window(beta1, beta2):
    """State of another shape than the parameters."""

    def update(gradient, window):
        window = jnp.concatenate([window[1:], gradient[None]])
        return jnp.mean(window, axis=0), window

    return _state(lambda params: jnp.zeros((4, *params.shape)), update)


def test_a_state_may_have_another_shape_than_the_parameters():
    beta = np.array([0.5, 0.9])
    settings = {"x0": 1.0, "samplings": ("cyclic",), "num_steps": 200, "progress": False}
    plane = at.simulate_plane(at.counterexample(5), beta, beta, **settings, optimizer=_window)
    sgd = at.simulate_plane(at.counterexample(5), beta, beta, **settings, optimizer="sgd")
    assert np.isfinite(plane["gap"]).all()
    assert not plane["diverged"].any()
    assert not sgd["diverged"].any()


def test_own_rules_are_asked_what_they_are():
    def decays(b1=0.8, b2=0.9):
        return optax.adam(optax.exponential_decay(1.0, 1000, 0.5), b1, b2)

    found = optimizers.own(decays)
    assert found.counts_steps
    assert found.axes == ("b1", "b2")
    assert found.defaults == {"b1": 0.8, "b2": 0.9}
    assert not optimizers.own(_factory("adam")).counts_steps
    assert optimizers.own(_factory("adopt")).counts_steps
    assert not optimizers.own(_factory("adopt"), counts_steps=False).counts_steps
    momentum = optimizers.own(lambda momentum, _: optax.sgd(1.0, momentum))
    assert momentum.axes == ("momentum", None)
    assert not momentum.steps_of_one_size
    assert optimizers.own(_factory("lion")).steps_of_one_size
    for slowest in (0, -1.0, np.nan, np.inf, "a"):
        with pytest.raises(ValueError, match=r"^slowest="):
            optimizers.own(decays, slowest=slowest)


def _branches(beta1, beta2):
    return optax.scale(-1.0 if beta1 > 0.5 else -2.0)


def _noisy(beta1, beta2):
    return optax.add_noise(0.1, 0.5, jax.random.key(0))


def _starts_at_beta(beta1, beta2):
    trace = optax.trace(beta1)
    return optax.GradientTransformation(
        lambda params: jax.tree.map(lambda leaf: leaf + beta1, trace.init(params)), trace.update
    )


def _with_state(state):
    return lambda beta1, beta2: _state(lambda _: state, lambda g, state: (g, state))


def _remembers(beta1, beta2):
    return _state(lambda params: params + 0, lambda g, state: (g + state, state))


def _grows(beta1, beta2):
    return _state(lambda _: [jnp.zeros(())], lambda g, state: (g, [*state, g]))


def _lengthens(beta1, beta2):
    return _state(lambda _: jnp.zeros(1), lambda g, state: (g, jnp.append(state, g)))


def _asks_for_floats(beta1, beta2):
    return optax.sgd(1.0, 0.5) if isinstance(beta1, float) else optax.sgd(2.0, 0.5)


def _gives(wrong):
    return lambda beta1, beta2: optax.stateless(lambda updates, _: wrong(updates))


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (3, "must be a function (beta1, beta2), not a int"),
        (lambda beta: optax.adam(1.0, beta), "cannot be called as factory(beta1, beta2)"),
        (lambda beta1, beta2: 3, "must be a factory of an optax transformation, not of a int"),
        (lambda beta1, beta2: optax.adamw(1.0, beta1, beta2), "must do without the parameters"),
        (lambda beta1, beta2: optax.scale(jnp.nan), "not finite at the gradient 0.7"),
        (_branches, "cannot be traced by JAX: TracerBoolConversionError"),
        (_asks_for_floats, "depends on whether a β is a number or an array"),
        (_noisy, "holds a random key"),
        (_starts_at_beta, "its initial state depends on the hyperparameters"),
        (_remembers, "its initial state depends on the parameters"),
        (_with_state("text"), "its state holds a str, not only arrays"),
        (_with_state(object()), "its state holds a object, not only arrays"),
        (_grows, "changes the structure of its state"),
        (_lengthens, "changes the shape of an array of its state from (1,) to (2,)"),
        (_gives(lambda g: {"a": -g}), "must be one array of real numbers"),
        (_gives(lambda g: -g * 1j), "of the shape of the gradient, not complex64[]"),
        (_gives(lambda g: jnp.stack([-g, -g])), "not float32[2]"),
        (lambda beta1, beta2: optax.scale_by_adam(beta1, beta2), "go along a constant gradient"),
    ],
)
def test_factories_that_cannot_work_are_refused_in_one_line(factory, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        from_optax(factory, "mine")
    assert str(caught.value).startswith("mine: ")
    assert "\n" not in str(caught.value)


def test_names():
    assert optimizers.named("lion") is OPTIMIZERS["lion"]
    own = optimizers.named("tests.test_optimizers:_refreshed")
    assert own.name == "tests.test_optimizers:_refreshed"
    for name in ("lyon", "optax:", "optax.nothing:adam", "optax:nothing"):
        with pytest.raises(ValueError, match=f"^'{name}'"):
            optimizers.named(name)
