"""`experiments.theorem_3_1` and `theorem_3_3`: parts against closed forms, claims that can fail."""

import json

import numpy as np
import pytest
import xarray as xr

from adam_transition.commands import theorem_3_1, theorem_3_3
from adam_transition.studies.theorems import claims as theorem_claims
from adam_transition.studies.theorems import data as theorem_data
from adam_transition.studies.theorems.study import TheoremStudy
from tests import experiment

SMALL = ["--n=3,5", "--triples=16", "--seeds=3", "--steps=20000", "--samples=10000"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("theorem")
    assert experiment.run(theorem_3_1, f"--out={out}", *SMALL) == 0
    return out


def _dataset(out):
    return xr.open_zarr(out / "theorem_3_1.zarr", consolidated=False).load()


def test_data_set_claims_and_figures(finished):
    """At this size few claims can be told, but those that need no runs; none is wrong."""
    dataset = _dataset(finished)
    assert dataset["mean_stationarity"].dims == ("family", "seed", "n", "triple", "octave")
    assert dataset.attrs["theorem_sampling"] == "with_replacement"
    summary = json.loads((finished / "theorem_3_1.json").read_text())
    verdicts = {claim["id"]: claim["verdict"] for claim in summary["claims"]}
    assert verdicts == {claim.id: claim.verdict for claim in theorem_claims.claims(dataset)}
    assert verdicts["neighbourhood_beta2"] == "reproduced"
    for id_ in ("neighbourhood_exact", "schemes"):
        assert verdicts[id_] == "holds", id_
    # the theorem's own region needs T far beyond 20 000
    assert verdicts["rate_region"] == "inconclusive"
    assert [row["n"] for row in summary["rows"]] == [3, 5]
    assert all(row["attracting"] <= row["hypotheses_hold"] <= 16 for row in summary["rows"])
    assert all(row["region_one_minus_beta2"] is None for row in summary["rows"])
    assert (dataset["arrived"] == 0).all()
    for name in ("rate", "neighbourhood", "conditions", "reddi"):
        assert (finished / f"theorem_3_1_{name}.png").stat().st_size > 10_000


def test_bias_is_that_of_first_order(finished):
    """With replacement, β1 = 0: ½(1−β2)κ3/σ² for one centre of five at 1, κ3/σ² = 0.6."""
    dataset = _dataset(finished)
    small = dataset["small_bias"].sel(small_sampling="with_replacement")
    np.testing.assert_allclose(small, 0.3 * dataset["small_q"], rtol=0.01)


def test_left_hand_side_never_rises(finished):
    dataset = _dataset(finished)
    assert (dataset["lhs"].diff("step") <= 0).all()
    assert (dataset["window"].diff("window_step") <= 0).all()


def test_the_region_is_that_of_the_theorem():
    """1 − β2 from what the length of the runs can tell up to (1−β1^n)/n^5; for n = 3 at 10⁶."""
    study = TheoremStudy("with_replacement", (3, 5), 600, 3, 10**6, 0.1, 10_000, 0)
    beta1, q = theorem_data.region(study)
    assert np.isnan(q[1]).all()
    least = theorem_data.MEMORIES * 32 / (4 * 10**6)
    assert (q[0] >= least).all()
    assert (q[0] <= (1 - beta1[0] ** 3) / 3**5).all()
    assert q[0].max() > 0.8 / 3**5
    assert q[0].min() < 1.2 * least


def test_triples_are_drawn_anew_with_the_seed():
    settings = {
        "sampling": "with_replacement", "num_components": (3,), "num_triples": 50, "num_seeds": 3,
        "num_steps": 3000, "step_size": 0.1, "num_samples": 10_000,
    }  # fmt: skip
    one, other = (TheoremStudy(**settings, seed=seed) for seed in (0, 1))
    beta1 = [study.coordinates()["beta1"].values for study in (one, one, other)]
    np.testing.assert_array_equal(beta1[0], beta1[1])
    assert (beta1[0] != beta1[2]).all()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--n=2"], "--n=2: the counterexample needs n ≥ 3"),
        (
            ["--n=7,11,13", "--steps=30000"],
            "--steps=30000: needs at least 32032, 32 times the least common multiple",
        ),
        (["--n=3,5", "--steps=10"], "--steps=10"),
        (["--triples=2"], "--triples=2"),
        (["--step_size=0"], "--step_size=0"),
    ],
)
def test_bad_input_is_one_clear_line_and_writes_nothing(tmp_path, capsys, args, message):
    experiment.assert_refused(theorem_3_3, tmp_path / "out", capsys, args, message)
