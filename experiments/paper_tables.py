"""The claims as Markdown, from a finished `experiments.paper`: nothing in them is typed by hand.

Keeps the rows in docs/results.json, and writes docs/results.md from them.

    python -m experiments.paper_tables out/paper
"""

import html
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adam_transition.commands._outputs import write_text
from adam_transition.commands.paper.page import by_statement, number

ROOT = Path(__file__).parent.parent
KEPT = ROOT / "docs" / "results.json"
PAGE = ROOT / "docs" / "results.md"


def collect(folder: Path) -> dict[str, Any]:
    """What is kept of a run of `experiments.paper`."""
    summary = json.loads((folder / "paper.json").read_text(encoding="utf-8"))
    return {
        "version": summary["version"],
        "scale": summary["flags"]["scale"],
        "minutes": round(summary["wall_time_s"] / 60, 1),
        "rows": json.loads((folder / "claims.json").read_text(encoding="utf-8")),
    }


def table_of_counts(rows: Sequence[Mapping[str, Any]]) -> str:
    """How many claims of each statement have which verdict."""
    from adam_transition.sweeps.claims import VERDICTS

    verdicts = [verdict for family in VERDICTS for verdict in family]
    lines = [
        f"| statement | where | {' | '.join(verdicts)} |",
        "| --- " * (2 + len(verdicts)) + "|",
    ]
    for statement, found in by_statement(rows):
        counts = Counter(row["verdict"] for row in found)
        shown = " | ".join(str(counts[verdict] or "") for verdict in verdicts)
        lines.append(f"| {statement.title} | {statement.where} | {shown} |")
    return "\n".join(lines) + "\n"


def page(kept: Mapping[str, Any]) -> str:
    """Every claim with its number, as a page of the documentation."""
    lines = [
        "# Results",
        "",
        f"Every claim of `experiments.paper --scale={_cell(kept['scale'])}`, version "
        f"{_cell(kept['version'])}, "
        f"{kept['minutes']:.0f} minutes on two cores. Verdicts are computed from measured ± "
        "uncertainty. What the paper or another source states is reproduced, not reproduced or "
        "inconclusive; what we state holds, fails or is open. The paper is known to us from a "
        "transcription, without its appendix and its constants.",
        "",
        *table_of_counts(kept["rows"]).splitlines(),
    ]
    for statement, found in by_statement(kept["rows"]):
        lines += ["", f"## {statement.title}", "", f"*{statement.where}.* {statement.text}", ""]
        lines += [
            "| claim | source | expected | measured | verdict | run |",
            "| --- | --- | --- | --- | --- | --- |",
        ]
        lines += [
            f"| {_cell(row['statement'])} | {_cell(row['reference'])} "
            f"| {_cell(row['expected'])} | {_cell(number(row))} "
            f"| {_cell(row['verdict'])} | {_cell(row['run'])} |"
            for row in found
        ]
    return "\n".join(lines) + "\n"


def main(folder: Path) -> None:
    """Writes both."""
    kept = collect(folder)
    write_text(KEPT, json.dumps(kept, indent=1, ensure_ascii=False) + "\n")
    write_text(PAGE, page(kept))


def _cell(text: object) -> str:
    """A cell of a table: on one line, and nothing in it is HTML, a link, code or another cell."""
    plain = html.escape(" ".join(str(text).split()), quote=False)
    return plain.replace("[", "&#91;").replace("`", "&#96;").replace("|", "\\|")


if __name__ == "__main__":
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "paper.json").is_file():
        sys.exit("usage: python -m experiments.paper_tables FOLDER, the --out of experiments.paper")
    main(Path(sys.argv[1]))
