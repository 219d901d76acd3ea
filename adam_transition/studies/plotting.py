"""Sizes, palette and names shared by all figures."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from adam_transition.sampling import SAMPLINGS, scheme

TITLES: dict[str, str] = {sampling: scheme(sampling).title for sampling in SAMPLINGS}
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, which colour-blind readers can tell apart."""

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
def style() -> Iterator[None]:
    """Sets sizes for a text width of 7 inches and embeds fonts in PDFs."""
    with matplotlib.rc_context(_STYLE):
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


def small_multiples(rows: int, columns: int, *, sharey: Any = True) -> tuple[Figure, Any]:
    """A figure, and an array of rows × columns small axes that share their x axis."""
    size = (max(3.2, 1.0 + 1.5 * columns), max(2.4, 0.6 + 1.45 * rows))
    return subplots(rows, columns, figsize=size, sharex=True, sharey=sharey, squeeze=False)
