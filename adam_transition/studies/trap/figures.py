"""Figure of `experiments.trap`."""

import numpy as np
import xarray as xr
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from adam_transition.studies.plotting import (
    TITLES,
    footer,
    is_narrow,
    slope,
    small_multiples,
    stacked,
    style,
)
from adam_transition.studies.trap.data import STARTS, STEP_SIZE


def traps(dataset: xr.Dataset) -> Figure:
    """How far the trap reaches, in steps: a row for each sampling scheme, a column for each n.

    Grey: D > 0 and no start stays. White: D ≤ 0. Line: D = 0.
    """
    with style():
        schemes, n = dataset["sampling"].values, dataset["n"].values
        figure, axes = small_multiples(len(schemes), len(n))
        beta1, beta2 = dataset["beta1"].values, dataset["beta2"].values
        norm = LogNorm(STARTS[0], STARTS[-1])
        for i, j in np.ndindex(axes.shape):
            ax, one = axes[i, j], dataset.isel(sampling=i, n=j)
            basin, drift = one["basin"].values, one["drift"].values
            away = np.where(drift > 0, 1.0, np.nan).T
            ax.pcolormesh(beta1, beta2, away, cmap="Greys", vmin=0, vmax=4, rasterized=True)
            trapped = np.where(basin > 0, basin, np.nan).T
            ax.pcolormesh(beta1, beta2, trapped, cmap="viridis", norm=norm, rasterized=True)
            if (drift > 0).any() and (drift < 0).any():
                ax.contour(beta1, beta2, drift.T, levels=[0.0], colors="k", linewidths=0.8)
        for ax, k in zip(axes[0], n, strict=True):
            ax.set_title(f"$n = {k}$")
        for ax in axes[-1]:
            ax.set_xlabel(r"$\beta_1$")
            if is_narrow():
                ax.xaxis.set_major_locator(MaxNLocator(2))
        for ax, scheme in zip(axes[:, 0], schemes, strict=True):
            ax.set_ylabel(f"{stacked(TITLES[str(scheme)])}\n$\\beta_2$")
        bar = figure.colorbar(
            ScalarMappable(norm, "viridis"), ax=axes, shrink=0.9,
            location="bottom" if is_narrow() else "right",
        )  # fmt: skip
        bar.set_ticks([0.5, 1, 2, 4, 8, 16, 32], labels=["0.5", "1", "2", "4", "8", "16", "32"])
        bar.ax.minorticks_off()
        bar.set_label(r"largest start $|x - x^*|/\eta$ that stays", fontsize=8)
        told = ["counterexample", slope(dataset["a"].values, n), rf"$\eta_k = {STEP_SIZE:g}$"]
        footer(figure, [*told, "grey: no start stays", "line: $D = 0$"])
        return figure
