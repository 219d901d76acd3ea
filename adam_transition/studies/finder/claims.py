"""Claims of `experiments.finder`: how good `find_beta2` is, and the laws of the threshold."""

import math
from typing import Any

import numpy as np
import xarray as xr

from adam_transition.studies.finder.data import SETTING, VERDICTS
from adam_transition.sweeps.claims import Claim, assess, assess_equal, share_error

_MEDIAN, _FAR, _NEAR_SHARE, _COVERED, _COST = 1.6, 2.5, 0.9, 0.85, 0.25
_OF_THE_GRID = 0.03
"""Bound on the error of an exponent due to thresholds between grid points, on planted laws."""

_RESAMPLES = 2000
_OURS = "not in the paper"


def claims(dataset: xr.Dataset) -> list[Claim]:
    """Claims on the tasks of the design, on those kept back, and on each task's law."""
    found = []
    for kept, name in ((False, "of the design"), (True, "kept back")):
        some = dataset.sel(task=dataset["kept_back"].values == kept)
        if some.sizes["task"]:
            found += _finder(some, name)
    for task in dataset["task"].values:
        found += _laws(dataset.sel(task=task), str(task))
    return found


def rows(dataset: xr.Dataset) -> list[dict[str, Any]]:
    """One row for each search."""
    table = []
    names = ("found", "found_low", "found_high", "truth", "cost")
    for place in np.ndindex(*(dataset.sizes[dim] for dim in (*SETTING, "group"))):
        one = dataset.isel(dict(zip((*SETTING, "group"), place, strict=True)))
        numbers = {name: float(one[name]) for name in names}
        table.append(
            {
                "task": str(one["task"].item()),
                "batch_size": int(one["batch_size"]),
                "learning_rate": float(one["learning_rate"]),
                "verdict": VERDICTS[int(one["verdict"])],
                **{key: value if math.isfinite(value) else None for key, value in numbers.items()},
            }
        )
    return table


def _finder(some: xr.Dataset, name: str) -> list[Claim]:
    flat = {
        key: some[key].transpose(*SETTING, "group").values.ravel()
        for key in ("found", "found_low", "found_high", "truth", "cost", "verdict")
    }
    has_edge = np.isfinite(flat["truth"])
    answered = flat["verdict"] == VERDICTS.index("found")
    used = has_edge & answered
    error = np.abs(np.log(flat["found"][used] / flat["truth"][used]))
    covered = (flat["found_low"] <= flat["truth"]) & (flat["truth"] <= flat["found_high"])
    # without an edge on the grid: the answer is confident if its interval ends on the grid
    ends = flat["found_high"] < 1 - float(some["beta2"].min())
    confident = (answered & ends)[~has_edge]
    where = f"tasks {name}; {used.sum()} searches in {some.sizes['task']} tasks"
    near = np.where(np.isnan(error), np.nan, error <= math.log(_FAR))
    key = name.replace(" ", "_")
    return [
        assess(
            f"median_error_{key}",
            f"`find_beta2` finds the 1 − β2* of other seeds, trained to the end, within a factor "
            f"of {_MEDIAN} in half of the cases (median factor; {where})",
            _OURS,
            measured=math.exp(_middle(error)),
            uncertainty=_median_error(error),
            at_most=_MEDIAN,
            ours=True,
        ),
        assess(
            f"large_errors_{key}",
            f"It errs by a factor of {_FAR} or less in {_NEAR_SHARE:.0%} of the cases (share; "
            f"{where})",
            _OURS,
            measured=_mean(near),
            uncertainty=share_error(near),
            at_least=_NEAR_SHARE,
            ours=True,
        ),
        assess(
            f"coverage_{key}",
            f"Its 95 % intervals hold the value of the other seeds in {_COVERED:.0%} of the cases "
            f"or more (share; {where})",
            _OURS,
            measured=_mean(covered[used]),
            uncertainty=share_error(covered[used]),
            at_least=_COVERED,
            ours=True,
        ),
        assess(
            f"cost_{key}",
            "It costs a quarter of training every β2 to the end, or less (largest share)",
            _OURS,
            measured=float(flat["cost"].max()),
            at_most=_COST + 1e-9,
            ours=True,
        ),
        assess(
            f"false_edges_{key}",
            "Where the other seeds show no edge on the grid, it gives none with confidence (share "
            f"of the {int((~has_edge).sum())} cases in which its interval ends on the grid)",
            _OURS,
            measured=_mean(confident),
            uncertainty=share_error(confident),
            at_most=0.1,
            ours=True,
        ),
    ]


def _middle(values: np.ndarray) -> float:
    return float(np.median(values)) if len(values) else math.nan


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def _median_error(logs: np.ndarray) -> float:
    """Half-width of the 95 % interval of the median factor, by the bootstrap over cases."""
    if not len(logs):
        return math.nan
    chosen = np.random.default_rng(0).integers(0, len(logs), (_RESAMPLES, len(logs)))
    low, high = np.quantile(np.exp(np.median(logs[chosen], axis=1)), [0.025, 0.975])
    return float(high - low) / 2


def _laws(one: xr.Dataset, task: str) -> list[Claim]:
    """Exponents with the jackknife's error over seeds."""
    exponent = one["exponent"].transpose("law", "seed").values
    used = int(one["inside"].sum())
    num = exponent.shape[1]
    value = exponent.mean(axis=1)
    error = 1.96 * np.sqrt((num - 1) / num * ((exponent - value[:, None]) ** 2).sum(axis=1))
    total = exponent.sum(axis=0)
    of_sum = 1.96 * math.sqrt((num - 1) / num * float(((total - total.mean()) ** 2).sum()))
    where = f"{task}, {used} settings"
    return [
        assess(
            f"batch_exponent_{task}",
            f"The smaller the batch, the larger the β2 needed (exponent of 1 − β2* in B; {where})",
            "figure 3a",
            measured=float(value[0]),
            uncertainty=float(error[0]),
            at_least=0,
        ),
        assess(
            f"rate_exponent_{task}",
            "The larger the learning rate, the larger the β2 needed (exponent of 1 − β2* in η0; "
            f"{where})",
            _OURS,
            measured=float(value[1]),
            uncertainty=float(error[1]),
            at_most=0,
            ours=True,
        ),
        assess_equal(
            f"half_life_{task}",
            f"1 − β2* is proportional to B, as the half-life rule has it (exponent of B; {where}; "
            "to be distinguished from 1/2)",
            "Marek et al. (2025, arXiv:2507.07101)",
            measured=float(value[0]),
            value=1.0,
            uncertainty=float(error[0]),
            resolution=0.25,
            tolerance=_OF_THE_GRID,
        ),
        assess_equal(
            f"noise_scale_{task}",
            f"1 − β2* follows B/η0 (sum of the exponents of B and η0; {where}; to be distinguished "
            "from 1, a threshold that depends on B alone)",
            _OURS,
            measured=float(total.mean()),
            value=0.0,
            uncertainty=of_sum,
            resolution=0.5,
            tolerance=_OF_THE_GRID,
            ours=True,
        ),
    ]
