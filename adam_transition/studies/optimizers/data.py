"""The data of the optimiser study: intervals, diagrams, and the drift at libraries' defaults."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import xarray as xr

from adam_transition import adam
from adam_transition.optimizers import Optimizer
from adam_transition.problems import counterexample_table
from adam_transition.sampling import Sampling, stream_key
from adam_transition.sweeps.pieces import Pieces
from adam_transition.sweeps.study import variable
from adam_transition.theory.rule_boundary import rule_intervals
from adam_transition.theory.rule_drift import drift_of_optimizer

DEFAULT_N = (3, 5, 10, 20, 50, 100, 200, 500, 1000)
"""Values of n at which the libraries' defaults are tried."""

AT_STEP = 50_000
"""Step at which a rule is frozen that counts its steps (ADOPT's clip)."""

_FIRST = np.linspace(0, 0.98, 40)
_SECOND = 1 - np.geomspace(1, 2e-3, 48)
_MOST_INTERVALS = 4


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
            "default_n": ("default_n", np.array(DEFAULT_N), {"long_name": "n", "units": "1"}),
        }
    )


def intervals(spec: OptimizerSpec, pieces: Pieces) -> Mapping[str, xr.Variable]:
    """`beta_low`, `beta_high`, `stderr` of the intervals of divergence, NaN where there is none.

    Dims: (optimizer, sampling, n, a, interval). `stderr` is also NaN where an interval reaches the
    end of the scan or βs with an unknown drift, which `unknown_low` and `unknown_high` enclose.
    """
    dims = ("optimizer", "sampling", "n", "a", "interval")
    values = np.full((5, *_shape(spec), _MOST_INTERVALS), np.nan)
    for where in np.ndindex(*_shape(spec)):
        [values[(slice(None), *where)]] = pieces.keep(
            " ".join(map(str, where)), partial(_ends, spec, where)
        )
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
    for where in np.ndindex(*shape):
        o, j, k = where
        table = counterexample_table(spec.num_components[j], spec.a[k])
        plane = partial(_plane, table, spec.optimizers[o])
        [values[where]] = pieces.keep(" ".join(map(str, where)), plane)
    dims = ("optimizer", "n", "a", "first", "second")
    return {"drift": variable(dims, values, "stationary drift D, cyclic order", "1 / epoch")}


def _plane(table: np.ndarray, optimizer: Optimizer) -> list[np.ndarray]:
    hyper = adam.Hyperparameters(1 - _FIRST[:, None], 1 - _SECOND)
    found = drift_of_optimizer(table, optimizer, hyper, at_step=AT_STEP)
    return [found.drift[..., 0]]


def at_defaults(spec: OptimizerSpec, pieces: Pieces) -> Mapping[str, xr.Variable]:
    """`default_drift` over (optimizer, default_n, default_a): D at the defaults, cyclic order.

    `default_a` is 0 for a = 1/(n−1)² and 1 for a = 1. NaN for an optimiser without defaults.
    """
    values = np.full((len(spec.optimizers), len(DEFAULT_N), 2), np.nan)
    for o, optimizer in enumerate(spec.optimizers):
        if optimizer.defaults:
            [values[o]] = pieces.keep(str(o), partial(_defaults, optimizer))
    dims = ("optimizer", "default_n", "default_a")
    return {
        "default_a": variable("default_a", np.arange(2), "0: a = 1/(n−1)², 1: a = 1"),
        "default_drift": variable(dims, values, "D at the library's defaults", "1 / epoch"),
    }


def _defaults(optimizer: Optimizer) -> list[np.ndarray]:
    values = [
        [drift_at_defaults(optimizer, counterexample_table(n, a)) for a in (None, 1.0)]
        for n in DEFAULT_N
    ]
    return [np.array(values)]


def drift_at_defaults(
    optimizer: Optimizer, table: np.ndarray, sampling: Sampling = "cyclic", seed: int = 0
) -> float:
    """The drift of a table at the defaults of the optimiser's library."""
    axes = [optimizer.defaults.get(axis, 0.0) if axis else 0.0 for axis in optimizer.axes]
    hyper = adam.Hyperparameters(*(1 - np.array(beta) for beta in axes))
    found = drift_of_optimizer(
        table, optimizer, hyper, sampling, key=stream_key(seed), at_step=AT_STEP
    )
    return float(found.drift[0])
