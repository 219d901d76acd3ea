"""Claims of the class-threshold study, and its rows."""

from typing import Any

import numpy as np
import xarray as xr

from adam_transition.sweeps.claims import Claim, assess
from adam_transition.theory.class_threshold import two_valued

_THEOREM = "theorem in docs/mathematics/class_threshold.md"


def claims(dataset: xr.Dataset) -> list[Claim]:
    """What is proved must hold on every table; and how much of it is attained."""
    found = [_holds(dataset)]
    if "with_replacement" in dataset["sampling"].values:
        found += [_attained(dataset), _counterexample(dataset)]
    return found


def _holds(dataset: xr.Dataset) -> Claim:
    ratio = dataset["sufficient"] / dataset["hardest"]
    return assess(
        "enough_is_enough",
        "No table of two slopes has a positive drift at a β2 that is proved to be enough (largest "
        "ratio of the proved to the exact 1 − β2)",
        _THEOREM,
        measured=float(ratio.max()),
        at_most=1.0,
        ours=True,
    )


def _attained(dataset: xr.Dataset) -> Claim:
    one = dataset.sel(sampling="with_replacement").isel(n=-1, beta1=0)
    is_large = (one["n"] >= 40) & (one["d1"] >= 4 * one["n"] ** 2)  # else the bound is not tight
    ratio = (one["hardest"] / one["sufficient"]).where(is_large)
    return assess(
        "enough_with_replacement_is_sharp",
        "With replacement the bound is nearly attained at n ≥ 40, D1 ≥ 4 n² (exact over proved "
        "1 − β2 at the largest n and D1, and the smallest β1)",
        _THEOREM,
        measured=float(ratio.isel(ratio=-1)),
        at_most=1.1,
        ours=True,
    )


def _counterexample(dataset: xr.Dataset) -> Claim:
    one = dataset.sel(sampling="with_replacement").isel(beta1=0)
    large = (one["d1"] >= 1.3 * one["n"] ** 2) & (one["hardest"] < 1)
    is_one = (one["num_positive"] == 1).where(one["num_positive"].notnull() & large)
    return assess(
        "the_counterexample_is_the_hardest",
        "With replacement and D1 ≥ 1.3 n², the paper's counterexample is the hardest table of two "
        "slopes (share of the settings, at the smallest β1)",
        "none: our computation",
        measured=float(is_one.mean()),
        at_least=1.0,
        ours=True,
    )


def rows(dataset: xr.Dataset) -> list[dict[str, Any]]:
    """For each (sampling, beta1, n, D1): what is enough, and a problem on which less fails.

    `enough` is the least β2 that is proved to be enough, null if none is. `fails_below` is the
    threshold of the hardest table of two slopes, whose `slopes` have sum 1; null if no such table
    diverges. The same as 1 − β2 keep their digits.
    """
    found = []
    for where in np.ndindex(dataset["hardest"].shape):
        s, b, j, k = where
        n, d1 = int(dataset["n"][j]), float(dataset["d1"][j, k])
        enough, fails = (float(dataset[name].values[where]) for name in ("sufficient", "hardest"))
        k_positive = int(dataset["num_positive"].values[where])
        diverges = fails < 1
        found.append(
            {
                "n": n,
                "d1": d1,
                "sampling": str(dataset["sampling"].values[s]),
                "beta1": float(dataset["beta1"][b]),
                "enough": 1 - enough if enough else None,
                "one_minus_enough": enough or None,
                "fails_below": 1 - fails if diverges else None,
                "one_minus_fails_below": fails if diverges else None,
                "slopes": two_valued(n, k_positive, d1).tolist() if diverges else None,
            }
        )
    return found
