"""Figures of `experiments.boundary`."""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from adam_transition.studies.boundary.data import D1_N
from adam_transition.studies.plotting import COLOURS, TITLES, style, subplots
from adam_transition.theory import laws


def boundary_curves(dataset: xr.Dataset) -> Figure:
    """The boundary D = 0 in the (β1, β2) plane, one panel per sampling scheme."""
    with style():
        schemes = dataset["sampling"].values
        figure, axes = subplots(1, len(schemes), figsize=(7, 2.9), sharey=True, squeeze=False)
        beta2 = np.linspace(0, 1, 400)
        for i, ax in enumerate(axes[0]):
            for j, n in enumerate(dataset["n"].values):
                line = dataset["curve"][i, j].values
                ax.plot(line[:, 0], line[:, 1], color=COLOURS[j % 7], label=f"$n = {n}$")
            ax.plot(np.sqrt(beta2), beta2, "k--", lw=0.8, label=r"$\beta_1 = \sqrt{\beta_2}$")
            ax.set(xlim=(0, 1), ylim=(0, 1), title=TITLES[schemes[i]], xlabel=r"$\beta_1$")
        axes[0, 0].set_ylabel(r"$\beta_2$")
        handles, labels = axes[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", frameon=False)
        return figure


def boundary_scaling(dataset: xr.Dataset) -> Figure:
    """1 − β2* at β1 = 0 against n, and against D1 at fixed n, with the first-order laws."""
    with style():
        figure, (left, right) = subplots(1, 2, figsize=(7, 3.5))
        n = dataset["scaling_n"].values
        for values, colour, label in zip(
            dataset["scaling"].values,
            COLOURS,
            (r"$a = 1/(n-1)^2$, cyclic", r"$a = 1$, cyclic"),
            strict=False,
        ):
            left.loglog(n, values, "o-", ms=3, color=colour, label=label)
        left.errorbar(
            dataset["replacement_n"], dataset["replacement"], 2 * dataset["replacement_stderr"],
            fmt="s", ms=4, color=COLOURS[2], label=r"$a = 1$, with replacement",
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
        figure.legend(
            *left.get_legend_handles_labels(), loc="outside lower left", ncols=3, frameon=False
        )
        return figure
