"""What all figures share: sizes, palette, names."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from adam_transition.sampling import SAMPLINGS, scheme

TITLES = {sampling: scheme(sampling).title for sampling in SAMPLINGS}
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
    """Sizes fit for a text width of 7 inches; fonts are embedded in PDFs."""
    with matplotlib.rc_context(_STYLE):
        yield


def subplots(
    rows: int, columns: int, *, figsize: tuple[float, float], **shared: Any
) -> tuple[Figure, Any]:
    """A figure of figsize inches with rows × columns axes; shared as in `Figure.subplots`.

    Unlike pyplot's, it belongs to its caller alone: nothing keeps it alive when it has been saved.
    """
    figure = Figure(figsize=figsize, layout="constrained")
    return figure, figure.subplots(rows, columns, **shared)


def small_multiples(rows: int, columns: int, *, sharey: Any = True) -> tuple[Figure, Any]:
    """A figure with rows × columns small axes, an array, that share their x axis."""
    size = (max(3.2, 1.0 + 1.5 * columns), max(2.4, 0.6 + 1.45 * rows))
    return subplots(rows, columns, figsize=size, sharex=True, sharey=sharey, squeeze=False)
