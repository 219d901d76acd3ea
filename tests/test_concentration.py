"""`experiments.concentration`: draws of v against closed forms, three readings, the direction."""

import json

import numpy as np
import pytest
import xarray as xr

from adam_transition import adam, concentration_study, sampling
from adam_transition.concentration_study import many_dimensions, second_moments, table_of
from adam_transition.drift import stationary_drift
from experiments import concentration
from tests import experiment

SMALL = ["--n=5,20", "--q=0.9,0.1", "--samples=1024", "--points=9"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("concentration")
    assert experiment.run(concentration, f"--out={out}", *SMALL) == 0
    return out


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


def test_the_steps_after_a_draw_are_adams():
    """E[after | before] = β2^n before + (1−β2^n) E g²."""
    table = np.array([[2.0], [-1.0], [0.5], [-0.5]])
    q = 0.1
    v = second_moments(table, q, sampling.stream_key(0), num_samples=50_000)
    mean, kept = float((table**2).mean()), 0.9**4
    residual = v.after - (kept * v.before + (1 - kept) * mean)
    assert abs(residual.mean()) < 4 * residual.std() / np.sqrt(residual.size)
    weights = q * 0.9 ** np.arange(4)
    assert residual.var() == pytest.approx((weights**2).sum() * (table**2).var(), rel=0.03)


def test_tables():
    assert table_of("counterexample", 7, sampling.stream_key(0)).shape == (7, 1)
    assert table_of("normal", 7, sampling.stream_key(0)).shape == (7, 8)
    np.testing.assert_allclose(np.abs(many_dimensions(9, sampling.stream_key(0)).sum(axis=0)), 1)


def test_data_set_claims_and_figures(finished):
    dataset = xr.open_zarr(finished / "concentration.zarr", consolidated=False).load()
    assert dataset["failures"].dims == ("reading", "table", "n", "delta", "beta2")
    # 1 − β2 is in the range in which the lemma speaks
    assert (dataset["probability"] > 0).all()
    assert (dataset["lower"] > 0).all()
    # the band closes faster than the spread: with β2 nearer to 1 the lemma as stated fails more
    stated = dataset["failures"].sel(reading="stated")
    assert (stated.sel(beta2=0.1) > stated.sel(beta2=0.9)).all()
    summary = json.loads((finished / "concentration.json").read_text())
    verdicts = {claim["id"]: claim["verdict"] for claim in summary["claims"]}
    assert verdicts.pop("lemma_stated") == "not reproduced"
    assert set(verdicts.values()) == {"reproduced", "beyond the paper"}
    for name in ("concentration", "direction"):
        assert (finished / f"{name}.png").stat().st_size > 10_000


def test_verdicts_can_fail(finished):
    dataset = xr.open_zarr(finished / "concentration.zarr", consolidated=False).load()
    planted = dataset.assign(
        failures=dataset["failures"] + 0.5,
        spread=dataset["spread"] * 1.2,
        push=-dataset["push"],
        cosine=-dataset["cosine"],
        wrong_share=1 - dataset["wrong_share"],
        cosine_to_limit=dataset["cosine_to_limit"] * 0.9,
    )
    verdicts = {claim.id: claim.verdict for claim in concentration_study.claims(planted)}
    # a probability of 0.1 allows half of the draws to fail: the others show it
    assert set(verdicts.values()) == {"not reproduced"}


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
