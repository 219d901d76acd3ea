"""Figure of `experiments.certify`."""

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from adam_transition.studies.certify import data
from adam_transition.studies.plotting import footer, legend, panels, style
from adam_transition.theory import certificates

_COLOURS = ("#D98D60", "#A9CCE8", "#DFEBF5", "#000000")
_PIXELS = 10  # of one side, as a power of 2
_WINDOW = 0.012


def proved(dataset: xr.Dataset) -> Figure:
    """The signs of D that are proved in cyclic order, and the rectangles near the boundary.

    Left: a pixel with an undecided rectangle in it is black. Right: a part of the boundary, each
    rectangle with its outline.
    """
    boxes = list(certificates.boxes(data.tree(dataset)))
    with style():
        figure, (left, right) = panels(1, 2, height=4.0)
        left.imshow(
            _image(boxes), origin="lower", extent=(0, 1, 0, 1), cmap=ListedColormap(_COLOURS),
            vmin=0, vmax=len(_COLOURS) - 1, interpolation="nearest",
        )  # fmt: skip
        beta2 = np.linspace(0, 1, 400)
        left.plot(np.sqrt(beta2), beta2, "k--", lw=0.8)
        left.set_title("cyclic order")
        centre = _on_the_boundary(boxes)
        _outlines(right, boxes, centre)
        low = centre - _WINDOW
        left.add_patch(Rectangle((low[0], low[1]), 2 * _WINDOW, 2 * _WINDOW, fill=False, lw=0.8))
        right.set_title("the small square, enlarged")
        for ax in (left, right):
            ax.set(xlabel=r"$\beta_1$", ylabel=r"$\beta_2$", aspect="auto")
            ax.set_box_aspect(1)
        labels = ("$D > 0$", "$D < 0$", r"$D < 0$, $\beta_1 \geq \sqrt{\beta_2}$", "undecided")
        handles: list[Artist] = [
            Patch(color=c, label=label) for c, label in zip(_COLOURS, labels, strict=True)
        ]
        handles.append(
            Line2D([], [], color="k", ls="--", lw=0.8, label=r"$\beta_1 = \sqrt{\beta_2}$")
        )
        legend(figure, handles, columns=5)
        attrs = dataset.attrs
        footer(figure, ["counterexample", f"$n = {attrs['n']}$", f"$a = {attrs['a']}$"])
        return figure


def _kind(box: certificates.Box) -> int:
    return {certificates.AWAY: 0, certificates.BACK: 1, certificates.OPEN: 3}[box.sign]


def _image(boxes: list[certificates.Box]) -> np.ndarray:
    size = 1 << _PIXELS
    image = np.zeros((size, size), np.uint8)  # [β2, β1]
    # an undecided rectangle smaller than a pixel is to be seen
    for box in sorted(boxes, key=lambda box: box.sign == certificates.OPEN):
        scale = 2.0 ** (_PIXELS - box.level)
        x, y = int(box.i * scale), int(box.j * scale)
        width = max(1, int(scale))
        image[y : y + width, x : x + width] = _kind(box)
    beta1, beta2 = (np.arange(size) + 0.5) / size, (np.arange(size)[:, None] + 0.5) / size
    return np.where((image == 1) & (beta1**2 >= beta2), 2, image)


def _on_the_boundary(boxes: list[certificates.Box]) -> np.ndarray:
    """The undecided rectangle that is nearest to β1 = ½ and large β2."""
    centres = np.array(
        [(box.i + 0.5, box.j + 0.5) for box in boxes if box.sign == certificates.OPEN]
        or [(0.5, 0.5)]
    )
    sizes = np.array([2.0**-box.level for box in boxes if box.sign == certificates.OPEN] or [1.0])
    centres = centres * sizes[:, None]
    return centres[np.argmin(np.hypot(centres[:, 0] - 0.5, centres[:, 1] - 1))]


def _outlines(ax: Axes, boxes: list[certificates.Box], centre: np.ndarray) -> None:
    low, high = centre - _WINDOW, centre + _WINDOW
    corners, colours = [], []
    for box in boxes:
        size = 2.0**-box.level
        x, y = box.i * size, box.j * size
        if x < high[0] and x + size > low[0] and y < high[1] and y + size > low[1]:
            corners.append([(x, y), (x + size, y), (x + size, y + size), (x, y + size)])
            colours.append(_COLOURS[_kind(box)])
    ax.add_collection(PolyCollection(corners, facecolors=colours, edgecolors="white", lw=0.2))
    ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]))
