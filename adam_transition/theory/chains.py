"""Monte Carlo estimates of a random scheme's drift, if the exact integral has too many states.

D is a mean over index histories, estimated from chains in groups of n that form a Latin square: at
each step (random shuffling: of an epoch) the n chains of a group draw each component once. That
removes the main effect of each single draw from the error. Groups are independent and give the
standard error. All (β1, β2) of a call share the histories, so the estimate is a smooth function
of (β1, β2).

Dimension letters besides those of `adam`: B batches of histories, L steps of a history, G groups of
n chains in all batches together.
"""

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple, assert_never

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from adam_transition import adam
from adam_transition.sampling import RANDOM, Sampling
from adam_transition.sweeps import keys, sweep

MOST_BYTES = 1 << 31  # for the histories of an estimate and the temporaries of drawing them
_CELLS_PER_TILE = 1 << 13  # counted as cells × chains × coordinates
_CHAINS = 640  # per batch, about
_MEMORIES = 6  # shortest burn-in: a fraction e^−6 of an initial deviation is left


class Histories(NamedTuple):
    """Index streams of many chains of a random scheme; made with `draw_histories`."""

    batches: Int[np.ndarray, "B L chains"]  # each group is n adjacent chains
    num_components: int
    num_averaged: int  # number of final steps of a history over which m/(√v + ε) is averaged
    sampling: Sampling


def draw_histories(
    gradients: Float[np.ndarray, "n d"],
    sampling: Sampling,
    key: Key[Array, ""],
    *,
    memory: float,
    num_samples: int,
) -> Histories:
    """Draws histories that several calls of `stationary_drift` can share.

    Args:
      gradients: the table; n and the spread of its values set the number of chains and the burn-in.
      sampling: `with_replacement` or `random_shuffling`.
      key: read, not consumed.
      memory: the largest 1/(1 − β), in steps, that the histories are to support; sets the burn-in.
      num_samples: number of steps averaged for each cell, over all chains.

    Raises:
      ValueError: the scheme is not random; `memory` or `num_samples` is below 1; or the histories
        would take more than 2 GiB.
    """
    draw = _draws(sampling)
    if not 1 <= memory < math.inf:
        raise ValueError(f"memory={memory}: must be finite and at least 1 step")
    if not num_samples >= 1:
        raise ValueError(f"num_samples={num_samples}: must be at least 1")
    n = len(gradients)
    size = size_of_histories(np.asarray(gradients), memory, num_samples)
    if size > MOST_BYTES:
        raise ValueError(too_large(n, sampling, size))
    num_groups, burn_in, num_batches, num_averaged = _plan_histories(
        np.asarray(gradients), memory, num_samples
    )
    generator = keys.generator(key)
    batches = [draw(generator, burn_in + num_averaged, num_groups, n) for _ in range(num_batches)]
    return Histories(np.stack(batches), n, num_averaged, sampling)


def _draws(sampling: Sampling) -> Callable[[np.random.Generator, int, int, int], np.ndarray]:
    match sampling:
        case "random_shuffling":
            return _random_shuffling
        case "with_replacement":
            return _with_replacement
        case "cyclic" | "shuffle_once":
            raise ValueError(
                f"sampling={sampling!r}: histories are drawn for {' and '.join(RANDOM)}"
            )
        case _:
            assert_never(sampling)


def _plan_histories(
    gradients: np.ndarray, memory: float, num_samples: int
) -> tuple[int, int, int, int]:
    """Number of groups per batch, of burn-in steps, of batches, and of averaged steps."""
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


def size_of_histories(gradients: np.ndarray, memory: float, num_samples: int) -> int:
    """Bytes needed: all batches, plus about 24 for each entry of the batch being drawn."""
    n = len(gradients)
    num_groups, burn_in, num_batches, num_averaged = _plan_histories(gradients, memory, num_samples)
    entries = (burn_in + num_averaged) * num_groups * n
    return entries * (24 + num_batches * _component_type(n).itemsize)


def too_large(n: int, sampling: Sampling, size: int) -> str:
    """The error message for histories that would take `size` bytes."""
    return (
        f"n={n}: the drift of {sampling} would be estimated from histories that take "
        f"{size / 2**30:.1f} GiB; at most {MOST_BYTES / 2**30:g} GiB are drawn"
    )


def estimate(
    table: Float[np.ndarray, "n d"],
    hyper: adam.Hyperparameters,
    histories: Histories,
    *,
    rule: adam.UpdateRule = adam.ADAM,
    memory: float = 1.0,
) -> tuple[Float[np.ndarray, "C d"], Float[np.ndarray, "C d"]]:
    """Mean and standard error of D over the groups of chains; see `group_drifts`."""
    return mean_and_error(group_drifts(table, hyper, histories, rule=rule, memory=memory))


def mean_and_error(
    groups: Float[np.ndarray, "C G d"],
) -> tuple[Float[np.ndarray, "C d"], Float[np.ndarray, "C d"]]:
    """Mean and standard error over independent groups."""
    stderr = groups.std(axis=1, ddof=1) / math.sqrt(groups.shape[1])
    return groups.mean(axis=1), stderr


def group_drifts(
    table: Float[np.ndarray, "n d"],
    hyper: adam.Hyperparameters,
    histories: Histories,
    *,
    rule: adam.UpdateRule = adam.ADAM,
    memory: float = 1.0,
) -> Float[np.ndarray, "C G d"]:
    """D from each group of chains. Requires 64-bit types and ε of shape (C, d).

    The update rule remembers at least `memory` steps, whatever the axes say.

    Raises:
      ValueError: the histories are for another n, or too short for the memory of a cell.
    """
    n, d = table.shape
    if histories.num_components != n:
        raise ValueError(f"histories of n={histories.num_components} for a table of n={n}")
    p, q = np.asarray(hyper.one_minus_beta1), np.asarray(hyper.one_minus_beta2)
    burn_in = _burn_in(np.maximum(1 / np.minimum(p, q), memory), table)
    longest = histories.batches.shape[1] - histories.num_averaged
    if burn_in.max(initial=0) > longest:
        raise ValueError(f"histories burn in for {longest} steps; {burn_in.max()} are needed")
    # cells of similar memory run together; all cells are averaged over the same steps
    levels = np.ceil(np.log2(burn_in / n)).astype(int)
    num_groups = histories.batches.shape[2] // n
    means = np.empty((len(histories.batches), len(p), num_groups, d))
    for history, out in zip(histories.batches, means, strict=True):
        for level in np.unique(levels):
            chosen = np.flatnonzero(levels == level)
            tail = history[max(0, longest - (n << max(level, 0))) :]
            _run_chains(table, tail, histories.num_averaged, hyper, rule, out, chosen)
    return -n * np.moveaxis(means, 1, 0).reshape(len(p), -1, d)


def _burn_in(memory: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Number of steps after which a chain has forgotten its start, a multiple of n.

    The relative error of √v matters, and v may fall from the largest g² to the smallest before the
    next large gradient is drawn. The burn-in is therefore longer by the logarithm of their ratio,
    in memories.
    """
    largest, smallest = table**2, np.where(table == 0, np.inf, table**2)
    ratio = largest.max(axis=0) / smallest.min(axis=0)  # 0 if all gradients of a coordinate are 0
    spread = np.log(np.maximum(ratio, 1)).max()
    epochs = np.ceil((_MEMORIES + spread) * memory / len(table))
    return np.asarray(len(table) * epochs.astype(int))


def _run_chains(
    table: np.ndarray,
    history: np.ndarray,
    num_steps: int,
    hyper: adam.Hyperparameters,
    rule: adam.UpdateRule,
    out: np.ndarray,
    chosen: np.ndarray,
) -> None:
    def write(block: sweep.Block, values: dict[str, np.ndarray]) -> None:
        out[chosen[block.columns]] = values["mean"][0]

    num_chains = history.shape[1]
    width = min(len(chosen), max(1, _CELLS_PER_TILE // (num_chains * table.shape[1])))
    width = 1 << (width - 1).bit_length()
    sweep.run(
        _program(num_steps, rule),
        {"table": table[None], "history": history[None]},
        adam.Hyperparameters(*(np.asarray(value)[None, chosen] for value in hyper)),
        tile=(1, width),
        chunk=(1, len(chosen)),
        write=write,
    )


def _mean_direction(
    row: dict[str, Array], hyper: adam.Hyperparameters, *, num_steps: int, rule: adam.UpdateRule
) -> dict[str, Float[Array, "R d"]]:
    """Mean of the rule's direction over the last `num_steps` steps, for each group of a batch."""
    table, history = row["table"], row["history"]  # [n, d], [L, R·n]
    n, d = table.shape
    mean, square = table.mean(axis=0), (table**2).mean(axis=0)
    shape = (history.shape[1], d)
    # chain by chain: a rule may treat an array of parameters as a whole
    start = jax.vmap(rule.init_from_gradients)(
        jnp.broadcast_to(mean, shape), jnp.broadcast_to(square, shape)
    )

    @jax.vmap
    def update(gradient: Array, state: Any) -> tuple[Array, Any]:
        return rule.update(gradient, state, hyper, bias_correction=False)

    def burn(k: Array, state: Any) -> Any:
        return update(table[history[k]], state)[1]

    def measure(k: Array, carry: tuple) -> tuple:
        total, state = carry
        direction, state = update(table[history[k]], state)
        return total + direction, state

    first = history.shape[0] - num_steps
    state = jax.lax.fori_loop(0, first, burn, start)
    total, _ = jax.lax.fori_loop(first, history.shape[0], measure, (jnp.zeros(shape), state))
    return {"mean": total.reshape(-1, n, d).mean(axis=1) / num_steps}


@lru_cache
def _program(num_steps: int, rule: adam.UpdateRule) -> sweep.Program:
    return sweep.Program(partial(_mean_direction, num_steps=num_steps, rule=rule))


def _with_replacement(
    generator: np.random.Generator, count: int, num_groups: int, n: int
) -> Int[np.ndarray, "count chains"]:
    """Draws for each step and group a uniform permutation of the components over its n chains."""
    order = _unpermuted(count, num_groups, n)
    return generator.permuted(order, axis=2).reshape(count, num_groups * n)


def _random_shuffling(
    generator: np.random.Generator, count: int, num_groups: int, n: int
) -> Int[np.ndarray, "count chains"]:
    """Draws for each epoch and group a uniform permutation, rotated differently for each chain."""
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
