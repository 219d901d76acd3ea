"""Trajectories: against a step-by-step reference, among themselves, and their verdict."""

import itertools
import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adam_transition import adam, problems, sampling
from adam_transition.optimizers import rules
from adam_transition.problems.constructions import counterexample_table
from adam_transition.simulate import Method, Trace, judge, simulate
from adam_transition.theory.stationary_drift import stationary_drift

KEY_SEED = 5


def _simulate(problem, beta1, beta2, x0, *, dtype=np.float64, eta=0.1, seed=KEY_SEED, **kwargs):
    settings = {"method": Method(), "num_steps": 200, "record_every": 7, "max_components": 12}
    settings |= kwargs
    return _compiled(
        problems.as_arrays(problem, dtype),
        adam.Hyperparameters(dtype(1 - beta1), dtype(1 - beta2)),
        jnp.asarray(x0, dtype),
        dtype(eta),
        sampling.stream_key(seed),
        **settings,
    )


_compiled = jax.jit(
    simulate, static_argnames=("method", "num_steps", "record_every", "max_components")
)


def _reference(gradient, project, stream, beta1, beta2, x0, eta, method, n):
    """Algorithm 1 in NumPy, step by step; `gradient(i, x)` is written by hand."""
    x = np.array(x0, np.float64)
    m, v = np.zeros_like(x), np.zeros_like(x)
    if method.initialization == "first_gradient":
        table = np.array([gradient(i, x) for i in range(n)])
        m, v = table.mean(0), (table**2).max(0)
    iterates = []
    for k, i in enumerate(stream):
        g = gradient(i, x)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        m_hat, v_hat = m, v
        if method.initialization == "bias_correction":
            m_hat, v_hat = m / (1 - beta1 ** (k + 1)), v / (1 - beta2 ** (k + 1))
        count = {"constant": 1, "inverse_sqrt": k + 1, "inverse_sqrt_epoch": k // n + 1}
        step = np.divide(m_hat, np.sqrt(v_hat), out=np.zeros_like(x), where=np.asarray(v_hat > 0))
        x = project(x - eta / math.sqrt(count[method.schedule]) * step)
        iterates.append(x)
    return np.array(iterates)


def _counterexample_gradient(n, a, i, x):
    slope = 1 + (n - 1) * a if i == 0 else -a
    return np.array(slope if x >= -1 else slope * (x + 2))


CASES = [
    *itertools.product(
        sampling.SAMPLINGS, ["inverse_sqrt"], ["zero", "first_gradient", "bias_correction"]
    ),
    ("random_shuffling", "inverse_sqrt_epoch", "zero"),
    ("cyclic", "constant", "zero"),
]


@pytest.mark.parametrize(("scheme", "schedule", "initialization"), CASES)
def test_equals_a_step_by_step_reference(scheme, schedule, initialization):
    method, n, a, num_steps = Method(scheme, schedule, initialization), 6, 0.2, 200
    key = sampling.stream_key(KEY_SEED)
    stream = np.asarray(sampling.indices(scheme, key, 0, num_steps, n, max_components=12))
    with jax.enable_x64(True):
        for (beta1, beta2), x0 in itertools.product([(0, 0.3), (0.9, 0.95)], [1.0, -3.0]):
            trace = _simulate(
                problems.counterexample(n, a), beta1, beta2, x0, method=method, record_every=1
            )
            gradient = partial(_counterexample_gradient, n, a)
            expected = _reference(gradient, lambda x: x, stream, beta1, beta2, x0, 0.1, method, n)
            np.testing.assert_allclose(trace.x, expected, rtol=1e-9, atol=1e-9)
            np.testing.assert_array_equal(trace.step, np.arange(1, num_steps + 1))


def test_equals_the_reference_in_many_dimensions_and_with_projection():
    rng = np.random.default_rng(0)
    roots, centres = rng.normal(size=(5, 3, 3)), rng.normal(size=(5, 3))
    hessians = roots @ roots.transpose(0, 2, 1)
    stream = np.arange(200) % 5
    with jax.enable_x64(True):
        trace = _simulate(problems.quadratics(hessians, centres), 0.9, 0.99, np.ones(3))
        expected = _reference(
            lambda i, x: hessians[i] @ (x - centres[i]),
            lambda x: x, stream, 0.9, 0.99, np.ones(3), 0.1, Method(), 5,
        )  # fmt: skip
        np.testing.assert_allclose(trace.x, expected[np.asarray(trace.step) - 1], rtol=1e-9)
        trace = _simulate(problems.reddi(5), 0, 0.5, 0.0, eta=1.0)
        expected = _reference(
            lambda i, x: np.array(5.0 if i == 0 else -1.0),
            lambda x: np.clip(x, -1, 1), stream, 0, 0.5, 0.0, 1.0, Method(), 5,
        )  # fmt: skip
        np.testing.assert_allclose(trace.x, expected[np.asarray(trace.step) - 1], rtol=1e-9)


@pytest.mark.parametrize("record_every", [1, 3, 50, 200, 1000])
def test_records_do_not_disturb_the_run(record_every):
    reference = _simulate(problems.counterexample(5), 0.3, 0.6, 1.0, dtype=np.float32)
    trace = _simulate(
        problems.counterexample(5), 0.3, 0.6, 1.0, dtype=np.float32, record_every=record_every
    )
    assert len(trace.step) == math.ceil(200 / record_every)
    assert trace.step[-1] == 200
    np.testing.assert_allclose(trace.x[-1], reference.x[-1], rtol=1e-6)


@pytest.mark.parametrize("scheme", sampling.SAMPLINGS)
def test_vmapped_cells_are_single_cells(scheme):
    """Over (β1, β2, n, a, x0, seed) at once; to rounding, as the programs differ in shape."""
    rng = np.random.default_rng(1)
    cells = 12
    beta1, beta2, x0 = rng.random(cells) * 0.9, rng.random(cells), rng.uniform(-4, 2, cells)
    ns, a = rng.integers(3, 12, cells), rng.uniform(0.01, 0.5, cells)
    method = Method(scheme)
    with jax.enable_x64(True):
        members = [problems.counterexample(int(n), float(one)) for n, one in zip(ns, a)]
        zeros = jnp.zeros((2, cells))
        keys = jnp.stack([sampling.stream_key(seed) for seed in range(cells)])
        together = jax.vmap(
            partial(simulate, method=method, num_steps=200, record_every=7, max_components=12),
            in_axes=(0, 0, 0, None, 0),
        )(
            problems.stack(members, jnp.float64),
            adam.Hyperparameters(*(jnp.array(1 - beta) for beta in (beta1, beta2)), *zeros),
            jnp.array(x0),
            0.1,
            keys,
        )
        for i, member in enumerate(members):
            alone = _simulate(member, beta1[i], beta2[i], x0[i], seed=i, method=method)
            np.testing.assert_allclose(together.x[i], alone.x, rtol=1e-9, atol=1e-9)


def test_a_cell_that_overflows_harms_no_other():
    """The same program, with and without a wild cell: the others keep their bits."""
    problem = problems.as_arrays(problems.realizable_quadratics(5), jnp.float32)

    @jax.jit
    def run(eta):
        return jax.vmap(
            partial(
                simulate,
                method=Method(schedule="constant"),
                num_steps=300,
                record_every=300,
                max_components=5,
            ),
            in_axes=(None, None, None, 0, None),
        )(problem, adam.hyperparameters(0.999, 0.1), jnp.ones(1), eta, sampling.stream_key(0)).x

    eta = jnp.full(64, 0.01)
    calm, wild = run(eta), run(eta.at[7].set(jnp.inf).at[20].set(1e38))
    others = np.delete(np.arange(64), [7, 20])
    assert not np.isfinite(wild[7]).all()
    np.testing.assert_array_equal(wild[others], calm[others])


def test_a_cell_that_reaches_the_minimiser_stays():
    trace = _simulate(problems.counterexample(5), 0, 0.99, -2.0, dtype=np.float32)
    np.testing.assert_array_equal(trace.x, -2.0)


# --- the verdict -----------------------------------------------------------------------------


def _verdict(gaps, *, neighbourhood=0.0, arrival=0.0, memory=1.0, n=3):
    gaps = jnp.asarray(gaps)
    steps = jnp.arange(1, len(gaps) + 1) * 10
    return judge(
        Trace(steps, gaps - 2.0),
        problems.counterexample(n),
        step_sizes=0.03 / jnp.sqrt(steps),
        neighbourhood=neighbourhood,
        arrival=arrival,
        memory=memory,
    )


K = np.arange(1, 101) / 100
NOISE = 1e-3 * np.sin(np.arange(100) * 2.4)


@pytest.mark.parametrize(
    ("gaps", "neighbourhood", "verdict"),
    [
        (3 + np.sqrt(K), 0.0, "diverged"),
        (3 + 0.05 * np.sqrt(K), 0.0, "diverged"),
        (3 - np.sqrt(K), 0.0, "converged"),
        (3 - 0.05 * np.sqrt(K), 0.0, "converged"),
        (3 - np.sqrt(K) + NOISE, 0.0, "converged"),
        (3 + 1e-3 * np.sqrt(K), 0.0, "undecided"),  # less than a step
        (3 + NOISE, 0.0, "undecided"),
        (np.full(100, 2.0), 0.0, "undecided"),  # it stands still
        (np.zeros(100), 0.0, "converged"),  # arrived
        (np.full(100, 5e-4), 0.0, "converged"),  # within one step
        (np.full(100, 0.1), 0.3, "converged"),  # settled
        (0.1 + np.exp(-50 * K) + NOISE, 3.0, "converged"),  # settled in a neighbourhood
        (0.1 + np.exp(-50 * K) + NOISE[::-1], 3.0, "converged"),
        (np.full(100, 4.0), 3.0, "undecided"),  # farther out than it began, but at rest
        (2 + np.sqrt(K) / 2, 3.0, "undecided"),  # on its way out, but nearer than it began
        (3 + np.sqrt(K), 3.0, "diverged"),
        (np.where(K < 0.5, 1.0, np.nan), 0.0, "diverged"),
        (np.where(K < 0.5, 1.0, np.inf), 0.0, "diverged"),
        ([3.0], 0.0, "undecided"),  # too few records
        ([3.0, 2.9], 0.0, "undecided"),
        ([3.0, 3.1, 3.2], 0.0, "undecided"),
        ([3.0, np.inf], 0.0, "diverged"),
        ([3.0, 0.0], 0.0, "undecided"),  # it may pass
    ],
)
def test_verdict_of_a_known_course(gaps, neighbourhood, verdict):
    found = _verdict(gaps, neighbourhood=neighbourhood)
    assert bool(found.diverged) == (verdict == "diverged")
    assert bool(found.undecided) == (verdict == "undecided")


def test_a_batch_shorter_than_an_epoch_or_than_the_memory_of_m_decides_nothing():
    gaps = 3 + np.sqrt(K)
    assert _verdict(gaps, memory=60.0).diverged
    assert _verdict(gaps, memory=70.0).undecided
    assert _verdict(gaps, n=60).diverged
    assert _verdict(gaps, n=70).undecided


def test_a_run_that_once_arrived_has_not_diverged():
    """It was thrown away, and is on its way back."""
    gaps = np.where(K < 0.4, 3 - 7.4 * K, 50 - K)
    found = _verdict(gaps, arrival=0.3)
    assert not found.diverged
    assert not found.undecided
    assert _verdict(gaps).undecided  # its mean speed is that of one throw


def test_a_run_that_came_near_and_left_has_diverged():
    gaps = np.abs(6 * K - 2)
    assert _verdict(gaps, arrival=0.3).diverged


@pytest.mark.parametrize("x0", [1.0, -0.5, -3.0])
@pytest.mark.parametrize("beta2", [0.5, 0.6, 0.66, 0.75])
def test_verdict_on_the_counterexample_on_both_sides_of_its_boundary(x0, beta2):
    """n = 20, a = 1/361, β1 = 0, cyclic: the exact boundary is 0.62923."""
    problem, num_steps = problems.counterexample(20), 50_000
    trace = _simulate(
        problem, 0, beta2, x0, dtype=np.float32, num_steps=num_steps, record_every=782,
        max_components=20,
    )  # fmt: skip
    step_sizes = adam.step_size("inverse_sqrt", 0.1, trace.step - 1)
    verdict = judge(trace, problem, step_sizes=step_sizes, arrival=abs(x0 + 2) / 10)
    assert bool(verdict.diverged) == (beta2 < 0.62923)
    assert float(verdict.gap) == pytest.approx(abs(float(trace.x[-1]) + 2))


@pytest.mark.parametrize("beta2", [0.3, 0.5, 0.6])
def test_speed_is_the_stationary_drift_per_step(beta2):
    """While x > −1 the gap grows by η_k·D/n a step, the accumulated transient aside."""
    problem, num_steps = problems.counterexample(20), 50_000
    settings = {"num_steps": num_steps, "record_every": 780, "max_components": 20}
    trace = _simulate(problem, 0, beta2, 1.0, dtype=np.float32, **settings)
    step_sizes = adam.step_size("inverse_sqrt", 0.1, trace.step - 1)
    verdict = judge(trace, problem, step_sizes=step_sizes)
    drift = stationary_drift(counterexample_table(20), adam.hyperparameters(0, beta2)).drift
    assert float(verdict.speed) == pytest.approx(float(drift[0]) / 20, rel=2e-3)


def test_limit_point_beside_the_minimiser():
    """f_i = ½(x − b_i)², b = 0, 0, 0, 0, 1, cyclic, (0, 0.5): x → 0.095653, not 0.2."""
    problem = problems.nonrealizable_quadratics(5)
    with jax.enable_x64(True):
        trace = _simulate(problem, 0, 0.5, [1.0], num_steps=2_000_000, record_every=100_000)
    assert float(trace.x[-1, 0]) == pytest.approx(0.095653, abs=2e-4)


def _run(problem=None, hyper=None, x0=1.0, step_size=0.1, **changed):
    settings = {"method": Method(), "num_steps": 5, "record_every": 5, "max_components": 5}
    return simulate(
        problems.counterexample(5) if problem is None else problem,
        adam.hyperparameters(0.5, 0.9) if hyper is None else hyper,
        x0, step_size, sampling.stream_key(0), **{**settings, **changed},
    )  # fmt: skip


AT_0 = problems.from_loss(lambda x, a: a * x * x, np.linspace(0.1, 1, 5), minimiser=0.0)
IN_A_BOX = problems.from_loss(
    lambda x, a: a * x * x, np.linspace(0.1, 1, 5), minimiser=0.0, bounds=(-2, 2)
)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_steps": 0}, "num_steps=0: must be an integer in"),
        ({"num_steps": -5}, "num_steps=-5: must be an integer in"),
        ({"record_every": 2.5}, "record_every=2.5: must be an integer in"),
        ({"method": "cyclic"}, "method='cyclic': must be a simulate.Method"),
        ({"hyper": (0.5, 0.5)}, "hyper=.*: must be an adam.Hyperparameters"),
        ({"record_every": 0}, "record_every=0: must be an integer in"),
        ({"max_components": 4}, "max_components=4: must be at least n=5"),
        ({"step_size": float("nan")}, "initial_step_size=nan: must be finite, above 0"),
        ({"step_size": -0.1}, "initial_step_size=-0.1: must be finite, above 0"),
        ({"x0": [1.0, 2.0]}, r"x0 of shape \(2,\): must be a point of shape \(\)"),
        ({"x0": float("nan")}, "x0=nan: must be finite in float32"),
        ({"x0": 1e300}, "x0=1e.300: must be finite in float32"),
        ({"method": Method(initialization="warm")}, "initialization='warm' is not one of zero"),
        ({"method": Method(schedule="linear")}, "schedule='linear' is not one of constant"),
        ({"method": Method("sorted")}, "sampling='sorted' is not one of cyclic"),
        ({"hyper": adam.Hyperparameters(0.0, 0.5)}, "one_minus_beta1=0: must be finite, above 0"),
        ({"hyper": adam.Hyperparameters(0.5, -1.0)}, "one_minus_beta2=-1: must be"),
        ({"hyper": adam.Hyperparameters(0.5, float("nan"))}, "one_minus_beta2=nan: must be"),
        ({"hyper": adam.Hyperparameters(0.5, 1.5)}, "one_minus_beta2=1.5: .* at most 1"),
        ({"hyper": adam.Hyperparameters(0.5, 0.5, float("inf"))}, "epsilon=inf: must be finite"),
        ({"moves_unit": True}, "moves_unit=True: needs a problem with its minimiser at 0"),
        (
            {"moves_unit": True, "problem": AT_0, "method": Method(rule=rules.LION)},
            "moves_unit=True: needs Adam's rule",
        ),
        (
            {
                "moves_unit": True,
                "problem": AT_0,
                "method": Method(schedule="constant", initialization="bias_correction"),
            },
            "moves_unit=True: needs moments without bias correction",
        ),
        (
            {"moves_unit": True, "problem": AT_0, "x0": jnp.float16(1)},
            "moves_unit=True: needs iterates of type float32 or float64",
        ),
        (
            {"moves_unit": True, "problem": IN_A_BOX},
            "moves_unit=True: needs a problem without a constraint",
        ),
    ],
)
def test_arguments_that_mean_nothing_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        _run(**arguments)


def test_a_start_may_be_an_integer():
    np.testing.assert_array_equal(_run(x0=1).x, _run(x0=1.0).x)


def test_a_start_may_be_a_number():
    runs = [
        simulate(
            problems.counterexample(5), adam.hyperparameters(0.5, 0.9), x0, 0.1,
            sampling.stream_key(0), method=Method(), num_steps=5, record_every=5, max_components=5,
        )
        for x0 in (1.0, jnp.float32(1.0))
    ]  # fmt: skip
    np.testing.assert_array_equal(runs[0].x, runs[1].x)
