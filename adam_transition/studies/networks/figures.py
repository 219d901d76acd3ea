"""Figures of `experiments.networks`."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import QuadMesh
from matplotlib.colors import BoundaryNorm, LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from adam_transition.studies.plotting import (
    COLOURS,
    DASHES,
    casing,
    footer,
    is_narrow,
    legend,
    panels,
    settings,
    style,
)

_CURVES = ((0.0, 0.05), (0.9, 0.5), (0.9, 0.9), (0.9, 0.99), (0.9, 0.999), (0.9, 0.99999))


def network_planes(dataset: xr.Dataset) -> Figure:
    """Late training loss over (β1, β2), task × batch size, at the best learning rate of each cell.

    The white line is the edge of the good cells, the dashed line β1 = √β2.
    """
    with style():
        figure, axes = _planes(dataset)
        for i, j in np.ndindex(axes.shape):
            one = dataset.isel(task=i, batch_size=j)
            loss = one["tuned_loss"].transpose("beta2", "beta1").values
            low, high = float(np.nanmin(loss)), float(one["guess"])
            high = max(high, 1.01 * low)
            colours = _mesh(axes[i, j], one, np.minimum(loss, high), LogNorm(low, high))
            good = one["good"].transpose("beta2", "beta1").values.astype(float)
            if 0 < good.mean() < 1:
                lines = axes[i, j].contour(
                    one["beta1"], 1 - one["beta2"], good, levels=[0.5], colors="white",
                    linewidths=1.2,
                )  # fmt: skip
                lines.set_path_effects(casing("black", 2.2))
            figure.colorbar(colours, ax=axes[i, j], label="training loss", extend="max")
        edge: dict[str, Any] = {"color": "white", "lw": 1.2, "path_effects": casing("black", 2.2)}
        drawn = [_bounded_steps(), Line2D([], [], label="edge of the good cells", **edge)]
        legend(figure, drawn, loc="outside upper right", columns=2)
        told = "losses above that of guessing are drawn as it", "best learning rate of each cell"
        footer(figure, [*_settings(dataset), *told])
        return figure


def network_spikes(dataset: xr.Dataset) -> Figure:
    """Loss spikes per run over (β1, β2): the mean over seeds and learning rates."""
    with style():
        figure, axes = _planes(dataset)
        levels = np.array([0, 0.1, 0.3, 1, 2, 3, 5, 10])
        norm = BoundaryNorm(levels, 256, extend="max")
        for i, j in np.ndindex(axes.shape):
            one = dataset.isel(task=i, batch_size=j)
            spikes = one["spikes"].mean(("learning_rate", "seed")).transpose("beta2", "beta1")
            _mesh(axes[i, j], one, spikes.values, norm)
        figure.colorbar(
            ScalarMappable(norm, "viridis"), ax=axes, label="loss spikes per run", extend="max"
        )
        legend(figure, [_bounded_steps()], loc="outside upper right", columns=2)
        footer(figure, [*_settings(dataset), "mean over seeds and learning rates"])
        return figure


def network_curves(dataset: xr.Dataset) -> Figure:
    """Training loss against the epoch at selected cells; bands are the range over seeds."""
    with style():
        tasks, sizes = dataset.sizes["task"], dataset.sizes["batch_size"]
        figure, axes = panels(
            tasks, sizes, height=0.9 + 2.2 * tasks, squeeze=False, sharex=True,
            sharey="row" if sizes > 1 and not is_narrow() else False,
        )  # fmt: skip
        for i, j in np.ndindex(axes.shape):
            one = dataset.isel(task=i, batch_size=j)
            nearest = [one.sel(beta1=a, beta2=b, method="nearest") for a, b in _CURVES]
            drawn = {(float(cell.beta1), float(cell.beta2)): cell for cell in nearest}
            for colour, dashes, cell in zip(COLOURS, DASHES, drawn.values(), strict=False):
                rate = float(cell["tuned_learning_rate"])
                loss = cell["loss"].sel(learning_rate=rate)
                loss = loss.where(np.isfinite(loss))
                label = f"$({float(cell.beta1):.2g}, {_short(float(cell.beta2))})$"
                axes[i, j].semilogy(
                    one["record"], loss.mean("seed"), color=colour, ls=dashes, label=label
                )
                axes[i, j].fill_between(
                    one["record"], loss.min("seed"), loss.max("seed"), color=colour, alpha=0.2, lw=0
                )
            low = float(one["loss"].where(one["loss"] > 0).min())
            axes[i, j].set(
                ylim=(low / 1.5, 5 * float(one["guess"])),
                title=f"{one.task.item()}, $B = {int(one.batch_size)}$",
            )
        for ax in axes.flat:
            ax.set(xlabel="epoch", ylabel="training loss")
            ax.label_outer()
        handles, _ = axes[0, 0].get_legend_handles_labels()
        legend(figure, handles, title=r"$(\beta_1, \beta_2)$", loc="outside right upper", columns=6)
        told = "best learning rate of each cell", "bands: range over seeds"
        footer(figure, [*_settings(dataset), *told])
        return figure


def _settings(dataset: xr.Dataset) -> list[str]:
    names = "epochs", "seeds", "sampling", "schedule", "initialization", "epsilon"
    return settings(dataset, *names)


def _bounded_steps() -> Line2D:
    dashes: dict[str, Any] = {"color": "black", "path_effects": casing("white", 1.8)}
    return Line2D([], [], ls="--", label=r"$\beta_1 = \sqrt{\beta_2}$", **dashes)


def _planes(dataset: xr.Dataset) -> tuple[Figure, Any]:
    tasks, sizes = dataset.sizes["task"], dataset.sizes["batch_size"]
    figure, axes = panels(
        tasks, sizes, height=0.9 + 2.3 * tasks, squeeze=False, sharex=True, sharey=True
    )
    for i, j in np.ndindex(axes.shape):
        one = dataset.isel(task=i, batch_size=j)
        axes[i, j].set(
            yscale="log",
            ylim=(1 - float(dataset["beta2"].min()), 1 - float(dataset["beta2"].max())),
            title=f"{one.task.item()}, $B = {int(one.batch_size)}$",
        )
        axes[i, j].set(xlabel=r"$\beta_1$", ylabel=r"$1 - \beta_2$")
        axes[i, j].label_outer()
    return figure, axes


def _mesh(ax: Axes, one: xr.Dataset, values: np.ndarray, norm: LogNorm | BoundaryNorm) -> QuadMesh:
    beta1, q = one["beta1"].values, 1 - one["beta2"].values
    mesh = ax.pcolormesh(
        _edges(beta1).clip(0, 1),
        np.exp(_edges(np.log(q))),
        values,
        norm=norm,
        cmap="viridis",
        rasterized=True,
    )
    fine = np.linspace(0, 0.99999, 2000)
    ax.plot(fine, 1 - fine**2, color="black", ls="--", path_effects=casing("white", 1.8))
    ax.set_xlim(*_edges(beta1).clip(0, 1)[[0, -1]])
    ax.set_ylim(*np.exp(_edges(np.log(q)))[[0, -1]])
    return mesh


def _edges(centres: np.ndarray) -> np.ndarray:
    """Edges of the cells around given centres."""
    middle = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])


def _short(beta2: float) -> str:
    """Formats β2: as 0.5 below 0.99, else as 1 − 1e-4."""
    if beta2 < 0.99:
        return f"{beta2:.2g}"
    mantissa, exponent = f"{1 - beta2:.0e}".split("e")
    return rf"1 - {mantissa} \cdot 10^{{{int(exponent)}}}"
