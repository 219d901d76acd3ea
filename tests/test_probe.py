"""The probe of a user's loss: the exact boundary, batch sizes, errors that hold, and any data."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from scipy import special, stats
from sklearn.datasets import load_digits

from adam_transition import adam, sampling
from adam_transition.advise import (
    GradientTable,
    gradient_table,
    is_large_enough,
    needed_beta2,
    probe,
    sampling_error,
)
from adam_transition.problems.constructions import counterexample_table
from adam_transition.sweeps import keys
from adam_transition.theory.boundary import divergence_intervals
from adam_transition.theory.stationary_drift import stationary_drift

KEY = sampling.stream_key(0)


def _counterexample(n, scale=1.0):
    slopes = jnp.asarray(scale * counterexample_table(n)[:, 0], jnp.float32)
    return gradient_table(
        lambda w, i: slopes[i] * w["x"].sum(), {"x": jnp.zeros(1)}, range(n), KEY, complete=True
    )


@pytest.mark.parametrize("n", [5, 20, 50])
def test_the_counterexample_turns_at_the_exact_boundary(n):
    found = needed_beta2(_counterexample(n), KEY, beta1=0.0, progress=0.0, epsilon=0.0)
    [intervals] = divergence_intervals(
        counterexample_table(n), [0.0], "with_replacement", key=KEY, num_samples=1_000_000
    )
    exact = intervals[-1].high.one_minus_beta2
    assert found.one_minus_beta2 == pytest.approx(exact, rel=1e-4)
    assert found.stderr == 0  # all components are in the table


def test_progress_is_the_stationary_drift():
    rng = np.random.default_rng(0)
    rows = rng.exponential(size=(12, 3)) - 0.8
    q = np.array([0.3, 0.05])
    found = probe(GradientTable.from_rows(rows), q, KEY, beta1=0.5, epsilon=0.0)
    hyper = adam.Hyperparameters(np.full(2, 0.5), q)
    drift = stationary_drift(rows, hyper, "with_replacement", key=KEY).drift
    gradient = rows.mean(axis=0)
    limit = gradient @ (gradient / np.sqrt((rows**2).mean(axis=0)))
    np.testing.assert_allclose(found.progress[0], -drift / 12 @ gradient / limit, rtol=1e-6)


@pytest.mark.parametrize(("scale", "epsilon"), [(1, 1e-8), (1, 0.1), (1e-9, 1e-8), (1e-20, 0.0)])
def test_epsilon_counts_as_in_a_long_run(scale, epsilon):
    """β1 = 0, β2 = 1/2: v is a sum over a few draws, so that a run of NumPy is soon exact."""
    rows = scale * counterexample_table(20)[:, 0]
    v, total, num = np.full(2000, (rows**2).mean()), np.zeros(2000), 2000
    rng = np.random.default_rng(0)
    for k in range(2 * num):
        g = rng.choice(rows, 2000)
        v = (v + g * g) / 2
        total += np.where(k >= num, g / (np.sqrt(v) + epsilon), 0)
    steps = total / num
    limit = rows.mean() / (np.sqrt((rows**2).mean()) + epsilon)
    table = _counterexample(20, scale)
    found = probe(table, [0.5], KEY, beta1=0.0, epsilon=epsilon).progress[0, 0]
    error = steps.std(ddof=1) / np.sqrt(2000) / abs(limit)
    assert abs(found - steps.mean() / limit) < 4 * error + 1e-5


@pytest.mark.parametrize(("scale", "epsilon"), [(1, 1e4), (1, 1e10), (1, 1e300), (1e-14, 1e-8)])
def test_an_epsilon_far_above_the_gradients_makes_every_beta2_good(scale, epsilon):
    """The step is m/ε, which no β2 changes."""
    table = GradientTable.from_rows(scale * np.random.default_rng(0).normal(1, 1, (100, 2)))
    answer = is_large_enough(table, KEY, beta2=0.9, epsilon=epsilon)
    assert answer.verdict == "good"
    assert answer.progress == pytest.approx(1, abs=1e-4)
    assert answer.squares == pytest.approx(1, abs=1e-4)


def test_larger_batches_need_a_smaller_beta2():
    """Beside the drift of a table of all sums of two components, which is exact."""
    slopes = counterexample_table(50)[:, 0]
    table = _counterexample(50)
    one, two = (
        needed_beta2(table, KEY, beta1=0.0, progress=0.0, batch_factor=b, least=1e-2)
        for b in (1, 2)
    )
    assert two.one_minus_beta2 > 1.2 * one.one_minus_beta2
    # a pair has two hits with probability 1/2500 only: two rows of 51 with a hit and a miss, and
    # the others with two misses, are nearly the same
    pairs = np.array([(slopes[0] + slopes[1]) / 2] * 2 + [slopes[1]] * 49)[:, None]
    [intervals] = divergence_intervals(
        pairs, [0.0], "with_replacement", key=KEY, num_samples=500_000
    )
    assert two.one_minus_beta2 == pytest.approx(intervals[-1].high.one_minus_beta2, rel=0.2)


def _skewed(rng, n):
    return np.where(rng.random((n, 2)) < 0.02, 30.0, 0.0) + rng.normal(-0.1, 0.05, (n, 2))


DRAWS = {
    "gaussian": lambda rng, n: rng.normal(0.4, 1, (n, 2)),
    "one_large_in_fifty": _skewed,
    "student_3": lambda rng, n: rng.standard_t(3, (n, 2)) + 0.5,
    "sparse": lambda rng, n: np.where(rng.random((n, 2)) < 0.05, rng.normal(1, 1, (n, 2)), 0.0),
}


@pytest.mark.parametrize("name", DRAWS)
def test_intervals_hold_over_tables_of_other_batches(name):
    """95 % intervals cover at least 90 %: of 100 tables at most 19, 3 standard errors more."""
    draw, rng, q = DRAWS[name], np.random.default_rng(0), [0.1, 0.01]
    whole = GradientTable.from_rows(draw(np.random.default_rng(99), 20_000), complete=True)
    true = probe(whole, q, KEY)
    # coordinates are alike; their skewness is known better together
    skewness = 0.0 if name in ("gaussian", "student_3") else whole.skewness.mean()
    missed, num_tables = np.zeros(6), 100
    for _ in range(num_tables):
        table = GradientTable.from_rows(draw(rng, 400))
        found = probe(table, q, KEY)
        inside = [
            (low <= value) & (value <= high)
            for value, low, high in (
                (true.progress[0], found.progress_low[0], found.progress_high[0]),
                (true.squares[0], found.squares_low[0], found.squares_high[0]),
            )
        ]
        low, high = table.noise_ratio_interval
        skewed = table.skewness_interval
        missed += ~np.array([
            *inside[0], *inside[1], low <= whole.noise_ratio <= high,
            skewed.low[0] <= skewness <= skewed.high[0],
        ])  # fmt: skip
        assert abs(found.progress - true.progress).max() < np.inf
    assert (missed <= 0.1 * num_tables + 3 * np.sqrt(0.1 * 0.9 * num_tables)).all(), missed


def test_needed_beta2_holds_over_tables_of_other_batches():
    """What other tables give is inside the interval of each, and within 1.96 standard errors."""
    whole = GradientTable.from_rows(_skewed(np.random.default_rng(99), 20_000), complete=True)
    options = {"beta1": 0.0, "least": 1e-3, "most": 3.0}
    true = needed_beta2(whole, KEY, **options).one_minus_beta2
    rng, missed, num_tables = np.random.default_rng(1), np.zeros(2), 40
    for _ in range(num_tables):
        one = needed_beta2(GradientTable.from_rows(_skewed(rng, 400)), KEY, **options)
        missed += [
            not one.low <= true <= one.high,
            abs(np.nan_to_num(one.one_minus_beta2) - true) > 1.96 * one.stderr,
        ]
        assert one.unseen == pytest.approx(3 / 400)
    assert (missed <= 0.1 * num_tables + 3 * np.sqrt(0.1 * 0.9 * num_tables)).all(), missed


def _rare(rng, n):
    """A large gradient in one batch of twenty."""
    large = 6 * rng.choice([0.9, 1.0, 1.1], n)
    return np.where(rng.random(n) < 0.05, large, rng.uniform(-0.14, -0.06, n))[:, None]


def test_the_needed_interval_is_what_the_table_says_of_each_beta2():
    rng = np.random.default_rng(0)
    seen = set()
    for n in (60, 100, 2000, 20_000):
        table = GradientTable.from_rows(_rare(rng, n))
        found = needed_beta2(table, KEY, least=1e-3)
        for q in (found.low / 1.05, found.low * 1.05, found.high / 1.05, found.high * 1.05):
            if not 1e-3 < q < 0.18:
                continue
            verdict = is_large_enough(table, KEY, beta2=1 - q).verdict
            seen.add(verdict)
            assert (verdict == "good") == (q < found.low)
            assert (verdict == "too small") == (q > found.high)
    assert seen == {"good", "cannot tell", "too small"}


def test_the_needed_interval_holds_where_the_table_met_few_of_a_rare_kind():
    """A table of too few knows neither the rare kind nor its error."""
    large = np.repeat([5.4, 6.0, 6.6], 10)
    every = np.concatenate([large, np.linspace(-0.14, -0.06, 570)])[:, None]
    true = needed_beta2(GradientTable.from_rows(every, complete=True), KEY).one_minus_beta2
    rng = np.random.default_rng(0)
    found = [needed_beta2(GradientTable.from_rows(_rare(rng, 100)), KEY) for _ in range(30)]
    assert sum(one.low <= true <= one.high for one in found) >= 27


@pytest.mark.parametrize(("batch_factor", "num_tables"), [(1, 40), (4, 15)])
def test_squares_hold_where_the_table_met_few_of_a_rare_kind(batch_factor, num_tables):
    """They turn within the reach of their error: 1.19, 0.69 and 0.74 of the limit here."""
    q = [0.1, 0.05, 0.02]
    sizes = np.repeat([-0.14, -0.12, -0.1, -0.08, -0.06, 6.0], [*[19] * 5, 5])
    whole = GradientTable.from_rows(np.tile(sizes, 20)[:, None], complete=True)
    true = probe(whole, q, KEY, batch_factors=[batch_factor]).squares[0]
    rng = np.random.default_rng(5)
    inside = np.zeros(len(q))
    for _ in range(num_tables):
        table = GradientTable.from_rows(_rare(rng, 150))
        found = probe(table, q, KEY, batch_factors=[batch_factor])
        inside += (found.squares_low[0] <= true) & (true <= found.squares_high[0])
    assert inside.min() >= 0.9 * num_tables - 1


@pytest.mark.parametrize("seen", [5, 20])
def test_tilts_are_the_limits_of_a_share(seen):
    """Of rare rows in a hundred: Clopper and Pearson's with half of the observed count."""
    n = 100
    influence = np.where(np.arange(n) < seen, 1.0, 0.0)[:, None]
    logs = sampling_error.tilts(influence)[:, 0]
    low, high = (special.softmax(one)[:seen].sum() for one in logs)
    upper = stats.binom.sf(seen, n, low) + stats.binom.pmf(seen, n, low) / 2
    lower = stats.binom.cdf(seen - 1, n, high) + stats.binom.pmf(seen, n, high) / 2
    assert [upper, lower] == pytest.approx([0.025, 0.025], rel=0.15)


def test_the_noise_ratio_is_unbiased():
    """Its inverse is a mean over tables without bias, at a noise that is larger than the table."""
    rng, n = np.random.default_rng(0), 50
    tables = [GradientTable.from_rows(rng.normal(0.1, 1, (n, 64))) for _ in range(200)]
    inverse = []
    for table in tables:
        square, mean = table.squared_norms.mean(), table.mean_squared_norm
        if np.isfinite(table.noise_ratio):
            assert table.noise_ratio == pytest.approx(square / ((n * mean - square) / (n - 1)))
        inverse.append(((n * mean - square) / (n - 1)) / square)
    error = np.std(inverse, ddof=1) / np.sqrt(len(inverse))
    assert abs(np.mean(inverse) - 0.01 / 1.01) < 4 * error
    assert np.isinf(GradientTable.from_rows(rng.normal(0, 1, (n, 2))).noise_ratio_interval.high)


def test_rare_batches_that_no_table_has_seen_are_owned_to():
    """All rows alike: nothing is known of one in a hundred, and no error is 0."""
    table = GradientTable.from_rows(np.full((400, 1), -0.01))
    found = needed_beta2(table, KEY, beta1=0.0, progress=0.0)
    assert found.one_minus_beta2 == 1
    assert found.stderr == np.inf
    assert "rarer than one in 133" in found.reason
    assert table.unseen == found.unseen == 3 / 400


def test_sparse_gradients_are_no_reason_for_a_small_beta2():
    """An embedding row that is hit once in fifty batches, β1 = 0.9."""
    rng = np.random.default_rng(0)
    rows = np.where(rng.random((400, 8)) < [0.3, 0.25, 0.2, 0.1, 0.08, 0.04, 0.03, 0.02], 1.0, 0.0)
    rows *= rng.normal(1, 1, rows.shape)
    table = GradientTable.from_rows(rows)
    found = needed_beta2(table, KEY, least=1e-3)
    assert found.high <= 1 - 0.9**2
    assert found.stderr < 0.1
    assert probe(table, [0.5], KEY).progress[0, 0] > 10
    answer = is_large_enough(table, KEY, beta2=0.5)
    assert answer.verdict == "too small"
    assert "β1=0.9 is not below √β2=0.7071" in answer.reason
    # without ε the mean itself is infinite, and the answer is the same
    assert np.isinf(probe(table, [0.5], KEY, epsilon=0.0).progress[0, 0])
    assert needed_beta2(table, KEY, least=1e-3, epsilon=0.0).high <= 1 - 0.9**2


def test_a_symmetric_table_stops_where_single_steps_are_unbounded():
    table = GradientTable.from_rows(np.random.default_rng(0).normal(0.4, 1, (300, 4)))
    found = needed_beta2(table, KEY, least=1e-2)
    assert found.one_minus_beta2 == pytest.approx(0.19, rel=1e-5)
    assert found.one_minus_beta2 < 0.19
    assert "single steps are unbounded" in found.reason


def test_a_relu_network_needs_more_than_a_beta2_of_one_half():
    digits = load_digits()
    x, y = jnp.asarray(digits.images.reshape(-1, 64) / 16), jnp.asarray(digits.target)
    first, second = jax.random.split(jax.random.key(0))
    params = {
        "hidden": jax.random.normal(first, (64, 32)) / 8,
        "head": jax.random.normal(second, (32, 10)) / 6,
    }

    def loss(params, rows):
        logits = jax.nn.relu(x[rows] @ params["hidden"]) @ params["head"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y[rows]).mean()

    batches = np.random.default_rng(0).integers(0, len(x), (200, 8))
    table = gradient_table(loss, params, batches, KEY, num_coordinates=32)
    assert (table.rows == 0).mean() > 0.1
    bad, good = (is_large_enough(table, KEY, beta2=one) for one in (0.5, 0.999))
    assert bad.verdict == "too small"
    assert good.verdict == "good", good
    assert needed_beta2(table, KEY, least=1e-2).high <= 0.19


def test_noise_that_hides_the_mean_is_no_answer():
    table = GradientTable.from_rows(np.random.default_rng(0).normal(0.01, 1, (100, 8)))
    found = probe(table, [0.1], KEY)
    assert np.isinf(found.progress_stderr).all()
    assert is_large_enough(table, KEY, beta2=0.99).verdict == "cannot tell"


def test_some_coordinates_stand_for_all_with_an_error():
    """Half of the parameters keep their progress and half do not: which are watched is chance."""
    rng = np.random.default_rng(0)
    n, whole = 200, 400
    rows = rng.normal(1.0, 0.5, (n, whole))
    hits = np.where(np.arange(n) % 20 == 0, 19.0, -0.9)
    for i in range(0, whole, 2):
        rows[:, i] = rng.permutation(hits)
    true = probe(GradientTable.from_rows(rows, complete=True), [0.1], KEY).progress[0, 0]
    values, errors = [], []
    for _ in range(20):
        watched = rng.choice(whole, 16, replace=False)
        table = GradientTable.from_rows(rows[:, watched], num_parameters=whole, complete=True)
        found = probe(table, [0.1], KEY)
        values.append(found.progress[0, 0])
        errors.append(found.progress_stderr[0, 0])
    assert (np.abs(np.array(values) - true) < 2.5 * np.array(errors)).mean() > 0.8
    assert np.median(errors) < 1.0


def test_a_pytree_of_parameters_and_a_real_loss():
    """Logistic regression with a bias: shapes, constants, and wrong signs that vanish as β2 → 1."""
    rng = np.random.default_rng(0)
    data = [(rng.normal(size=(4, 6)), rng.integers(0, 2, 4)) for _ in range(40)]
    params = {"w": jnp.zeros((6, 1)), "b": jnp.zeros(())}

    def loss(params, batch):
        x, y = batch
        logits = (x @ params["w"])[:, 0] + params["b"]
        return jnp.mean(jax.nn.softplus(logits) - y * logits)

    table = gradient_table(loss, params, data, KEY, num_coordinates=5)
    assert table.rows.shape == (40, 5)
    assert table.num_parameters == 7
    assert table.skewness.shape == (5,)
    full = gradient_table(loss, params, data, KEY, num_coordinates=100)
    assert full.rows.shape == (40, 7)
    np.testing.assert_allclose(full.squared_norms, (full.rows**2).sum(axis=1), rtol=1e-4)
    assert full.mean_squared_norm == pytest.approx((full.rows.mean(axis=0) ** 2).sum(), rel=1e-3)
    found = probe(full, [0.9, 0.01], KEY, batch_factors=(1, 4))
    assert found.progress.shape == (2, 2)
    assert found.progress[0, 1] > 0.95 - 4 * found.progress_stderr[0, 1]
    assert found.wrong_mass[1, 1] < 0.2
    again = probe(full, [0.9, 0.01], KEY, batch_factors=(1, 4))
    np.testing.assert_array_equal(found.progress, again.progress)


def _linear(w, batch):
    return w @ batch


TABLE = GradientTable.from_rows(np.random.default_rng(0).normal(1, 1, (30, 1)))


def _asked(**arguments):
    return is_large_enough(TABLE, KEY, **{"beta2": 0.99, **arguments})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gradient_table(_linear, jnp.ones(2), [], KEY), "0 batches"),
        (lambda: gradient_table(_linear, jnp.ones(2), [jnp.ones(2)], KEY), "1 batches"),
        (
            lambda: gradient_table(_linear, jnp.ones(2), [jnp.full(2, jnp.nan)] * 2, KEY),
            "batch 0: loss=nan",
        ),
        (
            lambda: gradient_table(lambda w, b: w * b, jnp.ones(2), [jnp.ones(2)] * 2, KEY),
            "loss has shape",
        ),
        (lambda: gradient_table(_linear, jnp.ones(2), [jnp.zeros(2)] * 2, KEY), "gradient is zero"),
        (
            lambda: gradient_table(_linear, jnp.ones(2), [jnp.ones(2)] * 2, KEY, num_coordinates=0),
            "num_coordinates=0",
        ),
        (lambda: probe(_counterexample(5), [0.0], KEY), "one_minus_beta2"),
        (lambda: probe(_counterexample(5), 0.1, KEY), "one_minus_beta2=0.1: needs a list"),
        (lambda: needed_beta2(_counterexample(5), KEY, batch_factor=0), "batch_factor=0"),
        (lambda: needed_beta2(_counterexample(5), KEY, least=0.0), "least=0.0 is outside"),
        (lambda: needed_beta2(_counterexample(5), KEY, progress=2.0), "progress=2.0 is outside"),
        (lambda: probe(_counterexample(5), [0.1], KEY, beta1=1.0), "beta1=1.0"),
        (lambda: probe(_counterexample(5), [0.1], KEY, batch_factors=(0,)), "batch_factors"),
        (lambda: probe(_counterexample(5), [0.1], KEY, epsilon=-1.0), "epsilon=-1.0"),
        (lambda: probe(_counterexample(5), [0.1], 0, batch_factors=(2,)), "key: needs one key"),
        (
            lambda: needed_beta2(_counterexample(5), KEY, beta1=0.9, least=0.3),
            "least=0.3 is outside",
        ),
        (lambda: is_large_enough(_counterexample(5), KEY, beta2=1.0), "beta2=1.0 is outside"),
        (lambda: _asked(beta2="x"), "beta2='x': needs one number"),
        (lambda: _asked(beta2=np.array([0.9, 0.99])), r"beta2=array\(.*: needs one number"),
        (lambda: _asked(epsilon=None), "epsilon=None: needs one number"),
        (lambda: _asked(squares="2"), "squares='2': needs one number"),
        (lambda: _asked(batch_factor="a"), "batch_factor='a': needs a whole number"),
        (lambda: _asked(batch_factor=None), "batch_factor=None: needs a whole number"),
        (lambda: _asked(batch_factor=np.inf), "batch_factor=inf: needs a whole number"),
        (lambda: _asked(batch_factor=np.nan), "batch_factor=nan: needs a whole number"),
        (lambda: probe(TABLE, [0.1], KEY, batch_factors=2), "batch_factors=2: needs a list"),
        (lambda: probe(TABLE, ["a"], KEY), r"one_minus_beta2=\['a'\]: needs a list"),
        (lambda: probe(TABLE.rows, [0.1], KEY), "table is a ndarray: needs a GradientTable"),
        (lambda: needed_beta2(TABLE, KEY, beta1=None), "beta1=None: needs one number"),
        (lambda: needed_beta2(TABLE, KEY, least="a"), "least='a': needs one number"),
        (lambda: GradientTable.from_rows(TABLE.rows, num_parameters="7"), "num_parameters='7'"),
        (lambda: GradientTable.from_rows(TABLE.rows, num_parameters=2.5), "num_parameters=2.5"),
        (
            lambda: GradientTable.from_rows(np.ma.masked_greater(TABLE.rows, 1.0)),
            "rows: a masked array",
        ),
        (
            lambda: GradientTable.from_rows(1e160 * TABLE.rows),
            r"rows: the largest entry is .*e\+16",
        ),
        (lambda: GradientTable.from_rows(np.full((50, 3), 2e-200)), "rows: the largest .* 2e-200"),
        (lambda: gradient_table(_linear, jnp.ones(2), [], KEY, num_coordinates="a"), "num_coord"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def _mean_of(w, batch):
    return jnp.mean(batch["x"] @ w)


WHOLE = [{"x": np.ones((8, 3), np.float32) * i} for i in range(1, 5)]


@pytest.mark.parametrize(
    ("loss", "batches", "message"),
    [
        (
            _mean_of,
            [*WHOLE, {"x": np.ones((4, 3), np.float32)}],
            r"batch 4 has \['x'\] of shape \(4, 3\)",
        ),
        (_mean_of, [dict(one, name="a") for one in WHOLE], r"batch 0\['name'\] is a str"),
        (_mean_of, {"x": np.ones((8, 3))}, "batches is one dict"),
        (_mean_of, (one for one in ()), "a generator that is used up"),
        (lambda w, b: (_mean_of(w, b), 1.0), WHOLE, "pass has_aux=True"),
        (lambda w, b: b["x"] @ w, WHOLE, r"loss has shape \(8,\)"),
        (lambda w, b: (b["x"] @ w > 0).sum(), WHOLE, "loss has dtype int32"),
        (
            lambda w, b: np.mean(np.asarray(b["x"]) @ np.asarray(w)),
            WHOLE,
            "GradientTable.from_rows",
        ),
        (lambda w, b: _mean_of(w, b) if w[0] > 0 else 0.0, WHOLE, "GradientTable.from_rows"),
    ],
)
def test_batches_and_losses_that_cannot_be_are_one_line(loss, batches, message):
    with pytest.raises(ValueError, match=message) as caught:
        gradient_table(loss, jnp.ones(3), batches, KEY)
    assert "\n" not in str(caught.value)


def test_aux_and_a_key_for_each_batch():
    def noisy(w, batch, key):
        return w @ (batch + jax.random.normal(key, (3,))), {"anything": batch}

    table = gradient_table(
        noisy, jnp.ones(3), [jnp.ones(3)] * 6, KEY, has_aux=True, key_per_batch=True
    )
    assert len(np.unique(table.rows[:, 0])) == 6


def test_keys_of_both_kinds_are_the_same():
    old, new = jax.random.PRNGKey(3), jax.random.key(3)
    rows = np.random.default_rng(0).normal(1, 1, (30, 2))
    table = GradientTable.from_rows(rows)
    one, other = (probe(table, [0.1], key, batch_factors=(2,)).progress for key in (old, new))
    np.testing.assert_array_equal(one, other)
    assert keys.generator(old).random() == keys.generator(new).random()
    for wrong in (0, jax.random.split(new, 2), np.zeros(3)):
        with pytest.raises(ValueError, match="key: needs one key"):
            keys.generator(wrong)


class _Net(nnx.Module):
    def __init__(self, rngs):
        self.inner = nnx.Linear(4, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.outer = nnx.Linear(8, 1, rngs=rngs)

    def __call__(self, x):
        return self.outer(self.drop(nnx.relu(self.norm(self.inner(x)))))


def test_a_flax_module_with_dropout_and_batch_statistics():
    model = _Net(nnx.Rngs(0))
    before = jax.tree.map(np.asarray, nnx.state(model, nnx.BatchStat))
    batch = (jnp.ones((16, 4)) * jnp.arange(16.0)[:, None], jnp.ones((16, 1)))

    def loss(model, batch):
        return jnp.mean((model(batch[0]) - batch[1]) ** 2)

    table = gradient_table(loss, model, [batch] * 5, KEY)
    assert table.num_parameters == 4 * 8 + 8 + 8 + 8 + 8 + 1
    assert len(np.unique(table.squared_norms)) == 5  # another dropout mask for each batch
    after = jax.tree.map(np.asarray, nnx.state(model, nnx.BatchStat))
    jax.tree.map(np.testing.assert_array_equal, before, after)
    graph, params, rest = nnx.split(model, nnx.Param, ...)
    with pytest.raises(ValueError, match="copy=True"):
        gradient_table(lambda p, b: loss(nnx.merge(graph, p, rest), b), params, [batch] * 5, KEY)
    merged = gradient_table(
        lambda p, b: loss(nnx.merge(graph, p, rest, copy=True), b), params, [batch] * 5, KEY
    )
    assert merged.num_parameters == table.num_parameters


def test_leaves_that_are_not_trained_are_handed_on():
    params = {
        "w": jnp.ones(3), "steps": jnp.arange(2), "on": np.array([True]), "key": jax.random.key(0),
        "activation": jax.nn.relu, "name": "net", "nothing": None, "masked": optax.MaskedNode(),
        "empty": jnp.zeros((0, 3)), "list": [1.0, np.float32(2)],
    }  # fmt: skip

    def loss(p, batch):
        assert p["name"] == "net"
        assert p["on"].dtype == bool
        jax.random.normal(p["key"])
        return p["activation"](p["w"] @ batch) + sum(p["list"]) + p["steps"][1]

    table = gradient_table(loss, params, [jnp.ones(3), 2 * jnp.ones(3)], KEY)
    assert table.num_parameters == 5
    with pytest.raises(ValueError, match=r"params\['z'\] is complex"):
        gradient_table(loss, {"z": jnp.ones(2, complex)}, [1.0, 2.0], KEY)
    with pytest.raises(ValueError, match="of 0 parameters"):
        gradient_table(loss, {"n": jnp.arange(3)}, [1.0, 2.0], KEY)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_sums_are_wide_where_parameters_are_not(dtype):
    rows = np.full((2000, 4), 1.0)
    rows[1::2] = -1.0
    rows[::2] += 2.0**-7  # exact in bfloat16; the mean, 2^-8, is lost in a sum of eight bits

    def loss(w, c):
        return jnp.sum(w * c.astype(w.dtype)).astype(jnp.float32)

    table = gradient_table(loss, jnp.zeros(4, dtype), jnp.asarray(rows, jnp.float32), KEY)
    np.testing.assert_array_equal(table.rows, rows)
    assert table.mean_squared_norm == pytest.approx((rows.mean(axis=0) ** 2).sum(), rel=1e-4)
    np.testing.assert_allclose(table.squared_norms, (rows**2).sum(axis=1), rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-119, 1e-30, 1e30, 1e119])
def test_the_size_of_gradients_changes_no_statistic(scale):
    rows = np.random.default_rng(0).normal(1, 1, (40, 2))
    one, other = (GradientTable.from_rows(factor * rows) for factor in (1.0, scale))
    assert other.noise_ratio == pytest.approx(one.noise_ratio, rel=1e-9)
    np.testing.assert_allclose(other.noise_ratio_interval, one.noise_ratio_interval, rtol=1e-9)
    np.testing.assert_allclose(other.skewness, one.skewness, rtol=1e-9)
    first, second = (probe(table, [0.05], KEY, epsilon=0.0) for table in (one, other))
    for name in ("progress", "progress_low", "progress_high", "squares", "squares_high"):
        np.testing.assert_allclose(getattr(second, name), getattr(first, name), rtol=1e-6)


def test_rows_of_any_library():
    rows = np.random.default_rng(0).normal(1, 1, (40, 3))
    one = GradientTable.from_rows(rows)
    for other in (rows.tolist(), jnp.asarray(rows), rows.astype(np.float32), rows[::-1][::-1]):
        found = GradientTable.from_rows(other)
        np.testing.assert_allclose(found.rows, one.rows, rtol=1e-6)
        assert found.noise_ratio == pytest.approx(one.noise_ratio, rel=1e-5)
    bad = rows.copy()
    bad[7, 1] = np.nan
    for wrong, message in (
        (bad, "row 7 of 40 is not finite"), (rows[:1], "1 batches"), (rows[0], "have shape"),
        ([["a"]], "needs a table of numbers"), (rows[:, :0], "have shape"),
        ([[1], [1, 2]], "table of"),
        (np.zeros((3, 2)), "mean gradient is zero"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            GradientTable.from_rows(wrong)
    by_hand = GradientTable(bad, 3, (bad**2).sum(axis=1), 1.0)
    for ask in (lambda: probe(by_hand, [0.1], KEY), lambda: needed_beta2(by_hand, KEY)):
        with pytest.raises(ValueError, match="row 7 of 40 is not finite"):
            ask()
    with pytest.raises(ValueError, match="num_parameters=2"):
        GradientTable.from_rows(rows, num_parameters=2)


def test_coordinates_of_a_large_model_are_chosen_without_a_list_of_all():
    """A hundred million parameters: a permutation of them would take 800 MB and many seconds."""
    from adam_transition.advise.tables import _chosen

    parts = _chosen([10**8, 7, 10**9], 64, KEY)
    assert sum(len(part) for part in parts) == 64
    assert all((part >= 0).all() for part in parts)
    assert len(np.unique(parts[2])) == len(parts[2]) > 40


def test_a_table_of_zeros_is_refused():
    table = GradientTable.from_rows(np.ones((5, 2)))
    with pytest.raises(ValueError, match="rows: all gradients are zero"):
        is_large_enough(table._replace(rows=0 * table.rows), sampling.stream_key(0), beta2=0.9)
