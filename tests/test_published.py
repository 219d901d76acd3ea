"""The authors' heat map beside ours: the score, the maps against optax, the setting it shows."""

import dataclasses
import json
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import xarray as xr

from adam_transition import problems
from adam_transition.commands import published
from adam_transition.studies.published import claims as study_claims
from adam_transition.studies.published.data import EPSILON, crossing, score
from adam_transition.studies.published.digitised import counterexample_2022
from adam_transition.studies.published.study import PublishedStudy
from adam_transition.sweeps import study
from tests import experiment
from tests.claim_cases import assert_three_verdicts, missing, same, scaled

PICTURE = counterexample_2022()
ONE = PublishedStudy(
    samplings=("cyclic",),
    num_components=(10,),
    a=(Fraction(1),),
    schedules=("inverse_sqrt_epoch",),
    step_sizes=(0.1,),
    initializations=("bias_correction",),
    x0=(1.0,),
    num_streams=1,
    num_steps=300,
    seed=0,
)


def test_the_digitised_map_is_the_one_described():
    assert PICTURE.values.shape == (50, 50)
    np.testing.assert_allclose(PICTURE.beta1, 0.02 * np.arange(50))
    np.testing.assert_allclose(PICTURE.beta2, 0.02 * np.arange(50))
    assert PICTURE.values.max() == PICTURE.high
    assert PICTURE.values.min() >= PICTURE.low
    assert PICTURE.values[0, -1] == 0.5
    assert 0.1 < PICTURE.is_clipped().mean() < 0.3


def test_a_map_is_at_distance_zero_from_itself_and_overflow_is_clipped():
    values = np.where(PICTURE.is_clipped(), np.nan, PICTURE.values)
    assert score(PICTURE, values) == (0, 0, 0)
    assert score(PICTURE, np.where(PICTURE.is_clipped(), 69.0, PICTURE.values)) == (0, 1, 0)


@pytest.mark.parametrize("shift", [0.7, 3.5])
def test_a_shift_is_measured(shift):
    """In the value, in units of the scale; in β2, by the contour."""
    plane = 70 - 60 * PICTURE.beta2 - 20 * PICTURE.beta1[:, None]
    picture = PICTURE._replace(values=plane.clip(0, 70), resolution=0.0)
    found = score(picture, plane + shift)
    inside = (plane < 70) & (plane + shift < 70)
    assert found.rms == pytest.approx(shift / 70, rel=0.03)
    assert inside.mean() > 0.9
    assert found.contour_distance == pytest.approx(shift / 60)


def test_a_crossing_is_the_last_one_and_may_be_missing():
    beta2 = np.array([0.0, 0.5, 0.6, 0.9])
    values = np.array([[4.0, 0.0, 4.0, 1.0], [1.0, 1.0, 1.0, 1.0]])
    np.testing.assert_allclose(crossing(beta2, values, 2.0), [0.6 + 0.3 * 2 / 3, np.nan])


@pytest.mark.parametrize(("i", "j"), [(0, 0), (20, 30), (40, 10), (25, 49)])
def test_the_map_is_the_run_of_optax(i, j):
    found = study.compute(ONE)["gap"].values[0, i, j]
    beta1, beta2 = PICTURE.beta1[i], PICTURE.beta2[j]
    slopes = problems.counterexample(10, 1).constant_gradients()
    with jax.enable_x64(True):
        rule = optax.adam(lambda k: 0.1 / jnp.sqrt(k // 10 + 1.0), beta1, beta2, EPSILON)

        def step(k, carry):
            x, state = carry
            gradient = jnp.asarray(slopes)[k % 10] * jnp.where(x >= -1, 1.0, x + 2)
            update, state = rule.update(gradient, state)
            return x + update, state

        start = jnp.asarray(1.0)
        x, _ = jax.lax.fori_loop(0, 300, step, (start, rule.init(start)))
    assert found == pytest.approx(abs(float(x) + 2), rel=2e-4)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("published")
    flags = ["--flagfile=experiments/flagfiles/smoke/published.flags", f"--out={out}"]
    assert experiment.run(published, *flags) == 0
    summary = json.loads((out / "published.json").read_text())
    return xr.open_zarr(out / "published.zarr", consolidated=False).load(), summary, out


def test_the_picture_is_adam_with_a_equal_to_one_in_cyclic_order(finished):
    _, summary, out = finished
    best = summary["best"]
    assert (best["sampling"], best["n"], best["a"]) == ("cyclic", 10, 1.0)
    assert best["rms"] < 0.005  # a third of what a reading can be wrong
    excluded = {(one["choice"], one["excluded"]) for one in summary["rivals"]}
    assert excluded == {(name, True) for name in ("sampling", "n", "a", "step_sizes")}
    assert {claim["verdict"] for claim in summary["claims"]} == {"reproduced", "holds"}
    assert (out / "published.png").stat().st_size > 10_000


def test_every_claim_has_three_verdicts(finished):
    def equal(dataset):
        return dataset.assign(rms=0.001 + 0 * dataset["rms"])

    far = scaled(rms=100.0, wrongly_clipped=100.0, contour_distance=100.0)
    cases = {
        "published_map": (same, far, missing("rms")),
        "published_clipped": (same, far, missing("wrongly_clipped")),
        "published_contour": (same, far, missing("contour_distance")),
        "published_sampling": (same, equal, missing("rms")),
        "published_n": (same, equal, missing("rms")),
        "published_a": (same, equal, missing("rms")),
        "published_step_sizes": (same, equal, missing("rms")),
    }
    assert_three_verdicts(study_claims.claims, finished[0], cases)


def test_every_setting_has_its_own_stream_and_steps():
    """Two streams of a random order differ; a setting's map does not depend on the others."""
    many = dataclasses.replace(
        ONE, samplings=("random_shuffling",), num_streams=2, x0=(0.5, 1.0), step_sizes=(0.1, 0.3)
    )
    dataset = study.compute(many)
    assert dataset.sizes["setting"] == many.num_settings == 8
    assert len(np.unique(dataset["gap"].values[:, 20, 20])) == 8
    alone = study.compute(dataclasses.replace(many, step_sizes=(0.3,), x0=(1.0,)))
    same_settings = (dataset["x0"] == 1.0) & (dataset["step_size"] == 0.3)
    np.testing.assert_array_equal(dataset["gap"].values[same_settings.values], alone["gap"].values)


def test_a_map_without_a_contour_has_a_summary(tmp_path):
    """Numbers that are missing are null there."""
    flags = ["--flagfile=experiments/flagfiles/smoke/published.flags", "--steps=1", "--nofigures"]
    assert experiment.run(published, *flags, f"--out={tmp_path}") == 0
    summary = json.loads((tmp_path / "published.json").read_text())
    assert summary["best"]["contour_distance"] is None


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--a=-1"], "--a=-1: must be above 0"),
        (["--a="], "--a=: needs one or more different slopes"),
        (["--a=1/(n-1)^2,0.25", "--n=3"], "needs one or more different slopes"),
        (["--n=2"], "--n=2: must lie in [3, 1000]"),
        (["--x0=-2"], "--x0=-2: must be above -2"),
        (["--step_size=0"], "--step_size=0: must be above 0"),
        (["--sampling=shuffle_once"], "--sampling=shuffle_once: allowed are"),
        (["--streams=100", "--n=3:200:100"], "at most 1e+12 are allowed"),
    ],
)
def test_bad_input_is_one_clear_line_and_writes_nothing(tmp_path, capsys, args, message):
    experiment.assert_refused(published, tmp_path / "out", capsys, args, message)
