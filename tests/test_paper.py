"""The page: every statement has claims, and a browser shows them and the figures."""

import importlib
import json
import re
from collections import Counter
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import xarray as xr

from adam_transition.commands import _flagfiles, _outputs, explorer, paper
from adam_transition.commands.paper import page
from adam_transition.commands.paper.plan import RUNS, SCALES, STATEMENTS
from adam_transition.studies import plotting
from experiments import paper_tables
from tests import browser, experiment, smoke

NAMES = ("phase", "concentration")
FINISHED = (*NAMES, "phase_reddi", "divergence", "networks", "batch_size", "finder")
"""Runs whose claims are looked at; the theorems' are too long for a test."""
FIGURES = [(run, figure) for run in RUNS if run.name in FINISHED for figure in run.captions]
_MEASURE = """({
  widths: [...document.images].map(image => image.naturalWidth),
  claims: [...document.querySelectorAll("tr.claim")].map(
    row => [row.cells[0].innerText, row.cells[3].innerText]),
  sections: [...document.querySelectorAll("h2")].map(title => [
    title.innerText, title.nextElementSibling.nextElementSibling.children.length]),
  fits: document.documentElement.scrollWidth <= innerWidth,
  broken: [...document.querySelectorAll("a[href^='#']")].map(a => a.getAttribute("href").slice(1))
    .filter(id => !document.getElementById(id)),
})"""


@pytest.fixture(scope="module")
def made():
    """The page of smoke runs, of which other tests may have made some."""
    for name in NAMES:
        smoke.finished(name)
    out = smoke.folder()
    assert experiment.run(paper, f"--out={out}", "--scale=smoke", f"--only={','.join(NAMES)}") == 0
    return out


def _summary(name):
    command = next(run.command for run in RUNS if run.name == name)
    path = smoke.finished(name) / f"{command}.json"
    return json.loads(path.read_text())


def test_claims_are_those_of_the_experiments(made):
    rows = json.loads((made / "claims.json").read_text())
    assert {row["run"] for row in rows} == set(NAMES)
    for row in rows:
        claims = {claim["id"]: claim for claim in _summary(row["run"])["claims"]}
        assert {key: row[key] for key in claims[row["id"]]} == claims[row["id"]]


def test_every_claim_has_a_statement_and_every_pattern_a_claim():
    rows = paper.rows({name: _summary(name) for name in FINISHED})  # or it raises
    claims = {f"{row['run']}:{row['id']}" for row in rows}
    for statement in STATEMENTS:  # a pattern that finds nothing is a claim that has gone
        for pattern in statement.claims:
            if pattern.partition(":")[0] in FINISHED:
                assert any(fnmatchcase(claim, pattern) for claim in claims), pattern


def test_the_summary_follows_the_contract(made):
    summary = json.loads((made / "paper.json").read_text())
    assert summary["experiment"] == "paper"
    assert len(summary["claims"]) == len(json.loads((made / "claims.json").read_text()))


def test_the_figures_stand_beside_the_page(made):
    for run, figure in FIGURES:
        if run.name in NAMES:
            copy = made / page.pdf_name(run, figure)
            assert copy.read_bytes() == (made / run.name / f"{figure}.pdf").read_bytes()


def test_the_page_needs_nothing_beside_it(made):
    text = (made / "index.html").read_text()
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    outside = {source for source in sources if not source.startswith(("data:", "#"))}
    assert outside == {"https://arxiv.org/abs/2603.02092", page.EXPLORER}
    assert "<script" not in text
    assert (made / page.EXPLORER).read_text(encoding="utf-8") == explorer.page()


def test_figures_are_fit_for_a_paper():
    """As wide as a text at most, with fonts embedded as TrueType."""
    for run, figure in FIGURES:
        content = (smoke.finished(run.name) / f"{figure}.pdf").read_bytes()
        [width] = {float(one) for one in re.findall(rb"/MediaBox \[ 0 0 ([0-9.]+) ", content)}
        assert width <= 7.05 * 72, (figure, width / 72)
        assert b"/FontFile2" in content
        assert b"/Type3" not in content


@pytest.mark.parametrize("name", sorted({*FINISHED} - {"phase_reddi", "concentration"}))
def test_figures_fit_one_column_of_a_paper(name, monkeypatch):
    """Nothing is cut off, and legends, footers and tick labels are on nothing else."""
    path = smoke.finished(name)
    command = next(run.command for run in RUNS if run.name == name)
    studies = []
    monkeypatch.setattr(_outputs, "run_study", lambda _, study, **__: studies.append(study))
    module = importlib.import_module(f"adam_transition.commands.{command}")
    assert experiment.run(module, *smoke.arguments(name)) == 0
    dataset = xr.open_zarr(path / f"{command}.zarr", consolidated=False).load()
    if command == "phase":  # as many columns as the paper has
        dataset = xr.concat([dataset] * 2, "n", data_vars="minimal")
    for figure_name, draw in studies[0].figures().items():
        with plotting.style(3.4):
            figure = draw(dataset)
            figure.dpi = 72
            figure.draw_without_rendering()
        _check_layout(figure_name, figure)


def _check_layout(name, figure):
    width, height = figure.get_size_inches()
    box = figure.get_tightbbox()
    assert width <= 3.41, name
    assert min(box.x0, box.y0) > -0.02, (name, box)
    assert box.x1 < width + 0.02, (name, box)
    assert box.y1 < height + 0.02, (name, box)
    outside = [legend.get_window_extent() for legend in figure.legends]
    if figure.get_supxlabel():
        outside.append(figure._supxlabel.get_window_extent())
    drawn = [ax.get_tightbbox() for ax in figure.axes if ax.axison]
    for i, one in enumerate(outside):
        assert not any(one.overlaps(other) for other in (*drawn, *outside[:i])), name
    labels = [
        label.get_window_extent()
        for ax in figure.axes
        for axis in (ax.xaxis, ax.yaxis)
        for label in (*_tick_labels(axis), axis.label)
        if label.get_visible() and label.get_text() and label.get_rotation() in (0, 90)
    ]
    for i, one in enumerate(labels):
        assert not any(one.overlaps(other) for other in labels[:i]), name


def _tick_labels(axis):
    low, high = sorted(axis.get_view_interval())
    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    return [tick.label1 for tick in ticks if low <= tick.get_loc() <= high]


def test_every_figure_is_shown_under_one_statement():
    shown = [figure for statement in STATEMENTS for figure in statement.figures]
    assert sorted(shown) == sorted(f"{run.name}/{one}" for run in RUNS for one in run.captions)


@browser.needed
@pytest.mark.parametrize("width", [1100, 700])
def test_a_browser_shows_the_page(made, tmp_path, width):
    text = (made / "index.html").read_text(encoding="utf-8")
    found = browser.evaluate(text, _MEASURE, tmp_path, width=width)
    rows = json.loads((made / "claims.json").read_text())
    assert found["claims"] == [[row["statement"].strip(), row["verdict"]] for row in rows]
    counts = Counter(row["statement_title"] for row in rows)
    assert found["sections"] == [[s.title, counts[s.title]] for s in STATEMENTS if counts[s.title]]
    assert len(found["widths"]) == sum(run.name in NAMES for run, _ in FIGURES)
    assert min(found["widths"]) > 300
    assert found["fits"]
    assert found["broken"] == []


def test_text_is_escaped_and_numbers_that_are_missing_are_said():
    row = {
        "id": "x", "run": "phase", "statement": "a < b & c", "statement_title": "Sign-SGD",
        "expected": ">= 1", "measured": None, "uncertainty": 0.0, "verdict": "inconclusive",
        "reference": "Theorem 3.1",
    }  # fmt: skip
    text = page.render([], {"phase": {"version": "1"}}, [row], scale="laptop", folder=Path())
    assert "a &lt; b &amp; c" in text
    assert ">none<" in text
    assert "not evidence" not in text


@pytest.mark.parametrize("scale", SCALES)
def test_every_run_has_its_flagfile(scale):
    for run in RUNS:
        assert run.flagfile_name(scale) in _flagfiles.names()


def test_a_claim_without_a_statement_is_an_error():
    summary = {"phase": {"claims": [{"id": "x"}]}, "networks": {"claims": []}}
    assert paper.rows(summary)[0]["statement_title"] == "Phase transition"
    with pytest.raises(ValueError, match="divergence:unheard_of belongs to no statement"):
        paper.rows({"divergence": {"claims": [{"id": "unheard_of"}]}})


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--only=phase,figure"], "--only=figure: allowed are phase, published"),
        (["--only=advise"], "--only=advise: needs batch_size"),
        (["--scale=huge"], "smoke|laptop|gpu"),
    ],
)
def test_bad_input_is_one_clear_line_and_writes_nothing(tmp_path, capsys, args, message):
    experiment.assert_refused(paper, tmp_path / "out", capsys, args, message)


def test_a_run_that_fails_is_named(tmp_path, capsys):
    (tmp_path / "phase").write_text("in the way")
    assert experiment.run(paper, f"--out={tmp_path}", "--scale=smoke", "--only=phase") == 2
    assert "phase ended with status 2; run again" in capsys.readouterr().err
    assert not (tmp_path / "index.html").exists()


def test_a_summary_from_elsewhere_brings_no_markup():
    """Every field of a claim and of a summary, in the page and in the table of the docs."""
    bad = "<script>alert(1)</script>|[x](javascript:1)`\n# y"
    row = dict.fromkeys(
        ("id", "run", "statement", "expected", "verdict", "reference"), bad
    ) | {"statement_title": "Sign-SGD", "measured": 1.0, "uncertainty": 0.0}  # fmt: skip
    text = page.render([], {"phase": {"version": bad}}, [row], scale="smoke", folder=Path())
    assert "<script" not in text
    table = paper_tables.page({"scale": bad, "version": bad, "minutes": 1.0, "rows": [row]})
    assert "<script" not in table
    assert "[x]" not in table
    [line] = [line for line in table.splitlines() if "alert" in line and line.startswith("| ")]
    assert len(re.findall(r"(?<!\\)\|", line)) == 7
