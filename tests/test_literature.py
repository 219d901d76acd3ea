"""The scoreboard of the literature: its numbers against others, its verdicts, its page."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from adam_transition import problems
from adam_transition.commands import literature
from adam_transition.studies.literature import measurements
from adam_transition.studies.literature.claims import claims
from adam_transition.studies.literature.entries import ENTRIES, UNTESTED
from adam_transition.studies.literature.page import page
from adam_transition.sweeps.claims import VERDICTS
from adam_transition.theory.boundary import divergence_intervals
from adam_transition.theory.laws import sign_momentum_threshold
from tests import experiment
from tests.claim_cases import assert_three_verdicts

PAGE = Path("docs/literature.md")


def test_thresholds_are_those_known():
    """Of Reddi's 101 slopes and of Shi's example, from independent sources."""
    assert measurements.reddi_threshold(0.99).value == pytest.approx(0.99952, abs=5e-6)
    assert measurements.reddi_threshold(0.9996).value == 0  # beyond it
    assert measurements.shi_threshold().value == pytest.approx(0.9554, abs=5e-5)
    # the period has no beginning: two in a row may stand anywhere, but not apart
    two = measurements.shi_threshold((0, 1)).value
    assert measurements.shi_threshold((4, 5)).value == pytest.approx(two, abs=1e-9)
    assert measurements.shi_threshold((0, 5)).value < 0.5
    assert 0.63 < two < 0.64


def test_as_many_cells_of_the_diagram_are_left_out_as_the_statement_says():
    _, crosses = measurements.shi_drift()
    [entry] = [entry for entry in ENTRIES if entry.id == "shi_diagram"]
    assert f"{crosses.size} cells" in entry.statement
    assert f"for {(~crosses).sum()} whose" in entry.statement


def test_the_bias_is_that_of_first_order():
    """With replacement at β1 = 0: ½(1−β2)κ3/σ² with κ3/σ² = 0.6 for one centre of five, over B."""
    for size in (1, 2, 3):
        found = measurements.bias("with_replacement", 1e-4, size)
        assert found == pytest.approx(0.3e-4 / size, rel=1e-3), size


def test_equal_betas_diverge_below_the_boundary_of_their_row():
    assert measurements.equal_betas_drift().value > 0
    table = problems.counterexample_table(20, 1.0)
    [[interval]] = divergence_intervals(table, [0.95], "with_replacement")
    assert interval.low.beta2 < 0.95 < interval.high.beta2


def test_rules_have_their_known_thresholds():
    assert measurements.adopt_threshold().value == 0
    found = measurements.muon_threshold().value
    assert found == pytest.approx(sign_momentum_threshold(20, 1.0, nesterov=True), abs=1e-6)


def test_the_batch_law_is_linear_where_it_should_be():
    measured = measurements.threshold_exponent_of_batch()
    assert 1 < measured.value < 1.04  # the next order bends it upwards


@pytest.mark.parametrize("power", [4, 6])
def test_the_stable_regime_has_the_published_border_and_no_other(power):
    assert measurements.stable_share(power).value > 0.99
    beta = np.linspace(0.01, 0.99, 50)  # the same runs against a border that is a little off
    with jax.enable_x64(True):
        stable = ~np.asarray(measurements._has_crossed(power, jnp.asarray(1 - beta)))
    beta1, beta2 = np.meshgrid(beta, beta, indexing="ij")
    exponent = power / (2 * (power - 2))
    for factor in (0.9, 1.1):
        assert (stable == (beta1 < beta2 ** (factor * exponent))).mean() < 0.99


def test_ids_are_unique_and_rows_say_what_and_where():
    ids = [entry.id for entry in ENTRIES]
    assert len(set(ids)) == len(ids)
    for entry in ENTRIES:
        assert entry.statement.endswith(")"), entry.id  # what is measured
        assert (entry.equals is not None) == (entry.tolerance > 0)
    assert all(row.reason.endswith(".") for row in UNTESTED)


def _inside(entry):
    if entry.equals is not None:
        return entry.equals
    ends = [end for end in (entry.at_least, entry.at_most) if np.isfinite(end)]
    return float(np.mean(ends))


def test_every_claim_has_three_verdicts():
    dataset = xr.Dataset(
        {
            "measured": ("row", [_inside(entry) for entry in ENTRIES]),
            "uncertainty": ("row", np.zeros(len(ENTRIES))),
        },
        coords={"row": ("row", np.array([entry.id for entry in ENTRIES], dtype=object))},
    )

    def off(by):
        return lambda data: data.assign(measured=data["measured"] + by)

    cases = {}
    for entry in ENTRIES:
        wrong = -1.0 if np.isfinite(entry.at_least) or entry.equals is not None else 1.0
        cases[entry.id] = (off(0.0), off(wrong), off(np.nan))
    assert_three_verdicts(claims, dataset, cases)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("literature")
    flags = ["--flagfile=experiments/flagfiles/smoke/literature.flags", f"--out={out}"]
    assert experiment.run(literature, *flags) == 0
    return out


def test_the_summary_the_page_and_the_figure(finished):
    summary = json.loads((finished / "literature.json").read_text())
    found = {claim["id"]: claim["verdict"] for claim in summary["claims"]}
    assert found == {
        "shi_stated": "not reproduced",
        "shi_two_large": "holds",
        "symmetry_rate": "reproduced",
        "equal_betas": "holds",
    }
    assert len(summary["untested"]) == len(UNTESTED)
    dataset = xr.open_zarr(finished / "literature.zarr", consolidated=False).load()
    text = (finished / "literature.md").read_text(encoding="utf-8")
    assert text == page(claims(dataset))
    assert "| 0.955443 | **not reproduced** |" in text
    assert (finished / "literature.png").stat().st_size > 10_000


def test_the_page_of_the_documentation_has_every_row():
    """`python -m experiments.literature` writes it; numbers are its own."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")]
    verdicts = {f"**{verdict}**" for family in VERDICTS for verdict in family}
    tested = {(source, statement) for source, statement, *_, last in rows if last in verdicts}
    assert tested == {(entry.source, entry.statement) for entry in ENTRIES}
    assert {row.source for row in UNTESTED} <= {source for source, *_ in rows}


def test_the_numbers_of_the_page_are_measured_again(finished):
    """Those of the smoke run: the page has its lines."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    fresh = (finished / "literature.md").read_text(encoding="utf-8").splitlines()
    tested = [line for line in fresh if "**" in line]
    assert len(tested) == 4
    assert set(tested) <= set(lines)


def test_a_row_that_does_not_exist_is_named(tmp_path, capsys):
    experiment.assert_refused(
        literature, tmp_path / "out", capsys, ["--only=moon"], "--only=moon: allowed are"
    )
