"""What all figures share: sizes, palette, names."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

TITLES = {
    "cyclic": "cyclic",
    "random_shuffling": "random shuffling",
    "shuffle_once": "shuffled once",
    "with_replacement": "with replacement",
}
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
    with plt.rc_context(_STYLE):
        yield


def small_multiples(rows: int, columns: int, *, sharey: Any = True) -> tuple[Figure, Any]:
    """A figure with rows × columns small axes, an array, that share their x axis."""
    size = (max(3.2, 1.0 + 1.5 * columns), max(2.4, 0.6 + 1.45 * rows))
    return plt.subplots(
        rows, columns, figsize=size, sharex=True, sharey=sharey, squeeze=False, layout="constrained"
    )
