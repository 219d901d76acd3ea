"""`experiments.advise --results`: the probe beside the thresholds of a finished batch_size run."""

import json
import shutil

import numpy as np
import pytest
import xarray as xr

from adam_transition.commands import advise
from adam_transition.studies.advise import claims as advise_claims
from adam_transition.studies.advise import data as advise_data
from adam_transition.studies.advise.data import INSTANTS, KEPT
from adam_transition.sweeps import store
from adam_transition.sweeps.study import variable
from tests import experiment, smoke

THRESHOLDS = np.array([0.01, 0.04])  # 1 − β2* at B = 1 and 4


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small finished run, with thresholds planted at one of its learning rates."""
    out = tmp_path_factory.mktemp("trained") / "batch_size"
    shutil.copytree(smoke.finished("batch_size"), out)
    results = store.Store(out / "batch_size.zarr")
    dataset = results.load()
    low, interior = dataset["low"].values.copy(), dataset["interior"].values & False
    low[0, -1, :2], interior[0, -1, :2] = THRESHOLDS[:, None], True
    rule = dataset["rule"].values.copy()
    rule[0, -1, :, :2] = 1 - 0.96**0.25, 0.04
    for name, values in (
        ("rule", rule),
        ("low", low), ("interior", interior), ("widest", np.arange(5) == 4),
    ):  # fmt: skip
        results.add(name, variable(dataset[name].dims, values, name))
    return out


@pytest.fixture(scope="module")
def finished(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("advise")
    arguments = [f"--out={out}", f"--results={trained}", "--probed_seeds=1"]
    assert experiment.run(advise, *arguments) == 0
    return out


def _dataset(out):
    return xr.open_zarr(out / "advise.zarr", consolidated=False).load()


def test_data_set_summary_and_figure(finished):
    dataset = _dataset(finished)
    assert dataset["batch_size"].values.tolist() == [1, 4]
    np.testing.assert_array_equal(dataset["measured"], np.tile(THRESHOLDS[:, None], (1, 3)))
    assert dataset.attrs["learning_rate"] == "η0 = 0.03"
    assert dataset["q"].values.max() < 1 - 0.9**2
    # where noise is averaged over many steps the mean update is that of the mean gradient
    nearest = dataset["progress"].isel(q=0)
    error = 4 * dataset["progress_stderr"].isel(q=0) + 0.02
    assert (abs(nearest - 1) < error).all()
    assert (dataset["noise_ratio"] > 1).all()
    summary = json.loads((finished / "advise.json").read_text())
    assert len(summary["claims"]) == 2 * len(KEPT) * len(INSTANTS) + 1
    assert [row["rule"] for row in summary["rows"]] == ["half-life", "SDE", "clipped"]
    networks = summary["networks"]
    assert [row["batch_size"] for row in networks] == [1, 4]
    assert networks[1]["training"] == pytest.approx(0.96)
    assert networks[0]["half-life"] == pytest.approx(0.96**0.25)
    assert (finished / "advise.png").stat().st_size > 10_000


def test_the_crossing_is_found_on_planted_curves():
    q = np.geomspace(1e-3, 0.1, 9)
    progress = 1 - np.log(q / 1e-3) / np.log(100)  # falls linearly in log q from 1 to 0
    assert advise_data._crossing(q, progress, 0.5) == pytest.approx(1e-2)
    assert advise_data._crossing(q, progress, 0.95) == pytest.approx(1e-3 * 100**0.05)
    assert advise_data._crossing(q, progress + 1, 0.5) == np.inf
    assert advise_data._crossing(q, progress - 1, 0.5) == 1e-3


def test_verdicts_follow_the_data(finished):
    dataset = _dataset(finished)
    one = xr.zeros_like(dataset["probed"]) + xr.DataArray(
        THRESHOLDS, {"batch_size": [1, 4]}, ("batch_size",)
    )
    two = xr.concat([one, one], "probed_seed").transpose(*dataset["probed"].dims)
    progress = xr.concat([dataset["progress_at_threshold"]] * 2, "probed_seed")
    planted = dataset.drop_dims("probed_seed").assign(
        probed=two * 1.5, progress_at_threshold=progress * 0 + 0.9
    )
    verdicts = {claim.verdict for claim in advise_claims.claims(planted)}
    assert verdicts == {"holds"}
    opposite = planted.assign(probed=two * 5, progress_at_threshold=progress * 0 + 0.1)
    none = planted.assign(probed=two * np.inf)
    for claim in advise_claims.claims(opposite):
        assert (claim.verdict == "fails") != claim.id.startswith("probe_finds")
    for claim in advise_claims.claims(none):
        if claim.id.startswith("probe"):
            finds = claim.id.startswith("probe_finds")
            assert claim.verdict == ("fails" if finds else "open")


def test_results_that_are_no_results(tmp_path, capsys, trained):
    refused = tmp_path / "out"
    message = f"--results={tmp_path}: no batch_size.zarr in it; run experiments.batch_size first"
    experiment.assert_refused(advise, refused, capsys, [f"--results={tmp_path}"], message)
    folder = tmp_path / "batch_size.zarr"
    folder.mkdir()
    (folder / "what").write_text("ever")
    assert experiment.run(advise, f"--out={refused}", f"--results={tmp_path}") == 2
    assert f"--results={tmp_path}: " in capsys.readouterr().err
