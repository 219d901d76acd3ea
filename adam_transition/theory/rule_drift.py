"""The stationary drift of any update rule on a table of frozen gradients.

The drift per epoch, −n·E[direction], is the direction in which the iterate moves if steps are small
(`stationary_drift`), for a rule whose state has a stationary law. Adam's is computed exactly there;
here the state of the rule is run.

In cyclic order the state of a rule that forgets tends to an orbit of one epoch. The rule runs from
its state at the mean gradient for 40 memories, and the last epoch is summed. Its difference to the
epoch before, the reported error, is what is left of a geometric decay. If two epochs differ by more
than 1e-6 (Yogi's v steps across the largest square), the drift is the mean over the second half of
the run and the error the difference between its quarters; if these differ by more than a tenth,
there is no drift to report. For the random orders the chains of `chains` run the rule instead of
Adam; where one group of chains makes up more than half of the squared deviations, and the mean is
within four standard errors of 0, it is NaN.

A rule may have no stationary law: its update at step k depends on k, or its state grows for ever. A
rule whose update depends on k is run at a frozen step (`optimizers.rules.frozen_at`). AMSGrad's v
settles in cyclic order, from 0, at the largest v of the orbit; with bias correction it may keep a
larger first v for ever, which changes the size of D and not its sign. Under random orders it
reaches the largest square at last, which no chain waits for: its limit is a formula
(`optimizers.registry`). Yogi's v moves in multiples of (1 − β2)·g² and keeps its first value up to
these: the drift is the mean over two first values, its error their difference at least, and NaN
where that is more than a tenth.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import assert_never

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from adam_transition import adam
from adam_transition.optimizers import OPTIMIZERS, Optimizer
from adam_transition.optimizers.rules import frozen_at, started_at
from adam_transition.sampling import Sampling, indices
from adam_transition.sweeps import sweep
from adam_transition.theory import chains, drift_domain
from adam_transition.theory.drift_domain import Drift

_MEMORIES = 40
_SIZES = 1e-140, 1e140  # of gradients whose squares fit in float64
_CANCELS = 1e-13  # relative size of g − m at which rounding begins to matter
_SETTLED = 1e-6  # relative change between two epochs of an orbit of one epoch
_MOVES = 0.1  # relative change between quarters of a run that has no stationary law yet
_DOMINATES = 0.5  # of the squared deviations of all groups of chains: no standard error then
_CERTAIN = 4.0  # standard errors from 0: rare events in one group do not matter then
_MOST_REMEMBERED = 100.0  # steps, by chains of built-in rules; what a slower average has not
# forgotten is a relative error of the order of 1 − β3
_MOST_STEPS = 1 << 22  # of an orbit's burn-in, for one cell
_LEAST_ROWS = 1024  # of a padded table, so that all smaller n share a program
_TILES = 1, 64, 2048  # cells × coordinates; few widths, as each is compiled


def drift_of_optimizer(
    gradients: Float[np.ndarray, "n d"],
    optimizer: Optimizer,
    hyper: adam.Hyperparameters,
    sampling: Sampling = "cyclic",
    *,
    key: Key[Array, ""] | None = None,
    num_samples: int = 1_000_000,
    at_step: int | None = None,
) -> Drift:
    """D = −n·E[direction] of an optimiser; computed in float64, without bias correction.

    Args:
      gradients: the table, of shape (n, d); row i is ∇f_i at the point in question.
      optimizer: the optimiser.
      hyper: 1 − β of its axes, and ε; arrays that broadcast together to the shape `…`.
      sampling: the sampling scheme. `shuffle_once` draws its one permutation from the key.
      key: needed for all schemes but cyclic; read, not consumed.
      num_samples: number of steps averaged for each cell of a random scheme.
      at_step: the step at which a rule is frozen that counts steps.

    Returns:
      The drift, and its error: the standard error for a random scheme, and for the others the
      change along the orbit. The drift may be infinite, which is exact: rare runs of equal
      gradients then dominate its mean (AdaBelief). The error is NaN where only the sign is known
      (AMSGrad under random shuffling). Both are NaN in cells whose drift has no mean, or is not
      stationary or not finite in float64, or whose memory is so long that an orbit would need more
      than 4·10^6 steps.

    Raises:
      ValueError: the table is not of shape (n, d) or not finite, or the squares of its values do
        not fit in float64; a 1 − β is outside (0, 1]; an ε is negative, or not 0 for a rule that
        does not use it; a needed key or step is missing or no step number; or the histories of the
        chains would take more than 2 GiB.
    """
    table, cells, shape = drift_domain.checked(gradients, hyper)
    _check_sizes(table)
    if not optimizer.has_epsilon and (cells.epsilon.any() or cells.epsilon_root.any()):
        raise ValueError(f"epsilon: has no effect on optimizer={optimizer.name}; must be 0")
    rule = optimizer.rule
    if optimizer.counts_steps:
        if at_step is None:
            raise ValueError(f"optimizer={optimizer.name} counts its steps: needs at_step")
        if not isinstance(at_step, int | np.integer) or not 1 <= at_step < 2**31:
            raise ValueError(f"at_step={at_step!r}: must be an integer in [1, 2³¹)")
        rule = frozen_at(rule, int(at_step))
    memory = _memory(optimizer, cells)
    longest = np.maximum(memory, optimizer.slowest)
    with jax.enable_x64(True):
        match sampling:
            case "cyclic":
                mean, error = _from_starts(
                    optimizer.starts, rule, lambda one: _orbits(table, one, cells, longest)
                )
            case "shuffle_once":
                order = indices(
                    sampling, _needed(key, sampling), 0, len(table), len(table),
                    max_components=len(table),
                )  # fmt: skip
                ordered = table[np.asarray(order)]
                mean, error = _from_starts(
                    optimizer.starts, rule, lambda one: _orbits(ordered, one, cells, longest)
                )
            case "with_replacement" | "random_shuffling":
                mean, error = _averages(
                    table, optimizer, rule, cells, sampling, key, memory, num_samples
                )
            case _:
                assert_never(sampling)
    endless = _endless(table, optimizer, cells, sampling)
    mean = np.where(np.isnan(endless) | np.isinf(endless), endless, mean)
    error = np.where(np.isinf(endless), 0.0, error)
    known = np.isfinite(mean) | np.isinf(endless)
    both = (np.where(known, one, np.nan).reshape(*shape, table.shape[1]) for one in (mean, error))
    return Drift(*both)


def _check_sizes(table: np.ndarray) -> None:
    size = np.abs(table[table != 0])
    if size.size and not _SIZES[0] <= size.min() <= size.max() <= _SIZES[1]:
        raise ValueError(
            f"gradients of sizes {size.min():g} to {size.max():g}: all but 0 must lie in "
            f"[{_SIZES[0]:g}, {_SIZES[1]:g}]"
        )


def _endless(
    table: np.ndarray, optimizer: Optimizer, cells: drift_domain.Cells, sampling: Sampling
) -> np.ndarray:
    """NaN where runs of draws leave the drift without a mean, ±∞ where it is infinite, else 0.

    In a run of equal draws of a share s of the components the direction grows by a factor r per
    step. With replacement runs have geometric lengths, so the mean is infinite if s·r ≥ 1, and if
    s·r² ≥ 1 the variance is, so that chains have no standard error. In runs
    of zeros the direction keeps the sign that it had, which may be either; in runs of a gradient g
    it has that of g. In the other orders runs are short, and the direction is only lost if r is
    infinite, or if so much cancels in v that rounding is left.
    """
    found = np.zeros((len(cells.p), table.shape[1]))
    exact = (cells.epsilon == 0) & (cells.epsilon_root == 0)
    betas = 1 - cells.p, 1 - cells.q
    is_geometric = sampling == "with_replacement"
    for i, column in enumerate(table.T):
        values, counts = np.unique(column, return_counts=True)
        shares = counts / len(column)
        if optimizer.growth_on_zeros is not None and 0 in values and values.size > 1:
            growth = optimizer.growth_on_zeros(*betas)
            grown = shares[values == 0] * growth**2 if is_geometric else growth
            found[exact & (grown >= (1 if is_geometric else np.inf)), i] = np.nan
        if optimizer.growth_on_repeats is not None:
            growth = optimizer.growth_on_repeats(*betas)
            for value, share, count in zip(values, shares, counts, strict=True):
                if value and is_geometric:
                    infinite = exact & (share * growth >= 1)
                    with np.errstate(invalid="ignore"):  # ∞ − ∞ is NaN: of either sign, no mean
                        found[infinite, i] -= np.inf * np.sign(value)
                    found[exact & (share * growth**2 >= 1) & ~infinite, i] = np.nan
                elif value:
                    longest = 2 * count if sampling == "random_shuffling" else count
                    lost = longest * np.log(growth) > -np.log(_CANCELS)
                    found[exact & lost, i] = np.nan
            # there g = m after one step, and v falls to 0
            found[exact & (betas[0] == 0), i] = np.nan
    return found


def _needed(key: Key[Array, ""] | None, sampling: Sampling) -> Key[Array, ""]:
    if key is None:
        raise ValueError(f"sampling={sampling!r} needs a key")
    return key


def _memory(optimizer: Optimizer, cells: drift_domain.Cells) -> np.ndarray:
    """Steps that the state of each cell remembers, by the axes that have an effect."""
    return 1 / (np.minimum(cells.p, cells.q) if optimizer.axes[1] else cells.p)


def _averages(
    table: np.ndarray,
    optimizer: Optimizer,
    rule: adam.UpdateRule,
    cells: drift_domain.Cells,
    sampling: Sampling,
    key: Key[Array, ""] | None,
    memory: np.ndarray,
    num_samples: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Means over histories of a random scheme, and their standard errors; each of shape (C, d)."""
    if optimizer.limit is not None:
        mean = optimizer.limit(table, cells.epsilon, cells.epsilon_root)
        # under random shuffling the limit has the right sign and not the right size
        return mean, np.full_like(mean, 0.0 if sampling == "with_replacement" else np.nan)
    key = _needed(key, sampling)
    # a slower average of a built-in rule begins at its mean (AdEMAMix)
    built_in = OPTIMIZERS.get(optimizer.name) is optimizer
    slowest = min(optimizer.slowest, _MOST_REMEMBERED) if built_in else optimizer.slowest
    hyper = adam.Hyperparameters(
        cells.p, cells.q if optimizer.axes[1] else cells.p, *cells.scaled(np.zeros(1, int))[2:]
    )
    histories = chains.draw_histories(
        table, sampling, key, memory=float(max(memory.max(), slowest)), num_samples=num_samples
    )

    def run(rule: adam.UpdateRule) -> tuple[np.ndarray, np.ndarray]:
        groups = chains.group_drifts(table, hyper, histories, rule=rule, memory=slowest)
        mean, error = chains.mean_and_error(groups)
        squares = (groups - mean[:, None]) ** 2
        dominated = squares.max(axis=1) > _DOMINATES * squares.sum(axis=1)
        unknown = dominated & (np.abs(mean) < _CERTAIN * error)
        return np.where(unknown, np.nan, mean), np.where(unknown, np.nan, error)

    return _from_starts(optimizer.starts, rule, run)


def _from_starts(
    starts: tuple[float, ...],
    rule: adam.UpdateRule,
    run: Callable[[adam.UpdateRule], tuple[np.ndarray, np.ndarray]],
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and error over runs with several first v; NaN where they differ much.

    A rule that keeps some of its first v for ever has more than one stationary law.
    """
    found = [run(started_at(rule, start)) for start in starts]
    means, errors = (np.stack(values) for values in zip(*found, strict=True))
    mean, spread = means.mean(axis=0), np.ptp(means, axis=0)
    error = np.maximum(errors.max(axis=0), spread)
    unsettled = spread > _MOVES * np.abs(mean) + _CERTAIN * errors.sum(axis=0)
    return np.where(unsettled, np.nan, mean), np.where(unsettled, np.nan, error)


def _orbits(
    table: np.ndarray, rule: adam.UpdateRule, cells: drift_domain.Cells, memory: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Drift and error, each of shape (C, d)."""
    n, d = table.shape
    padded = np.zeros((max(_LEAST_ROWS, 1 << (n - 1).bit_length()), d))
    padded[:n] = table
    quarters = np.ceil(_MEMORIES * memory / (4 * n))
    levels = np.ceil(np.log2(quarters)).astype(int)  # cells of similar memory run together
    mean, error = (np.full((len(memory), d), np.nan) for _ in range(2))
    for level in np.unique(levels):
        if 4 * n << int(level) > _MOST_STEPS:
            continue
        chosen = np.flatnonzero(levels == level)

        def write(
            block: sweep.Block, values: dict[str, np.ndarray], chosen: np.ndarray = chosen
        ) -> None:
            here = chosen[block.columns]
            mean[here], error[here] = _settled(*(values[name][0] for name in _ORBIT))

        widths = [max(1, width // d) for width in _TILES]
        width = next((width for width in widths if len(chosen) <= width), widths[-1])
        sweep.run(
            _orbit_program(rule),
            {
                "table": padded[None],
                "quarter": np.array([1 << int(level)]),
                "n": np.array([n]),
            },
            adam.Hyperparameters(*(value[None, chosen] for value in cells)),
            tile=(1, width),
            chunk=(1, len(chosen)),
            write=write,
        )
    return mean, error


_ORBIT = "last", "before", "third", "fourth"


def _settled(
    last: np.ndarray, before: np.ndarray, third: np.ndarray, fourth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The last epoch if two are equal, else the mean over half of the run; NaN where that moves."""
    change, moved = np.abs(last - before), np.abs(fourth - third)
    is_orbit = change <= _SETTLED * np.abs(last)
    mean = np.where(is_orbit, last, (third + fourth) / 2)
    error = np.where(is_orbit, change, moved)
    moves = ~is_orbit & (moved > _MOVES * np.abs(mean))
    return np.where(moves, np.nan, mean), np.where(moves, np.nan, error)


@lru_cache
def _orbit_program(rule: adam.UpdateRule) -> sweep.Program:
    return sweep.Program(partial(_orbit, rule=rule))


def _orbit(
    row: dict[str, Array], hyper: adam.Hyperparameters, *, rule: adam.UpdateRule
) -> dict[str, Float[Array, " d"]]:
    """Sums over the last epoch, the one before, and the means over the last two quarters."""
    table, quarter, n = row["table"], row["quarter"], row["n"]
    zero = jnp.zeros(table.shape[1])

    def step(i: Array, carry: tuple) -> tuple:
        total, state = carry
        direction, state = rule.update(table[i], state, hyper, bias_correction=False)
        return total + direction, state

    def epoch(_: Array, carry: tuple) -> tuple:
        sums, _, last, state = carry
        total, state = jax.lax.fori_loop(0, n, step, (zero, state))
        return sums + total, last, total, state

    def mean(start: tuple) -> tuple[Array, tuple]:
        end = jax.lax.fori_loop(0, quarter, epoch, (zero, *start[1:]))
        return end[0] / quarter, end

    # rows beyond n are 0: tables of different n share a program
    start = rule.init_from_gradients(table.sum(axis=0) / n, (table**2).sum(axis=0) / n)
    _, half = mean((zero, zero, zero, start))
    _, half = mean(half)
    third, end = mean(half)
    fourth, end = mean(end)
    return {"last": -end[2], "before": -end[1], "third": -third, "fourth": -fourth}
