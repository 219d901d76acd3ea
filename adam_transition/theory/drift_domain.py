"""Where the stationary drift exists and can be computed, and the reason why elsewhere it cannot.

At ε = 0, each zero gradient multiplies v by β2 and m by β1, so after a run of j zeros m/√v has
grown by (β1/√β2)^j. With replacement, the mean of m/√v is infinite if p0 β1 ≥ √β2, where p0 is the
fraction of zero gradients.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Bool, Float, Int

from adam_transition import adam
from adam_transition.sampling import RANDOM, Sampling, check
from adam_transition.theory import random_sampling
from adam_transition.theory.chains import MOST_BYTES, size_of_histories, too_large

LEAST_ESTIMATED = 1e-4
"""Smallest 1 − β for an estimate; the memory of a chain is 1/(1 − β) steps."""

LEAST_RATIO = 1e-150
"""Smallest ratio of two gradients of one coordinate: their squares must fit in float64."""

_ROUNDING_OF_BETA = 2.3e-16  # absolute error of 1 − β if β was rounded to float64
_MOST_LOG = 690.0  # e^690 fits in float64


def reason_against(
    gradients: Float[np.ndarray, "n d"],
    hyper: adam.Hyperparameters,
    sampling: Sampling = "cyclic",
    *,
    estimated: bool | None = None,
    num_samples: int = 1_000_000,
) -> str | None:
    """Why `stationary_drift` cannot compute the drift of some cell, in one line; None if it can.

    Computes no drift, so it is fast for any table.

    Args:
      gradients: the table, of shape (n, d).
      hyper: as for `stationary_drift`.
      sampling: the sampling scheme.
      estimated: whether the drift would be an estimate; default: `is_estimated`.
      num_samples: number of averaged steps, for estimates.

    Raises:
      ValueError: invalid arguments, as for `stationary_drift`.

    >>> table = np.array([[3.0], [-1.0], [0.0], [0.0]])
    >>> print(reason_against(table, adam.hyperparameters(0.9, 0.1), "with_replacement"))
    beta1=0.9, beta2=0.1: half of the gradients of coordinate 0 are 0, so the mean of m/√v is \
infinite (share·β1/√β2 = 1.42 ≥ 1); an epsilon above 0 makes it finite
    >>> reason_against(table, adam.hyperparameters(0.9, 0.99), "with_replacement")
    """
    check(sampling)
    table, cells, _ = checked(gradients, hyper)
    estimated = is_estimated(table, sampling) if estimated is None else estimated
    return refusals(table, cells, sampling, estimated, num_samples, False)[1]


def is_estimated(gradients: Float[np.ndarray, "n d"], sampling: Sampling) -> bool:
    """Whether `stationary_drift` estimates the drift of this table, which needs a key."""
    return sampling in RANDOM and not random_sampling.has_exact_drift(gradients, sampling)


def least_one_minus_beta(
    gradients: Float[np.ndarray, "n d"],
    sampling: Sampling,
    *,
    estimated: bool | None = None,
) -> tuple[float, float]:
    """The smallest 1 − β1 and the smallest 1 − β2 that `stationary_drift` accepts."""
    tiny = float(np.finfo(np.float64).tiny)
    if is_estimated(gradients, sampling) if estimated is None else estimated:
        return LEAST_ESTIMATED, LEAST_ESTIMATED
    return tiny, random_sampling.LEAST if sampling in RANDOM else tiny


def at_least(one_minus_beta: ArrayLike, least: float) -> np.ndarray:
    """Whether 1 − β is at least a limit, up to the rounding of a decimal β.

    For example 1 − 0.9999 is 9.999999999998899e-05 in float64, which rounds β to 1.1e-16.

    >>> bool(at_least(1 - 0.9999, 1e-4)), bool(at_least(1 - 0.99991, 1e-4))
    (True, False)
    """
    lowest = least - min(_ROUNDING_OF_BETA, least / 1024)
    return np.asarray(np.asarray(one_minus_beta) >= lowest)


class Drift(NamedTuple):
    """Drift per epoch; `…` is the common shape of the hyperparameters."""

    drift: Float[np.ndarray, "... d"]  # −n E[m/(√v + ε)], or of another direction
    stderr: Float[np.ndarray, "... d"]  # standard error; 0 if the drift is exact


class Cells(NamedTuple):
    """Hyperparameters of C cells."""

    p: Float[np.ndarray, " C"]  # 1 − β1
    q: Float[np.ndarray, " C"]  # 1 − β2
    epsilon: Float[np.ndarray, " C"]
    epsilon_root: Float[np.ndarray, " C"]

    def scaled(self, exponents: Int[np.ndarray, " d"]) -> adam.Hyperparameters:
        """Hyperparameters for a table multiplied by 2^−exponents, with ε of shape (C, d)."""
        with np.errstate(over="ignore", under="ignore"):
            epsilon = np.ldexp(self.epsilon[:, None], -exponents)
            epsilon_root = np.ldexp(self.epsilon_root[:, None], -2 * exponents)
        return adam.Hyperparameters(self.p, self.q, epsilon, epsilon_root)


def checked(
    gradients: Float[np.ndarray, "n d"], hyper: adam.Hyperparameters
) -> tuple[Float[np.ndarray, "n d"], Cells, tuple[int, ...]]:
    """The table in float64, the flattened cells, and the common shape of the hyperparameters.

    Raises:
      ValueError: invalid arguments, as for `stationary_drift`.
    """
    table = np.asarray(gradients, np.float64)
    if table.ndim != 2 or not table.size or not np.isfinite(table).all():
        raise ValueError(f"gradients of shape {table.shape}: need a finite table of shape (n, d)")
    arrays = np.broadcast_arrays(*(np.asarray(value, np.float64) for value in hyper))
    for name, values in zip(adam.Hyperparameters._fields, arrays, strict=True):
        is_beta = name.startswith("one")
        good = (values > 0) & (values <= 1) if is_beta else (values >= 0) & np.isfinite(values)
        if not good.all():
            allowed = "lie in (0, 1]" if is_beta else "be finite and at least 0"
            raise ValueError(f"{name}={values[~good].flat[0]:g}: values must {allowed}")
    return table, Cells(*(values.ravel() for values in arrays)), arrays[0].shape


def scale_exponents(table: Float[np.ndarray, "n d"]) -> Int[np.ndarray, " d"]:
    """Powers of two that bring the largest gradient of each coordinate into [½, 1)."""
    return np.frexp(np.abs(table).max(axis=0))[1]


def refusals(
    table: np.ndarray,
    cells: Cells,
    sampling: Sampling,
    estimated: bool,
    num_samples: int,
    drawn: bool,
) -> tuple[Bool[np.ndarray, " C"], str | None]:
    """The cells whose drift cannot be computed, and the reason for the first of them.

    Args:
      table: component gradients in float64, from `checked`.
      cells: hyperparameters, from `checked`.
      sampling: the sampling scheme.
      estimated: whether the drift is estimated.
      num_samples: number of averaged steps, for estimates.
      drawn: whether the histories of an estimate exist already, so that their size does not matter.
    """
    any_refused = np.zeros(len(cells.p), bool)
    reason = None
    for refused, why in _all_refusals(table, cells, sampling, estimated, num_samples, drawn):
        if reason is None and refused.any():
            reason = why(int(np.flatnonzero(refused)[0]))
        any_refused |= refused
    return any_refused, reason


_Refusal = tuple[np.ndarray, Callable[[int], str]]


def _all_refusals(
    table: np.ndarray,
    cells: Cells,
    sampling: Sampling,
    estimated: bool,
    num_samples: int,
    drawn: bool,
) -> Iterator[_Refusal]:
    everywhere = np.ones(len(cells.p), bool)
    size = np.abs(table)
    least_size = np.where(size > 0, size, np.inf).min(axis=0)
    for i in np.flatnonzero(least_size < size.max(axis=0) * LEAST_RATIO).tolist():
        yield everywhere, partial(_too_far_apart, i)
    least = least_one_minus_beta(table, sampling, estimated=estimated)
    for name, values, low in zip(("one_minus_beta1", "one_minus_beta2"), cells, least):
        yield ~at_least(values, low), partial(_below_least, name, values, low, sampling)
    exponents = scale_exponents(table)
    zeros = (table == 0).any(axis=0) & (table != 0).any(axis=0)
    for i in np.flatnonzero(zeros).tolist():
        yield from _refusals_of_zeros(table[:, i], i, cells, int(exponents[i]), sampling, estimated)
    if estimated and not drawn:
        memory = 1 / np.minimum(cells.p, cells.q)
        good = memory <= 1.001 / LEAST_ESTIMATED
        longest = memory[good].max(initial=1.0)
        num_bytes = size_of_histories(table, longest, num_samples)
        if num_bytes > MOST_BYTES:
            yield everywhere, lambda _: too_large(len(table), sampling, num_bytes)
    if not estimated and sampling in RANDOM:
        work = random_sampling.work(table, cells.q, sampling)
        yield (
            work > random_sampling.MOST_WORK,
            lambda k: (
                f"one_minus_beta2={cells.q[k]:g}: the drift of {sampling} with n={len(table)} "
                f"would take {work[k]:.0e} operations, more than {random_sampling.MOST_WORK:.0e}"
            ),
        )


def _too_far_apart(coordinate: int, cell: int) -> str:
    del cell
    return (
        f"gradients of coordinate {coordinate}: their sizes differ by more than "
        f"{1 / LEAST_RATIO:g}, and their squares do not fit in float64"
    )


def _below_least(name: str, values: np.ndarray, least: float, sampling: Sampling, cell: int) -> str:
    return f"{name}={values[cell]:g}: values must lie in [{least:g}, 1] for {sampling}"


def _refusals_of_zeros(
    column: np.ndarray,
    coordinate: int,
    cells: Cells,
    exponent: int,
    sampling: Sampling,
    estimated: bool,
) -> Iterator[_Refusal]:
    """Refuses cells in which runs of zero gradients give an infinite mean or overflow float64."""
    scaled = cells.scaled(np.array([exponent]))
    epsilon, epsilon_root = np.asarray(scaled.epsilon)[:, 0], np.asarray(scaled.epsilon_root)[:, 0]
    exact = (epsilon == 0) & (epsilon_root == 0)
    share = (column == 0).mean()
    beta1, beta2 = 1 - cells.p, 1 - cells.q

    def at(k: int) -> str:
        return f"beta1={beta1[k]:.6g}, beta2={beta2[k]:.6g}"

    def zeros() -> str:
        part = "half" if share == 0.5 else f"a share of {share:.3g}"
        return f"{part} of the gradients of coordinate {coordinate} are 0"

    cure = "an epsilon above 0 makes it finite"
    yield (
        (cells.q == 1) & (beta1 > 0) & exact,
        lambda k: f"{at(k)}: {zeros()}, and v = 0 there but m ≠ 0; {cure}",
    )
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        growth = np.where(beta1 > 0, beta1 / np.sqrt(beta2), 0.0)
        log_growth = np.log(growth)
    if sampling == "with_replacement":
        yield (
            (share * growth >= 1) & exact,
            lambda k: (
                f"{at(k)}: {zeros()}, so the mean of m/√v is infinite (share·β1/√β2 = "
                f"{share * growth[k]:.3g} ≥ 1); {cure}"
            ),
        )
    else:
        num_zeros = int((column == 0).sum())
        longest = 2 * num_zeros if sampling == "random_shuffling" else num_zeros
        too_long = (longest * log_growth > _MOST_LOG) & exact
        if sampling == "random_shuffling":  # the integral evaluates F and H at β2^j s
            log_beta2 = np.log(beta2, where=beta2 > 0, out=np.full_like(beta2, -1.0))
            too_long |= (longest * -log_beta2 > 2 * _MOST_LOG) & (beta1 > 0) & exact
        yield (
            too_long,
            lambda k: (
                f"{at(k)}: {zeros()}, and after {longest} of them m/√v or v does not fit in "
                f"float64; {cure}"
            ),
        )
    if estimated:
        yield (
            (share * growth**2 >= 1) & exact,
            lambda k: (
                f"{at(k)}: {zeros()}, so rare runs of them dominate the mean of m/√v and an "
                f"estimate has no standard error (share·β1²/β2 = {share * growth[k] ** 2:.3g} ≥ 1)"
            ),
        )
    yield (
        ((cells.epsilon > 0) & (epsilon < LEAST_RATIO) & (epsilon_root == 0))
        | ((cells.epsilon_root > 0) & (epsilon_root < LEAST_RATIO**2) & (epsilon == 0)),
        lambda k: (
            f"epsilon={cells.epsilon[k]:g}, epsilon_root={cells.epsilon_root[k]:g}: too small "
            f"relative to the gradients of coordinate {coordinate}, some of which are 0"
        ),
    )
