"""`experiments.theorem_3_1` and `theorem_3_3`: parts against closed forms, claims that can fail."""

import json

import numpy as np
import pytest
import xarray as xr

from adam_transition import theorem_claims, theorem_study
from experiments import theorem_3_1, theorem_3_3
from tests import experiment

SMALL = ["--n=3,5", "--triples=40", "--seeds=4", "--steps=200000", "--samples=10000"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("theorem")
    assert experiment.run(theorem_3_1, f"--out={out}", *SMALL) == 0
    return out


def _dataset(out):
    return xr.open_zarr(out / "theorem_3_1.zarr", consolidated=False).load()


def _verdicts(dataset):
    return {claim.id: claim.verdict for claim in theorem_claims.claims(dataset)}


def test_data_set_claims_and_figures(finished):
    dataset = _dataset(finished)
    assert dataset["lhs"].dims == ("family", "n", "triple", "step")
    assert dataset.attrs["theorem_scheme"] == "with_replacement"
    summary = json.loads((finished / "theorem_3_1.json").read_text())
    verdicts = {claim["id"]: claim["verdict"] for claim in summary["claims"]}
    assert verdicts == _verdicts(dataset)
    for id_ in ("rate_realizable", "violated_threshold", "neighbourhood_beta2",
                "neighbourhood_dimensions", "neighbourhood_d0", "threshold_a_1",
                "reddi_stuck"):  # fmt: skip
        assert verdicts[id_] == "reproduced", id_
    for id_ in ("neighbourhood_exact", "neighbourhood_symmetric", "schemes",
                "reddi_cured", "beta1_line"):  # fmt: skip
        assert verdicts[id_] == "beyond the paper", id_
    assert [row["n"] for row in summary["rows"]] == [3, 5]
    assert all(row["attracting"] <= row["hypotheses_hold"] <= 40 for row in summary["rows"])
    for name in ("rate", "neighbourhood", "conditions", "reddi"):
        assert (finished / f"theorem_3_1_{name}.png").stat().st_size > 10_000


def test_bias_is_that_of_first_order(finished):
    """With replacement, β1 = 0: ½(1−β2)κ3/σ² for one centre of five at 1, κ3/σ² = 0.6."""
    dataset = _dataset(finished).sel(noise="skewed", scheme="with_replacement")
    q = dataset["plateau_q"].values
    small = q < 0.05
    np.testing.assert_allclose(dataset["bias"].values[small], 0.3 * q[small], rtol=0.05)


def test_left_hand_side_never_rises(finished):
    dataset = _dataset(finished)
    assert (dataset["lhs"].diff("step") <= 0).all()
    assert (dataset["window"].diff("window_step") <= 0).all()


@pytest.mark.parametrize(
    ("id_", "plant"),
    [
        # a wrong rate: T^(−0.3)
        ("rate_realizable", lambda d: {"slope": -0.3, "slope_stderr": 0.0}),
        ("rate_symmetric", lambda d: {"slope": -0.3, "slope_without": -0.3}),
        ("rate_exponent", lambda d: {"slope": -0.3, "slope_without": -0.3}),
        # a violated threshold at which the runs converge nevertheless
        ("violated_threshold", lambda d: {"drift": abs(d["drift"]) + 1}),
        # a plateau that does not shrink with 1 − β2, or not with D0
        ("neighbourhood_beta2", lambda d: {"bias": d["bias"] * 0 + 0.1}),
        ("neighbourhood_d0", lambda d: {"scaled_bias": d["scaled_bias"] * 0 + 0.1}),
        ("neighbourhood_symmetric", lambda d: {"bias": d["bias"] + 0.1}),
        ("limit_point", lambda d: {"settled_bias": d["settled_bias"] * 1.5}),
        ("limit_point_logistic", lambda d: {"many_error": d["many_error"] + 2}),
        ("schemes", lambda d: {"bias": d["bias"].isel(scheme=slice(None, None, -1)).values}),
        ("rate_dimensions", lambda d: {"dimensions_slope": d["dimensions_slope"] * 0}),
        ("neighbourhood_dimensions", lambda d: {"dimensions_lhs": 2 - d["dimensions_q"]}),
        # no transient: the largest β2 is the best
        ("window", lambda d: {"window": d["window"] * 0 + d["window_q"]}),
        # a threshold that falls like n⁻⁶
        ("threshold_a_1", lambda d: {"threshold": d["threshold"] * 0 + d["threshold_n"] ** -6.0}),
        ("beta1_line", lambda d: {"line": d["line"] * 0 + 1}),
        ("reddi_stuck", lambda d: {"reddi": -d["reddi"]}),
        ("reddi_cured", lambda d: {"reddi": -d["reddi"]}),
    ],
)
def test_planted_cases_are_not_reproduced(finished, id_, plant):
    dataset = _dataset(finished)
    planted = dataset.copy()
    for name, values in plant(dataset).items():
        shape = dataset[name].shape
        planted[name] = (
            dataset[name].dims,
            np.broadcast_to(np.nan_to_num(values, neginf=0), shape),
        )
    assert _verdicts(planted)[id_] == "not reproduced"


def test_triples_are_drawn_anew_with_the_seed():
    settings = {
        "scheme": "with_replacement", "num_components": (3,), "num_triples": 50, "num_seeds": 3,
        "num_steps": 3000, "step_size": 0.1, "num_samples": 10_000,
    }  # fmt: skip
    one, other = (theorem_study.TheoremStudy(**settings, seed=seed) for seed in (0, 1))
    beta1 = [theorem_study.plan(study).coords["beta1"].values for study in (one, one, other)]
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
