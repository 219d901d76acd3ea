"""`experiments.phase --optimizer=…`: the contract, Adam's bits, the user's own, bad input."""

import numpy as np
import optax
import pytest
import xarray as xr

import adam_transition as at
from adam_transition.commands import phase
from adam_transition.optimizers.registry import source_digest
from adam_transition.studies.phase.drift import compare
from adam_transition.studies.phase.figures import draw_phase_diagram
from tests import experiment

SMALL = ["--n=5,20", "--sampling=cyclic", "--beta1=0:0.9:7", "--beta2=0:0.96:9", "--steps=3000"]


def _run(out, *args):
    assert experiment.run(phase, f"--out={out}", "--nofigures", *SMALL, *args) == 0
    return xr.open_zarr(out / "phase.zarr", consolidated=False).load()


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    return _run(tmp_path_factory.mktemp("several"), "--optimizer=adam,signum,lion,sgd")


def test_adam_alone_has_no_dimension_and_the_same_bits(several, tmp_path):
    alone = _run(tmp_path)
    assert "optimizer" not in alone.dims
    assert several["gap"].dims == ("optimizer", "sampling", "n", "beta1", "beta2")
    assert list(several["optimizer"].values) == ["adam", "signum", "lion", "sgd"]
    for name in alone.data_vars:
        found = several[name].sel(optimizer="adam", drop=True)
        np.testing.assert_array_equal(found, alone[name], err_msg=name)


def test_the_drift_predicts_every_rule(several):
    shares = compare(several)
    assert float(shares["disagree"].max()) <= 0.01
    diverged = several["diverged"].mean(["beta1", "beta2"]).sel(n=20, sampling="cyclic")
    assert float(diverged.sel(optimizer="sgd")) == 0
    assert float(diverged.sel(optimizer="lion")) > float(diverged.sel(optimizer="adam")) > 0


def test_the_second_axis_has_no_effect_on_sign_momentum(several):
    signum = several.sel(optimizer="signum")
    assert (signum["gap"].values == signum["gap"].values[..., :1]).all()
    assert (signum["drift"].values == signum["drift"].values[..., :1]).all()


def test_the_figure_names_the_rules_and_bounds_the_steps_of_adam_alone(several):
    figure = draw_phase_diagram(several)
    rows = [ax for ax in figure.axes if "cyclic" in ax.get_ylabel()]
    assert [ax.get_ylabel().split(",")[0] for ax in rows] == ["adam", "signum", "lion", "sgd"]
    dashed = [ax.get_ylabel() for ax in rows if any(line.get_ls() == "--" for line in ax.lines)]
    assert [label.split(",")[0] for label in dashed] == ["adam"]


def test_a_factory_of_the_users_own(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "import optax\n\n\ndef rule(beta1, beta2):\n"
        "    return optax.chain(optax.scale_by_lion(beta1, beta2), optax.scale(-1.0))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = _run(tmp_path / "out", "--optimizer=mine:rule,lion")
    assert list(found["optimizer"].values) == ["mine:rule", "lion"]
    own, built_in = (found.sel(optimizer=name) for name in found["optimizer"].values)
    np.testing.assert_allclose(own["drift"], built_in["drift"], atol=1e-9)
    assert (own["diverged"] == built_in["diverged"]).mean() > 0.99
    # the store is of this code: another of the same name is not taken for it
    flags = ["--optimizer=mine:rule,lion", f"--out={tmp_path / 'out'}", *SMALL]
    (tmp_path / "mine.py").write_text((tmp_path / "mine.py").read_text() + "\n# changed\n")
    assert experiment.run(phase, "--nofigures", *flags) == 2


def test_the_digest_covers_the_package_of_a_factory(tmp_path, monkeypatch):
    package = tmp_path / "a_package"
    package.mkdir()
    (package / "__init__.py").write_text("from a_package.rules import rule\n")
    (package / "rules.py").write_text("from a_package.parts import part\n\nrule = part\n")
    (package / "parts.py").write_text("def part(beta1, beta2):\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = source_digest("a_package:rule")
    assert source_digest("a_package:rule") == before
    (package / "parts.py").write_text("def part(beta1, beta2):\n    return 1\n")
    assert source_digest("a_package:rule") != before
    assert source_digest("adam") == ""


def test_coupled_coordinates_have_the_drift_of_the_whole_table():
    """Directions of unit length: no coordinate can be taken by itself."""

    def unit(beta1, beta2):
        return optax.chain(optax.ema(beta1), optax.contrib.normalize(), optax.scale(-1.0))

    slopes = np.array([[5.0, 0.05], [-1, 100], [-1, -100], [-1, 100], [-1, -100]])
    problem = at.from_loss(
        lambda x, s: s @ x, slopes, shape=2, bounds=(-50, 50), minimiser=[-50.0, -50.0]
    )
    plane = at.simulate_plane(
        problem, np.array([0.0]), np.array([0.9]), x0=[0.0, 0.0], samplings=("cyclic",),
        num_steps=2000, drift_at=[0.0, 0.0], optimizer=unit, progress=False,
    )  # fmt: skip
    drift = at.stationary_drift(slopes, at.hyperparameters(0.0, 0.9), optimizer=unit).drift
    assert drift.max() < 0
    assert float(plane["drift"].squeeze()) == pytest.approx(drift.max(), rel=1e-6)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--optimizer=lyon"], "phase: --optimizer: 'lyon' is not one of adam, amsgrad,"),
        (["--optimizer=no.such:rule"], "'no.such:rule': cannot be imported"),
        (
            ["--optimizer=adam,adopt", "--initialization=bias_correction"],
            "--initialization=bias_correction: has no effect on --optimizer=adopt",
        ),
        (
            ["--optimizer=optax:adamw"],
            "optax:adamw: its update(gradient, state), which must do",
        ),
        (["--optimizer=adam,adam"], "--optimizer=adam,adam: needs one or more different"),
        (["--optimizer="], "--optimizer=: needs one or more different"),
        (["--optimizer=lion", "--epsilon=0.1"], "--epsilon=0.1: has no effect on --optimizer=lion"),
    ],
)
def test_bad_input_is_one_line(args, message, tmp_path, capsys):
    experiment.assert_refused(phase, tmp_path / "out", capsys, args, message)


def test_a_plane_takes_a_factory():
    beta = np.linspace(0, 0.95, 6)
    settings = {"x0": 1.0, "samplings": ("cyclic",), "num_steps": 3000, "drift_at": 1.0}
    plane = at.simulate_plane(
        at.counterexample(20), beta, beta, **settings, progress=False,
        optimizer=lambda beta1, beta2: optax.contrib.adopt(1.0, beta1, beta2, use_clipping=False),
    )  # fmt: skip
    assert plane.sizes["optimizer"] == 1
    assert not plane["diverged"].any()
    assert (plane["drift"] < 0).all()
    with pytest.raises(ValueError, match=r"^optimizer='lyon' is not one of"):
        at.simulate_plane(at.counterexample(5), beta, beta, **settings, optimizer="lyon")
    with pytest.raises(ValueError, match=r"^epsilon=0.1: has no effect on optimizer=lion"):
        at.simulate_plane(
            at.counterexample(5), beta, beta, **settings, optimizer="lion", epsilon=0.1
        )
