"""Claims of `experiments.networks`: the paper's figures 1c and 1d."""

import numpy as np
import xarray as xr

from adam_transition.networks import outcomes
from adam_transition.sweeps.claims import Claim, assess
from adam_transition.theory import convergence

LARGE = 0.99
"""The smallest β2 that counts as large."""

_ALMOST_ALL = 0.9  # a share that counts as "almost every" or "every": a convention


def claims(dataset: xr.Dataset) -> list[Claim]:
    """Judges the paper's claims about networks, for each task; uncertainties are over seeds."""
    found = []
    for task in dataset["task"].values:
        found += _of_task(dataset.sel(task=task), task)
    return found


def _of_task(one: xr.Dataset, task: str) -> list[Claim]:
    claims = [*_ends(one, task), _fixed_rate(one, task), _spikes(one, task)]
    sizes = one["batch_size"].values
    return [*claims, _batch(one, task)] if sizes.min() < sizes.max() else claims


def _ends(one: xr.Dataset, task: str) -> list[Claim]:
    """A small β2 is bad, and a large one good."""
    sizes = one["batch_size"].values
    small, smallest = int(sizes.min()), float(one["beta2"].min())
    bounded = _bounded(one)
    bad = ~one["good_by_seed"].sel(batch_size=small)
    at_smallest = outcomes.mean(bad.sel(beta2=smallest).mean("beta1").values)
    good = one["good_by_seed"].sel(batch_size=small).where(bounded & (one["beta2"] >= LARGE))
    sufficient = outcomes.mean(good.mean(("beta1", "beta2")).values)
    return [
        assess(
            f"small_beta2_{task}",
            f"{task}, batch size {small}: β2 = {smallest:.3g} is bad for almost every β1 (share "
            "of the values of β1, learning rate tuned per cell)",
            "figures 1c, 1d",
            measured=at_smallest.value,
            uncertainty=at_smallest.half_width,
            at_least=_ALMOST_ALL,
        ),
        assess(
            f"large_beta2_{task}",
            f"{task}, batch size {small}: with β2 ≥ {LARGE} every β1 < √β2 is good (share of the "
            "cells, learning rate tuned per cell)",
            "figures 1c, 1d",
            measured=sufficient.value,
            uncertainty=sufficient.half_width,
            at_least=_ALMOST_ALL,
        ),
    ]


def _fixed_rate(one: xr.Dataset, task: str) -> Claim:
    small, smallest = int(one["batch_size"].min()), float(one["beta2"].min())
    fixed = one["good_fixed"].sel(batch_size=small)
    share = 1 - fixed.sel(beta2=smallest).mean("beta1")
    return assess(
        f"fixed_rate_{task}",
        f"{task}, batch size {small}: β2 = {smallest:.3g} is bad for almost every β1 at every "
        "fixed learning rate (share of the values of β1, smallest over the learning rates)",
        "figures 1c, 1d",
        measured=float(share.min()),
        at_least=_ALMOST_ALL,
    )


def _spikes(one: xr.Dataset, task: str) -> Claim:
    small, bounded = int(one["batch_size"].min()), _bounded(one)
    spikes = one["spikes"].sel(batch_size=small).where(bounded).mean(("learning_rate", "beta1"))
    is_large = one["beta2"] >= LARGE
    excess = spikes.sel(beta2=is_large).mean("beta2") - spikes.sel(beta2=~is_large).mean("beta2")
    difference = outcomes.mean(excess.values)
    return assess(
        f"spikes_{task}",
        f"{task}, batch size {small}: loss spikes are no rarer at β2 ≥ {LARGE} than below "
        "(difference in spikes per run, β1 < √β2)",
        "Bai et al. (2025, arXiv:2506.04805)",
        measured=difference.value,
        uncertainty=difference.half_width,
        at_least=0,
    )


def _batch(one: xr.Dataset, task: str) -> Claim:
    small, large = int(one["batch_size"].min()), int(one["batch_size"].max())
    bounded, bad = _bounded(one), ~one["good_by_seed"].sel(batch_size=small)
    wider = (
        bad.where(bounded).mean(("beta1", "beta2"))
        - (~one["good_by_seed"].sel(batch_size=large)).where(bounded).mean(("beta1", "beta2"))
    )  # fmt: skip
    growth = outcomes.mean(wider.values)
    return assess(
        f"batch_{task}",
        f"{task}: the bad region grows as the batch shrinks from {large} to {small} "
        "(difference of its share of the cells with β1 < √β2)",
        "figure 3a",
        measured=growth.value,
        uncertainty=growth.half_width,
        at_least=0,
    )


def _bounded(one: xr.Dataset) -> xr.DataArray:
    """β1 < √β2, over (beta1, beta2)."""
    beta1, beta2 = np.meshgrid(one["beta1"].values, one["beta2"].values, indexing="ij")
    return xr.DataArray(
        convergence.bounded_steps(beta1, 1 - beta2),
        {"beta1": one["beta1"], "beta2": one["beta2"]},
        ("beta1", "beta2"),
    )
