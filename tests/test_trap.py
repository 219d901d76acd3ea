"""The trap near x*: the map without a scale against Adam itself, known cases, the command."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from adam_transition import adam, sampling
from adam_transition.commands import trap
from adam_transition.problems import counterexample_table
from adam_transition.studies.trap import claims as study_claims
from adam_transition.theory.trap import FAR, stays_near
from tests import experiment
from tests.claim_cases import assert_three_verdicts, missing, same, scaled

STARTS = np.array([0.7, 2.0, 9.0, 31.0])


@pytest.mark.parametrize("scheme", ["cyclic", "random_shuffling"])
def test_the_map_is_adam_with_a_constant_step_on_a_quadratic(scheme):
    """By `adam.update`, with another step size and scale of the gradients."""
    slopes, beta1, beta2 = counterexample_table(4, 1.0)[:, 0], 0.3, 0.4
    epochs, step_size, scale = 32, 0.01, 7.0
    found = stays_near(
        slopes, np.array([beta1]), np.array([beta2]), STARTS,
        sampling=scheme, num_epochs=epochs, key=sampling.stream_key(3),
    )  # fmt: skip
    hyper = adam.hyperparameters(beta1, beta2)
    with jax.enable_x64(True):
        stream = sampling.indices(
            scheme, sampling.stream_key(3), 0, 4 * epochs, 4, max_components=4
        )
        x = jnp.asarray(-step_size * STARTS)  # mirrored: the map is odd
        state = adam.init(x)
        for index in np.asarray(stream):
            direction, state = adam.update(scale * slopes[index] * x, state, hyper)
            x = x - step_size * direction
    distance = np.abs(np.asarray(x)) / step_size
    expected = np.where(distance < FAR, distance, np.inf)
    # nearby orbits part, but not in so few epochs
    np.testing.assert_allclose(found.distance[0], expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("n", "a", "beta1", "beta2", "inside", "outside"),
    [
        (3, 1.0, 0.3, 0.1, 1.0, 30.0),
        (10, 1.0, 0.9, 0.5, 3.0, 10.0),
        (5, 1 / 16, 0.0, 0.28, 1.0, 30.0),
    ],
)
def test_traps_that_a_referee_found(n, a, beta1, beta2, inside, outside):
    slopes = counterexample_table(n, a)[:, 0]
    found = stays_near(slopes, np.array([beta1]), np.array([beta2]), np.array([inside, outside]))
    assert found.distance[0, 0] < 12
    assert np.isinf(found.distance[0, 1])
    assert found.basin.tolist() == [inside]


def test_with_replacement_and_far_from_the_boundary_there_is_none():
    slopes = counterexample_table(3, 1.0)[:, 0]
    cells = np.array([0.3, 0.0, 0.1]), np.array([0.1, 0.2, 0.05])
    drawn = stays_near(
        slopes, *cells, STARTS, sampling="with_replacement", key=sampling.stream_key(0)
    )
    assert (drawn.basin == 0).all()
    assert stays_near(slopes, *cells, STARTS).basin.tolist()[1:] == [0.0, 0.0]


def test_cells_and_scales_do_not_meet():
    """A start that is gone does not disturb others, and powers of two change no bit."""
    slopes = counterexample_table(5, 1.0)[:, 0]
    beta1, beta2 = np.array([0.6, 0.0, 0.3]), np.array([0.5, 0.1, 0.6])
    whole = stays_near(slopes, beta1, beta2, STARTS, num_epochs=512)
    for k in range(3):
        alone = stays_near(8 * slopes, beta1[[k]], beta2[[k]], STARTS, num_epochs=512)
        np.testing.assert_array_equal(np.isinf(alone.distance[0]), np.isinf(whole.distance[k]))
        assert alone.basin[0] == whole.basin[k]


@pytest.mark.parametrize(
    ("slopes", "starts", "message"),
    [
        ([3.0, -1, -1], [0.0], "starts="),
        ([3.0, -1, -1], [60.0], "starts="),
        ([3.0, -1, -1], [], "starts="),
        ([1.0, -1, -1], [1.0], "slopes"),
    ],
)
def test_bad_arguments_are_one_line(slopes, starts, message):
    with pytest.raises(ValueError, match=message):
        stays_near(np.array(slopes), np.zeros(1), np.zeros(1), np.array(starts))


def test_a_beta_a_scheme_and_a_missing_key_are_named():
    slopes, start = np.array([3.0, -1, -1]), np.ones(1)
    with pytest.raises(ValueError, match=r"beta2=1\.0"):
        stays_near(slopes, np.zeros(1), np.ones(1), start)
    with pytest.raises(ValueError, match="needs a key"):
        stays_near(slopes, np.zeros(1), np.zeros(1), start, sampling="random_shuffling")
    with pytest.raises(ValueError, match="'sorted' is not one of"):
        stays_near(slopes, np.zeros(1), np.zeros(1), start, sampling="sorted")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("trap")
    flags = ["--flagfile=experiments/flagfiles/smoke/trap.flags", f"--out={out}"]
    assert experiment.run(trap, *flags) == 0
    summary = json.loads((out / "trap.json").read_text())
    return xr.open_zarr(out / "trap.zarr", consolidated=False).load(), summary, out


def test_the_data_and_the_rows(finished):
    dataset, summary, out = finished
    assert dataset["basin"].dims == ("sampling", "n", "beta1", "beta2")
    known = dataset["basin"].notnull()
    assert (dataset["drift"].where(known).min() * 1024 >= 2 * FAR).item()
    rows = {(row["sampling"], row["n"]): row for row in summary["rows"]}
    assert rows["cyclic", 3]["trapped"] > 0.3
    assert rows["with_replacement", 3]["trapped"] == 0
    assert rows["cyclic", 3]["cells"] == known.sel(sampling="cyclic", n=3).sum().item()
    assert (out / "trap.png").stat().st_size > 10_000
    # few runs leave their shares open
    assert {claim["verdict"] for claim in summary["claims"]} <= {"holds", "open"}


def _more_runs(dataset):
    return dataset.isel(run=np.tile(np.arange(dataset.sizes["run"]), 10))


def test_every_claim_has_three_verdicts(finished):
    cases = {
        "far_starts_leave": (_more_runs, scaled(far=0.0), missing("far")),
        "no_trap_no_stay": (_more_runs, scaled(near=0.0), missing("near")),
        "cyclic_order_has_a_trap": (same, scaled(basin=0.0), missing("basin")),
        "adam_falls_into_the_trap": (same, scaled(near=1e9), missing("near")),
        "no_trap_with_replacement": (
            same, lambda d: d.assign(basin=d["basin"] + 1), missing("basin"),
        ),
    }  # fmt: skip
    assert_three_verdicts(study_claims.claims, finished[0], cases)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--a=-1"], "--a=-1: must be above 0"),
        (["--n=2"], "--n=2: must lie in [3, 100]"),
        (["--beta1=1"], "--beta1=1: values must lie in [0, 1)"),
        (["--sampling=shuffle_once"], "--sampling=shuffle_once: allowed are"),
        (["--beta1=0:0.9:2000", "--beta2=0:0.9:2000"], "at most 2e+11 are allowed"),
    ],
)
def test_bad_input_is_one_clear_line_and_writes_nothing(tmp_path, capsys, args, message):
    experiment.assert_refused(trap, tmp_path / "out", capsys, args, message)
