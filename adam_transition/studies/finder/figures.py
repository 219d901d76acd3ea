"""Figures of `experiments.finder`."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from adam_transition.studies.finder.data import SETTING, VERDICTS
from adam_transition.studies.plotting import (
    COLOURS,
    MARKERS,
    footer,
    is_narrow,
    legend,
    panels,
    settings,
    small_multiples,
    style,
)

_LANGUAGE_MODELS = ((64, 0.995), (128, 0.995), (256, 0.97), (512, 0.95))
"""Best β2 by batch size in sequences, of a language model of width 1024: a public table, coarse."""


def found_and_true(dataset: xr.Dataset) -> Figure:
    """What the finder says, with its interval, against the other seeds trained to the end."""
    with style():
        axes: Any
        figure, axes = panels(1, 1, height=3.6)
        answered = dataset["verdict"] == VERDICTS.index("found")
        shown = dataset.where(answered & np.isfinite(dataset["truth"]))
        for i, task in enumerate(dataset["task"].values):
            one = shown.sel(task=task).transpose(*SETTING[1:], "group", ...)
            true, found = one["truth"].values.ravel(), one["found"].values.ravel()
            ends = [one[name].values.ravel() for name in ("found_low", "found_high")]
            used = np.isfinite(true)
            error = [found - ends[0], np.minimum(ends[1], 1) - found]
            kept = bool(one["kept_back"])
            axes.errorbar(
                true[used], found[used], yerr=[np.maximum(side[used], 0) for side in error],
                fmt=MARKERS[i % len(MARKERS)], ms=4, lw=0.7, alpha=0.9,
                color=COLOURS[i % len(COLOURS)], mfc="white" if kept else None,
                label=f"{task}{' (kept back)' if kept else ''}",
            )  # fmt: skip
        limits = np.array([1e-4, 1.0])
        axes.plot(limits, limits, color="black", lw=0.8)
        axes.fill_between(limits, limits / 2.5, limits * 2.5, color="0.5", alpha=0.2, lw=0)
        axes.set(
            xscale="log", yscale="log", xlim=limits, ylim=limits,
            xlabel=r"$1 - \beta_2^*$ of other seeds, trained to the end",
            ylabel=r"$1 - \beta_2^*$ found",
        )  # fmt: skip
        legend(figure, axes.get_legend_handles_labels()[0], loc="outside right upper", columns=6)
        told = ["bars: 95 % interval of the finder", "band: a factor of 2.5"]
        footer(figure, [*_settings(dataset), *told])
        return figure


def thresholds(dataset: xr.Dataset) -> Figure:
    """1 − β2* against the batch size, a panel a task, with the language models' best β2."""
    with style():
        tasks = dataset["task"].values
        columns = min(2 if is_narrow() else 3, len(tasks))
        rows = -(-len(tasks) // columns)
        figure, axes = small_multiples(rows, columns)
        sizes, models = dataset["batch_size"].values, np.array(_LANGUAGE_MODELS).T
        for ax, task in zip(axes.ravel(), tasks, strict=False):
            for j, rate in enumerate(dataset["learning_rate"].values):
                at = {"task": task, "learning_rate": rate}
                one = dataset.sel(at)
                y, spread = one["threshold"].values, one["threshold_error"].values
                bars = [y * (1 - np.exp(-spread)), y * (np.exp(spread) - 1)]
                ax.errorbar(sizes, y, yerr=bars, color=COLOURS[j], marker=MARKERS[j], ms=3)
            ax.plot(models[0], 1 - models[1], color="0.4", ls=":", marker="x", ms=3)
            ax.set(xscale="log", yscale="log", title=str(task))
        for ax in axes.ravel()[len(tasks) :]:
            ax.set_axis_off()
        for ax in axes.ravel()[max(0, len(tasks) - columns) : len(tasks)]:  # the last of its column
            ax.set_xlabel("batch size $B$")
            ax.tick_params(labelbottom=True)
        for ax in axes[:, 0]:
            ax.set_ylabel(r"$1 - \beta_2^*$")
        handles = [
            Line2D([], [], color=COLOURS[j], marker=MARKERS[j], ms=4, label=rf"$\eta_0 = {rate:g}$")
            for j, rate in enumerate(dataset["learning_rate"].values)
        ]
        label = r"language model of width 1024: best $1 - \beta_2$"
        handles.append(Line2D([], [], color="0.4", ls=":", marker="x", ms=4, label=label))
        legend(figure, handles, loc="outside upper center", columns=2)
        footer(figure, _settings(dataset))
        return figure


def _settings(dataset: xr.Dataset) -> list[str]:
    names = "epochs", "seeds", "group", "budget", "sampling", "schedule", "beta1"
    return settings(dataset, *names)
