"""`experiments.batch_size`: windows, laws and rules, from training and from planted curves."""

import json
import math

import numpy as np
import pytest
import xarray as xr

from adam_transition.commands import batch_size
from adam_transition.networks.training import GRID_DIMS
from adam_transition.studies.batch_size import claims as batch_size_claims
from adam_transition.studies.batch_size.data import BUDGETS, QUARTER, TUNINGS
from adam_transition.sweeps.pieces import NOTHING_KEPT
from tests import experiment, smoke

GUESS = math.log(10)


@pytest.fixture(scope="module")
def finished():
    return smoke.finished("batch_size")


def test_data_set_claims_and_figures(finished):
    dataset = xr.open_zarr(finished / "batch_size.zarr", consolidated=False).load()
    assert dataset["loss"].dims == ("budget", "batch_size", *GRID_DIMS, "record")
    assert dataset["batch_size"].values.tolist() == [1, 4, 32, 64]
    # a quarter of 64 samples does not fill a batch of 32
    missing = dataset["loss"].isnull().all(("record", *GRID_DIMS))
    assert missing.sel(budget=QUARTER).values.tolist() == [False, False, True, True]
    assert not missing.sel(budget=list(BUDGETS[:3])).any()
    # at batch size 8 the two budgets would be one; here the second has more steps from 32 on
    final = dataset["loss"].isel(record=-1).min("beta2").mean("seed").sel(batch_size=64)
    assert (final.sel(budget=BUDGETS[1]) < final.sel(budget=BUDGETS[0])).all()
    summary = json.loads((finished / "batch_size.json").read_text())
    assert len(summary["claims"]) == 17
    assert len(summary["rows"]) == 4 * 4 * 5
    for name in ("batch_size", "batch_size_threshold"):
        assert (finished / f"{name}.png").stat().st_size > 10_000


def _planted(*, exponent=1.0, rate_exponent=-1.0, upper=0.0, quarter=1.0, floor=0.1):
    """The study on curves whose threshold is 1 − β2* = 0.05 B^e (η0/0.01)^f / e^tolerance."""
    arguments = [
        "--task=mlp/digits", "--samples=256", "--batch_size=1,2,4,8", "--epochs=4", "--steps=4",
        "--learning_rate=0.01,0.02,0.04", "--beta2=0.2:1-1e-5:60:logit", "--seeds=3",
    ]  # fmt: skip
    batch_size.FLAGS.unparse_flags()
    for flag in batch_size.FLAGS:
        batch_size.FLAGS[flag].unparse()
    batch_size.FLAGS(["batch_size", *arguments])
    study = batch_size.parse(batch_size.FLAGS.flag_values_dict())
    dataset = study.coordinates()
    axes = {name: dataset[name] for name in ("batch_size", "learning_rate", "beta2", "seed")}
    log_q = np.log(1 - axes["beta2"])
    noise = 1 + 0.01 * (axes["seed"] - 1)
    edge = 0.01 * axes["batch_size"] ** exponent * (axes["learning_rate"] / 0.01) ** rate_exponent
    scale = xr.DataArray([1.0, 1.0, 1.0, quarter], {"budget": list(BUDGETS)}, ("budget",))
    rise = 3 * (log_q - np.log(edge * scale * noise)).clip(min=0) + upper * (
        np.log(1e-3) - log_q
    ).clip(min=0)
    loss = (floor * np.exp(rise)).expand_dims(beta1=[0.9], record=dataset["record"].values)
    dims = ("budget", "batch_size", *GRID_DIMS, "record")
    values = loss.transpose(*dims).values.astype(np.float32)
    dataset = dataset.assign(loss=(dims, values), accuracy=(dims, values))
    for name in ("outcomes", "windows", "rules"):
        dataset = dataset.assign(study.parts()[name](dataset, NOTHING_KEPT))
    return dataset


def _verdicts(dataset):
    return {claim.id: claim.verdict for claim in batch_size_claims.claims(dataset)}


def test_planted_laws_are_found(tmp_path):
    dataset = _planted(upper=0.2)
    shift = math.exp(0.15 * math.log(GUESS / 0.1) / 3)  # from the edge to the level
    low = dataset["low"].sel(budget=BUDGETS[0], tuning="η0 = 0.01").isel(seed=1).values
    np.testing.assert_allclose(low, 0.01 * np.array([1, 2, 4, 8]) * shift, rtol=0.1)
    exponents = dataset["exponent"].sel(budget=BUDGETS[0]).mean("seed").values
    np.testing.assert_allclose(exponents, [1, -1], atol=0.03)
    rule = dataset["rule"].sel(budget=BUDGETS[0], tuning="η0 = 0.01", rules="half-life").values
    np.testing.assert_allclose(rule, low, rtol=0.15)
    verdicts = _verdicts(dataset)
    assert set(verdicts.values()) == {"reproduced", "holds"}


@pytest.mark.parametrize(
    ("planted", "ids"),
    [
        ({"exponent": -1.0}, {f"trend_equal_epochs_{t.replace(' ', '_')}" for t in TUNINGS[1:]}),
        ({"exponent": -1.0}, {"trend_fixed_rate", "linear_in_batch"}),
        ({"exponent": 2.0}, {"linear_in_batch", "half_life_rule", "noise_scale"}),
        ({"rate_exponent": 0.5}, {"learning_rate", "noise_scale"}),
        ({"quarter": 4.0}, {"batch_size_not_n"}),
    ],
)
def test_planted_opposites_are_not_reproduced(tmp_path, planted, ids):
    verdicts = _verdicts(_planted(**planted))
    assert {verdicts[id_] for id_ in ids} <= {"not reproduced", "fails"}


def test_seeds_that_disagree_leave_laws_open(tmp_path):
    dataset = _planted()
    wild = (-1.0) ** dataset["seed"] * 3
    open_laws = dataset.assign(
        exponent=dataset["exponent"] + wild,
        low=dataset["low"] * np.exp(wild * dataset["batch_size"]),
    )
    verdicts = _verdicts(open_laws)
    for id_ in ("linear_in_batch", "noise_scale", "learning_rate"):
        assert verdicts[id_] == "open", id_


def test_without_a_transient_there_is_no_optimum(tmp_path):
    verdicts = _verdicts(_planted(upper=-0.05))
    ids = {id_ for id_ in verdicts if id_.startswith("interior_optimum")}
    assert {verdicts[id_] for id_ in (*ids, "window")} == {"not reproduced"}


def test_rows_hold_intervals_and_gaps(finished):
    for row in json.loads((finished / "batch_size.json").read_text())["rows"]:
        if row["beta2_star"] is not None:
            low, high = row["beta2_star_interval"]
            assert 0 <= low <= row["beta2_star"] <= high < 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--task=mlp/svhn"], "data=svhn: allowed are"),
        (["--batch_size=1,7"], "--batch_size=7: must divide the 3840 samples of mlp/mnist1d"),
        (["--batch_size=full,3840"], "full is 3840 here, which is given too"),
        (["--samples=1"], "full is 1 here, which is given too"),
        (["--batch_size=two"], "--batch_size: 'two' is not a number"),
        (["--steps=481"], "--steps=481: not a multiple of 16 records"),
        (["--beta1=0.5,0.9"], "--beta1=0.5,0.9: needs one value"),
        (["--beta2=0.5,0.9"], "--beta2=0.5,0.9: a threshold needs three or more values"),
        (["--samples=9999"], "--samples=9999: data=mnist1d has 4000"),
    ],
)
def test_bad_input_is_one_clear_line_and_writes_nothing(tmp_path, capsys, args, message):
    experiment.assert_refused(batch_size, tmp_path / "out", capsys, args, message)
