"""The stationary drift of Adam on a table of frozen component gradients.

With the gradients g_1 … g_n frozen, (m, v) is a contraction driven by the index stream and has one
stationary law. The drift per epoch,

    D(β1, β2) = −n·E[m/(√v + ε)],

is the direction in which the iterate goes when steps are small. At ε = 0 it is invariant to the
scale of the table. On the counterexample an iterate that starts many steps away from the minimiser
goes to infinity where D > 0 and comes back where D < 0; within a few steps of the minimiser the
table is not frozen, and D does not decide (docs/mathematics/drift.md).

Cyclic order has a closed form (`cyclic`), and the random orders have an integral (`random_orders`):
exact, with gradients that are 0 as well. Where the integral does not serve, D is estimated from
chains (`chains`). Some drifts have no value, or none that can be computed: see `drift_domain`.
"""

from typing import NamedTuple, assert_never

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from adam_transition import adam
from adam_transition.sampling import Sampling, check, indices
from adam_transition.theory import chains, cyclic, drift_domain, random_orders
from adam_transition.theory.chains import Histories


class Drift(NamedTuple):
    """Drift per epoch; `…` is the common shape of the hyperparameters."""

    drift: Float[np.ndarray, "... d"]  # −n E[m/√v]
    stderr: Float[np.ndarray, "... d"]  # standard error, 0 where the drift is exact


def stationary_drift(
    gradients: Float[np.ndarray, "n d"],
    hyper: adam.Hyperparameters,
    sampling: Sampling = "cyclic",
    *,
    key: Key[Array, ""] | None = None,
    num_samples: int = 1_000_000,
    histories: Histories | None = None,
) -> Drift:
    """D for a table of component gradients, −n·E[m/(√(v + ε_root) + ε)]; computed in float64.

    It is exact, but under random shuffling where `random_drift.has_exact_drift` denies it (many
    different gradients), and where histories are given: then it is estimated. In cyclic order the
    error is a few units of rounding of Σ|m|/√v, in the random orders it is below 1e-12 of
    n·E[|m|/√v], down to the least 1 − β2.

    Where a cell has no drift, or none that can be had (`reason_against` says why), its drift and
    error are NaN, and those of the other cells are not; if no cell has one, that is an error.

    Args:
      gradients: the table; row i is ∇f_i at the point in question.
      hyper: 1 − β1 and 1 − β2 in (0, 1], ε and ε_root finite and at least 0, in the units of the
        gradients and of their squares; arrays that broadcast together to the shape `…`.
      sampling: the sampling scheme. `shuffle_once` draws its one permutation from the key.
      key: for `shuffle_once` and for estimates; read, not consumed: a key stands for one set of
        histories.
      num_samples: for estimates, steps of Adam that are averaged for each cell.
      histories: estimate from these, drawn already for a random scheme.

    Raises:
      ValueError: an unknown scheme; a table that is not (n, d) or not finite; 1 − β outside (0, 1]
        or not a number, a negative or infinite ε; a key that is needed and not given; histories of
        another scheme or n, or too short for the memory of a cell; no cell that has a drift.

    >>> table = np.array([[3.0], [-1.0], [-1.0]])
    >>> hyper = adam.hyperparameters(0.0, 0.9)
    >>> round(float(stationary_drift(table, hyper).drift[0]), 4)
    -0.4431
    >>> round(float(stationary_drift(table, hyper, "with_replacement").drift[0]), 4)
    -0.3759
    >>> hyper = adam.hyperparameters(0.0, 0.9, epsilon=1.0)
    >>> round(float(stationary_drift(table, hyper, "with_replacement").drift[0]), 4)
    -0.2802
    """
    check(sampling)
    table, cells, shape = drift_domain.checked(gradients, hyper)
    if histories is not None and histories.sampling != sampling:
        raise ValueError(f"histories of {histories.sampling} for sampling={sampling!r}")
    estimated = drift_domain.is_estimated(table, sampling) or histories is not None
    refused, reason = drift_domain.refusals(
        table, cells, sampling, estimated, num_samples, histories is not None
    )
    if refused.all() and reason is not None:
        raise ValueError(reason)
    if (estimated or sampling == "shuffle_once") and key is None and histories is None:
        raise ValueError(f"sampling={sampling!r} needs a key for this table")
    exponents = drift_domain.scale_exponents(table)
    scaled = np.ldexp(table, -exponents)
    kept = drift_domain.Cells(*(values[~refused] for values in cells))
    with jax.enable_x64(True):
        if estimated:
            if histories is None:
                memory = float(1 / min(kept.p.min(), kept.q.min()))
                assert key is not None
                histories = chains.draw_histories(
                    scaled, sampling, key, memory=memory, num_samples=num_samples
                )
            mean, stderr = chains.estimate(scaled, kept.scaled(exponents), histories)
        else:
            mean = _exact(scaled, kept.scaled(exponents), sampling, key)
            stderr = np.zeros_like(mean)
    found = np.full((2, len(refused), table.shape[1]), np.nan)
    found[:, ~refused] = mean, stderr
    mean, stderr = found.reshape(2, *shape, table.shape[1])
    return Drift(mean, stderr)


def _exact(
    table: Float[np.ndarray, "n d"],
    hyper: adam.Hyperparameters,
    sampling: Sampling,
    key: Key[Array, ""] | None,
) -> Float[np.ndarray, "C d"]:
    """D of a table whose largest gradients are near 1, with ε of shape (C, d)."""
    match sampling:
        case "with_replacement" | "random_shuffling":
            return random_orders.random_drift(table, hyper, sampling)
        case "cyclic":
            return cyclic.drift_of_cells(table, hyper)
        case "shuffle_once":
            assert key is not None
            n = len(table)
            order = indices(sampling, key, 0, n, n, max_components=n)
            return cyclic.drift_of_cells(table[np.asarray(order)], hyper)
        case _:
            assert_never(sampling)


def drift_of_groups(
    gradients: Float[np.ndarray, "n d"], hyper: adam.Hyperparameters, histories: Histories
) -> Float[np.ndarray, "C G d"]:
    """The estimate of D from each group of chains.

    Groups are independent and alike, so their spread gives the standard error of anything that is
    made of their mean.

    Args:
      gradients: the table.
      hyper: as for `stationary_drift`; the cells are counted in one row.
      histories: drawn for a random scheme.

    Raises:
      ValueError: what `stationary_drift` raises, or a cell without a mean that can be estimated.
    """
    table, cells, _ = drift_domain.checked(gradients, hyper)
    _, reason = drift_domain.refusals(table, cells, histories.sampling, True, 1, True)
    if reason is not None:
        raise ValueError(reason)
    exponents = drift_domain.scale_exponents(table)
    with jax.enable_x64(True):
        return chains.group_drifts(np.ldexp(table, -exponents), cells.scaled(exponents), histories)
