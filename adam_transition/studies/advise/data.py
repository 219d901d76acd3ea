"""The data of the advice study: the probe compared with training, on networks.

The networks of a finished `experiments.batch_size` are trained again with the best β2, at the
learning rate at which most batch sizes have a threshold, and probed during the run and at its end.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from adam_transition import adam, advise
from adam_transition.networks import objectives, outcomes, training
from adam_transition.networks.training import Recipe
from adam_transition.sampling import stream_key
from adam_transition.studies.batch_size.data import BUDGETS, TUNINGS, BatchSizeSpec
from adam_transition.sweeps import keys
from adam_transition.sweeps.study import variable

INSTANTS = {"a quarter": 4, "the end": 1}
"""When networks are probed: name, and the divisor of the run's length."""
_SMALLEST_Q, _NUM_Q = 5e-4, 12
_SAMPLES = 960
_COORDINATES = 64
KEPT = (0.5, 0.95)
"""Fractions of its progress that Adam must keep for β2 to count as large enough: the default of
`advise.needed_beta2`, and a strict one."""


@dataclass(frozen=True)
class AdviseSpec:
    """What to compute."""

    trained: xr.Dataset  # of experiments.batch_size
    study: BatchSizeSpec
    num_seeds: int

    @property
    def tuning(self) -> str:
        """The fixed learning rate at which most batch sizes have a threshold."""
        return self.trained["tuning"].values[self.trained["widest"].values].item()

    @property
    def learning_rate(self) -> float:
        """The learning rate of `tuning` as a number."""
        place = int(np.flatnonzero(self.trained["widest"].values)[0])
        return self.study.grid.learning_rate[place - len(TUNINGS)]

    @property
    def measured(self) -> xr.Dataset:
        """The thresholds of training at that rate, for the batch sizes that have one."""
        one = self.trained.sel(budget=BUDGETS[0], tuning=self.tuning)
        return one.isel(batch_size=one["interior"].values)


def coordinates(spec: AdviseSpec) -> xr.Dataset:
    """The labelled axes."""
    measured = spec.measured
    q = np.geomspace(_SMALLEST_Q, 0.99 * (1 - spec.study.grid.beta1[0] ** 2), _NUM_Q)
    return xr.Dataset(
        coords={
            "batch_size": ("batch_size", measured["batch_size"].values, {"units": "samples"}),
            "rules": ("rules", measured["rules"].values),
            "instant": ("instant", np.array(list(INSTANTS), dtype=object)),
            "probed_seed": ("probed_seed", np.array(spec.study.grid.seeds[: spec.num_seeds])),
            "kept": ("kept", np.array(KEPT), {"long_name": "progress kept", "units": "1"}),
            "q": ("q", q, {"long_name": "1 − β2", "units": "1"}),
        },
        attrs={"learning_rate": spec.tuning},
    )


def measured(spec: AdviseSpec) -> Mapping[str, xr.Variable]:
    """The thresholds of training, and those predicted by the rules.

    `measured` over (batch_size, trained_seed): 1 − β2* from training; `rule` over (rules,
    batch_size): 1 − β2 that the rules predict from β2* at the largest batch.
    """
    low = spec.measured["low"].transpose("batch_size", "seed").values
    rule = spec.measured["rule"].transpose("rules", "batch_size").values
    return {
        "measured": variable(("batch_size", "trained_seed"), low, "1 − β2* from training"),
        "rule": variable(("rules", "batch_size"), rule, "1 − β2 of a rule"),
    }


def probe(spec: AdviseSpec) -> Mapping[str, xr.Variable]:
    """`progress`, `progress_stderr`, `wrong_mass` over (instant, probed_seed, batch_size, q).

    See `advise.probe`; `noise_ratio` over (instant, probed_seed, batch_size).
    """
    sizes, q = spec.measured["batch_size"].values, coordinates(spec)["q"].values
    shape = (len(INSTANTS), spec.num_seeds, len(sizes))
    found, noise = np.full((3, *shape, len(q)), np.nan), np.full(shape, np.nan)
    for i, s, j in np.ndindex(shape):
        divisor, seed = list(INSTANTS.values())[i], spec.study.grid.seeds[s]
        table = _table(spec, int(sizes[j]), seed, divisor)
        noise[i, s, j] = table.noise_ratio
        probed = advise.probe(
            table,
            q.tolist(),
            stream_key(seed),
            beta1=spec.study.grid.beta1[0],
            batch_factors=(int(sizes[j]),),
        )
        parts = (probed.progress, probed.progress_stderr, probed.wrong_mass)
        found[:, i, s, j] = np.concatenate(parts)
    dims = ("instant", "probed_seed", "batch_size")
    return {
        "progress": variable((*dims, "q"), found[0], "progress over its limit"),
        "progress_stderr": variable((*dims, "q"), found[1], "its standard error"),
        "wrong_mass": variable((*dims, "q"), found[2], "share of Σ|∇f| with the wrong sign"),
        "noise_ratio": variable(dims, noise, "mean ‖g_i‖² over ‖mean g_i‖²"),
    }


def _table(spec: AdviseSpec, batch: int, seed: int, divisor: int) -> advise.GradientTable:
    """Gradients of single samples at the point that a good run reaches after 1/divisor of it."""
    inner = spec.study
    model, data = inner.task.load(inner.conditions.dtype)
    rate = spec.learning_rate
    late = spec.trained["late_loss"].sel(budget=BUDGETS[0], batch_size=batch, learning_rate=rate)
    best = int(outcomes.log_mean(late.transpose("beta2", "seed").values).argmin())
    whole = inner.recipe(BUDGETS[0], batch)
    assert whole is not None
    recipe = Recipe(
        batch, whole.num_steps // divisor, 1, whole.decays // divisor, whole.method, whole.epsilon,
        whole.evaluated,
    )  # fmt: skip
    hyper = adam.Hyperparameters(
        1 - inner.grid.beta1[0], 1 - inner.grid.beta2[best], recipe.epsilon
    )
    samples = jax.tree.map(jnp.asarray, data.arrays)
    key, objective = stream_key(seed), objectives.of_model(model)
    network, _ = jax.jit(partial(training.train, objective, recipe=recipe))(
        samples, hyper, rate, key=key, initial=objectives.initial(objective)(key)
    )
    chosen = keys.generator(key).permutation(len(data))[:_SAMPLES]
    batches = ((samples[0][i : i + 1], samples[1][i : i + 1]) for i in chosen)
    return advise.gradient_table(
        partial(objectives.cross_entropy, model),
        network.params,
        batches,
        key,
        num_coordinates=_COORDINATES,
    )


def probed(dataset: xr.Dataset) -> Mapping[str, xr.Variable]:
    """`probed` over (kept, instant, probed_seed, batch_size), `progress_at_threshold`.

    The first is the 1 − β2 at which the progress falls below the fraction `kept`, +inf if it does
    so at no β2 > β1²; the second is the progress at the 1 − β2* of training.
    """
    dims, q = ("instant", "probed_seed", "batch_size"), dataset["q"].values
    progress = dataset["progress"].transpose(*dims, "q").values
    low = outcomes.geometric_mean(dataset["measured"].transpose("batch_size", ...).values)
    found = np.empty((len(KEPT), *progress.shape[:-1]))
    at = np.empty(progress.shape[:-1])
    for place in np.ndindex(at.shape):
        found[:, *place] = [_crossing(q, progress[place], kept) for kept in KEPT]
        at[place] = np.interp(np.log(low[place[-1]]), np.log(q), progress[place])
    left = "1 − β2 at which that progress is kept"
    return {
        "probed": variable(("kept", *dims), found, left),
        "progress_at_threshold": variable(dims, at, "progress at the threshold of training"),
    }


def _crossing(q: np.ndarray, progress: np.ndarray, kept: float) -> float:
    """The first 1 − β2, going down from β2 = 1, at which the progress falls below `kept`."""
    below = np.flatnonzero(progress < kept)
    if not below.size:
        return math.inf
    i = int(below[0])
    if i == 0:
        return float(q[0])
    share = (progress[i - 1] - kept) / (progress[i - 1] - progress[i])
    return float(q[i - 1] * (q[i] / q[i - 1]) ** share)
