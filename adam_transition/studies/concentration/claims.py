"""What the concentration lemma's study claims: the lemma, and the direction of the update."""

from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy import stats

from adam_transition.studies.concentration.data import LEMMA_DIMS, READINGS
from adam_transition.sweeps.claims import Claim, assess


def claims(dataset: xr.Dataset) -> list[Claim]:
    """The lemma, and the direction of the update."""
    return [_lemma_claim(dataset), *_direction_claims(dataset)]


def most_failures(
    share: Float[np.ndarray, "..."], num_draws: int, level: float
) -> Float[np.ndarray, "..."]:
    """The greatest probability of failing that a share of draws leaves open (Clopper–Pearson)."""
    count = np.rint(np.asarray(share) * num_draws)
    return np.where(
        count >= num_draws,
        1.0,
        stats.beta.ppf(1 - level, count + 1, np.maximum(num_draws - count, 1)),
    )


def _lemma_claim(dataset: xr.Dataset) -> Claim:
    """Failures beside those allowed, where as many draws can tell."""
    # draws of a chain lie three memories apart: a correlation of e⁻³ costs a tenth of them
    num_draws = int(dataset.attrs["num_samples"] / 1.1)
    failures = dataset["failures"].sel(reading=READINGS[0]).transpose("table", *LEMMA_DIMS)
    allowed = (1 - dataset["probability"]).transpose(*LEMMA_DIMS).values
    level = 0.025 / failures.size
    told = allowed > float(most_failures(np.zeros(()), num_draws, level))
    excess = np.where(told, failures.values - allowed, -np.inf)
    error = most_failures(failures.values, num_draws, level) - failures.values
    worst = np.unravel_index(np.argmax(excess + error), excess.shape)
    told_q = dataset["one_minus_beta2"].transpose(*LEMMA_DIMS).values[told]
    where = (
        f"at 1 − β2 from {told_q.min():.1g} to {told_q.max():.1g}, n = "
        f"{', '.join(str(n) for n in dataset['n'].values[told.any(axis=(1, 2))])}"
        if told.any()
        else "nowhere"
    )
    return assess(
        "lemma",
        "C_lower ≤ √(E_k v/v) ≤ C_upper, with E_k the mean given everything before the draw, fails "
        "no more often than the lemma allows, where it says anything (largest excess of the share "
        f"of draws, binomial error; of {int(told.sum())} (n, δ, β2) {where}, {num_draws} draws "
        "each can tell)",
        "Concentration lemma",
        measured=float(excess[worst]) if told.any() else np.nan,
        uncertainty=float(error[worst]),
        at_most=0.0,
    )


def _direction_claims(dataset: xr.Dataset) -> list[Claim]:
    wrong, q = dataset["wrong_share"], 1 - dataset["direction_beta2"].values
    # 1 − cosine of the angle to the limit, from one β2 to the next, over the last decade or so
    angle = 1 - dataset["cosine_to_limit"].transpose("sampling", "direction_beta2").values
    late = q <= 20 * q.min()
    exponents = np.diff(np.log(angle[:, late]), axis=1) / np.diff(np.log(q[late]))
    rises = wrong.diff("direction_beta2")
    return [
        assess(
            "direction_large_beta2",
            "In many dimensions ever fewer coordinates of E[m/√v] have the wrong sign as β2 grows "
            "(largest rise of their share; it falls from "
            f"{float(wrong.isel(direction_beta2=0).max()):.3f} to "
            f"{float(wrong.isel(direction_beta2=-1).max()):.3f} at β2 = {1 - q.min():g})",
            "Direction of the update",
            measured=float(rises.max()) if bool(rises.notnull().all()) else np.nan,
            at_most=0.0,
        ),
        assess(
            "direction_limit",
            "E[m/√v] tends to ∇f/√(E g²), each coordinate scaled by its own size (exponent with "
            "which 1 − cosine falls with 1 − β2, the least from one β2 to the next at "
            f"1 − β2 ≤ {20 * q.min():.2g})",
            "ergodic mean",
            measured=float(exponents.min()),
            at_least=1.0,
            ours=True,
        ),
    ]


def rows(dataset: xr.Dataset) -> list[dict[str, Any]]:
    """For each (table, n, δ, β2): what the lemma allows, what was found, and the remark beside it.

    `over_all_histories` is the share of draws outside the band if E v were the mean over all
    histories; `spread_over_law` the spread of √(E v/v) over its first order in 1 − β2.
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
