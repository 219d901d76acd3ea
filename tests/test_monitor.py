"""The monitor: untouched updates, the Adam that really runs, answers, errors."""

import functools
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState

from adam_transition import adam
from adam_transition.advise import (
    answer,
    beta2_too_small,
    diagnostics,
    diagnostics_by_path,
    monitor,
    verdict,
)
from adam_transition.advise.watch import BLOCKS, ROWS
from adam_transition.problems.constructions import counterexample_table
from adam_transition.theory.stationary_drift import stationary_drift

PARAMS = {"w": jnp.ones((7, 5)), "b": [jnp.zeros(3), jnp.ones(())]}
LABELS = {"w": "body", "b": "head"}


def _gradients(step, params=PARAMS):
    rng = np.random.default_rng(step)
    return jax.tree.map(lambda p: jnp.asarray(rng.normal(size=p.shape) + 1, p.dtype), params)


def _flat(tree):
    return np.sort(
        np.concatenate([np.ravel(np.asarray(x, np.float64)) for x in jax.tree.leaves(tree)])
    )


def _sums(state, watch=0):
    """The monitor's sums over all blocks, sorted over coordinates, by row."""
    blocks = np.asarray(jax.tree.leaves(state.watched[watch].blocks)[0]).sum(axis=0)
    return {name: np.sort(blocks[i]) for i, name in enumerate(ROWS)}


def _numpy_adam(gradients, beta1, beta2, epsilon, nesterov=False):
    """Sums of g, g² and m/(√v + ε) of Adam in float64 over rows of gradients."""
    m = v = np.zeros_like(gradients[0])
    total = np.zeros((3, *m.shape))
    for k, g in enumerate(gradients, 1):
        b1, b2 = (one(k - 1) if callable(one) else one for one in (beta1, beta2))
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        hat = m / (1 - b1**k)
        if nesterov:
            hat = b1 * m / (1 - b1 ** (k + 1)) + (1 - b1) * g / (1 - b1**k)
        total += g, g * g, hat / (np.sqrt(v / (1 - b2**k)) + epsilon)
    return total


def _train(optimiser, steps, params=PARAMS, gradients=_gradients):
    state = optimiser.init(params)
    update = jax.jit(optimiser.update)
    for k in range(steps):
        _, state = update(gradients(k, params), state, params)
    return state


def _rows(steps, change=lambda g: g, keys=("w", "b")):
    """The gradients of `_train` in float64, as Adam gets them, each row sorted by nothing."""
    found = []
    for k in range(steps):
        tree = change(_gradients(k))
        leaves = [np.ravel(x) for key in keys for x in jax.tree.leaves(tree[key])]
        found.append(np.concatenate(leaves).astype(np.float64))
    return found


def _clipped(tree):
    norm = np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(tree)))
    return jax.tree.map(lambda x: x / max(norm, 1.0), tree)


def _shifted(tree):
    return jax.tree.map(lambda g, p: g + 0.1 * p, tree, PARAMS)


@pytest.mark.parametrize(
    "inner",
    [
        optax.adam(1e-2),
        optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-2)),
        optax.MultiSteps(optax.adam(1e-2), 2),
        optax.apply_if_finite(optax.nadam(1e-2), 2),
        optax.inject_hyperparams(optax.adam)(learning_rate=1e-2, b2=lambda k: 1 - 1 / (k + 2)),
        optax.contrib.schedule_free(optax.adam(1e-2, b1=0.0), 1e-2),
    ],
)
def test_updates_are_bit_equal_to_those_of_the_wrapped_optimiser(inner):
    def train(optimiser):
        params, state = PARAMS, optimiser.init(PARAMS)
        step = jax.jit(optimiser.update)
        for k in range(5):
            updates, state = step(_gradients(k), state, params)
            params = optax.apply_updates(params, updates)
        return params

    for one, other in zip(
        jax.tree.leaves(train(inner)),
        jax.tree.leaves(train(monitor(inner, num_coordinates=10))),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


_ALONE = optax.identity()


def _scheduled(k):
    return 0.5 if k < 12 else 0.6


@pytest.mark.parametrize(
    ("inner", "beta1", "beta2", "epsilon", "change"),
    [
        (optax.adam(1e-2), 0.9, 0.999, 1e-8, None),
        (optax.adamw(1e-2, b1=0.5, b2=0.7, eps=1e-2), 0.5, 0.7, 1e-2, None),
        (optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1.0)), 0.9, 0.999, 1e-8, _clipped),
        (
            optax.chain(optax.add_decayed_weights(0.1), optax.adam(1.0, b2=0.95), optax.scale(2.0)),
            0.9, 0.95, 1e-8, _shifted,
        ),
        (optax.apply_if_finite(optax.adam(1.0, b1=0.0), 3), 0.0, 0.999, 1e-8, None),
        (optax.named_chain(("a", optax.clip(9.0)), ("b", optax.adam(1.0))), 0.9, 0.999, 1e-8, None),
        (
            optax.inject_hyperparams(optax.adam)(
                learning_rate=1.0, b2=lambda k: jnp.where(k < 12, 0.5, 0.6)
            ),
            0.9, _scheduled, 1e-8, None,
        ),
        (optax.contrib.schedule_free(optax.adam(1.0, b1=0.0), 1.0), 0.0, 0.999, 1e-8, None),
        (
            adam.adam(1.0, adam.hyperparameters(0.9, 0.99, epsilon=1e-3),
                      initialization="bias_correction"),
            0.9, 0.99, 1e-3, None,
        ),
        (_ALONE, 0.9, 0.99, 1e-8, None),
    ],
)  # fmt: skip
def test_it_sees_the_gradients_and_the_steps_of_the_adam_that_runs(
    inner, beta1, beta2, epsilon, change
):
    """Against Adam in NumPy, in float64, on what it is fed after all that stands before it."""
    told = {} if inner is not _ALONE else {"beta1": beta1, "beta2": beta2}
    state = _train(monitor(inner, num_coordinates=100, **told), 25)
    right = _numpy_adam(_rows(25, change or (lambda g: g)), beta1, beta2, epsilon)
    found = _sums(state)
    for name, want in zip(("gradient", "square", "step"), right, strict=True):
        np.testing.assert_allclose(found[name], np.sort(want), rtol=2e-4, atol=2e-4)
    said = diagnostics(state)
    assert (int(said.step), int(said.contradicted), int(said.skipped)) == (25, 0, 0)
    last = beta2(24) if callable(beta2) else beta2
    assert float(said.one_minus_beta2) == pytest.approx(1 - last, rel=1e-5)
    assert float(said.epsilon) == pytest.approx(epsilon)
    assert float(said.share) == 1


def test_nesterov_momentum():
    state = _train(monitor(optax.nadam(1.0, b2=0.9), num_coordinates=100), 25)
    right = _numpy_adam(_rows(25), 0.9, 0.9, 1e-8, nesterov=True)
    np.testing.assert_allclose(_sums(state)["step"], np.sort(right[2]), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("outside", [True, False])
def test_accumulation_counts_the_steps_of_adam(outside):
    """Six micro-batches, two steps: Adam is fed their means."""
    make = optax.adam(1.0, b1=0.5, b2=0.5)
    optimiser = (
        monitor(optax.MultiSteps(make, 3), num_coordinates=100)
        if outside
        else optax.MultiSteps(monitor(make, num_coordinates=100), 3)
    )
    state = _train(optimiser, 6)
    rows = _rows(6)
    right = _numpy_adam([np.mean(rows[:3], axis=0), np.mean(rows[3:], axis=0)], 0.5, 0.5, 1e-8)
    found = _sums(state if outside else state.inner_opt_state)
    np.testing.assert_allclose(found["gradient"], np.sort(right[0]), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found["step"], np.sort(right[2]), rtol=1e-4, atol=1e-4)
    assert int(diagnostics(state).step) == 2


@pytest.mark.parametrize("outside", [True, False])
def test_one_bad_gradient_is_left_out_and_counted(outside):
    def gradients(k, params):
        return jax.tree.map(
            lambda g: g.at[(0,) * g.ndim].set(jnp.inf) if k == 7 else g, _gradients(k)
        )

    inner = optax.adam(1.0)
    for wrap in (
        lambda tx: optax.apply_if_finite(tx, 3),
        lambda tx: optax.MultiSteps(tx, 1, should_skip_update_fn=optax.skip_not_finite),
    ):
        if not outside and "MultiSteps" in str(type(wrap(inner))):
            continue  # the gradient never comes to a monitor inside, and MultiSteps does not count
        optimiser = monitor(wrap(inner)) if outside else wrap(monitor(inner))
        said = diagnostics(_train(optimiser, 20, gradients=gradients))
        assert (int(said.step), int(said.skipped)) == (19, 1)
        assert np.isfinite(said.progress)


def test_a_coordinate_that_adam_has_lost_does_not_spoil_the_others():
    """Plain Adam keeps an inf for ever; the eighth coordinate is out, seven are watched on."""
    params = jnp.zeros(8)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(60, 8)) + 1
    rows[10, 3] = np.inf
    optimiser = monitor(optax.adam(1.0))
    state = optimiser.init(params)
    for row in rows:
        _, state = jax.jit(optimiser.update)(jnp.asarray(row, jnp.float32), state, params)
    said = diagnostics(state)
    assert int(said.skipped) == 1
    assert float(said.progress) == pytest.approx(1, abs=0.1)
    kept = np.delete(rows, 3, axis=1)
    assert float(said.noise_ratio) == pytest.approx(
        (kept**2).mean(0).sum() / (kept.mean(0) ** 2).sum(), rel=0.1
    )


def test_parameters_under_other_rules_are_not_watched():
    labels = {"w": "adam", "b": "sgd"}
    inner = optax.partition({"adam": optax.adam(1.0, b2=0.9), "sgd": optax.sgd(1.0)}, labels)
    state = _train(monitor(inner, num_coordinates=100), 25)
    right = _numpy_adam(_rows(25, keys=("w",)), 0.9, 0.9, 1e-8)
    np.testing.assert_allclose(_sums(state)["gradient"], np.sort(right[0]), rtol=1e-4, atol=1e-4)
    assert float(diagnostics(state).share) == pytest.approx(35 / 39)
    masked = optax.masked(optax.adam(1.0, b2=0.9), {"w": True, "b": False})
    state = _train(monitor(masked, num_coordinates=100), 25)
    np.testing.assert_allclose(_sums(state)["step"], np.sort(right[2]), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("outside", [True, False])
def test_several_adams_each_with_its_own_beta2(outside):
    wrap = (lambda tx: tx) if outside else functools.partial(monitor, num_coordinates=100)
    inner = optax.partition(
        {"head": wrap(optax.adam(1.0, b2=0.9)), "body": wrap(optax.adam(1.0, b2=0.99))}, LABELS
    )
    state = _train(monitor(inner, num_coordinates=100) if outside else inner, 25)
    with pytest.raises(ValueError, match=r"2 Adams are watched; give one of these as path: .*body"):
        diagnostics(state)
    found = diagnostics_by_path(state)
    body = next(path for path in found if "body" in path)
    assert {round(float(one.one_minus_beta2), 6) for one in found.values()} == {0.1, 0.01}
    assert float(diagnostics(state, body).one_minus_beta2) == pytest.approx(0.01)
    with pytest.raises(ValueError, match="path='tail'"):
        diagnostics(state, "tail")


def test_nothing_under_a_label():
    labels = {"w": "one", "b": "one"}
    inner = optax.partition({"one": optax.adam(1.0), "none": optax.adam(1.0, b2=0.5)}, labels)
    found = diagnostics_by_path(_train(monitor(inner), 3))
    empty = next(one for path, one in found.items() if "none" in path)
    assert verdict(empty) == "cannot tell"
    assert float(empty.share) == 0
    inside = optax.partition({"one": optax.sgd(1.0), "none": monitor(optax.adam(1.0))}, labels)
    assert verdict(diagnostics(_train(inside, 3))) == "cannot tell"


def test_an_ensemble_over_traced_beta2():
    """Progress on the counterexample, n = 20, cyclic, β1 = 0, from the exact drift."""
    table = counterexample_table(20)[:, 0]
    slopes = jnp.asarray(np.tile(table, 200), jnp.float32)[:, None]
    limit = table.mean() / np.sqrt((table**2).mean())

    def run(beta2, told):
        optimiser = monitor(optax.adam(1.0, b1=0.0, b2=beta2, eps=0.0), horizon=1600, **told)
        step = lambda state, g: (optimiser.update(g, state, jnp.zeros(1))[1], None)  # noqa: E731
        return jax.lax.scan(step, optimiser.init(jnp.zeros(1)), slopes)[0]

    beta2 = jnp.array([0.5, 0.7, 0.9, 0.99])
    states = jax.vmap(lambda b: run(b, {}))(beta2)
    found = jax.vmap(diagnostics)(states)
    for one, progress in zip(beta2.tolist(), found.progress, strict=True):
        drift = stationary_drift(table[:, None], adam.hyperparameters(0.0, one)).drift[0]
        assert float(progress) == pytest.approx(-drift / 20 / limit, abs=2e-3)
    assert answer(found).tolist() == [0, 0, 1, 1]
    with pytest.raises(ValueError, match=r"of 4 runs at once; use jax.vmap\(diagnostics\)"):
        diagnostics(states)
    told = jax.vmap(lambda b: run(b, {"beta1": 0.0, "beta2": b}))(beta2)
    np.testing.assert_array_equal(jax.vmap(diagnostics)(told).progress, found.progress)
    assert not np.any(jax.vmap(diagnostics)(told).overruled)


def test_a_record_begins_anew_when_beta2_changes():
    inner = optax.inject_hyperparams(optax.adam)(
        learning_rate=1.0, b2=lambda k: jnp.where(k < 30, 0.5, 0.99)
    )
    said = diagnostics(_train(monitor(inner), 40))
    assert (int(said.step), int(said.record)) == (40, 10)
    told = diagnostics(_train(monitor(inner, beta2=0.5), 40))
    assert int(told.overruled) == 10
    assert float(told.progress) == float(said.progress)


@pytest.mark.parametrize(("beta1", "beta2"), [(0.9, 0.99), (0.5, 0.999)])
def test_moments_that_contradict_the_arguments_are_left_out_and_counted(beta1, beta2):
    """An Adam of somebody's own, whose β cannot be read."""
    own = optax.GradientTransformation(*_opaque(0.9, 0.999))
    said = diagnostics(_train(monitor(own, beta1=beta1, beta2=beta2, epsilon=1e-8), 30))
    assert int(said.contradicted) == 30
    assert verdict(said) == "cannot tell"
    right = diagnostics(_train(monitor(own, beta1=0.9, beta2=0.999, epsilon=1e-8), 30))
    assert int(right.contradicted) == 0


class _Opaque:
    """A transformation whose Adam cannot be found from outside."""

    __slots__ = ("held",)

    def __init__(self, held):
        self.held = held

    def __call__(self, *args):
        return self.held(*args)


def _opaque(beta1, beta2):
    return tuple(map(_Opaque, optax.scale_by_adam(beta1, beta2)))


def test_values_that_can_neither_be_read_nor_are_given():
    own = optax.GradientTransformation(*_opaque(0.9, 0.999))
    for told, name in (
        ({}, "beta1"),
        ({"beta1": 0.9}, "beta2"),
        ({"beta1": 0.9, "beta2": 0.999}, "epsilon"),
    ):
        with pytest.raises(ValueError, match=f"{name}: cannot be read from this optimiser"):
            monitor(own, **told).init(PARAMS)


@pytest.mark.parametrize(
    ("inner", "name"),
    [
        (optax.yogi(1.0), "scale_by_yogi"),
        (optax.adamax(1.0), "scale_by_adamax"),
        (optax.amsgrad(1.0), "ScaleByAmsgradState"),
        (optax.adabelief(1.0), "ScaleByBeliefState"),
        (optax.rmsprop(1.0), "ScaleByRmsState"),
    ],
)
def test_what_is_nearly_adam_is_refused(inner, name):
    with pytest.raises(ValueError, match=f"inner: {name} is not Adam"):
        monitor(inner, beta1=0.9, beta2=0.99).init(PARAMS)


def test_an_optimiser_without_adam_needs_both_betas():
    with pytest.raises(ValueError, match="no Adam in it; give beta1 and beta2"):
        monitor(optax.sgd(1.0), beta1=0.9).init(PARAMS)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"beta1": 1.0}, "beta1=1.0"),
        ({"beta2": 1.0}, "beta2=1.0"),
        ({"beta2": np.nan}, "beta2=nan"),
        ({"beta2": "0.9"}, "beta2='0.9': needs a number"),
        ({"epsilon": -1.0}, "epsilon=-1.0"),
        ({"beta2": 0.5}, "beta2=0.5: the optimiser's own is 0.999"),
        ({"epsilon": 1e-3}, "epsilon=0.001: the optimiser's own is 1e-08"),
        ({"num_coordinates": 0}, "num_coordinates=0"),
        ({"num_coordinates": 2.5}, "num_coordinates=2.5: needs a whole number"),
        ({"horizon": 1}, "horizon=1"),
        ({"horizon": 10**12}, "horizon=1000000000000 is above"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": "a"}, "seed='a': needs a whole number"),
        ({"epsilon": np.inf}, "epsilon=inf"),
    ],
)
def test_errors_name_the_argument(kwargs, message):
    with pytest.raises(ValueError, match=message):
        monitor(optax.adam(1e-3), **kwargs)


def test_the_state_of_another_optimiser_is_refused():
    with pytest.raises(ValueError, match="needs that of an optimiser wrapped in monitor"):
        diagnostics(optax.adam(1e-3).init(jnp.zeros(3)))


def test_train_states():
    """The state is found in a linen TrainState and in an nnx.Optimizer, also behind clipping."""
    tx = optax.chain(optax.clip_by_global_norm(1.0), monitor(optax.adamw(1e-3)))
    state = TrainState.create(apply_fn=None, params=PARAMS, tx=tx)
    step = jax.jit(lambda state, g: state.apply_gradients(grads=g))
    for k in range(5):
        state = step(state, _gradients(k))
    right = diagnostics(state)
    assert int(right.step) == 5

    model = nnx.Linear(3, 4, rngs=nnx.Rngs(0))
    optimiser = nnx.Optimizer(
        model, monitor(optax.chain(optax.clip(1.0), optax.adam(1.0))), wrt=nnx.Param
    )
    gradients = jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param))
    train = nnx.jit(lambda model, optimiser, g: optimiser.update(model, g) and None)
    for _ in range(5):
        train(model, optimiser, gradients)
    for held in (optimiser, optimiser.opt_state):
        said = diagnostics(held)
        assert int(said.step) == 5
        assert float(said.progress) == pytest.approx(1, rel=1e-5)


def test_scan_donation_and_shapes_without_values():
    optimiser = monitor(optax.adam(1.0))
    step = jax.jit(lambda state, g: optimiser.update(g, state, PARAMS)[1], donate_argnums=0)
    state = optimiser.init(PARAMS)
    for k in range(5):
        state = step(state, _gradients(k))
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *(_gradients(k) for k in range(5)))
    scanned, _ = jax.lax.scan(
        lambda s, g: (optimiser.update(g, s, PARAMS)[1], None), optimiser.init(PARAMS), stacked
    )
    for one, other in zip(diagnostics(state), diagnostics(scanned), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    shapes = jax.eval_shape(optimiser.init, PARAMS)
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, state)
    mapped = optax.tree.map_params(optimiser, lambda x: x + 1, state)
    np.testing.assert_array_equal(mapped.inner[0].mu["w"], state.inner[0].mu["w"] + 1)


def test_a_second_moment_that_stalls_is_reported():
    """At β2 = 0.999 a bfloat16 v cannot fall: 0.999 v rounds to v. At 0.9 it can."""
    params = jnp.zeros(64, jnp.bfloat16)
    rows = np.random.default_rng(0).normal(size=(2500, 64)) + 1

    def run(beta2):
        optimiser = monitor(optax.adam(1.0, b2=beta2))
        step = lambda state, g: (optimiser.update(g, state, params)[1], None)  # noqa: E731
        state, _ = jax.lax.scan(step, optimiser.init(params), jnp.asarray(rows, jnp.bfloat16))
        return diagnostics(state)

    stalled, moving = run(0.999), run(0.9)
    assert float(stalled.stalled) > 0.5
    assert verdict(stalled) == "cannot tell"
    assert float(moving.stalled) < 0.1
    assert int(stalled.contradicted) == int(moving.contradicted) == 0
    assert float(moving.noise_ratio) == pytest.approx(2, rel=0.1)


def test_squares_below_the_least_number_are_reported():
    optimiser = monitor(optax.adam(1.0))
    state = optimiser.init(jnp.zeros(4))
    for _ in range(10):
        _, state = optimiser.update(jnp.full(4, 1e-24), state)
    assert float(diagnostics(state).stalled) == 1
    assert verdict(diagnostics(state)) == "cannot tell"


@pytest.mark.parametrize(("scale", "epsilon"), [(1.0, 1e-8), (1.0, 0.1), (1e-9, 1e-8)])
def test_epsilon_counts_in_progress_and_in_its_limit(scale, epsilon):
    """n = 20 cyclic, β1 = 0, β2 = 0.5: the periodic orbit of v in closed form, in float64."""
    table = counterexample_table(20)[:, 0] * scale
    v, total = 0.0, 0.0
    for k, g in enumerate(np.tile(table, 20)):
        v = 0.5 * v + 0.5 * g * g
        total += g / (np.sqrt(v) + epsilon) if k >= 380 else 0
    right = total / 20 / (table.mean() / (np.sqrt((table**2).mean()) + epsilon))
    optimiser = monitor(optax.adam(1.0, b1=0.0, b2=0.5, eps=epsilon), horizon=1600)
    slopes = jnp.asarray(np.tile(table, 100), jnp.float32)[:, None]
    step = lambda state, g: (optimiser.update(g, state)[1], None)  # noqa: E731
    state, _ = jax.lax.scan(step, optimiser.init(jnp.zeros(1)), slopes)
    assert float(diagnostics(state).progress) == pytest.approx(right, rel=5e-3)


def test_a_run_that_has_arrived_cannot_tell():
    """A quadratic with symmetric noise, at its minimum: 20 runs, no alarm at any level."""
    optimiser = monitor(optax.adam(1e-2))

    def run(key):
        def step(carry, key):
            x, state = carry
            updates, state = optimiser.update(x + jax.random.normal(key, x.shape), state, x)
            return (x + updates, state), None

        start = jnp.zeros(64), optimiser.init(jnp.zeros(64))
        return jax.lax.scan(step, start, jax.random.split(key, 2500))[0][1]

    found = jax.vmap(diagnostics)(jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 20)))
    # a signal of three standard errors by chance: one in 700
    assert (answer(found) == 2).sum() >= 19
    assert not beta2_too_small(found, progress=0.95).any()


def test_noise_does_not_bias_progress_towards_one():
    """Skewed noise ten times the gradient, with replacement: the mean over 40 runs against NumPy.

    The direct estimate ⟨mean g, mean u⟩ would add the noise of the mean to both of its parts.
    """
    slopes = np.array([4.0, -0.5, -0.5, -0.5, -0.5, -0.5, -0.5, -0.5])  # mean 0.0625
    rng = np.random.default_rng(0)
    v, total, steps = np.ones(4000), 0.0, 3000
    for k in range(steps):
        g = slopes[rng.integers(0, 8, 4000)]
        v = 0.9 * v + 0.1 * g * g
        total += (g / np.sqrt(v)).mean() if k >= 100 else 0
    right = total / (steps - 100) / (slopes.mean() / np.sqrt((slopes**2).mean()))
    optimiser = monitor(optax.adam(1.0, b1=0.0, b2=0.9, eps=0.0))
    table = jnp.asarray(slopes, jnp.float32)

    def run(key):
        drawn = table[jax.random.randint(key, (1500, 400), 0, 8)]
        step = lambda state, g: (optimiser.update(g, state)[1], None)  # noqa: E731
        return diagnostics(jax.lax.scan(step, optimiser.init(jnp.zeros(400)), drawn)[0])

    found = jax.jit(jax.vmap(run))(jax.random.split(jax.random.key(0), 40))
    mean, stderr = float(found.progress.mean()), float(found.progress.std(ddof=1) / np.sqrt(40))
    assert right < 0
    # V shares its noise with g in one block of nine: 1/20 to 1/15 for noise as skewed; the ratio of
    # two means with a signal of 6 is 1/36 off
    assert mean == pytest.approx(right, abs=4 * stderr + 0.1 * abs(right))
    # the errors that are stated are those that are seen
    covered = np.abs(found.progress - mean) < 2 * found.progress_stderr
    assert covered.mean() >= 0.9
    assert (found.signal > 3).all()
    assert beta2_too_small(found).mean() >= 0.9


def test_steps_out_of_bounds_are_too_small_a_beta2():
    """β1 = 0.9 > √β2: gradients that fall silent leave m/√v growing like (β1/√β2)^k."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(600, 32)) + 0.3
    rows *= (np.arange(600) % 60 < 20)[:, None]  # silent for 40 of 60 steps

    def run(beta2):
        optimiser = monitor(optax.adam(1.0, b2=beta2))
        step = lambda state, g: (optimiser.update(g, state)[1], None)  # noqa: E731
        rows_ = jnp.asarray(rows, jnp.float32)
        return diagnostics(jax.lax.scan(step, optimiser.init(jnp.zeros(32)), rows_)[0])

    wild, tame = run(0.5), run(0.99)
    assert float(wild.step_size) > 10
    assert verdict(wild) == "too small"
    assert float(tame.step_size) < 1
    assert verdict(tame) != "too small"


@pytest.mark.parametrize("beta2", [0.5, 0.9])
def test_progress_has_the_value_of_the_drift_on_both_sides_of_the_boundary(beta2):
    """n = 20 cyclic, β1 = 0: the boundary is at 0.629. A loop of one's own, fed by hand."""
    table = counterexample_table(20)[:, 0]
    watched = monitor(optax.identity(), beta1=0.0, beta2=beta2, horizon=1600)
    step = lambda state, k: (  # noqa: E731
        watched.update(jnp.asarray(table, jnp.float32)[k % 20][None], state)[1],
        None,
    )
    state, _ = jax.lax.scan(step, watched.init(jnp.zeros(1)), jnp.arange(4000))
    found = diagnostics(state)
    drift = float(stationary_drift(table[:, None], adam.hyperparameters(0.0, beta2)).drift[0])
    limit = table.mean() / np.sqrt((table**2).mean())
    assert float(found.progress) == pytest.approx(-drift / 20 / limit, abs=2e-3)
    assert bool(beta2_too_small(found)) is (beta2 == 0.5)
    assert float(found.wrong_mass) == (1.0 if beta2 == 0.5 else 0.0)
    assert float(found.noise_ratio) == pytest.approx(
        (table**2).mean() / table.mean() ** 2, rel=1e-3
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
    update = jax.jit(watched.update)
    for _ in range(100):
        _, state = update(jnp.asarray(rng.normal(size=200), jnp.float32), state)
    # four variances: two standard errors, which one in twenty exceeds
    assert float(diagnostics(state).resolved) < 0.12
    assert verdict(diagnostics(state)) == "cannot tell"


_SHARDED = """
import jax, jax.numpy as jnp, numpy as np, optax
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from adam_transition.advise import diagnostics, monitor

optimiser = monitor(optax.adam(1.0, b2=0.9), num_coordinates=50)
rows = [np.random.default_rng(k).normal(size=(8, 6)).astype(np.float32) + 1 for k in range(20)]

def run(put):
    params = put(np.ones((8, 6), np.float32))
    state = jax.jit(optimiser.init)(params)
    step = jax.jit(lambda g, s, p: optimiser.update(g, s, p)[1])
    for row in rows:
        state = step(put(row), state, params)
    return [float(x) for x in diagnostics(state)]

alone = run(jnp.asarray)
auto = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Auto,))
split = NamedSharding(auto, P("d"))
np.testing.assert_allclose(run(lambda x: jax.device_put(x, split)), alone, rtol=1e-5)
explicit = jax.make_mesh((2,), ("d",), axis_types=(AxisType.Explicit,))
with jax.set_mesh(explicit):
    for spec in (P("d"), P(None, "d"), P()):
        one = lambda x: jax.device_put(x, NamedSharding(explicit, spec))
        np.testing.assert_allclose(run(one), alone, rtol=1e-5)
each = lambda x: jnp.stack([x, 2 * x])
state = jax.pmap(optimiser.init)(jnp.ones((2, 8, 6)))
step = jax.pmap(lambda g, s, p: optimiser.update(g, s, p)[1])
for row in rows:
    state = step(each(row), state, jnp.ones((2, 8, 6)))
np.testing.assert_allclose([float(x[0]) for x in jax.vmap(diagnostics)(state)], alone, rtol=1e-5)
print("same")
"""


def test_sharded_parameters():
    """Automatic and explicit axes, and pmap, on two devices: the same numbers as on one."""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", _SHARDED], capture_output=True, text=True, env=os.environ | flags
    )
    assert done.stdout == "same\n", done.stderr


def test_the_horizon_is_a_whole_number_of_blocks():
    """After 3 horizons of zeros and one of ones nothing of the zeros is left."""
    optimiser = monitor(optax.adam(1.0, b1=0.0, b2=0.9), horizon=2 * BLOCKS)
    state = optimiser.init(jnp.zeros(3))
    drawn = jnp.repeat(jnp.array([0.0, 1.0]), jnp.array([6, 2]) * BLOCKS)[:, None] * jnp.ones(
        (1, 3)
    )
    step = lambda state, g: (optimiser.update(g, state)[1], None)  # noqa: E731
    state, _ = jax.lax.scan(step, state, drawn)
    np.testing.assert_array_equal(_sums(state)["gradient"], 2 * BLOCKS)


def _over_runs(rows, beta2, beta1=0.9):
    """Diagnostics of runs on gradients [runs, steps, coordinates]."""
    optimiser = monitor(optax.adam(1.0, b1=beta1, b2=beta2))

    def run(drawn):
        step = lambda state, g: (optimiser.update(g, state)[1], None)  # noqa: E731
        return diagnostics(jax.lax.scan(step, optimiser.init(drawn[0]), drawn)[0])

    return jax.jit(lambda all_rows: jax.lax.map(run, all_rows))(jnp.asarray(rows, jnp.float32))


def test_sparse_gradients_are_never_called_fine():
    """1 with probability 1/125: progress is 0.476 (NumPy in float64), below one half.

    In nine blocks a coordinate is met four times: √V is badly known, and together with the
    gradient in a block. The error has to know of both.
    """
    rows = np.random.default_rng(0).random((2, 1500, 256)) < 1 / 125
    found = _over_runs(rows, 0.95)
    assert (answer(found) != 1).all()
    assert (np.abs(found.progress - 0.476) < 3 * found.progress_stderr).all()
    assert ((found.hits > 6) & (found.hits < 10)).all()
    np.testing.assert_allclose(found.unseen, 3e-3, rtol=0.1)


@pytest.mark.parametrize("n", [60, 400, 1000])
def test_rare_large_batches_are_never_called_fine(n):
    """One batch in n is met by all coordinates at once; the largest of them early in the run."""
    table = counterexample_table(n)[:, 0]
    rng = np.random.default_rng(0)
    rare = rng.integers(0, n, (4, 2000, 1)) == 0
    rare[:, 500] = True
    rows = np.where(rare, table[0], table[1] * rng.normal(1, 0.2, (4, 2000, 16)))
    found = _over_runs(rows, 0.95)
    assert (answer(found) != 1).all()
    assert (found.hits < 30).all()


def test_a_coordinate_that_is_lost_for_good_is_no_clean_bill():
    rows = np.random.default_rng(0).normal(0.5, 1, (2, 1500, 8))
    rows[1, 100:, 3] = np.nan
    found = _over_runs(rows, 0.95)
    assert found.lost.tolist() == [0, 0.125]
    assert answer(found).tolist() == [1, 2]


def test_what_is_no_diagnostics_is_refused():
    state = monitor(optax.adam(1.0)).init(jnp.zeros(3))
    found = jax.jit(diagnostics)(state)
    with pytest.raises(TypeError, match="found: needs what diagnostics"):
        verdict(state)
    with pytest.raises(TypeError, match="inner: needs an optax"):
        monitor(3)
    for progress in (np.nan, -1.0, 0.0, 5.0):
        with pytest.raises(ValueError, match=f"progress={progress}"):
            verdict(found, progress=progress)
    with pytest.raises(ValueError, match="found: of 2 runs at once; use answer"):
        verdict(jax.tree.map(lambda one: jnp.stack([one, one]), found))
