"""Figures of `experiments.concentration`."""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from adam_transition.studies.concentration.data import DIMENSION
from adam_transition.studies.plotting import (
    COLOURS,
    DASHES,
    MARKERS,
    TITLES,
    footer,
    legend,
    mathematics,
    panels,
    settings,
    style,
)

_LEAST = 1e-4


def concentration(dataset: xr.Dataset) -> Figure:
    """The spread of √(E v/v) against the lemma's band; its failures against those allowed."""
    with style():
        figure, (left, right) = panels(1, 2, height=3.4)
        for i, n in enumerate(dataset["n"].values):
            # only the largest δ: each δ has its own band
            one = dataset.isel(n=i, relative_delta=0).sortby("relative_one_minus_beta2")
            q, colour = one["one_minus_beta2"], COLOURS[i % 7]
            strays = one["quantile"].sel(table="counterexample").isel(quantile_level=-1) - 1
            marker = MARKERS[i % 7]
            left.loglog(q, strays, f"{marker}-", ms=3, color=colour, label=f"$n = {n}$")
            left.loglog(q, one["upper"] - 1, f"{marker}--", ms=3, mfc="white", color=colour)
        left.set(xlabel=r"$1 - \beta_2$", ylabel=r"$\sqrt{E v/v} - 1$")
        left.plot([], [], "o-", ms=3, color="k", label="measured, 99.9 % quantile")
        left.plot([], [], "o--", ms=3, mfc="white", color="k", label=r"lemma, $C_{upper} - 1$")
        legend(figure, left.get_legend_handles_labels()[0], columns=4)
        allowed = np.maximum(1 - dataset["probability"].values, _LEAST)
        for i, (reading, marker) in enumerate(
            zip(dataset["reading"].values, ("o", "s"), strict=True)
        ):
            for failures in dataset["failures"].sel(reading=reading).values:
                right.loglog(
                    allowed.ravel(), np.maximum(failures, _LEAST).ravel(), marker, ms=4,
                    color=COLOURS[i], alpha=0.6, mew=0, label=f"{reading}",
                )  # fmt: skip
        right.plot([_LEAST, 1], [_LEAST, 1], "k:", lw=0.8)
        handles, labels = right.get_legend_handles_labels()
        right.legend(
            handles[::2], labels[::2], frameon=False, title="mean of $v$", loc="center left"
        )
        right.set(
            xlabel="share of failures allowed by the lemma", ylabel="measured share of failures"
        )
        told = [
            "counterexample, $a = 1/(n-1)^2$",
            "second panel: random normal gradients too",
            f"{dataset.attrs['num_samples']} draws of $v$ for each point",
            f"shares below ${mathematics(_LEAST)}$ are drawn at it",
        ]
        footer(figure, told)
        return figure


def direction(dataset: xr.Dataset) -> Figure:
    """E[m/√v] against β2: its value in one dimension; its cosine and wrong signs in many."""
    with style():
        figure, axes = panels(1, 3, height=2.8, sharex=True)
        q = 1 - dataset["direction_beta2"].values
        schemes = dataset["sampling"].values
        for i, n in enumerate(dataset["n"].values):
            axes[0].semilogx(
                q, dataset["push"][0, i], ls=DASHES[i % 7], color=COLOURS[i % 7], label=f"$n = {n}$"
            )
            axes[0].plot(1 - dataset["beta2_star"][0, i], 0, "v", color=COLOURS[i % 7], ms=4)
        axes[0].plot([], [], "kv", ms=4, label=r"$1 - \beta_2^*$")
        axes[0].set(
            ylabel=r"$E[m/\sqrt{v}]$ over its limit",
            title=f"one dimension, {TITLES[schemes[0]]}",
            ylim=(-3, 1.1),
        )
        axes[0].legend(frameon=False)
        for ax, name, label in (
            (axes[1], "cosine", r"cosine with $\nabla f$"),
            (axes[2], "wrong_share", "coordinates with the wrong sign"),
        ):
            for i, scheme in enumerate(schemes):
                ax.semilogx(
                    q, dataset[name][i], ls=DASHES[i], color=COLOURS[i], label=TITLES[scheme]
                )
            ax.set(ylabel=label, title=f"{DIMENSION} dimensions, $n = {dataset['n'].values.max()}$")
        axes[2].legend(frameon=False)
        for ax in axes:
            ax.axhline(0, color="0.6", lw=0.6)
            ax.set_xlabel(r"$1 - \beta_2$")
        axes[0].invert_xaxis()
        told = settings(dataset, "beta1")
        footer(
            figure,
            [
                "first panel: counterexample, $a = 1/(n-1)^2$",
                r"others: one in each coordinate, $10^{-3} \leq a \leq 1$",
                *told,
            ],
        )
        return figure
