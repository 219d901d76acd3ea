"""The stationary drift of Adam on a table of frozen component gradients.

With the gradients g_1 … g_n frozen, (m, v) is a contraction driven by the index stream and has one
stationary law. The drift per epoch,

    D(β1, β2) = −n·E[m/(√v + ε)],

is the direction in which the iterate goes when steps are small. At ε = 0 it does not see the scale
of the table. On the counterexample an iterate that starts many steps away from the minimiser goes
to infinity where D > 0 and comes back where D < 0; within a few steps of the minimiser the table is
not frozen, and D does not decide (docs/mathematics/drift.md).

Cyclic order has a closed form, and the random orders have an integral (`random_drift`): exact, with
gradients that are 0 as well.

Where the integral does not serve, D is a mean over histories, estimated from chains in groups of n
that form a Latin square: at each step (of an epoch) the chains of a group see each component once.
That removes the main effect of every single draw from the error; groups are independent and give
the standard error. All (β1, β2) of a call share the histories, so the estimate is a smooth function
of them.

Some drifts have no value, or none that can be had here; `reason_against` says why. With ε = 0 and
gradients that are 0, v falls by β2 and m by β1 at each of them, so runs of zeros make steps of
(β1/√β2)^j: with replacement their mean is infinite where p0 β1 ≥ √β2, p0 the share of zeros.
"""

import math
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key

from adam_transition import adam, keys, random_drift, sampling, sweep

RANDOM: tuple[sampling.Sampling, ...] = ("random_shuffling", "with_replacement")
"""The schemes whose drift is a mean over histories."""

LEAST_ESTIMATED = 1e-4
"""The least 1 − β for an estimate: the memory of a chain is 1/(1 − β) steps."""

_ROUNDING_OF_BETA = 2.3e-16  # of 1 − β, where β was rounded to double precision
_LEAST_RATIO = 1e-150  # of gradients of one coordinate: their squares must be numbers
_MOST_LOG = 690.0  # e^690 is a number
_MOST_BYTES = 1 << 31  # of the histories of an estimate, with what it takes to draw them
_CELLS_PER_TILE = 1 << 13
_CELLS_PER_CALL = 1 << 16
_CHAINS = 640
_MEMORIES = 6  # of burn-in, at least: e^−6 of an initial deviation is left


class Drift(NamedTuple):
    """Drift per epoch; `…` is the common shape of the hyperparameters."""

    drift: Float[np.ndarray, "... d"]  # −n E[m/√v]
    stderr: Float[np.ndarray, "... d"]  # standard error, 0 where the drift is exact


class Histories(NamedTuple):
    """Index streams of many chains of a random scheme; made by `draw_histories`."""

    batches: Int[np.ndarray, "B L chains"]  # groups of n chains side by side
    num_components: int
    num_averaged: int  # the last steps of each batch, over which m/(√v + ε) is averaged
    scheme: sampling.Sampling


def draw_histories(
    gradients: Float[np.ndarray, "n d"],
    scheme: sampling.Sampling,
    key: Key[Array, ""],
    *,
    memory: float,
    num_samples: int,
) -> Histories:
    """Histories for `stationary_drift` where it is called more than once.

    Args:
      gradients: the table; n and the spread of its values set the number of chains and the burn-in.
      scheme: `with_replacement` or `random_shuffling`.
      key: read, not consumed.
      memory: the greatest 1/(1 − β) they will serve, in steps; it sets the burn-in.
      num_samples: how many steps are averaged for each cell, over all chains.

    Raises:
      ValueError: a scheme that is not random, a memory below 1, fewer than one sample, or histories
        that would take more than 2 GiB.
    """
    if scheme not in RANDOM:
        raise ValueError(f"scheme={scheme!r}: histories are drawn for {' and '.join(RANDOM)}")
    if not 1 <= memory < math.inf:
        raise ValueError(f"memory={memory}: must be finite and at least 1 step")
    if not num_samples >= 1:
        raise ValueError(f"num_samples={num_samples}: must be at least 1")
    n = len(gradients)
    size = _size_of_histories(np.asarray(gradients), memory, num_samples)
    if size > _MOST_BYTES:
        raise ValueError(_too_large(n, scheme, size))
    num_groups, burn_in, num_batches, num_averaged = _plan_histories(
        np.asarray(gradients), memory, num_samples
    )
    generator = keys.generator(key)
    draw = {"with_replacement": _with_replacement, "random_shuffling": _random_shuffling}[scheme]
    batches = [draw(generator, burn_in + num_averaged, num_groups, n) for _ in range(num_batches)]
    return Histories(np.stack(batches), n, num_averaged, scheme)


def _plan_histories(
    gradients: np.ndarray, memory: float, num_samples: int
) -> tuple[int, int, int, int]:
    """Groups of a batch, steps of burn-in, batches, and steps that are averaged."""
    n = len(gradients)
    num_groups = max(1, _CHAINS // n)
    burn_in = int(_burn_in(np.asarray(memory), gradients))
    # at least 24 groups for the standard error, and batches longer than their burn-in
    num_batches = round(num_samples / (n * num_groups * 4 * burn_in))
    num_batches = max(math.ceil(24 / num_groups), num_batches)
    return (
        num_groups,
        burn_in,
        num_batches,
        n * math.ceil(num_samples / (num_batches * num_groups * n * n)),
    )


def _size_of_histories(gradients: np.ndarray, memory: float, num_samples: int) -> int:
    """Bytes: those of all batches, and some 24 an entry of the one that is being drawn."""
    n = len(gradients)
    num_groups, burn_in, num_batches, num_averaged = _plan_histories(gradients, memory, num_samples)
    entries = (burn_in + num_averaged) * num_groups * n
    return entries * (24 + num_batches * _component_type(n).itemsize)


def _too_large(n: int, scheme: sampling.Sampling, size: int) -> str:
    return (
        f"n={n}: the drift of {scheme} would be estimated from histories that take "
        f"{size / 2**30:.1f} GiB; at most {_MOST_BYTES / 2**30:g} GiB are drawn"
    )


def stationary_drift(
    gradients: Float[np.ndarray, "n d"],
    hyper: adam.Hyperparameters,
    scheme: sampling.Sampling = "cyclic",
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
      scheme: the sampling scheme. `shuffle_once` draws its one permutation from the key.
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
    sampling.check(scheme)
    table, cells, shape = _checked(gradients, hyper)
    if histories is not None and histories.scheme != scheme:
        raise ValueError(f"histories of {histories.scheme} for sampling={scheme!r}")
    estimated = is_estimated(table, scheme) or histories is not None
    refused, reason = _refusals(table, cells, scheme, estimated, num_samples, histories is not None)
    if refused.all() and reason is not None:
        raise ValueError(reason)
    if (estimated or scheme == "shuffle_once") and key is None and histories is None:
        raise ValueError(f"sampling={scheme!r} needs a key for this table")
    exponents = _exponents(table)
    scaled = np.ldexp(table, -exponents)
    kept = _Cells(*(values[~refused] for values in cells))
    with jax.enable_x64(True):
        if estimated:
            if histories is None:
                memory = float(1 / min(kept.p.min(), kept.q.min()))
                assert key is not None
                histories = draw_histories(
                    scaled, scheme, key, memory=memory, num_samples=num_samples
                )
            mean, stderr = _estimate(scaled, kept, exponents, histories)
        else:
            mean = _exact(scaled, kept, exponents, scheme, key)
            stderr = np.zeros_like(mean)
    found = np.full((2, len(refused), table.shape[1]), np.nan)
    found[:, ~refused] = mean, stderr
    mean, stderr = found.reshape(2, *shape, table.shape[1])
    return Drift(mean, stderr)


def reason_against(
    gradients: Float[np.ndarray, "n d"],
    hyper: adam.Hyperparameters,
    scheme: sampling.Sampling = "cyclic",
    *,
    estimated: bool | None = None,
    num_samples: int = 1_000_000,
) -> str | None:
    """Why some cell has no drift that `stationary_drift` can give, in one line; None if all have.

    Nothing is computed but what the answer needs: it is quick for any table.

    Args:
      gradients: the table.
      hyper: as for `stationary_drift`.
      scheme: the sampling scheme.
      estimated: whether the drift would be an estimate; default: what `is_estimated` says.
      num_samples: for estimates.

    Raises:
      ValueError: arguments that mean nothing, as for `stationary_drift`.

    >>> table = np.array([[3.0], [-1.0], [0.0], [0.0]])
    >>> print(reason_against(table, adam.hyperparameters(0.9, 0.1), "with_replacement"))
    beta1=0.9, beta2=0.1: half of the gradients of coordinate 0 are 0, so the mean of m/√v is \
infinite (share·β1/√β2 = 1.42 ≥ 1); an epsilon above 0 makes it finite
    >>> reason_against(table, adam.hyperparameters(0.9, 0.99), "with_replacement")
    """
    sampling.check(scheme)
    table, cells, _ = _checked(gradients, hyper)
    estimated = is_estimated(table, scheme) if estimated is None else estimated
    return _refusals(table, cells, scheme, estimated, num_samples, False)[1]


def is_estimated(gradients: Float[np.ndarray, "n d"], scheme: sampling.Sampling) -> bool:
    """Whether `stationary_drift` is an estimate for this table, and needs a key."""
    return scheme in RANDOM and not random_drift.has_exact_drift(gradients, scheme)


def least_one_minus_beta(
    gradients: Float[np.ndarray, "n d"],
    scheme: sampling.Sampling,
    *,
    estimated: bool | None = None,
) -> tuple[float, float]:
    """The least 1 − β1 and the least 1 − β2 that `stationary_drift` takes."""
    tiny = float(np.finfo(np.float64).tiny)
    if is_estimated(gradients, scheme) if estimated is None else estimated:
        return LEAST_ESTIMATED, LEAST_ESTIMATED
    return tiny, random_drift.LEAST if scheme in RANDOM else tiny


def at_least(one_minus_beta: ArrayLike, least: float) -> np.ndarray:
    """Whether 1 − β is at least a limit, for the decimal β that was typed.

    1 − 0.9999 is 9.999999999998899e-05 in floating point: β is rounded to 1.1e-16.

    >>> bool(at_least(1 - 0.9999, 1e-4)), bool(at_least(1 - 0.99991, 1e-4))
    (True, False)
    """
    return np.asarray(one_minus_beta) >= least - min(_ROUNDING_OF_BETA, least / 1024)


class _Cells(NamedTuple):
    """Hyperparameters of C cells."""

    p: Float[np.ndarray, " C"]  # 1 − β1
    q: Float[np.ndarray, " C"]  # 1 − β2
    epsilon: Float[np.ndarray, " C"]
    epsilon_root: Float[np.ndarray, " C"]

    def scaled(self, exponents: Int[np.ndarray, " d"]) -> adam.Hyperparameters:
        """With ε of shape (C, d), for a table that was multiplied by 2^−exponent."""
        with np.errstate(over="ignore", under="ignore"):
            epsilon = np.ldexp(self.epsilon[:, None], -exponents)
            epsilon_root = np.ldexp(self.epsilon_root[:, None], -2 * exponents)
        return adam.Hyperparameters(self.p, self.q, epsilon, epsilon_root)


def _checked(
    gradients: Float[np.ndarray, "n d"], hyper: adam.Hyperparameters
) -> tuple[Float[np.ndarray, "n d"], _Cells, tuple[int, ...]]:
    table = np.asarray(gradients, np.float64)
    if table.ndim != 2 or not table.size or not np.isfinite(table).all():
        raise ValueError(f"gradients of shape {table.shape}: need a finite table of shape (n, d)")
    values = np.broadcast_arrays(*(np.asarray(value, np.float64) for value in hyper))
    for name, one in zip(adam.Hyperparameters._fields, values, strict=True):
        is_beta = name.startswith("one")
        good = (one > 0) & (one <= 1) if is_beta else (one >= 0) & np.isfinite(one)
        if not good.all():
            allowed = "lie in (0, 1]" if is_beta else "be finite and at least 0"
            raise ValueError(f"{name}={one[~good].flat[0]:g}: values must {allowed}")
    return table, _Cells(*(one.ravel() for one in values)), values[0].shape


def _exponents(table: Float[np.ndarray, "n d"]) -> Int[np.ndarray, " d"]:
    """Powers of two that bring the largest gradient of each coordinate into [½, 1)."""
    return np.frexp(np.abs(table).max(axis=0))[1]


def _refusals(
    table: np.ndarray,
    cells: _Cells,
    scheme: sampling.Sampling,
    estimated: bool,
    num_samples: int,
    drawn: bool,
) -> tuple[Bool[np.ndarray, " C"], str | None]:
    """The cells without a drift that can be had, and the reason of the first of them."""
    found = np.zeros(len(cells.p), bool)
    reason = None
    for refused, why in _all_refusals(table, cells, scheme, estimated, num_samples, drawn):
        if reason is None and refused.any():
            reason = why(int(np.flatnonzero(refused)[0]))
        found |= refused
    return found, reason


_Refusal = tuple[np.ndarray, Callable[[int], str]]


def _all_refusals(
    table: np.ndarray,
    cells: _Cells,
    scheme: sampling.Sampling,
    estimated: bool,
    num_samples: int,
    drawn: bool,
) -> Iterator[_Refusal]:
    everywhere = np.ones(len(cells.p), bool)
    size = np.abs(table)
    least_size = np.where(size > 0, size, np.inf).min(axis=0)
    for i in np.flatnonzero(least_size < size.max(axis=0) * _LEAST_RATIO).tolist():
        yield everywhere, partial(_too_far_apart, i)
    least = least_one_minus_beta(table, scheme, estimated=estimated)
    for name, values, low in zip(("one_minus_beta1", "one_minus_beta2"), cells, least):
        yield ~at_least(values, low), partial(_below_least, name, values, low, scheme)
    exponents = _exponents(table)
    zeros = (table == 0).any(axis=0) & (table != 0).any(axis=0)
    for i in np.flatnonzero(zeros).tolist():
        yield from _refusals_of_zeros(table[:, i], i, cells, int(exponents[i]), scheme, estimated)
    if estimated and not drawn:
        memory = 1 / np.minimum(cells.p, cells.q)
        good = memory <= 1.001 / LEAST_ESTIMATED
        longest = memory[good].max(initial=1.0)
        too_large = _size_of_histories(table, longest, num_samples)
        if too_large > _MOST_BYTES:
            yield everywhere, lambda _: _too_large(len(table), scheme, too_large)
    if not estimated and scheme in RANDOM:
        states = max(random_drift.num_states(column, scheme) for column in table.T)
        work = states * random_drift.num_steps(cells.q)
        yield (
            work > random_drift.MOST_WORK,
            lambda k: (
                f"one_minus_beta2={cells.q[k]:g}: the drift of {scheme} with n={len(table)} would "
                f"take {work[k]:.0e} operations, more than {random_drift.MOST_WORK:.0e}"
            ),
        )


def _too_far_apart(coordinate: int, cell: int) -> str:
    del cell
    return (
        f"gradients of coordinate {coordinate}: their sizes differ by more than "
        f"{1 / _LEAST_RATIO:g}, and their squares do not fit in float64"
    )


def _below_least(
    name: str, values: np.ndarray, least: float, scheme: sampling.Sampling, cell: int
) -> str:
    return f"{name}={values[cell]:g}: values must lie in [{least:g}, 1] for {scheme}"


def _refusals_of_zeros(
    column: np.ndarray,
    coordinate: int,
    cells: _Cells,
    exponent: int,
    scheme: sampling.Sampling,
    estimated: bool,
) -> Iterator[_Refusal]:
    """Cells in which runs of gradients that are 0 make steps of no mean, or too long a one."""
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
        lambda k: f"{at(k)}: {zeros()}, and v = 0 there while m is not; {cure}",
    )
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        growth = np.where(beta1 > 0, beta1 / np.sqrt(beta2), 0.0)
        log_growth = np.log(growth)
    if scheme == "with_replacement":
        yield (
            (share * growth >= 1) & exact,
            lambda k: (
                f"{at(k)}: {zeros()}, so the mean of m/√v is infinite (share·β1/√β2 = "
                f"{share * growth[k]:.3g} ≥ 1); {cure}"
            ),
        )
    else:
        num_zeros = int((column == 0).sum())
        longest = 2 * num_zeros if scheme == "random_shuffling" else num_zeros
        too_long = (longest * log_growth > _MOST_LOG) & exact
        if scheme == "random_shuffling":  # F and H pass through β2^j
            too_long |= (longest * -np.log(beta2, where=beta2 > 0, out=np.full_like(beta2, -1.0))
                         > 2 * _MOST_LOG) & (beta1 > 0) & exact  # fmt: skip
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
                f"{at(k)}: {zeros()}, so rare runs of them carry the mean of m/√v and an estimate "
                f"has no standard error (share·β1²/β2 = {share * growth[k] ** 2:.3g} ≥ 1)"
            ),
        )
    yield (
        ((cells.epsilon > 0) & (epsilon < _LEAST_RATIO) & (epsilon_root == 0))
        | ((cells.epsilon_root > 0) & (epsilon_root < _LEAST_RATIO**2) & (epsilon == 0)),
        lambda k: (
            f"epsilon={cells.epsilon[k]:g}, epsilon_root={cells.epsilon_root[k]:g}: too small "
            f"beside the gradients of coordinate {coordinate}, some of which are 0"
        ),
    )


def _exact(
    table: np.ndarray,
    cells: _Cells,
    exponents: np.ndarray,
    scheme: sampling.Sampling,
    key: Key[Array, ""] | None,
) -> np.ndarray:
    """D of a table that was multiplied by 2^−exponent."""
    hyper = cells.scaled(exponents)
    if scheme in RANDOM:
        return random_drift.random_drift(table, hyper, scheme)
    if key is not None and scheme == "shuffle_once":
        n = len(table)
        table = table[sampling.indices(scheme, key, 0, n, n, max_components=n)]
    padded = np.zeros((1 << (len(table) - 1).bit_length(), table.shape[1]))
    padded[: len(table)] = np.stack([_from_its_largest(column) for column in table.T], axis=1)
    return _in_calls(partial(_cyclic, padded, len(table)), hyper)


def _from_its_largest(column: np.ndarray) -> np.ndarray:
    """The same cycle, not begun in a run of zeros."""
    return column if column[0] != 0 else np.roll(column, -int(np.abs(column).argmax()))


def counterexample_table(n: int, a: float | None = None) -> Float[np.ndarray, "n 1"]:
    """The slopes c, −a, …, −a of the counterexample for x ≥ −1; a defaults to 1/(n−1)².

    Raises:
      ValueError: n < 3, or an a that is not positive.
    """
    if n < 3 or not (a is None or a > 0):
        raise ValueError(f"n={n}, a={a}: the counterexample needs n ≥ 3 and a > 0")
    a = 1 / (n - 1) ** 2 if a is None else float(a)
    table = np.full((n, 1), -a)
    table[0] = 1 + (n - 1) * a
    return table


def _in_calls(function: Any, hyper: adam.Hyperparameters) -> np.ndarray:
    """Bounds the memory: at most `_CELLS_PER_CALL` cells at once, all calls of one shape."""
    num_cells = len(np.asarray(hyper.one_minus_beta1))
    size = min(_CELLS_PER_CALL, 1 << max(0, num_cells - 1).bit_length())
    pieces = []
    for start in range(0, num_cells, size):
        inside = np.minimum(np.arange(start, start + size), num_cells - 1)
        values = function(adam.Hyperparameters(*(np.asarray(one)[inside] for one in hyper)))
        pieces.append(np.asarray(values)[: num_cells - start])
    return np.concatenate(pieces)


@jax.jit
def _cyclic(
    table: Float[Array, "N d"], n: Int[Array, ""], hyper: adam.Hyperparameters
) -> Float[Array, "C d"]:
    return cyclic_drift(table, n, hyper)


def cyclic_drift(
    table: Float[Array, "N d"], num_components: ArrayLike, hyper: adam.Hyperparameters
) -> Float[Array, "C d"]:
    """D in cyclic order in closed form, O(n) for each cell: a function to trace and differentiate.

    Two passes over the table: the first finds the moments at the start of the periodic orbit,
    m = M/(1 − β1^n) with M those of one epoch from zero; the second sums m/(√v + ε) along it.

    Args:
      table: the first n rows count; others may pad it, so that tables of other n share a program.
        Squares must fit into the dtype; a coordinate should not begin with a gradient that is 0,
        nor be differentiated where it has one.
      num_components: n; may be traced, but then there is no reverse-mode derivative.
      hyper: 1 − β1 and 1 − β2 of the C cells, arrays of shape (C,); ε and ε_root of shape (),
        (C,) or (C, d).
    """
    n, d = num_components, table.shape[1]
    p, q, epsilon, epsilon_root = (
        jnp.expand_dims(one, -1) if jnp.ndim(one) == 1 else jnp.asarray(one) for one in hyper
    )
    hyper = adam.Hyperparameters(p, q, epsilon, epsilon_root)
    num_cells = len(p)
    # where g = 0 the ratio m/√v is known from the step before, though v may be below all numbers
    growth = jnp.where(p < 1, (1 - p) / jnp.sqrt(1 - q), 0)
    without = (epsilon == 0) & (epsilon_root == 0)

    def step(i: Array, before: Array, state: adam.AdamState) -> tuple[Array, adam.AdamState]:
        gradient = jnp.broadcast_to(table[i], (num_cells, d))
        direction, state = adam.update(gradient, state, hyper)
        return jnp.where((gradient == 0) & without, before * growth, direction), state

    zero = adam.init(jnp.zeros((num_cells, d)))
    epoch = jax.lax.fori_loop(0, n, lambda i, state: step(i, zero.first, state)[1], zero)
    start = epoch._replace(
        first=epoch.first / adam.one_minus_power(p, n),
        second=epoch.second / adam.one_minus_power(q, n),
    )

    def accumulate(i: Array, carry: tuple) -> tuple:
        total, before, state = carry
        direction, state = step(i, before, state)
        return total + direction, direction, state

    nonzero = jnp.where(start.second > 0, start.second, 1)
    before = jnp.where(start.second > 0, start.first / jnp.sqrt(nonzero), 0)
    total, _, _ = jax.lax.fori_loop(0, n, accumulate, (zero.first, before, start))
    return -total


def _estimate(
    table: np.ndarray, cells: _Cells, exponents: np.ndarray, histories: Histories
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error over the groups of chains."""
    groups = _drift_of_groups(table, cells.scaled(exponents), histories)
    stderr = groups.std(axis=1, ddof=1) / math.sqrt(groups.shape[1])
    return groups.mean(axis=1), stderr


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
    table, cells, _ = _checked(gradients, hyper)
    _, reason = _refusals(table, cells, histories.scheme, True, 1, True)
    if reason is not None:
        raise ValueError(reason)
    exponents = _exponents(table)
    with jax.enable_x64(True):
        return _drift_of_groups(np.ldexp(table, -exponents), cells.scaled(exponents), histories)


def _drift_of_groups(
    table: Float[np.ndarray, "n d"], hyper: adam.Hyperparameters, histories: Histories
) -> Float[np.ndarray, "C G d"]:
    """Call it with 64-bit types enabled, and ε of shape (C, d).

    Raises:
      ValueError: histories of another n or too short for the memory of a cell.
    """
    n, d = table.shape
    if histories.num_components != n:
        raise ValueError(f"histories of n={histories.num_components} for a table of n={n}")
    p, q = np.asarray(hyper.one_minus_beta1), np.asarray(hyper.one_minus_beta2)
    burn_in = _burn_in(1 / np.minimum(p, q), table)
    longest = histories.batches.shape[1] - histories.num_averaged
    if burn_in.max(initial=0) > longest:
        raise ValueError(f"histories burn in for {longest} steps; {burn_in.max()} are needed")
    # cells of about the same memory run together; the same steps are averaged for all
    level = np.ceil(np.log2(burn_in / n)).astype(int)
    num_groups = histories.batches.shape[2] // n
    means = np.empty((len(histories.batches), len(p), num_groups, d))
    for history, out in zip(histories.batches, means, strict=True):
        for one_level in np.unique(level):
            chosen = np.flatnonzero(level == one_level)
            tail = history[max(0, longest - (n << max(one_level, 0))) :]
            _run_chains(table, tail, histories.num_averaged, hyper, out, chosen)
    return -n * np.moveaxis(means, 1, 0).reshape(len(p), -1, d)


def _burn_in(memory: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Steps after which a chain has forgotten its start, a multiple of n.

    What matters is √v, and v may fall from the largest g² to the least before the next large
    gradient comes: so many more memories are needed until what is left of the start is small
    beside it.
    """
    largest, least = table**2, np.where(table == 0, np.inf, table**2)
    ratio = largest.max(axis=0) / least.min(axis=0)  # 0 where a coordinate has no gradient
    spread = np.log(np.maximum(ratio, 1)).max()
    return len(table) * np.ceil((_MEMORIES + spread) * memory / len(table)).astype(int)


def _run_chains(
    table: np.ndarray,
    history: np.ndarray,
    num_steps: int,
    hyper: adam.Hyperparameters,
    out: np.ndarray,
    chosen: np.ndarray,
) -> None:
    def write(block: sweep.Block, values: dict[str, np.ndarray]) -> None:
        out[chosen[block.columns]] = values["mean"][0]

    num_chains = history.shape[1]
    width = min(len(chosen), max(1, _CELLS_PER_TILE // (num_chains * table.shape[1])))
    width = 1 << (width - 1).bit_length()
    sweep.run(
        _program(num_steps),
        {"table": table[None], "history": history[None]},
        adam.Hyperparameters(*(np.asarray(one)[None, chosen] for one in hyper)),
        tile=(1, width),
        chunk=(1, len(chosen)),
        write=write,
    )


def _mean_direction(
    row: dict[str, Array], hyper: adam.Hyperparameters, *, num_steps: int
) -> dict[str, Float[Array, "R d"]]:
    """Mean of m/(√v + ε) over the last `num_steps` of the chains, for each of the R groups."""
    table, history = row["table"], row["history"]  # [n, d], [T, R·n]
    n, d = table.shape
    mean, square = table.mean(axis=0), (table**2).mean(axis=0)
    shape = (history.shape[1], d)
    start = adam.init_from_gradients(jnp.broadcast_to(mean, shape), jnp.broadcast_to(square, shape))

    def burn(k: Array, state: adam.AdamState) -> adam.AdamState:
        return adam.update(table[history[k]], state, hyper)[1]

    def measure(k: Array, carry: tuple) -> tuple:
        total, state = carry
        direction, state = adam.update(table[history[k]], state, hyper)
        return total + direction, state

    first = history.shape[0] - num_steps
    state = jax.lax.fori_loop(0, first, burn, start)
    total, _ = jax.lax.fori_loop(first, history.shape[0], measure, (jnp.zeros(shape), state))
    return {"mean": total.reshape(-1, n, d).mean(axis=1) / num_steps}


@lru_cache
def _program(num_steps: int) -> sweep.Program:
    return sweep.Program(partial(_mean_direction, num_steps=num_steps))


def _with_replacement(
    generator: np.random.Generator, count: int, num_groups: int, n: int
) -> Int[np.ndarray, "count chains"]:
    """At each step, a uniform permutation of the components over the n chains of a group."""
    order = _unpermuted(count, num_groups, n)
    return generator.permuted(order, axis=2).reshape(count, num_groups * n)


def _random_shuffling(
    generator: np.random.Generator, count: int, num_groups: int, n: int
) -> Int[np.ndarray, "count chains"]:
    """For each epoch of a group a uniform permutation, begun by each chain at another place."""
    num_epochs = count // n
    order = _unpermuted(num_epochs, num_groups, n)
    permutation = generator.permuted(order, axis=2)
    shift = generator.permuted(order, axis=2)
    position = (
        np.arange(n, dtype=np.int32)[:, None, None] + shift[:, None]
    ) % n  # [epochs, n, groups, chains]
    drawn = np.take_along_axis(permutation[:, None], position, axis=3)
    return drawn.reshape(num_epochs * n, num_groups * n)


def _unpermuted(count: int, num_groups: int, n: int) -> Int[np.ndarray, "count groups n"]:
    components: np.ndarray = np.arange(n, dtype=_component_type(n))
    return np.broadcast_to(components, (count, num_groups, n))


def _component_type(n: int) -> np.dtype:
    return np.dtype(np.int16 if n < 2**15 else np.int32)
