"""Claims of the concentration study: the lemma, and the direction of the update."""

from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import ArrayLike, Float
from scipy import stats

from adam_transition.studies.concentration.data import DIMENSION, LEMMA_DIMS, READINGS
from adam_transition.sweeps.claims import Claim, assess

_LATE = 20  # times the smallest 1 − β2: the last decade or so
_LEVEL = 0.025  # of the binomial bounds together: the upper end of a 95 % interval


def claims(dataset: xr.Dataset) -> list[Claim]:
    """Judges the lemma and the direction of the update."""
    return [_lemma_claim(dataset), *_direction_claims(dataset)]


def most_failures(
    share: Float[ArrayLike, "..."], num_draws: int, level: float
) -> Float[np.ndarray, "..."]:
    """Upper confidence bound on a probability of failure (Clopper–Pearson).

    Args:
      share: share of the draws that fail.
      num_draws: number of independent draws.
      level: probability that the bound is below the true value.
    """
    count = np.rint(np.asarray(share) * num_draws)
    return np.where(
        count >= num_draws,
        1.0,
        stats.beta.ppf(1 - level, count + 1, np.maximum(num_draws - count, 1)),
    )


def _lemma_claim(dataset: xr.Dataset) -> Claim:
    """Compares failures with those allowed, where there are enough draws to decide."""
    # draws of a chain lie three memories apart: a correlation of e⁻³ costs a tenth of them
    num_draws = int(dataset.attrs["num_samples"] / 1.1)
    failures = dataset["failures"].sel(reading=READINGS[0]).transpose("table", *LEMMA_DIMS)
    allowed = (1 - dataset["probability"]).transpose(*LEMMA_DIMS).values
    level = _LEVEL / failures.size
    decidable = allowed > float(most_failures(np.zeros(()), num_draws, level))
    excess = np.where(decidable, failures.values - allowed, -np.inf)
    error = most_failures(failures.values, num_draws, level) - failures.values
    worst = np.unravel_index(np.argmax(excess + error), excess.shape)
    q = dataset["one_minus_beta2"].transpose(*LEMMA_DIMS).values[decidable]
    where = (
        f": 1 − β2 from {q.min():.1g} to {q.max():.1g}, n = "
        f"{', '.join(str(n) for n in dataset['n'].values[decidable.any(axis=(1, 2))])}"
        if decidable.any()
        else ""
    )
    return assess(
        "lemma",
        "C_lower ≤ √(E_k v/v) ≤ C_upper, with E_k the expectation given everything before the "
        "draw, fails no more often than the lemma allows (largest excess of the share of draws, "
        f"binomial error, over the {int(decidable.sum())} (n, δ, β2) at which {num_draws} draws "
        f"are enough to decide{where})",
        "Concentration lemma",
        measured=float(excess[worst]) if decidable.any() else np.nan,
        uncertainty=float(error[worst]),
        at_most=0.0,
    )


def _direction_claims(dataset: xr.Dataset) -> list[Claim]:
    wrong, q = dataset["wrong_share"], 1 - dataset["direction_beta2"].values
    # 1 − cosine of the angle to the limit, from one β2 to the next
    distance = 1 - dataset["cosine_to_limit"].transpose("sampling", "direction_beta2").values
    late = q <= _LATE * q.min()
    exponents = np.diff(np.log(distance[:, late]), axis=1) / np.diff(np.log(q[late]))
    rises = wrong.diff("direction_beta2")
    return [
        assess(
            "direction_large_beta2",
            f"In {DIMENSION} dimensions ever fewer coordinates of E[m/√v] have the wrong sign as "
            "β2 grows (largest increase of their share from one β2 to the next; it falls from "
            f"{float(wrong.isel(direction_beta2=0).max()):.3f} to "
            f"{float(wrong.isel(direction_beta2=-1).max()):.3f} at β2 = {1 - q.min():g})",
            "Direction of the update",
            measured=float(rises.max()) if bool(rises.notnull().all()) else np.nan,
            at_most=0.0,
        ),
        assess(
            "direction_limit",
            "As β2 → 1, E[m/√v] tends to the direction of ∇f/√(E g²), each coordinate scaled by "
            "its own size (exponent of 1 − cosine in 1 − β2, the smallest from one β2 to the next "
            f"at 1 − β2 ≤ {_LATE * q.min():.2g})",
            "ergodic mean",
            measured=float(exponents.min()),
            at_least=1.0,  # an angle of order √(1 − β2) or smaller
            ours=True,
        ),
    ]


def rows(dataset: xr.Dataset) -> list[dict[str, Any]]:
    """For each (table, n, δ, β2): the share of failures that the lemma allows, and those measured.

    `over_all_histories` is the share of draws outside the band if E v were the mean over all
    histories; `spread_over_law` is the spread of √(E v/v) over its first-order value in 1 − β2.
    """
    found = []
    for t, i, j, k in np.ndindex(dataset["spread"].shape):
        one = dataset.isel(table=t, n=i, relative_delta=j, relative_one_minus_beta2=k)
        given, histories = one["failures"].values
        found.append(
            {
                "table": str(one["table"].values),
                "n": int(one["n"]),
                "delta": float(one["relative_delta"]) / (4 * int(one["n"])),
                "one_minus_beta2": float(one["one_minus_beta2"]),
                "allowed": 1 - float(one["probability"]),
                "given_the_past": float(given),
                "over_all_histories": float(histories),
                "spread_over_law": float(one["spread"] / one["spread_law"]),
            }
        )
    return found
