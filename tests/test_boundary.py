"""The boundary: reference values, no sign change lost, the curve with its folds."""

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from hypothesis import strategies as st

from adam_transition import adam, sampling
from adam_transition.problems.constructions import counterexample_table
from adam_transition.theory import laws
from adam_transition.theory.boundary import boundary_curve, divergence_intervals
from adam_transition.theory.stationary_drift import stationary_drift
from tests.test_drift import _enumerated_drift

REFERENCE = Path(__file__).parent / "reference"
CYCLIC = json.loads((REFERENCE / "ref_cyclic_shared.json").read_text())
RANDOM = json.loads((REFERENCE / "ref_random_shared.json").read_text())


def _pairs(intervals):
    return [[i.low.beta2, i.high.beta2] for i in intervals]


@pytest.mark.parametrize("a", sorted({row["a"] for row in CYCLIC}))
@pytest.mark.parametrize("n", [5, 10, 20, 50])
def test_cyclic_boundaries_are_the_reference_to_1e_9(n, a):
    rows = [row for row in CYCLIC if row["n"] == n and row["a"] == a]
    if not rows:
        return
    found = divergence_intervals(counterexample_table(n, a), [row["beta1"] for row in rows])
    for row, intervals in zip(rows, found, strict=True):
        assert len(intervals) == len(row["diverges"])
        for pair, expected in zip(_pairs(intervals), row["diverges"], strict=True):
            np.testing.assert_allclose(pair, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "row",
    RANDOM,
    ids=lambda r: f"{r['sampling']}-{r['n']}-{r['beta1']}-{r['a']:.2g}",
)
def test_random_boundaries_are_the_reference_to_1e_11(row):
    table = counterexample_table(row["n"], row["a"])
    [intervals] = divergence_intervals(table, [row["beta1"]], row["sampling"])
    edge = intervals[-1].high
    assert edge.stderr == 0
    assert edge.one_minus_beta2 == pytest.approx(1 - edge.beta2)
    assert edge.beta2 == pytest.approx(row["upper_boundary"], abs=1.2e-11)


@pytest.mark.parametrize(("n", "beta1", "num_epochs"), [(10, 0.0, 4), (20, 0.0, 3), (20, 0.5, 3)])
def test_random_shuffling_boundary_is_that_of_enumerated_orders(n, beta1, num_epochs):
    """Exact to 1e-8: the mean over every place of the large gradient in the last epochs."""
    a = 1 / (n - 1) ** 2
    exact = scipy.optimize.brentq(
        lambda beta2: _enumerated_drift(n, a, beta1, beta2, num_epochs), 0.5, 0.75, xtol=1e-9
    )
    [intervals] = divergence_intervals(counterexample_table(n), [beta1], "random_shuffling")
    assert intervals[-1].high.beta2 == pytest.approx(exact, abs=2e-8)


def test_reentrant_boundary():
    [intervals] = divergence_intervals(counterexample_table(20), [0.5])
    np.testing.assert_allclose(_pairs(intervals), [[0.12076, 0.59966]], atol=1e-5)


def test_reddis_101_slopes_still_fail_at_0_999():
    table = np.array([1010.0] + [-10.0] * 100)[:, None]
    [intervals] = divergence_intervals(table, [0.9])
    assert intervals[-1].high.beta2 == pytest.approx(0.99952, abs=5e-6)


def test_shi_et_als_transition_at_c_10():
    [intervals] = divergence_intervals(np.array([10.0] + [-1.0] * 9)[:, None], [0.0])
    assert intervals[-1].high.beta2 == pytest.approx(0.9554, abs=5e-5)


@pytest.mark.parametrize("n", [300, 3000])
def test_law_at_fixed_a(n):
    """1 − β2* ≈ 4/(a n²) at β1 = 0 in cyclic order, better as n grows."""
    [intervals] = divergence_intervals(counterexample_table(n, 1.0), [0.0])
    assert intervals[-1].high.one_minus_beta2 * n**2 / 4 == pytest.approx(1, abs=5 / n)


def test_one_minus_beta2_keeps_its_digits():
    [intervals] = divergence_intervals(counterexample_table(20_000, 10.0), [0.0])
    edge = intervals[-1].high
    assert edge.one_minus_beta2 == pytest.approx(4 / (10 * 20_000**2), rel=1e-3)
    below, above = (
        stationary_drift(
            counterexample_table(20_000, 10.0),
            adam.Hyperparameters(1.0, edge.one_minus_beta2 * (1 + s)),
        ).drift[0]
        for s in (1e-5, -1e-5)
    )
    assert below > 0 > above


@given(st.integers(3, 60), st.floats(-4, 1), st.floats(0, 0.97))
@settings(max_examples=25)
def test_no_sign_change_is_lost(n, log_a, beta1):
    """Brute force: 20 000 points between β2 = 1e-9 and 1 − 1e-9."""
    table = counterexample_table(n, 10.0**log_a)
    u = np.linspace(-20.7, 20.7, 20_000)
    drift = stationary_drift(table, adam.Hyperparameters(1 - beta1, 1 / (1 + np.exp(u)))).drift
    crossings = np.flatnonzero(np.diff(np.signbit(drift[:, 0])))
    [intervals] = divergence_intervals(table, [beta1])
    edges = [e for pair in intervals for e in pair if 1e-9 < e.beta2 < 1 - 1e-9]
    assert len(edges) == len(crossings)
    for edge, k in zip(edges, crossings, strict=True):
        found = -np.log(1 / edge.beta2 - 1)
        assert u[k] - 1e-6 <= found <= u[k + 1] + 1e-6


@pytest.mark.parametrize("n", [20, 50])
def test_intervals_that_almost_vanish_are_found(n):
    """Next to the fold the two edges are closer than the scan's points."""
    table = counterexample_table(n)
    inside, outside = 0.5, 0.95
    for _ in range(40):
        middle = (inside + outside) / 2
        if divergence_intervals(table, [middle])[0]:
            inside = middle
        else:
            outside = middle
    [interval] = divergence_intervals(table, [inside])[0]
    assert interval.high.beta2 - interval.low.beta2 < 2e-3


def test_curve_lies_on_the_zero_set_and_turns_back():
    lines = boundary_curve(counterexample_table(20))
    longest = max(lines, key=len)
    drift = stationary_drift(
        counterexample_table(20),
        adam.Hyperparameters(1 - longest[:, 0], 1 - longest[:, 1]),
    ).drift[:, 0]
    scale = np.abs(stationary_drift(counterexample_table(20), adam.hyperparameters(0, 0)).drift)
    assert np.abs(drift).max() < 1e-4 * scale
    fold = np.argmax(longest[:, 0])
    assert 0 < fold < len(longest) - 1
    assert longest[fold, 0] > 0.6
    near = longest[np.abs(longest[:, 0] - 0.5).argsort()[:2], 1]
    assert near.min() < 0.2
    assert near.max() > 0.55


@pytest.mark.parametrize(
    ("beta1", "end"), [(0.98, 0.0069138), (0.985, 0.0077220), (0.99, 0.0099788)]
)
def test_the_boundary_may_be_much_nearer_to_1_than_that_of_cyclic_order(beta1, end):
    """More than sixteen times; at β1 = 0.99 nothing at all diverges in cyclic order."""
    table = counterexample_table(20, 1.0)
    cyclic = [one.high.one_minus_beta2 for one in divergence_intervals(table, [beta1])[0]]
    assert min(cyclic, default=1.0) > 16 * end
    [intervals] = divergence_intervals(table, [beta1], "with_replacement")
    assert intervals[-1].high.one_minus_beta2 == pytest.approx(end, abs=1e-7)


def test_a_boundary_that_cannot_be_found_is_refused():
    """Its 1 − β2* is about 2/n², below what the drift can be had for."""
    with pytest.raises(ValueError, match="drift is still positive at 1 − β2 = 1e-09"):
        divergence_intervals(counterexample_table(60_000, 1.0), [0.0], "with_replacement")


@pytest.mark.parametrize(
    ("n", "a", "scheme", "times"),
    [(600, 1.0, "with_replacement", 1), (300, 1e4, "with_replacement", 1),
     (40, 1e4, "random_shuffling", 2)],
)  # fmt: skip
def test_boundaries_nearer_to_1_than_a_millionth(n, a, scheme, times):
    """1 − β2* from 5e-6 to 2e-8 is the first-order law; under shuffling, twice it up to 1/n."""
    table = counterexample_table(n, a)
    [intervals] = divergence_intervals(table, [0.0], scheme)
    law = laws.with_replacement_law(table, 0.0)
    ratio = intervals[-1].high.one_minus_beta2 / law / times
    assert abs(ratio - 1) < (1e-6 if times == 1 else 1 / n)


@pytest.mark.parametrize(
    ("beta1", "scheme", "message"),
    [
        (0.5, "cyclic", "beta1=0.5: must be a list"),
        ([], "cyclic", "one or more values"),
        ([0.0, 1.0], "cyclic", r"values in \[0, 1\)"),
        ([0.0], "shuffling", "sampling='shuffling' is not one of cyclic, random_shuffling"),
    ],
)
def test_a_bad_beta1_or_scheme_is_named(beta1, scheme, message):
    with pytest.raises(ValueError, match=message):
        divergence_intervals(counterexample_table(5), beta1, scheme)


@pytest.mark.parametrize(
    ("table", "message"),
    [(np.ones(3), "need .n, 1. with a positive mean"), (-np.ones((3, 1)), "positive mean")],
)
def test_errors_name_the_argument(table, message):
    with pytest.raises(ValueError, match=message):
        divergence_intervals(table, [0.0])


def test_an_estimated_boundary_has_its_standard_error():
    """Gradients that are alike to 1e-9 have too many states; those that are alike have few."""
    alike = np.array([5.0] + [-0.4] * 10)[:, None]
    apart = alike + 1e-9 * np.arange(11)[:, None]
    with pytest.raises(ValueError, match="needs a key"):
        divergence_intervals(apart, [0.0], "random_shuffling")
    [[estimate]] = divergence_intervals(
        apart, [0.0], "random_shuffling", key=sampling.stream_key(0), num_samples=200_000
    )
    [[limit]] = divergence_intervals(alike, [0.0], "random_shuffling")
    assert 0 < estimate.high.stderr < 3e-3
    assert abs(estimate.high.beta2 - limit.high.beta2) < 4 * estimate.high.stderr


def test_gradients_that_are_zero_have_a_boundary():
    """It is that of small gradients; with replacement the drift has no value near β2 = 0."""
    table = np.array([[5.0], [-1.0], [-1.0], [0.0]])
    for scheme in ("cyclic", "random_shuffling", "with_replacement"):
        [[exact]] = divergence_intervals(table, [0.0], scheme)
        [[limit]] = divergence_intervals(np.where(table == 0, 1e-9, table), [0.0], scheme)
        assert exact.high.stderr == 0
        assert exact.high.beta2 == pytest.approx(limit.high.beta2, abs=1e-7)
    with pytest.raises(ValueError, match="so the mean of m/√v is infinite"):
        divergence_intervals(table, [0.5], "with_replacement")
    assert divergence_intervals(table, [0.5], "with_replacement", epsilon=1e-8)
    sparse = np.concatenate([table, np.zeros((100, 1))])
    assert len(divergence_intervals(sparse, [0.9])[0]) in (0, 1, 2)


@given(
    st.integers(3, 30), st.floats(-4, 1), st.floats(0, 0.97), st.floats(-4, 1), st.booleans(),
    st.integers(0, 3),
)  # fmt: skip
@settings(max_examples=25)
def test_no_sign_change_is_lost_with_epsilon(n, log_a, beta1, log_epsilon, inside, num_zeros):
    """Brute force: 10 000 points between β2 = 1e-9 and 1 − 1e-9."""
    table = np.vstack([counterexample_table(n, 10.0**log_a), np.zeros((num_zeros, 1))])
    eps = {"epsilon_root" if inside else "epsilon": 10.0**log_epsilon}
    u = np.linspace(-20.7, 20.7, 10_000)
    hyper = adam.Hyperparameters(1 - beta1, 1 / (1 + np.exp(u)), **eps)
    crossings = np.flatnonzero(np.diff(np.signbit(stationary_drift(table, hyper).drift[:, 0])))
    [intervals] = divergence_intervals(table, [beta1], **eps)
    edges = [e for pair in intervals for e in pair if 1e-9 < e.beta2 < 1 - 1e-9]
    assert len(edges) == len(crossings)
    for edge, k in zip(edges, crossings, strict=True):
        found = -np.log(1 / edge.beta2 - 1)
        assert u[k] - 1e-6 <= found <= u[k + 1] + 1e-6


@pytest.mark.parametrize("scheme", ["cyclic", "random_shuffling", "with_replacement"])
def test_epsilon_moves_the_boundary_down_and_then_away(scheme):
    """Only the ratio of ε to the small gradients counts."""
    table = counterexample_table(8 if scheme == "random_shuffling" else 20)
    small = np.abs(table).min()
    ends = [
        [one.high.beta2 for one in divergence_intervals(table, [0.0], scheme, epsilon=eps)[0]]
        for eps in (0.0, 0.3 * small, 3 * small, 40 * small)
    ]
    assert ends[0] > ends[1] > ends[2] > ends[3] == []
    [[scaled]] = divergence_intervals(1e6 * table, [0.0], scheme, epsilon=3e6 * small)
    assert scaled.high.beta2 == pytest.approx(ends[2][0], abs=1e-10)
    [curve] = boundary_curve(table, scheme, epsilon=0.3 * small, num_points=(6, 30))
    start = curve[np.abs(curve[:, 0]).argmin()]
    assert start == pytest.approx([0.0, ends[1][0]], abs=1e-6)


def test_the_order_of_the_schemes_is_that_of_the_counterexample_alone():
    """Another table on which cyclic order needs the largest β2, and shuffling the least."""
    table = np.array([[1.0419], [0.2634], [-0.0604], [-0.1132], [-0.1317]])
    cyclic, shuffled, drawn = (
        divergence_intervals(table, [0.0], scheme)[0][-1].high.beta2
        for scheme in ("cyclic", "random_shuffling", "with_replacement")
    )
    assert (cyclic, drawn, shuffled) == pytest.approx((0.300, 0.181, 0.127), abs=1e-3)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"greatest_beta1": 0.0}, "greatest_beta1=0.0 is outside"),
        ({"greatest_beta1": 1.0}, "greatest_beta1=1.0 is outside"),
        ({"num_points": (1, 1)}, "num_points="),
    ],
)
def test_curves_without_a_plane_are_refused(kwargs, message):
    table = np.array([[5.0], [-1], [-1], [-1], [-1]])
    with pytest.raises(ValueError, match=message):
        boundary_curve(table, **kwargs)
