"""The left-hand side of Theorems 3.1 and 3.3 along many runs: a sweep over problems, seeds, β.

Rows are (problem, seed), and the cells of a row share an index stream; columns are pairs (β1, β2).
Iterates are recorded at multiples of all n, so that under random shuffling they are x_{k,0}, the
iterates at the start of an epoch, as in Theorem 3.3.

If D0 = 0 a run can get closer to x* than floats can represent; such runs are made in a moving unit
(`moving_unit`).
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from adam_transition import adam, kernels, moving_unit, problems, sampling, simulate
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
_FEW = 128  # cells, for which a kernel is slow in several coordinates, and long to compile


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
    moves_unit: bool = False,
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
      moves_unit: for problems with x* = 0 and gradients proportional to x close to it; see
        `moving_unit`.
      pieces: store for the results of each row, read when an interrupted run resumes.

    Raises:
      ValueError: too few steps, or a moving unit for a problem whose minimiser is not 0.
    """
    for member in members if moves_unit else ():
        if reason := moving_unit.reason_against(member.problem.minimiser, dtype, "zero"):
            raise ValueError(f"moves_unit=True: {reason}")
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
        rows = _rows(members, starts, step_size, num_seeds, seed, dtype)
        cells = {
            name: np.repeat(values, num_seeds, axis=0).astype(dtype)
            for name, values in zip(("p", "q"), betas, strict=True)
        }
        program = _program(
            members[0].problem,
            width,
            tuple(kept.tolist()),
            method=simulate.Method(scheme, schedule),
            num_steps=num_steps,
            record_every=every,
            max_components=max(ns),
            moves_unit=moves_unit,
        )
        results = _sweep(program, rows, cells, (len(ns) * num_seeds, width), pieces)
    return Runs(
        (kept + 1) * every,
        results["stationarity"].reshape(*shape, width, len(kept)),
        results["mean_stationarity"].reshape(*shape, width, OCTAVES),
        results["settled"].reshape(*shape, width, len(SETTLED), -1),
        results["arrived"].reshape(*shape, width),
        results["iterates"].reshape(*shape, width, len(kept)),
    )


class _Row(NamedTuple):
    """What the cells of one problem and seed share; stacked, with a leading axis."""

    problem: problems.FiniteSum
    key: Array
    x0: Array
    step_size: Array
    x_star: Array  # [d]; NaN if unknown
    d0: Array
    d1: Array


def _rows(
    members: Sequence[problems.Member],
    starts: Sequence[np.ndarray],
    step_size: float,
    num_seeds: int,
    seed: int,
    dtype: str,
) -> _Row:
    """The inputs of every (problem, seed), problems first."""
    every = [member for member in members for _ in range(num_seeds)]
    keys = [sampling.stream_key(seed + s) for _ in members for s in range(num_seeds)]
    d0, d1 = (
        jnp.asarray([float(getattr(member.problem_class, name)) for member in every], dtype)
        for name in ("d0", "d1")
    )
    return _Row(
        problem=problems.stack([member.problem for member in every], np.dtype(dtype)),
        key=jnp.stack(keys),
        x0=jnp.asarray(np.repeat(np.array(starts), num_seeds, axis=0), dtype),
        step_size=jnp.full(len(every), step_size, dtype),
        x_star=jnp.asarray(np.repeat(_minimisers(members), num_seeds, axis=0), dtype),
        d0=d0,
        d1=d1,
    )


def _sweep(
    program: sweep.Program,
    rows: _Row,
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
        program,
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


def _program(
    problem: problems.FiniteSum, width: int, kept: tuple[int, ...], **settings: Any
) -> sweep.Program:
    """The program of tiles: a kernel where one is faster, else XLA's."""
    settings["kept"] = kept
    is_slow = width < _FEW and math.prod(problem.shape) > 1
    kernel = None if is_slow else kernels.fastest(problem, settings["method"].rule)
    if kernel is None:
        return sweep.Program(partial(_run_cell, **settings))
    return sweep.Program(partial(_run_table, **settings, kernel=kernel), of_tables=True)


def _run_cell(
    row: _Row, cell: Mapping[str, Array], *, kept: tuple[int, ...], **settings: Any
) -> dict[str, Array]:
    """Runs and sums up one cell; the settings are those of `simulate.simulate`."""
    hyper = adam.Hyperparameters(cell["p"], cell["q"])
    trace = simulate.simulate(row.problem, hyper, row.x0, row.step_size, row.key, **settings)
    return _summary(row, trace, kept=kept, max_components=settings["max_components"])


def _run_table(
    rows: _Row, cells: Mapping[str, Array], *, kept: tuple[int, ...], **settings: Any
) -> dict[str, Array]:
    """`_run_cell` for a table, run in a kernel."""
    hyper = adam.Hyperparameters(cells["p"], cells["q"])
    trace = kernels.simulate_table(
        rows.problem, hyper, rows.x0, rows.step_size, rows.key, **settings
    )
    of_cell = partial(_summary, kept=kept, max_components=settings["max_components"])
    of_row = jax.vmap(of_cell, in_axes=(None, 0))
    return jax.vmap(of_row)(rows, trace)


def _summary(
    row: _Row, trace: simulate.Trace, *, kept: tuple[int, ...], max_components: int
) -> dict[str, Array]:
    gradient = partial(
        problems.mean_over_components,
        row.problem.gradient,
        n=row.problem.num_components,
        max_components=max_components,
    )
    records, chosen = len(trace.x), jnp.array(kept)
    stationarity = convergence.stationarity(
        jax.vmap(gradient)(trace.x).reshape(records, -1), row.d0, row.d1
    )
    flat = trace.x.reshape(records, -1)
    halves = [records >> k for k in range(OCTAVES, -1, -1)]
    windows = [stationarity[low:high].mean() for low, high in itertools.pairwise(halves)]
    last = trace.x[-1] if trace.scaled is None else trace.scaled[-1]
    return {
        "stationarity": stationarity[chosen],
        "mean_stationarity": jnp.stack(windows),
        "settled": jnp.stack(
            [flat[records // (2 * k) : records // k].mean(axis=0) for k in SETTLED]
        ),
        "iterates": flat[chosen, 0],
        "arrived": jnp.all(last.ravel() == row.x_star),
    }
