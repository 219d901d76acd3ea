"""Wrong shapes that would broadcast, or be clipped, are refused where they come in."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adam_transition import adam, kernels, problems, sampling, simulate
from adam_transition.advise import field
from adam_transition.networks import outcomes
from adam_transition.theory import chains, concentration, cyclic, random_sampling

HYPER = adam.hyperparameters(0.9, 0.99)


class _Moments:
    """A container as users bring them: a pytree that is equal to nothing but itself."""

    def __init__(self, weight):
        self.weight = weight


jax.tree_util.register_pytree_node(
    _Moments, lambda node: ((node.weight,), None), lambda _, children: _Moments(*children)
)


class _Pair(NamedTuple):
    weight: np.ndarray
    bias: np.ndarray


@pytest.mark.parametrize("shape", [(1,), (), (2, 3)])
def test_gradients_have_the_shapes_of_the_moments(shape):
    state = adam.init(_Pair(jnp.zeros(3), jnp.zeros(2)))
    with pytest.raises(ValueError, match=r"grads .*, first \(3,\)"):
        adam.update(_Pair(jnp.ones(shape), jnp.ones(2)), state, HYPER)
    transformation = adam.scale_by_adam(HYPER)
    with pytest.raises(ValueError, match="need equal shapes"):
        transformation.update(_Pair(jnp.ones(shape), jnp.ones(2)), state)


def test_containers_need_not_compare_equal():
    params = _Moments(jnp.ones(3))
    direction, state = adam.update(_Moments(jnp.ones(3)), adam.init(params), HYPER)
    np.testing.assert_allclose(direction.weight, 0.1 / np.sqrt(0.01), rtol=1e-6)
    assert isinstance(state.first, _Moments)


def _run(num_rows=None, **changed):
    settings = {
        "method": simulate.Method("with_replacement"), "num_steps": 40, "record_every": 10,
        "max_components": 5,
    }  # fmt: skip
    key, start = sampling.stream_key(0), jnp.float32(1)
    if num_rows is None:
        problem = problems.as_arrays(problems.counterexample(5), np.float32)
        return simulate.simulate(problem, HYPER, start, 0.1, key, **settings, **changed)
    problem = problems.stack([problems.counterexample(5)] * num_rows, np.float32)
    hyper = adam.Hyperparameters(*(jnp.full((num_rows, 3), value) for value in (0.1, 0.01)))
    rows = {"x0": jnp.ones(num_rows), "initial_step_size": jnp.full(num_rows, 0.1)} | changed
    keys = jnp.stack([key] * num_rows)
    return kernels.simulate_table(problem, hyper, key=keys, kernel="cpu", **rows, **settings)


def test_each_component_has_its_control():
    assert _run(controls=jnp.zeros(5)).control.shape == (4,)
    for shape in ((), (1,), (4,), (6,), (5, 1)):
        with pytest.raises(ValueError, match=r"controls of shape"):
            _run(controls=jnp.zeros(shape))


def test_each_row_of_a_table_has_its_arguments():
    assert _run(2, controls=jnp.zeros((2, 5))).x.shape == (2, 3, 4)
    for name, shape in (
        ("x0", (1,)), ("x0", ()), ("initial_step_size", (1,)), ("initial_step_size", (2, 3)),
        ("controls", (1, 5)), ("controls", (2, 4)), ("controls", (5,)),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=f"{name} of shape"):
            _run(2, **{name: jnp.ones(shape)})


def test_each_record_has_its_step_size():
    trace, problem = _run(), problems.counterexample(5)
    simulate.judge(trace, problem, step_sizes=jnp.full(4, 0.1))
    for shape in ((), (1,), (5,)):
        with pytest.raises(ValueError, match="step_sizes of shape"):
            simulate.judge(trace, problem, step_sizes=jnp.full(shape, 0.1))


@pytest.mark.parametrize(
    "call",
    [
        partial(cyclic.cyclic_drift, jnp.ones(5), 5, adam.Hyperparameters(np.ones(2), np.ones(2))),
        partial(cyclic.cyclic_drift, jnp.ones((5, 1)), 5, HYPER),
        partial(
            cyclic.cyclic_drift, jnp.ones((5, 1)), 5, adam.Hyperparameters(np.ones(2), np.ones(1))
        ),
        partial(
            concentration.second_moments, np.ones(5), 0.1, sampling.stream_key(0), num_samples=64
        ),
        partial(
            concentration.second_moments, np.full((5, 1), np.nan), 0.1, sampling.stream_key(0),
            num_samples=64,
        ),
        partial(outcomes.window, np.array([0.1, 0.2, 0.3]), np.ones((4, 2)), 2.3),
        partial(outcomes.window, np.array([0.1, 0.2, 0.3]), np.ones(3), 2.3),
        partial(outcomes.exponents, np.ones((4, 1)), np.ones((2, 3))),
        partial(outcomes.trend, np.ones(4), np.ones((2, 1))),
        partial(field.steps, np.ones(5), 0.1, np.ones(3), 0.0, np.full((2, 5), 0.2)),
        partial(field.steps, np.ones(5), 0.1, np.ones(3), 0.0, np.full((1, 4), 0.25)),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit_together_are_refused(call):
    with pytest.raises(AssertionError):
        call()


@pytest.mark.parametrize("name", ["cyclic", "shuffle_once"])
def test_what_is_random_about_a_scheme_is_not_asked_of_a_fixed_order(name):
    with pytest.raises(ValueError, match=name):
        random_sampling.num_states(np.ones(3), name)
    with pytest.raises(ValueError, match=name):
        chains.draw_histories(
            np.ones((3, 1)), name, sampling.stream_key(0), memory=10.0, num_samples=10
        )
