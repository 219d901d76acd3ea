"""The drift of the random orders: exact, so held against enumeration and independent quadrature."""

import itertools

import jax
import mpmath
import numpy as np
import pytest
import scipy.integrate
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from adam_transition import adam, sampling
from adam_transition.problems.constructions import counterexample_table
from adam_transition.sampling import RANDOM
from adam_transition.theory import _tiles, balls, laws, random_sampling
from adam_transition.theory.boundary import divergence_intervals
from adam_transition.theory.chains import draw_histories
from adam_transition.theory.drift_domain import is_estimated
from adam_transition.theory.random_sampling import LEAST, MOST_STATES, has_exact_drift, num_states
from adam_transition.theory.stationary_drift import stationary_drift

DIFFERENT = np.array([2.0, -0.7, 0.3, 1.1])  # of components no two of which are alike
BETAS = st.floats(0, 0.99)


def _drift(column, beta1, beta2, scheme, epsilon=0.0, epsilon_root=0.0):
    hyper = adam.hyperparameters(beta1, beta2, epsilon=epsilon, epsilon_root=epsilon_root)
    found = stationary_drift(np.reshape(column, (-1, 1)), hyper, scheme)
    assert (found.stderr == 0).all()
    return found.drift[0]


def _mean_over_histories(column, beta1, beta2, blocks, epsilon=0.0, epsilon_root=0.0):
    """−n E[m/(√v + ε)], averaged over the last block; histories of blocks are equally likely.

    The moments before them are set to their means: what is left of the error falls like β^steps.
    """
    g = np.asarray(column)
    m, v = np.full(1, g.mean()), np.full(1, (g**2).mean())
    for block in blocks:
        total = np.zeros(len(block) * len(m))
        m, v = np.tile(m, len(block)), np.tile(v, len(block))
        drawn = np.repeat(g[np.array(block)], len(m) // len(block), axis=0)
        for k in range(drawn.shape[1]):
            m = beta1 * m + (1 - beta1) * drawn[:, k]
            v = beta2 * v + (1 - beta2) * drawn[:, k] ** 2
            total -= m / (np.sqrt(v + epsilon_root) + epsilon)
    return total.mean() * len(g) / len(block[0])


@pytest.mark.parametrize(("beta1", "beta2"), [(0.0, 0.2), (0.2, 0.2), (0.3, 0.0), (0.0, 0.05)])
def test_with_replacement_is_the_mean_over_all_recent_draws(beta1, beta2):
    for column in (counterexample_table(3)[:, 0], DIFFERENT[:3]):
        draws = [[(i,) for i in range(3)]] * 12
        expected = _mean_over_histories(column, beta1, beta2, draws)
        found = _drift(column, beta1, beta2, "with_replacement")
        assert found == pytest.approx(expected, abs=30 * max(beta1, beta2, 1e-3) ** 12 + 1e-12)


@pytest.mark.parametrize(("beta1", "beta2"), [(0.0, 0.3), (0.3, 0.2), (0.4, 0.0), (0.1, 0.4)])
def test_random_shuffling_is_the_mean_over_all_recent_epochs(beta1, beta2):
    orders = [list(itertools.permutations(range(4)))] * 4
    for column in (DIFFERENT, [3.0, -1, -1, -1], [1.0, 1, -2, 0.5]):
        expected = _mean_over_histories(column, beta1, beta2, orders)
        found = _drift(column, beta1, beta2, "random_shuffling")
        assert found == pytest.approx(expected, abs=30 * max(beta1, beta2) ** 13 + 1e-12)


@pytest.mark.parametrize(("beta1", "q"), [(0.0, 0.3), (0.6, 0.05), (0.95, 0.5)])
def test_the_trapezoidal_rule_is_exact_to_rounding(beta1, q):
    """Against adaptive quadrature of infinite products, with no recursion."""
    column = counterexample_table(4)[:, 0] / counterexample_table(4)[1, 0]
    steps = np.arange(1200)

    def integrand(u):
        damping = np.exp(-q * np.exp(u) * (1 - q) ** steps[:, None] * column**2)
        phi, psi = damping.mean(axis=1), (column * damping).mean(axis=1)
        return np.exp(u / 2) * np.sum((1 - beta1) * beta1**steps * psi / phi) * np.prod(phi)

    total, error = scipy.integrate.quad(integrand, -66, 4, epsabs=1e-13, epsrel=1e-13, limit=400)
    assert error < 1e-11
    found = _drift(column, beta1, 1 - q, "with_replacement")
    assert found == pytest.approx(-4 * total / np.sqrt(np.pi), abs=1e-10)


@pytest.mark.parametrize("scheme", RANDOM)
def test_estimates_agree_with_it(scheme):
    table = np.stack([counterexample_table(6)[:, 0], np.random.default_rng(0).normal(size=6)], 1)
    hyper = adam.Hyperparameters(np.array([1.0, 0.3, 0.1])[:, None], np.array([0.7, 0.2, 0.01]))
    histories = draw_histories(
        table, scheme, sampling.stream_key(0), memory=100.0, num_samples=200_000
    )
    estimate = stationary_drift(table, hyper, scheme, histories=histories)
    exact = stationary_drift(table, hyper, scheme)
    assert (estimate.stderr > 0).all()
    z = (estimate.drift - exact.drift) / estimate.stderr
    assert np.abs(z).max() < 4.5  # of 18
    assert np.sqrt((z**2).mean()) < 1.6


@given(BETAS, BETAS, st.integers(1, 7), st.floats(0.01, 100))
@settings(max_examples=20)
def test_components_that_are_alike_have_no_order(beta1, beta2, n, g):
    """m/√v = 1 whatever is drawn."""
    for scheme in RANDOM:
        assert _drift([g] * n, beta1, beta2, scheme) == pytest.approx(-n, rel=1e-11)
        assert _drift([-g] * n, beta1, beta2, scheme) == pytest.approx(n, rel=1e-11)


@given(BETAS, BETAS, st.permutations(range(4)), st.floats(1e-6, 1e6))
@settings(max_examples=15)
def test_invariances(beta1, beta2, order, scale):
    """Scale, sign, and the order of the components."""
    for scheme in RANDOM:
        drift = _drift(DIFFERENT, beta1, beta2, scheme)
        assert _drift(DIFFERENT[order], beta1, beta2, scheme) == drift
        assert _drift(scale * DIFFERENT, beta1, beta2, scheme) == pytest.approx(drift, rel=1e-10)
        assert _drift(-DIFFERENT, beta1, beta2, scheme) == pytest.approx(-drift, rel=1e-10)


@pytest.mark.parametrize("scheme", RANDOM)
def test_as_beta2_nears_1_the_orders_do_not_matter(scheme):
    """With E[v] in the place of v the drift is −n E[g]/√E[g²]; the rest is of first order in q."""
    table = counterexample_table(10)
    limit = -10 * table.mean() / np.sqrt((table**2).mean())
    hyper = adam.Hyperparameters(0.5, np.array([1e-2, 1e-3, 1e-4]))
    error = stationary_drift(table, hyper, scheme).drift[:, 0] - limit
    np.testing.assert_allclose(error[:-1] / error[1:], 10, rtol=0.15)


def test_the_law_with_replacement_is_the_first_order_of_the_boundary():
    """The relative error of 2 E[g] E[g²]/Cov(g, g²) is of the order of the law itself."""
    errors, predicted = [], []
    for n in (5, 10, 20):
        table = counterexample_table(n, 1.0)
        [[interval]] = divergence_intervals(table, [0.0], "with_replacement")
        predicted.append(laws.with_replacement_law(table, 0.0))
        errors.append(interval.high.one_minus_beta2 / predicted[-1] - 1)
    assert (np.abs(errors) < 0.2 * np.array(predicted)).all()
    assert predicted[-1] < 6e-3


def test_many_different_components_are_drawn_with_replacement():
    table = np.random.default_rng(1).normal(size=(90, 1)) + 0.3
    hyper = adam.Hyperparameters(np.array([1.0, 0.3]), np.array([0.3, 0.05]))
    histories = draw_histories(
        table, "with_replacement", sampling.stream_key(2), memory=20.0, num_samples=200_000
    )
    found = stationary_drift(table, hyper, "with_replacement", histories=histories)
    exact = stationary_drift(table, hyper, "with_replacement").drift
    assert (np.abs(found.drift - exact) < 4 * found.stderr).all()


def test_more_draws_of_one_value_than_of_the_other():
    """Two values k and n − k times: states are counted, not components."""
    column = np.array([3.0] * 4 + [-1.0] * 6)
    assert num_states(column, "random_shuffling") == 5 * 7
    assert num_states(column, "with_replacement") == 1
    histories = draw_histories(
        column[:, None], "random_shuffling", sampling.stream_key(1), memory=10.0,
        num_samples=400_000,
    )  # fmt: skip
    hyper = adam.hyperparameters(0.6, 0.85)
    found = stationary_drift(column[:, None], hyper, "random_shuffling", histories=histories)
    exact = _drift(column, 0.6, 0.85, "random_shuffling")
    assert abs(found.drift[0] - exact) < 4 * found.stderr[0] < 0.05


def test_cells_do_not_meet():
    rng = np.random.default_rng(0)
    p, q = rng.uniform(0.05, 1, (2, 3000))
    q[:100] = 1 - rng.uniform(0, 1e-3, 100)
    for scheme in RANDOM:
        table = counterexample_table(5)
        together = stationary_drift(table, adam.Hyperparameters(p, q), scheme).drift
        for i in (0, 99, 100, 1777, 2999):
            alone = stationary_drift(table, adam.Hyperparameters(p[i], q[i]), scheme).drift
            np.testing.assert_allclose(together[i], alone, rtol=1e-11, atol=1e-11)


def test_coordinates_are_their_own_and_may_be_zero():
    columns = [counterexample_table(5)[:, 0], np.zeros(5), np.array([1.0, 2, 3, 4, -5])]
    table = np.stack(columns, axis=1)
    for scheme in RANDOM:
        found = stationary_drift(table, adam.hyperparameters(0.4, 0.7), scheme).drift
        assert found[1] == 0
        for k in (0, 2):
            assert found[k] == pytest.approx(_drift(columns[k], 0.4, 0.7, scheme), rel=1e-12)


def test_tables_that_it_does_not_take_are_estimated():
    many = np.arange(1.0, 31.0)[:, None]
    assert num_states(many[:, 0], "random_shuffling") == 2**30 > MOST_STATES
    assert has_exact_drift(many, "with_replacement")
    assert not has_exact_drift(many, "random_shuffling")
    assert is_estimated(many, "random_shuffling")
    assert not is_estimated(many, "cyclic")
    with pytest.raises(ValueError, match="needs a key"):
        stationary_drift(many, adam.hyperparameters(0, 0.5), "random_shuffling")
    found = stationary_drift(
        many, adam.hyperparameters(0, 0.5), "random_shuffling", key=sampling.stream_key(0),
        num_samples=10_000,
    )  # fmt: skip
    assert (found.stderr > 0).all()


@pytest.mark.parametrize("scheme", RANDOM)
@pytest.mark.parametrize(
    ("column", "epsilons"),
    [
        ([8.0, 3.0, -1.0, -1.0, -0.5], [(0.0, 0.0)]),
        ([8.0, -1.0, -1.0, 0.0, 0.0], [(0.3, 0.0), (40.0, 0.1)]),
    ],
)
def test_the_series_is_the_recursion(column, epsilons, scheme):
    """Series first, then recursions, against recursions from s = 0 on."""
    p, q = np.array([1.0, 0.3, 1e-3])[:, None], np.array([0.0199, 0.008, 0.003])
    for epsilon in epsilons:
        hyper = adam.Hyperparameters(p, q, *epsilon)
        begun = stationary_drift(np.array(column)[:, None], hyper, scheme).drift
        unit = stationary_drift(np.abs(column)[:, None], hyper, scheme).drift
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(random_sampling, "_LARGEST_Q_OF_SERIES", 0.0)
            alone = stationary_drift(np.array(column)[:, None], hyper, scheme).drift
        assert (np.abs(begun - alone) <= 2e-14 * np.abs(unit)).all()


@pytest.mark.parametrize("scheme", RANDOM)
def test_the_series_is_the_ball(scheme):
    column, p, q = [5, 5, -1, -1, -1, -2], 0.25, 1 / 128
    exact = balls.exact([1 - p, 1 - q])
    ball = balls.random_drift_at(balls.exact(column), *exact, scheme)
    assert _drift(np.array(column, float), 1 - p, 1 - q, scheme) == pytest.approx(
        float(ball.mid()), abs=2e-14
    )


@pytest.mark.parametrize("scheme", RANDOM)
@pytest.mark.parametrize("beta1", [0.0, 0.9])
def test_down_to_the_smallest_1_minus_beta2_the_drift_is_a_straight_line(scheme, beta1):
    """D = D(1) + q·slope + O(q²), so the slope from 2q and from q agree to O(q)."""
    table = counterexample_table(20) * 361
    q = np.array([1e-4, 1e-5, 1e-6, LEAST])
    limit = -20 * table.mean() / np.sqrt((table**2).mean())
    hyper = adam.Hyperparameters(1 - beta1, np.stack([q, 2 * q]))
    rise = stationary_drift(table, hyper, scheme).drift[..., 0] - limit
    slope = rise / np.stack([q, 2 * q])
    assert (np.abs(slope[1] / slope[0] - 1)[:3] < 100 * q[:3]).all()
    assert np.abs(rise[0, -1]) < 1e-6


def test_series_of_many_cells_are_those_of_each():
    """Cells are cut into pieces that fit in memory."""
    column = np.array([4.0, 1, 1, -1, -1, -1, -2])
    rng = np.random.default_rng(0)
    p, q = rng.uniform(0.01, 1, 60), 10 ** rng.uniform(-8, -1.7, 60)
    for scheme in RANDOM:
        hyper = adam.Hyperparameters(p, q)
        whole = stationary_drift(column[:, None], hyper, scheme).drift
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(random_sampling, "_MOST_COEFFICIENTS", 1 << 15)
            pieces = stationary_drift(column[:, None], hyper, scheme).drift
        np.testing.assert_array_equal(whole, pieces)
        alone = stationary_drift(column[:, None], adam.Hyperparameters(p[7], q[7]), scheme).drift
        np.testing.assert_allclose(whole[7], alone, rtol=1e-14)


def test_beta2_that_is_too_near_to_1_is_refused():
    table = counterexample_table(5)
    with pytest.raises(
        ValueError, match=f"one_minus_beta2=5e-10: values must lie in .{LEAST:g}, 1"
    ):
        stationary_drift(table, adam.Hyperparameters(1.0, LEAST / 2), "with_replacement")
    with jax.enable_x64(False):  # whatever the caller uses
        single = _drift(table, 0.5, 0.9, "with_replacement")
    with jax.enable_x64(True):
        assert _drift(table, 0.5, 0.9, "with_replacement") == single


@pytest.mark.parametrize("beta1", [0.0, 0.5, 0.999, 1 - 1e-7])
def test_at_beta2_0_the_drift_has_a_closed_form(beta1):
    """V is the last gradient's square: E[m/|g|] = (1−β1) E[sign g] + β1 E[g] E[1/|g|]."""
    for column in (counterexample_table(20)[:, 0], DIFFERENT):
        last = (1 - beta1) * np.sign(column).mean()
        before = beta1 * column.mean() * (1 / np.abs(column)).mean()
        found = _drift(column, beta1, 0.0, "with_replacement")
        assert found == pytest.approx(-len(column) * (last + before), rel=1e-11)


@pytest.mark.parametrize("scheme", RANDOM)
def test_as_beta1_nears_1_the_numerator_is_the_mean(scheme):
    """E[m/√v] → E[g] E[1/√v], and v does not see the signs of the gradients."""
    table = counterexample_table(10)
    slow = stationary_drift(table, adam.Hyperparameters(1e-9, 0.3), scheme).drift[0]
    upright = stationary_drift(np.abs(table), adam.Hyperparameters(1e-9, 0.3), scheme).drift[0]
    assert slow / table.mean() == pytest.approx(upright / np.abs(table).mean(), rel=1e-7)


SPARSE = np.array([2.0, 0.0, -0.7])  # a third of the gradients are 0
EPSILONS = [(0.1, 0.0), (1e-3, 0.0), (0.0, 0.2), (0.3, 0.05), (20.0, 0.0)]


@pytest.mark.parametrize(("epsilon", "epsilon_root"), [(0.0, 0.0), *EPSILONS])
@pytest.mark.parametrize("column", [DIFFERENT[:3], SPARSE], ids=["different", "sparse"])
def test_epsilon_and_zeros_with_replacement_over_all_recent_draws(column, epsilon, epsilon_root):
    for beta1, beta2 in ((0.0, 0.05), (0.05, 0.1)):
        draws = [[(i,) for i in range(3)]] * 12
        expected = _mean_over_histories(column, beta1, beta2, draws, epsilon, epsilon_root)
        found = _drift(column, beta1, beta2, "with_replacement", epsilon, epsilon_root)
        # a history of zeros alone is left out: 3^−12 of the mean
        rest = 1e-5 if (column == 0).any() and epsilon + epsilon_root < 0.1 else 3e-9
        assert found == pytest.approx(expected, abs=rest)


@pytest.mark.parametrize(("epsilon", "epsilon_root"), [(0.0, 0.0), *EPSILONS])
@pytest.mark.parametrize("column", [[3.0, -1, -1, 0], [0, 1.0, 0, -0.4], [2.0, -0.7, 0.3, 1.1]])
def test_epsilon_and_zeros_under_random_shuffling_over_all_recent_epochs(
    column, epsilon, epsilon_root
):
    orders = [list(itertools.permutations(range(4)))] * 4
    for beta1, beta2 in ((0.3, 0.2), (0.1, 0.15)):
        expected = _mean_over_histories(column, beta1, beta2, orders, epsilon, epsilon_root)
        found = _drift(column, beta1, beta2, "random_shuffling", epsilon, epsilon_root)
        assert found == pytest.approx(expected, abs=100 * max(beta1, beta2) ** 11)


@pytest.mark.parametrize("scheme", RANDOM)
@pytest.mark.parametrize(
    ("beta1", "beta2", "epsilon", "epsilon_root"),
    [(0.9, 0.5, 0.3, 0.2), (0.5, 0.9, 1e-3, 0.0), (0.6, 0.8, 0.0, 0.0), (0.9, 0.3, 1e-2, 0.0)],
)
def test_epsilon_and_zeros_against_a_plain_simulation(scheme, beta1, beta2, epsilon, epsilon_root):
    column = np.array([3.0, -1, 0, 0.5, 0])
    rng = np.random.default_rng(0)
    chains, burn_in, steps = 4000, 300, 400
    m, v, total = np.full(chains, 0.5), np.full(chains, 2.05), np.zeros(chains)
    for k in range(burn_in + steps):
        if scheme == "with_replacement":
            index = rng.integers(5, size=chains)
        else:
            if k % 5 == 0:
                order = np.argsort(rng.random((chains, 5)), axis=1)
            index = order[:, k % 5]
        m = beta1 * m + (1 - beta1) * column[index]
        v = beta2 * v + (1 - beta2) * column[index] ** 2
        if k >= burn_in:
            total -= 5 * m / (np.sqrt(v + epsilon_root) + epsilon) / steps
    found = _drift(column, beta1, beta2, scheme, epsilon, epsilon_root)
    assert abs(found - total.mean()) < 4 * total.std(ddof=1) / np.sqrt(chains)


@pytest.mark.parametrize(("beta1", "beta2"), [(0.0, 0.3), (0.4, 0.3), (0.9, 0.4)])
def test_zeros_with_replacement_are_runs_after_the_other_draws(beta1, beta2):
    """Given a run of j zeros, m/√v is (β1/√β2)^j times what it was after the draw before them.

    So E[m/√v] = E[m/√v; g ≠ 0]/(1 − p0 β1/√β2), and the first factor is a mean over the draw g of
    (β1 m' + (1−β1) g)/√(β2 v' + (1−β2) g²): of histories that end with a gradient that is not 0.
    """
    column, share = np.array([2.0, 0.0, -0.7, 1.0]), 0.25
    rng = np.random.default_rng(1)
    chains = 400_000
    m, v = np.full(chains, column.mean()), np.full(chains, (column**2).mean())
    for _ in range(60):
        g = column[rng.integers(4, size=chains)]
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
    nonzero = column[column != 0]
    after = [
        (beta1 * m + (1 - beta1) * g) / np.sqrt(beta2 * v + (1 - beta2) * g * g) for g in nonzero
    ]
    each = -4 * np.mean(after, axis=0) * (1 - share) / (1 - share * beta1 / np.sqrt(beta2))
    found = _drift(column, beta1, beta2, "with_replacement")
    assert abs(found - each.mean()) < 4 * each.std(ddof=1) / np.sqrt(chains)


def test_zeros_are_the_limit_of_small_gradients_and_of_small_epsilon():
    for scheme in RANDOM:
        exact = _drift(SPARSE, 0.2, 0.6, scheme)
        assert _drift(SPARSE + (SPARSE == 0) * 1e-14, 0.2, 0.6, scheme) == pytest.approx(
            exact, rel=1e-9
        )
        assert _drift(SPARSE, 0.2, 0.6, scheme, 1e-14) == pytest.approx(exact, rel=1e-9)
        assert _drift(SPARSE, 0.2, 0.6, scheme, 0.0, 1e-28) == pytest.approx(exact, rel=1e-9)


def test_where_the_mean_is_infinite_it_grows_as_epsilon_falls():
    """With p0 β1 > √β2, runs of zeros until √v is ε: like ε^γ, γ = log(p0 β1)/log √β2 − 1."""
    column = np.array([3.0, 0.0, 0.0, 0.0, -1.0])
    beta1, beta2 = 0.95, 0.2
    epsilon = np.array([1e-12, 1e-18, 1e-24])
    drift = np.abs([_drift(column, beta1, beta2, "with_replacement", e) for e in epsilon])
    power = np.diff(np.log(drift)) / np.diff(np.log(epsilon))
    expected = np.log(0.6 * beta1) / np.log(np.sqrt(beta2)) - 1
    assert expected < 0
    np.testing.assert_allclose(power, expected, atol=0.02)


def test_the_weight_beside_epsilon_to_many_digits():
    """c(z) = 1 − √π z e^{z²} erfc(z), where double precision would cancel."""
    from adam_transition.theory.random_sampling import _share_beside

    z = np.concatenate([[0.0], np.geomspace(1e-8, 1e8, 60)])
    with jax.enable_x64(True):
        found = np.asarray(jax.jit(_share_beside)(z))
    with mpmath.workdps(60):
        for one, value in zip(z, found, strict=True):
            x = mpmath.mpf(float(one))
            if x < 1e3:
                expected = 1 - mpmath.sqrt(mpmath.pi) * x * mpmath.exp(x * x) * mpmath.erfc(x)
            else:
                expected = (1 - 3 / (2 * x**2) + 15 / (4 * x**4)) / (2 * x**2)
            assert value == pytest.approx(float(expected), rel=1e-14)
    middle = (z > 0) & (z < 1)
    plain = 1 - np.sqrt(np.pi) * z * scipy.special.erfcx(z)
    np.testing.assert_allclose(found[middle], plain[middle], rtol=1e-13)


def _in_many_digits(values, counts, p, q, epsilon=0.0):
    """With replacement: the trapezoidal sum over one lane of nodes, λ apart, in 34 digits."""
    with mpmath.workdps(34):
        p, q, epsilon = mpmath.mpf(p), mpmath.mpf(q), mpmath.mpf(epsilon)
        g, w = [mpmath.mpf(x) for x in values], [mpmath.mpf(k) / sum(counts) for k in counts]
        step = mpmath.exp(-mpmath.log1p(-q))
        s = mpmath.mpf(10) ** -40 / sum(a * x * x for a, x in zip(w, g, strict=True))
        f, h, total = mpmath.mpf(1), sum(a * x for a, x in zip(w, g, strict=True)), mpmath.mpf(0)
        while s * min(x * x for x in g) < 80:
            weights = [a * mpmath.exp(-q * s * x * x) for a, x in zip(w, g, strict=True)]
            phi, psi = sum(weights), sum(a * x for a, x in zip(weights, g, strict=True))
            f, h = phi * f, p * psi * f + (1 - p) * phi * h
            total += mpmath.sqrt(s) * h
            s *= step
        return float(-sum(counts) * total * mpmath.log(step) / mpmath.sqrt(mpmath.pi))


# The counterexample at n = 6, β1 = 0 and 0.9, by the functions of `_in_many_digits` and, under
# random shuffling, by the same sum with the state (is the large gradient drawn, how many are).
MANY_DIGITS = {
    ("with_replacement", 1.0, 1e-2): -1.9914103962968619,
    ("with_replacement", 0.1, 1e-2): -1.9965328127637475,
    ("with_replacement", 1.0, 1e-3): -2.0312061336087867,
    ("with_replacement", 0.1, 1e-3): -2.0312619743235104,
    ("with_replacement", 1.0, 1e-4): -2.0351562843542134,
    ("random_shuffling", 1.0, 1e-2): -2.0042698923577956,
    ("random_shuffling", 0.1, 1e-2): -2.0292946795961824,
    ("random_shuffling", 1.0, 1e-3): -2.0324607922207063,
    ("random_shuffling", 0.1, 1e-3): -2.0349355516250670,
}


@pytest.mark.parametrize(("scheme", "p", "q"), MANY_DIGITS)
def test_the_error_does_not_grow_near_beta2_1(scheme, p, q):
    table = counterexample_table(6)
    found = stationary_drift(table, adam.Hyperparameters(p, q), scheme).drift[0]
    assert found == pytest.approx(MANY_DIGITS[scheme, p, q], rel=3e-14)


def test_the_reference_of_many_digits_is_what_it_says():
    values = counterexample_table(6)[:2, 0]
    found = _in_many_digits(values, [1, 5], 1.0, 1e-2)
    assert found == pytest.approx(MANY_DIGITS["with_replacement", 1.0, 1e-2], rel=1e-15)


@pytest.mark.parametrize("scheme", RANDOM)
def test_two_values_of_any_number(scheme):
    """At n = 10 000 random shuffling has 20 000 states; E g/√E g² is the limit at β2 → 1."""
    table = counterexample_table(10_000, 1.0)
    found = stationary_drift(table, adam.hyperparameters(0.0, 0.9), scheme).drift[0]
    # v forgets a hit within some hundred steps, and then all the others step by 1
    assert 0.97 * 9999 < found < 9999


def test_long_epochs_add_steps_of_1():
    """v forgets a hit long before the end of an epoch, so every further step is one of size 1.

    From 16 384 components on the states of an epoch are more than XLA runs as one small loop.
    """
    short, long = (
        _drift([2.0, *[-1.0] * (n - 1)], 0.5, 0.5, "random_shuffling") for n in (10_000, 40_000)
    )
    assert long - short == pytest.approx(30_000, rel=1e-9)


def test_tiles_of_every_width_give_the_same_sums(monkeypatch):
    rng = np.random.default_rng(0)
    p, q = rng.uniform(0.05, 1, (2, 600))
    q[0] = 1 - 0.95  # a long lane, which does not make all others wait
    table, hyper = counterexample_table(7), adam.Hyperparameters(p, q)
    widths = set()
    groups = _tiles._groups

    def counted(*arguments):
        found = groups(*arguments)
        widths.update(width for width, _ in found)
        return found

    monkeypatch.setattr(_tiles, "_groups", counted)
    drifts = []
    for compilation, step in ((0.0, 600), (1e12, 0), (1e12, 1e9)):
        monkeypatch.setattr(_tiles, "_COMPILATION", compilation)
        monkeypatch.setattr(_tiles, "_STEP", step)
        drifts.append(stationary_drift(table, hyper, "random_shuffling").drift)
    assert len(widths) > 1
    np.testing.assert_array_equal(drifts[0], drifts[1])
    np.testing.assert_array_equal(drifts[0], drifts[2])
