"""Figures of `experiments.theorem_3_1` and `theorem_3_3`."""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from adam_transition.studies.plotting import (
    COLOURS,
    DASHES,
    MARKERS,
    SCHEDULES,
    TITLES,
    footer,
    is_narrow,
    legend,
    mathematics,
    page_width,
    panels,
    settings,
    style,
    subplots,
)
from adam_transition.studies.theorems.neighbourhood import SKEWED_N, settled_limit

_COLOURS = (*COLOURS[:3], "0.4")
_LEAST = 1e-9


def theorem_rate(dataset: xr.Dataset) -> Figure:
    """The left-hand side against T, one panel per family: medians and 5–95 % over triples.

    Values below 1e-9, which are due to rounding, are drawn at 1e-9.
    """
    with style():
        panel_rows = 2 if is_narrow() else 1
        size = (page_width(), 1.0 + 2.0 * panel_rows)
        figure, axes = subplots(panel_rows, 4 // panel_rows, figsize=size, sharex=True, sharey=True)
        step = dataset["step"].values
        for ax, family in zip(axes.flat, dataset["family"].values, strict=True):
            for i, group in enumerate(dataset["group"].values):
                band = np.maximum(dataset["lhs_band"].sel(family=family, group=group), _LEAST)
                if np.isfinite(band).all():
                    ax.loglog(step, band[1], ls=DASHES[i], color=_COLOURS[i], label=group)
                    ax.fill_between(step, band[0], band[2], color=_COLOURS[i], alpha=0.2, lw=0)
            guide = np.log(step) / np.sqrt(step)
            ax.loglog(step, guide / guide[0] * 0.3, "k:", lw=1, label=r"$\log T/\sqrt{T}$")
            ax.set(title=family, xlabel="$T$", ylabel="left-hand side")
            ax.label_outer()
        legend(figure, axes.flat[-1].get_legend_handles_labels()[0], columns=3)
        told = (
            "medians and 5–95 % over triples",
            f"values below ${mathematics(_LEAST)}$ are drawn at it",
        )
        footer(figure, [*_settings(dataset), *told])
        return figure


def _settings(dataset: xr.Dataset) -> list[str]:
    return [*settings(dataset, "theorem_sampling", "step_size"), SCHEDULES["inverse_sqrt"]]


def theorem_neighbourhood(dataset: xr.Dataset) -> Figure:
    """The bias against 1 − β2 for each scheme; the left-hand side against 1 − β2 at several T."""
    with style():
        figure, axes = panels(1, 3, height=3.2)
        q = dataset["plateau_q"].values
        for i, scheme in enumerate(dataset["sampling"].values):
            bias = dataset["bias"].sel(sampling=scheme)
            axes[0].loglog(q, bias, ls=DASHES[i], color=COLOURS[i], label=TITLES[scheme])
        settled = 1 / SKEWED_N - settled_limit(dataset["settled"].values).value
        error = 2 * settled.std(axis=0, ddof=1) / np.sqrt(len(settled))
        axes[0].errorbar(q, settled.mean(axis=0), error, fmt="ko", ms=3, label="simulations")
        axes[0].loglog(q, 0.3 * q, ":", color="0.3", label=r"slope $1$")
        axes[0].set(xlabel=r"$1 - \beta_2$", ylabel=r"$|\nabla f|$ at the limit point")
        axes[0].xaxis.set_minor_formatter(NullFormatter())
        axes[0].set_ylim(bottom=3e-4)
        axes[0].legend(frameon=False, loc="lower right")
        steps = dataset["window_step"].values
        shown = [int(np.argmin(np.abs(steps - t))) for t in (1e4, 1e5, 1e6)]
        for ax, n, lhs in zip(
            axes[1:], dataset["window_n"].values, dataset["window"].values, strict=True
        ):
            for colour, dashes, k in zip(COLOURS, DASHES, shown, strict=False):
                label = f"$T = {steps[k]:.1e}$".replace("e+0", r" \cdot 10^")
                ax.loglog(dataset["window_q"], lhs[:, k], color=colour, ls=dashes, label=label)
            ax.set(xlabel=r"$1 - \beta_2$", ylabel="left-hand side", title=f"$n = {n}$, skewed")
        axes[1].legend(frameon=False)
        told = f"first panel: skewed problem, $n = {SKEWED_N}$", r"$\beta_1 = 0$"
        footer(figure, [*told, *_settings(dataset)])
        return figure


def theorem_conditions(dataset: xr.Dataset) -> Figure:
    """The left-hand side across β1 = √β2 and in many dimensions; the threshold against n."""
    with style():
        figure, (left, middle, right) = panels(1, 3, height=3.0)
        for i, family in enumerate(dataset["dimensions"].values):
            values = dataset["dimensions_lhs"][i].isel(dimensions_beta1=0)
            middle.loglog(
                dataset["dimensions_q"], np.maximum(values, _LEAST), f"{MARKERS[i]}-", ms=2.5,
                color=COLOURS[i], label=family.replace("_", " "),
            )  # fmt: skip
        middle.set(xlabel=r"$1 - \beta_2$", ylabel="left-hand side", ylim=(_LEAST / 1000, None))
        middle.legend(frameon=False, fontsize=6, loc="lower right")
        ratio, steps = dataset["line_ratio"].values, dataset["line_step"].values
        for colour, marker, t in zip(COLOURS, MARKERS, (1e4, 1e5, 1e6), strict=False):
            k = int(np.argmin(np.abs(steps - t)))
            lhs = np.maximum(dataset["line"][:, k], _LEAST)
            label = f"$T = {steps[k]:.1e}$".replace("e+0", r" \cdot 10^")
            left.semilogy(ratio, lhs, f"{marker}-", ms=2.5, color=colour, label=label)
        left.axvline(1, color="k", ls="--", lw=0.8)
        left.set(xlabel=r"$\beta_1/\sqrt{\beta_2}$", ylabel="left-hand side")
        left.legend(frameon=False)
        n = dataset["threshold_n"].values
        for i, label in enumerate((r"$a = 1/(n-1)^2$", "$a = 1$")):
            right.errorbar(
                n, dataset["threshold"][i], 2 * dataset["threshold_stderr"][i],
                fmt=f"{MARKERS[i]}-", ms=3, color=COLOURS[i], label=label,
            )  # fmt: skip
        right.loglog(n, (n / n[0]) ** -5.0, "k:", lw=1, label="sufficient, slope $-5$")
        right.set(xlabel="$n$", ylabel=r"$1 - \beta_2^*$", xscale="log", yscale="log")
        right.xaxis.set_minor_formatter(NullFormatter())
        right.legend(frameon=False)
        told = "last panel: counterexample", f"values below ${mathematics(_LEAST)}$ are drawn at it"
        footer(figure, [*_settings(dataset), *told])
        return figure


def theorem_reddi(dataset: xr.Dataset) -> Figure:
    """Iterates on the example of Reddi et al. on both sides of the boundary."""
    with style():
        figure, axes = panels(1, 3, height=2.9, sharey=True)
        for i, (ax, panel) in enumerate(zip(axes, dataset["panel"].values, strict=True)):
            for j in range(2):
                beta2 = float(dataset["reddi_beta2_value"][i, j])
                ax.semilogx(
                    dataset["reddi_step"], dataset["reddi"][i, j], color=COLOURS[1 - j],
                    ls=DASHES[j], label=rf"$\beta_2 = {beta2:.4f}$",
                )  # fmt: skip
            ax.set(title=panel, xlabel="step $k$", ylabel="$x_k$", ylim=(-1.1, 1.1))
            ax.label_outer()
            ax.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.25))
        footer(figure, ["example of Reddi et al. (2018)", r"$\beta_1 = 0$"])
        return figure
