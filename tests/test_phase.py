"""`experiments.phase` end to end: contract, bits, kill and resume, every documented error."""

import contextlib
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from adam_transition import adam
from adam_transition.commands import phase
from adam_transition.problems.constructions import counterexample_table
from adam_transition.studies.phase import diagram
from adam_transition.studies.phase import drift as phase_drift
from adam_transition.studies.phase.figures import draw_phase_diagram
from adam_transition.theory.stationary_drift import stationary_drift
from tests import experiment

SMALL = ["--n=5,20", "--beta1=0:0.9:6", "--beta2=0:0.96:9", "--steps=3000"]
VARIABLES = ("gap", "late_gap", "speed", "speed_error", "diverged", "undecided", "underflowed")


def _phase(*args):
    """The command, in a process of its own."""
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
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


def _run(out, *args, start=_here, figures=False):
    done = start(f"--out={out}", f"--figures={figures}", *args)
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
    out = tmp_path_factory.mktemp("phase")
    return _run(out, *SMALL, "--trajectories=0/0.1,0.5/0.9", figures=True)


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


@pytest.mark.parametrize("cells", [7, 54])
def test_bits_do_not_depend_on_chunks(reference, tmp_path, cells):
    """Nor on devices and processes: tests/test_processes.py."""
    args = *SMALL, "--trajectories=0/0.1,0.5/0.9", f"--chunk_cells={cells}"
    dataset, _ = _run(tmp_path, *args)
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
        [sys.executable, "-m", "experiments.phase", f"--out={out}", "--nofigures", *args],
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
    dataset, _ = _run(
        tmp_path, *args, start=_phase, figures=True
    )  # float64 is a setting of a whole process
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


def test_the_large_slope_is_a_flag(tmp_path):
    """C = 15 in period 3, β1 = 0: the exact threshold is β2 = 0.0592."""
    args = ["--problem=reddi_mod3", "--C=15", "--beta1=0", "--beta2=0.03,0.05,0.07,0.09"]
    dataset, done = _run(tmp_path, *args, "--sampling=cyclic", "--x0=0", "--steps=20000")
    assert dataset["diverged"].values.ravel().tolist() == [True, True, False, False]
    assert not dataset["undecided"].any()
    np.testing.assert_array_equal(dataset["drift"] > 0, dataset["diverged"])
    summary = json.loads((tmp_path / "phase.json").read_text())
    assert {c["id"] for c in summary["claims"]} >= {"sign_of_drift", "verdicts_decided"}
    assert all(c["measured"] == 1 for c in summary["claims"] if "decided" in c["id"])
    assert "has the sign of the stationary drift" in done.stdout


def test_every_a_is_drawn_and_what_is_not_claimed_is_said(tmp_path):
    args = ["--n=20", "--a=1/361,1", "--beta1=0:0.9:4", "--beta2=0.5:0.999:9:logit"]
    dataset, done = _run(tmp_path, *args, "--sampling=cyclic", "--steps=5000")
    panels = [ax for ax in draw_phase_diagram(dataset).axes if ax.get_label() != "<colorbar>"]
    assert [ax.get_ylabel() for ax in panels] == [
        "cyclic,\n$a = 0.00277$\n$1 - \\beta_2$", "cyclic,\n$a = 1$\n$1 - \\beta_2$"
    ]  # fmt: skip
    assert all(ax.get_yscale() == "log" for ax in panels)
    heights = [ax.collections[0].get_array() for ax in panels]
    assert not np.array_equal(*heights)
    assert "the paper's claims are about a = 1/(n-1)^2" in done.stdout


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--problem=realizable_quadratics"], "no drift to compare verdicts with: its gradients"),
        (["--n=5", "--random_cells=3"], "no claims: they are about a grid"),
        (["--n=5", "--x0=-1.9"], "--x0=-1.9 is within 10 steps of the minimiser"),
        (["--n=5", "--beta2=0.5"], "a single beta2 has no boundary"),
    ],
)
def test_without_a_claim_a_line_says_why(tmp_path, args, line):
    given = ["--beta1=0,0.9", "--beta2=0.1,0.9", "--steps=200", "--sampling=cyclic", *args]
    _, done = _run(tmp_path, *given)
    assert line in done.stdout
    assert "sign of the stationary drift" not in done.stdout


def test_the_figure_tells_settings_start_and_undecided_runs(reference):
    dataset, _ = reference
    figure = draw_phase_diagram(dataset)
    assert "T = 3\\,000" in figure.get_supxlabel()
    assert "counterexample" in figure.get_supxlabel()
    bar = next(ax for ax in figure.axes if ax.get_label() == "<colorbar>")
    assert [text.get_text() for text in bar.texts] == ["start"]
    assert dataset.attrs["start_distance"] == 3
    drawn = [text.get_text() for text in figure.legends[0].get_texts()]
    assert ("undecided" in drawn) == bool(dataset["undecided"].any())


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
        (["--problem=reddi", "--a=1"], "a=1: reddi has none; only counterexample has it"),
        (["--a=1e-400"], "--a=1e-400: float32 holds no number of this size"),
        (["--a=1e-60"], "--a=1e-60: float32 holds no number of this size"),
        (["--a=1e39"], "--a=1e39: float32 holds no number of this size"),
        (["--a=1e400"], "--a=1e400: float32 holds no number of this size"),
        (["--a=1e99999999"], "--a=1e99999999: float32 holds no number of this size"),
        (["--a=nan"], "--a=nan: float32 holds no number of this size"),
        (["--C=5"], "--C=5: counterexample has none; only reddi, reddi_mod3, reddi_online"),
        (["--problem=reddi_mod3", "--C=2"], "--C=2: the mod-3 example needs C > 2"),
        (["--problem=reddi_mod3", "--C=many"], "--C: 'many' is not a number"),
        (["--problem=reddi_online", "--small=20"], "must be above (n − 1)·small = 2000"),
        (["--problem=reddi", "--dimension=2"], "--dimension=2: reddi has none; only realizable"),
        (["--problem=realizable_quadratics", "--dimension=0"], "--dimension=0: must be an integer"),
        (["--n=3000000000"], "--n=3000000000: must be below 2^31 in size"),
        (["--x0=-2"], "--x0=-2.0: must not be the minimiser of counterexample"),
        (["--x0=-2.00000001"], "must not be the minimiser of counterexample"),
        (["--problem=reddi", "--x0=-1"], "--x0=-1.0: must not be the minimiser of reddi"),
        (["--x0=1e300"], "--x0=1e+300: float32 holds 0 and sizes from"),
        (["--x0=1e-400"], "--x0=1e-400: a double cannot hold it: it would be 0"),
        (["--beta1=0,1e-400"], "--beta1=0,1e-400: not a grid"),
        (["--n=3:100000:100000"], "299994 planes; at most 10000 are allowed"),
        (["--beta2=" + ",".join(map(str, range(3000)))], "…(13898 characters)…"),
        (["--step_size=1e39"], "--step_size=1e+39: float32 holds"),
        (["--step_size=1e-60"], "--step_size=1e-60: float32 holds"),
        (["--epsilon=1e39"], "--epsilon=1e+39: float32 holds"),
        (["--trajectories=0/0.5,0/.5"], "--trajectories=0/0.5,0/.5: needs different points"),
        (["--trajectories=" + ",".join(f"0/0.{i:03}" for i in range(22))], "at most 21"),
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
        "import sys; from adam_transition.commands import phase;"
        "status = phase.COMMAND.run(['--help']);"
        "heavy = {'jax', 'matplotlib', 'xarray', 'zarr'} & set(sys.modules);"
        "sys.exit(f'{status} {heavy}' if status or heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--beta2" in done.stdout


def _dataset(drift, diverged, undecided, beta2):
    dims = ("sampling", "n", "beta1", "beta2")
    shape = (1, 1, *np.shape(drift))
    return xr.Dataset(
        {
            name: (dims, np.reshape(values, shape))
            for name, values in {
                "drift": np.asarray(drift, float), "diverged": np.asarray(diverged, bool),
                "undecided": np.asarray(undecided, bool),
            }.items()
        },
        {"sampling": ["cyclic"], "n": [20], "beta1": np.arange(len(drift)) / 10, "beta2": beta2},
    )  # fmt: skip


def test_agreement_counts_cells_away_from_the_boundary():
    """The drift crosses 0 at 0.45 and is unknown at 0.8; one verdict is wrong, one undecided."""
    drift = [[3.0, 2.0, -2.0, -3.0, np.nan]]
    diverged, undecided = [[0, 1, 0, 0, 1]], [[0, 0, 0, 1, 0]]
    dataset = _dataset(drift, diverged, undecided, [0.1, 0.4, 0.5, 0.6, 0.8])
    distance = phase_drift.boundary_distance(dataset)
    np.testing.assert_allclose(distance.squeeze()[:4], [0.35, 0.05, 0.05, 0.15])
    for beyond, counted, agree, disagree, open_ in (
        (0.0, 4, 2 / 4, 1 / 4, 1 / 4),
        (0.06, 2, 0, 1 / 2, 1 / 2),
        (0.2, 1, 0, 1, 0),
    ):
        found = phase_drift.compare(dataset, beyond, distance)
        assert found["counted"].item() == counted
        assert found["agree"].item() == pytest.approx(agree)
        assert found["disagree"].item() == pytest.approx(disagree)
        assert found["undecided"].item() == pytest.approx(open_)
        assert phase_drift.agreement(dataset, beyond).item() == pytest.approx(agree)


def test_the_distance_is_that_to_the_nearest_crossing():
    """Against a search over all crossings, on random drifts with gaps."""
    rng = np.random.default_rng(0)
    beta2 = np.sort(rng.random(40))
    drift = rng.normal(size=(30, 40)).cumsum(axis=1)
    drift[rng.random(drift.shape) < 0.2] = np.nan
    drift[0] = np.abs(drift[0]) + 1  # no crossing
    found = phase_drift.boundary_distance(_dataset(drift, drift > 0, drift > 9, beta2))
    for row, distances in zip(drift, found.values[0, 0], strict=True):
        known = np.flatnonzero(~np.isnan(row))
        crossings = []
        for i, j in itertools.pairwise(known):
            if (row[i] > 0) != (row[j] > 0):
                at = beta2[i] + (beta2[j] - beta2[i]) * row[i] / (row[i] - row[j])
                crossings.append((at, at) if j == i + 1 else (beta2[i], beta2[j]))
        for k in known:
            expected = min(
                (max(low - beta2[k], beta2[k] - high, 0) for low, high in crossings), default=np.inf
            )
            assert distances[k] == pytest.approx(expected, abs=1e-12)


def test_agreement_takes_time_in_proportion_to_the_cells():
    """A million cells, long in β2 where a search for every cell would take minutes."""
    beta2 = np.linspace(0, 0.999, 20_000)
    drift = np.broadcast_to(np.cos(40 * beta2), (50, 20_000))
    dataset = _dataset(drift, drift > 0, drift > 9, beta2)
    started = time.process_time()
    assert phase_drift.agreement(dataset, 0.01).item() == 1
    assert time.process_time() - started < 10


@pytest.mark.parametrize("scheme", ["cyclic", "random_shuffling", "with_replacement"])
def test_a_drift_that_is_not_computed_stays_at_its_own_cell(scheme):
    """β2 = 1 − 1e-10 is too near to 1 for the random orders; its neighbours are known."""
    settings = {"problem": "counterexample", "num_components": (20,), "samplings": (scheme,)}
    beta1 = np.array([0.0, 0.5])
    near = diagram.PhaseDiagram(beta1=beta1, beta2=np.array([0.5, 0.9, 1 - 1e-10]), **settings)
    alone = diagram.PhaseDiagram(beta1=beta1, beta2=np.array([0.5, 0.9]), **settings)
    table = counterexample_table(20)
    found, expected = (phase_drift.drift_of_cells(s, scheme, 0, table).drift for s in (near, alone))
    np.testing.assert_array_equal(found[:, :2], expected)
    assert np.isnan(found[:, 2]).all() == (scheme != "cyclic")


def test_interpolation_keeps_to_what_is_known(monkeypatch):
    monkeypatch.setattr(phase_drift, "_POINTS_OF_RANDOM_DRIFT", 9)
    beta2 = np.append(np.linspace(0.2, 0.9, 30), 1 - 1e-10)
    spec = diagram.PhaseDiagram("counterexample", (20,), ("with_replacement",), np.zeros(1), beta2)
    table = counterexample_table(20)
    found = phase_drift.drift_of_cells(spec, "with_replacement", 0, table).drift[0]
    hyper = adam.Hyperparameters(1.0, 1 - beta2[:-1])
    exact = stationary_drift(table, hyper, "with_replacement").drift[:, 0]
    assert np.isnan(found[-1])
    np.testing.assert_allclose(found[:-1], exact, atol=0.1)
    np.testing.assert_allclose(found[[0, 29]], exact[[0, 29]], rtol=1e-12)


@pytest.mark.parametrize("beta", [0.9999, 1 - 1e-4])
def test_a_limit_holds_for_the_number_as_it_is_typed(beta):
    """1 − 0.9999 is a rounding below 1e-4, the least for an estimate."""
    table = np.array([[2.0], [0.0], [-1.0]])  # a zero: estimated
    spec = diagram.PhaseDiagram(
        "counterexample", (3,), ("with_replacement",), np.zeros(1), np.array([0.5, beta])
    )
    assert np.isfinite(phase_drift.drift_of_cells(spec, "with_replacement", 0, table).drift).all()


def test_an_estimate_that_needs_too_much_memory_is_left_out():
    table = np.linspace(1, 2, 20_000)[:, None]  # no two values alike: estimated
    spec = diagram.PhaseDiagram(
        "counterexample", (20_000,), ("random_shuffling",), np.zeros(1), np.array([0.5, 0.99])
    )
    found = phase_drift.drift_of_cells(spec, "random_shuffling", 0, table)
    assert np.isnan(found.drift).all()


def test_the_boundary_beside_a_diagram_has_its_epsilon():
    """Cyclic, ε = 0.3: the mean of m/(√v + ε) over the last epochs of a long run in NumPy."""
    table, beta1, beta2, epsilon = counterexample_table(20), 0.3, 0.5, 0.3
    m = v = 0.0
    ratios = []
    for k in range(40 * 20):
        g = table[k % 20, 0]
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        ratios.append(m / (np.sqrt(v) + epsilon))
    spec = diagram.PhaseDiagram(
        "counterexample", (20,), ("cyclic",), np.array([beta1]), np.array([beta2]), epsilon=epsilon
    )
    found = phase_drift.drift_of_cells(spec, "cyclic", 0, table).drift
    assert found.item() == pytest.approx(-np.sum(ratios[-20:]), rel=1e-9)


def test_integrals_that_take_too_long_are_left_out():
    """And none is, on the grids of the flagfiles."""
    table = counterexample_table(20)
    usual = np.repeat(1 - np.linspace(0, 0.99609375, 128), 128)
    for scheme in ("random_shuffling", "with_replacement"):
        assert phase_drift._too_near(usual, table, scheme) == 0
    many = np.repeat(np.geomspace(1, 1e-5, 128), 128)
    halves = np.repeat([[2.0], [-1.0]], 60, axis=0)  # 61² states
    least = phase_drift._too_near(many, halves, "random_shuffling")
    assert 1e-5 < least < 0.1
    assert phase_drift._too_near(many[many > least], halves, "random_shuffling") == 0
    assert phase_drift._too_near(many, table, "cyclic") == 0
