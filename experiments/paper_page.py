"""The page of `experiments.paper`: one file that needs no network, its images inside."""

import base64
import html
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.paper_plan import STATEMENTS, Run, Scale

_STYLE = """
:root { color-scheme: light }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h2 { margin-top: 3rem; border-top: 1px solid #ccc; padding-top: 1rem }
#claims { overflow-x: auto }
table { border-collapse: collapse; width: 100%; font-size: .9rem }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem }
tr { border-bottom: 1px solid #ddd }
tbody th { background: #f4f4f4 } tbody th small { font-weight: normal }
td.number { white-space: nowrap; font-variant-numeric: tabular-nums }
.verdict { white-space: nowrap; padding: .1rem .5rem; border-radius: .6rem; border: 1px solid #666 }
.reproduced { background: #cfe8f7 } .not-reproduced { background: #f9d2b0; font-weight: bold }
.beyond-the-paper { background: #e4dcf4 } .inconclusive { background: #fff }
figure { margin: 1.5rem 0 } img { max-width: 100%; height: auto } figcaption { color: #444 }
pre { background: #f4f4f4; padding: .6rem; overflow-x: auto }
"""


def render(
    runs: Sequence[Run],
    summaries: Mapping[str, Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    *,
    scale: Scale,
    folder: Path,
) -> str:
    """The page as HTML.

    Args:
      runs: what was run, in order.
      summaries: the summary of each run, by name.
      rows: the claims with their statement and run (`experiments.paper.rows`).
      scale: of the runs.
      folder: where the runs' folders are, with their figures.
    """
    counts = Counter(row["verdict"] for row in rows)
    shown = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    version = next(iter(summaries.values()))["version"]
    seconds = sum(summary.get("wall_time_s") or 0 for summary in summaries.values())
    note = "A smoke run shows that every part works; its numbers are not evidence."
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>The phase transition of Adam</title><style>{_STYLE}</style></head><body>",
            "<h1>For which (β1, β2) does plain Adam converge?</h1>",
            "<p>Every statement of <em>Adam Converges Without Any Modification On Update Rules</em>"
            ' (<a href="https://arxiv.org/abs/2603.02092">arXiv:2603.02092</a>) beside what this '
            "project measures. Verdicts are computed from measured ± uncertainty.</p>",
            f"<p>adam_transition {_text(version)}, scale {scale}, {seconds / 60:.1f} minutes. "
            f"{note if scale == 'smoke' else ''}</p>",
            f'<p id="counts">{len(rows)} claims: {_text(shown)}.</p>',
            _table(rows),
            *(_section(run, summaries[run.name], rows, scale, folder) for run in runs),
            "</body></html>",
        ]
    )


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        '<div id="claims"><table><thead><tr><th>claim</th><th>expected</th><th>measured</th>'
        "<th>verdict</th><th>how</th></tr></thead><tbody>"
    ]
    for statement in STATEMENTS:
        found = [row for row in rows if row["statement_title"] == statement.title]
        if not found:
            continue
        lines.append(
            f'<tr><th colspan="5">{_text(statement.title)} <small>· {_text(statement.where)} · '
            f"{_text(statement.text)}</small></th></tr>"
        )
        lines += [
            f'<tr class="claim" id="{_text(row["run"])}-{_text(row["id"])}">'
            f"<td>{_text(row['statement'])}</td><td>{_text(row['expected'])}</td>"
            f'<td class="number">{_number(row)}</td>'
            f'<td><span class="verdict {row["verdict"].replace(" ", "-")}">{row["verdict"]}</span>'
            f'</td><td><a href="#{_text(row["run"])}">{_text(row["run"])}</a></td></tr>'
            for row in found
        ]
    return "\n".join([*lines, "</tbody></table></div>"])


def _section(
    run: Run,
    summary: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    scale: Scale,
    folder: Path,
) -> str:
    count = sum(row["run"] == run.name for row in rows)
    chosen = "".join(f"<li>{_text(line)}</li>" for line in run.chosen)
    seconds = summary.get("wall_time_s")
    took = f", {seconds:.0f} s" if seconds else ""
    figures = [
        f'<figure><img alt="{_text(caption)}" src="data:image/png;base64,'
        f'{base64.b64encode((folder / run.name / f"{name}.png").read_bytes()).decode()}">'
        f"<figcaption>{_text(caption)}</figcaption></figure>"
        for name, caption in run.captions.items()
    ]
    return "\n".join(
        [
            f'<h2 id="{run.name}">{_text(run.title)}</h2>',
            f'<p>{count} claims in <a href="#claims">the table</a>{took}. Again:</p>',
            f"<pre>python -m {run.module} --flagfile={run.flagfile(scale)}</pre>",
            *figures,
            f"<p>What we had to choose:</p><ul>{chosen}</ul>" if chosen else "",
        ]
    )


def _number(row: Mapping[str, Any]) -> str:
    if row["measured"] is None:
        return "none"
    error = f" ± {row['uncertainty']:.2g}" if row["uncertainty"] else ""
    return f"{row['measured']:.5g}{error}"


def _text(text: object) -> str:
    return html.escape(str(text))
