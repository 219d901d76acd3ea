"""The page of `experiments.paper`: one self-contained file with its images embedded."""

import base64
import html
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adam_transition.commands.paper.plan import STATEMENTS, Run, Scale, Statement

EXPLORER = "explorer.html"
"""The page in the same folder (`experiments.explorer`)."""

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
.inconclusive, .open { background: #fff } .holds { background: #e4dcf4 }
.fails { background: #f6e3ea; font-weight: bold }
figure { margin: 1.5rem 0 } img { max-width: 100%; height: auto } figcaption { color: #444 }
ul.claims { list-style: none; padding: 0 } ul.claims li { margin: .4rem 0 }
summary { font-weight: 600 } details { margin: 1rem 0 }
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
      runs: the runs, in order.
      summaries: the summary of each run, by name.
      rows: the claims with their statement and run, see `rows` of the command.
      scale: of the runs.
      folder: the folder that holds the folders of the runs, with their figures.
    """
    by_name = {run.name: run for run in runs}
    counts = Counter(row["verdict"] for row in rows)
    shown = ", ".join(f"{count} {verdict}" for verdict, count in counts.most_common())
    version = next(iter(summaries.values()))["version"]
    seconds = sum(summary.get("wall_time_s") or 0 for summary in summaries.values())
    note = "A smoke run only tests that every part works; its numbers are not evidence."
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width">',
            f"<title>The phase transition of Adam</title><style>{_STYLE}</style></head><body>",
            "<h1>For which (β1, β2) does plain Adam converge?</h1>",
            "<p>Every statement of <em>Adam Converges Without Any Modification On Update Rules</em>"
            ' (<a href="https://arxiv.org/abs/2603.02092">arXiv:2603.02092</a>) compared with what '
            "this project measures. Verdicts are computed from measured ± uncertainty: a source's "
            "statement is reproduced, not reproduced or inconclusive; a statement of this project "
            "holds, fails or is open. The paper is known to us from a transcription that lacks its "
            "appendix and its constants.</p>",
            f"<p>adam_transition {_text(version)}, scale {_text(scale)}, "
            f"{seconds / 60:.1f} minutes. "
            f"{note if scale == 'smoke' else ''}</p>",
            f'<p id="counts">{len(rows)} claims: {_text(shown)}. The same folder contains '
            "claims.json, the figures as PDF in figures/, and the "
            f'<a href="{EXPLORER}">explorer</a>, in which the optimiser, n, a and the order can be '
            "varied.</p>",
            _table(rows),
            *(
                _section(statement, found, by_name, summaries, scale, folder)
                for statement, found in by_statement(rows)
            ),
            "</body></html>",
        ]
    )


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = [
        '<div id="claims"><table><thead><tr><th>claim</th><th>expected</th><th>measured</th>'
        "<th>verdict</th><th>run</th></tr></thead><tbody>"
    ]
    for statement, found in by_statement(rows):
        lines.append(
            f'<tr><th colspan="5"><a href="#{statement.anchor}">{_text(statement.title)}</a> '
            f"<small>· {_text(statement.where)}</small></th></tr>"
        )
        lines += [
            f'<tr class="claim" id="{_text(row["run"])}-{_text(row["id"])}">'
            f"<td>{_text(row['statement'])}</td><td>{_text(row['expected'])}</td>"
            f'<td class="number">{_text(number(row))}</td>'
            f"<td>{_verdict(row)}</td><td>{_text(row['run'])}</td></tr>"
            for row in found
        ]
    return "\n".join([*lines, "</tbody></table></div>"])


def by_statement(
    rows: Sequence[Mapping[str, Any]],
) -> list[tuple[Statement, list[Mapping[str, Any]]]]:
    """The statements that have claims, in the order of the paper."""
    each = [(s, [row for row in rows if row["statement_title"] == s.title]) for s in STATEMENTS]
    return [(statement, found) for statement, found in each if found]


def _section(
    statement: Statement,
    rows: Sequence[Mapping[str, Any]],
    runs: Mapping[str, Run],
    summaries: Mapping[str, Mapping[str, Any]],
    scale: Scale,
    folder: Path,
) -> str:
    """A statement, its claims with uncertainties, the figures, and how to reproduce them."""
    claims = [
        f"<li>{_verdict(row)} {_text(row['statement'])}: <b>{_text(number(row))}</b>, expected "
        f"{_text(row['expected'])}. <small>{_text(row['reference'])}</small></li>"
        for row in rows
    ]
    figures = [one.partition("/") for one in statement.figures]
    drawn = [_figure(runs[run], name, folder) for run, _, name in figures if run in runs]
    used = dict.fromkeys([*(row["run"] for row in rows), *(run for run, *_ in figures)])
    return "\n".join(
        [
            f'<h2 id="{statement.anchor}">{_text(statement.title)}</h2>',
            f"<p>{_text(statement.text)} <small>({_text(statement.where)})</small></p>",
            f'<ul class="claims">{"".join(claims)}</ul>',
            *drawn,
            *(_how(runs[name], summaries[name], scale) for name in used if name in runs),
        ]
    )


def _figure(run: Run, name: str, folder: Path) -> str:
    image = base64.b64encode((folder / run.name / f"{name}.png").read_bytes()).decode()
    caption = _text(run.captions[name])
    return (
        f'<figure><img alt="{caption}" src="data:image/png;base64,{image}">'
        f"<figcaption>{caption} <small>{pdf_name(run, name)}</small></figcaption></figure>"
    )


def _how(run: Run, summary: Mapping[str, Any], scale: Scale) -> str:
    seconds = summary.get("wall_time_s")
    took = f" ({seconds:.0f} s)" if seconds else ""
    chosen = "".join(f"<li>{_text(line)}</li>" for line in run.chosen)
    return (
        f"<details open><summary>{_text(run.title)}{took}</summary>"
        f"<pre>{_text(run.how(scale))}</pre>"
        + (f"<p>What we had to choose:</p><ul>{chosen}</ul>" if chosen else "")
        + "</details>"
    )


def pdf_name(run: Run, figure: str) -> str:
    """Path of a figure as PDF, relative to the page."""
    return f"figures/{run.name}-{figure}.pdf"


def _verdict(row: Mapping[str, Any]) -> str:
    verdict = _text(row["verdict"])
    return f'<span class="verdict {verdict.replace(" ", "-")}">{verdict}</span>'


def number(row: Mapping[str, Any]) -> str:
    """Measured ± uncertainty."""
    if row["measured"] is None:
        return "none"
    error = f" ± {row['uncertainty']:.2g}" if row["uncertainty"] else ""
    return f"{row['measured']:.5g}{error}"


def _text(text: object) -> str:
    return html.escape(str(text))
