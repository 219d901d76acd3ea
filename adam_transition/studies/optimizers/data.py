"""The data of the optimiser study: intervals, diagrams, and the drift at libraries' defaults."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import xarray as xr

from adam_transition import adam
from adam_transition.optimizers import Optimizer
from adam_transition.problems import counterexample_table
from adam_transition.sampling import RANDOM, Sampling, stream_key
from adam_transition.sweeps.pieces import Pieces
from adam_transition.sweeps.study import variable
from adam_transition.theory.rule_boundary import LEAST, flat, rule_intervals
from adam_transition.theory.rule_drift import drift_of_optimizer
from adam_transition.theory.stationary_drift import stationary_drift

AT_STEP = 50_000
"""Step at which a rule is frozen that counts its steps (ADOPT's clip)."""

_FIRST = np.linspace(0, 0.98, 40)
_SECOND = 1 - np.geomspace(1, 2e-3, 48)
_MOST_INTERVALS = 4
_DEFAULT_A = None, 1.0  # None: 1/(n−1)²
_DEFAULT_SAMPLES = 20_000
_MOST_REMEMBERED = 2000.0  # steps
_LEAST_CURE = 3e-5  # smallest 1 − β of the search for a cure; less for defaults close to it


@dataclass(frozen=True)
class OptimizerSpec:
    """What to compute."""

    optimizers: tuple[Optimizer, ...]
    num_components: tuple[int, ...]
    a: tuple[float | None, ...]  # None: 1/(n−1)²
    samplings: tuple[Sampling, ...]
    beta1: float  # of the first axis of an optimiser that states no default
    num_samples: int
    matrix_sizes: tuple[int, ...]  # Muon's, if it is among the optimisers
    matrix_noise: tuple[float, ...]
    default_n: tuple[int, ...]  # at which the libraries' defaults are tried
    random_default_n: tuple[int, ...]  # in random orders
    seed: int

    def first(self, optimizer: Optimizer) -> float:
        """The first axis at its default, where a second one is swept."""
        return optimizer.defaults.get(optimizer.axes[0], self.beta1) if optimizer.axes[1] else 0.0


def coordinates(spec: OptimizerSpec) -> xr.Dataset:
    """The labelled axes."""
    n = np.array(spec.num_components)
    a = [[(k - 1.0) ** -2 if one is None else one for one in spec.a] for k in n.tolist()]
    names = np.array([one.name for one in spec.optimizers], dtype=object)
    return xr.Dataset(
        coords={
            "optimizer": ("optimizer", names),
            "sampling": ("sampling", np.array(spec.samplings, dtype=object)),
            "n": ("n", n, {"long_name": "n", "units": "1"}),
            "a_value": (("n", "a"), np.array(a), {"long_name": "slope a", "units": "1"}),
            "first": ("first", _FIRST, {"long_name": "first β", "units": "1"}),
            "second": ("second", _SECOND, {"long_name": "second β", "units": "1"}),
            "random_sampling": ("random_sampling", np.array(RANDOM, dtype=object)),
            "random_default_n": ("random_default_n", np.array(spec.random_default_n)),
            "default_n": ("default_n", np.array(spec.default_n), {"long_name": "n", "units": "1"}),
        }
    )


def intervals(spec: OptimizerSpec, pieces: Pieces) -> Mapping[str, xr.Variable]:
    """`beta_low`, `beta_high`, `stderr` of the intervals of divergence, NaN where there is none.

    Dims: (optimizer, sampling, n, a, interval). `stderr` is also NaN where an interval reaches the
    end of the scan or βs with an unknown drift, which `unknown_low` and `unknown_high` enclose.
    """
    dims = ("optimizer", "sampling", "n", "a", "interval")
    values = np.full((5, *_shape(spec), _MOST_INTERVALS), np.nan)
    jobs = {where: partial(_ends, spec, where) for where in np.ndindex(*_shape(spec))}
    for where, [found] in pieces.keep_all(jobs).items():
        values[(slice(None), *where)] = found
    low, high, stderr, unknown_low, unknown_high = values
    return {
        "beta_low": variable(dims, low, "lower end of an interval of divergence"),
        "beta_high": variable(dims, high, "upper end of an interval of divergence"),
        "stderr": variable(dims, stderr, "standard error of the ends, the larger of the two"),
        "unknown_low": variable(dims, unknown_low, "lower end of a range of unknown drift"),
        "unknown_high": variable(dims, unknown_high, "upper end of a range of unknown drift"),
    }


def _shape(spec: OptimizerSpec) -> tuple[int, int, int, int]:
    return len(spec.optimizers), len(spec.samplings), len(spec.num_components), len(spec.a)


def _ends(spec: OptimizerSpec, where: tuple[int, ...]) -> list[np.ndarray]:
    o, s, j, k = where
    optimizer = spec.optimizers[o]
    found = rule_intervals(
        counterexample_table(spec.num_components[j], spec.a[k]),
        optimizer,
        spec.first(optimizer),
        spec.samplings[s],
        key=stream_key(spec.seed),
        num_samples=spec.num_samples,
        at_step=AT_STEP,
    )
    values = np.full((5, _MOST_INTERVALS), np.nan)
    for slot, (low, high) in enumerate(found.diverges[:_MOST_INTERVALS]):
        values[:3, slot] = low.beta2, high.beta2, np.maximum(low.stderr, high.stderr)
    for slot, ends in enumerate(found.unknown[:_MOST_INTERVALS]):
        values[3:, slot] = ends
    return [values]


def diagrams(spec: OptimizerSpec, pieces: Pieces) -> Mapping[str, xr.Variable]:
    """`drift` over (optimizer, n, a, first, second): per epoch, in cyclic order."""
    shape = len(spec.optimizers), len(spec.num_components), len(spec.a)
    values = np.empty((*shape, len(_FIRST), len(_SECOND)))
    tables = [[counterexample_table(n, a) for a in spec.a] for n in spec.num_components]
    jobs = {
        (o, j, k): partial(_plane, tables[j][k], spec.optimizers[o])
        for o, j, k in np.ndindex(*shape)
    }
    for where, [found] in pieces.keep_all(jobs).items():
        values[where] = found
    dims = ("optimizer", "n", "a", "first", "second")
    return {"drift": variable(dims, values, "stationary drift D, cyclic order", "1 / epoch")}


def _plane(table: np.ndarray, optimizer: Optimizer) -> list[np.ndarray]:
    hyper = adam.Hyperparameters(1 - _FIRST[:, None], 1 - _SECOND)
    found = drift_of_optimizer(table, optimizer, hyper, at_step=AT_STEP)
    return [found.drift[..., 0]]


def at_defaults(spec: OptimizerSpec, pieces: Pieces) -> Mapping[str, xr.Variable]:
    """At the defaults of the libraries: `default_drift`, and `cure` where it is positive.

    Both over (optimizer, default_n, default_a) in cyclic order, and `random_default_drift` and its
    `random_default_stderr` over (optimizer, random_sampling, random_default_n, default_a).
    `default_a` is 0 for a = 1/(n−1)² and 1 for a = 1. `cure` is the least value of the last
    hyperparameter above its default at which the drift is not positive; 1 if the scan finds none.
    All are NaN for an optimiser without defaults, and `cure` also where there is nothing to cure.
    """
    shape = len(spec.optimizers), len(spec.default_n), 2
    drift, cure = np.full((2, *shape), np.nan)
    of_random = np.full((2, shape[0], len(RANDOM), len(spec.random_default_n), 2), np.nan)
    known = {o: optimizer for o, optimizer in enumerate(spec.optimizers) if optimizer.defaults}
    jobs: dict[tuple, Callable] = {}
    for o, optimizer in known.items():
        jobs["cyclic", o] = partial(_cyclic_defaults, optimizer, spec.default_n)
        for r, j in np.ndindex(*of_random.shape[2:4]):
            jobs["random", o, r, j] = partial(
                _random_defaults, optimizer, RANDOM[r], spec.random_default_n[j], spec.seed
            )
    found = pieces.keep_all(jobs)
    for o in known:
        drift[o], cure[o] = found["cyclic", o]
        for r, j in np.ndindex(*of_random.shape[2:4]):
            of_random[:, o, r, j] = found["random", o, r, j]
    dims = "optimizer", "default_n", "default_a"
    random = "optimizer", "random_sampling", "random_default_n", "default_a"
    text = "D at the library's defaults"
    return {
        "default_a": variable("default_a", np.arange(2), "0: a = 1/(n−1)², 1: a = 1"),
        "default_drift": variable(dims, drift, f"{text}, cyclic order", "1 / epoch"),
        "cure": variable(dims, cure, "least β above the default that returns, cyclic order"),
        "random_default_drift": variable(random, of_random[0], text, "1 / epoch"),
        "random_default_stderr": variable(random, of_random[1], f"error of {text}", "1 / epoch"),
    }


def _cyclic_defaults(optimizer: Optimizer, num_components: Sequence[int]) -> list[np.ndarray]:
    """Drift and cure, each of shape (default_n, default_a)."""
    tables = ([counterexample_table(n, a) for a in _DEFAULT_A] for n in num_components)
    values = [[drift_at_defaults(optimizer, table)[0] for table in both] for both in tables]
    drift = np.array(values)
    return [drift, _cures(optimizer, num_components, drift)]


def _cures(optimizer: Optimizer, num_components: Sequence[int], drift: np.ndarray) -> np.ndarray:
    cure = np.full(drift.shape, np.nan)
    first, default = (_default(optimizer, axis) for axis in optimizer.axes)
    default = default if optimizer.axes[1] else first
    least = min(LEAST["cyclic"], (1 - default) / 30)
    for j, k in np.argwhere(drift > flat(optimizer, 1) * np.array(num_components)[:, None]):
        table = counterexample_table(num_components[j], _DEFAULT_A[k])
        cure[j, k] = _cure(optimizer, table, first, default, least)
        if cure[j, k] == 1 and least > _LEAST_CURE:  # a scan so close to 1 takes seconds
            cure[j, k] = _cure(optimizer, table, first, default, _LEAST_CURE)
    return cure


def _cure(
    optimizer: Optimizer, table: np.ndarray, first: float, default: float, least: float
) -> float:
    """The end of the interval around the default; 1 if a scan to `least` finds no sure one."""
    found = rule_intervals(table, optimizer, first, at_step=AT_STEP, least=least)
    ends = [high for low, high in found.diverges if low.beta2 <= default < high.beta2]
    return ends[0].beta2 if ends and np.isfinite(ends[0].stderr) else 1.0


def _random_defaults(optimizer: Optimizer, scheme: Sampling, n: int, seed: int) -> list[np.ndarray]:
    """Drift and standard error for each default a.

    NaN for an optimiser that remembers so long by default that chains would take minutes.
    """
    if max(1 / (1 - _default(optimizer, axis)) for axis in optimizer.axes) > _MOST_REMEMBERED:
        return list(np.full((2, len(_DEFAULT_A)), np.nan))
    tables = (counterexample_table(n, a) for a in _DEFAULT_A)
    values = [drift_at_defaults(optimizer, one, scheme, seed, _DEFAULT_SAMPLES) for one in tables]
    return list(np.array(values).T)


def _default(optimizer: Optimizer, axis: str | None) -> float:
    return optimizer.defaults.get(axis, 0.0) if axis else 0.0


def drift_at_defaults(
    optimizer: Optimizer,
    table: np.ndarray,
    sampling: Sampling = "cyclic",
    seed: int = 0,
    num_samples: int = 100_000,
) -> tuple[float, float]:
    """Drift and error of a table of shape (n, 1) at the defaults of the optimiser's library."""
    axes = [_default(optimizer, axis) for axis in optimizer.axes]
    found = stationary_drift(
        table,
        adam.Hyperparameters(*(1 - np.array(beta) for beta in axes)),
        sampling,
        key=stream_key(seed),
        num_samples=num_samples,
        optimizer=optimizer,
        at_step=AT_STEP,
    )
    return float(found.drift[0]), float(found.stderr[0])
