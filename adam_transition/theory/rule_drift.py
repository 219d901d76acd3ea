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
Adam.

A rule may have no stationary law: its update at step k depends on k, or its state grows for ever. A
rule whose update depends on k is run at a frozen step (`optimizers.rules.frozen_at`). AMSGrad's and
Yogi's v settle in cyclic order, at the largest v of the orbit and where it meets the squares; under
random orders AMSGrad's v reaches the largest square at last, which no chain waits for: its limit
is a formula (`optimizers.registry`).
"""

from functools import lru_cache, partial
from typing import assert_never

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from adam_transition import adam
from adam_transition.optimizers import OPTIMIZERS, Optimizer
from adam_transition.optimizers.rules import frozen_at
from adam_transition.sampling import Sampling, indices
from adam_transition.sweeps import sweep
from adam_transition.theory import chains, drift_domain
from adam_transition.theory.drift_domain import Drift

_MEMORIES = 40
_SETTLED = 1e-6  # relative change between two epochs of an orbit of one epoch
_MOVES = 0.1  # relative change between quarters of a run that has no stationary law yet
_MOST_REMEMBERED = 100.0  # steps, by chains of built-in rules; what a slower average has not
# forgotten is a relative error of the order of 1 − β3
_MOST_STEPS = 1 << 22  # of an orbit's burn-in, for one cell
_LEAST_ROWS = 1024  # of a padded table, so that all smaller n share a program
_TILES = 1, 64, 2048  # cells times coordinates: few widths, so that a rule compiles few programs


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
      change along the orbit. The error is NaN where only the sign is known (AMSGrad under random
      shuffling). Both are NaN in cells whose drift is not finite or not stationary, or
      whose memory is so long that an orbit would need more than 4·10^6 steps.

    Raises:
      ValueError: the table is not of shape (n, d) or not finite; a 1 − β is outside (0, 1] or an ε
        negative; a needed key or step is missing; or the histories of the chains would take more
        than 2 GiB.
    """
    table, cells, shape = drift_domain.checked(gradients, hyper)
    rule = optimizer.rule
    if optimizer.counts_steps:
        if at_step is None:
            raise ValueError(f"optimizer={optimizer.name} counts its steps: needs at_step")
        rule = frozen_at(rule, at_step)
    memory = _memory(optimizer, cells)
    longest = np.maximum(memory, optimizer.slowest)
    with jax.enable_x64(True):
        match sampling:
            case "cyclic":
                mean, error = _orbits(table, rule, cells, longest)
            case "shuffle_once":
                order = indices(
                    sampling, _needed(key, sampling), 0, len(table), len(table),
                    max_components=len(table),
                )  # fmt: skip
                mean, error = _orbits(table[np.asarray(order)], rule, cells, longest)
            case "with_replacement" | "random_shuffling":
                mean, error = _averages(
                    table, optimizer, rule, cells, sampling, key, memory, num_samples
                )
            case _:
                assert_never(sampling)
    known = np.isfinite(mean)
    both = (np.where(known, one, np.nan).reshape(*shape, table.shape[1]) for one in (mean, error))
    return Drift(*both)


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
    return chains.estimate(table, hyper, histories, rule=rule, memory=slowest)


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
