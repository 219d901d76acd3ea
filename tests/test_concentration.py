"""`experiments.concentration`: draws of v against closed forms, the lemma, the direction."""

import json

import numpy as np
import pytest
import xarray as xr

from adam_transition import adam, sampling
from adam_transition.commands import concentration
from adam_transition.studies.concentration import claims as concentration_claims
from adam_transition.studies.concentration.data import LEMMA_DIMS, many_dimensions, table_of
from adam_transition.theory.concentration import concentration as lemma
from adam_transition.theory.concentration import second_moments
from adam_transition.theory.stationary_drift import stationary_drift
from tests import experiment, smoke
from tests.claim_cases import assert_three_verdicts, missing, same


@pytest.fixture(scope="module")
def finished():
    return smoke.finished("concentration")


@pytest.mark.parametrize("q", [0.5, 0.05, 0.001])
def test_second_moments_have_the_mean_and_variance_of_the_filter(q):
    """E v = mean of g², Var v = q/(2−q)·Var g²: within 5 standard errors."""
    table = np.array([[3.0, 1.0], [-1.0, 2.0], [-1.0, 0.5]])
    v = second_moments(table, q, sampling.stream_key(1), num_samples=20_000)
    mean, variance = (table**2).mean(axis=0), q / (2 - q) * (table**2).var(axis=0)
    for draws in v:
        flat = draws.reshape(-1, 2)
        # draws of a chain lie three memories apart: correlations of e^-3 are left
        stderr = np.sqrt(variance / len(flat)) * 1.1
        assert (np.abs(flat.mean(axis=0) - mean) < 5 * stderr).all()
        np.testing.assert_allclose(flat.var(axis=0), variance, rtol=0.08)


def test_the_step_after_a_draw_is_adams():
    """v_k = β2 v_{k−1} + (1−β2) g², g one of the table's rows, each as often."""
    table = np.array([[2.0], [-1.0], [0.5], [-0.25]])
    q = 0.1
    v = second_moments(table, q, sampling.stream_key(0), num_samples=50_000)
    squares = ((v.after - (1 - q) * v.before) / q).ravel()
    for square in table.ravel() ** 2:
        share = np.isclose(squares, square).mean()
        assert abs(share - 0.25) < 4 * np.sqrt(0.25 * 0.75 / squares.size)


def test_tables():
    assert table_of("counterexample", 7, sampling.stream_key(0)).shape == (7, 1)
    assert table_of("normal", 7, sampling.stream_key(0)).shape == (7, 8)
    np.testing.assert_allclose(np.abs(many_dimensions(9, sampling.stream_key(0)).sum(axis=0)), 1)


def test_data_set_claims_and_figures(finished):
    dataset = xr.open_zarr(finished / "concentration.zarr", consolidated=False).load()
    assert dataset["failures"].dims == ("reading", "table", *LEMMA_DIMS)
    # 1 − β2 is in the range in which the lemma speaks
    assert (dataset["probability"] > 0).all()
    assert (dataset["lower"] > 0).all()
    # the band closes faster than the spread: with β2 nearer to 1 more lies outside of it
    histories = dataset["failures"].sel(reading="over all histories")
    assert (
        histories.sel(relative_one_minus_beta2=0.1) > histories.sel(relative_one_minus_beta2=0.9)
    ).all()
    assert (dataset["failures"].sel(reading="given the past") == 0).all()
    summary = json.loads((finished / "concentration.json").read_text())
    verdicts = {claim["id"]: claim["verdict"] for claim in summary["claims"]}
    assert verdicts == {
        "lemma": "reproduced", "direction_large_beta2": "reproduced", "direction_limit": "holds",
    }  # fmt: skip
    rows = summary["rows"]
    assert len(rows) == dataset["spread"].size
    for row in rows:
        # the spread of a filter of independent terms, to first order; 1024 draws
        assert row["spread_over_law"] == pytest.approx(1, abs=0.2)
        assert 0 <= row["given_the_past"] <= row["allowed"]
    for name in ("concentration", "direction"):
        assert (finished / f"{name}.png").stat().st_size > 10_000


CASES = {
    "lemma": (
        same, lambda d: d.assign(failures=d["failures"] * 0 + 1),
        lambda d: d.assign_attrs(num_samples=2),  # as few as can tell nothing
    ),
    "direction_large_beta2": (
        same, lambda d: d.assign(wrong_share=1 - d["wrong_share"]), missing("wrong_share"),
    ),
    "direction_limit": (
        same, lambda d: d.assign(cosine_to_limit=d["cosine_to_limit"] * 0 + 0.9),
        missing("cosine_to_limit"),
    ),
}  # fmt: skip


def test_each_claim_has_its_three_verdicts(finished):
    dataset = xr.open_zarr(finished / "concentration.zarr", consolidated=False).load()
    assert_three_verdicts(concentration_claims.claims, dataset, CASES)


def test_the_lemma_as_its_source_has_it_and_with_all_histories():
    """n = 10, a = 1/81, δ = 1/40, 1 − β2 = 3.4e-5: no failures given the past, 65 % with all."""
    n, q, delta = 10, 3.4e-5, 1 / 40
    table, band = (
        table_of("counterexample", n, sampling.stream_key(0)),
        lemma(n, q, delta),
    )
    assert band.informative
    v = second_moments(table, q, sampling.stream_key(1), num_samples=8000)
    mean = (table**2).mean()
    given = np.sqrt(((1 - q) * v.before + q * mean) / v.after)
    assert ((given >= band.lower) & (given <= band.upper)).all()
    histories = np.sqrt(mean / v.after)
    outside = ((histories < band.lower) | (histories > band.upper)).mean()
    assert outside == pytest.approx(0.65, abs=0.05)


def test_how_many_failures_a_share_leaves_open():
    """None of N: the rule of three; half of N: the normal interval."""
    assert concentration_claims.most_failures(0.0, 1000, 0.05) == pytest.approx(3 / 1000, rel=0.01)
    expected = 0.5 + 1.96 * 0.5 / np.sqrt(10_000)
    assert concentration_claims.most_failures(0.5, 10_000, 0.025) == pytest.approx(
        expected, abs=1e-4
    )
    assert concentration_claims.most_failures(1.0, 10, 0.05) == 1


def test_the_direction_is_that_of_a_long_run():
    """E[m/√v] at β1 = 0.5, β2 = 0.8, cyclic, by hand."""
    table = many_dimensions(5, sampling.stream_key(0))
    m = v = np.zeros(table.shape[1])
    total = np.zeros(table.shape[1])
    for k in range(2000):
        g = table[k % 5]
        m, v = 0.5 * m + 0.5 * g, 0.8 * v + 0.2 * g * g
        total += m / np.sqrt(v) if k >= 1000 else 0
    found = stationary_drift(table, adam.hyperparameters(0.5, 0.8)).drift
    np.testing.assert_allclose(-found, total / 200, rtol=1e-9)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--n=2"], "--n=2: the counterexample needs n ≥ 3"),
        (["--delta=2"], "--delta=2: values must lie in (0, 1]"),
        (["--q=0"], "--q=0: values must lie in (0, 1]"),
        (["--beta1=1"], "--beta1=1: values must lie in [0, 1)"),
        (["--beta1=0,0.5"], "--beta1=0,0.5: needs one value"),
        (["--samples=3"], "--samples=3"),
    ],
)
def test_bad_input_is_one_clear_line_and_writes_nothing(tmp_path, capsys, args, message):
    experiment.assert_refused(concentration, tmp_path / "out", capsys, args, message)
