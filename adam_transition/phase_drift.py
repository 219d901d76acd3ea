"""The stationary drift beside a simulated phase diagram, and whether the two agree."""

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from scipy.interpolate import RegularGridInterpolator

from adam_transition import (
    adam,
    drift,
    phase_diagram,
    problems,
    random_drift,
    sampling,
    store,
)

_POINTS_OF_RANDOM_DRIFT = 128  # of an axis
_MOST_WORK = 5e9  # states × steps of the integrals of one n and scheme: some 20 s on two cores
_NOISE = 3.0  # standard deviations


def add_drift(spec: phase_diagram.PhaseDiagram, results: store.Store) -> None:
    """Adds `drift` and `drift_stderr`, per epoch, where the problem has one table of gradients.

    That is on the constructions with constant slopes; elsewhere the drift depends on x, and it is
    NaN. It is exact, but on a large grid the random orders have it at every few β, and between them
    it is interpolated linearly. Where β2 is so near to 1 that it would take long, it is NaN.
    """
    sizes = dict(phase_diagram.coordinates(spec).sizes)
    values = np.full((2, *(sizes[dim] for dim in spec.dims)), np.nan)
    for i, scheme in enumerate(spec.samplings):
        for j, n in enumerate(spec.num_components):
            for k, a in enumerate(spec.a or (None,)):
                table = _slopes(spec.problem_at(n, a))
                if table is not None:
                    where = (slice(None), i, j, *((k,) if spec.a else ()))
                    values[where] = np.stack(drift_of_cells(spec, scheme, j, table))
    names = {"drift": "stationary drift D", "drift_stderr": "standard error of D"}
    for (name, long_name), one in zip(names.items(), values, strict=True):
        results.add(name, store.Variable(spec.dims, np.float64, long_name, "1 / epoch"), one)


def _too_near(q: np.ndarray, table: np.ndarray, scheme: sampling.Sampling) -> float:
    """The greatest 1 − β2 at which a random scheme's integrals would take too long; 0 if none."""
    if scheme not in drift.RANDOM or drift.is_estimated(table, scheme):
        return 0.0
    descending = np.sort(q, axis=None)[::-1]
    states = max(random_drift.num_states(table[:, 0], scheme), 4)
    work = np.cumsum(states * random_drift.num_steps(descending))
    return float(max(descending[work > _MOST_WORK], default=0.0))


def hidden_by_noise(dataset: xr.Dataset, num_steps: int) -> xr.DataArray:
    """How far from 0 a drift must be for a run of T steps to show its sign; by (sampling, n).

    In a random order the mean of m/√v over T steps has a standard deviation of about 1/√T, as
    E[g²/v] is about 1; and all cells of one n see the same stream.
    """
    random = dataset["sampling"].isin(drift.RANDOM)
    return random * (_NOISE * dataset["n"] / np.sqrt(num_steps))


def agreement(
    dataset: xr.Dataset, beyond: float, least_drift: xr.DataArray | float = 0.0
) -> xr.DataArray:
    """Share of the cells whose verdict has the sign of the drift, by (sampling, n).

    Counted are cells farther than `beyond` in β2 from every sign change of the drift at their β1,
    whose drift is greater than `least_drift`.
    """
    drift, diverged, beta2 = dataset["drift"], dataset["diverged"], dataset["beta2"]
    before, after = drift.isel(beta2=slice(None, -1)), drift.isel(beta2=slice(1, None))
    before, after = before.drop_vars("beta2"), after.drop_vars("beta2")
    spacing = beta2.diff("beta2").drop_vars("beta2")
    left = beta2.isel(beta2=slice(None, -1)).drop_vars("beta2")
    crossing = (left + spacing * before / (before - after)).where((before > 0) != (after > 0))
    crossing = crossing.rename(beta2="gap_of_beta2")
    distance = xr.concat(
        [np.abs(value - crossing).min("gap_of_beta2") for value in beta2], dim=beta2
    ).fillna(np.inf)
    counted = (distance > beyond) & drift.notnull() & (np.abs(drift) > least_drift)
    same = ((drift > 0) == diverged).where(counted)
    return same.mean(("beta1", "beta2"))


def _slopes(problem: problems.BuiltIn) -> np.ndarray | None:
    if isinstance(problem, problems.Quadratics):
        return None
    with jax.enable_x64(True):
        n = int(np.asarray(problem.num_components))
        return np.asarray(problems.component_gradients(problem, jnp.zeros(()), n))[:, None]


def drift_of_cells(
    spec: phase_diagram.PhaseDiagram, scheme: sampling.Sampling, row: int, table: np.ndarray
) -> drift.Drift:
    """Drift and standard error, of the shape of the row's cells."""
    key = sampling.stream_key(spec.seed)
    least = drift.least_one_minus_beta(table, scheme)

    def at(beta1: np.ndarray, beta2: np.ndarray) -> np.ndarray:
        p, q = np.broadcast_arrays(1 - beta1, 1 - beta2)
        usable = (p >= least[0]) & (q >= least[1]) & (q > _too_near(q, table, scheme))
        found = np.full((2, *p.shape), np.nan)
        hyper = adam.Hyperparameters(p[usable], q[usable])
        one = drift.stationary_drift(table, hyper, scheme, key=key, num_samples=100_000)
        found[:, usable] = one.drift[:, 0], one.stderr[:, 0]
        return found

    if spec.paired:
        return drift.Drift(*at(spec.beta1[row], spec.beta2[row]))
    if scheme not in drift.RANDOM:
        return drift.Drift(*at(spec.beta1[:, None], spec.beta2))
    axes = [beta[_every_few(beta)] for beta in (spec.beta1, spec.beta2)]
    grid = tuple(np.meshgrid(spec.beta1, spec.beta2, indexing="ij"))
    found = (
        RegularGridInterpolator(axes, values)(grid) for values in at(axes[0][:, None], axes[1])
    )
    return drift.Drift(*found)


def _every_few(beta: np.ndarray) -> np.ndarray:
    """Positions of some of the values, the first and the last among them."""
    count = min(len(beta), _POINTS_OF_RANDOM_DRIFT)
    return np.unique(np.linspace(0, len(beta) - 1, count).astype(int))
