"""Figures of `experiments.boundary`."""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from adam_transition.studies.boundary.data import D1_N
from adam_transition.studies.plotting import (
    COLOURS,
    DASHES,
    MARKERS,
    TITLES,
    footer,
    legend,
    panels,
    slope,
    style,
)
from adam_transition.theory import laws


def boundary_curves(dataset: xr.Dataset) -> Figure:
    """The boundary D = 0 in the (β1, β2) plane, a panel per slope a and sampling scheme."""
    with style():
        schemes, num_slopes = dataset["sampling"].values, dataset.sizes["a"]
        figure, axes = panels(
            num_slopes, len(schemes), height=0.5 + 2.4 * num_slopes, sharex=True, sharey=True,
            squeeze=False,
        )  # fmt: skip
        beta2 = np.linspace(0, 1, 400)
        for (k, i), ax in np.ndenumerate(axes):
            curves = dataset["curve"].isel(sampling=i, a=k)
            for j, n in enumerate(dataset["n"].values):
                line = curves.isel(n=j).values
                ax.plot(
                    line[:, 0], line[:, 1], ls=DASHES[j % 7], color=COLOURS[j % 7],
                    label=f"$n = {n}$",
                )  # fmt: skip
            ax.plot(np.sqrt(beta2), beta2, color="0.5", lw=0.8, label=r"$\beta_1 = \sqrt{\beta_2}$")
            title = TITLES[str(schemes[i])] + (f", {_slope(dataset, k)}" if num_slopes > 1 else "")
            ax.set(xlim=(0, 1), ylim=(0, 1), title=title, xlabel=r"$\beta_1$", ylabel=r"$\beta_2$")
            ax.label_outer()
        handles, _ = axes[0, 0].get_legend_handles_labels()
        legend(figure, handles, loc="outside right upper", columns=6)
        footer(figure, ["counterexample", *([_slope(dataset, 0)] if num_slopes == 1 else [])])
        return figure


def _slope(dataset: xr.Dataset, k: int) -> str:
    return slope(dataset["a_value"].values[:, k], dataset["n"].values)


def boundary_scaling(dataset: xr.Dataset) -> Figure:
    """1 − β2* at β1 = 0 against n, and against D1 at fixed n, with the first-order laws."""
    with style():
        figure, (left, right) = panels(1, 2, height=3.5)
        n = dataset["scaling_n"].values
        labels = (r"$a = 1/(n-1)^2$, cyclic", r"$a = 1$, cyclic")
        for i, (values, label) in enumerate(zip(dataset["scaling"].values, labels, strict=True)):
            left.loglog(n, values, f"{MARKERS[i]}-", ms=3, color=COLOURS[i], label=label)
        left.errorbar(
            dataset["replacement_n"], dataset["replacement"], 2 * dataset["replacement_stderr"],
            fmt="D", ms=4, color=COLOURS[2], label=r"$a = 1$, with replacement",
        )  # fmt: skip
        law = [laws.cyclic_law(k, 1.0) for k in n.tolist()]
        left.loglog(n, law, ":", color="0.3", label=r"$4/(a n^2)$")
        left.loglog(n, 1.0 / n, "-.", color="0.3", label=r"slope $-1$")
        left.loglog(
            n, float(n[0]) ** 5 / n**5.0, "--", color="0.3", label=r"sufficient, slope $-5$"
        )
        left.set(xlabel="$n$", ylabel=r"$1 - \beta_2^*$", ylim=(1e-9, 3))
        right.loglog(
            dataset["against_a_d1"], dataset["against_a"], "o-", ms=3, color=COLOURS[0],
            label=f"$n = {D1_N}$, cyclic",
        )  # fmt: skip
        right.loglog(
            dataset["against_a_d1"], 4 / np.sqrt(dataset["against_a_d1"]), ":", color="0.3",
            label=r"$4/\sqrt{D_1}$",
        )  # fmt: skip
        right.set(xlabel="$D_1$", ylabel=r"$1 - \beta_2^*$")
        right.legend(frameon=False)
        legend(figure, left.get_legend_handles_labels()[0], columns=3)
        footer(figure, ["counterexample", r"$\beta_1 = 0$"])
        return figure
