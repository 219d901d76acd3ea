"""Claims of the class-threshold study, and its rows."""

from typing import Any

import numpy as np
import xarray as xr

from adam_transition.sweeps.claims import Claim, assess
from adam_transition.theory import laws

_THEOREM = "theorem in docs/mathematics/class_threshold.md"


def claims(dataset: xr.Dataset) -> list[Claim]:
    """What is proved must hold on every table; and how much of it is attained."""
    schemes = set(dataset["sampling"].values)
    found = [_holds(dataset)]
    if "with_replacement" in schemes:
        found += [_attained(dataset), _counterexample(dataset)]
    if "cyclic" in schemes:
        found.append(_law_of_cyclic(dataset))
        if "with_replacement" in schemes:
            found.append(_worst_order(dataset))
    return found


def _holds(dataset: xr.Dataset) -> Claim:
    ratio = dataset["sufficient"] / dataset["hardest"]
    return assess(
        "enough_is_enough",
        "No table that was found has a positive drift at a β2 that is proved to be enough (largest "
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


def _law_of_cyclic(dataset: xr.Dataset) -> Claim:
    one = dataset.sel(sampling="cyclic").isel(beta1=0, n=-1)
    d1, q = one["d1"].values, one["hardest"].values
    is_large = (d1 >= float(one["n"]) ** 2) & (q < 1)  # where the law of first order may hold
    law = laws.fit_power_law(d1[is_large], q[is_large]) if is_large.sum() >= 4 else None
    return assess(
        "cyclic_class_falls_like_the_root",
        "In cyclic order the hardest table's 1 − β2* falls like 1/√D1 at fixed n (fitted exponent "
        "at the largest n and smallest β1, D1 ≥ n²)",
        "docs/mathematics/class_threshold.md: the bound falls like 1/√(n D1)",
        measured=law.exponent if law else np.nan,
        uncertainty=2 * law.stderr if law else 0.0,
        at_least=-0.53,
        at_most=-0.47,
        ours=True,
    )


def _worst_order(dataset: xr.Dataset) -> Claim:
    one = dataset.isel(beta1=0, n=-1)
    n = int(one["n"])
    at = int(np.abs(np.log(one["d1"].values / (2 * n**2))).argmin())
    cyclic, drawn = (
        float(one["hardest"].sel(sampling=scheme)[at]) for scheme in ("cyclic", "with_replacement")
    )
    return assess(
        "cyclic_is_the_worst_order_of_a_large_class",
        "From n = 40 on, the class needs a larger β2 in cyclic order than with replacement (ratio "
        f"of the 1 − β2* of the hardest tables at n = {n} and the D1 nearest to 2n²)",
        "docs/mathematics/class_threshold.md",
        measured=cyclic / drawn if n >= 40 else np.nan,
        at_most=1.0,
        ours=True,
    )


def rows(dataset: xr.Dataset) -> list[dict[str, Any]]:
    """For each (sampling, beta1, n, D1): what is enough, and a problem on which less fails.

    `enough` is the least β2 that is proved to be enough, null if none is. `fails_below` is the
    threshold of the hardest table found, whose `slopes` have sum 1; null if none was found that
    diverges. The same as 1 − β2 keep their digits.
    """
    found = []
    for where in np.ndindex(dataset["hardest"].shape):
        s, b, j, k = where
        n, d1 = int(dataset["n"][j]), float(dataset["d1"][j, k])
        enough, fails = (float(dataset[name].values[where]) for name in ("sufficient", "hardest"))
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
                "slopes": dataset["slopes"].values[where][:n].tolist() if diverges else None,
            }
        )
    return found
