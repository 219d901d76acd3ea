"""The data of the trap study: how far the trap reaches, and runs of Adam beside it."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from adam_transition import adam, problems
from adam_transition.sampling import Sampling, stream_key
from adam_transition.simulate import Method, simulate
from adam_transition.sweeps.pieces import Pieces
from adam_transition.sweeps.study import variable
from adam_transition.theory import trap
from adam_transition.theory.stationary_drift import stationary_drift

DIMS = "sampling", "n", "beta1", "beta2"

STARTS = tuple(np.geomspace(0.5, 32, 13).round(3).tolist())
"""Distances from x* in steps."""

RUN_STEPS = 100_000
"""Length of the runs of Adam."""

STEP_SIZE = 0.1
"""η0 of these runs."""

_MOST_RUNS = 128  # cells for each sampling scheme and n


@dataclass(frozen=True)
class TrapSpec:
    """What to compute."""

    num_components: tuple[int, ...]
    a: Fraction | None  # None: 1/(n−1)² for each n
    samplings: tuple[Sampling, ...]
    beta1: np.ndarray
    beta2: np.ndarray
    num_epochs: int
    seed: int

    def problem(self, n: int) -> problems.Counterexample:
        """The counterexample with n components."""
        return problems.counterexample(n, self.a)


def coordinates(spec: TrapSpec) -> xr.Dataset:
    """The labelled axes."""
    a = [float(Fraction(spec.problem(n).a)) for n in spec.num_components]
    return xr.Dataset(
        coords={
            "sampling": ("sampling", np.array(spec.samplings, dtype=object)),
            "n": ("n", np.array(spec.num_components), {"long_name": "n", "units": "1"}),
            "a": ("n", np.array(a), {"long_name": "slope a", "units": "1"}),
            "beta1": ("beta1", spec.beta1, {"long_name": "β1", "units": "1"}),
            "beta2": ("beta2", spec.beta2, {"long_name": "β2", "units": "1"}),
        },
        attrs={"num_epochs": spec.num_epochs},
    )


def basins(spec: TrapSpec, pieces: Pieces) -> Mapping[str, xr.Variable]:
    """`drift` and `basin` over `DIMS`: the largest distance in steps from which a start stays.

    0 where none of `STARTS` does; NaN where the drift is not positive, or so small that starts may
    not yet have left.
    """
    sizes = len(spec.samplings), len(spec.num_components)
    values = np.empty((2, *sizes, len(spec.beta1), len(spec.beta2)))
    for i, sampling in enumerate(spec.samplings):
        for j, n in enumerate(spec.num_components):
            values[:, i, j] = pieces.keep(f"{i} {j}", partial(_basin, spec, sampling, n))
    return {
        "drift": variable(DIMS, values[0], "stationary drift D", "1 / epoch"),
        "basin": variable(DIMS, values[1], "largest trapped start |x − x*|/η"),
    }


def _basin(spec: TrapSpec, sampling: Sampling, n: int) -> list[np.ndarray]:
    slopes = spec.problem(n).constant_gradients()
    hyper = adam.Hyperparameters(1 - spec.beta1[:, None], 1 - spec.beta2)
    drift = stationary_drift(slopes[:, None], hyper, sampling).drift[..., 0]
    basin = np.full(drift.shape, np.nan)
    chosen = drift * spec.num_epochs >= trap.LEAST_TRAVEL * trap.FAR
    if chosen.any():
        beta1, beta2 = np.broadcast_arrays(spec.beta1[:, None], spec.beta2)
        basin[chosen] = trap.stays_near(
            slopes, beta1[chosen], beta2[chosen], np.array(STARTS),
            sampling=sampling, num_epochs=spec.num_epochs, key=stream_key(spec.seed),
        ).basin  # fmt: skip
    return [drift, basin]


def runs(spec: TrapSpec, dataset: xr.Dataset, pieces: Pieces) -> Mapping[str, xr.Variable]:
    """`near` and `far` over (sampling, n, run): |x − x*|/η at the end, from η0 and from 3 off x*.

    Adam with step sizes η0/√k in evenly chosen cells with a known basin, which `basin_of_run` is.
    """
    shape = len(spec.samplings), len(spec.num_components), _MOST_RUNS
    values = np.full((3, *shape), np.nan)
    for i, sampling in enumerate(spec.samplings):
        for j, n in enumerate(spec.num_components):
            basin = dataset["basin"].values[i, j]
            cells = np.argwhere(np.isfinite(basin))
            cells = cells[np.unique(np.linspace(0, len(cells) - 1, _MOST_RUNS).astype(int))]
            if not len(cells):
                continue
            at = spec.beta1[cells[:, 0]], spec.beta2[cells[:, 1]]
            [found] = pieces.keep(f"{i} {j}", partial(_distances, spec, sampling, n, *at))
            values[:, i, j, : len(cells)] = [basin[tuple(cells.T)], *found]
    dims = "sampling", "n", "run"
    names = ("basin_of_run", "near", "far")
    labels = ("largest trapped start |x − x*|/η", "|x − x*|/η at the end, from x* + η0",
              "|x − x*|/η at the end, from x* + 3")  # fmt: skip
    return {
        name: variable(dims, one, label)
        for name, one, label in zip(names, values, labels, strict=True)
    }


def _distances(
    spec: TrapSpec, sampling: Sampling, n: int, beta1: np.ndarray, beta2: np.ndarray
) -> list[np.ndarray]:
    problem = spec.problem(n)
    with jax.enable_x64(True):

        def end(b1: jax.Array, b2: jax.Array, x0: jax.Array) -> jax.Array:
            trace = simulate(
                problem,
                adam.Hyperparameters(1 - b1, 1 - b2),
                x0,
                STEP_SIZE,
                stream_key(spec.seed),
                method=Method(sampling),
                num_steps=RUN_STEPS,
                record_every=RUN_STEPS // 10,
                max_components=n,
            )
            return jnp.abs(trace.x[-1] - problem.minimiser) * jnp.sqrt(RUN_STEPS) / STEP_SIZE

        over_cells = jax.vmap(end, in_axes=(0, 0, None))
        run = jax.jit(jax.vmap(over_cells, in_axes=(None, None, 0)))
        starts = jnp.asarray(problem.minimiser + np.array([STEP_SIZE, 3.0]))
        return [np.asarray(run(jnp.asarray(beta1), jnp.asarray(beta2), starts))]
