"""`experiments.divergence` end to end, its claims, and its errors."""

import json

import numpy as np
import pytest
import xarray as xr

from adam_transition import divergence_claims
from experiments import divergence
from tests import experiment

SMALL = [
    "--n=5,20", "--cells=20", "--largest_n=60", "--steps=20000",
    "--d1_n=3,10", "--d1_beta1=0", "--d1_beta2=0.1,0.9",
]  # fmt: skip


def _main(*argv):
    return experiment.run(divergence, *argv)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("divergence")
    assert _main(f"--out={out}", *SMALL) == 0
    return out


def _dataset(out):
    return xr.open_zarr(out / "divergence.zarr", consolidated=False).load()


def _verdicts(dataset):
    return {claim.id: claim.verdict for claim in divergence_claims.claims(dataset)}


def test_data_set_claims_and_figures(finished):
    dataset = _dataset(finished)
    assert dataset["worst_case"].dims == ("member", "n", "beta1", "beta2")
    assert dataset["drift"].dims == ("member", "sampling", "n", "beta1", "beta2")
    assert (dataset["worst_case"] <= dataset["drift"].sel(sampling="cyclic") + 1e-9).all()
    np.testing.assert_allclose(dataset["sign_drift"], np.tile([3, 18], (3, 1)))
    assert np.isfinite(dataset["least_d1"]).all()
    summary = json.loads((finished / "divergence.json").read_text())
    verdicts = {claim["id"]: claim["verdict"] for claim in summary["claims"]}
    assert verdicts == _verdicts(dataset)
    for id_ in ("proven_region_inside", "region_grows", "region_fills", "diverges_below",
                "diverges_above", "sign_sgd", "paper_d1"):  # fmt: skip
        assert verdicts[id_] == "reproduced", id_
    for id_ in ("paper_d1_n3", "paper_member_fills", "gradients_above", "cyclic_is_least"):
        assert verdicts[id_] == "not reproduced", id_
    for id_ in ("sign_sgd_small_d1", "rate_is_the_drift", "adam_small_d1_beta1_0",
                "cyclic_region_is_every_order"):  # fmt: skip
        assert verdicts[id_] == "beyond the paper", id_
    for name in ("regions", "areas", "trajectories", "d1"):
        assert (finished / f"divergence_{name}.png").stat().st_size > 10_000


def test_trajectories_go_to_infinity_from_both_sides(finished):
    dataset = _dataset(finished)
    assert (dataset["x"].sel(start=1.0).diff("step").isel(step=slice(64, None)) > 0).all()
    assert (dataset["x"].sel(start=-3.0).diff("step").isel(step=slice(64, None)) < 0).all()
    # smoothness 1: |∇f| = |x + 2|·mean of the slopes below −2, constant above −1
    slope = dataset["gradient"].sel(start=1.0).isel(step=0)
    np.testing.assert_allclose(
        dataset["gradient"].sel(start=-3.0), slope * np.abs(dataset["x"].sel(start=-3.0) + 2)
    )
    np.testing.assert_allclose(dataset["value"].sel(start=1.0), slope * dataset["x"].sel(start=1.0))


def test_verdicts_can_fail(finished):
    dataset = _dataset(finished)
    planted = dataset.assign(
        drift=-np.abs(dataset["drift"]),
        sign_drift=dataset["sign_drift"] - 1,
        paper_d1_ratio=dataset["paper_d1_ratio"] * 3,
        x=dataset["x"] / dataset["step"],
        area=(dataset["area"].dims, dataset["area"].values[..., ::-1]),
        least_d1=dataset["least_d1"] * 1e6,
        sign_member_drift=-dataset["sign_member_drift"],
        lowest_at_edges=dataset["lowest_at_edges"] - 1,
    )
    verdicts = _verdicts(planted)
    for id_ in ("proven_region_inside", "sign_sgd", "paper_d1", "diverges_below", "region_grows",
                "region_fills", "adam_small_d1_beta1_0", "sign_sgd_small_d1", "rate_is_the_drift",
                "cyclic_region_is_every_order"):  # fmt: skip
        assert verdicts[id_] == "not reproduced", id_


def test_given_again_nothing_is_computed(finished):
    before = _dataset(finished)
    assert _main(f"--out={finished}", *SMALL) == 0
    xr.testing.assert_equal(before, _dataset(finished))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--n=2"], "--n=2: the divergence theorem needs n ≥ 3"),
        (["--d1_n=2,5"], "--d1_n=2: the divergence theorem needs n ≥ 3"),
        (["--d1_beta2=0,0.5"], "--d1_beta2: values must lie in (0, 1)"),
        (["--point=0.5"], "--point=0.5: not a point"),
        (["--point=1/0.5"], "--point=1/0.5: values must lie in [0, 1)"),
        (["--sampling=sorted"], "--sampling=sorted: allowed are"),
        (["--cells=2"], "--cells=2"),
    ],
)
def test_bad_input_is_one_clear_line_and_writes_nothing(tmp_path, capsys, args, message):
    experiment.assert_refused(divergence, tmp_path / "out", capsys, args, message)
