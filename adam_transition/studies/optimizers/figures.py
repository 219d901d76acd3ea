"""Figures of `experiments.optimizers`."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from adam_transition.optimizers import OPTIMIZERS
from adam_transition.problems.constructions import large_slope
from adam_transition.studies.optimizers import direct
from adam_transition.studies.plotting import (
    COLOURS,
    DASHES,
    MARKERS,
    TITLES,
    footer,
    is_narrow,
    legend,
    page_width,
    panels,
    slope,
    style,
    subplots,
)
from adam_transition.theory import laws
from adam_transition.theory.rule_boundary import LEAST, flat

_COLUMNS = 4
_NAMES = {"beta1": r"\beta_1", "beta2": r"\beta_2", "beta3": r"\beta_3", "decay": r"\beta_2"}
_WIDTHS = 0.7, 1.2, 1.8, 0.7, 1.2, 1.8, 0.7  # of the lines of each n: seen in grey too


def boundaries(dataset: xr.Dataset) -> Figure:
    """The boundary D = 0 of every optimiser in the plane of its two parameters, cyclic order.

    Colours are n, line styles a. Between a line and the lower left corner the optimiser diverges; a
    panel without a line says on which side it is, or which share of its known cells diverges. A
    star: the drift is not known everywhere.
    """
    with style():
        names = list(dataset["optimizer"].values)
        columns = 2 if is_narrow() else _COLUMNS
        num_rows = -(-len(names) // columns)
        size = (page_width(), 1.1 + 1.55 * num_rows)
        figure, axes = subplots(num_rows, columns, figsize=size, squeeze=False)
        for ax, name in zip(axes.flat, names):
            _panel(ax, dataset.sel(optimizer=name), name)
        for ax in axes.flat[len(names) :]:
            ax.set_axis_off()
        n = dataset["n"].values
        handles = [
            Line2D([], [], color=COLOURS[j], lw=_WIDTHS[j], label=f"$n = {k}$")
            for j, k in enumerate(n)
        ]
        handles += [
            Line2D([], [], color="0.3", ls=DASHES[k], label=_slope(dataset, k))
            for k in range(dataset.sizes["a"])
        ]
        legend(figure, handles, loc="outside upper center", columns=6)
        told = "counterexample, cyclic order", "diverges between a line and the lower left corner"
        footer(figure, [*told, "*: drift not known everywhere"])
        return figure


def _slope(dataset: xr.Dataset, k: int) -> str:
    return slope(dataset["a_value"].values[:, k], dataset["n"].values)


def _panel(ax: Axes, dataset: xr.Dataset, name: str) -> None:
    named = OPTIMIZERS.get(name)
    first, second = named.axes if named else ("beta1", "beta2")
    x, q = dataset["first"].values, 1 - dataset["second"].values
    is_drawn = False
    is_known = bool(dataset["drift"].notnull().all())
    for j, k in np.ndindex(dataset.sizes["n"], dataset.sizes["a"]):
        zero = flat(named, int(dataset["n"][j])) if named else 0.0
        drift = dataset["drift"].values[j, k] - zero
        if np.nanmin(drift, initial=np.inf) < 0 < np.nanmax(drift, initial=-np.inf):
            lines = ax.contour(
                x, q, drift.T, levels=[0], colors=[COLOURS[j]], linestyles=[DASHES[k]],
                linewidths=[_WIDTHS[j]],
            )  # fmt: skip
            is_drawn = is_drawn or any(len(one) for one in lines.allsegs)
    share = float((dataset["drift"] > 0).where(dataset["drift"].notnull()).mean())
    if not is_drawn and not np.isnan(share):
        word = {0.0: "never diverges", 1.0: "always diverges"}.get(share, f"diverges: {share:.0%}")
        ax.text(0.5, 0.5, word, ha="center", va="center", transform=ax.transAxes, fontsize=7)
    ax.set(yscale="log", ylim=(1, q.min()), xlim=(0, x.max()))
    # long names are those of a user's own factory, package.module:factory
    ax.set_title((name if len(name) < 20 else f"…{name[-18:]}") + ("" if is_known else " *"))
    ax.set_xlabel(f"${_NAMES.get(first, chr(92) + 'beta')}$", labelpad=1)
    ax.set_ylabel(f"$1 - {_NAMES[second]}$" if second else "(no effect)", labelpad=1)


def _smallest(dataset: xr.Dataset) -> float:
    """The smallest 1 − β* of the marks."""
    high = dataset["beta_high"].isel(n=-1).values
    return min([*LEAST.values(), *(1 - high[np.isfinite(high) & (high < 1)])])


def thresholds(dataset: xr.Dataset) -> Figure:
    """The largest β that diverges, for each optimiser and sampling scheme, at the largest n.

    Left a = 1/(n−1)², right a = 1 (or the values of a given). An open mark is a lower bound: the
    interval reaches the end of the scan or an unknown drift. No mark: no β diverges.
    """
    with style():
        names = list(dataset["optimizer"].values)
        num_a = dataset.sizes["a"]
        schemes = dataset.sizes["sampling"]
        size = (page_width(), 1.1 + max(0.2, 0.08 * schemes) * len(names))
        figure, axes = subplots(1, num_a, figsize=size, sharey=True, squeeze=False)
        y = np.arange(len(names))[::-1]
        for k, ax in enumerate(axes[0]):
            for s, scheme in enumerate(dataset["sampling"].values):
                shift = 0.66 / schemes * ((schemes - 1) / 2 - s)
                one = dataset.sel(sampling=scheme).isel(n=-1, a=k)
                high = one["beta_high"].max("interval").values
                last = one["beta_high"].values == high[:, None]
                is_unknown = (np.isnan(one["stderr"].values) & last).any(axis=-1)
                ends = np.isfinite(high) & ((high == 1) | is_unknown)
                distance = np.where(high == 1, LEAST[scheme], 1 - high)
                for chosen, face in ((np.isfinite(high) & ~ends, COLOURS[s]), (ends, "none")):
                    ax.scatter(
                        distance[chosen], (y + shift)[chosen], s=12,
                        marker=MARKERS[s], facecolors=face, edgecolors=COLOURS[s],
                        label=TITLES[scheme] if face != "none" else None,
                    )  # fmt: skip
            ax.set(xscale="log", xlabel=r"$1 - \beta^*$", title=_slope(dataset, k))
            ax.set_xlim(1.3, 0.7 * _smallest(dataset))
            ax.set_ylim(-0.6, len(names) - 0.4)
            ax.grid(axis="y", lw=0.3)
        axes[0, 0].set_yticks(y, names)
        largest = int(dataset["n"][-1])
        legend(figure, axes[0, 0].get_legend_handles_labels()[0], columns=3)
        told = "counterexample", f"$n = {largest}$", r"an open mark is a lower bound of $\beta^*$"
        footer(figure, told)
        return figure


def muon_on_matrices(dataset: xr.Dataset) -> Figure:
    """The largest momentum at which Muon diverges on matrices, against the noise across A.

    Dotted: without noise, where every size has the threshold of 1 × 1 matrices. A hollow mark:
    momenta below it do not all diverge. Seven sizes at most are drawn.
    """
    with style():
        figure, axes = panels(1, 2, height=2.8)
        for ax, law, a in zip(axes, (1, 0), (1.0, (direct.MATRIX_N - 1.0) ** -2), strict=True):
            number = laws.sign_momentum_threshold(direct.MATRIX_N, a, nesterov=True)
            ax.axhline(number, color="0.3", ls=":", lw=1, label="no noise")
            for j, size in enumerate(dataset["size"].values[: len(MARKERS)]):
                one = dataset.sel(size=size, law=law)
                noise, greatest = dataset["noise"].values, one["noisy_threshold"].values
                ax.plot(
                    noise, greatest, color=COLOURS[j], marker=MARKERS[j], label=f"{size} × {size}"
                )
                several = one["noisy_intervals"].values > 1
                ax.plot(
                    noise[several], greatest[several], ls="none", marker=MARKERS[j],
                    mfc="white", mec=COLOURS[j],
                )  # fmt: skip
            title = "$a = 1$" if law else "$a = 1/(n-1)^2$"
            ax.set(xscale="log", title=title, xlabel=r"noise $\sigma$ across $A$")
            ax.set_xticks(dataset["noise"].values, [f"{one:g}" for one in dataset["noise"].values])
            ax.minorticks_off()
        for ax in axes if is_narrow() else axes[:1]:
            ax.set_ylabel(r"largest $\beta$ that diverges")
        legend(figure, axes[0].get_legend_handles_labels()[0], columns=4)
        told = "Muon on matrices", f"$n = {direct.MATRIX_N}$", "cyclic order"
        footer(figure, [*told, r"hollow: not every smaller $\beta$ diverges"])
        return figure


def adopt_climbs(dataset: xr.Dataset) -> Figure:
    """The step at which ADOPT with its clip turns round in a run, against S⁴ and against R⁴."""
    with style():
        figure, axes = panels(1, 2, height=3.0, sharey=True)
        n = dataset["climb_n"].broadcast_like(dataset["climb"])
        for law, a in ((1, xr.ones_like(n, float)), (0, (n - 1.0) ** -2)):
            climb = dataset["climb"].sel(law=law)
            ratio = (large_slope(n, a) / a).broadcast_like(dataset["climb"]).sel(law=law)
            for ax, x in zip(axes, (dataset["climb_law"].sel(law=law), ratio**4), strict=True):
                ax.scatter(
                    x.values, climb.values, s=16, marker=MARKERS[law], color=COLOURS[law],
                    label="$a = 1$" if law else "$a = 1/(n-1)^2$",
                )  # fmt: skip
        for ax, name in zip(axes, ("$S^4$", "$R^4$"), strict=True):
            ends = np.array([10.0, 2e5])
            ax.plot(ends, ends, color="0.3", ls=":", lw=1, label="equal")
            ax.set(xscale="log", yscale="log", xlabel=name)
            ax.set_ylabel("step of the turn in a run")
            ax.label_outer()
        shown = ", ".join(map(str, dataset["climb_n"].values))
        betas = ", ".join(f"{one:g}" for one in dataset["climb_beta2"].values)
        legend(figure, axes[0].get_legend_handles_labels()[0], columns=3)
        told = "ADOPT with its clip, cyclic order", r"$\beta_1 = 0$", rf"$\beta_2$: {betas}"
        footer(figure, [*told, f"$n$: {shown}"])
        return figure
