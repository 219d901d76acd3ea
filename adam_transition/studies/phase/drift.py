"""The stationary drift of a phase diagram's cells, and its agreement with simulated verdicts."""

import itertools
from collections.abc import Mapping

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.interpolate import RegularGridInterpolator

from adam_transition import adam, problems
from adam_transition.optimizers import ADAM, Optimizer
from adam_transition.sampling import RANDOM, Sampling, stream_key
from adam_transition.studies.phase.diagram import PANEL_DIMS, PhaseDiagram, coordinates
from adam_transition.sweeps.study import variable
from adam_transition.theory import chebyshev, random_sampling
from adam_transition.theory.drift_domain import is_estimated, least_one_minus_beta
from adam_transition.theory.stationary_drift import Drift, stationary_drift

_POINTS_OF_RANDOM_DRIFT = 128  # per axis
_POINTS_OF_CHAINS = 48  # per axis, where the drift is estimated from chains
_TYPICAL_STEP = 0.41
"""Of T, where a rule that counts steps is frozen: there k^(1/4) is its mean over [T/10, T],
weighted by 1/√k like the speed of a run."""

_MOST_WORK = 5e9  # states × steps of the integrals of one n and scheme: some 20 s on two cores
_MOST_HISTORY = 5e7  # draws of an estimate held in memory at once
_AS_TYPED = 1 - 1e-9  # 1 − 0.9999 falls short of 1e-4 by rounding only


def drift_of_diagram(spec: PhaseDiagram) -> Mapping[str, xr.Variable]:
    """`drift` and `drift_stderr`, per epoch, for problems with a single table of gradients.

    These are the constructions with constant slopes; for all others the drift depends on x, and NaN
    is returned. The drift is exact, except that on a large grid the drift of random orders is
    interpolated: from Chebyshev points, with the measured error as its standard error; or, where
    that is too large, and for estimates, linearly between some values of
    β. It is NaN in cells, and in those only, where β2 is so close to 1 that it would take too long,
    or that an estimate would take too much memory.
    """
    sizes = dict(coordinates(spec).sizes)
    values = np.full((2, *(sizes[dim] for dim in spec.dims)), np.nan)
    for (o, optimizer), (i, sampling), (j, n), (k, a) in itertools.product(
        enumerate(spec.optimizers),
        enumerate(spec.samplings),
        enumerate(spec.num_components),
        enumerate(spec.a or (None,)),
    ):
        table = frozen_table(spec.problem_at(n, a))
        if table is not None:
            leading = (o,) if spec.has_optimizers else ()
            where = (slice(None), *leading, i, j, *((k,) if spec.a else ()))
            found = drift_of_cells(spec, sampling, j, table, optimizer)
            values[where] = np.stack(found)
    return {
        "drift": variable(spec.dims, values[0], "stationary drift D", "1 / epoch"),
        "drift_stderr": variable(spec.dims, values[1], "standard error of D", "1 / epoch"),
    }


def _too_near(q: np.ndarray, table: np.ndarray, sampling: Sampling) -> float:
    """The largest 1 − β2 at which a random scheme's integrals would take too long; 0 if none."""
    if sampling not in RANDOM or is_estimated(table, sampling):
        return 0.0
    descending = np.sort(q, axis=None)[::-1]
    work = np.cumsum(random_sampling.work(table[:, :1], descending, sampling))
    return float(max(descending[work > _MOST_WORK], default=0.0))


def why_no_drift(problem: problems.BuiltIn) -> str | None:
    """Why a problem has no drift to compare its verdicts with; None if it has one."""
    if frozen_table(problem) is not None:
        return None
    return "its gradients depend on x everywhere, and so does the drift"


def boundary_distance(dataset: xr.Dataset) -> xr.DataArray:
    """Distance in β2 of each cell from the closest sign change of the drift at its β1.

    Between two neighbouring β2 the drift is taken to be linear. If it is unknown between two β2
    where its sign differs, both count as lying on the boundary. The distance is inf where the drift
    does not change sign. The cost is linear in the number of cells.
    """
    drift = dataset["drift"].transpose(..., "beta2")
    values, beta2 = drift.values, dataset["beta2"].values
    known, column = ~np.isnan(values), np.arange(len(beta2))
    last_known = np.maximum.accumulate(np.where(known, column, -1), axis=-1)
    before = np.concatenate([np.full_like(last_known[..., :1], -1), last_known[..., :-1]], axis=-1)
    value_before = np.take_along_axis(values, np.maximum(before, 0), axis=-1)
    changes = known & (before >= 0) & ((values > 0) != (value_before > 0))
    beta2_before = beta2[np.maximum(before, 0)]
    with np.errstate(invalid="ignore", divide="ignore"):
        share = value_before / (value_before - values)
        crossing = beta2_before + (beta2 - beta2_before) * share
    is_neighbour = before == column - 1
    from_below = np.where(is_neighbour, crossing, beta2_before)
    from_above = np.where(is_neighbour, crossing, beta2)
    left = np.maximum.accumulate(np.where(changes, from_above, -np.inf), axis=-1)
    right = np.where(changes, from_below, np.inf)[..., ::-1]
    right = np.minimum.accumulate(right, axis=-1)[..., ::-1]
    right = np.concatenate([right[..., 1:], np.full_like(right[..., :1], np.inf)], axis=-1)
    return drift.copy(data=np.minimum(beta2 - left, right - beta2))


def agreement(
    dataset: xr.Dataset, beyond: float = 0.0, distance: xr.DataArray | None = None
) -> xr.DataArray:
    """The share of cells whose verdict is decided and has the sign of the drift, see `compare`."""
    return compare(dataset, beyond, distance)["agree"]


def compare(
    dataset: xr.Dataset, beyond: float = 0.0, distance: xr.DataArray | None = None
) -> xr.Dataset:
    """How often the verdict has the sign of the drift, for each of `PANEL_DIMS`.

    Args:
      dataset: with `drift`, `diverged`, `undecided`. Cells count if their drift is known and not 0.
      beyond: distance in β2 from every sign change of the drift at their β1 beyond which cells
        count.
      distance: the `boundary_distance` of the data set, to save computing it again.

    Returns:
      `agree`, `disagree` and `undecided`: shares of the counted cells, which sum to 1; and
      `counted`, their number.
    """
    drift, diverged, undecided = (dataset[name] for name in ("drift", "diverged", "undecided"))
    counted = drift.notnull() & (drift != 0)
    if beyond > 0:
        distance = boundary_distance(dataset) if distance is None else distance
        counted &= distance > beyond
    same = (drift > 0) == diverged
    over = [dim for dim in drift.dims if dim not in PANEL_DIMS]
    found = {
        "agree": (same & ~undecided).where(counted).mean(over),
        "disagree": (~same & ~undecided).where(counted).mean(over),
        "undecided": undecided.where(counted).mean(over),
        "counted": counted.sum(over),
    }
    return xr.Dataset(found)


def frozen_table(problem: problems.FiniteSum) -> Float[np.ndarray, "n 1"] | None:
    """The gradients of a construction where they do not depend on x; None for other problems."""
    if not isinstance(
        problem, problems.BoundedLinear | problems.Counterexample | problems.SlopeTable
    ):
        return None
    return problem.constant_gradients()[:, None]


def drift_of_cells(
    spec: PhaseDiagram,
    sampling: Sampling,
    row: int,
    table: np.ndarray,
    optimizer: Optimizer = ADAM,
    away: np.ndarray | None = None,
) -> Drift:
    """Drift and standard error, of the shape of the row's cells; NaN where not computed.

    Args:
      spec: the diagram.
      sampling: sampling scheme.
      row: position of n in `spec.num_components`, which selects the cells if they are paired.
      table: component gradients (n, d), unscaled: if ε > 0 the drift depends on their scale.
      optimizer: the optimiser; one whose update depends on the step is frozen at a typical one.
      away: for each coordinate the sign of the direction away from x*, or 0 to ignore it; the
        largest drift that way is returned. Default: the first coordinate's drift as it is.
    """
    signs = np.eye(table.shape[1])[0] if away is None else away
    key = stream_key(spec.seed)
    least = least_one_minus_beta(table, sampling)

    def of_coordinates(p: np.ndarray, q: np.ndarray) -> Drift:
        return stationary_drift(
            table,
            adam.Hyperparameters(p, q, spec.epsilon),
            sampling,
            key=key,
            num_samples=100_000,
            optimizer=optimizer,
            at_step=max(1, round(_TYPICAL_STEP * spec.num_steps)),
        )

    def at(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        return _largest(of_coordinates(p, q), signs)

    def usable(p: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        too_near = _too_near(np.broadcast_arrays(p, q)[1], table, sampling)
        memory = _least_for_estimate(table, sampling, optimizer)
        return (
            (p >= least[0] * _AS_TYPED) & (p >= memory),
            (q >= least[1] * _AS_TYPED) & (q > too_near) & (q >= memory),
        )

    if spec.paired:
        p, q = 1 - spec.beta1[row], 1 - spec.beta2[row]
        inside = np.logical_and(*usable(p, q))
        found = np.full((2, *p.shape), np.nan)
        if inside.any():
            found[:, inside] = at(np.maximum(p[inside], least[0]), np.maximum(q[inside], least[1]))
        return Drift(*found)
    found = np.full((2, spec.beta1.size, spec.beta2.size), np.nan)
    inside = usable(1 - spec.beta1[:, None], 1 - spec.beta2)
    rows, columns = (np.flatnonzero(one) for one in inside)
    if not rows.size or not columns.size:
        return Drift(*found)
    beta1, beta2 = spec.beta1[rows], spec.beta2[columns]
    p, q = np.maximum(1 - beta1[:, None], least[0]), np.maximum(1 - beta2, least[1])
    smooth = None
    if sampling in RANDOM and optimizer is ADAM and not is_estimated(table, sampling):
        smooth = chebyshev.on_grid(lambda p, q: of_coordinates(p, q).drift, p[:, 0], q)
    if smooth is not None:
        whole = _largest(Drift(smooth.values, smooth.error), signs)
    elif sampling in RANDOM:
        count = _POINTS_OF_RANDOM_DRIFT if optimizer is ADAM else _POINTS_OF_CHAINS
        some = _every_few(beta1, count), _every_few(beta2, count)
        nodes = at(p[some[0]], q[some[1]])
        axes = beta1[some[0]], beta2[some[1]]
        whole = np.stack([_interpolated(axes, values, beta1, beta2) for values in nodes])
    else:
        whole = at(p, q)
    found[:, rows[:, None], columns] = whole
    return Drift(*found)


def _largest(one: Drift, signs: Float[np.ndarray, " d"]) -> Float[np.ndarray, "2 ..."]:
    """The largest drift over the coordinates in the direction of their signs, and its error."""
    drift = np.where(signs != 0, signs * one.drift, -np.inf)
    drift = np.where(np.isnan(one.drift).any(axis=-1, keepdims=True), np.nan, drift)
    largest = drift.argmax(axis=-1)[..., None]
    pair = [np.take_along_axis(values, largest, axis=-1) for values in (drift, one.stderr)]
    return np.stack(pair)[..., 0]


def _interpolated(
    axes: tuple[np.ndarray, np.ndarray], values: np.ndarray, beta1: np.ndarray, beta2: np.ndarray
) -> np.ndarray:
    if values.shape == (len(beta1), len(beta2)):
        return values
    return RegularGridInterpolator(axes, values)(tuple(np.meshgrid(beta1, beta2, indexing="ij")))


def _least_for_estimate(table: np.ndarray, sampling: Sampling, optimizer: Optimizer) -> float:
    """The smallest 1 − β whose histories fit in memory if the drift is estimated, else 0."""
    of_rule = optimizer is not ADAM and optimizer.limit is None and sampling in RANDOM
    if not is_estimated(table, sampling) and not of_rule:
        return 0.0
    n = len(table)
    sizes = np.abs(table[table != 0])
    spread = 2 * np.log(sizes.max() / sizes.min()) if sizes.size else 0.0
    chains = n * max(1, 640 // n)
    most_steps = _MOST_HISTORY / chains - 2 * n
    return float((6 + spread) / most_steps) if most_steps > 0 else np.inf


def _every_few(beta: np.ndarray, most: int) -> np.ndarray:
    """Positions of evenly spread values, including the first and the last."""
    count = min(len(beta), most)
    return np.unique(np.linspace(0, len(beta) - 1, count).astype(int))
