"""The authors' map on MNIST beside networks: the comparison on maps that are known, the command."""

import json

import numpy as np
import pytest
import xarray as xr

from adam_transition.commands import mnist_plane
from adam_transition.studies.mnist_plane import claims as study_claims
from adam_transition.studies.mnist_plane.data import LEVEL, on_grid, shapes
from adam_transition.studies.published.digitised import mnist_2022
from tests import experiment
from tests.claim_cases import assert_three_verdicts, missing, same, scaled

PICTURE = mnist_2022()
BETA = 0.08 * np.arange(13)
SEEDS = 3


def _dataset(of_size):
    """Trainings with these maps for each batch size, at two learning rates, the second shuffled."""
    generator = np.random.default_rng(0)
    late = np.stack(
        [np.stack([np.stack([one] * SEEDS), generator.permuted(np.stack([one] * SEEDS), axis=-1)])
         for one in of_size]
    )  # fmt: skip
    dims = ("task", "batch_size", "learning_rate", "seed", "beta1", "beta2")
    dataset = xr.Dataset(
        {"late_loss": (dims, late[None])},
        coords={
            "task": np.array(["mlp/none"], dtype=object),
            "batch_size": [1, 4][: len(of_size)],
            "learning_rate": [0.001, 0.01],
            "beta1": BETA,
            "beta2": BETA,
        },
    )
    return dataset.assign(shapes(dataset))


def test_the_digitised_map_is_the_one_described():
    def loss(beta1, beta2):
        return on_grid(PICTURE, np.array([beta1]), np.array([beta2]))[0, 0]

    found = [loss(0.0, beta2) for beta2 in (0.98, 0.90, 0.80, 0.60)]
    assert found == [0.393, 0.430, 0.479, 0.528]
    assert [loss(0.9, beta2) for beta2 in (0.98, 0.90, 0.80)] == [0.426, 0.415, 0.427]
    assert loss(0.9, 0.60) == PICTURE.high


@pytest.mark.parametrize("change", [lambda x: x, lambda x: 0.01 * (10 * x) ** 3])
def test_only_the_shape_counts(change):
    """A map that is an increasing function of the published one has its ranks and its edge."""
    dataset = _dataset([change(on_grid(PICTURE, BETA, BETA))])
    near = dataset.sel(batch_size=1, learning_rate=0.001)
    np.testing.assert_allclose(near["rank_correlation"], 1.0)
    np.testing.assert_allclose(near["level"], change(LEVEL), rtol=0.02)
    difference = near["edge"] - near["published_edge"]
    assert np.nanmax(np.abs(difference)) < 0.02  # both by linear interpolation
    assert study_claims.nearest(dataset) == {"batch_size": 1, "learning_rate": 0.001}


def test_a_loss_that_ignores_beta1_has_not_the_shape():
    late = np.broadcast_to(1 - 0.5 * BETA, (len(BETA), len(BETA)))
    found = {claim.id: claim.verdict for claim in study_claims.claims(_dataset([late]))}
    for id_ in ("mnist_soft_edge", "mnist_hard_edge"):
        assert found[id_] == "not reproduced"
    lead = [c for c in study_claims.claims(_dataset([late])) if c.id == "mnist_shape"]
    assert lead[0].measured == pytest.approx(0, abs=1e-12)


def test_every_claim_has_three_verdicts():
    published = on_grid(PICTURE, BETA, BETA)
    dataset = _dataset([published, published.T])

    def noisy(dataset):
        seeds = np.array([-1.0, 0.0, 1.0])
        return dataset.assign(
            {
                name: dataset[name] + xr.DataArray(seeds, dims="seed")
                for name in ("rank_correlation", "edge")
            }
        )

    above = scaled(edge=lambda d: 1 + 10 * d["beta1"])

    def far_from_one(dataset):
        rank = dataset["rank_correlation"]
        return dataset.assign(rank_correlation=rank.where(dataset["batch_size"] > 1, -1.0))

    constant = scaled(edge=0.0)  # an edge that does not move
    cases = {
        "mnist_shape": (same, scaled(rank_correlation=0.1), noisy),
        "mnist_soft_edge": (same, constant, missing("edge")),
        "mnist_hard_edge": (same, constant, missing("edge")),
        "mnist_hard_edge_bounded": (same, above, noisy),
        "mnist_beyond_condition": (same, scaled(level=0.1), missing("level")),
        "mnist_batch_size": (same, far_from_one, missing("rank_correlation")),
    }  # fmt: skip
    assert_three_verdicts(study_claims.claims, dataset, cases)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("mnist_plane")
    flags = ["--flagfile=experiments/flagfiles/smoke/mnist_plane.flags", f"--out={out}"]
    assert experiment.run(mnist_plane, *flags) == 0
    return out


def test_the_summary_and_the_figure(finished):
    summary = json.loads((finished / "mnist_plane.json").read_text())
    assert [row["batch_size"] for row in summary["rows"]] == [1, 1, 16, 16]
    best = max(summary["rows"], key=lambda row: row["rank_correlation"])
    assert summary["nearest"] == {key: best[key] for key in ("batch_size", "learning_rate")}
    assert len(summary["claims"]) == 6
    assert (finished / "mnist_plane.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--beta1=0:0.99:12"], "--beta1=0.09: must be on the picture's grid"),
        (["--beta1=0.2,0.9"], "--beta1=0.2,0.9: must have 0"),
        (["--beta1=0,0.8"], "another value to 0.6"),
        (["--beta1=0,0.24,0.8,0.96"], "--beta1=0,0.24,0.8,0.96: the last value to 0.6"),
        (["--beta2=0,0.02,0.04"], "both sides of the picture's edge"),
        (["--tasks=mlp/digits,mlp/mnist1d"], "must be one task"),
        (["--tasks=mlp/digits", "--batch_size=5"], "batch_size=5: must divide"),
    ],
)
def test_bad_input_is_one_clear_line_and_writes_nothing(tmp_path, capsys, args, message):
    experiment.assert_refused(mnist_plane, tmp_path / "out", capsys, args, message)
