"""Claims of the boundary study: the measured boundary against first-order theory."""

from typing import Any

import numpy as np
import xarray as xr

from adam_transition.problems import counterexample_table
from adam_transition.studies.boundary.data import D1_N, LAW_N
from adam_transition.sweeps.claims import Claim, assess
from adam_transition.theory import laws


def claims(dataset: xr.Dataset) -> list[Claim]:
    """Compares exponents and laws with our first-order theory.

    Tolerances are the next-order terms of the laws. That 1 − β2* falls no faster than the n⁻⁵ that
    suffices for Theorem 3.1 is not a claim: here it follows from the laws and cannot fail.
    """
    n = dataset["scaling_n"].values
    at_slope_1 = dataset["scaling"].values[1]
    found = [
        assess(
            "cyclic_law",
            "In cyclic order (1 − β2*)·a·n²/4 tends to 1 as n → ∞ (value at a = 1, β1 = 0, "
            f"n = {n[-1]}, where the next term of the law is 1/n)",
            "first-order theory",
            measured=float(at_slope_1[-1] / laws.cyclic_law(n[-1], 1.0)),
            at_least=1.0,
            at_most=1 + 2 / n[-1],  # twice the next term
            ours=True,
        )
    ]
    against_a = dataset["against_a"].values
    smallest_a = 100.0  # makes the tolerance on the exponent small
    steep = dataset["against_a_a"].values >= smallest_a * (1 - 1e-9)
    law = laws.fit_power_law(dataset["against_a_d1"].values[steep], against_a[steep])
    tolerance = 1 / (D1_N * smallest_a)
    found.append(
        assess(
            "d1_law",
            f"1 − β2* falls like 1/√D1 at n = {D1_N} for a ≥ {smallest_a:g} (fitted exponent; "
            f"corrections are of order 1/(n a) ≤ {tolerance:g})",
            "first-order theory",
            measured=law.exponent,
            uncertainty=2 * law.stderr,
            at_least=-0.5 - tolerance,
            at_most=-0.5 + tolerance,
            ours=True,
        )
    )
    last = dataset["replacement"].isel(replacement_n=-1)
    stderr = dataset["replacement_stderr"].isel(replacement_n=-1)
    table = counterexample_table(int(last["replacement_n"]), 1.0)
    law_value = laws.with_replacement_law(table, 0.0)
    found.append(
        assess(
            "with_replacement_law",
            "With replacement 1 − β2* is 2E[g]E[g²]/Cov(g, g²) to first order (ratio of the two at "
            f"a = 1, β1 = 0, n = {LAW_N[-1]}; the allowed deviation is the law's own value)",
            "first-order theory",
            measured=float(last / law_value),
            uncertainty=float(2 * stderr / law_value),
            at_least=1 - law_value,  # the next term is of relative size 1 − β2*
            at_most=1 + law_value,
            ours=True,
        )
    )
    return [*found, *_order_of_schemes(dataset)]


def _order_of_schemes(dataset: xr.Dataset) -> list[Claim]:
    """How the threshold rises from cyclic order to shuffling to sampling with replacement."""
    order = ("cyclic", "random_shuffling", "with_replacement")
    if not set(order) <= set(dataset["sampling"].values):
        return []
    # the highest edge at each (n, a, β1), where all three schemes have one
    highest = dataset["beta2_high"].max("interval").sel(sampling=list(order))
    return [
        assess(
            "order_of_schemes",
            "On the counterexample, the more random the order, the larger the β2 needed: cyclic, "
            "random shuffling, with replacement (smallest increase of β2* from one scheme to the "
            "next, over n, a and β1)",
            "none: Theorems 3.1 and 3.3 have thresholds of one kind",
            measured=float(highest.diff("sampling").min()),
            uncertainty=4 * float(dataset["stderr"].max().fillna(0)),
            at_least=0.0,
            ours=True,
        )
    ]


def rows(dataset: xr.Dataset) -> list[dict[str, Any]]:
    """The intervals of divergence as plain rows, one for each (n, a, sampling, β1)."""
    found = []
    low, high, stderr = (dataset[name] for name in ("beta2_low", "beta2_high", "stderr"))
    for i, j, k, m in np.ndindex(low.shape[:4]):
        kept = np.isfinite(low[i, j, k, m].values)
        found.append(
            {
                "n": int(dataset["n"][j]),
                "a": float(dataset["a_value"][j, k]),
                "sampling": str(dataset["sampling"].values[i]),
                "beta1": float(dataset["beta1"][m]),
                "diverges": np.stack(
                    [low[i, j, k, m].values[kept], high[i, j, k, m].values[kept]], axis=1
                ).tolist(),
                "stderr": stderr[i, j, k, m].values[kept].tolist(),
            }
        )
    return found
