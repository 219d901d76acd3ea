"""Figures: a data set in, a matplotlib figure out. Nothing is computed here."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
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


def phase_diagram(dataset: xr.Dataset) -> Figure:
    """|x_T − x*| over (β1, β2), sampling × n, with β1 = √β2 and the boundary of divergence.

    Where the data set has `drift`, its zero set is drawn; a list of cells in place of a grid is
    drawn as points, hollow where they converge.
    """
    if "a" in dataset.dims:
        dataset = dataset.isel(a=0)
    with style():
        return _scatter(dataset) if "sample" in dataset.dims else _heat_map(dataset)


def trajectories(dataset: xr.Dataset) -> Figure:
    """|x_k − x*| against k at chosen (β1, β2), sampling × n."""
    with style():
        figure, axes = _small_multiples(dataset)
        for i, j in np.ndindex(axes.shape):
            for p in range(dataset.sizes["point"]):
                label = f"({dataset.point_beta1[p]:g}, {dataset.point_beta2[p]:g})"
                values = dataset["trajectory"][i, j, p]
                axes[i, j].loglog(
                    dataset["step"], np.maximum(values, 1e-7), label=label, color=COLOURS[p % 7]
                )
        _label(dataset, axes, "step $k$", r"$|x_k - x^*|$")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(
            handles, labels, title=r"$(\beta_1, \beta_2)$", loc="outside right upper", frameon=False
        )
        return figure


def boundary_curves(dataset: xr.Dataset) -> Figure:
    """The boundary D = 0 in the (β1, β2) plane, a panel for each sampling scheme."""
    with style():
        schemes = dataset["sampling"].values
        figure, axes = plt.subplots(
            1, len(schemes), figsize=(7, 2.9), sharey=True, squeeze=False, layout="constrained"
        )
        beta2 = np.linspace(0, 1, 400)
        for i, ax in enumerate(axes[0]):
            for j, n in enumerate(dataset["n"].values):
                line = dataset["curve"][i, j].values
                ax.plot(line[:, 0], line[:, 1], color=COLOURS[j % 7], label=f"$n = {n}$")
            ax.plot(np.sqrt(beta2), beta2, "k--", lw=0.8, label=r"$\beta_1 = \sqrt{\beta_2}$")
            ax.set(xlim=(0, 1), ylim=(0, 1), title=TITLES[schemes[i]], xlabel=r"$\beta_1$")
        axes[0, 0].set_ylabel(r"$\beta_2$")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", frameon=False)
        return figure


def boundary_scaling(dataset: xr.Dataset) -> Figure:
    """1 − β2* at β1 = 0 against n, and against D1 at fixed n, with the first-order laws."""
    with style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(7, 3.5), layout="constrained")
        n = dataset["scaling_n"].values
        for values, colour, label in zip(
            dataset["scaling"].values,
            COLOURS,
            (r"$a = 1/(n-1)^2$, cyclic", r"$a = 1$, cyclic"),
            strict=False,
        ):
            left.loglog(n, values, "o-", ms=3, color=colour, label=label)
        left.errorbar(
            dataset["replacement_n"], dataset["replacement"], 2 * dataset["replacement_stderr"],
            fmt="s", ms=4, color=COLOURS[2], label=r"$a = 1$, with replacement",
        )  # fmt: skip
        left.loglog(n, 4.0 / n**2, ":", color="0.3", label=r"$4/(a n^2)$")
        left.loglog(n, 1.0 / n, "-.", color="0.3", label=r"slope $-1$")
        left.loglog(n, 3.0**5 / n**5.0, "--", color="0.3", label=r"sufficient, slope $-5$")
        left.set(xlabel="$n$", ylabel=r"$1 - \beta_2^*$", ylim=(1e-9, 3))
        right.loglog(
            dataset["against_a_d1"], dataset["against_a"], "o-", ms=3, color=COLOURS[0],
            label="$n = 20$, cyclic",
        )  # fmt: skip
        right.loglog(
            dataset["against_a_d1"], 4 / np.sqrt(dataset["against_a_d1"]), ":", color="0.3",
            label=r"$4/\sqrt{D_1}$",
        )  # fmt: skip
        right.set(xlabel="$D_1$", ylabel=r"$1 - \beta_2^*$")
        right.legend(frameon=False)
        figure.legend(
            *left.get_legend_handles_labels(), loc="outside lower left", ncols=3, frameon=False
        )
        return figure


def _heat_map(dataset: xr.Dataset) -> Figure:
    figure, axes = _small_multiples(dataset)
    x, y = dataset["beta1"].values, dataset["beta2"].values
    gaps = dataset["gap"].transpose("sampling", "n", "beta2", "beta1")
    norm = _log_norm(gaps.values)
    for i, j in np.ndindex(axes.shape):
        values = np.nan_to_num(gaps[i, j].values, nan=np.inf).clip(norm.vmin, norm.vmax)
        mesh = axes[i, j].pcolormesh(
            x, y, values, norm=norm, cmap="viridis", shading="nearest", rasterized=True
        )
        _bounded_steps_line(axes[i, j], y)
        if "drift" in dataset and min(len(x), len(y)) > 1:
            drift = dataset["drift"].transpose("sampling", "n", "beta2", "beta1")[i, j].values
            if np.isfinite(drift).any() and np.nanmin(drift) < 0 < np.nanmax(drift):
                axes[i, j].contour(x, y, drift, levels=[0], colors="white", linewidths=1.2)
    _label(dataset, axes, r"$\beta_1$", r"$\beta_2$")
    figure.colorbar(mesh, ax=axes, label=r"$|x_T - x^*|$", shrink=0.8, pad=0.01, extend="both")
    drawn = [plt.Line2D([], [], color="black", ls="--", label=r"$\beta_1 = \sqrt{\beta_2}$")]
    if "drift" in dataset:
        drawn.append(plt.Line2D([], [], color="0.75", lw=2, label="$D = 0$ (white)"))
    figure.legend(handles=drawn, loc="outside upper right", ncols=2, frameon=False)
    return figure


def _scatter(dataset: xr.Dataset) -> Figure:
    schemes = dataset["sampling"].values
    figure, axes = plt.subplots(
        1, len(schemes), figsize=(7, 2.8), sharey=True, squeeze=False, layout="constrained"
    )
    n = np.broadcast_to(dataset["n"].values[:, None], dataset["beta1"].shape)
    for ax, scheme in zip(axes[0], schemes, strict=True):
        diverged = dataset["diverged"].sel(sampling=scheme).values
        q = 1 - dataset["beta2"].values
        for mask, colour, label in (
            (diverged, COLOURS[1], "diverges"),
            (~diverged, COLOURS[0], "converges"),
        ):
            ax.scatter(n[mask], q[mask], s=2, lw=0, color=colour, label=label, rasterized=True)
        ax.set(xscale="log", yscale="log", title=TITLES[scheme], xlabel="$n$")
    axes[0, 0].set_ylabel(r"$1 - \beta_2$")
    figure.legend(
        *axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=2, frameon=False
    )
    return figure


def _small_multiples(dataset: xr.Dataset) -> tuple[Figure, Any]:
    rows, columns = dataset.sizes["sampling"], dataset.sizes["n"]
    size = (max(3.2, 1.0 + 1.5 * columns), max(2.4, 0.6 + 1.45 * rows))
    return plt.subplots(
        rows, columns, figsize=size, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )


def _label(dataset: xr.Dataset, axes: np.ndarray, x: str, y: str) -> None:
    for ax, n in zip(axes[0], dataset["n"].values, strict=True):
        ax.set_title(f"$n = {n}$")
    for ax in axes[-1]:
        ax.set_xlabel(x)
    for ax, scheme in zip(axes[:, 0], dataset["sampling"].values, strict=True):
        ax.set_ylabel(f"{TITLES[scheme]}\n{y}")


def _bounded_steps_line(ax: Axes, beta2: np.ndarray) -> None:
    low, high = ax.get_xlim()
    fine = np.linspace(beta2.min(), beta2.max(), 400)
    ax.plot(np.sqrt(fine), fine, color="black", ls="--")
    ax.set_xlim(low, high)


def _log_norm(values: np.ndarray) -> LogNorm:
    """From the least to the greatest finite positive gap, but never more than seven decades."""
    positive = values[np.isfinite(values) & (values > 0)]
    high = float(np.quantile(positive, 0.999)) if positive.size else 1.0
    low = float(positive.min()) if positive.size else 0.1
    return LogNorm(max(low, high * 1e-7), max(high, low * 1.01))
