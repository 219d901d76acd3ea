"""Figure of `experiments.class_threshold`."""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from adam_transition.studies.plotting import COLOURS, MARKERS, TITLES, footer, legend, panels, style


def thresholds(dataset: xr.Dataset) -> Figure:
    """1 − β2 against D1/n: proved to be enough (dashed) and needed by some table (solid).

    One panel per sampling scheme, at the smallest β1. A dot on the axis of D1/n marks D1 = 2n²,
    from which on the paper's theorem gives a diverging member; left of it is its open range. The
    paper's sufficient 1 − β2 = O(n⁻⁵) has no constant; with 1, it lies below the panels.
    """
    with style():
        schemes = dataset["sampling"].values
        figure, axes = panels(1, len(schemes), height=3.1, sharey=True, squeeze=False)
        smallest = min(float(dataset[name].min()) for name in ("sufficient", "hardest"))
        for ax, scheme in zip(axes[0], schemes, strict=True):
            one = dataset.sel(sampling=scheme).isel(beta1=0)
            for j, n in enumerate(dataset["n"].values):
                if one["hardest"][j].isnull().all():
                    continue  # not searched
                x = dataset["d1"].values[j] / n
                needed = np.where(one["hardest"][j] < 1, one["hardest"][j], np.nan)
                proved = np.where(one["sufficient"][j] > 0, one["sufficient"][j], np.nan)
                marker, colour = MARKERS[j % 7], COLOURS[j % 7]
                ax.plot(x, needed, "-", color=colour, marker=marker, ms=3, markevery=(j, 4))
                ax.plot(x, proved, "--", color=colour)
                if x.min() <= 2 * n <= x.max():
                    ax.plot(
                        2 * n, 0, marker, color=colour, ms=5, clip_on=False,
                        transform=ax.get_xaxis_transform(), zorder=5,
                    )  # fmt: skip
            ax.set(xscale="log", yscale="log", xlabel="$D_1/n$", title=TITLES[scheme])
            ax.set_ylim(max(0.5 * smallest, 1e-9), 1.2)
        for ax in axes.flat:
            ax.set_ylabel(r"$1 - \beta_2$")
            ax.label_outer()
        handles = [
            Line2D([], [], color=COLOURS[j % 7], marker=MARKERS[j % 7], ms=3, label=f"$n = {n}$")
            for j, n in enumerate(dataset["n"].values)
        ]
        handles += [
            Line2D([], [], color="0.3", label="some problem needs this"),
            Line2D([], [], color="0.3", ls="--", label="enough for all (proved)"),
            Line2D(
                [], [], color="0.3", ls="none", marker="o", ms=5, label="on the axis: $D_1 = 2n^2$"
            ),
        ]
        legend(figure, handles, columns=4)
        footer(figure, [rf"$\beta_1 = {float(dataset['beta1'][0]):g}$"])
        return figure
