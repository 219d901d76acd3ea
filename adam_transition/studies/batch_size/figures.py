"""Figures of `experiments.batch_size`."""

from typing import Any, Literal

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from adam_transition.networks import outcomes
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

_TUNING = "per cell"
_TUNED = ("per cell", "for all batch sizes")


def batch_size_planes(dataset: xr.Dataset) -> Figure:
    """Late training loss over (batch size, β2), a panel per budget, with the window of good β2."""
    with style():
        figure, axes = panels(2, 2, height=5.4, sharex=True, sharey=True)
        q = 1 - dataset["beta2"].values
        sizes = dataset["batch_size"].values
        for ax, budget in zip(axes.flat, dataset["budget"].values, strict=True):
            one = dataset.sel(budget=budget)
            tuned = one["tuned_loss"].transpose("beta2", "batch_size", "seed")
            loss = np.exp(outcomes.log_mean(tuned.values))
            finite = loss[np.isfinite(loss)]
            low = float(finite.min())
            high = max(min(float(finite.max()), 2.5), low * 1.01)
            mesh = ax.pcolormesh(
                np.arange(len(sizes)), q, np.ma.masked_invalid(np.where(loss > 1e30, 1e30, loss)),
                norm=LogNorm(low, high), cmap="viridis", shading="nearest", rasterized=True,
            )  # fmt: skip
            for edge in ("low", "high"):
                line = _inside(one[edge].sel(tuning=_TUNING))
                ax.plot(
                    np.arange(len(sizes)), line, "o-", color="white", ms=3,
                    path_effects=casing("black", 2.0),
                )  # fmt: skip
            bounded = 1 - float(dataset["beta1"][0]) ** 2
            ax.axhline(bounded, color="black", ls="--", path_effects=casing("white", 1.8))
            ax.set(yscale="log", ylim=(q.max(), q.min()), title=budget)
            ax.set_xticks(np.arange(len(sizes)), [str(size) for size in sizes], rotation=45)
            ticks = np.geomspace(low, high, 4)
            bar = figure.colorbar(mesh, ax=ax, extend="max", format="%.2g", ticks=ticks, pad=0.02)
            bar.ax.minorticks_off()
            bar.set_label("training loss")
        for ax in axes.flat:
            ax.set(xlabel="batch size $B$", ylabel=r"$1 - \beta_2$")
            ax.label_outer()
        white: dict[str, Any] = {"color": "white", "path_effects": casing("black", 2.0)}
        drawn = [
            Line2D([], [], color="black", ls="--", label=r"$\beta_1 = \sqrt{\beta_2}$"),
            Line2D([], [], marker="o", ms=3, label=r"window of good $\beta_2$", **white),
        ]
        legend(figure, drawn, loc="outside upper right", columns=2)
        footer(figure, _settings(dataset))
        return figure


def batch_size_threshold(dataset: xr.Dataset) -> Figure:
    """1 − β2* against B with the rules, by learning rate, and at each budget; against B/η0.

    Marks are geometric means over seeds and bars the range over seeds. Marks are hollow beyond
    β1 = √β2 and where little is learnt.
    """
    with style():
        figure, axes = panels(2, 2, height=5.6, sharey=True)
        budgets = dataset["budget"].values
        widest = dataset["tuning"].values[dataset["widest"].values].item()
        fixed = dataset["tuning"].values[-dataset.sizes["learning_rate"] :]
        _rules(axes[0, 0], dataset.sel(budget=budgets[0], tuning=widest))
        for i, name in enumerate((*_TUNED, *fixed)):
            one = dataset.sel(budget=budgets[0], tuning=name)
            _thresholds(axes[0, 1], one, i, name)
        for i, (name, rate) in enumerate(zip(fixed, dataset["learning_rate"].values, strict=True)):
            one = dataset.sel(budget=budgets[0], tuning=name)
            _thresholds(axes[1, 0], one, i + len(_TUNED), name, scale=1 / rate, line="")
        for i, budget in enumerate(budgets):
            one = dataset.sel(budget=budget, tuning=widest)
            _thresholds(axes[1, 1], one, i, budget)
            axes[1, 1].plot(one["batch_size"], _inside(one["high"]), ":", color=COLOURS[i])
        axes[1, 1].plot([], [], ":", color="0.4", label="upper edge")
        titles = (f"{widest}, equal epochs", "equal epochs", "equal epochs", widest)
        q = 1 - dataset["beta2"].values
        for ax, title in zip(axes.flat, titles, strict=True):
            ax.axhline(1 - float(dataset["beta1"][0]) ** 2, color="black", ls="--", lw=0.8)
            ends = dataset["batch_size"].values[[0, -1]] * np.array([0.8, 1.25])
            if ax is axes[1, 0]:
                ends = ends / dataset["learning_rate"].values[[-1, 0]]
            ax.set(xlim=ends, ylim=(q.max(), q.min()), xlabel="batch size $B$")
            ax.set(xscale="log", yscale="log", title=_symbol(title))
            ax.legend(frameon=False, loc="best", fontsize=6)
        axes[1, 0].set_xlabel(r"$B / \eta_0$")
        for ax in axes.flat if is_narrow() else axes[:, 0]:
            ax.set_ylabel(r"$1 - \beta_2^*$")
        lines = r"dashed: $\beta_1 = \sqrt{\beta_2}$"
        footer(
            figure, [*_settings(dataset), lines, "hollow: edge of the grid, or little is learnt"]
        )
        return figure


def _settings(dataset: xr.Dataset) -> list[str]:
    names = "task", "epochs", "seeds", "sampling", "schedule", "initialization", "beta1"
    return settings(dataset, *names)


def _rules(ax: Axes, one: xr.Dataset) -> None:
    _thresholds(ax, one, 0, "measured")
    for rule, label, line, colour in (
        ("half-life", "half-life and SDE rules", "-", COLOURS[1]),
        ("clipped", "clipped rule", "--", COLOURS[2]),
    ):
        ax.plot(one["batch_size"], one["rule"].sel(rules=rule), line, color=colour, label=label)


def _thresholds(
    ax: Axes,
    one: xr.Dataset,
    i: int,
    label: str,
    *,
    scale: float = 1.0,
    line: Literal["-", ""] = "-",
) -> None:
    low, interior = one["low"].transpose("batch_size", "seed"), one["interior"].values
    q, x = _inside(low), scale * one["batch_size"].values
    spread = np.nan_to_num(np.stack([q - low.min("seed"), low.max("seed") - q]), posinf=0).clip(0)
    colour, marker = COLOURS[i % 7], MARKERS[i % 7]
    ax.errorbar(x, q, spread, lw=1, ls=line, color=colour)
    ax.plot(x[interior], q[interior], marker, ms=4, color=colour)
    ax.plot(x[~interior], q[~interior], marker, ms=4, mfc="white", color=colour)
    ax.plot([], [], marker=marker, ms=4, ls=line, color=colour, label=_symbol(label))


def _inside(edge: xr.DataArray) -> np.ndarray:
    return outcomes.geometric_mean(edge.transpose(..., "seed").values)


def _symbol(text: str) -> str:
    return text.replace("η0", r"$\eta_0$")
