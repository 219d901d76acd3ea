"""`experiments.optimizers` end to end: contract, known thresholds, claims, bad input."""

import json
import math

import optax
import pytest
import xarray as xr

from adam_transition import problems, sampling
from adam_transition.commands import optimizers
from adam_transition.optimizers import OPTIMIZERS
from adam_transition.studies.optimizers import claims as study_claims
from adam_transition.studies.optimizers import data
from adam_transition.studies.optimizers.figures import boundaries
from adam_transition.theory import laws
from adam_transition.theory.boundary import divergence_intervals
from adam_transition.theory.rule_boundary import rule_intervals
from tests import experiment
from tests.claim_cases import assert_three_verdicts, missing, same

NAMES = "adam,radam,amsgrad,adopt,muon,lion,signum"
SMALL = (
    "--matrix_sizes=2", "--matrix_noise=1", "--default_n=5,20,100", "--random_default_n=5"
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def coarse_diagrams():
    """Fewer cells in the planes of the diagrams."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "_FIRST", data._FIRST[::4])
        patch.setattr(data, "_SECOND", data._SECOND[::4])
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory, coarse_diagrams):
    out = tmp_path_factory.mktemp("optimizers")
    flags = [f"--optimizer={NAMES}", "--n=20", "--sampling=cyclic", *SMALL, f"--out={out}"]
    assert experiment.run(optimizers, *flags) == 0
    summary = json.loads((out / "optimizers.json").read_text())
    return xr.open_zarr(out / "optimizers.zarr", consolidated=False).load(), summary, out


def test_rows_follow_the_contract(finished):
    _, summary, out = finished
    rows = {(row["optimizer"], row["a"]): row for row in summary["rows"]}
    assert len(rows) == len(NAMES.split(",")) * 2
    signum = rows["signum", 1.0]
    assert signum["hyperparameter"] == "momentum"
    assert signum["fixed"] == {}
    [[low, high]] = signum["diverges"]
    assert low == 0
    assert high == pytest.approx(laws.sign_momentum_threshold(20, 1.0), abs=1e-7)
    assert signum["diverges_at_default"] is True
    lion = rows["lion", 1.0]
    assert lion["hyperparameter"] == "beta2"
    assert lion["fixed"] == {"beta1": 0.9}
    assert lion["stderr"] == [None]  # to the end of the scan
    assert lion["diverges_at_default"] is True
    assert rows["adam", 1.0]["diverges_at_default"] is False
    assert rows["amsgrad", 1.0]["diverges"] == []
    for name in ("optimizers", *(f"optimizers_{one}" for one in ("thresholds", "muon", "adopt"))):
        assert (out / f"{name}.png").stat().st_size > 10_000


def test_defaults_are_tried_at_many_n(finished):
    _, summary, _ = finished
    rows = [row for row in summary["defaults"] if row["a"] == "1"]
    at_one = {row["optimizer"]: row["diverges"] for row in rows if row["sampling"] == "cyclic"}
    assert at_one["lion"] == [20, 100]
    assert at_one["adam"] == [100]  # 4/n² < 0.001 at β1 = 0.9 too
    assert at_one["amsgrad"] == []
    cures = {row["optimizer"]: row["cured_by"] for row in rows if row["sampling"] == "cyclic"}
    [interval] = divergence_intervals(problems.counterexample_table(100, 1.0), [0.9])[0]
    assert cures["adam"] == [pytest.approx(interval.high.beta2, abs=1e-9)]
    assert cures["lion"] == [None, None]
    expected = [laws.sign_momentum_threshold(n, 1.0) for n in (20, 100)]
    assert cures["signum"] == pytest.approx(expected, abs=1e-8)
    [row] = [
        row for row in rows if (row["optimizer"], row["sampling"]) == ("lion", "random_shuffling")
    ]
    assert row["n"] == [5]
    assert row["diverges"] == []


def test_a_given_run_again_computes_nothing(finished):
    _, summary, out = finished
    flags = [f"--optimizer={NAMES}", "--n=20", "--sampling=cyclic", *SMALL, f"--out={out}"]
    assert experiment.run(optimizers, *flags, "--nofigures") == 0
    assert json.loads((out / "optimizers.json").read_text())["rows"] == summary["rows"]


def _moved(name, by, **where):
    """A variable of one optimiser, moved."""

    def doctor(dataset):
        here = math.prod(dataset[dim] == value for dim, value in where.items())
        return dataset.assign({name: dataset[name] + by * here})

    return doctor


def test_every_claim_has_three_verdicts(finished):
    dataset, _, _ = finished
    cases = {
        "amsgrad_never_diverges": (
            same, _moved("drift", 1e9, optimizer="amsgrad"), missing("drift")
        )
    }  # fmt: skip
    cases["muon_has_a_transition"] = (
        same, _moved("beta_low", 0.1, optimizer="muon"), missing("drift")
    )  # fmt: skip
    cases["muon_has_the_closed_form_of_nesterov"] = (
        same, _moved("beta_high", 1e-3, optimizer="muon"), missing("beta_high")
    )  # fmt: skip
    cases["muon_on_a_matrix_is_muon_on_numbers"] = (
        same, _moved("fixed_threshold", 1e-3, kind="rank_one"), missing("fixed_threshold")
    )  # fmt: skip
    cases["noise_does_not_cure_muon"] = (
        same, _moved("noisy_threshold", -1), missing("noisy_threshold")
    )  # fmt: skip
    cases["muons_runs_follow_its_drift"] = (
        same, _moved("height_change", 1e3, law=0), missing("matrix_drift")
    )  # fmt: skip
    cases["adopt_climbs_for_its_s4"] = (
        same, _moved("climb", 1e3, climb_n=20), missing("climb")
    )  # fmt: skip
    cases["lion_diverges_at_its_defaults"] = (
        same, _moved("default_drift", -1e9, optimizer="lion"), missing("default_drift")
    )  # fmt: skip
    cases["sign_momentum_has_its_closed_form"] = (
        same, _moved("beta_high", 1e-4, optimizer="signum"), missing("beta_high")
    )  # fmt: skip
    cases["radam_shares_adams_threshold"] = (
        same, _moved("beta_high", 1e-4, optimizer="radam"), missing("beta_high")
    )  # fmt: skip
    assert_three_verdicts(study_claims.claims, dataset, cases)


def test_the_figure_has_a_panel_for_each_rule(finished):
    figure = boundaries(finished[0])
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert titles == NAMES.split(",")
    words = {ax.get_title(): [text.get_text() for text in ax.texts] for ax in figure.axes}
    assert words["amsgrad"] == ["never diverges"]
    assert words["signum"] == []


def own_momentum(beta=0.5, _=0.0):
    return optax.chain(optax.ema(beta), optax.scale_by_sign(), optax.scale(-1.0))


def own_adam(beta1, beta2):
    return optax.adam(1.0, beta1, beta2, eps=1e-15)


def test_a_users_rule_has_its_own_axes_and_defaults(tmp_path):
    names = "tests.test_optimizers_study:own_momentum,tests.test_optimizers_study:own_adam"
    flags = [f"--optimizer={names}", "--n=5", "--a=1", "--sampling=cyclic", "--beta1=0.5", *SMALL]
    assert experiment.run(optimizers, *flags, f"--out={tmp_path}") == 0
    momentum, adam = json.loads((tmp_path / "optimizers.json").read_text())["rows"]
    assert momentum["hyperparameter"] == "beta"
    assert momentum["fixed"] == {}
    [[low, high]] = momentum["diverges"]
    assert low == 0
    assert high == pytest.approx(laws.sign_momentum_threshold(5, 1.0), abs=1e-7)
    assert momentum["diverges_at_default"] is True
    assert adam["fixed"] == {"beta1": 0.5}
    [expected] = divergence_intervals(problems.counterexample_table(5, 1.0), [0.5])[0]
    assert adam["diverges"][-1][1] == pytest.approx(expected.high.beta2, abs=1e-5)
    assert adam["diverges_at_default"] is None


def test_a_scan_finds_the_edges_of_the_closed_form():
    table = problems.counterexample_table(20)
    [expected] = divergence_intervals(table, [0.5])[0]
    copy = OPTIMIZERS["nadam"].__class__("copy", OPTIMIZERS["adam"].rule)
    [[found], _] = rule_intervals(table, copy, 0.5)
    assert found.low.beta2 == pytest.approx(expected.low.beta2, abs=1e-8)
    assert found.high.beta2 == pytest.approx(expected.high.beta2, abs=1e-8)
    [[estimated], _] = rule_intervals(
        table, copy, 0.0, "with_replacement", key=sampling.stream_key(0)
    )  # fmt: skip
    [[exact]] = divergence_intervals(table, [0.0], "with_replacement")
    assert abs(estimated.high.beta2 - exact.high.beta2) < 4 * estimated.high.stderr
    assert estimated.high.stderr < 0.02


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--optimizer=lyon"], "--optimizer: 'lyon' is not one of"),
        (["--n=2"], "--n=2: must lie in [3, 200]"),
        (["--n=1000"], "--n=1000: must lie in [3, 200]"),
        (["--n=5:16:8"], "--n=5:16:8: at most 7 values are allowed"),
        (["--a=default,default"], "--a=default,default: needs 1 to 4 different values"),
        (["--a=1,2,3,4,5"], "--a=1,2,3,4,5: needs 1 to 4 different values"),
        (["--a=1e10"], "--a=1e+10: must lie in [1e-09, 1e+06]"),
        (["--a=1e-200"], "--a=1e-200: must lie in [1e-09, 1e+06]"),
        (["--beta1=1"], "--beta1=1: must lie in [0, 1)"),
        (["--a=-1"], "--a=-1: the counterexample needs"),
        (["--sampling=sorted"], "--sampling=sorted: allowed are"),
        (["--default_n=2,5"], "--default_n=2,5: must lie in [3, 10000]"),
        (["--random_default_n=500"], "--random_default_n=500: must lie in [3, 200]"),
        (["--matrix_sizes=1"], "--matrix_sizes=1: must lie in [2, 64]"),
        (["--matrix_noise=0"], "--matrix_noise=0: must be finite and above 0"),
        (["--n=3:200:198"], "--n=3:200:198: at most 7 values are allowed"),
    ],
)
def test_bad_input_is_one_clear_line_and_writes_nothing(tmp_path, capsys, args, message):
    experiment.assert_refused(optimizers, tmp_path / "out", capsys, args, message)
