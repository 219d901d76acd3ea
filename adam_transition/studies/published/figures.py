"""Figure of `experiments.published`: the authors' heat map, ours, and the settings it excludes."""

from typing import Any, cast

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from adam_transition.studies.plotting import COLOURS, TITLES, footer, is_narrow, page_width, style
from adam_transition.studies.published import claims
from adam_transition.studies.published.data import OWN_SLOPE
from adam_transition.studies.published.digitised import counterexample_2022

_LEVELS = 10, 35, 60
_WORDS = {
    **TITLES,
    "zero": "zero moments",
    "first_gradient": "first-gradient moments",
    "bias_correction": "bias correction",
}
_DENOMINATORS = {
    "constant": "",
    "inverse_sqrt": r"/\sqrt{k}",
    "inverse_sqrt_epoch": r"/\sqrt{\mathrm{epoch}}",
}


def side_by_side(dataset: xr.Dataset) -> Figure:
    """The published map, ours at the nearest setting, the difference; and the rivals' distances."""
    with style():
        size = (page_width(), 8.8 if is_narrow() else 5.0)
        figure = Figure(figsize=size, layout="constrained")
        ratios = (2.4, 1) if is_narrow() else (1.15, 1)
        maps, below = cast(Any, figure.subfigures(2, 1, height_ratios=ratios))
        chosen = claims.best(dataset)
        _maps(maps, claims.nearest(dataset), chosen)
        _rivals(below.subplots(), chosen, claims.rivals(dataset))
        return figure


def _maps(figure: Any, one: xr.Dataset, chosen: dict[str, Any]) -> None:
    picture = counterexample_2022()
    axes = figure.subplots(*((3, 1) if is_narrow() else (1, 3)), sharex=True, sharey=True)
    drawn = picture.on_scale(one["gap"].values)
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
            Line2D([], [], color="black", label="published"),
            Line2D([], [], color=COLOURS[1], ls="--", label="ours"),
        ],
        title="10, 35, 60",
        title_fontsize=6,
        fontsize=6,
        handlelength=1.4,
        loc="lower left",
        frameon=False,
    )
    bar = figure.colorbar(mesh, ax=axes[2], shrink=0.9, extend="both", pad=0.02)
    bar.set_label("difference", fontsize=8)
    for ax in axes:
        ax.set(xlabel=r"$\beta_1$", ylabel=r"$\beta_2$", aspect="equal")
        ax.label_outer()
    told = [_words(chosen, choice) for choice in claims.CHOICES]
    footer(figure, ["ours: counterexample", *told])


def _rivals(ax: Axes, chosen: dict[str, Any], rivals: list[dict[str, Any]]) -> None:
    reading = counterexample_2022().reading_error
    bars = [("nearest", chosen["rms"], COLOURS[2])]
    bars += [
        (_words(rival, rival["choice"]), rival["rms"], COLOURS[1 if rival["excluded"] else 5])
        for rival in rivals
    ]
    labels, values, colours = zip(*bars, strict=True)
    ax.barh(range(len(bars)), 100 * np.array(values), color=colours, height=0.7)
    for i, value in enumerate(values):
        ax.text(103 * value, i, f"{100 * value:.2g}", fontsize=6, va="center")
    ax.axvline(100 * reading, color="black", ls="--", lw=0.8)
    ax.set_xscale("log")
    ax.set_xlim(right=100)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.set_yticks(range(len(bars)), labels, fontsize=6)
    ax.invert_yaxis()
    ax.set_xlabel(
        "rms difference of the nearest map with this choice,\n% of the scale (dashed: a reading's "
        "resolution)",
        fontsize=7,
    )
    ax.margins(y=0.02)


def _words(record: dict[str, Any], choice: str) -> str:
    match choice:
        case "step_sizes":
            below = _DENOMINATORS[record["schedule"]]
            return rf"$\eta_k = {record['step_size']:g}{below}$"
        case "a":
            return "$a = 1/(n-1)^2$" if record["slope"] == OWN_SLOPE else f"$a = {record['slope']}$"
        case "sampling" | "initialization":
            return _WORDS[record[choice]]
        case _:
            return f"${choice.replace('x0', 'x_0')} = {record[choice]:g}$"
