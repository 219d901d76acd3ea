"""Sizes, palette, names and footers shared by all figures.

Figures are as wide as matplotlib's `figure.figsize` says, which the commands set from
--figure_width.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import numpy as np
import xarray as xr
from jaxtyping import Float, Int
from matplotlib.artist import Artist
from matplotlib.container import Container
from matplotlib.figure import Figure, SubFigure
from matplotlib.patheffects import AbstractPathEffect, Normal, Stroke

from adam_transition.sampling import SAMPLINGS, scheme

TITLES: dict[str, str] = {sampling: scheme(sampling).title for sampling in SAMPLINGS}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, which colour-blind readers can tell apart."""
DASHES = ("-", "--", "-.", ":", (0, (6, 1.5, 1, 1.5, 1, 1.5)), (0, (8, 2)), (0, (1, 3)))
"""Line styles by which the palette's lines are told apart in grey too."""
MARKERS = "osD^v<>"

_NARROW = 5.0  # inches; below, panels stand one below the other
_TWO_COLUMNS = 7.0
SCHEDULES = {
    "constant": r"$\eta_k = \eta_0$",
    "inverse_sqrt": r"$\eta_k = \eta_0/\sqrt{k}$",
    "inverse_sqrt_epoch": r"$\eta_k = \eta_0/\sqrt{\mathrm{epoch}}$",
}
_SYMBOLS = {
    "beta1": r"\beta_1",
    "num_steps": "T",
    "epsilon": r"\varepsilon",
    "step_size": r"\eta_0",
    "steps": "T",
    "a": "a",
    "n": "n",
    "x0": "x_0",
}

_STYLE: dict[Any, Any] = {
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 7,
    "pdf.fonttype": 42,
    "savefig.dpi": 200,
    "lines.linewidth": 1.0,
}


@contextmanager
def style(width: float | None = None) -> Iterator[None]:
    """Sets sizes of letters and lines for a paper and embeds fonts in PDFs.

    Args:
      width: of the figures drawn within, in inches; default: that of `figure.figsize`.
    """
    size: dict[Any, Any] = {} if width is None else {"figure.figsize": (width, width)}
    with matplotlib.rc_context({**_STYLE, **size}):
        yield


def subplots(
    rows: int, columns: int, *, figsize: tuple[float, float], **shared: Any
) -> tuple[Figure, Any]:
    """A figure of figsize inches with rows × columns axes.

    Unlike pyplot's it belongs to its caller alone: no global state keeps it alive.

    Args:
      rows: number of rows of axes.
      columns: number of columns of axes.
      figsize: width and height in inches.
      **shared: passed to `Figure.subplots`.
    """
    figure = Figure(figsize=figsize, layout="constrained")
    return figure, figure.subplots(rows, columns, **shared)


def panels(rows: int, columns: int, *, height: float, **shared: Any) -> tuple[Figure, Any]:
    """A figure as wide as the page, with an array of axes: below one another on a narrow page.

    Args:
      rows: number of rows of axes.
      columns: number of columns of axes.
      height: in inches, if the page has the width of two columns.
      **shared: passed to `Figure.subplots`.

    Returns:
      The figure, and its axes: rows × columns, without the dimensions of length 1.
    """
    width = page_width()
    if not is_narrow() or rows * columns == 1:
        return subplots(rows, columns, figsize=(width, height), **shared)
    one = height / rows * width * columns / _TWO_COLUMNS
    size = (width, 0.5 + rows * columns * min(max(1.5, one), 2.6))
    shared.pop("width_ratios", None)
    figure, axes = subplots(rows * columns, 1, figsize=size, **(shared | {"squeeze": False}))
    axes = axes.reshape(rows, columns)
    return figure, axes if not shared.get("squeeze", True) else axes.squeeze()


def small_multiples(rows: int, columns: int, *, sharey: Any = True) -> tuple[Figure, Any]:
    """A figure, and an array of rows × columns small axes that share their x axis.

    Up to two columns of axes take one column of a page.
    """
    width = page_width() if columns > 2 else min(page_width(), _TWO_COLUMNS / 2)
    one = min(1.5, (width - 0.9) / columns)
    size = (width, max(2.4, 0.8 + max(0.9, 0.97 * one) * rows))
    return subplots(rows, columns, figsize=size, sharex=True, sharey=sharey, squeeze=False)


def page_width() -> float:
    """The width of figures in inches, as `figure.figsize` says."""
    return float(matplotlib.rcParams["figure.figsize"][0])


def is_narrow() -> bool:
    """Whether the page has the width of one column of a paper."""
    return page_width() < _NARROW


def stacked(words: str) -> str:
    """A label of small rows: on a narrow page each word has a line."""
    return words.replace(" ", "\n") if is_narrow() else words


def slope(a: Float[np.ndarray, " N"], n: Int[np.ndarray, " N"]) -> str:
    """The slopes a of the counterexamples with n components, in TeX."""
    is_default = np.allclose(a, (n - 1.0) ** -2)
    return r"$a = 1/(n-1)^2$" if is_default else f"$a = {a[0]:.4g}$"


def legend(
    figure: Figure,
    handles: Sequence[Artist | Container],
    *,
    loc: Any = "outside upper center",
    columns: int = 4,
    **kwargs: Any,
) -> None:
    """A legend beside the axes of a figure; not below, where the footer is.

    Args:
      figure: the figure.
      handles: what it shows, with labels.
      loc: where, above or on the right; above on a narrow page.
      columns: number of columns that fit in a figure as wide as two columns of a paper.
      **kwargs: passed to `Figure.legend`.
    """
    if is_narrow():
        loc = "outside upper center"
    if "right upper" in loc:
        columns = 1
    fitting = round(columns * float(figure.get_size_inches()[0]) / _TWO_COLUMNS)
    shown: list[Any] = list(handles)
    figure.legend(handles=shown, loc=loc, ncols=max(1, fitting), frameon=False, **kwargs)


def casing(colour: str, width: float) -> list[AbstractPathEffect]:
    """Effects that show a line on any ground: a wider line in another colour beneath it."""
    return [Stroke(linewidth=width, foreground=colour), Normal()]


def footer(figure: Figure | SubFigure, told: Iterable[str]) -> None:
    """Writes below a figure the settings that its axes do not show, in lines of the page's width.

    Args:
      figure: the figure.
      told: the settings, which may contain mathematics in dollars.
    """
    width = float(figure.get_size_inches()[0]) if isinstance(figure, Figure) else page_width()
    per_line = 22 * width
    lines: list[list[str]] = [[]]
    used = 0
    for part in told:
        length = 2 + len(re.sub(r"\\(mathrm|sqrt|beta|eta|varepsilon)|[${}\\]", "", part))
        if lines[-1] and used + length > per_line:
            lines.append([])
            used = 0
        lines[-1].append(part)
        used += length
    text = ",\n".join(", ".join(line) for line in lines)
    if text:
        figure.supxlabel(text, fontsize=6, color="0.35")


def settings(dataset: xr.Dataset, *names: str) -> list[str]:
    """The settings that a data set records under these names, in its attributes or its flags."""
    recorded = {**json.loads(dataset.attrs.get("flags", "{}")), **dataset.attrs}
    given = {name: _plain(recorded.get(name)) for name in names}
    return [_setting(name, value) for name, value in given.items() if value not in (None, "")]


def _plain(value: Any) -> int | float | str | None:
    """A number where a text or an array holds one; otherwise a text, or None for other things."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _setting(name: str, value: int | float | str) -> str:
    if name == "schedule":
        return SCHEDULES.get(str(value), str(value))
    if isinstance(value, str):
        return TITLES.get(value, value.replace("_", " "))
    text = mathematics(value)
    return f"${_SYMBOLS[name]} = {text}$" if name in _SYMBOLS else f"{name} = ${text}$"


def mathematics(value: float) -> str:
    """A number in TeX."""
    if isinstance(value, int):
        return f"{value:,}".replace(",", r"\,")
    mantissa, _, exponent = f"{value:g}".partition("e")
    if not exponent:
        return mantissa
    power = f"10^{{{int(exponent)}}}"
    return power if mantissa == "1" else rf"{mantissa} \cdot {power}"
