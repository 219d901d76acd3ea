"""The least D1: the exact infimum for Sign-SGD, and what optimisation finds for Adam."""

from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adam_transition import adam, problems, sampling, simulate
from adam_transition.problems.constructions import counterexample_table
from adam_transition.theory.cyclic import cyclic_drift
from adam_transition.theory.least_d1 import least_d1, sign_sgd_certificate, sign_sgd_infimum
from adam_transition.theory.stationary_drift import stationary_drift


@given(st.lists(st.fractions(-3, 3), min_size=3, max_size=9))
def test_no_table_on_which_sign_sgd_diverges_reaches_the_infimum(slopes):
    if sum(slopes) > 0:
        certificate = sign_sgd_certificate(slopes)
        drift, d1 = certificate
        assert drift == sum(s < 0 for s in slopes) - sum(s > 0 for s in slopes)
        assert d1 >= len(slopes)
        if drift > 0:
            assert d1 > sign_sgd_infimum(len(slopes))


@given(st.integers(3, 40))
def test_the_infimum_is_approached_and_far_below_the_papers_condition(n):
    for a in (Fraction(1, 10**3), Fraction(1, 10**9)):
        certificate = sign_sgd_certificate(problems.sign_counterexample(n, a).slopes)
        assert certificate.drift == n - 2 * ((n - 1) // 2)
        assert 1 < certificate.d1 / sign_sgd_infimum(n) < 1 + 3 * n * a
    assert n < sign_sgd_infimum(n) <= n**2 < 2 * n**2


def test_certificate_is_the_drift_of_adam_at_the_corner():
    slopes = problems.sign_counterexample(8, Fraction(1, 50)).slopes
    table = np.array([[float(slope)] for slope in slopes])
    for scheme in sampling.SAMPLINGS:
        found = stationary_drift(
            table,
            adam.hyperparameters(0, 0),
            scheme,
            key=sampling.stream_key(0),
            num_samples=10_000,
        )
        assert found.drift[0] == pytest.approx(sign_sgd_certificate(slopes).drift)


def test_gradient_of_the_drift_is_that_of_finite_differences():
    with jax.enable_x64(True):
        slopes = jnp.array([1.3, 0.2, -0.1, -0.3, -0.1])
        hyper = adam.Hyperparameters(jnp.array([0.4]), jnp.array([0.3]))

        def drift(slopes):
            return cyclic_drift(slopes[:, None], 5, hyper)[0, 0]

        gradient, step = jax.grad(drift)(slopes), 1e-6
        for i in range(5):
            change = drift(slopes.at[i].add(step)) - drift(slopes.at[i].add(-step))
            assert float(gradient[i]) == pytest.approx(float(change) / (2 * step), rel=1e-6)
        assert float(gradient @ slopes) == pytest.approx(0, abs=1e-12)  # Adam sees no scale


@pytest.mark.parametrize(("beta1", "beta2"), [(0.0, 0.1), (0.0, 0.5), (0.5, 0.3)])
def test_least_d1_against_a_search_of_the_whole_plane_at_n_3(beta1, beta2):
    """Tables of three slopes with sum 1 are a plane: no point of a fine grid does better."""
    found = least_d1(3, beta1, beta2)
    assert found.drift >= 0
    assert found.d1 == pytest.approx(9 * float(found.slopes @ found.slopes))
    assert found.slopes.sum() == pytest.approx(1)
    hyper = adam.hyperparameters(beta1, beta2)
    assert float(stationary_drift(found.slopes[:, None], hyper).drift[0]) >= 0
    radius = np.sqrt(found.d1 / 9)
    side = np.linspace(-radius, radius, 601)
    with jax.enable_x64(True):
        x, y = (axis.ravel() for axis in np.meshgrid(side, side))
        tables = jnp.stack([x, y, 1 - x - y], axis=1)
        cell = adam.Hyperparameters(
            jnp.array([hyper.one_minus_beta1]), jnp.array([hyper.one_minus_beta2])
        )
        drifts = np.asarray(jax.vmap(lambda s: cyclic_drift(s[:, None], 3, cell)[0, 0])(tables))
    best = 9 * (np.asarray(tables) ** 2).sum(axis=1)[drifts >= 0].min(initial=np.inf)
    spacing = side[1] - side[0]
    assert found.d1 <= best + 1e-6
    assert best <= found.d1 * (1 + 10 * spacing / radius)  # and the grid comes near: not too small


def test_least_d1_is_below_that_of_the_counterexample():
    """a of the counterexample at whose β2 the drift is 0, by bisection."""
    low, high = 1e-6, 10.0
    hyper = adam.hyperparameters(0.0, 0.5)
    for _ in range(60):
        middle = (low * high) ** 0.5
        inside = float(stationary_drift(counterexample_table(5, middle), hyper).drift[0]) > 0
        low, high = (low, middle) if inside else (middle, high)
    ours = least_d1(5, 0.0, 0.5)
    assert ours.d1 < 0.8 * float(problems.counterexample(5, high).problem_class().d1)


def test_adam_diverges_on_a_member_with_d1_far_below_the_papers():
    """n = 10, (β1, β2) = (0, 0.3): a simulation on a member with n < D1 < 2n²/4."""
    found = least_d1(10, 0.0, 0.4)
    problem = problems.slope_table(found.slopes)
    assert 10 < float(problem.problem_class().d1) < 50
    trace = simulate.simulate(
        problems.as_arrays(problem, np.float32),
        adam.hyperparameters(0.0, 0.3),
        jnp.float32(1.0),
        0.1,
        sampling.stream_key(0),
        method=simulate.Method("cyclic"),
        num_steps=100_000,
        record_every=10_000,
        max_components=10,
    )
    assert (np.diff(trace.x) > 0).all()
    moved = float(trace.x[-1] - trace.x[0])
    eta = 0.1 * 2 * (np.sqrt(1e5) - np.sqrt(1e4))
    drift = stationary_drift(found.slopes[:, None], adam.hyperparameters(0.0, 0.3)).drift[0]
    assert moved == pytest.approx(eta * drift / 10, rel=1e-2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: least_d1(2, 0.0, 0.5), "n=2"),
        (lambda: least_d1(5, 1.0, 0.5), "beta1=1.0"),
        (lambda: least_d1(5, 0.0, 0.0), "beta2=0.0"),
        (lambda: sign_sgd_infimum(2), "n=2"),
        (lambda: sign_sgd_certificate([Fraction(-1)]), "sum must be positive"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_where_the_drift_is_0_sign_sgd_fails_below_the_infimum():
    """n = 4, half of the slopes negative: it does not go to infinity, and does not converge."""
    a = Fraction(1, 100)
    slopes = [(1 + 2 * a) / 2] * 2 + [-a] * 2
    certificate = sign_sgd_certificate(slopes)
    assert certificate.drift == 0
    assert 2 * 4 < certificate.d1 < sign_sgd_infimum(4)
    for scheme in sampling.SAMPLINGS:
        found = stationary_drift(
            np.array([[float(s)] for s in slopes]), adam.hyperparameters(0, 0), scheme,
            key=sampling.stream_key(0),
        )  # fmt: skip
        assert abs(found.drift[0]) < 1e-14
    trace = simulate.simulate(
        problems.as_arrays(problems.slope_table([float(s) for s in slopes]), np.float32),
        adam.hyperparameters(0.0, 0.0), jnp.float32(1.0), 0.1, sampling.stream_key(0),
        method=simulate.Method("cyclic"), num_steps=40_000, record_every=4, max_components=4,
    )  # fmt: skip
    moved = np.abs(np.asarray(trace.x[5000:]) - trace.x[-1])
    assert moved.max() < 1e-3  # frozen, at a point
    assert abs(float(trace.x[-1]) + 2) > 2.5  # that is far from the minimiser, x* = −2


def test_the_counterexample_is_not_the_worst_member_of_its_class():
    """At n = 5 in cyclic order: the D1 of its boundary at β2 = 0.8, and another table's."""
    worst = least_d1(5, 0.0, 0.8)
    at_least = problems.divergence_construction(problems.ProblemClass(5, 1, 0, worst.d1 * 1.2))
    hyper = adam.hyperparameters(0.0, 0.8)
    a = float(np.asarray(at_least.a, np.float64))
    assert stationary_drift(counterexample_table(5, a), hyper).drift[0] < 0
    assert stationary_drift(worst.slopes[:, None], hyper).drift[0] >= 0
