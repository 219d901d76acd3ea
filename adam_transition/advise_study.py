"""The data set behind `experiments.advise --results`: the probe beside training, on networks.

The networks of a finished `experiments.batch_size` are trained again at the learning rate at which
most batch sizes have a threshold, with the best β2, and probed on the way and at the end.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from adam_transition import adam, advise, claims, keys, sampling, store
from adam_transition.batch_size_study import BUDGETS, TUNINGS, BatchSizeStudy
from adam_transition.networks import outcomes, training
from adam_transition.networks.training import Recipe
from adam_transition.store import Variable
from adam_transition.studies import Plan

MOMENTS = {"a quarter": 4, "the end": 1}
"""When networks are probed: name, and the part of the run before."""
_LEAST_Q, _NUM_Q = 5e-4, 12
_SAMPLES = 960
_COORDINATES = 64
KEPT = (0.5, 0.95)
"""The part of its progress that Adam must keep for β2 to count as large enough: the default of
`advise.needed_beta2`, and a strict one."""


@dataclass(frozen=True)
class AdviseStudy:
    """What to compute; see `plan`."""

    trained: xr.Dataset  # of experiments.batch_size
    study: BatchSizeStudy
    num_seeds: int

    @property
    def tuning(self) -> str:
        """The fixed learning rate at which most batch sizes have a threshold."""
        return self.trained["tuning"].values[self.trained["widest"].values].item()

    @property
    def learning_rate(self) -> float:
        """The same as a number."""
        place = int(np.flatnonzero(self.trained["widest"].values)[0])
        return self.study.grid.learning_rate[place - len(TUNINGS)]

    @property
    def measured(self) -> xr.Dataset:
        """The trained thresholds at that rate, of the batch sizes that have one."""
        one = self.trained.sel(budget=BUDGETS[0], tuning=self.tuning)
        return one.isel(batch_size=one["interior"].values)


def plan(study: AdviseStudy) -> Plan:
    """The parts of the data set.

    - `measured` over (batch_size, trained_seed): 1 − β2* from training; `rule` over (rules,
      batch_size): what the rules make of the one at the largest batch.
    - `progress`, `progress_stderr`, `wrong_mass` over (moment, probed_seed, batch_size, q), see
      `advise.probe`; `noise_ratio` over (moment, probed_seed, batch_size).
    - `probed` over (kept, moment, probed_seed, batch_size): 1 − β2 at which less than that part of
      the progress is left; +inf if it is left at every β2 > β1². `progress_at_threshold` over
      (moment, probed_seed, batch_size): progress at the 1 − β2* of training.
    """
    measured = study.measured
    q = np.geomspace(_LEAST_Q, 0.99 * (1 - study.study.grid.beta1[0] ** 2), _NUM_Q)
    coords = {
        "batch_size": ("batch_size", measured["batch_size"].values, {"units": "samples"}),
        "rules": ("rules", measured["rules"].values),
        "moment": ("moment", np.array(list(MOMENTS), dtype=object)),
        "probed_seed": ("probed_seed", np.array(study.study.grid.seeds[: study.num_seeds])),
        "kept": ("kept", np.array(KEPT), {"long_name": "progress kept", "units": "1"}),
        "q": ("q", q, {"long_name": "1 − β2", "units": "1"}),
    }
    parts: dict[str, Callable[[store.Store], None]] = {
        "rule": partial(_measured, study),
        "noise_ratio": partial(_probe, study),
        "progress_at_threshold": _probed,
    }
    return Plan(xr.Dataset(coords=coords), parts)


def _measured(study: AdviseStudy, results: store.Store) -> None:
    low = study.measured["low"].transpose("batch_size", "seed").values
    rule = study.measured["rule"].transpose("rules", "batch_size").values
    variable = Variable(("batch_size", "trained_seed"), np.float64, "1 − β2* from training")
    results.add("measured", variable, low)
    results.add("rule", Variable(("rules", "batch_size"), np.float64, "1 − β2 of a rule"), rule)


def _probe(study: AdviseStudy, results: store.Store) -> None:
    sizes, q = study.measured["batch_size"].values, results.load()["q"].values
    shape = (len(MOMENTS), study.num_seeds, len(sizes))
    found, noise = np.full((3, *shape, len(q)), np.nan), np.full(shape, np.nan)
    for i, s, j in np.ndindex(shape):
        part, seed = list(MOMENTS.values())[i], study.study.grid.seeds[s]
        table = _table(study, int(sizes[j]), seed, part)
        noise[i, s, j] = table.noise_ratio
        probe = advise.probe(
            table, q.tolist(), sampling.stream_key(seed), beta1=study.study.grid.beta1[0],
            batch_factors=(int(sizes[j]),),
        )  # fmt: skip
        parts = (probe.progress, probe.progress_stderr, probe.wrong_mass)
        found[:, i, s, j] = np.concatenate(parts)
    dims = ("moment", "probed_seed", "batch_size")
    names = {
        "progress": "progress over its limit",
        "progress_stderr": "its standard error",
        "wrong_mass": "share of Σ|∇f| with the wrong sign",
    }
    for (name, long_name), one in zip(names.items(), found, strict=True):
        results.add(name, Variable((*dims, "q"), np.float64, long_name), one)
    variable = Variable(dims, np.float64, "mean ‖g_i‖² over ‖mean g_i‖²")
    results.add("noise_ratio", variable, noise)


def _table(study: AdviseStudy, batch: int, seed: int, part: int) -> advise.GradientTable:
    """Gradients of single samples, where a good run at this batch size is after a part of it."""
    inner = study.study
    model, data = inner.task.load(inner.conditions.dtype)
    rate = study.learning_rate
    late = study.trained["late_loss"].sel(budget=BUDGETS[0], batch_size=batch, learning_rate=rate)
    best = int(outcomes.log_mean(late.transpose("beta2", "seed").values).argmin())
    whole = inner.recipe(BUDGETS[0], batch)
    assert whole is not None
    recipe = Recipe(
        batch, whole.num_steps // part, 1, whole.decays // part, whole.method, whole.epsilon,
        whole.evaluated,
    )  # fmt: skip
    hyper = adam.Hyperparameters(
        1 - inner.grid.beta1[0], 1 - inner.grid.beta2[best], recipe.epsilon
    )
    samples = (jnp.asarray(data.inputs), jnp.asarray(data.targets))
    key = sampling.stream_key(seed)
    params, _ = jax.jit(partial(training.train, model, recipe=recipe))(
        samples, hyper, rate, key=key, params=training.initial(model)(key)
    )
    chosen = keys.generator(key).permutation(len(data))[:_SAMPLES]
    batches = ((samples[0][i : i + 1], samples[1][i : i + 1]) for i in chosen)
    return advise.gradient_table(
        partial(training.loss, model), params, batches, key, num_coordinates=_COORDINATES
    )


def _probed(results: store.Store) -> None:
    dataset = results.load()
    dims, q = ("moment", "probed_seed", "batch_size"), dataset["q"].values
    progress = dataset["progress"].transpose(*dims, "q").values
    low = outcomes.geometric_mean(dataset["measured"].transpose("batch_size", ...).values)
    probed = np.empty((len(KEPT), *progress.shape[:-1]))
    at = np.empty(progress.shape[:-1])
    for place in np.ndindex(at.shape):
        probed[:, *place] = [_crossing(q, progress[place], kept) for kept in KEPT]
        at[place] = np.interp(np.log(low[place[-1]]), np.log(q), progress[place])
    variable = Variable(("kept", *dims), np.float64, "1 − β2 at which that progress is left")
    results.add("probed", variable, probed)
    variable = Variable(dims, np.float64, "progress at the threshold of training")
    results.add("progress_at_threshold", variable, at)


def _crossing(q: np.ndarray, progress: np.ndarray, kept: float) -> float:
    """From β2 → 1 down, the first 1 − β2 at which less progress than `kept` is left."""
    below = np.flatnonzero(progress < kept)
    if not below.size:
        return math.inf
    i = int(below[0])
    if i == 0:
        return float(q[0])
    share = (progress[i - 1] - kept) / (progress[i - 1] - progress[i])
    return float(q[i - 1] * (q[i] / q[i - 1]) ** share)


def advise_claims(dataset: xr.Dataset) -> list[claims.Claim]:
    """How well the probe predicts; uncertainties are those of the seeds."""
    low = outcomes.geometric_mean(dataset["measured"].transpose("batch_size", ...).values)
    found = []
    for kept, moment in itertools.product(KEPT, MOMENTS):
        probed = dataset["probed"].sel(kept=kept, moment=moment)
        ratios = probed.transpose("probed_seed", "batch_size").values / low
        finds = np.isfinite(ratios).all(axis=0)
        error, share = outcomes.Mean(math.nan, math.nan), outcomes.mean(np.isfinite(ratios).mean(1))
        if finds.any():
            error = outcomes.mean(np.abs(np.log2(ratios[:, finds])).max(axis=1))
        what = f"the probe at {moment} of training, where {kept:.0%} of the progress is left,"
        name = f"{kept:g}_{moment}".replace(" ", "_")
        found += [
            claims.assess(
                f"probe_finds_{name}",
                f"{what} finds a threshold wherever training has one (share of the batch sizes)",
                "not in the paper",
                measured=share.value,
                uncertainty=share.half_width,
                at_least=0.9,
                ours=True,
            ),
            claims.assess(
                f"probe_error_{name}",
                f"… and finds the 1 − β2* of training within a factor of 2 (largest error over the "
                f"{int(finds.sum())} of {len(finds)} batch sizes at which it finds one, in log 2)",
                "not in the paper",
                measured=error.value,
                uncertainty=error.half_width,
                at_most=1,
                ours=True,
            ),
        ]
    least = dataset["progress_at_threshold"].min(("moment", "batch_size")).values
    progress = outcomes.mean(least)
    found.append(
        claims.assess(
            "direction_kept",
            "where training turns bad the mean update still points downhill: it keeps half of its "
            "progress or more (least over batch sizes and moments). The threshold of networks is "
            "not a turn of the direction at frozen gradients",
            "not in the paper",
            measured=progress.value,
            uncertainty=progress.half_width,
            at_least=KEPT[0],
            ours=True,
        )
    )
    return found


def rows(dataset: xr.Dataset) -> list[dict[str, Any]]:
    """For each batch size: β2* from training, from the probe and from the rules; None if none."""
    low = outcomes.geometric_mean(dataset["measured"].transpose("batch_size", ...).values)
    found = []
    for j, size in enumerate(dataset["batch_size"].values):
        one = dataset.sel(batch_size=size)
        row: dict[str, Any] = {"batch_size": int(size), "training": 1 - float(low[j])}
        for kept, moment in itertools.product(KEPT, MOMENTS):
            probed = one["probed"].sel(kept=kept, moment=moment).values
            mean = float(outcomes.geometric_mean(probed))
            row[f"probe, {kept:.0%}, {moment}"] = 1 - mean if math.isfinite(mean) else None
        row |= {rule: 1 - float(one["rule"].sel(rules=rule)) for rule in one["rules"].values}
        found.append(row)
    return found
