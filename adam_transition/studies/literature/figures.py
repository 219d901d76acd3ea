"""Figure of `experiments.literature`: the scoreboard on one page."""

import textwrap

import xarray as xr
from matplotlib.figure import Figure

from adam_transition.studies.literature.claims import claims
from adam_transition.studies.plotting import COLOURS, style
from adam_transition.sweeps.claims import VERDICTS

_POSITIVE, _NEGATIVE, _UNDECIDED = zip(*VERDICTS, strict=True)
_COLUMNS = {"source": 0.0, "statement": 0.2, "stated": 0.645, "measured": 0.77, "verdict": 0.885}
_WIDTHS = {"source": 29, "statement": 64, "stated": 20, "measured": 17, "verdict": 20}
_LINE = 0.125  # inches


def scoreboard(dataset: xr.Dataset) -> Figure:
    """A line for each statement: source, what is stated, what is measured, the verdict."""
    with style():
        found = claims(dataset)
        rows = [
            {
                "source": claim.reference,
                "statement": claim.statement,
                "stated": claim.expected,
                "measured": f"{claim.measured:.5g}"
                + (f" ± {claim.uncertainty:.1g}" if claim.uncertainty else ""),
                "verdict": claim.verdict,
            }
            for claim in found
        ]
        wrapped = [
            {name: textwrap.wrap(text, _WIDTHS[name]) for name, text in row.items()} for row in rows
        ]
        heights = [max(len(lines) for lines in row.values()) + 0.5 for row in wrapped]
        total = (sum(heights) + 2) * _LINE
        figure = Figure(figsize=(7, total))
        y = 1 - 0.8 * _LINE / total
        for name, x in _COLUMNS.items():
            figure.text(x + 0.01, y, name, fontsize=7, weight="bold", va="top")
        y -= 1.5 * _LINE / total
        for row, height in zip(wrapped, heights, strict=True):
            for name, x in _COLUMNS.items():
                text = "\n".join(row[name])
                colour = _colour(" ".join(row[name])) if name == "verdict" else "black"
                weight = "bold" if name == "verdict" else "normal"
                figure.text(
                    x + 0.01, y, text, fontsize=6, va="top", color=colour, weight=weight,
                    linespacing=1.15,
                )  # fmt: skip
            y -= height * _LINE / total
        return figure


def _colour(verdict: str) -> str:
    if verdict in _POSITIVE:
        return COLOURS[2]
    return COLOURS[1] if verdict in _NEGATIVE else "0.4"
