"""Figures of `experiments.optimizers`."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from adam_transition.optimizers import OPTIMIZERS
from adam_transition.studies.plotting import COLOURS, TITLES, style, subplots
from adam_transition.theory.rule_boundary import LEAST

_COLUMNS = 4
_NAMES = {"beta1": r"\beta_1", "beta2": r"\beta_2", "beta3": r"\beta_3", "decay": r"\beta_2"}
_STYLES = "-", "--", ":", "-."


def boundaries(dataset: xr.Dataset) -> Figure:
    """The boundary D = 0 of every optimiser in the plane of its two parameters, cyclic order.

    Colours are n, line styles a. Between a line and the lower left corner the optimiser diverges; a
    panel without a line has no boundary, and says on which side it is.
    """
    with style():
        names = list(dataset["optimizer"].values)
        num_rows = -(-len(names) // _COLUMNS)
        size = (7, 0.9 + 1.55 * num_rows)
        figure, axes = subplots(num_rows, _COLUMNS, figsize=size, squeeze=False)
        for ax, name in zip(axes.flat, names):
            _panel(ax, dataset.sel(optimizer=name), name)
        for ax in axes.flat[len(names) :]:
            ax.set_axis_off()
        n = dataset["n"].values
        handles = [Line2D([], [], color=COLOURS[j], label=f"$n = {k}$") for j, k in enumerate(n)]
        handles += [
            Line2D([], [], color="0.3", ls=_STYLES[k], label=_slope(dataset, k))
            for k in range(dataset.sizes["a"])
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=6, frameon=False)
        return figure


def _slope(dataset: xr.Dataset, k: int) -> str:
    values = dataset["a_value"].values[:, k]
    is_default = np.allclose(values, (dataset["n"].values - 1.0) ** -2)
    return r"$a = 1/(n-1)^2$" if is_default else f"$a = {values[0]:g}$"


def _panel(ax: Axes, dataset: xr.Dataset, name: str) -> None:
    first, second = OPTIMIZERS[name].axes if name in OPTIMIZERS else ("beta1", "beta2")
    x, q = dataset["first"].values, 1 - dataset["second"].values
    for j, k in np.ndindex(dataset.sizes["n"], dataset.sizes["a"]):
        drift = dataset["drift"].values[j, k]
        if np.nanmin(drift, initial=np.inf) < 0 < np.nanmax(drift, initial=-np.inf):
            ax.contour(
                x, q, drift.T, levels=[0], colors=[COLOURS[j]], linestyles=[_STYLES[k]],
                linewidths=1.0,
            )  # fmt: skip
    share = float((dataset["drift"] > 0).where(dataset["drift"].notnull()).mean())
    if share in (0.0, 1.0):
        word = "never diverges" if share == 0 else "always diverges"
        ax.text(0.5, 0.5, word, ha="center", va="center", transform=ax.transAxes, fontsize=7)
    ax.set(yscale="log", ylim=(1, q.min()), xlim=(0, x.max()), title=name)
    ax.set_xlabel(f"${_NAMES.get(first, chr(92) + 'beta')}$", labelpad=1)
    ax.set_ylabel(f"$1 - {_NAMES[second]}$" if second else "(no effect)", labelpad=1)


def _smallest(dataset: xr.Dataset) -> float:
    """The smallest 1 − β* of the marks."""
    high = dataset["beta_high"].isel(n=-1).values
    return min([*LEAST.values(), *(1 - high[np.isfinite(high) & (high < 1)])])


def thresholds(dataset: xr.Dataset) -> Figure:
    """The largest β that diverges, for each optimiser and sampling scheme, at the largest n.

    Left a = 1/(n−1)², right a = 1 (or the values of a given). An open mark is a lower bound: the
    interval reaches the end of the scan. No mark: no β diverges.
    """
    with style():
        names = list(dataset["optimizer"].values)
        num_a = dataset.sizes["a"]
        size = (7, 0.9 + 0.2 * len(names))
        figure, axes = subplots(1, num_a, figsize=size, sharey=True, squeeze=False)
        y = np.arange(len(names))[::-1]
        for k, ax in enumerate(axes[0]):
            for s, scheme in enumerate(dataset["sampling"].values):
                one = dataset.sel(sampling=scheme).isel(n=-1, a=k)
                high = one["beta_high"].max("interval").values
                ends = np.isfinite(high) & (high == 1)
                distance = np.where(ends, LEAST[scheme], 1 - high)
                for chosen, face in ((np.isfinite(high) & ~ends, COLOURS[s]), (ends, "none")):
                    ax.scatter(
                        distance[chosen], y[chosen] + 0.22 * (1 - s), s=12,
                        marker="osD"[s % 3], facecolors=face, edgecolors=COLOURS[s],
                        label=TITLES[scheme] if face != "none" else None,
                    )  # fmt: skip
            ax.set(xscale="log", xlabel=r"$1 - \beta^*$", title=_slope(dataset, k))
            ax.set_xlim(1.3, 0.7 * _smallest(dataset))
            ax.set_ylim(-0.6, len(names) - 0.4)
            ax.grid(axis="y", lw=0.3)
        axes[0, 0].set_yticks(y, names)
        largest = int(dataset["n"][-1])
        figure.suptitle(f"$n = {largest}$; an open mark is a lower bound of $\\beta^*$", fontsize=8)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        return figure
