"""Where an optimiser diverges: intervals of one hyperparameter on which its drift is positive.

The hyperparameter is the rule's second axis at a fixed value of the first, or the only one it has.
Adam's intervals are those of `boundary`. Other rules are scanned with equal spacing in
log(β/(1−β)); each sign change of D > 0 between two points is bisected. A positive interval narrower
than the scan's spacing can be missed.

The drift of a rule whose steps have one size is a count of steps, and 0 on whole intervals. Where
the size is constant only up to a small ε (Muon), it is nearly 0 there, with either sign: such a
drift counts as 0.
"""

from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Key

from adam_transition import adam
from adam_transition.optimizers import ADAM, Factory, Optimizer, resolved
from adam_transition.sampling import RANDOM, Sampling
from adam_transition.theory.boundary import Edge, Interval, divergence_intervals
from adam_transition.theory.rule_drift import drift_of_optimizer

LEAST = {"cyclic": 1e-3, "shuffle_once": 1e-3, "with_replacement": 2e-3, "random_shuffling": 5e-3}
"""Smallest 1 − β of the scan: the state must be run for its memory."""

_POINTS = 97
_POINTS_OF_CHAINS = 33
_HALVINGS = {True: 18, False: 30}  # of a bracket; keyed by whether the drift is estimated
_FLAT = 1e-3  # of n; what counts as 0 for steps of one size
_STEP = 0.02  # of log(β/(1−β)), for the slope of D at an edge


def hyperparameter(optimizer: Optimizer) -> str:
    """The rule's own name of the axis that the intervals are of."""
    first, second = optimizer.axes
    return first if second is None else second


class Scan(NamedTuple):
    """What is known of one hyperparameter."""

    diverges: list[Interval]  # where D > 0, ascending
    unknown: list[tuple[float, float]]  # ranges of β with all points of unknown drift


def rule_intervals(
    gradients: Float[np.ndarray, "n d"],
    optimizer: Optimizer | Factory | str,
    first: float,
    sampling: Sampling = "cyclic",
    *,
    along: Float[np.ndarray, " d"] | None = None,
    key: Key[Array, ""] | None = None,
    num_samples: int = 100_000,
    at_step: int | None = None,
    least: float | None = None,
) -> Scan:
    """Intervals of `hyperparameter(optimizer)` on which D > 0, and where D is not known.

    An interval that reaches the end of the scan ends at 1 with the standard error NaN: how far it
    goes is not known. The error is also NaN at an edge to βs whose drift is NaN (a rule that does
    not settle): the interval may go on there.

    Args:
      gradients: a table of shape (n, d).
      optimizer: the optimiser, a name of `optimizers.OPTIMIZERS`, or a factory as for
        `optimizers.from_optax`.
      first: β of the first axis, in [0, 1); without effect for a rule with one axis.
      sampling: the sampling scheme.
      along: a direction away from the minimiser, for d > 1: of D its product with this is taken.
      key: needed for all schemes but cyclic.
      num_samples: number of steps averaged for each β of a random scheme.
      at_step: the step at which a rule is frozen that counts steps.
      least: the smallest 1 − β of the scan; default: `LEAST` of the scheme. Adam needs none.

    Raises:
      ValueError: as for `drift_of_optimizer`, or `divergence_intervals` for Adam.
    """
    optimizer = resolved(optimizer)
    if optimizer is ADAM and along is None:
        return Scan(divergence_intervals(gradients, [first], sampling, key=key)[0], [])
    along = np.ones(1) if along is None else np.asarray(along)
    if along.shape != gradients.shape[1:]:
        raise ValueError(f"along of shape {along.shape}: must be {gradients.shape[1:]}")
    settings = first, sampling, along, key, num_samples, at_step
    drift = partial(_drift, gradients, optimizer, *settings)
    zero = flat(optimizer, len(gradients))
    least = LEAST[sampling] if least is None else least
    greatest = np.log1p(-least) - np.log(least)
    scan = np.linspace(-12, greatest, _POINTS_OF_CHAINS if sampling in RANDOM else _POINTS)
    values = scan_values = drift(scan)[0]
    positive = values > zero
    changes = np.flatnonzero(positive[1:] != positive[:-1])
    low, high = scan[changes], scan[changes + 1]
    unknown = np.isnan(np.where(positive[changes], values[changes + 1], values[changes]))
    for _ in range(_HALVINGS[sampling in RANDOM] if changes.size else 0):
        middle = (low + high) / 2
        values = drift(middle)[0]
        is_positive = values > zero
        unknown = np.where(is_positive, unknown, np.isnan(values))
        below = is_positive == positive[changes]
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    edges = _edges(drift, (low + high) / 2, unknown, sampling in RANDOM)
    edges = [Edge(0.0, 1.0, 0.0), *edges] if positive[0] else edges
    edges = [*edges, Edge(1.0, 0.0, np.nan)] if positive[-1] else edges
    found = [Interval(*ends) for ends in zip(edges[::2], edges[1::2], strict=True)]
    return Scan(found, _ranges(scan, np.isnan(scan_values)))


def _ranges(scan: np.ndarray, chosen: np.ndarray) -> list[tuple[float, float]]:
    """In β, from the point before each run of chosen points to the one after; 0 and 1 outside."""
    ends = np.diff(np.concatenate([[0], chosen.astype(int), [0]]))
    beta = np.concatenate([[0.0], _beta(scan), [1.0]])
    pairs = zip(np.flatnonzero(ends == 1), np.flatnonzero(ends == -1), strict=True)
    return [(float(beta[first]), float(beta[last + 1])) for first, last in pairs]


def flat(optimizer: Optimizer, n: int) -> float:
    """The drift per epoch of n steps up to which it counts as 0."""
    return _FLAT * n if optimizer.steps_of_one_size else 0.0


def _drift(
    gradients: np.ndarray,
    optimizer: Optimizer,
    first: float,
    sampling: Sampling,
    along: np.ndarray,
    key: Key[Array, ""] | None,
    num_samples: int,
    at_step: int | None,
    u: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Drift and error at log(β/(1−β)) of the swept axis."""
    swept = 1 / (1 + np.exp(u))
    only = optimizer.axes[1] is None
    hyper = adam.Hyperparameters(swept if only else np.full_like(u, 1 - first), swept)
    found = drift_of_optimizer(
        gradients, optimizer, hyper, sampling, key=key, num_samples=num_samples, at_step=at_step
    )
    return found.drift @ along, found.stderr @ np.abs(along)


def _edges(drift: partial, u: np.ndarray, unknown: np.ndarray, is_estimated: bool) -> list[Edge]:
    if not u.size:
        return []
    stderr = np.where(unknown, np.nan, 0.0)
    if is_estimated:
        above, below = (drift(u + step)[0] for step in (_STEP, -_STEP))
        with np.errstate(divide="ignore", invalid="ignore"):
            slope = (above - below) / (_beta(u + _STEP) - _beta(u - _STEP))
            stderr = np.where((slope != 0) & ~unknown, drift(u)[1] / np.abs(slope), np.nan)
    return [
        Edge(float(beta), float(1 - beta), float(error))
        for beta, error in zip(_beta(u), stderr, strict=True)
    ]


def _beta(u: np.ndarray) -> np.ndarray:
    return np.asarray(1 / (1 + np.exp(-u)))
