"""The update rule of a method: Adam is one of them, and others go through both paths."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adam_transition import adam, kernels, problems, sampling, simulate


class _SignState(NamedTuple):
    first: jax.Array
    step: jax.Array


def _init(x):
    return _SignState(jnp.zeros_like(x), jnp.zeros((), jnp.int32))


def _update(gradient, state, hyper, *, bias_correction):
    del bias_correction
    first = state.first + hyper.one_minus_beta1 * (gradient - state.first)
    return jnp.sign(first), _SignState(first, state.step + 1)


SIGN_MOMENTUM = adam.UpdateRule(
    _init, lambda full, _: _SignState(full, jnp.int32(0)), _update, lambda _: jnp.array(False)
)
P = np.array([1.0, 0.5, 0.1], np.float32)


def _settings(rule):
    return {
        "method": simulate.Method("cyclic", rule=rule), "num_steps": 60, "record_every": 20,
        "max_components": 5,
    }  # fmt: skip


def _trace(rule, p, q):
    problem = problems.as_arrays(problems.counterexample(5), np.float32)
    hyper = adam.Hyperparameters(p, q)
    key = sampling.stream_key(0)
    return simulate.simulate(problem, hyper, jnp.float32(1.0), 0.1, key, **_settings(rule))


def _by_hand(p):
    x, m, slopes = 1.0, 0.0, problems.counterexample_table(5)[:, 0]
    for k in range(60):
        m += p * (slopes[k % 5] * min(x + 2, 1) - m)
        x -= 0.1 / np.sqrt(k + 1) * np.sign(m)
    return x


def test_another_rule_runs_as_by_hand():
    last = [float(_trace(SIGN_MOMENTUM, p, 1.0).x[-1]) for p in P]
    np.testing.assert_allclose(last, [_by_hand(float(p)) for p in P], rtol=1e-5)


@pytest.mark.parametrize("rule", [adam.ADAM, SIGN_MOMENTUM])
def test_the_kernel_runs_it_too(rule):
    q = np.full(3, 0.1, np.float32)
    expected = jax.vmap(lambda p, q: _trace(rule, p, q).x)(P, q)
    found = kernels.simulate_table(
        problems.stack([problems.counterexample(5)], np.float32),
        adam.Hyperparameters(jnp.asarray(P)[None], jnp.asarray(q)[None], 0.0),
        jnp.ones(1), jnp.full(1, 0.1), sampling.stream_key(0)[None], kernel="cpu",
        **_settings(rule),
    )  # fmt: skip
    np.testing.assert_allclose(found.x[0], expected, rtol=1e-5)
