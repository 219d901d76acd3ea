"""Figure of `experiments.literature`: the scoreboard on one page."""

import textwrap

import xarray as xr
from matplotlib.figure import Figure

from adam_transition.studies.literature.claims import claims
from adam_transition.studies.plotting import COLOURS, is_narrow, page_width, style
from adam_transition.sweeps.claims import VERDICTS, Claim

_POSITIVE, _NEGATIVE, _UNDECIDED = zip(*VERDICTS, strict=True)
_WIDE = {  # place and letters in a line of each column
    "source": (0.0, 29),
    "statement": (0.2, 64),
    "stated": (0.645, 20),
    "measured": (0.77, 17),
    "verdict": (0.885, 20),
}
_NARROW = {"statement": (0.0, 50), "verdict": (0.75, 18)}
_LINE = 0.125  # inches


def scoreboard(dataset: xr.Dataset) -> Figure:
    """A line for each statement: source, what is stated, what is measured, the verdict."""
    with style():
        columns = _NARROW if is_narrow() else _WIDE
        rows = [_cells(claim) for claim in claims(dataset)]
        verdicts = [row["verdict"] for row in rows]
        if is_narrow():
            rows = [
                {
                    "statement": f"{row['source']}: {row['statement']} Stated: {row['stated']}",
                    "verdict": f"{row['verdict']}: {row['measured']}",
                }
                for row in rows
            ]
        wrapped = [
            {name: textwrap.wrap(row[name], wide) for name, (_, wide) in columns.items()}
            for row in rows
        ]
        heights = [max(len(lines) for lines in row.values()) + 0.5 for row in wrapped]
        total = (sum(heights) + 2) * _LINE
        figure = Figure(figsize=(page_width(), total))
        y = 1 - 0.8 * _LINE / total
        for name, (x, _) in columns.items():
            figure.text(x + 0.01, y, name, fontsize=7, weight="bold", va="top")
        y -= 1.5 * _LINE / total
        for row, height, verdict in zip(wrapped, heights, verdicts, strict=True):
            for name, (x, _) in columns.items():
                text = "\n".join(row[name])
                colour = _colour(verdict) if name == "verdict" else "black"
                weight = "bold" if name == "verdict" else "normal"
                figure.text(
                    x + 0.01, y, text, fontsize=6, va="top", color=colour, weight=weight,
                    linespacing=1.15,
                )  # fmt: skip
            y -= height * _LINE / total
        return figure


def _cells(claim: Claim) -> dict[str, str]:
    error = f" ± {claim.uncertainty:.1g}" if claim.uncertainty else ""
    return {
        "source": claim.reference,
        "statement": claim.statement,
        "stated": claim.expected,
        "measured": f"{claim.measured:.5g}{error}",
        "verdict": claim.verdict,
    }


def _colour(verdict: str) -> str:
    if verdict in _POSITIVE:
        return COLOURS[2]
    return COLOURS[1] if verdict in _NEGATIVE else "0.4"
