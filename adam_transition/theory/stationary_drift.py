"""The stationary drift of Adam on a table of frozen component gradients.

For frozen gradients g_1 … g_n, (m, v) is a contraction driven by the index stream and has a unique
stationary law. The drift per epoch,

    D(β1, β2) = −n·E[m/(√v + ε)],

is the direction in which the iterate moves if steps are small. With replacement it is, up to sign
and the factor n, the Adam vector field of Dereich & Jentzen (arXiv:2407.21078). At ε = 0, D is
invariant to the scale of the table. On the counterexample, an iterate that starts many steps away
from the minimiser goes to infinity if D > 0 and returns if D < 0. Within a few steps of the
minimiser the gradients are not frozen, and the sign of D does not determine the limit
(docs/mathematics/drift.md).

Cyclic order has a closed form (`cyclic`); sampling with replacement and random shuffling have an
integral (`random_sampling`). Both are exact, also for tables with zero gradients. If the integral
has too many states, D is estimated from chains (`chains`). For some hyperparameters the drift does
not exist or cannot be computed (`drift_domain`).
"""

import math
from typing import assert_never

import jax
import numpy as np
from jaxtyping import Array, Float, Key

from adam_transition import adam
from adam_transition.optimizers import ADAM, Factory, Optimizer, resolved
from adam_transition.sampling import Sampling, check, indices
from adam_transition.theory import chains, cyclic, drift_domain, random_sampling, rule_drift
from adam_transition.theory.chains import Histories
from adam_transition.theory.drift_domain import Drift


def stationary_drift(
    gradients: Float[np.ndarray, "n d"],
    hyper: adam.Hyperparameters,
    sampling: Sampling = "cyclic",
    *,
    key: Key[Array, ""] | None = None,
    num_samples: int = 1_000_000,
    histories: Histories | None = None,
    optimizer: Optimizer | Factory | str = ADAM,
    at_step: int | None = None,
) -> Drift:
    """D = −n·E[m/(√(v + ε_root) + ε)] for a table of component gradients; computed in float64.

    Exact, with two exceptions: random shuffling of a table with many different gradients, for which
    `random_sampling.has_exact_drift` is false, and calls that pass `histories`. Those return a
    Monte Carlo estimate with its standard error. The error of an exact drift is at most about n
    units of rounding of Σ|m|/√v in cyclic order, and below 1e-12 of n·E[|m|/√v] in the random
    orders, down to the smallest supported 1 − β2 (`drift_domain.least_one_minus_beta`).

    The drift and its error are NaN in cells in which the drift does not exist or cannot be
    computed; `drift_domain.reason_against` gives the reason. If this holds for all cells, an error
    is raised.

    For an optimiser other than Adam, D = −n·E[direction] is found by running its rule, exactly up
    to a reported error in cyclic order and from chains in the random orders; see `rule_drift`.

    Args:
      gradients: the table, of shape (n, d); row i is ∇f_i at the point in question.
      hyper: 1 − β1 and 1 − β2 in (0, 1]; ε and ε_root finite and at least 0, in units of the
        gradients and of their squares; arrays that broadcast together to the shape `…`.
      sampling: the sampling scheme. `shuffle_once` draws its one permutation from the key.
      key: needed for `shuffle_once` and for estimates; read, not consumed: equal keys give equal
        histories.
      num_samples: number of steps averaged for each cell, for estimates.
      histories: estimate the drift from these histories of a random scheme (`draw_histories`); for
        Adam only.
      optimizer: the optimiser; `hyper` then holds 1 − β of its two axes. Also a name of
        `optimizers.OPTIMIZERS`, or a factory as for `optimizers.from_optax`.
      at_step: for a rule whose update at step k depends on k in the long run (ADOPT's clip): the
        step number at which it is frozen.

    Raises:
      ValueError: the scheme is unknown; the table is not of shape (n, d) or not finite; a 1 − β is
        NaN or outside (0, 1]; an ε is negative or not finite; a needed key is missing; the
        histories are for another scheme or n, or too short for the memory of a cell; or no cell has
        a drift.

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
    optimizer = resolved(optimizer)
    if optimizer is not ADAM:
        if histories is not None:
            raise ValueError(
                f"histories with optimizer={optimizer.name}: only Adam's drift takes any"
            )
        return rule_drift.drift_of_optimizer(
            gradients, optimizer, hyper, sampling, key=key, num_samples=num_samples, at_step=at_step
        )
    if sampling == "cyclic" and histories is None:
        on_grid = _on_grid(gradients, hyper)
        if on_grid is not None:
            return on_grid
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
    all_cells = np.full((2, len(refused), table.shape[1]), np.nan)
    all_cells[:, ~refused] = mean, stderr
    mean, stderr = all_cells.reshape(2, *shape, table.shape[1])
    return Drift(mean, stderr)


_LEAST_GRID = 4096  # cells
_MOST_MOMENTS = 1 << 25  # numbers held for both axes


def _on_grid(gradients: Float[np.ndarray, "n d"], hyper: adam.Hyperparameters) -> Drift | None:
    """The drift in cyclic order as a matrix product, where β1 and β2 are axes of a large grid.

    None if they are not, or if cells need to be looked at one by one: zero gradients, values that
    may have to be refused, an ε that varies.
    """
    table = np.asarray(gradients, np.float64)
    p, q, *epsilons = (np.asarray(value, np.float64) for value in hyper)
    shape = np.broadcast_shapes(p.shape, q.shape)
    p, q = (one.reshape((1,) * (len(shape) - one.ndim) + one.shape) for one in (p, q))
    is_grid = p.size * q.size == math.prod(shape) >= _LEAST_GRID
    if not is_grid or any(one.ndim for one in epsilons) or table.ndim != 2:
        return None
    sizes = np.abs(table[:, table.any(axis=0)])
    least = np.finfo(np.float64).tiny
    usual = (
        sizes.size > 0
        and np.isfinite(sizes).all()
        and (sizes.min(axis=0) >= sizes.max(axis=0) * drift_domain.LEAST_RATIO).all()
        and all(((one >= least) & (one <= 1)).all() for one in (p, q))
        and all(np.isfinite(one) and one >= 0 for one in epsilons)
        and len(table) * (p.size + q.size) <= _MOST_MOMENTS
    )
    if not usual:
        return None
    exponents = drift_domain.scale_exponents(table)
    axes = cyclic.Axes(p.ravel(), q.ravel())
    columns = []
    for i, exponent in enumerate(exponents.tolist()):
        with np.errstate(over="ignore", under="ignore"):
            scaled = [float(np.ldexp(one, -k * exponent)) for k, one in enumerate(epsilons, 1)]
        columns.append(cyclic.drift_of_grid(np.ldexp(table[:, [i]], -exponent), axes, *scaled))
    drift = columns[0] if len(columns) == 1 else np.concatenate(columns, axis=-1)
    drift = drift.reshape(*p.shape, *q.shape, -1)
    ndim = len(shape)
    interleaved = [axis for i in range(ndim) for axis in (i, ndim + i)]
    drift = drift.transpose(*interleaved, 2 * ndim).reshape(*shape, table.shape[1])
    return Drift(drift, np.zeros_like(drift))


def _exact(
    table: Float[np.ndarray, "n d"],
    hyper: adam.Hyperparameters,
    sampling: Sampling,
    key: Key[Array, ""] | None,
) -> Float[np.ndarray, "C d"]:
    """D of a table whose largest gradients are close to 1 in size, with ε of shape (C, d)."""
    match sampling:
        case "with_replacement" | "random_shuffling":
            return random_sampling.random_drift(table, hyper, sampling)
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
    """The estimate of D from each of the G groups of chains.

    Groups are independent and identically distributed, so their spread gives the standard error of
    any function of their mean.

    Args:
      gradients: the table.
      hyper: as for `stationary_drift`; the C cells are flattened.
      histories: histories of a random scheme.

    Raises:
      ValueError: as for `stationary_drift`, or some cell's drift cannot be estimated.
    """
    table, cells, _ = drift_domain.checked(gradients, hyper)
    _, reason = drift_domain.refusals(table, cells, histories.sampling, True, 1, True)
    if reason is not None:
        raise ValueError(reason)
    exponents = drift_domain.scale_exponents(table)
    with jax.enable_x64(True):
        return chains.group_drifts(np.ldexp(table, -exponents), cells.scaled(exponents), histories)
