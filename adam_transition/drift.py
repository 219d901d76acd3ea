"""The stationary drift of Adam on a table of frozen component gradients.

With the gradients g_1 … g_n frozen, (m, v) is a contraction driven by the index stream and has one
stationary law. The drift per epoch,

    D(β1, β2) = −n·E[m/√v],

is the direction in which the iterate goes when steps are small; it does not see the scale of the
table. On the counterexample Adam diverges where D > 0 and converges where D < 0.

Cyclic order has a closed form, and the random orders have an integral (`random_drift`): exact.

Where the integral does not serve, D is a mean over histories, estimated from chains in groups of n
that form a Latin square: at each step (of an epoch) the chains of a group see each component once.
That removes the main effect of every single draw from the error; groups are independent and give
the standard error. All (β1, β2) of a call share the histories, so the estimate is a smooth function
of them.
"""

import math
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int, Key

from adam_transition import adam, keys, random_drift, sampling, sweep

RANDOM: tuple[sampling.Sampling, ...] = ("random_shuffling", "with_replacement")
"""The schemes whose drift is a mean over histories."""

LEAST_ESTIMATED = 1e-4
"""The least 1 − β for an estimate: the memory of a chain is 1/(1 − β) steps."""

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
    num_averaged: int  # the last steps of each batch, over which m/√v is averaged


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
    """
    n = len(gradients)
    num_groups = max(1, _CHAINS // n)
    burn_in = int(_burn_in(np.asarray(memory), np.asarray(gradients)))
    # at least 24 groups for the standard error, and batches longer than their burn-in
    num_batches = round(num_samples / (n * num_groups * 4 * burn_in))
    num_batches = max(math.ceil(24 / num_groups), num_batches)
    num_averaged = n * math.ceil(num_samples / (num_batches * num_groups * n * n))
    generator = keys.generator(key)
    draw = {"with_replacement": _with_replacement, "random_shuffling": _random_shuffling}[scheme]
    batches = [draw(generator, burn_in + num_averaged, num_groups, n) for _ in range(num_batches)]
    return Histories(np.stack(batches), n, num_averaged)


def stationary_drift(
    gradients: Float[np.ndarray, "n d"],
    hyper: adam.Hyperparameters,
    scheme: sampling.Sampling = "cyclic",
    *,
    key: Key[Array, ""] | None = None,
    num_samples: int = 1_000_000,
    histories: Histories | None = None,
) -> Drift:
    """D(β1, β2) for a table of component gradients, ε = 0; computed in float64.

    It is exact, but for the random schemes where `random_drift.has_exact_drift` denies it (random
    shuffling of many different gradients, gradients that are 0), and where histories are given:
    then it is estimated.

    Args:
      gradients: the table; row i is ∇f_i at the point in question.
      hyper: 1 − β1 and 1 − β2 in (0, 1], arrays that broadcast together to the shape `…`.
      scheme: the sampling scheme. `shuffle_once` draws its one permutation from the key.
      key: for `shuffle_once` and for estimates; read, not consumed: a key stands for one set of
        histories.
      num_samples: for estimates, steps of Adam that are averaged for each cell.
      histories: estimate from these, drawn already for a random scheme.

    Raises:
      ValueError: an unknown scheme; a table that is not (n, d) or not finite; 1 − β outside (0, 1],
        or for a random scheme below `least_one_minus_beta`; a key that is needed and not given;
        histories of another n or too short for the memory of a cell.

    >>> table = np.array([[3.0], [-1.0], [-1.0]])
    >>> hyper = adam.hyperparameters(0.0, 0.9)
    >>> round(float(stationary_drift(table, hyper).drift[0]), 4)
    -0.4431
    >>> round(float(stationary_drift(table, hyper, "with_replacement").drift[0]), 4)
    -0.3759
    """
    sampling.check(scheme)
    table = np.asarray(gradients, np.float64)
    if table.ndim != 2 or not table.size or not np.isfinite(table).all():
        raise ValueError(f"gradients of shape {table.shape}: need a finite table of shape (n, d)")
    p, q = np.broadcast_arrays(
        np.asarray(hyper.one_minus_beta1, np.float64), np.asarray(hyper.one_minus_beta2, np.float64)
    )
    estimated = is_estimated(table, scheme) or histories is not None
    least = least_one_minus_beta(table, scheme, estimated=estimated)
    for name, values, low in zip(("one_minus_beta1", "one_minus_beta2"), (p, q), least):
        if not ((values >= low) & (values <= 1)).all():
            raise ValueError(f"{name}: values must lie in [{low:g}, 1] for {scheme}")
    if (estimated or scheme == "shuffle_once") and key is None and histories is None:
        raise ValueError(f"sampling={scheme!r} needs a key for this table")
    with jax.enable_x64(True):
        if estimated:
            if histories is None:
                memory = float(1 / min(p.min(), q.min()))
                assert key is not None
                histories = draw_histories(
                    table, scheme, key, memory=memory, num_samples=num_samples
                )
            mean, stderr = _estimate(table, p.ravel(), q.ravel(), histories)
        else:
            mean = _exact(table, p.ravel(), q.ravel(), scheme, key)
            stderr = np.zeros_like(mean)
    shape = (*p.shape, table.shape[1])
    return Drift(mean.reshape(shape), stderr.reshape(shape))


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


def _exact(
    table: np.ndarray,
    p: np.ndarray,
    q: np.ndarray,
    scheme: sampling.Sampling,
    key: Key[Array, ""] | None,
) -> np.ndarray:
    if scheme in RANDOM:
        return random_drift.random_drift(table, p, q, scheme)
    if key is not None and scheme == "shuffle_once":
        n = len(table)
        table = table[sampling.indices(scheme, key, 0, n, n, max_components=n)]
    padded = np.zeros((1 << (len(table) - 1).bit_length(), table.shape[1]))
    padded[: len(table)] = table
    return _in_calls(partial(_cyclic, padded, len(table)), p, q)


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


def _in_calls(function: Any, p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Bounds the memory: at most `_CELLS_PER_CALL` cells at once, all calls of one shape."""
    size = min(_CELLS_PER_CALL, 1 << max(0, len(p) - 1).bit_length())
    pieces = []
    for start in range(0, len(p), size):
        inside = np.minimum(np.arange(start, start + size), len(p) - 1)
        pieces.append(np.asarray(function(p[inside], q[inside]))[: len(p) - start])
    return np.concatenate(pieces)


@jax.jit
def _cyclic(
    table: Float[Array, "N d"], n: Int[Array, ""], p: Float[Array, " C"], q: Float[Array, " C"]
) -> Float[Array, "C d"]:
    return cyclic_drift(table, n, adam.Hyperparameters(p, q))


def cyclic_drift(
    table: Float[Array, "N d"], num_components: ArrayLike, hyper: adam.Hyperparameters
) -> Float[Array, "C d"]:
    """D in cyclic order in closed form, O(n) for each cell: a function to trace and differentiate.

    Two passes over the table: the first finds the moments at the start of the periodic orbit,
    m = M/(1 − β1^n) with M those of one epoch from zero; the second sums m/√v along it.

    Args:
      table: the first n rows count; others may pad it, so that tables of other n share a program.
      num_components: n; may be traced, but then there is no reverse-mode derivative.
      hyper: 1 − β1 and 1 − β2 of the C cells, arrays of shape (C,).
    """
    n, d = num_components, table.shape[1]
    hyper = adam.Hyperparameters(
        jnp.asarray(hyper.one_minus_beta1)[:, None], jnp.asarray(hyper.one_minus_beta2)[:, None]
    )
    num_cells = len(hyper.one_minus_beta1)  # type: ignore[arg-type]

    def step(i: Array, state: adam.AdamState) -> tuple[Array, adam.AdamState]:
        return adam.update(jnp.broadcast_to(table[i], (num_cells, d)), state, hyper)

    zero = adam.init(jnp.zeros((num_cells, d)))
    epoch = jax.lax.fori_loop(0, n, lambda i, state: step(i, state)[1], zero)
    start = epoch._replace(
        first=epoch.first / adam.one_minus_power(hyper.one_minus_beta1, n),
        second=epoch.second / adam.one_minus_power(hyper.one_minus_beta2, n),
    )

    def accumulate(i: Array, carry: tuple) -> tuple:
        total, state = carry
        direction, state = step(i, state)
        return total - direction, state

    return jax.lax.fori_loop(0, n, accumulate, (jnp.zeros((num_cells, d)), start))[0]


def _estimate(
    table: np.ndarray, p: np.ndarray, q: np.ndarray, histories: Histories
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard error over the groups of chains."""
    groups = drift_of_groups(table, p, q, histories)
    stderr = groups.std(axis=1, ddof=1) / math.sqrt(groups.shape[1])
    return groups.mean(axis=1), stderr


def drift_of_groups(
    table: Float[np.ndarray, "n d"],
    p: Float[np.ndarray, " C"],
    q: Float[np.ndarray, " C"],
    histories: Histories,
) -> Float[np.ndarray, "C G d"]:
    """The estimate of D from each group of chains; call it with 64-bit types enabled.

    Groups are independent and alike, so their spread gives the standard error of anything that is
    made of their mean.

    Raises:
      ValueError: histories of another n or too short for the memory of a cell.
    """
    n, d = table.shape
    if histories.num_components != n:
        raise ValueError(f"histories of n={histories.num_components} for a table of n={n}")
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
            _run_chains(table, tail, histories.num_averaged, p[chosen], q[chosen], out, chosen)
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
    p: np.ndarray,
    q: np.ndarray,
    out: np.ndarray,
    chosen: np.ndarray,
) -> None:
    def write(block: sweep.Block, values: dict[str, np.ndarray]) -> None:
        out[chosen[block.columns]] = values["mean"][0]

    num_chains = history.shape[1]
    width = min(len(p), max(1, _CELLS_PER_TILE // (num_chains * table.shape[1])))
    width = 1 << (width - 1).bit_length()
    sweep.run(
        _program(num_steps),
        {"table": table[None], "history": history[None]},
        {"p": p[None], "q": q[None]},
        tile=(1, width),
        chunk=(1, len(p)),
        write=write,
    )


def _mean_direction(
    row: dict[str, Array], cell: dict[str, Array], *, num_steps: int
) -> dict[str, Float[Array, "R d"]]:
    """Mean of m/√v over the last `num_steps` of the chains, for each of the R groups."""
    table, history = row["table"], row["history"]  # [n, d], [T, R·n]
    n, d = table.shape
    hyper = adam.Hyperparameters(cell["p"], cell["q"])
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
    position = (np.arange(n)[:, None, None] + shift[:, None]) % n  # [epochs, n, groups, chains]
    drawn = np.take_along_axis(permutation[:, None], position, axis=3)
    return drawn.reshape(num_epochs * n, num_groups * n)


def _unpermuted(count: int, num_groups: int, n: int) -> Int[np.ndarray, "count groups n"]:
    components: np.ndarray = np.arange(n, dtype=np.int16 if n < 2**15 else np.int32)
    return np.broadcast_to(components, (count, num_groups, n))
