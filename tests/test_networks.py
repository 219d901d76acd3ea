"""`experiments.networks` from end to end, also on small files of the standard formats."""

import json

import numpy as np
import pytest
import xarray as xr

from adam_transition.commands import networks
from adam_transition.networks import outcomes, panels
from adam_transition.studies.networks import claims as network_claims
from tests import experiment, files, smoke


def _dataset(out):
    return xr.open_zarr(out / "networks.zarr", consolidated=False).load()


@pytest.fixture(scope="module")
def finished():
    return smoke.finished("networks")


def test_data_set_claims_and_figures(finished):
    dataset = _dataset(finished)
    assert dataset["loss"].dims == (
        "task", "batch_size", "learning_rate", "seed", "beta1", "beta2", "record",
    )  # fmt: skip
    assert dataset["record"].values.tolist() == [k / 4 for k in range(1, 17)]
    assert all(variable.attrs["long_name"] for variable in dataset.data_vars.values())
    late = outcomes.late_loss(dataset["loss"].values)
    np.testing.assert_array_equal(dataset["late_loss"], late)
    tuned = np.exp(np.log(dataset["late_loss"]).mean("seed").min("learning_rate"))
    np.testing.assert_allclose(dataset["tuned_loss"], tuned, rtol=1e-12)
    at_best = np.log(dataset["late_loss"]).mean("seed").argmin("learning_rate")
    rates = dataset["learning_rate"].values[at_best.values]
    np.testing.assert_array_equal(dataset["tuned_learning_rate"], rates)
    # β1 = 0.9 and β2 = 0.1: single steps are unbounded, and training is bad
    assert not dataset["good"].sel(beta1=0.9, beta2=0.1, batch_size=1)
    summary = json.loads((finished / "networks.json").read_text())
    assert len(summary["claims"]) == 5
    for name in ("networks", "networks_curves", "networks_spikes"):
        assert (finished / f"{name}.png").stat().st_size > 10_000


def test_verdicts_are_those_of_the_data(finished):
    """A plane that is bad below β2 = 0.95 at batch size 1, and only there; and the opposite."""
    dataset = _dataset(finished)
    good = dataset["good_by_seed"] | True
    good = good & ((dataset["beta2"] > 0.95) | (dataset["batch_size"] > 1))
    good = good.transpose(*dataset["good_by_seed"].dims)
    fixed = good.isel(seed=0, drop=True).expand_dims(learning_rate=dataset["learning_rate"])
    as_claimed = dataset.assign(
        good_by_seed=good,
        good_fixed=fixed,
        spikes=(dataset["spikes"] * 0 + (dataset["beta2"] > 0.95)),
    )
    verdicts = {c.id.partition("_mlp")[0]: c.verdict for c in network_claims.claims(as_claimed)}
    assert verdicts == {
        "small_beta2": "reproduced", "large_beta2": "reproduced", "fixed_rate": "reproduced",
        "spikes": "reproduced", "batch": "reproduced",
    }  # fmt: skip
    opposite = as_claimed.assign(
        good_by_seed=~good, good_fixed=~fixed, spikes=1 - as_claimed["spikes"]
    )
    verdicts = {c.verdict for c in network_claims.claims(opposite)}
    assert verdicts == {"not reproduced"}


def test_an_interrupted_run_goes_on_to_the_same_bits(finished, tmp_path, monkeypatch):
    trained = []
    real = panels._train

    def until_second(panel, *arguments):
        if len(trained) == 1:
            raise KeyboardInterrupt
        trained.append(panel)
        return real(panel, *arguments)

    monkeypatch.setattr(panels, "_train", until_second)
    arguments = *smoke.arguments("networks"), f"--out={tmp_path}", "--nofigures"
    assert experiment.run(networks, *arguments) == 130
    monkeypatch.setattr(panels, "_train", real)
    assert experiment.run(networks, *arguments) == 0
    one, other = _dataset(finished), _dataset(tmp_path)
    for name in one.data_vars:
        np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize(
    ("flagfile", "make", "more"),
    [
        ("networks_mnist_gpu", files.mnist, ["--samples=64", "--batch_size=1,16"]),
        (
            "networks_cifar10_gpu",
            files.cifar10,
            ["--samples=8", "--batch_size=4", "--width=4", "--nofigures"],
        ),
        (
            "networks_text_gpu",
            files.text,
            ["--samples=16", "--batch_size=4", "--width=8", "--nofigures"],
        ),
    ],
)
def test_flagfiles_run_at_reduced_size(tmp_path, flagfile, make, more):
    more = [*more, f"--data_dir={make(tmp_path)}"]
    out = tmp_path / "out"
    arguments = [
        f"--flagfile=experiments/flagfiles/{flagfile}.flags", f"--out={out}", "--epochs=1",
        "--learning_rate=0.001", "--beta1=0,0.9", "--beta2=0.5,0.999", "--seeds=2",
        "--evaluated=8",
    ]  # fmt: skip
    assert experiment.run(networks, *arguments, *more) == 0
    dataset = _dataset(out)
    assert np.isfinite(dataset["loss"].sel(beta2=0.999)).all()
    assert (out / "networks.png").exists() == ("--nofigures" not in more)


def test_records_divide_the_epochs_of_every_task():
    study = networks.parse(_flags("--tasks=mlp/digits,mlp/mnist1d", "--batch_size=1,256"))
    assert study.records_per_epoch == 1  # epochs of 7 and 15 steps


def _flags(*arguments):
    networks.FLAGS.unparse_flags()
    for flag in networks.FLAGS:
        networks.FLAGS[flag].unparse()
    networks.FLAGS(["networks", *arguments])
    return networks.FLAGS.flag_values_dict()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--tasks=mlp"], "--tasks=mlp: write model/data"),
        (["--tasks=vit/digits"], "model=vit: allowed are mlp, convnet, resnet18, decoder"),
        (["--tasks=mlp/svhn"], "data=svhn: allowed are digits, mnist1d"),
        (
            ["--tasks=decoder/digits"],
            "--tasks=decoder/digits: model=decoder: for data=digits allowed are mlp, convnet",
        ),
        (["--tasks=mlp/mnist"], "--data_dir: mnist needs the path"),
        (["--batch_size=5"], "--batch_size=5: must divide the 1792 samples of mlp/digits"),
        (["--batch_size=0"], "--batch_size=0: must divide"),
        (["--samples=5000"], "--samples=5000: data=digits has 1797"),
        (["--learning_rate=0"], "--learning_rate=0: must be above 0"),
        (["--beta2=1"], "--beta2=1: values must lie in [0, 1)"),
        (["--beta1=0.9"], "--beta1=0.9: a plane needs two or more values"),
        (["--schedule=cosine"], "--schedule=cosine: allowed are constant, inverse_sqrt_epoch"),
        (["--dtype=float16"], "flag --dtype=float16"),
        (["--dtype=,"], "flag --dtype=,"),
        (["--epochs=0"], "--epochs=0"),
        (["--epochs=4000000"], "--epochs=4000000"),
    ],
)
def test_bad_input_is_one_clear_line_and_writes_nothing(tmp_path, capsys, args, message):
    experiment.assert_refused(networks, tmp_path / "out", capsys, args, message)
