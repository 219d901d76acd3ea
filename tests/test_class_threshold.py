"""Which β2 is enough for a class: the theorems on random tables, hardest tables, the command."""

import json

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from adam_transition import adam, problems
from adam_transition.commands import class_threshold
from adam_transition.sampling import stream_key
from adam_transition.studies.class_threshold import claims as study_claims
from adam_transition.theory import laws
from adam_transition.theory.boundary import divergence_intervals
from adam_transition.theory.class_threshold import (
    hardest,
    hardest_cyclic,
    hardest_of_two,
    sufficient,
    sufficient_for,
    two_valued,
)
from adam_transition.theory.divergence import worst_case_drift
from adam_transition.theory.stationary_drift import stationary_drift
from tests import experiment
from tests.claim_cases import assert_three_verdicts, missing, same, scaled

RNG = np.random.default_rng(0)


def _tables(count, n):
    """Tables with a positive mean: heavy tails, one large element, ties, zeros."""
    for i in range(count):
        table = RNG.standard_t(1.5, n) + RNG.uniform(0, 2)
        if i % 4 == 1:
            table = -RNG.uniform(0, 1, n)
            table[0] = -table.sum() * RNG.uniform(1.05, 3)
        elif i % 4 == 2:
            table = np.round(table)
        elif i % 4 == 3:
            table[RNG.integers(n)] = 0
        if table.mean() != 0:
            yield table * np.sign(table.mean()) * 10.0 ** RNG.integers(-3, 4)


@pytest.mark.parametrize("n", [3, 6])
def test_with_replacement_what_is_proved_holds(n):
    for table in _tables(12, n):
        q = min(0.999, sufficient_for(table, "with_replacement") * (1 - 1e-9))
        for beta1, epsilon in ((0.0, 0.0), (0.9, 0.0), (0.99, 0.3 * np.abs(table).max())):
            hyper = adam.Hyperparameters(1 - beta1, max(q, 1e-3), epsilon)
            if q >= 1e-3:
                assert stationary_drift(table[:, None], hyper, "with_replacement").drift < 0


@pytest.mark.parametrize("n", [3, 7])
def test_in_cyclic_order_what_is_proved_holds(n):
    for table in _tables(40, n):
        q = min(0.999, sufficient_for(table, "cyclic", 0.5) * (1 - 1e-9))
        for beta1 in (0.0, 0.5, 0.95):
            for order in (table, np.sort(table), -np.sort(-table)):
                drift = stationary_drift(order[:, None], adam.Hyperparameters(1 - beta1, q)).drift
                assert drift < 0


def test_for_every_sequence_of_orders_what_is_proved_holds():
    """The sum of m/√v over epochs whose orders alternate, or are drawn anew."""
    for table in _tables(24, 5):
        for beta1 in (0.0, 0.1):
            q = min(0.99, sufficient_for(table, "random_shuffling", beta1) * (1 - 1e-9))
            if q == 0:
                continue
            up, down = np.sort(table), -np.sort(-table)
            for kind in range(3):
                m, v, sums = 0.0, 0.0, []
                for e in range(400):
                    order = (up, down)[e % 2] if kind < 2 else RNG.permutation(table)
                    order = order if kind else np.roll(order, e)
                    total = 0.0
                    for g in order:
                        m += (1 - beta1) * (g - m)
                        v += q * (g * g - v)
                        total += m / np.sqrt(v) if v else 0.0
                    sums.append(total)
                assert np.mean(sums[100:]) > 0


@given(
    n=st.integers(2, 60),
    excess=st.floats(1e-3, 1e3),
    beta1=st.floats(0, 0.99),
    sampling=st.sampled_from(["cyclic", "random_shuffling", "with_replacement"]),
)
@settings(max_examples=60, deadline=None)
def test_the_bound_of_the_class_is_that_of_none_of_its_tables_less(n, excess, beta1, sampling):
    d1 = n * (1 + excess)
    bound = sufficient(n, d1, sampling, beta1)
    assert 0 <= bound <= 1
    for k in {1, n // 2} - {0}:
        table = two_valued(n, k, d1)
        assert table.sum() == pytest.approx(1)
        assert n**2 * (table**2).sum() == pytest.approx(d1)
        assert sufficient_for(table, sampling, beta1) >= bound * (1 - 1e-7)
    assert sufficient(n, 4 * d1, sampling, beta1) <= bound
    # one large element and equal others attain the ratio of the class
    one = sufficient_for(two_valued(n, 1, d1), "with_replacement")
    assert one == pytest.approx(sufficient(n, d1, "with_replacement"), rel=1e-6)


def test_the_sharper_ratio_is_at_most_the_root_of_d1():
    for n in (2, 5, 40):
        for d1 in (n, 2.0 * n, float(n**2), 9.0 * n**2):
            rho = 1 + np.sqrt((n - 1) * (d1 / n - 1))
            assert rho <= np.sqrt(d1) * (1 + 1e-12)
    assert sufficient(5, 5.0, "with_replacement") == 1.0  # all gradients are equal


def test_the_hardest_table_is_exact_and_the_counterexample_at_large_d1():
    n, a = 6, 1.0
    table = problems.counterexample_table(n, a)
    d1 = float(problems.counterexample_d1(n, a))
    found = hardest(n, d1)
    assert found.num_positive == 1
    np.testing.assert_allclose(found.slopes, table[:, 0], rtol=1e-9)
    [intervals] = divergence_intervals(table, [0.0], "with_replacement")
    assert found.one_minus_beta2 == pytest.approx(intervals[-1].high.one_minus_beta2, rel=1e-8)
    several = hardest(8, 40.0)
    assert several.num_positive > 1
    assert several.one_minus_beta2 > sufficient(8, 40.0, "with_replacement")
    hyper = adam.Hyperparameters(1.0, several.one_minus_beta2 * np.array([1.001, 0.999]))
    above, below = stationary_drift(several.slopes[:, None], hyper, "with_replacement").drift[:, 0]
    assert above > 0 > below
    # every order diverges on a table of one positive slope where the other theorem says so
    assert worst_case_drift(20, 1.0, adam.Hyperparameters(1.0, 0.9)) > 0


@pytest.mark.parametrize(
    ("n", "ratio", "sampling"),
    [(7, 5.0, "with_replacement"), (12, 4.0, "cyclic"), (12, 30.0, "cyclic"), (30, 8.0, "cyclic")],
)
def test_the_search_over_k_misses_none(n, ratio, sampling):
    """It ends once the threshold has fallen twice: against every k up to n/2, and above."""
    thresholds = []
    for k in range(1, n - 1):
        slopes = two_valued(n, k, ratio * n)
        if slopes[-1] < 0:
            [intervals] = divergence_intervals(slopes[:, None], [0.0], sampling)
            thresholds += [interval.high.one_minus_beta2 for interval in intervals[-1:]]
    assert hardest_of_two(n, ratio * n, sampling).one_minus_beta2 == min(thresholds)


@pytest.mark.parametrize(
    ("n", "d1", "beta1"), [(5, 50.0, 0.0), (10, 200.0, 0.5), (20, 200.0, 0.0), (20, 800.0, 0.9)]
)
def test_the_hardest_table_in_cyclic_order(n, d1, beta1):
    found = hardest_cyclic(n, d1, beta1)
    assert found.slopes.sum() == pytest.approx(1)
    assert n**2 * found.slopes @ found.slopes == pytest.approx(d1)
    assert found.num_positive == (found.slopes > 0).sum()
    assert found.one_minus_beta2 >= sufficient(n, d1, "cyclic", beta1)
    assert found.one_minus_beta2 <= hardest_of_two(n, d1, "cyclic", beta1).one_minus_beta2
    hyper = adam.Hyperparameters(1 - beta1, found.one_minus_beta2 * np.array([1.001, 0.999]))
    above, below = stationary_drift(found.slopes[:, None], hyper).drift[:, 0]
    assert above > 0 > below
    # from other starts: none better, so that this is not the luck of the starts
    starts = list(np.random.default_rng(1).standard_t(2, (4, n)))
    again = hardest_cyclic(n, d1, beta1, starts=starts)
    assert again.one_minus_beta2 == pytest.approx(found.one_minus_beta2, rel=1e-9)
    # nor any nearby
    for _ in range(20):
        other = found.slopes + 0.02 * RNG.normal(size=n) * np.abs(found.slopes).max()
        other = other - other.mean()
        other = 1 / n + other * np.sqrt((d1 / n - 1) / n) / np.linalg.norm(other)
        [intervals] = divergence_intervals(other[:, None], [beta1])
        assert not intervals or intervals[-1].high.one_minus_beta2 > found.one_minus_beta2


def test_more_than_two_slopes_are_harder_in_cyclic_order_and_cyclic_is_the_worst_order():
    """At D1 = 2n²: from some n on the class needs more in cyclic order than with replacement."""
    ratios = {}
    for n in (10, 30):
        cyclic = hardest(n, 2.0 * n**2, "cyclic").one_minus_beta2
        assert cyclic < 0.75 * hardest_of_two(n, 2.0 * n**2, "cyclic").one_minus_beta2
        ratios[n] = cyclic / hardest(n, 2.0 * n**2, "with_replacement").one_minus_beta2
    assert ratios[10] > 1.2
    assert ratios[30] < 0.95


def test_shuffling_needs_twice_what_replacement_does_to_first_order():
    table = problems.counterexample_table(30, 1.0)
    q0 = laws.with_replacement_law(table, 0.0)
    hyper = adam.Hyperparameters(1.0, 2 * q0 * np.array([0.9, 1.02]))
    drift = stationary_drift(table, hyper, "random_shuffling", key=stream_key(0)).drift[:, 0]
    assert drift[0] < 0 < drift[1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sufficient(1, 5.0, "cyclic"), "n=1: must be at least 2"),
        (lambda: sufficient(5, 4.0, "cyclic"), "d1=4.0: must be at least n=5"),
        (lambda: sufficient(5, 9.0, "cyclic", 1.0), "beta1=1.0: must lie in"),
        (lambda: sufficient_for(np.zeros((2, 2)), "cyclic"), "gradients of shape"),
        (lambda: sufficient_for(np.array([1.0, -1.0]), "cyclic"), "their mean is 0"),
        (lambda: two_valued(5, 5, 9.0), "num_positive=5: must lie in"),
        (lambda: hardest(2, 9.0), "n=2: must be at least 3"),
        (lambda: hardest(5, 9.0, "shuffle_once"), "sampling=shuffle_once"),
    ],
)
def test_bad_arguments_are_one_line(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("class_threshold")
    flags = ["--n=5", "--d1=15,400", "--beta1=0,0.9", f"--out={out}"]
    assert experiment.run(class_threshold, *flags) == 0
    summary = json.loads((out / "class_threshold.json").read_text())
    return xr.open_zarr(out / "class_threshold.zarr", consolidated=False).load(), summary, out


def test_rows_answer_the_question(finished):
    dataset, summary, out = finished
    assert dataset["hardest"].dims == ("sampling", "beta1", "n", "ratio")
    rows = {(row["n"], row["d1"], row["sampling"], row["beta1"]): row for row in summary["rows"]}
    assert len(rows) == 2 * 2 * 2
    one = rows[5, 400.0, "with_replacement", 0.0]
    assert one["enough"] == pytest.approx(1 - sufficient(5, 400.0, "with_replacement"))
    assert one["fails_below"] < one["enough"]
    table = np.array(one["slopes"])
    [intervals] = divergence_intervals(table[:, None], [0.0], "with_replacement")
    assert intervals[-1].high.beta2 == pytest.approx(one["fails_below"], abs=1e-9)
    assert rows[5, 15.0, "cyclic", 0.9]["fails_below"] is None
    assert (out / "class_threshold.png").stat().st_size > 10_000


def _at_large_n(doctor):
    """As if n were 40 and D1 4 n²."""

    def doctored(dataset):
        d1 = (("n", "ratio"), [[15.0, 4.0 * 40**2]])
        return doctor(dataset.assign_coords(n=[40], d1=d1))

    return doctored


def _with_a_law(exponent):
    """As if there were five D1 from n² on, and 1 − β2* were a power of D1."""

    def doctored(dataset):
        wide = dataset.isel(ratio=[1] * 5)
        d1 = 25.0 * 2.0 ** np.arange(5)
        wide = wide.assign_coords(d1=(("n", "ratio"), d1[None]))
        law = 0.5 * xr.DataArray(d1**exponent, dims="ratio")
        return wide.assign(hardest=law + 0 * wide["hardest"].fillna(1))

    return doctored


def test_every_claim_has_three_verdicts(finished):
    cases = {
        "enough_is_enough": (same, scaled(sufficient=100.0), missing("hardest")),
        "enough_with_replacement_is_sharp": (
            _at_large_n(scaled(hardest=0.8)), _at_large_n(scaled(hardest=3.0)), same,
        ),
        "the_counterexample_is_the_hardest": (
            same, scaled(num_positive=2.0), missing("num_positive"),
        ),
        "cyclic_class_falls_like_the_root": (_with_a_law(-0.5), _with_a_law(-0.6), same),
        "cyclic_is_the_worst_order_of_a_large_class": (
            _at_large_n(scaled(hardest=lambda d: 1 - 0.9 * (d["sampling"] == "cyclic"))),
            _at_large_n(scaled(hardest=lambda d: 1 + 9.0 * (d["sampling"] == "cyclic"))),
            same,
        ),
    }  # fmt: skip
    assert_three_verdicts(study_claims.claims, finished[0], cases)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--n=2"], "--n=2: must lie in [3, 100]"),
        (["--n=101"], "--n=101: must lie in [3, 100]"),
        (["--n=10", "--d1=10"], "--d1=10: must lie in (10, 1e+06]"),
        (["--d1=many"], "--d1: 'many' is not a number"),
        (["--beta1=1"], "--beta1=1: "),
        (["--sampling=shuffle_once"], "--sampling=shuffle_once: allowed are"),
        (["--n=3:100:98"], "tables; at most 20000 are allowed"),
    ],
)
def test_bad_input_is_one_clear_line_and_writes_nothing(tmp_path, capsys, args, message):
    experiment.assert_refused(class_threshold, tmp_path / "out", capsys, args, message)
