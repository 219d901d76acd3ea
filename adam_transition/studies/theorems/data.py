"""The rate of the theorems: the left-hand side at many (n, β1, β2), and the drift close to x*."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float

from adam_transition import adam, problems
from adam_transition.sampling import stream_key
from adam_transition.studies.runs import OCTAVES, octaves
from adam_transition.studies.theorems import conditions, neighbourhood, reddi
from adam_transition.studies.theorems.families import CENTRED, PROBLEMS, member
from adam_transition.studies.theorems.spec import TheoremSpec
from adam_transition.sweeps import keys
from adam_transition.sweeps.pieces import Pieces
from adam_transition.sweeps.study import variable
from adam_transition.theory.convergence import bounded_steps, left_hand_side
from adam_transition.theory.stationary_drift import stationary_drift

_BINS = ((1e-1, 1.0), (1e-2, 1e-1), (1e-3, 1e-2))
GROUPS = (*(f"1 − β2 from {low:g} to {high:g}" for low, high in _BINS), "D > 0: x* repels")
BAND = (0.05, 0.5, 0.95)
MEMORIES = 100
"""The first window of T must hold this many times 1/(1 − β2) steps: several spikes at large β2."""

REGION_C = 1.0
"""The constant C with which the theorem's own region is run."""

_REGION_LONGER = 4  # times num_steps
_REGION_SHARE = 6  # one in this many of the triples


def region(
    spec: TheoremSpec,
) -> tuple[Float[np.ndarray, "n triple"], Float[np.ndarray, "n triple"]]:
    """β1 and 1 − β2 of triples in the theorem's own region with C = `REGION_C`, NaN if it is empty.

    The upper end is the theorem's, 1 − β2 ≤ C(1−β1^n)/n^5; below the lower end T is not large
    enough.
    """
    rng = keys.generator(jax.random.fold_in(stream_key(spec.seed), 1))
    shape = (len(spec.num_components), -(-spec.num_triples // _REGION_SHARE))
    n = np.array(spec.num_components)[:, None]
    low = MEMORIES * 2**OCTAVES / (_REGION_LONGER * spec.num_steps)
    # β1 up to where the interval of 1 − β2 closes: (1−β1^n) = low·n^5/C
    largest = np.clip(1 - low * n**5.0 / REGION_C, 0, None)  # of β1^n
    beta1 = rng.uniform(0, 1, shape) * np.minimum(0.99, largest ** (1 / n))
    high = REGION_C * (1 - beta1**n) / n**5.0
    q = low * (np.maximum(high, low) / low) ** rng.uniform(0, 1, shape)
    return np.where(largest > 0, beta1, np.nan), np.where(largest > 0, q, np.nan)


def _pairs(spec: TheoremSpec) -> tuple[np.ndarray, np.ndarray]:
    """β1 uniform, 1 − β2 log-uniform from 1e-3 to 1, each of shape (n, triple)."""
    rng = keys.generator(stream_key(spec.seed))
    shape = (len(spec.num_components), spec.num_triples)
    return rng.uniform(0, 0.99, shape), 10 ** rng.uniform(-3, 0, shape)


def coordinates(spec: TheoremSpec) -> xr.Dataset:
    """The labelled axes of all parts."""
    beta1, q = _pairs(spec)
    region_beta1, region_q = region(spec)
    axes = {
        "n": ("n", np.array(spec.num_components), "n"),
        "beta1": (("n", "triple"), beta1, "β1"),
        "one_minus_beta2": (("n", "triple"), q, "1 − β2"),
        "region_beta1": (("n", "region_triple"), region_beta1, "β1"),
        "region_q": (("n", "region_triple"), region_q, "1 − β2"),
        "octave": ("octave", octaves(spec.num_steps), "T"),
        "region_octave": ("region_octave", octaves(_REGION_LONGER * spec.num_steps), "T"),
        "band": ("band", np.array(BAND), "quantile"),
        **neighbourhood.axes(),
        **conditions.axes(spec),
    }
    names = {
        "family": PROBLEMS,
        "region_family": CENTRED,
        "group": GROUPS,
        **neighbourhood.NAMES,
        **conditions.NAMES,
        **reddi.NAMES,
    }
    return xr.Dataset(
        coords={
            **{
                name: (dims, values, {"long_name": label, "units": "1"})
                for name, (dims, values, label) in axes.items()
            },
            **{name: (name, np.array(list(of), dtype=object)) for name, of in names.items()},
        },
        attrs={"theorem_sampling": spec.sampling, "step_size": spec.step_size},
    )


def triples(spec: TheoremSpec, pieces: Pieces) -> Mapping[str, xr.Variable]:
    """The left-hand side at random (n, β1, β2).

    - `lhs`, `lhs_stderr` over (family, n, triple, step): the left-hand side.
    - `mean_stationarity` over (family, seed, n, triple, octave): the mean of the bounded quantity
      over the records of (T/2, T], where T is the end of the octave.
    - `arrived` over (family, n, triple): the number of runs that end exactly on x*.
    """
    beta1, q = _pairs(spec)
    hyper = adam.Hyperparameters(1 - beta1, q)
    found = []
    for family in PROBLEMS:
        members = [member(family, n, spec.seed) for n in spec.num_components]
        runs = spec.run(members, hyper, moves_unit=family in CENTRED, pieces=pieces.within(family))
        by_seed = runs.stationarity.swapaxes(0, 1).astype(np.float64)
        mean_stationarity = runs.mean_stationarity.swapaxes(0, 1)
        found.append((*left_hand_side(by_seed), mean_stationarity, runs.arrived.sum(axis=1)))
    lhs, stderr, stationarity, arrived = (np.stack(part) for part in zip(*found, strict=True))
    dims, every = ("family", "n", "triple"), ("family", "seed", "n", "triple", "octave")
    of_lhs = "standard error of the left-hand side"
    return {
        "step": variable("step", runs.steps, "T", dtype=np.int64),
        "lhs": variable((*dims, "step"), lhs, "left-hand side"),
        "lhs_stderr": variable((*dims, "step"), stderr, of_lhs),
        "arrived": variable(dims, arrived, "runs that end exactly on x*", dtype=np.int64),
        "mean_stationarity": variable(every, stationarity, "mean over (T/2, T]", dtype=np.float64),
    }


def drift_at_minimisers(spec: TheoremSpec) -> Mapping[str, xr.Variable]:
    """`drift`, `drift_stderr` over (family, n, triple), close to x*; NaN if D0 > 0.

    With D0 = 0 the table of gradients close to x* is the same up to scale.
    """
    beta1, q = _pairs(spec)
    shape = (2, len(PROBLEMS), len(spec.num_components), spec.num_triples)
    values = np.full(shape, np.nan)
    for i, family in enumerate(PROBLEMS):
        if family not in CENTRED:
            continue
        for j, n in enumerate(spec.num_components):
            problem = member(family, n, spec.seed).problem
            table = np.asarray(
                problems.component_gradients(problem, jnp.asarray(problem.minimiser) + 0.5, n)
            )
            found = stationary_drift(
                table.reshape(n, 1),
                adam.Hyperparameters(1 - beta1[j], q[j]),
                spec.sampling,
                key=stream_key(spec.seed),
                num_samples=spec.num_samples,
            )
            values[:, i, j] = found.drift[:, 0], found.stderr[:, 0]
    dims = ("family", "n", "triple")
    return {
        "drift_stderr": variable(dims, values[1], "standard error of D", "1 / epoch"),
        "drift": variable(dims, values[0], "D close to x*", "1 / epoch"),
    }


def bands(dataset: xr.Dataset) -> Mapping[str, xr.Variable]:
    """`lhs_band` over (family, group, band, step): quantiles of the left-hand side over triples.

    Groups are triples of similar β2, and the triples at which x* repels.
    """
    repels = (dataset["drift"] > 0).values
    bounded = bounded_steps(dataset["beta1"].values, dataset["one_minus_beta2"].values)
    q, lhs = dataset["one_minus_beta2"].values, dataset["lhs"].values
    values = np.full((len(PROBLEMS), len(GROUPS), len(BAND), lhs.shape[-1]), np.nan)
    for i in range(len(PROBLEMS)):
        groups = [bounded & ~repels[i] & (q >= low) & (q < high) for low, high in _BINS]
        for j, chosen in enumerate((*groups, repels[i])):
            if chosen.any():
                values[i, j] = np.quantile(lhs[i][chosen], BAND, axis=0)
    dims = ("family", "group", "band", "step")
    return {"lhs_band": variable(dims, values, "quantiles of the left-hand side")}


def region_runs(spec: TheoremSpec) -> Mapping[str, xr.Variable]:
    """Runs in the theorem's own region, 1 − β2 ≤ C(1−β1^n)/n^5 with C = `REGION_C`.

    `region_stationarity` over (region_family, seed, n, region_triple, region_octave), at
    `region_beta1` and `region_q`; NaN for an n at which the region is empty, as this T is not large
    enough.
    """
    beta1, q = region(spec)
    values = np.full((len(CENTRED), spec.num_seeds, *q.shape, OCTAVES), np.nan)
    for j, n in enumerate(spec.num_components):
        if np.isnan(q[j]).any():
            continue
        for i, family in enumerate(CENTRED):
            runs = spec.run(
                [member(family, n, spec.seed)],
                adam.Hyperparameters(1 - beta1[j], q[j]),
                num_steps=_REGION_LONGER * spec.num_steps,
                moves_unit=True,
            )
            values[i, :, j] = runs.mean_stationarity[0]
    dims = ("region_family", "seed", "n", "region_triple", "region_octave")
    return {"region_stationarity": variable(dims, values, "mean over (T/2, T]")}
