"""Figures of `experiments.divergence`."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter

from adam_transition.studies.plotting import (
    COLOURS,
    DASHES,
    MARKERS,
    SCHEDULES,
    TITLES,
    footer,
    legend,
    panels,
    settings,
    small_multiples,
    style,
)

_MEMBERS = (r"$a = 1/(n-1)^2$", r"$D_1 = 2n^2$")
_PROVEN = "0.85"


def divergence_regions(dataset: xr.Dataset) -> Figure:
    """The proven region and the exact boundaries in the (β1, β2) plane, member × n."""
    with style():
        figure, axes = small_multiples(dataset.sizes["member"], dataset.sizes["n"])
        x, y = dataset["beta1"].values, dataset["beta2"].values
        for i, j in np.ndindex(axes.shape):
            ax, bound = axes[i, j], dataset["worst_case"][i, j].values.T
            ax.contourf(x, y, bound, levels=[0, np.inf], colors=[_PROVEN])
            for k, drift in enumerate(dataset["drift"][i, :, j].values):
                if drift.min() < 0 < drift.max():
                    ax.contour(
                        x, y, drift.T, levels=[0], colors=[COLOURS[k % 7]],
                        linestyles=[DASHES[k % 7]],
                    )  # fmt: skip
            ax.plot(np.sqrt(y), y, color="0.4", lw=0.7)
            ax.set(xlim=(0, 1), ylim=(0, 1), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
        for ax, n in zip(axes[0], dataset["n"].values, strict=True):
            ax.set_title(f"$n = {n}$")
        for ax, name in zip(axes[:, 0], _MEMBERS, strict=True):
            ax.set_ylabel(f"{name}\n" + r"$\beta_2$")
        for ax in axes[-1]:
            ax.set_xlabel(r"$\beta_1$")
        handles: list[Artist] = [Patch(color=_PROVEN, label="proven, every order")]
        handles += [
            Line2D([], [], color=COLOURS[k % 7], ls=DASHES[k % 7], label=TITLES[scheme])
            for k, scheme in enumerate(dataset["sampling"].values)
        ]
        handles.append(Line2D([], [], color="0.4", lw=0.7, label=r"$\beta_1 = \sqrt{\beta_2}$"))
        legend(figure, handles, columns=5)
        footer(figure, ["counterexample", f"{len(x)} × {len(y)} cells"])
        return figure


def divergence_areas(dataset: xr.Dataset) -> Figure:
    """Area of divergence in [0, 1)², and its complement, against n."""
    with style():
        figure, (left, right) = panels(1, 2, height=2.9)
        n = dataset["area_n"].values
        for i, name in enumerate(_MEMBERS):
            for j, (marker, region) in enumerate((("-", "proven, every order"), ("o", "cyclic"))):
                area = dataset["area"][i, j].values
                label = f"{name}, {region}"
                kind: dict[str, Any] = {"ls": DASHES[i]}
                if marker != "-":
                    kind = {"ls": "", "marker": MARKERS[i], "ms": 3}
                left.semilogx(n, area, color=COLOURS[i], label=label, **kind)
                right.loglog(n, 1 - area, color=COLOURS[i], **kind)
        for ax, level in ((left, 0.8), (right, 0.2)):
            ax.axhline(level, color="0.3", ls=":", lw=0.8)
        left.annotate("4/5", (n[0], 0.8), xytext=(0, 2), textcoords="offset points", color="0.3")
        left.set(xlabel="$n$", ylabel="area of divergence", ylim=(0, 1))
        right.set(xlabel="$n$", ylabel="1 − area of divergence")
        right.xaxis.set_minor_formatter(NullFormatter())
        left.xaxis.set_minor_formatter(NullFormatter())
        legend(figure, left.get_legend_handles_labels()[0], columns=2)
        footer(figure, ["counterexample", r"area within $[0, 1)^2$"])
        return figure


def divergence_trajectories(dataset: xr.Dataset) -> Figure:
    """Iterates, gradients and values against k, from both sides, on the member with D1 = 2n²."""
    with style():
        figure, axes = small_multiples(3, dataset.sizes["n"], sharey="row")
        quantities = (("x", r"$|x_k|$"), ("gradient", r"$|\nabla f(x_k)|$"), ("value", "$f(x_k)$"))
        for i, j in np.ndindex(axes.shape):
            name, label = quantities[i]
            for s, line in enumerate(("-", "--")):
                for k in range(dataset.sizes["sampling"]):
                    values = np.abs(dataset[name][s, k, j].values)
                    axes[i, j].loglog(
                        dataset["step"], values, line, color=COLOURS[k % 7],
                        marker=MARKERS[k % 7], ms=2.5, markevery=(0.05 * k, 0.2), alpha=0.85,
                    )  # fmt: skip
            axes[i, j].yaxis.set_minor_formatter(NullFormatter())
            if j == 0:
                axes[i, j].set_ylabel(label)
        for ax, n in zip(axes[0], dataset["n"].values, strict=True):
            ax.set_title(f"$n = {n}$")
        for ax in axes[-1]:
            ax.set_xlabel("step $k$")
        handles: list[Artist] = [
            Line2D([], [], color=COLOURS[k % 7], marker=MARKERS[k % 7], ms=3, label=TITLES[scheme])
            for k, scheme in enumerate(dataset["sampling"].values)
        ]
        handles += [
            Line2D([], [], color="k", ls=line, label=f"$x_0 = {float(x0):g}$")
            for line, x0 in zip(("-", "--"), dataset["start"].values, strict=True)
        ]
        legend(figure, handles, columns=5)
        at = [rf"$(\beta_1, \beta_2)$ = {point}" for point in settings(dataset, "point")]
        told = [*at, *settings(dataset, "step_size"), SCHEDULES["inverse_sqrt"]]
        footer(figure, ["counterexample with $D_1 = 2n^2$", *told])
        return figure


def divergence_d1(dataset: xr.Dataset) -> Figure:
    """The smallest D1 at which Adam diverges, against β2, and Sign-SGD, against n."""
    with style():
        figure, (left, right) = panels(1, 2, height=3.2)
        dataset = dataset.sortby("d1_beta2")
        beta2 = dataset["d1_beta2"].values
        for i, n in enumerate(dataset["d1_n"].values):
            for j, line in zip(range(dataset.sizes["d1_beta1"]), ("o-", "s--", "^:", "v-.")):
                ratio = dataset["least_d1"][i, j].values / (2 * n**2)
                left.semilogy(beta2, ratio, line, ms=3, color=COLOURS[i % 7])
        left.axhline(1, color="0.3", ls=":", lw=0.8)
        left.set(xlabel=r"$\beta_2$", ylabel=r"smallest $D_1/(2n^2)$ found", xlim=(0, 1))
        handles = [
            Line2D([], [], color=COLOURS[i % 7], label=f"$n = {n}$")
            for i, n in enumerate(dataset["d1_n"].values)
        ]
        handles += [
            Line2D([], [], color="k", marker=line[0], ls=line[1:], ms=3,
                       label=rf"$\beta_1 = {float(beta1):g}$")
            for beta1, line in zip(dataset["d1_beta1"].values, ("o-", "s--", "^:", "v-."))
        ]  # fmt: skip
        left.legend(handles=handles, loc="upper left", frameon=False)
        n = dataset["member_n"].values
        right.loglog(n, 2.0 * n**2, ":", color="0.3", label="$2n^2$")
        right.loglog(
            n, dataset["paper_d1_ratio"] * 2 * n**2, color=COLOURS[1], label="$a = 1/(n-1)^2$"
        )
        right.loglog(n, dataset["sign_infimum"], "-.", color=COLOURS[0], label="infimum, Sign-SGD")
        right.loglog(n, n, "--", color="0.3", label="$n$: class empty below")
        right.set(xlabel="$n$", ylabel="$D_1$")
        right.legend(frameon=False)
        footer(
            figure,
            ["cyclic order", "first panel: over all tables of $n$ slopes, from several starts"],
        )
        return figure
