"""Figures of `experiments.phase`."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from adam_transition.figures.common import COLOURS, TITLES, small_multiples, style, subplots


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
        figure, axes = small_multiples(dataset.sizes["sampling"], dataset.sizes["n"])
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


def _heat_map(dataset: xr.Dataset) -> Figure:
    figure, axes = small_multiples(dataset.sizes["sampling"], dataset.sizes["n"])
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
    drawn = [Line2D([], [], color="black", ls="--", label=r"$\beta_1 = \sqrt{\beta_2}$")]
    if "drift" in dataset:
        drawn.append(Line2D([], [], color="0.75", lw=2, label="$D = 0$ (white)"))
    figure.legend(handles=drawn, loc="outside upper right", ncols=2, frameon=False)
    return figure


def _scatter(dataset: xr.Dataset) -> Figure:
    schemes = dataset["sampling"].values
    figure, axes = subplots(1, len(schemes), figsize=(7, 2.8), sharey=True, squeeze=False)
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
