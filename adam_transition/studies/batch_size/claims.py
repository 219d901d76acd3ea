"""Claims of `experiments.batch_size`: the paper's figure 3a, and beyond."""

import math
from typing import Any

import numpy as np
import xarray as xr

from adam_transition.networks import outcomes
from adam_transition.studies.batch_size.data import BUDGETS, EQUAL_STEPS, LAW, QUARTER, TUNINGS
from adam_transition.sweeps.claims import Claim, assess, assess_equal

_OF_THE_GRID = 0.01
"""Bound on the error of an exponent due to thresholds between grid points of β2: it is 0.005 on
planted laws."""

_OCTAVES = 1  # a prediction within a factor of 2 counts as right: a convention
_EXCESS = 1e-3  # of the log loss, 0.1 % of the loss: a convention
_WINDOW = 0.9  # a share that counts as "there is a window": a convention


def claims(dataset: xr.Dataset) -> list[Claim]:
    """Claims with 95 % confidence intervals over seeds."""
    return [
        *_trend(dataset),
        _fixed_rate(dataset),
        *_law(dataset),
        _half_life(dataset),
        _samples(dataset),
        *_optimum(dataset),
        _upper_edge(dataset),
    ]


def rows(dataset: xr.Dataset) -> list[dict[str, Any]]:
    """β2*(B) and the upper edge, with intervals, for each budget and method of tuning."""
    found = []
    for budget in dataset["budget"].values:
        for tuning in dataset["tuning"].values:
            one = dataset.sel(budget=budget, tuning=tuning)
            for size in dataset["batch_size"].values:
                cell = one.sel(batch_size=size)
                row = {"budget": budget, "tuning": tuning, "batch_size": int(size)}
                for edge, name in (("low", "beta2_star"), ("high", "beta2_too_large")):
                    row[name], row[f"{name}_interval"] = _beta2(cell[edge].values)
                row["interior"] = bool(cell["interior"])
                found.append(row)
    return found


def _beta2(edge: np.ndarray) -> tuple[float | None, list[float] | None]:
    """β2 at an edge and its interval; None where a seed has no edge on the grid."""
    if not (np.isfinite(edge).all() and (edge > 0).all()):
        return None, None
    log_q = outcomes.mean(np.log(edge))
    ends = [1 - math.exp(log_q.value + sign * log_q.half_width) for sign in (1, -1)]
    interval = [max(0.0, end) for end in ends] if math.isfinite(log_q.half_width) else None
    return 1 - math.exp(log_q.value), interval


def _widest(dataset: xr.Dataset) -> str:
    return dataset["tuning"].values[dataset["widest"].values].item()


def _trend(dataset: xr.Dataset) -> list[Claim]:
    found = []
    for budget in BUDGETS[:2]:
        for tuning in TUNINGS:
            tau = outcomes.mean(dataset["trend"].sel(budget=budget, tuning=tuning).values)
            found.append(
                assess(
                    f"trend_{budget}_{tuning}".replace(" ", "_"),
                    f"The smaller the batch, the larger the β2 needed: {budget}, learning rate "
                    f"tuned {tuning} (Kendall's τ of 1 − β2* with B)",
                    "figure 3a",
                    measured=tau.value,
                    uncertainty=tau.half_width,
                    at_least=0,
                )
            )
    return found


def _fixed_rate(dataset: xr.Dataset) -> Claim:
    """The smallest τ among the fixed learning rates at which three or more batch sizes learn."""
    taus = [
        outcomes.mean(dataset["trend"].sel(budget=BUDGETS[0], tuning=tuning).values)
        for tuning in dataset["tuning"].values[len(TUNINGS) :]
    ]
    taus = [tau for tau in taus if math.isfinite(tau.value)]
    smallest = min(taus, default=outcomes.Mean(math.nan, math.nan), key=lambda tau: tau.value)
    return assess(
        "trend_fixed_rate",
        f"The smaller the batch, the larger the β2 needed, at every fixed learning rate: "
        f"{BUDGETS[0]} (smallest Kendall's τ of 1 − β2* with B over the {len(taus)} of "
        f"{dataset.sizes['learning_rate']} learning rates at which three or more batch sizes "
        "learn)",
        "figure 3a",
        measured=smallest.value,
        uncertainty=smallest.half_width,
        at_least=0,
    )


def _law(dataset: xr.Dataset) -> list[Claim]:
    """1 − β2* ∝ B^b η0^e over all fixed learning rates."""
    exponent = dataset["exponent"].sel(budget=BUDGETS[0])
    of_batch, of_rate = (outcomes.mean(exponent.sel(law=name).values) for name in LAW)
    total = outcomes.mean(exponent.sum("law", skipna=False).values)
    where = f"{BUDGETS[0]}, all fixed learning rates"
    return [
        assess_equal(
            "linear_in_batch",
            f"1 − β2* is proportional to B, as for skewed noise (exponent of B; {where}; to be "
            "distinguished from 1/2, the exponent of a standard error)",
            "batch law",
            measured=of_batch.value,
            value=1.0,
            uncertainty=of_batch.half_width,
            resolution=0.25,  # half of the distance to 1/2
            tolerance=_OF_THE_GRID,
            ours=True,
        ),
        assess(
            "learning_rate",
            f"The larger the learning rate, the larger the β2 needed (exponent of η0; {where})",
            "not in the paper",
            measured=of_rate.value,
            uncertainty=of_rate.half_width,
            at_most=0,
            ours=True,
        ),
        assess_equal(
            "noise_scale",
            "1 − β2* follows B/η0, the inverse noise scale: halving the batch has the effect of "
            f"doubling the learning rate (sum of the exponents of B and η0; {where}; to be "
            "distinguished from 1, a threshold that depends on B alone)",
            "not in the paper",
            measured=total.value,
            value=0.0,
            uncertainty=total.half_width,
            resolution=0.5,  # half of the distance to 1
            tolerance=_OF_THE_GRID,
            ours=True,
        ),
    ]


def _half_life(dataset: xr.Dataset) -> Claim:
    """The largest error of the rule over interior batch sizes, as a factor of 1 − β2."""
    tuning = _widest(dataset)
    one = dataset.sel(budget=BUDGETS[0], tuning=tuning)
    used = one["interior"].values
    error = outcomes.Mean(math.nan, math.nan)
    if used.sum() > 1:
        ratios = one["low"] / one["rule"].sel(rules="half-life")
        ratios = ratios.isel(batch_size=used).transpose("seed", "batch_size")
        error = outcomes.mean(np.abs(np.log2(ratios.values)).max(axis=1))
    return assess(
        "half_life_rule",
        "The half-life rule β2^(B'/B), applied from the largest batch with a threshold, predicts "
        f"1 − β2* within a factor of {2**_OCTAVES} (largest error, in log2; {BUDGETS[0]}, "
        f"{tuning})",
        "Marek et al. (2025, arXiv:2507.07101)",
        measured=error.value,
        uncertainty=error.half_width,
        at_most=_OCTAVES,
    )


def _samples(dataset: xr.Dataset) -> Claim:
    """Shift of log(1 − β2*) at a quarter of the samples and the same B, over log 4."""
    tuning = _widest(dataset)
    whole, quarter = (dataset.sel(budget=budget, tuning=tuning) for budget in (BUDGETS[0], QUARTER))
    used = whole["interior"].values & quarter["interior"].values
    shift = outcomes.Mean(math.nan, math.nan)
    if used.any():
        change = (quarter["low"] / whole["low"]).isel(batch_size=used)
        change = change.transpose("seed", "batch_size")
        shift = outcomes.mean(np.log(change.values).mean(axis=1) / math.log(4))
    return assess_equal(
        "batch_size_not_n",
        "The threshold follows the batch size B and not the number of mini-batches n: it does not "
        f"move with {QUARTER} (exponent of 1 − β2* in 1/n at fixed B; {tuning}; to be "
        "distinguished from 1, a threshold that depends on n alone)",
        "theorems 3.1, 3.3 speak of n",
        measured=shift.value,
        value=0.0,
        uncertainty=shift.half_width,
        resolution=0.5,  # half of the distance to 1
        ours=True,
    )


def _optimum(dataset: xr.Dataset) -> list[Claim]:
    """Whether the largest β2 is worse than the best, at the smallest and the largest batch."""
    found = []
    order = np.argsort(dataset["beta2"].values)
    sizes = dataset["batch_size"].values
    for budget in EQUAL_STEPS:
        for name, size in (("smallest", sizes.min()), ("largest", sizes.max())):
            late = dataset["tuned_loss"].sel(budget=budget, batch_size=size)
            excess = outcomes.mean(outcomes.excess_at_the_end(late.values[:, order], -1))
            found.append(
                assess(
                    f"interior_optimum_{name}_{budget}".replace(" ", "_").replace(",", ""),
                    f"At batch size {size} the best β2 is interior: the largest does worse at a "
                    f"finite budget (log loss above the best, learning rate tuned {TUNINGS[0]}; "
                    f"{budget})",
                    "theorem 3.1: the 1/(1 − β2) transient",
                    measured=excess.value,
                    uncertainty=excess.half_width,
                    at_least=_EXCESS,
                )
            )
    return found


def _upper_edge(dataset: xr.Dataset) -> Claim:
    tuning = _widest(dataset)
    high = dataset["high"].sel(budget=EQUAL_STEPS[1], tuning=tuning)
    share = outcomes.mean((high > 0).transpose("seed", "batch_size").values.mean(axis=1))
    return assess(
        "window",
        "The good β2 form a window: at a fixed learning rate too large a β2 is bad as well (share "
        "of the batch sizes with an upper edge below "
        f"1 − {1 - float(dataset['beta2'].max()):.0e}; {tuning}, {EQUAL_STEPS[1]})",
        "theorem 3.1: the 1/(1 − β2) transient",
        measured=share.value,
        uncertainty=share.half_width,
        at_least=_WINDOW,
    )
