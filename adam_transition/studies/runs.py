"""The left-hand side of Theorems 3.1 and 3.3 along many runs: a sweep over problems, seeds, β.

Rows are (problem, seed), and the cells of a row share an index stream; columns are pairs (β1, β2).
Iterates are recorded at multiples of all n, so that under random shuffling they are x_{k,0}, the
iterates at the start of an epoch, as in Theorem 3.3.

If D0 = 0 a run can get closer to x* than floats can represent: while v remembers large gradients,
x − x* falls geometrically, to e^(−1000) for β2 close to 1, before it grows again. In plain floats
such a run lands on x* and stays there forever, which is not a property of Adam. Problems with
x* = 0 and gradients proportional to x close to it are therefore run in a *moving unit*: x and m are
linear in the unit and v does not depend on it, so x and m are stored as multiples of a power of two
that follows them. Scaling by powers of two is exact, so a run that needs no other unit has the same
bits as without one.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from adam_transition import adam, problems, sampling, simulate
from adam_transition.sweeps import sweep
from adam_transition.sweeps.pieces import NOTHING_KEPT, Pieces
from adam_transition.theory import convergence

RECORDS = 2048
OCTAVES = 5
"""Windows of T for means of stationarity: the last is (T/2, T], the first (T/32, T/16]."""
SETTLED = (1, 4, 16)
"""The k of the windows (T/2k, T/k] over which the iterate is averaged; as η_k ∝ 1/√k, the step size
doubles from one window to the next."""
_RESULTS = ("stationarity", "mean_stationarity", "settled", "arrived", "iterates")
_KEPT = 40
_UNIT = {"float32": (40, -55, -8), "float64": (400, -450, -20)}
"""By dtype: powers of 2 by which the unit moves, below which it falls, above which it rises."""
_STEPS_IN_A_UNIT = 4  # between two checks of the unit


class Runs(NamedTuple):
    """Results of P problems, S seeds, W pairs of β at K steps, evenly spaced in log k."""

    steps: Int[np.ndarray, " K"]
    stationarity: Float[np.ndarray, "P S W K"]  # min{‖∇f‖²/√D0, ‖∇f‖/(2√(d D1))}
    mean_stationarity: Float[np.ndarray, "P S W O"]  # its mean over the records of each octave of T
    settled: Float[np.ndarray, "P S W 3 d"]  # mean of the iterate over each window of `SETTLED`
    arrived: Bool[np.ndarray, "P S W"]  # whether a run ends exactly on x*
    iterates: Float[np.ndarray, "P S W K"]  # first coordinate of x_k


def record_every(num_steps: int, num_components: Sequence[int]) -> int:
    """Steps between records: a multiple of all n, such that there are about `RECORDS` records.

    Raises:
      ValueError: the least common multiple of the n leaves fewer than 32 records.
    """
    epoch = math.lcm(*num_components)
    if num_steps < 32 * epoch:
        raise ValueError(
            f"steps={num_steps}: needs at least {32 * epoch}, 32 times the least common multiple "
            f"of n={','.join(map(str, num_components))}"
        )
    return max(1, num_steps // RECORDS // epoch) * epoch


def run_members(
    members: Sequence[problems.Member],
    hyper: adam.Hyperparameters,
    scheme: sampling.Sampling,
    *,
    num_steps: int,
    step_size: float,
    num_seeds: int,
    seed: int,
    starts: Sequence[np.ndarray],
    dtype: str = "float32",
    schedule: adam.Schedule = "inverse_sqrt",
    moving_unit: bool = False,
    pieces: Pieces = NOTHING_KEPT,
) -> Runs:
    """Runs every member with every pair of β on num_seeds index streams.

    Args:
      members: problems of one family and dimension, with their constants.
      hyper: 1 − β1 and 1 − β2, of shape (W,), or (P, W) if each problem has its own.
      scheme: sampling scheme.
      num_steps: T; rounded down to a multiple of the record spacing.
      step_size: η0.
      num_seeds: S.
      seed: the first seed; all problems use the same seeds.
      starts: x0 of each member.
      dtype: of the simulation.
      schedule: of the step sizes.
      moving_unit: for problems with x* = 0 and gradients proportional to x close to it; see the
        module's docstring.
      pieces: store for the results of each row, read when an interrupted run resumes.

    Raises:
      ValueError: too few steps, or a moving unit for a problem whose minimiser is not 0.
    """
    if moving_unit and any(np.any(np.asarray(member.problem.minimiser)) for member in members):
        raise ValueError("moving_unit=True: needs problems with their minimiser at 0")
    ns = [int(np.asarray(member.problem.num_components)) for member in members]
    every = record_every(num_steps, ns)
    num_steps = num_steps // every * every
    kept = np.unique(np.geomspace(1, num_steps // every, _KEPT).astype(int)) - 1
    shape = (len(members), num_seeds)
    betas = [
        np.broadcast_to(np.asarray(rest, np.float64), (len(members), np.shape(rest)[-1]))
        for rest in hyper[:2]
    ]
    width = betas[0].shape[1]
    with jax.enable_x64(dtype == "float64"):
        rows = _rows(members, starts, num_seeds, seed, dtype)
        cells = {
            name: np.repeat(values, num_seeds, axis=0).astype(dtype)
            for name, values in zip(("p", "q"), betas, strict=True)
        }
        function = partial(
            _run_cell,
            step_size=step_size,
            method=simulate.Method(scheme, schedule),
            num_steps=num_steps,
            every=every,
            kept=tuple(kept.tolist()),
            max_components=max(ns),
            unit=_UNIT[dtype] if moving_unit else None,
        )
        results = _sweep(function, rows, cells, (len(ns) * num_seeds, width), pieces)
    return Runs(
        (kept + 1) * every,
        results["stationarity"].reshape(*shape, width, len(kept)),
        results["mean_stationarity"].reshape(*shape, width, OCTAVES),
        results["settled"].reshape(*shape, width, len(SETTLED), -1),
        results["arrived"].reshape(*shape, width),
        results["iterates"].reshape(*shape, width, len(kept)),
    )


def _rows(
    members: Sequence[problems.Member],
    starts: Sequence[np.ndarray],
    num_seeds: int,
    seed: int,
    dtype: str,
) -> dict[str, Any]:
    """The inputs of every (problem, seed), problems first."""
    every = [member for member in members for _ in range(num_seeds)]
    keys = [sampling.stream_key(seed + s) for _ in members for s in range(num_seeds)]
    constants = {
        name: [float(getattr(member.problem_class, name)) for member in every]
        for name in ("d0", "d1")
    }
    return {
        "problem": problems.stack([member.problem for member in every], np.dtype(dtype)),
        "key": jnp.stack(keys),
        "x0": jnp.asarray(np.repeat(np.array(starts), num_seeds, axis=0), dtype),
        "x_star": jnp.asarray(np.repeat(_minimisers(members), num_seeds, axis=0), dtype),
        **{name: jnp.asarray(values, dtype) for name, values in constants.items()},
    }


def _sweep(
    function: sweep.CellFunction,
    rows: dict[str, Any],
    cells: dict[str, np.ndarray],
    table: tuple[int, int],
    pieces: Pieces,
) -> dict[str, np.ndarray]:
    """The results of all cells by name, row by row; rows that are kept are not run again."""
    width = table[1]
    results: dict[str, np.ndarray] = {}

    def place(block: sweep.Block, values: Sequence[np.ndarray]) -> None:
        for name, value in zip(_RESULTS, values, strict=True):
            whole = results.setdefault(name, np.empty((*table, *value.shape[2:]), value.dtype))
            whole[block] = value

    def write(block: sweep.Block, values: dict[str, np.ndarray]) -> None:
        row = [values[name] for name in _RESULTS]
        pieces.save(f"row {block.rows.start}", row)
        place(block, row)

    def is_done(block: sweep.Block) -> bool:
        row = pieces.load(f"row {block.rows.start}")
        if row is not None:
            place(block, row)
        return row is not None

    sweep.run(
        sweep.Program(function),
        rows,
        cells,
        tile=(1, min(width, 2048)),
        chunk=(1, width),
        write=write,
        is_done=is_done,
    )
    return results


def _minimisers(members: Sequence[problems.Member]) -> Float[np.ndarray, "P d"]:
    """Minimisers; NaN if unknown, so that no run ever equals one."""
    rows = []
    for member in members:
        known = member.problem.minimiser
        shape = member.problem.shape
        rows.append(np.full(shape, np.nan) if known is None else np.asarray(known, np.float64))
    return np.array(rows).reshape(len(members), -1)


def octaves(num_steps: int) -> Float[np.ndarray, " O"]:
    """Ends of the windows of `Runs.mean_stationarity`: T/16, T/8, …, T."""
    return num_steps / 2.0 ** np.arange(OCTAVES - 1, -1, -1)


def _run_cell(
    row: Mapping[str, Array],
    cell: Mapping[str, Array],
    *,
    step_size: float,
    method: simulate.Method,
    num_steps: int,
    every: int,
    kept: tuple[int, ...],
    max_components: int,
    unit: tuple[int, int, int] | None,
) -> dict[str, Array]:
    problem: problems.FiniteSum = row["problem"]  # type: ignore[assignment]
    x, last = (_in_float if unit is None else partial(_in_moving_unit, unit=unit))(
        problem,
        adam.Hyperparameters(cell["p"], cell["q"]),
        row["x0"],
        step_size,
        row["key"],
        method=method,
        num_steps=num_steps,
        record_every=every,
        max_components=max_components,
    )
    gradient = partial(
        problems.mean_over_components,
        problem.gradient,
        n=problem.num_components,
        max_components=max_components,
    )
    records, chosen = len(x), jnp.array(kept)
    stationarity = convergence.stationarity(
        jax.vmap(gradient)(x).reshape(records, -1), row["d0"], row["d1"]
    )
    flat = x.reshape(records, -1)
    halves = [records >> k for k in range(OCTAVES, -1, -1)]
    windows = [stationarity[low:high].mean() for low, high in itertools.pairwise(halves)]
    return {
        "stationarity": stationarity[chosen],
        "mean_stationarity": jnp.stack(windows),
        "settled": jnp.stack(
            [flat[records // (2 * k) : records // k].mean(axis=0) for k in SETTLED]
        ),
        "iterates": flat[chosen, 0],
        "arrived": jnp.all(last.ravel() == row["x_star"]),
    }


def _in_float(problem: problems.FiniteSum, *arguments: Any, **settings: Any) -> tuple[Array, Array]:
    """Recorded iterates, and the last of them."""
    x = simulate.simulate(problem, *arguments, **settings).x
    return x, x[-1]


class _Scaled(NamedTuple):
    """A state of Adam; x and m are multiples of 2^(move·level)."""

    x: Array
    first: Array
    second: Array
    level: Float[Array, ""]  # a whole number, 0 or below


def _in_moving_unit(
    problem: problems.FiniteSum,
    hyper: adam.Hyperparameters,
    x0: Array,
    step_size: float,
    key: Array,
    *,
    method: simulate.Method,
    num_steps: int,
    record_every: int,
    max_components: int,
    unit: tuple[int, int, int],
) -> tuple[Array, Array]:
    """`simulate.simulate` with zero initial moments and ε = 0, in a moving unit.

    Returns:
      Recorded iterates, and the last of them in its own unit.
    """
    n = jnp.asarray(problem.num_components, jnp.int32)
    p, q = (jnp.asarray(rest, x0.dtype) for rest in hyper[:2])
    move, low, high = unit

    def unit_at(level: Array) -> Array:
        """The factor of g before it is squared: one level down g² is negligible compared with v.

        Zero instead of a tiny factor, as processors are slow on subnormal products.
        """
        return jnp.where(level == 0, 1.0, 0.0).astype(x0.dtype)

    def run_block(state: _Scaled, start: Array) -> tuple[_Scaled, Array]:
        steps = start + jnp.arange(record_every, dtype=jnp.int32)
        stream = sampling.indices(
            method.sampling, key, start, record_every, n, max_components=max_components
        )
        etas = adam.step_size(method.schedule, jnp.asarray(step_size, x0.dtype), steps, n)

        def group(first: ArrayLike, state: _Scaled, size: int) -> _Scaled:
            x, m, v, level = state
            unit = unit_at(level)
            for i in range(size):
                g = problem.gradient(stream[first + i], x)
                m = m - p * m + p * g
                v = v - q * v + q * (g * unit) ** 2
                x = x - etas[first + i] * jnp.where(v > 0, m / jnp.sqrt(v), 0)
            largest = jnp.maximum(jnp.max(jnp.abs(x)), jnp.max(jnp.abs(m)))
            falls = largest < 2.0**low
            rises = (largest > 2.0**high) & (level < 0)
            factor = jnp.where(falls, 2.0**move, jnp.where(rises, 2.0**-move, 1.0))
            level = level + jnp.where(rises, 1.0, 0.0) - jnp.where(falls, 1.0, 0.0)
            return _Scaled(x * factor, m * factor, v, level)

        whole, rest = divmod(record_every, _STEPS_IN_A_UNIT)
        state = jax.lax.fori_loop(
            0, whole, lambda k, carry: group(k * _STEPS_IN_A_UNIT, carry, _STEPS_IN_A_UNIT), state
        )
        state = group(record_every - rest, state, rest) if rest else state
        lower = jnp.where(state.level == -1, 2.0**-move, 0.0)
        scale = jnp.where(state.level == 0, 1.0, lower).astype(x0.dtype)
        return state, state.x * scale

    zero = jnp.zeros_like(x0)
    begin = _Scaled(x0, zero, zero, jnp.zeros((), x0.dtype))
    end, x = jax.lax.scan(run_block, begin, jnp.arange(0, num_steps, record_every))
    return x, end.x
