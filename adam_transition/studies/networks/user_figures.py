"""Figures of a user's own network: the plane of `train_plane`, and the search of `find_beta2`."""

import math
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogFormatter

from adam_transition.advise import FoundBeta2, halving
from adam_transition.networks import outcomes
from adam_transition.networks.training import RUNNING
from adam_transition.studies.plotting import COLOURS, footer, style, subplots

_MARKERS = "os^D"


def draw_training_plane(dataset: xr.Dataset) -> Figure:
    """Late training loss, batch size × learning rate: over (β1, β2), or against 1 − β2 at one β1.

    Losses above that of guessing are drawn as it. A ring marks the good cells; at one β1 the thin
    lines are the seeds, and the shaded range holds the good β2.

    Args:
      dataset: from `train_plane`.
    """
    sizes, rates = dataset["batch_size"].values, dataset["learning_rate"].values
    many = dataset.sizes["beta1"] > 1
    guess = float(dataset["guess"])
    norm = LogNorm(min(float(dataset["late_loss"].min()), 0.99 * guess), guess)
    with style():
        axes: Any
        figure, axes = subplots(
            len(sizes), len(rates), figsize=(1.0 + 2.3 * len(rates), 0.9 + 1.9 * len(sizes)),
            squeeze=False, sharex=True, sharey=True,
        )  # fmt: skip
        for i, j in np.ndindex(axes.shape):
            one = dataset.isel(batch_size=i, learning_rate=j)
            if many:
                _plane(axes[i, j], one, norm)
            else:
                _line(axes[i, j], one)
            axes[i, j].set_title(rf"$B = {sizes[i]}$, $\eta_0 = {rates[j]:g}$")
        for ax in axes[-1]:
            ax.set_xlabel(r"$\beta_1$" if many else r"$1 - \beta_2$")
        for ax in axes[:, 0]:
            ax.set_ylabel(r"$1 - \beta_2$" if many else "late training loss")
        if many:
            mesh = axes[0, 0].collections[0]
            figure.colorbar(mesh, ax=axes, label="late training loss", extend="max")
            told = ["rings: good", r"dashed: $\beta_1 = \sqrt{\beta_2}$"]
        else:
            told = [rf"$\beta_1 = {float(dataset['beta1'][0]):g}$", "thin: seeds"]
            told += [r"shaded: good $\beta_2$", "dotted: loss of guessing"]
        footer(figure, [f"seeds = {dataset.sizes['seed']}", *told])
        return figure


def _late(one: xr.Dataset) -> np.ndarray:
    """Late losses, (seed, beta1, beta2), at most that of guessing."""
    late = one["late_loss"].transpose("seed", "beta1", "beta2").values
    return np.minimum(late, float(one["guess"]))


def _plane(ax: Axes, one: xr.Dataset, norm: LogNorm) -> None:
    late = np.exp(np.log(_late(one)).mean(axis=0))
    beta1, q = np.meshgrid(one["beta1"].values, 1 - one["beta2"].values, indexing="ij")
    ax.scatter(
        beta1.ravel(), q.ravel(), c=late.ravel(), norm=norm, cmap="viridis", s=60, marker="s"
    )
    good = one["good"].transpose("beta1", "beta2").values
    ax.scatter(beta1[good], q[good], s=18, facecolors="none", edgecolors="white", linewidths=1.0)
    fine = np.linspace(0, math.sqrt(1 - q.min()), 300)
    ax.plot(fine, 1 - fine**2, color="black", ls="--", lw=1)
    ax.set(yscale="log")
    ax.yaxis.set_inverted(True)


def _line(ax: Axes, one: xr.Dataset) -> None:
    late, q = _late(one)[:, 0], 1 - one["beta2"].values
    for values in late:
        ax.plot(q, values, color="0.7", lw=0.7)
    ax.plot(q, np.exp(np.log(late).mean(axis=0)), color=COLOURS[0], marker="o", ms=3)
    low, high = (float(one[name].values.ravel()[0]) for name in ("low", "high"))
    if not math.isnan(low):
        ax.axvspan(max(high, q.min()), min(low, q.max()), color=COLOURS[2], alpha=0.15, lw=0)
    ax.axhline(float(one["guess"]), color="0.4", ls=":", lw=1)
    ax.set(xscale="log", yscale="log")
    ax.xaxis.set_inverted(True)
    _plain_numbers(ax)


def draw_search(found: FoundBeta2) -> Figure:
    """Late training loss against 1 − β2 after each stage of the search, and what it found.

    Args:
      found: from `find_beta2`.
    """
    runs = found.runs.transpose("seed", "beta2", "record")
    loss, q = runs[RUNNING].values, 1 - runs["beta2"].values
    trained = np.isfinite(loss).all(axis=0).sum(axis=-1)
    with style():
        axes: Any
        figure, axes = subplots(1, 1, figsize=(4.6, 2.9))
        for stage, share in enumerate(halving.SHARES):
            records = round(share * loss.shape[-1])
            there = trained >= records
            if not there.any():
                continue
            late = outcomes.late_loss(loss[:, there, :records])
            middle = np.exp(np.log(late).mean(axis=0))
            label = f"after 1/{1 / share:.0f} of the run" if share < 1 else "at the end"
            axes.plot(
                q[there], middle, color=COLOURS[stage], marker=_MARKERS[stage], ms=4, label=label,
                lw=1 if there.all() else 0.6, ls="-" if there.all() else ":",
            )  # fmt: skip
        if found.verdict == "found":
            high = min(found.high, float(q.max()))
            axes.axvspan(found.low, high, color="0.5", alpha=0.2, lw=0)
            axes.axvline(found.one_minus_beta2, color="black", lw=1)
        axes.set(xscale="log", yscale="log", xlabel=r"$1 - \beta_2$", ylabel="training loss")
        axes.set_ylim(top=_top(loss))
        axes.xaxis.set_inverted(True)
        _plain_numbers(axes)
        handles, labels = axes.get_legend_handles_labels()
        if found.verdict == "found":
            handles.append(Line2D([], [], color="black", lw=1))
            labels.append(r"smallest good $\beta_2$, 95 %")
        figure.legend(handles, labels, loc="outside right upper", frameon=False)
        footer(figure, [f"seeds = {len(loss)}", "dotted: not every value trained so far"])
        return figure


def _plain_numbers(ax: Axes) -> None:
    """2 instead of 2 × 10⁰ on the axis of the loss, which often spans less than a decade."""
    for formatter in (ax.yaxis.set_major_formatter, ax.yaxis.set_minor_formatter):
        formatter(LogFormatter(minor_thresholds=(1.2, 0.4)))


def _top(loss: np.ndarray) -> float:
    """Somewhat above the loss at the start, so that runs that blow up do not set the scale."""
    first = loss[:, :, 0]
    return 3 * float(np.nanmedian(first[np.isfinite(first)]))
