"""The drift of any rule: Adam's is the exact one, that of sign momentum has a closed form."""

import re

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adam_transition import adam, optimizers, problems, sampling
from adam_transition.optimizers import ADAM, OPTIMIZERS, rules
from adam_transition.problems.matrices import KINDS
from adam_transition.theory import laws
from adam_transition.theory.rule_boundary import rule_intervals
from adam_transition.theory.rule_drift import drift_of_optimizer
from adam_transition.theory.stationary_drift import stationary_drift

TABLE = problems.counterexample_table(20)
KEY = sampling.stream_key(0)


def _drift(name, beta1, beta2, table=TABLE, scheme="cyclic", **settings):
    found = drift_of_optimizer(
        table, OPTIMIZERS[name], adam.hyperparameters(beta1, beta2), scheme, **settings
    )
    return found.drift[..., 0], found.stderr[..., 0]


def test_in_cyclic_order_adam_has_its_closed_form():
    beta1, beta2 = np.meshgrid([0.0, 0.5, 0.9], [0.1, 0.6, 0.99, 0.999])
    table = np.random.default_rng(0).normal(size=(7, 3)) + 0.3
    hyper = adam.hyperparameters(beta1, beta2)
    expected = stationary_drift(table, hyper).drift
    found = drift_of_optimizer(table, ADAM, hyper)
    np.testing.assert_allclose(found.drift, expected, rtol=1e-9, atol=1e-12)
    assert (np.abs(found.drift - expected) <= found.stderr + 1e-9 * np.abs(expected)).all()


@pytest.mark.parametrize("scheme", ["with_replacement", "random_shuffling"])
def test_chains_of_adam_agree_with_the_integral(scheme):
    beta2 = np.array([0.5, 0.8, 0.95])
    hyper = adam.hyperparameters(0.3, beta2)
    exact = stationary_drift(TABLE, hyper, scheme).drift[:, 0]
    found, error = _drift("adam", 0.3, beta2, scheme=scheme, key=KEY, num_samples=200_000)
    assert (np.abs(found - exact) < 4 * error).all()
    assert (error < 0.1).all()


@pytest.mark.parametrize("n", [5, 20, 51])
@pytest.mark.parametrize("a", [1.0, None])
def test_sign_momentum_diverges_up_to_its_closed_form(n, a):
    table = problems.counterexample_table(n, a)
    edge = laws.sign_momentum_threshold(n, a or 1 / (n - 1) ** 2)
    drift, _ = _drift("signum", edge + np.array([-1e-6, 1e-6]), 0.0, table)
    assert drift[0] > 0 >= drift[1]


def test_the_threshold_of_sign_momentum_has_its_law():
    """1 − β* → √24 n^(−3/2) at a = 1, to a relative error that falls like 1/√n or faster."""
    n = np.array([100, 10_000, 1_000_000])
    found = np.array([1 - laws.sign_momentum_threshold(one, 1.0) for one in n.tolist()])
    error = np.abs(found / (np.sqrt(24) * n**-1.5) - 1)
    assert (error < 3 / np.sqrt(n)).all()


def _by_hand(sign_of, table, order, beta1, beta2):
    """−n times the mean direction of Lion along an order, after a tenth of it."""
    m, total, count = 0.0, 0.0, 0
    for k, i in enumerate(order):
        direction = sign_of(beta1 * m + (1 - beta1) * table[i, 0])
        m = beta2 * m + (1 - beta2) * table[i, 0]
        if k >= len(order) // 10:
            total, count = total + direction, count + 1
    return -len(table) * total / count


def test_lion_is_as_by_hand():
    table = problems.counterexample_table(5)
    draws = np.random.default_rng(3).integers(0, 5, 400_000)
    expected = _by_hand(np.sign, table, draws, 0.6, 0.8)
    found, error = _drift("lion", 0.6, 0.8, table, "with_replacement", key=KEY, num_samples=400_000)
    assert abs(found - expected) < 0.04  # of a standard error of about 0.01 by hand
    assert error < 0.02
    cyclic = np.tile(np.arange(5), 4000)
    found, error = _drift("lion", 0.6, 0.8, table)
    assert found == pytest.approx(_by_hand(np.sign, table, cyclic, 0.6, 0.8))
    assert error == 0


@pytest.mark.parametrize("scheme", ["cyclic", "with_replacement", "random_shuffling"])
def test_amsgrad_never_points_away(scheme):
    beta = np.linspace(0, 0.95, 5)
    drift, error = _drift("amsgrad", beta[:, None], beta, scheme=scheme, key=KEY)
    assert (drift < 0).all()
    # under random shuffling the size is not known
    assert np.isnan(error).all() == (scheme == "random_shuffling")


def test_the_limit_of_amsgrad_has_its_epsilon():
    hyper = adam.hyperparameters(0.9, 0.9, epsilon=0.5)
    found = drift_of_optimizer(TABLE, OPTIMIZERS["amsgrad"], hyper, "with_replacement", key=KEY)
    expected = -TABLE.sum() / (TABLE.max() + 0.5)
    assert found.drift[0] == pytest.approx(expected, rel=1e-12)


def test_adopt_points_away_only_while_its_clip_binds():
    beta2 = np.array([0.0, 0.2, 0.5, 0.9])
    clipped, _ = _drift("adopt", 0.9, beta2, at_step=10_000)
    assert clipped[0] > 0 > clipped[-1]
    late, _ = _drift("adopt", 0.9, beta2, at_step=2**30)
    free, _ = _drift("adopt_unclipped", 0.9, beta2)
    assert (free < 0).all()
    assert (late[1:] < 0).all()
    with pytest.raises(ValueError, match="adopt counts its steps: needs at_step"):
        _drift("adopt", 0.9, beta2)


def test_a_rule_that_does_not_settle_has_no_drift():
    """At β1 = 0 AdaBelief's v is 0 at last, and its direction grows on the way."""
    drift, error = _drift("adabelief", np.array([0.0, 0.9]), 0.9)
    assert np.isnan(drift[0])
    assert np.isnan(error[0])
    assert drift[1] == pytest.approx(_drift("adam", 0.9, 0.9)[0], rel=0.2)


def test_stationary_drift_takes_any_optimizer():
    hyper = adam.hyperparameters(0.5, 0.7)
    own = optimizers.own(lambda beta1, beta2: optax.sgd(1.0, beta1))
    found = stationary_drift(TABLE, hyper, optimizer=own).drift
    np.testing.assert_allclose(found, -TABLE.sum(axis=0) / 0.5, rtol=1e-9)
    with pytest.raises(ValueError, match="needs a key"):
        stationary_drift(TABLE, hyper, "random_shuffling", optimizer=own)


@pytest.mark.parametrize("kind", KINDS)
def test_muon_on_multiples_of_one_matrix_is_muon_on_numbers(kind):
    """Newton–Schulz is odd and scale-free, so only signs are left of the momentum's factor."""
    direction = problems.fixed_matrix(kind, 3, np.random.default_rng(0))
    p = 1 - np.array([0.3, 0.9, 0.95, 0.99])
    hyper = adam.Hyperparameters(p, p)
    for n, a in ((5, 1.0), (7, 0.1)):
        numbers = problems.counterexample_table(n, a)
        one = drift_of_optimizer(numbers, OPTIMIZERS["muon"], hyper).drift[:, 0]
        found = drift_of_optimizer(
            numbers * direction.ravel(), optimizers.muon_of_matrices(3, 3), hyper
        ).drift
        step, unit = map(rules.orthogonalized, (jnp.asarray(direction), jnp.ones((1, 1))))
        np.testing.assert_allclose(
            found, one[:, None] * np.ravel(step / unit), rtol=1e-3, atol=1e-3
        )


@pytest.mark.parametrize(("n", "a"), [(10, 1.0), (11, 1 / 100)])
def test_adopt_climbs_up_to_the_step_of_its_law(n, a):
    """At a frozen step the drift changes its sign at k = S⁴, whatever β1."""
    for beta1, beta2 in ((0.0, 0.3), (0.9, 0.3)):
        law = laws.adopt_climb(n, a, beta2)
        below, above = (
            drift_of_optimizer(
                problems.counterexample_table(n, a), OPTIMIZERS["adopt"],
                adam.Hyperparameters(np.array(1 - beta1), np.array(1 - beta2)), at_step=step,
            ).drift[0]
            for step in (int(law) - 1, int(law) + 2)
        )  # fmt: skip
        assert below > 0 > above


def test_adabelief_has_an_infinite_drift_where_runs_of_one_gradient_dominate():
    """Runs have the law (1 − 1/n)^j and the direction grows as β2^(−j/2) along them."""
    edge = (1 - 1 / 20) ** 2
    beta2 = np.array([0.5, edge - 1e-3])
    drift, error = _drift("adabelief", 0.9, beta2, scheme="with_replacement", key=KEY)
    assert (drift == np.inf).all()
    assert (error == 0).all()
    found = rule_intervals(TABLE, OPTIMIZERS["adabelief"], 0.9, "with_replacement", key=KEY)
    [interval], [(low, high)] = found
    assert interval.high.beta2 == pytest.approx(edge, abs=1e-4)
    assert np.isnan(interval.high.stderr)  # the variance is infinite up to 1 − 1/n
    assert low < edge < 1 - 1 / 20 < high
    mirrored, _ = _drift("adabelief", 0.9, 0.5, -TABLE, "with_replacement", key=KEY)
    assert mirrored == -np.inf
    both = np.array([[1.0], [-1.0], [1.0], [-1.0]])
    assert np.isnan(_drift("adabelief", 0.1, 0.1, both, "with_replacement", key=KEY)[0])
    finite = drift_of_optimizer(
        TABLE, OPTIMIZERS["adabelief"], adam.hyperparameters(0.9, 0.5, epsilon=0.01),
        "with_replacement", key=KEY, num_samples=20_000,
    )  # fmt: skip
    assert np.isfinite(finite.drift).all()


@pytest.mark.parametrize("scheme", ["cyclic", "random_shuffling", "with_replacement"])
def test_adabelief_without_momentum_has_no_law(scheme):
    drift, error = _drift("adabelief", 0.0, np.array([0.0, 0.5, 0.9]), scheme=scheme, key=KEY)
    assert np.isnan(drift).all()
    assert np.isnan(error).all()


@pytest.mark.parametrize(
    ("name", "growth"),
    [
        ("nadam", 0.9 / 0.1**0.5),
        ("radam", 0.9 / 0.1**0.5),
        ("adamax", 0.9 / 0.1),
        ("adan", 0.92 / 0.1**0.5),
        ("ademamix", 0.9999 / 0.1**0.5),
        ("adopt_unclipped", 1 / 0.1**0.5),
    ],
)
def test_runs_of_zeros_leave_no_mean(name, growth):
    """As for Adam, whose domain has the proof: no mean, or none that chains can estimate."""
    for num_zeros, others in ((1, 99), (1, 1), (6, 1)):
        table = np.array([[3.0 * others], *[[-1.0]] * others, *[[0.0]] * num_zeros])
        found, _ = _drift(name, 0.9, 0.1, table, "with_replacement", key=KEY, num_samples=2000)
        is_endless = num_zeros / len(table) * growth**2 >= 1
        assert np.isnan(found) == is_endless
        within, _ = _drift(name, 0.9, 0.1, table)
        assert np.isfinite(within)
        assert np.isnan(_drift(name, 0.9, 0.0, table)[0])


def test_yogi_says_that_it_remembers_its_start():
    """Its v moves in multiples of (1 − β2) g², so two starts differ for ever."""
    table = problems.counterexample_table(5, 1.0)
    hyper = adam.hyperparameters(0.0, np.array([0.0, 0.5]), epsilon=0.5)
    found = drift_of_optimizer(table, OPTIMIZERS["yogi"], hyper)
    for start in (0.5, 2.0):
        rule = rules.started_at(rules.YOGI, start)
        one = drift_of_optimizer(table, optimizers.Optimizer("one", rule, slowest=200), hyper)
        covered = abs(one.drift - found.drift) <= 2 * found.stderr
        assert (covered | np.isnan(found.drift)).all()


def test_amsgrad_settles_at_the_largest_v_of_the_orbit():
    table = problems.counterexample_table(5, 1.0)
    m = v = largest = total = 0.0
    for k in range(4000):
        g = table[k % 5, 0]
        m, v = 0.9 * m + 0.1 * g, 0.9 * v + 0.1 * g * g
        largest = max(largest, v)
        total += (k >= 3995) * m / np.sqrt(largest)
    assert _drift("amsgrad", 0.9, 0.9, table)[0] == pytest.approx(-total, rel=1e-9)


def test_an_edge_to_an_unknown_drift_says_so():
    """ADOPT of optax has an ε that its clip does not need; frozen at a step D is NaN in places."""

    def update(gradient, state, hyper, *, bias_correction):
        direction, state = rules.SIGNUM.update(gradient, state, hyper, bias_correction=False)
        return jnp.where(hyper.one_minus_beta1 < 0.3, jnp.nan, direction), state

    rule = rules.SIGNUM._replace(update=update)
    one = optimizers.Optimizer("half", rule, ("momentum", None))
    found = rule_intervals(problems.counterexample_table(20, 1.0), one, 0.0)
    [interval] = found.diverges
    assert interval.high.beta2 == pytest.approx(0.7, abs=1e-6)
    assert np.isnan(interval.high.stderr)
    [(low, high)] = found.unknown
    assert low < 0.7 < high == 1.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"optimizer": "lyon"}, "optimizer='lyon' is not one of"),
        ({"optimizer": 3}, "optimizer: must be a function (beta1, beta2), not a int"),
        ({"optimizer": "adopt"}, "optimizer=adopt counts its steps: needs at_step"),
        ({"optimizer": "adopt", "at_step": 0}, "at_step=0: must be an integer in [1, 2³¹)"),
        ({"optimizer": "adopt", "at_step": 2.5}, "at_step=2.5: must be an integer"),
        ({"optimizer": "adopt", "at_step": "x"}, "at_step='x': must be an integer"),
        ({"optimizer": "adopt", "at_step": 10**12}, "must be an integer in [1, 2³¹)"),
        ({"optimizer": "lion", "epsilon": 0.1}, "epsilon: has no effect on optimizer=lion"),
        ({"optimizer": "nadam", "scale": 1e-200}, "gradients of sizes"),
        ({"optimizer": "nadam", "scale": 1e160}, "gradients of sizes"),
    ],
)
def test_bad_arguments_are_one_line(settings, message):
    table = TABLE * settings.pop("scale", 1.0)
    hyper = adam.hyperparameters(0.9, 0.9, epsilon=settings.pop("epsilon", 0.0))
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        stationary_drift(table, hyper, **settings)
    assert "\n" not in str(caught.value)


def test_a_name_or_a_factory_is_an_optimizer_too():
    hyper = adam.hyperparameters(0.9, 0.95)
    expected = stationary_drift(TABLE, hyper, optimizer=OPTIMIZERS["nadam"]).drift
    assert stationary_drift(TABLE, hyper, optimizer="nadam").drift == expected
    own = stationary_drift(
        TABLE, hyper, optimizer=lambda b1, b2: optax.nadam(1.0, b1, b2, eps=1e-12)
    ).drift
    assert own == pytest.approx(expected, rel=1e-6)
