"""Figure of `experiments.mnist_plane`: the authors' map of training loss, and ours."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from adam_transition.studies.mnist_plane import claims
from adam_transition.studies.mnist_plane.data import LEVEL
from adam_transition.studies.plotting import (
    COLOURS,
    MARKERS,
    casing,
    footer,
    is_narrow,
    legend,
    panels,
    settings,
    style,
)
from adam_transition.studies.published.digitised import mnist_2022


def beside(dataset: xr.Dataset) -> Figure:
    """The published map, ours at the nearest batch size and rate, and all rank correlations.

    Each map has a scale of its own, with its edge in white; dashed: β1 = √β2.
    """
    with style():
        figure, axes = panels(1, 3, height=2.7, width_ratios=(1, 1, 0.8))
        chosen = claims.nearest(dataset)
        one = dataset.sel(chosen)
        picture = mnist_2022()
        published = dataset["published"].values
        _map(axes[0], dataset, published, picture.low, picture.high, LEVEL)
        axes[0].set_title("published, digitised (MNIST)")
        ours = one["late_loss"].isel(task=0).median("seed")
        level = float(one["level"].mean("seed"))
        low = float(ours.min())
        # the ends of both scales are as far from the edge
        high = low + (level - low) * (picture.high - picture.low) / (LEVEL - picture.low)
        _map(axes[1], dataset, ours.transpose("beta1", "beta2").values, low, high, level)
        task = str(dataset["task"].values[0])
        size, rate = chosen["batch_size"], chosen["learning_rate"]
        axes[1].set_title(rf"{task}, $B = {size}$, $\eta_0 = {rate:g}$")
        for ax in axes[:2] if is_narrow() else axes[:1]:
            ax.set_ylabel(r"$\beta_2$")
        for ax in axes[:2]:
            ax.figure.colorbar(ax.collections[0], ax=ax, shrink=0.85, extend="max", pad=0.02)
        _ranks(axes[2], dataset)
        edge: dict[str, Any] = {"color": "white", "lw": 1.4, "path_effects": casing("black", 2.4)}
        dashes: dict[str, Any] = {"color": "black", "path_effects": casing("white", 1.8)}
        handles = [
            Line2D([], [], label="edge", **edge),
            Line2D([], [], ls="--", label=r"$\beta_1 = \sqrt{\beta_2}$", **dashes),
        ]
        legend(figure, handles, loc="outside upper left", columns=2)
        names = "epochs", "seeds", "sampling", "schedule", "initialization", "width"
        footer(figure, ["colours: training loss", *settings(dataset, *names)])
        return figure


def _map(
    ax: Axes, dataset: xr.Dataset, values: np.ndarray, low: float, high: float, level: float
) -> None:
    beta1, beta2 = dataset["beta1"].values, dataset["beta2"].values
    shown = np.clip(np.nan_to_num(values, nan=np.inf), low, high)
    ax.pcolormesh(beta1, beta2, shown.T, cmap="viridis", vmin=low, vmax=high, rasterized=True)
    lines = ax.contour(beta1, beta2, shown.T, levels=[level], colors="white", linewidths=1.4)
    lines.set_path_effects(casing("black", 2.4))
    line = np.linspace(0, np.sqrt(beta2.max()), 200)
    ax.plot(line, line**2, "k--", lw=1, path_effects=casing("white", 1.8))
    ax.set_xlim(beta1.min(), beta1.max())
    ax.set_xlabel(r"$\beta_1$")


def _ranks(ax: Axes, dataset: xr.Dataset) -> None:
    rank = dataset["rank_correlation"]
    for colour, marker, size in zip(COLOURS, MARKERS, dataset["batch_size"].values, strict=False):
        of_size = rank.sel(batch_size=size)
        spread = of_size.std("seed") if dataset.sizes["seed"] > 1 else 0 * of_size.mean("seed")
        ax.errorbar(
            dataset["learning_rate"], of_size.mean("seed"), yerr=spread, color=colour,
            marker=marker, ms=4, label=f"$B = {size}$",
        )  # fmt: skip
    baseline = float(dataset["rank_correlation_of_beta2"])
    ax.axhline(baseline, color="0.4", ls=":", lw=1, label=r"$-\beta_2$ alone")
    ax.set_xscale("log")
    ax.set_xlabel(r"$\eta_0$")
    ax.set_title("rank correlation with it")
    ax.legend(frameon=False)
