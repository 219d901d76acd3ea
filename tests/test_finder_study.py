"""`experiments.finder`: planted laws are recovered, claims have three verdicts, clear errors."""

import json
import math

import numpy as np
import pytest
import xarray as xr

from adam_transition.commands import finder
from adam_transition.studies.finder import claims, data, figures
from tests import experiment, smoke
from tests.claim_cases import assert_three_verdicts, missing, same, scaled

GUESS = math.log(10)


def _study(*arguments):
    finder.FLAGS.unparse_flags()
    for flag in finder.FLAGS:
        finder.FLAGS[flag].unparse()
    finder.FLAGS(["finder", *arguments])
    return finder.parse(finder.FLAGS.flag_values_dict())


@pytest.fixture(scope="module")
def planted():
    """Two tasks with 1 − β2* = 0.01 B (0.01/η0) and curves whose edge moves on the way."""
    study = _study(
        "--tasks=mlp/digits@256,mlp/mnist1d@256", "--kept_back=1", "--batch_size=1,2,4",
        "--learning_rate=0.005,0.01,0.02", "--seeds=6",
    )  # fmt: skip
    dataset = study.coordinates()
    q = 1 - dataset["beta2"]
    share = dataset["record"]
    scatter = xr.DataArray(np.linspace(-0.1, 0.1, 6), dims="seed")
    place = np.log(0.01 * dataset["batch_size"] * 0.01 / dataset["learning_rate"]) + scatter
    place = place + 0.6 * (np.log(share) / math.log(1 / 16)).clip(0, 1)
    rise = 0.3 / (1 + np.exp(-2 * (np.log(q) - place)))
    rise = xr.where(rise > 0.29, 1.0, rise)
    height = math.log(GUESS) - 3 * np.minimum(1, 3 * share) * (1 - rise)
    curves = np.exp(height).expand_dims(task=2, beta1=1)
    dims = ("task", *data.SETTING[1:], "seed", "beta1", "beta2", "record")
    dataset["running_loss"] = curves.transpose(*dims)
    for part in (data.searches, data.laws):
        dataset = dataset.assign(part(study, dataset))
    return dataset


def test_a_planted_law_is_recovered(planted):
    law = planted["exponent"].mean("seed")
    np.testing.assert_allclose(law.sel(law="B"), 1, atol=claims._OF_THE_GRID)
    np.testing.assert_allclose(law.sel(law="η0"), -1, atol=claims._OF_THE_GRID)
    size, rate = planted["batch_size"], planted["learning_rate"]
    edge = 0.01 * size * 0.01 / rate
    np.testing.assert_allclose(planted["truth"] / edge, 1, atol=0.25)
    found = planted["found"].where(planted["verdict"] == 0)
    assert float((np.abs(np.log(found / edge)) < math.log(1.6)).mean()) > 0.5
    assert float(planted["cost"].max()) <= 0.25


def test_every_claim_has_three_verdicts(planted):
    wide = scaled(found_low=0.1, found_high=10.0)
    cases = {}
    for name in ("of_the_design", "kept_back"):
        exact = lambda dataset: _many(dataset.assign(found=dataset["truth"]))  # noqa: E731
        cases[f"median_error_{name}"] = (exact, scaled(found=5.0), missing("found"))
        cases[f"large_errors_{name}"] = (exact, scaled(found=5.0), missing("found"))
        cases[f"coverage_{name}"] = (
            lambda dataset: _many(wide(dataset)),
            scaled(found_high=0.0),
            _unanswered,
        )
        cases[f"cost_{name}"] = (same, scaled(cost=2.0), missing("cost"))
        cases[f"false_edges_{name}"] = (
            lambda dataset: _many(_no_edges(dataset, found_high=2.0)),
            lambda dataset: _no_edges(dataset, found_high=0.1),
            same,
        )
    for task in planted["task"].values:
        swapped = scaled(exponent=-1.0)
        cases[f"batch_exponent_{task}"] = (same, swapped, missing("exponent"))
        cases[f"rate_exponent_{task}"] = (same, swapped, missing("exponent"))
        cases[f"half_life_{task}"] = (same, scaled(exponent=0.5), missing("exponent"))
        only_b = scaled(exponent=xr.DataArray([1.0, 0.0], dims="law"))
        cases[f"noise_scale_{task}"] = (same, only_b, missing("exponent"))
    assert_three_verdicts(claims.claims, planted, cases)


def _many(dataset):
    """Six times the searches: a share has an error, also one of 0 or 1."""
    return xr.concat([dataset] * 6, "group", data_vars="minimal")


def _unanswered(dataset):
    return dataset.assign(verdict=dataset["verdict"] * 0 + 2)


def _no_edges(dataset, found_high):
    nothing = dataset["truth"] * 0 + math.inf
    return dataset.assign(
        truth=nothing, verdict=xr.zeros_like(nothing),
        found_high=xr.full_like(nothing, found_high),
    )  # fmt: skip


def test_figures_draw_what_is_there(planted, tmp_path):
    for name in ("found_and_true", "thresholds"):
        figure = getattr(figures, name)(planted)
        figure.savefig(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000


def test_a_small_run_from_training_to_figures():
    out = smoke.finished("finder")
    dataset = xr.open_zarr(out / "finder.zarr", consolidated=False).load()
    assert dataset["running_loss"].shape == (2, 1, 1, 4, 1, 6, 64)
    assert np.isfinite(dataset["running_loss"]).all()
    assert (dataset["cost"] <= 0.5).all()
    summary = json.loads((out / "finder.json").read_text())
    assert len(summary["rows"]) == 2 * 2
    assert {row["verdict"] for row in summary["rows"]} <= set(data.VERDICTS)


def test_tasks_without_data_are_left_out_and_named(tmp_path):
    study = _study("--tasks=mlp/digits@64,mlp/cifar10@64", "--kept_back=1", "--skip_missing")
    assert [task.name for task in study.tasks] == ["mlp/digits"]
    assert study.num_kept_back == 0
    assert "mlp/cifar10" in study.summary(_nothing())["notes"][0]


def _nothing():
    sizes = dict.fromkeys((*data.SETTING, "group"), 0)
    return xr.Dataset(coords={dim: np.arange(size) for dim, size in sizes.items()})


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--tasks=mlp/digits,mlp/digits"], "needs one or more different tasks"),
        (["--tasks=mlp-x/digits"], "--tasks=mlp-x/digits: 'x' after - is not a positive integer"),
        (["--tasks=mlp/digits@0"], "--tasks=mlp/digits@0: '0' after @ is not a positive integer"),
        (["--kept_back=3"], "--kept_back=3: there are 2 tasks"),
        (["--tasks=mlp/cifar10", "--skip_missing"], "the data of none are there"),
        (["--tasks=mlp/digits@64", "--batch_size=3"], "batch_size=3: must divide the 64 samples"),
        (["--tasks=mlp/digits@64", "--seeds=5"], "seeds=5: needs 6 or more"),
        (["--tasks=mlp/digits@64", "--epochs=1"], "epochs=1: "),
        (["--budget=0"], "--budget=0.0: must be in (0, 1]"),
        (["--budget=0.01"], "budget=0.01: must be "),
        (["--beta2=0.5,0.9,0.99"], "needs four or more values"),
        (["--beta1=0.5,0.9"], "--beta1=0.5,0.9: needs one value"),
    ],
)
def test_bad_input_is_one_clear_line_and_writes_nothing(tmp_path, capsys, args, message):
    experiment.assert_refused(finder, tmp_path / "out", capsys, args, message)
