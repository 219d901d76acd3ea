"""Figures of `experiments.phase`."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from adam_transition.optimizers import OPTIMIZERS
from adam_transition.studies.plotting import (
    COLOURS,
    DASHES,
    TITLES,
    casing,
    footer,
    is_narrow,
    legend,
    panels,
    settings,
    small_multiples,
    stacked,
    style,
)


class _Row(NamedTuple):
    """A row of panels."""

    scheme: str
    a: float | None = None  # where there is one
    optimizer: str | None = None  # where there are some


_SYMBOLS = {
    "beta1": r"\beta_1",
    "beta2": r"\beta_2",
    "beta3": r"\beta_3",
    "decay": r"\beta_2",
    "momentum": r"\beta",
}
_UNDECIDED = "0.72"
_FLOOR = 1e-7  # of a trajectory's logarithmic axis


def draw_phase_diagram(dataset: xr.Dataset) -> Figure:
    """|x_T − x*| over (β1, β2), with β1 = √β2 and the boundary of divergence; undecided runs grey.

    Columns are n; rows are optimisers and sampling schemes, for each a. The line β1 = √β2 is drawn
    for optimisers whose steps it bounds. If the data set has `drift`, its zero set
    is drawn. An axis whose grid is fine close to 1 is logarithmic in 1 − β. A list of cells instead
    of a grid is drawn as points.
    """
    with style():
        return _scatter(dataset) if "sample" in dataset.dims else _heat_map(dataset)


def trajectories(dataset: xr.Dataset) -> Figure:
    """|x_k − x*| against k at selected (β1, β2), sampling × n; for the first optimiser and a."""
    with style():
        figure, axes = small_multiples(dataset.sizes["sampling"], dataset.sizes["n"])
        for i, j in np.ndindex(axes.shape):
            for p in range(dataset.sizes["point"]):
                label = f"({dataset.point_beta1[p]:g}, {dataset.point_beta2[p]:g})"
                values = dataset["trajectory"][i, j, p]
                axes[i, j].loglog(
                    dataset["step"],
                    np.maximum(values, _FLOOR),
                    ls=DASHES[(p + p // len(COLOURS)) % len(DASHES)],
                    label=label,
                    color=COLOURS[p % len(COLOURS)],
                )
        first_rule = dataset["optimizer"].values[0] if "optimizer" in dataset.dims else None
        rows = [_Row(scheme, None, first_rule) for scheme in dataset["sampling"].values]
        _label(dataset, axes, rows, "step $k$", r"$|x_k - x^*|$")
        handles, _ = axes[0, 0].get_legend_handles_labels()
        legend(figure, handles, title=r"$(\beta_1, \beta_2)$", loc="outside right upper", columns=6)
        _footer(figure, dataset, float(dataset["a"][0]) if "a" in dataset.dims else None)
        return figure


def _heat_map(dataset: xr.Dataset) -> Figure:
    rows = _rows(dataset)
    figure, axes = small_multiples(len(rows), dataset.sizes["n"])
    x, y = (_Axis(dataset[name].values, symbol) for name, symbol in _symbols(dataset).items())
    norm = _log_norm(dataset["gap"].values)
    for i, row in enumerate(rows):
        one = _panel(dataset, row).transpose("n", "beta2", "beta1")
        for j, ax in enumerate(axes[i]):
            values = np.nan_to_num(one["gap"][j].values, nan=np.inf).clip(norm.vmin, norm.vmax)
            draw = partial(_draw_cells, ax, x, y)
            mesh = draw(values, norm=norm, cmap="viridis")
            if "undecided" in one and one["undecided"][j].any():
                grey = np.ma.masked_where(~one["undecided"][j].values, np.ones(values.shape))
                draw(grey, cmap=ListedColormap([_UNDECIDED]))
            for axis, set_scale, set_limits in (
                (x, ax.set_xscale, ax.set_xlim),
                (y, ax.set_yscale, ax.set_ylim),
            ):
                set_scale("log" if axis.is_log else "linear")
                set_limits(axis.edges[0], axis.edges[-1])
            if _bounds_steps(row):
                _bounded_steps_line(ax, x, y)
            if "drift" in one and min(len(x.values), len(y.values)) > 1:
                drift = one["drift"][j].values
                if np.isfinite(drift).any() and np.nanmin(drift) < 0 < np.nanmax(drift):
                    lines = ax.contour(
                        x.values, y.values, drift, levels=[0], colors="white", linewidths=1.2
                    )
                    lines.set_path_effects(casing("black", 2.2))
    _label(dataset, axes, rows, x.label, y.label)
    bar = figure.colorbar(
        mesh, ax=axes, label=r"$|x_T - x^*|$", shrink=0.8, pad=0.01, extend="both",
        location="bottom" if is_narrow() else "right",
    )  # fmt: skip
    _mark_start(bar, dataset.attrs.get("start_distance"))
    dashes: dict[str, Any] = {"color": "black", "ls": "--", "path_effects": casing("white", 1.8)}
    drawn: list[Any] = []
    if any(_bounds_steps(row) for row in rows):
        drawn.append(Line2D([], [], label=r"$\beta_1 = \sqrt{\beta_2}$", **dashes))
    if "drift" in dataset and dataset["drift"].notnull().any():
        cased: dict[str, Any] = {"color": "white", "lw": 1.2, "path_effects": casing("black", 2.2)}
        drawn.append(Line2D([], [], label="$D = 0$", **cased))
    if "undecided" in dataset and dataset["undecided"].any():
        drawn.append(Patch(color=_UNDECIDED, label="undecided"))
    legend(figure, drawn, loc="outside upper right", columns=6)
    _footer(figure, dataset, float(dataset["a"][0]) if dataset.sizes.get("a") == 1 else None)
    return figure


def _draw_cells(ax: Axes, x: "_Axis", y: "_Axis", values: np.ndarray, **how: Any) -> Any:
    """Draws cells as an image where the axes are linear, which is faster than a mesh."""
    if x.is_log or y.is_log:
        return ax.pcolormesh(x.edges, y.edges, values, rasterized=True, **how)
    return ax.pcolorfast(x.edges, y.edges, values, **how)


def _scatter(dataset: xr.Dataset) -> Figure:
    schemes: list[str] = list(dataset["sampling"].values)
    lines = [row for row in _rows(dataset) if row.scheme == schemes[0]]
    figure, axes = panels(
        len(lines), len(schemes), height=0.7 + 2.3 * len(lines), sharex=True, sharey=True,
        squeeze=False,
    )  # fmt: skip
    n = np.broadcast_to(dataset["n"].values[:, None], dataset["beta1"].shape)
    q = 1 - dataset["beta2"].values
    for (i, j), ax in np.ndenumerate(axes):
        row = lines[i]._replace(scheme=schemes[j])
        one = _panel(dataset, row)
        diverged, undecided = one["diverged"].values, one["undecided"].values
        for mask, colour, label in (
            (diverged, COLOURS[1], "diverges"),
            (~diverged & ~undecided, COLOURS[0], "converges"),
            (undecided, _UNDECIDED, "undecided"),
        ):
            ax.scatter(n[mask], q[mask], s=2, lw=0, color=colour, label=label, rasterized=True)
        ax.set(xscale="log", yscale="log", title=_title(row, " ", with_slope=True))
        ax.set(xlabel="$n$", ylabel=r"$1 - \beta_2$")
        ax.label_outer()
    handles, _ = axes[0, 0].get_legend_handles_labels()
    legend(figure, handles, loc="outside upper right", columns=4)
    _footer(figure, dataset)
    return figure


class _Axis:
    """A β axis of a heat map: values, cell edges and label, in terms of β or of 1 − β."""

    def __init__(self, beta: np.ndarray, symbol: str) -> None:
        rest = 1 - beta
        spacing = np.diff(beta)
        is_even = len(beta) < 3 or np.ptp(spacing) < 1e-6 * spacing.max()
        self.is_log = not is_even and rest.max() > 30 * rest.min()
        self.values = rest if self.is_log else beta
        self.label = f"$1 - {symbol}$" if self.is_log else f"${symbol}$"
        scaled = np.log(rest) if self.is_log else beta
        inner = (scaled[1:] + scaled[:-1]) / 2
        width = np.diff(scaled) if len(beta) > 1 else np.array([0.1])
        edges = np.concatenate([[scaled[0] - width[0] / 2], inner, [scaled[-1] + width[-1] / 2]])
        self.edges = np.exp(edges) if self.is_log else edges

    def of(self, beta: np.ndarray) -> np.ndarray:
        return 1 - beta if self.is_log else beta


def _rows(dataset: xr.Dataset) -> list[_Row]:
    """The rows of panels: optimisers, sampling schemes, a."""
    slopes = dataset["a"].values if "a" in dataset.dims else [None]
    names = dataset["optimizer"].values if "optimizer" in dataset.dims else [None]
    return [
        _Row(scheme, a, name)
        for name in names
        for scheme in dataset["sampling"].values
        for a in slopes
    ]


def _panel(dataset: xr.Dataset, row: _Row) -> xr.Dataset:
    names = ("gap", "diverged", "undecided", "drift")
    one = dataset[[name for name in names if name in dataset]].sel(sampling=row.scheme)
    one = one if row.optimizer is None else one.sel(optimizer=row.optimizer)
    return one if row.a is None else one.sel(a=row.a)


def _title(row: _Row, between: str, *, with_slope: bool) -> str:
    parts = [stacked(TITLES[row.scheme])]
    parts = parts if row.optimizer is None else [row.optimizer, *parts]
    if row.a is not None and with_slope:
        parts.append(f"$a = {row.a:.4g}$")
    return f",{between}".join(parts)


def _bounds_steps(row: _Row) -> bool:
    """Whether β1 = √β2 bounds the steps of the row's optimiser."""
    if row.optimizer is None:
        return True
    return row.optimizer in OPTIMIZERS and OPTIMIZERS[row.optimizer].bounds_steps


def _symbols(dataset: xr.Dataset) -> dict[str, str]:
    """The symbol of each axis: that of the optimisers' parameters if they agree on it."""
    names = list(dataset["optimizer"].values) if "optimizer" in dataset.dims else []
    known = [OPTIMIZERS[name].axes for name in names if name in OPTIMIZERS]
    found = {}
    for i, (dim, default) in enumerate({"beta1": r"\beta_1", "beta2": r"\beta_2"}.items()):
        own = {axis for axes in known if (axis := axes[i]) is not None}
        found[dim] = _SYMBOLS[own.pop()] if len(own) == 1 else default
    return found


def _label(dataset: xr.Dataset, axes: np.ndarray, rows: list[_Row], x: str, y: str) -> None:
    for ax, n in zip(axes[0], dataset["n"].values, strict=True):
        ax.set_title(f"$n = {n}$")
    for ax in axes[-1]:
        ax.set_xlabel(x)
        if is_narrow() and ax.get_xscale() == "linear":
            ax.xaxis.set_major_locator(MaxNLocator(2))
    for ax, row in zip(axes[:, 0], rows, strict=True):
        title = _title(row, "\n", with_slope=dataset.sizes.get("a", 1) > 1)
        ax.set_ylabel(f"{title}\n{y}")


def _bounded_steps_line(ax: Axes, x: _Axis, y: _Axis) -> None:
    beta1 = np.concatenate([np.linspace(0, 0.99, 200), 1 - np.geomspace(0.01, 1e-9, 200)])
    line = ax.plot(x.of(beta1), y.of(beta1**2), color="black", ls="--")
    line[0].set_path_effects(casing("white", 1.8))


def _mark_start(bar: Colorbar, distance: float | None) -> None:
    """Marks the initial distance: colours beyond it are farther from x* than the start."""
    low, high = bar.norm.vmin, bar.norm.vmax
    if distance is None or low is None or high is None or not low <= distance <= high:
        return
    is_upright = bar.orientation == "vertical"
    draw = bar.ax.axhline if is_upright else bar.ax.axvline
    draw(distance, color="black", lw=1.0, path_effects=casing("white", 2.5))
    if is_upright:
        where: dict[str, Any] = {"x": -0.25, "y": distance, "ha": "right", "va": "center"}
        where["transform"] = bar.ax.get_yaxis_transform()
    else:
        where = {"x": distance, "y": 1.25, "ha": "center", "va": "bottom"}
        where["transform"] = bar.ax.get_xaxis_transform()
    bar.ax.text(s="start", fontsize=6, **where)


def _footer(figure: Figure, dataset: xr.Dataset, slope: float | None = None) -> None:
    """Writes the settings that the axes do not show, as far as the data set records them."""
    told = settings(dataset, "problem", "C", "small", "dimension")
    if slope is not None:
        told.append(f"$a = {slope:.4g}$")
    elif told[:1] == ["counterexample"] and "a" not in dataset.dims:
        told.append("$a = 1/(n-1)^2$")
    told += settings(dataset, "num_steps", "steps", "x0", "step_size", "schedule")
    told += [one for one in settings(dataset, "epsilon") if not one.endswith("= 0$")]
    footer(figure, told)


def _log_norm(values: np.ndarray) -> LogNorm:
    """From the smallest to the largest finite positive gap, but at most seven decades."""
    positive = values[np.isfinite(values) & (values > 0)]
    high = float(np.quantile(positive, 0.999)) if positive.size else 1.0
    low = float(positive.min()) if positive.size else 0.1
    return LogNorm(max(low, high * 1e-7), max(high, low * 1.01))
