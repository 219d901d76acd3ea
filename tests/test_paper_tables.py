"""What the documentation says of the claims is what a run of `experiments.paper` found."""

import json

from adam_transition.commands.paper.plan import RUNS, STATEMENTS
from experiments import paper_tables

KEPT = json.loads(paper_tables.KEPT.read_text(encoding="utf-8"))


def test_the_page_is_that_of_the_kept_rows():
    assert paper_tables.PAGE.read_text(encoding="utf-8") == paper_tables.page(KEPT)


def test_a_laptop_has_found_something_about_every_statement():
    assert KEPT["scale"] == "laptop"
    assert {row["run"] for row in KEPT["rows"]} == {run.name for run in RUNS}
    assert {row["statement_title"] for row in KEPT["rows"]} == {s.title for s in STATEMENTS}


def test_verdicts_are_counted():
    rows = [
        {"statement_title": "Sign-SGD", "verdict": verdict}
        for verdict in ("reproduced", "reproduced", "not reproduced")
    ]
    *_, line = paper_tables.table_of_counts(rows).splitlines()
    assert [cell.strip() for cell in line.split("|")[3:-1]] == ["2", "1", "", "", "", ""]


def test_a_run_is_kept_and_written(tmp_path, monkeypatch):
    row = {
        "statement_title": "Advice", "statement": "|x|", "reference": "us", "expected": "1",
        "measured": 1.25,
        "uncertainty": 0.5, "verdict": "inconclusive", "run": "advise",
    }  # fmt: skip
    (tmp_path / "claims.json").write_text(json.dumps([row]))
    summary = {"version": "1", "flags": {"scale": "smoke"}, "wall_time_s": 90}
    (tmp_path / "paper.json").write_text(json.dumps(summary))
    for name in ("KEPT", "PAGE"):
        monkeypatch.setattr(paper_tables, name, tmp_path / name)
    paper_tables.main(tmp_path)
    assert json.loads((tmp_path / "KEPT").read_text())["minutes"] == 1.5
    assert (
        "| \\|x\\| | us | 1 | 1.25 ± 0.5 | inconclusive | advise |"
        in (tmp_path / "PAGE").read_text()
    )
    assert "| Advice | Section 7 |" in (tmp_path / "PAGE").read_text()
