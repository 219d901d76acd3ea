"""Limit points: zeros of the drift field where they are known, and where simulations settle."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adam_transition import adam, problems, sampling, simulate
from adam_transition.theory.chains import draw_histories
from adam_transition.theory.limit_points import limit_points
from adam_transition.theory.stationary_drift import stationary_drift

RANGE = np.array([[-0.5], [1.5]])


@pytest.mark.parametrize(
    ("beta1", "beta2", "expected"),
    [(0.0, 0.5, 0.095653), (0.0, 0.9, 0.183596), (0.9, 0.99, 0.199842)],
)
def test_cyclic_limits_of_the_skewed_quadratics(beta1, beta2, expected):
    """Centres 0, 0, 0, 0, 1; the values were found by an independent program."""
    problem = problems.nonrealizable_quadratics(5)
    [point] = limit_points(problem, adam.hyperparameters(beta1, beta2), starts=RANGE)
    assert point.x[0] == pytest.approx(expected, abs=1e-6)
    assert point.attracting
    assert point.stderr[0] == 0
    assert point.gradient_norm == pytest.approx(0.2 - point.x[0])


@pytest.mark.parametrize("scheme", sampling.SAMPLINGS)
def test_sign_sgd_goes_to_the_median(scheme):
    problem = problems.quadratics([1.0] * 5, [0.0, 0.1, 0.3, 0.9, 1.0])
    [point] = limit_points(
        problem, adam.hyperparameters(0.0, 0.0), scheme, starts=RANGE,
        key=sampling.stream_key(0), num_samples=10_000,
    )  # fmt: skip
    assert point.x[0] == pytest.approx(0.3, abs=1e-9)
    assert point.gradient_norm == pytest.approx(0.46 - 0.3, abs=1e-9)


def test_symmetric_noise_has_no_bias():
    problem = problems.quadratics([1.0, 1.0], [-1.0, 1.0])
    for beta1, beta2 in ((0.0, 0.3), (0.5, 0.9)):
        for scheme in ("with_replacement", "random_shuffling"):
            [point] = limit_points(
                problem, adam.hyperparameters(beta1, beta2), scheme,
                starts=np.array([[-0.7], [0.9]]),
            )  # fmt: skip
            assert abs(point.x[0]) < 1e-12
            assert point.stderr[0] == 0


@pytest.mark.parametrize(
    ("beta1", "beta2", "expected"), [(0.0, 0.9, (0.16719, 6e-5)), (0.9, 0.99, (0.19725, 2e-5))]
)
def test_limits_with_replacement_of_the_skewed_quadratics(beta1, beta2, expected):
    """Against simulations of the slow flow, and against the root of the estimated drift."""
    problem, hyper = problems.nonrealizable_quadratics(5), adam.hyperparameters(beta1, beta2)
    [point] = limit_points(problem, hyper, "with_replacement", starts=RANGE)
    assert point.x[0] == pytest.approx(expected[0], abs=4 * expected[1])
    table = np.asarray(problems.component_gradients(problem, jnp.asarray(point.x), 5))
    histories = draw_histories(
        table, "with_replacement", sampling.stream_key(0), memory=1 / (1 - beta2),
        num_samples=1_000_000,
    )  # fmt: skip
    found = stationary_drift(table, hyper, "with_replacement", histories=histories)
    assert abs(found.drift[0]) < 4 * found.stderr[0]


@pytest.mark.parametrize("beta1", [0.0, 0.9])
def test_bias_with_replacement_to_first_order(beta1):
    """x̂ − x* = −½ κ3/σ² (1−β1)(1−β2)/(1−β1β2) for x − b: Cov(m, v) decays like (β1β2)^j."""
    beta2 = 0.99
    problem = problems.nonrealizable_quadratics(5)
    hyper = adam.hyperparameters(beta1, beta2)
    [point] = limit_points(problem, hyper, "with_replacement", starts=RANGE)
    bias = 0.5 * 0.096 / 0.16 * (1 - beta1) * (1 - beta2) / (1 - beta1 * beta2)
    assert point.x[0] == pytest.approx(0.2 - bias, abs=0.02 * bias)


@pytest.mark.parametrize(("beta2", "attracting"), [(0.5, False), (0.8, True)])
def test_minimiser_of_the_counterexample_changes_stability_at_the_boundary(beta2, attracting):
    """n = 20, β1 = 0, cyclic: the boundary is at β2 = 0.629."""
    [point] = limit_points(
        problems.counterexample(20),
        adam.hyperparameters(0.0, beta2),
        starts=np.array([[-3.1], [0]]),
    )
    assert point.x[0] == pytest.approx(-2, abs=1e-9)
    assert point.attracting is attracting


@pytest.mark.parametrize("scheme", ["cyclic", "random_shuffling"])
def test_stability_does_not_depend_on_where_the_search_began(scheme):
    """From the origin alone there is no scale but the distance that it went."""
    wanted = problems.ProblemClass(6, 1.0, 50.0, 30.0)
    key = sampling.stream_key(2)
    problem = problems.random_member(wanted, "nonrealizable_quadratics", 3, key).problem
    found = [
        limit_points(problem, adam.hyperparameters(0.5, 0.8), scheme, starts=starts)[0]
        for starts in (np.zeros((1, 3)), np.array([[0.0] * 3, [1.0] * 3]))
    ]
    np.testing.assert_allclose(found[0].x, found[1].x, rtol=1e-8)
    assert found[0].attracting
    assert found[1].attracting


@pytest.mark.parametrize("scheme", ["cyclic", "random_shuffling", "with_replacement"])
def test_simulations_settle_there(scheme):
    """Many dimensions: the mean over seeds of the late iterates, against its standard error."""
    wanted = problems.ProblemClass(6, 1.0, 50.0, 30.0)
    key = sampling.stream_key(2)
    problem = problems.random_member(wanted, "nonrealizable_quadratics", 3, key).problem
    hyper = adam.hyperparameters(0.5, 0.8)
    [point] = limit_points(
        problem, hyper, scheme, starts=np.asarray(problem.minimiser)[None], key=key,
        num_samples=400_000,
    )  # fmt: skip
    assert point.attracting
    bias = np.abs(point.x - problem.minimiser).max()
    num_steps = 200_000

    arrays = problems.as_arrays(problem, np.float32)

    def settle(key):
        trace = simulate.simulate(
            arrays, hyper, arrays.minimiser, 0.1, key, method=simulate.Method(scheme),
            num_steps=num_steps, record_every=6, max_components=6,
        )  # fmt: skip
        return trace.x[trace.x.shape[0] // 2 :].mean(axis=0)

    num_seeds = 1 if scheme == "cyclic" else 32
    keys = jnp.stack([sampling.stream_key(seed) for seed in range(num_seeds)])
    settled = np.asarray(jax.jit(jax.vmap(settle))(keys))
    noise = settled.std(axis=0, ddof=1) / np.sqrt(num_seeds) if num_seeds > 1 else 0.0
    error = 4 * np.hypot(noise, point.stderr)
    # steps are not infinitely small: 2 % of the bias for that
    assert (np.abs(settled.mean(axis=0) - point.x) < error + 0.02 * bias).all()
    assert bias > 8 * error.max()


def test_standard_errors_are_honest():
    """Of the zeros from 10 keys about two thirds lie within one standard error of their mean."""
    # ten components that differ have too many orders for the exact drift
    problem = problems.quadratics(
        [1.0] * 10, [0.0, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07, 0.9, 1]
    )
    found = [
        limit_points(
            problem, adam.hyperparameters(0.3, 0.8), "random_shuffling", starts=RANGE,
            key=sampling.stream_key(seed), num_samples=20_000,
        )[0]
        for seed in range(10)
    ]  # fmt: skip
    x = np.array([point.x[0] for point in found])
    claimed = np.sqrt(np.mean([point.stderr[0] ** 2 for point in found]))
    assert 0.6 < x.std(ddof=1) / claimed < 1.6


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"starts": np.zeros(3)}, "starts of shape"),
        ({"starts": np.zeros((1, 1))}, "in one dimension two must differ"),
        ({"starts": RANGE, "sampling": "sorted"}, "sampling='sorted' is not one of"),
        ({"starts": RANGE, "sampling": "random_shuffling"}, "needs a key"),
        ({"starts": RANGE, "sampling": "shuffle_once"}, "needs a key"),
    ],
)
def test_errors_name_the_argument(kwargs, message):
    problem = problems.quadratics([1.0] * 12, np.linspace(0, 1, 12).tolist())
    with pytest.raises(ValueError, match=message):
        limit_points(problem, adam.hyperparameters(0, 0.5), **kwargs)


def test_epsilon_counts():
    """Far below ε the drift is −n ∇f/ε, so the bias of skewed noise vanishes."""
    problem = problems.nonrealizable_quadratics(5)
    hyper = adam.hyperparameters(0.0, 0.5)
    for scheme in ("cyclic", "with_replacement"):
        [without] = limit_points(problem, hyper, scheme, starts=RANGE)
        [little] = limit_points(problem, hyper._replace(epsilon=1e-9), scheme, starts=RANGE)
        [large] = limit_points(problem, hyper._replace(epsilon=1e6), scheme, starts=RANGE)
        assert little.x[0] == pytest.approx(without.x[0], abs=1e-7)
        assert large.x[0] == pytest.approx(0.2, abs=1e-5)
        table = large.x - np.array([0.0, 0.0, 0.0, 0.0, 1.0])[:, None]
        drift = stationary_drift(table, hyper._replace(epsilon=1e6), scheme).drift
        assert abs(drift[0]) < 1e-15


def test_with_epsilon_the_minimiser_attracts_within_two_zeros_that_do_not():
    """n = 20, β1 = 0, β2 = 0.5: D points away from x* = −2 until the gradients come down to ε."""
    problem, starts = problems.counterexample(20), np.array([[-3.1], [0.0]])
    for epsilon in (1e-3, 1e-7):
        hyper = adam.hyperparameters(0.0, 0.5, epsilon=epsilon)
        found = limit_points(problem, hyper, starts=starts)
        assert [point.attracting for point in found] == [False, True, False]
        left, middle, right = (point.x[0] for point in found)
        assert middle == pytest.approx(-2, abs=1e-3 * epsilon)
        assert right + 2 == pytest.approx(-2 - left, rel=1e-4)
        # the gradients are G·(x + 2), and D sees them beside ε alone
        assert right + 2 == pytest.approx(_unit_of_epsilon() * epsilon, rel=1e-4)


def _unit_of_epsilon():
    """z with D(zG, ε = 1) = 0, by bisection."""
    table = problems.component_gradients(problems.counterexample(20), jnp.zeros(()), 20)
    table = np.asarray(table, np.float64)[:, None]
    hyper = adam.hyperparameters(0.0, 0.5, epsilon=1.0)
    low, high = 1e-3, 1e6
    for _ in range(60):
        middle = (low * high) ** 0.5
        away = stationary_drift(middle * table, hyper).drift[0] > 0
        low, high = (low, middle) if away else (middle, high)
    return high


@pytest.mark.parametrize("scheme", ["cyclic", "with_replacement"])
def test_hyperparameters_that_mean_nothing_are_refused(scheme):
    problem = problems.nonrealizable_quadratics(5)
    for hyper, name in (
        (adam.Hyperparameters(0.0, 0.5), "one_minus_beta1=0"),
        (adam.Hyperparameters(0.5, np.nan), "one_minus_beta2=nan"),
        (adam.Hyperparameters(0.5, 0.5, np.inf), "epsilon=inf"),
    ):
        with pytest.raises(ValueError, match=name):
            limit_points(problem, hyper, scheme, starts=RANGE)


def test_arrays_of_hyperparameters_are_refused():
    problem = problems.nonrealizable_quadratics(5)
    hyper = adam.hyperparameters(np.array([0.0, 0.5]), 0.9)
    with pytest.raises(ValueError, match=r"one_minus_beta1 of shape \(2,\): needs a number"):
        limit_points(problem, hyper, starts=RANGE)


def test_where_gradients_vanish_there_is_no_limit_point():
    """Bumps around 0, 0, 1: far away the gradients underflow, and D is 0 or tiny."""
    bumps = problems.from_loss(lambda x, b: 1 - jnp.exp(-((x - b) ** 2) / 2), np.array([0.0, 0, 1]))
    hyper = adam.hyperparameters(0.0, 0.9)
    [point] = limit_points(bumps, hyper, starts=np.array([[-60.0], [60.0]]))
    assert point.x[0] == pytest.approx(0.2773, abs=1e-4)
