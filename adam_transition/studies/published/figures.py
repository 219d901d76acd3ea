"""Figure of `experiments.published`: the authors' heat map, ours, and the settings it excludes."""

from typing import Any, cast

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from adam_transition.studies.plotting import COLOURS, TITLES, style
from adam_transition.studies.published import claims
from adam_transition.studies.published.digitised import counterexample_2022

_LEVELS = 10, 35, 60
_WORDS: dict[Any, str] = {
    **TITLES,
    "inverse_sqrt": r"$\eta_k = 0.1/\sqrt{k}$",
    "inverse_sqrt_epoch": r"$\eta_k = 0.1/\sqrt{\mathrm{epoch}}$",
    "constant": r"$\eta_k = 0.1$",
    "zero": "zero moments, no correction",
    "first_gradient": "moments from the first gradients",
    "bias_correction": "bias correction",
}


def side_by_side(dataset: xr.Dataset) -> Figure:
    """The published map, ours at the nearest setting, the difference; and the rivals' distances."""
    with style():
        figure = Figure(figsize=(7, 4.6), layout="constrained")
        maps, below = cast(Any, figure.subfigures(2, 1, height_ratios=(1.25, 1)))
        chosen = claims.best(dataset)
        _maps(maps, claims.nearest(dataset), chosen)
        _rivals(below.subplots(), chosen, claims.rivals(dataset))
        return figure


def _maps(figure: Any, one: xr.Dataset, chosen: dict[str, Any]) -> None:
    picture = counterexample_2022()
    axes = figure.subplots(1, 3, sharex=True, sharey=True)
    ours = np.nan_to_num(one["gap"].values, nan=np.inf)
    drawn = np.clip(ours, picture.low, picture.high)
    beta1, beta2 = one["beta1"].values, one["beta2"].values
    for ax, values, title in (
        (axes[0], picture.values, "published, digitised"),
        (axes[1], drawn, "ours, nearest setting"),
    ):
        scale = {"cmap": "viridis", "vmin": picture.low, "vmax": picture.high}
        mesh = ax.pcolormesh(beta1, beta2, values.T, rasterized=True, **scale)
        ax.set_title(title)
    bar = figure.colorbar(mesh, ax=axes[:2], shrink=0.9, extend="max", pad=0.01)
    bar.set_label(r"$|x_T - x^*|$, clipped at 70", fontsize=8)
    difference = np.where(picture.is_clipped(), np.nan, drawn - picture.values)
    widest = 3 * picture.resolution
    mesh = axes[2].pcolormesh(
        beta1, beta2, difference.T, cmap="RdBu_r", vmin=-widest, vmax=widest, rasterized=True
    )
    for values, colour, dashes in ((picture.values, "black", "-"), (drawn, COLOURS[1], "--")):
        axes[2].contour(
            beta1, beta2, values.T, levels=_LEVELS, colors=colour, linestyles=dashes, linewidths=0.9
        )
    axes[2].set_title("ours − published")
    axes[2].legend(
        handles=[
            Line2D([], [], color="black", label="published: 10, 35, 60"),
            Line2D([], [], color=COLOURS[1], ls="--", label="ours"),
        ],
        loc="lower left",
        framealpha=0.9,
    )
    bar = figure.colorbar(mesh, ax=axes[2], shrink=0.9, extend="both", pad=0.02)
    bar.set_label("difference", fontsize=8)
    for ax in axes:
        ax.set_xlabel(r"$\beta_1$")
        ax.set_aspect("equal")
    axes[0].set_ylabel(r"$\beta_2$")
    told = [_word(name, chosen[name]) for name in claims.ALTERNATIVES]
    figure.supxlabel(", ".join(told), fontsize=6, color="0.35")


def _rivals(ax: Axes, chosen: dict[str, Any], rivals: list[dict[str, Any]]) -> None:
    picture = counterexample_2022()
    reading = picture.resolution / (picture.high - picture.low)
    bars = [
        ("nearest", chosen["rms"]),
        *((_word(r["choice"], r["value"]), r["rms"]) for r in rivals),
    ]
    labels, values = zip(*bars, strict=True)
    colours = [COLOURS[2], *(COLOURS[1] if rival["excluded"] else "0.65" for rival in rivals)]
    ax.bar(range(len(bars)), 100 * np.array(values), color=colours, width=0.7)
    ax.axhline(100 * reading, color="black", ls="--", lw=0.8)
    ax.text(-0.6, 105 * reading, "a reading's resolution", fontsize=6, va="bottom")
    ax.set_yscale("log")
    ax.set_xticks(range(len(bars)), labels, rotation=40, ha="right", fontsize=6)
    ax.set_ylabel("rms, % of the scale\n(nearest map with it)")
    ax.margins(x=0.02)


def _word(name: str, value: Any) -> str:
    if value in _WORDS:
        return _WORDS[value]
    return f"${name.replace('x0', 'x_0')} = {value:.3g}$"
