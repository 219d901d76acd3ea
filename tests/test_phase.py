"""`experiments.phase` end to end: contract, bits, kill and resume, every documented error."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from adam_transition import phase_drift
from adam_transition.drift import counterexample_table
from experiments import phase
from tests import experiment

SMALL = ["--n=5,20", "--beta1=0:0.9:6", "--beta2=0:0.96:9", "--steps=3000"]
VARIABLES = ("gap", "late_gap", "speed", "diverged")


def _phase(*args, devices=None):
    """The command, in a process of its own."""
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    if devices:
        env["XLA_FLAGS"] = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.run(
        [sys.executable, "-m", "experiments.phase", *args],
        capture_output=True,
        text=True,
        env=env,
        check=False,
    )


def _here(*args):
    """The same in this process, which has imported everything already."""
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        status = experiment.run(phase, *args)
    return subprocess.CompletedProcess(args, status, out.getvalue(), err.getvalue())


def _run(out, *args, start=_here):
    done = start(f"--out={out}", *args)
    assert done.returncode == 0, done.stderr
    return xr.open_zarr(out / "phase.zarr", consolidated=False).load(), done


def _assert_same_bits(one, other):
    for name in VARIABLES:
        np.testing.assert_array_equal(one[name].values, other[name].values, err_msg=name)


def _finished(variable):
    """The chunk files of a variable, without those that were being written."""
    files = sorted((variable / "c").rglob("*"))
    return [p for p in files if p.is_file() and p.suffix != ".partial"]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    return _run(tmp_path_factory.mktemp("phase"), *SMALL, "--trajectories=0/0.1,0.5/0.9")


def test_data_set_follows_the_contract(reference):
    dataset, _ = reference
    for name in VARIABLES:
        assert dataset[name].dims == ("sampling", "n", "beta1", "beta2")
        assert dataset[name].attrs["long_name"]
        assert dataset[name].attrs["units"] == "1"
    assert dataset["gap"].dtype == np.float32
    assert dataset["diverged"].dtype == bool
    np.testing.assert_allclose(dataset["beta2"], np.linspace(0, 0.96, 9))
    assert list(dataset["sampling"].values) == ["cyclic", "random_shuffling", "with_replacement"]
    for attr in ("flags", "versions", "git_revision", "device", "wall_time_s"):
        assert attr in dataset.attrs
    assert dataset["drift"].dims == dataset["gap"].dims
    assert dataset["drift"].notnull().all()
    assert dataset["trajectory"].dims == ("sampling", "n", "point", "step")
    assert dataset.sizes["point"] == 2
    assert dataset["step"][-1] == 3000


def test_summary_follows_the_contract(reference):
    _, done = reference
    path = Path(done.stdout.strip().splitlines()[-1].removeprefix("wrote "))
    summary = json.loads(path.read_text())
    assert {"experiment", "version", "flags", "claims", "shares"} <= summary.keys()
    keys = {"id", "statement", "reference", "expected", "measured", "uncertainty", "verdict"}
    assert all(claim.keys() == keys for claim in summary["claims"])
    for line in done.stdout.splitlines():
        if line.startswith("wrote "):
            assert Path(line.removeprefix("wrote ")).exists()
    assert done.stderr == ""  # no progress bar unless stderr is a terminal


def test_the_picture_is_the_papers(reference):
    dataset, _ = reference
    cell = dataset["diverged"].sel(beta1=0)
    assert cell.sel(beta2=0).all()  # Sign-SGD
    assert not cell.sel(beta2=0.96).any()
    assert (dataset["diverged"].sel(n=20).sum() > dataset["diverged"].sel(n=5).sum()).all()


@pytest.mark.parametrize(
    ("args", "devices"),
    [(["--chunk_cells=7"], None), (["--chunk_cells=54"], None), (["--chunk_cells=31"], 8)],
)
def test_bits_do_not_depend_on_chunks_or_devices(reference, tmp_path, args, devices):
    start = partial(_phase, devices=devices) if devices else _here
    dataset, _ = _run(tmp_path, *SMALL, "--trajectories=0/0.1,0.5/0.9", *args, start=start)
    _assert_same_bits(reference[0], dataset)


def test_a_killed_run_resumes_with_the_same_bits(tmp_path):
    args = [
        "--n=5,20",
        "--beta1=0:0.9:40",
        "--beta2=0:0.96:50",
        "--steps=20000",
        "--chunk_cells=100",
    ]
    args.append("--sampling=with_replacement,cyclic")
    whole, _ = _run(tmp_path / "whole", *args)
    out = tmp_path / "killed"
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.phase", f"--out={out}", *args],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )

    def chunks():
        return min(len(_finished(out / "phase.zarr" / name)) for name in VARIABLES)

    deadline = time.monotonic() + 120
    while chunks() < 3:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 3 <= chunks() < len(_finished(tmp_path / "whole/phase.zarr/diverged"))
    before = {p: p.stat().st_mtime_ns for p in _finished(out / "phase.zarr/gap")}
    damaged = next(iter(before))
    damaged.write_bytes(damaged.read_bytes()[:-3])
    resumed, _ = _run(out, *args)
    _assert_same_bits(whole, resumed)
    kept = [p for p, stamp in before.items() if p.stat().st_mtime_ns == stamp]
    assert damaged not in kept
    assert len(kept) >= 2, "finished chunks were computed again"


def test_random_cells_and_a_list_of_a(tmp_path):
    args = ["--n=3,7,60", "--random_cells=20", "--a=1/4,1", "--steps=200", "--dtype=float64"]
    dataset, _ = _run(tmp_path, *args, start=_phase)  # float64 is a setting of a whole process
    assert dataset["gap"].dims == ("sampling", "n", "a", "sample")
    assert dataset["gap"].dtype == np.float64
    assert dataset["beta1"].dims == ("n", "sample")
    assert len(np.unique(dataset["beta2"])) == 60
    assert (tmp_path / "phase.png").stat().st_size > 10_000
    pdf = (tmp_path / "phase.pdf").read_bytes()
    assert b"/CIDFontType2" in pdf  # embedded whole, as journals ask
    assert b"/Type3" not in pdf


@pytest.mark.parametrize(
    "problem", ["reddi", "reddi_mod3", "reddi_online", "reddi_stochastic",
                "realizable_quadratics", "nonrealizable_quadratics"]
)  # fmt: skip
def test_every_problem_runs(tmp_path, problem):
    args = [f"--problem={problem}", "--beta1=0,0.9", "--beta2=0.1,0.999", "--steps=100"]
    dataset, _ = _run(tmp_path, *args, "--sampling=cyclic")
    assert np.isfinite(dataset["gap"]).all()


def test_cells_may_have_streams_of_their_own(tmp_path):
    args = ["--n=5", "--beta1=0", "--beta2=0.5,1-0.49999999", "--sampling=with_replacement"]
    shared, _ = _run(tmp_path / "shared", *args, "--steps=500")
    own, _ = _run(tmp_path / "own", *args, "--steps=500", "--nocommon_random_numbers")
    gaps = shared["gap"].values.ravel(), own["gap"].values.ravel()
    assert abs(np.diff(gaps[0])) < 1e-4 < abs(np.diff(gaps[1]))


def test_seeds_differ_and_repeat(reference, tmp_path):
    again, _ = _run(tmp_path / "again", *SMALL, "--trajectories=0/0.1,0.5/0.9", start=_phase)
    _assert_same_bits(reference[0], again)
    other, _ = _run(tmp_path / "other", *SMALL, "--seed=1")
    gaps = [d["gap"].sel(sampling="with_replacement").values for d in (again, other)]
    assert (gaps[0] != gaps[1]).mean() > 0.9


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--beta1=0:1:5"], r"--beta1=0:1:5: values must lie in [0, 1)"),
        (["--beta2=-0.1,0.5"], "--beta2=-0.1,0.5: values must lie in [0, 1)"),
        (["--beta2=0:0.9"], "--beta2=0:0.9: not a grid"),
        (["--beta2=0:0.9:logit"], "not a grid"),
        (["--beta2=a,b"], "--beta2=a,b: not a grid"),
        (["--beta2=0:0.9:5:logit"], "not a grid"),
        (["--beta1=0.5,0.5"], "values must differ"),
        (["--n=2"], "n=2: the counterexample needs n ≥ 3"),
        (["--n=five"], "--n: 'five' is not a number"),
        (["--n=5,5"], "different entries"),
        (["--a=0"], "a=0: the counterexample needs a finite a > 0"),
        (["--a=-1/3"], "a=-1/3: the counterexample needs"),
        (["--a=1/0"], "--a: '1/0' is not a number"),
        (["--problem=reddi", "--a=1"], "only the counterexample has a parameter a"),
        (["--problem=reddi_mod3", "--n=5"], "reddi_mod3 has n=3"),
        (["--problem=reddi", "--x0=2"], "--x0=2.0: outside the feasible set"),
        (["--problem=nonsense"], "--problem=nonsense: allowed are counterexample, reddi"),
        (["--sampling=sorted"], "--sampling=sorted: allowed are cyclic"),
        (["--schedule=linear"], "--schedule=linear: allowed are constant"),
        (["--initialization=one"], "--initialization=one: allowed are zero"),
        (["--steps=0"], "flag --steps=0"),
        (["--steps=many"], "flag --steps=many"),
        (["--step_size=0"], "--step_size=0: must be above 0"),
        (["--step_size=-1"], "flag --step_size=-1"),
        (["--epsilon=-1"], "flag --epsilon=-1"),
        (["--x0=nan"], "--x0=nan: must be a finite number"),
        (["--dtype=float16"], "flag --dtype=float16"),
        (["--backend=cuda"], "--backend=cuda: allowed are auto, xla, blocks, pallas"),
        (["--backend=pallas"], "--backend=pallas: needs a GPU; JAX runs on cpu here"),
        (["--trajectories=0.5"], "--trajectories=0.5: not a point"),
        (["--trajectories=0.5/1"], "--trajectories=0.5/1: values must lie in [0, 1)"),
        (["--unknown=1"], "Unknown command line flag 'unknown'"),
        (["stray"], "unexpected argument 'stray'"),
        (["--flagfile=/nonexistent.flags"], "/nonexistent.flags"),
    ],
)
def test_bad_input_is_one_clear_line_and_writes_nothing(tmp_path, capsys, args, message):
    experiment.assert_refused(phase, tmp_path / "out", capsys, args, message)


def test_an_unwritable_folder_and_a_foreign_store_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    done = _phase(f"--out={tmp_path}/file/out", "--steps=5", "--n=5", "--beta1=0", "--beta2=0")
    assert done.returncode == 2
    assert "cannot write: Not a directory" in done.stderr
    _run(tmp_path / "a", "--steps=5", "--n=5", "--beta1=0", "--beta2=0")
    done = _here(f"--out={tmp_path}/a", "--steps=6", "--n=5", "--beta1=0", "--beta2=0")
    assert done.returncode == 2
    assert "made with --steps=5, not --steps=6" in done.stderr
    assert done.stderr.count("\n") == 1
    dataset, _ = _run(tmp_path / "a", "--steps=6", "--n=5", "--beta1=0", "--beta2=0", "--noresume")
    assert json.loads(dataset.attrs["flags"])["steps"] == 6


def test_json_goes_to_stdout_on_request(tmp_path):
    _, done = _run(
        tmp_path, "--steps=5", "--n=5", "--beta1=0", "--beta2=0,0.5", "--json=-", start=_phase
    )
    assert json.loads(done.stdout)["experiment"] == "phase"


def test_help_needs_no_heavy_import():
    code = (
        "import sys; from experiments import common, phase;"
        "status = common.run('phase', phase.__doc__, phase.FLAGS, phase.main, ['--help']);"
        "heavy = {'jax', 'matplotlib', 'xarray', 'zarr'} & set(sys.modules);"
        "sys.exit(f'{status} {heavy}' if status or heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--beta2" in done.stdout


def test_drifts_that_noise_hides_are_not_counted():
    """In random orders, up to three standard deviations of a mean over the steps."""
    drift = np.array([[[[0.1, 5.0, -5.0]]]] * 2)
    dims = ("sampling", "n", "beta1", "beta2")
    dataset = xr.Dataset(
        {"drift": (dims, drift), "diverged": (dims, drift > 1)},  # the first is wrong
        {"sampling": ["cyclic", "with_replacement"], "n": [20], "beta1": [0.0],
         "beta2": [0.1, 0.4, 0.9]},
    )  # fmt: skip
    hidden = phase_drift.hidden_by_noise(dataset, 10_000)
    assert hidden.squeeze().values.tolist() == [0.0, pytest.approx(0.6)]
    assert phase_drift.agreement(dataset, 0.01).squeeze().values.tolist() == pytest.approx(
        [2 / 3] * 2
    )
    kept = phase_drift.agreement(dataset, 0.01, hidden).squeeze().values.tolist()
    assert kept == pytest.approx([2 / 3, 1.0])


def test_integrals_that_take_too_long_are_left_out():
    """And none is, on the grids of the flagfiles."""
    table = counterexample_table(20)
    usual = np.repeat(1 - np.linspace(0, 0.99609375, 128), 128)
    for scheme in ("random_shuffling", "with_replacement"):
        assert phase_drift._too_near(usual, table, scheme) == 0
        many = np.repeat(np.geomspace(1, 1e-5, 128), 128)
        least = phase_drift._too_near(many, table, scheme)
        assert 1e-5 < least < 5e-3
        assert phase_drift._too_near(many[many > least], table, scheme) == 0
    assert phase_drift._too_near(many, table, "cyclic") == 0
