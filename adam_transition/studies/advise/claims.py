"""Claims of the advice study: how well the probe predicts the threshold of training."""

import itertools
import math
from typing import Any

import numpy as np
import xarray as xr

from adam_transition.networks import outcomes
from adam_transition.studies.advise.data import INSTANTS, KEPT
from adam_transition.sweeps.claims import Claim, assess

_FINDS = 0.9  # a share that counts as "at every batch size": a convention
_OCTAVES = 1  # a prediction within a factor of 2 counts as right: a convention


def claims(dataset: xr.Dataset) -> list[Claim]:
    """Judges the probe's predictions; uncertainties are over seeds."""
    low = outcomes.geometric_mean(dataset["measured"].transpose("batch_size", ...).values)
    found = []
    for kept, instant in itertools.product(KEPT, INSTANTS):
        probed = dataset["probed"].sel(kept=kept, instant=instant)
        ratios = probed.transpose("probed_seed", "batch_size").values / low
        finds = np.isfinite(ratios).all(axis=0)
        error, share = outcomes.Mean(math.nan, math.nan), outcomes.mean(np.isfinite(ratios).mean(1))
        if finds.any():
            error = outcomes.mean(np.abs(np.log2(ratios[:, finds])).max(axis=1))
        probe = f"The probe at {instant} of training, asking for {kept:.0%} of the progress,"
        name = f"{kept:g}_{instant}".replace(" ", "_")
        found += [
            assess(
                f"probe_finds_{name}",
                f"{probe} finds a threshold at every batch size at which training has one (share "
                "of these batch sizes)",
                "not in the paper",
                measured=share.value,
                uncertainty=share.half_width,
                at_least=_FINDS,
                ours=True,
            ),
            assess(
                f"probe_error_{name}",
                f"{probe} predicts the 1 − β2* of training within a factor of {2**_OCTAVES} "
                f"(largest error, in log2, over the {int(finds.sum())} of {len(finds)} batch sizes "
                "at which it finds a threshold)",
                "not in the paper",
                measured=error.value,
                uncertainty=error.half_width,
                at_most=_OCTAVES,
                ours=True,
            ),
        ]
    smallest = dataset["progress_at_threshold"].min(("instant", "batch_size")).values
    progress = outcomes.mean(smallest)
    found.append(
        assess(
            "direction_kept",
            "At the β2* of training the mean update still points downhill and keeps at least "
            f"{KEPT[0]:.0%} of its progress: the threshold of networks is not a reversal of the "
            "direction at frozen gradients (smallest progress over batch sizes and instants)",
            "not in the paper",
            measured=progress.value,
            uncertainty=progress.half_width,
            at_least=KEPT[0],
            ours=True,
        )
    )
    return found


def rows(dataset: xr.Dataset) -> list[dict[str, Any]]:
    """β2* at each batch size from training, from the probe and from the rules; None if none."""
    low = outcomes.geometric_mean(dataset["measured"].transpose("batch_size", ...).values)
    found = []
    for j, size in enumerate(dataset["batch_size"].values):
        one = dataset.sel(batch_size=size)
        row: dict[str, Any] = {"batch_size": int(size), "training": 1 - float(low[j])}
        for kept, instant in itertools.product(KEPT, INSTANTS):
            probed = one["probed"].sel(kept=kept, instant=instant).values
            mean = float(outcomes.geometric_mean(probed))
            row[f"probe, {kept:.0%}, {instant}"] = 1 - mean if math.isfinite(mean) else None
        row |= {rule: 1 - float(one["rule"].sel(rules=rule)) for rule in one["rules"].values}
        found.append(row)
    return found
