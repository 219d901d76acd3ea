"""Figure of `experiments.advise --results`."""

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from adam_transition.networks import outcomes
from adam_transition.studies.plotting import COLOURS, DASHES, footer, is_narrow, panels, style


def probe_and_training(dataset: xr.Dataset) -> Figure:
    """β2*(B) from training, probe and rules; and the progress that the probe measures.

    Marks on the curves of the right panels show the threshold of training.
    """
    with style():
        figure, (left, *rest) = panels(1, 3, height=2.9)
        sizes = dataset["batch_size"].values
        low = dataset["measured"].transpose("batch_size", "trained_seed").values
        mean = outcomes.geometric_mean(low)
        # the mean of equal values may differ from them by rounding
        spread = np.stack([mean - low.min(axis=1), low.max(axis=1) - mean]).clip(0)
        left.errorbar(sizes, mean, spread, fmt="o-", ms=4, color=COLOURS[0], label="training")
        strict = float(dataset["kept"].max())
        for i, instant in enumerate(dataset["instant"].values):
            probed = dataset["probed"].sel(kept=strict, instant=instant)
            mean_probed = outcomes.geometric_mean(probed.transpose(..., "probed_seed").values)
            label = f"probe, {strict:.0%}, {instant}"
            left.plot(sizes, mean_probed, f"{'vs'[i]}--", ms=4, color=COLOURS[1 + i], label=label)
        for rule, line in (("half-life", "-"), ("clipped", ":")):
            left.plot(sizes, dataset["rule"].sel(rules=rule), line, color="0.5", label=rule)
        left.set(
            xscale="log", yscale="log", xlabel="batch size $B$", ylabel=r"$1 - \beta_2^*$",
            ylim=(1.1, mean.min() / 40),
        )  # fmt: skip
        left.legend(frameon=False, fontsize=6, loc="upper right")
        q = dataset["q"].values
        for ax, instant in zip(rest, dataset["instant"].values, strict=True):
            for j, size in enumerate(sizes):
                progress = dataset["progress"].sel(instant=instant, batch_size=size)
                values = progress.mean("probed_seed").values
                ax.semilogx(
                    q, values, ls=DASHES[j % 7], color=COLOURS[j % 7], label=f"$B = {size}$"
                )
                at = dataset["progress_at_threshold"].sel(instant=instant, batch_size=size)
                ax.plot(mean[j], at.mean(), "o", ms=4, color=COLOURS[j % 7])
            for kept in dataset["kept"].values:
                ax.axhline(kept, color="0.6", lw=0.6)
            ax.set(
                xlabel=r"$1 - \beta_2$", title=f"at {instant} of training", ylim=(0.4, 1.3),
                xlim=(q.max(), q.min()),
            )  # fmt: skip
        for ax in rest if is_narrow() else rest[:1]:
            ax.set_ylabel("progress over its limit")
        rest[1].legend(frameon=False, fontsize=6, loc="lower right")
        told = [
            "circles: the threshold of training",
            f"learning rate {dataset.attrs['learning_rate']}",
        ]
        footer(figure, told)
        return figure
