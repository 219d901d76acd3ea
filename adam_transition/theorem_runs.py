"""The left-hand side of Theorems 3.1 and 3.3 along many runs: a sweep over problems, seeds, β.

Rows are (problem, seed) and share an index stream; columns are pairs (β1, β2). Iterates are
recorded at multiples of every n, so that under random shuffling they are x_{k,0}, the iterates at
which epochs start, as Theorem 3.3 has it.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from adam_transition import adam, bounds, problems, sampling, simulate, store, sweep

RECORDS = 512
NOTHING_KEPT = store.Pieces(None, 0)
_RESULTS = ("progress", "settled", "iterates")
_KEPT = 40


class Runs(NamedTuple):
    """Results of P problems, S seeds, W pairs of β at K steps, even in log k."""

    steps: Int[np.ndarray, " K"]
    progress: Float[np.ndarray, "P S W K"]  # min{‖∇f‖²/√D0, ‖∇f‖/(2√(d D1))}
    settled: Float[np.ndarray, "P S W d"]  # mean of the iterate over the second half
    iterates: Float[np.ndarray, "P S W K"]  # first coordinate of x_k


def record_every(num_steps: int, num_components: Sequence[int]) -> int:
    """Steps between records: a multiple of every n, such that there are about 512 records.

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


def run(
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
    pieces: store.Pieces = NOTHING_KEPT,
) -> Runs:
    """Runs every member with every pair of β, from num_seeds index streams.

    Args:
      members: problems of one family and dimension, with their constants.
      hyper: 1 − β1 and 1 − β2, of shape (W,), or (P, W) if each problem has its own.
      scheme: sampling scheme.
      num_steps: T; rounded down to a multiple of the record spacing.
      step_size: η0.
      num_seeds: S.
      seed: the first of them; all problems have the same.
      starts: x0 of each member.
      dtype: of the simulation.
      schedule: of the step sizes.
      pieces: where the results of every row are kept, and found by a run that goes on.
    """
    ns = [int(np.asarray(member.problem.num_components)) for member in members]
    every = record_every(num_steps, ns)
    num_steps = num_steps // every * every
    kept = np.unique(np.geomspace(1, num_steps // every, _KEPT).astype(int)) - 1
    shape = (len(members), num_seeds)
    betas = [
        np.broadcast_to(np.asarray(one, np.float64), (len(members), np.shape(one)[-1]))
        for one in hyper[:2]
    ]
    width = betas[0].shape[1]
    with jax.enable_x64(dtype == "float64"):
        rows = {
            "problem": problems.stack(
                [member.problem for member in members for _ in range(num_seeds)], np.dtype(dtype)
            ),
            "key": jnp.stack(
                [sampling.stream_key(seed + s) for _ in members for s in range(num_seeds)]
            ),
            "x0": jnp.asarray(np.repeat(np.array(starts), num_seeds, axis=0), dtype),
            **{
                name: jnp.asarray(
                    [
                        float(getattr(member.problem_class, name))
                        for member in members
                        for _ in range(num_seeds)
                    ],
                    dtype,
                )
                for name in ("d0", "d1")
            },
        }
        cells = {
            name: np.repeat(one, num_seeds, axis=0).astype(dtype)
            for name, one in zip(("p", "q"), betas, strict=True)
        }
        function = partial(
            _run_cell,
            step_size=step_size,
            method=simulate.Method(scheme, schedule),
            num_steps=num_steps,
            every=every,
            kept=tuple(kept.tolist()),
            max_components=max(ns),
        )
        table = (len(ns) * num_seeds, width)
        results: dict[str, np.ndarray] = {}

        def place(block: sweep.Block, values: Sequence[np.ndarray]) -> None:
            for name, value in zip(_RESULTS, values, strict=True):
                whole = results.setdefault(name, np.empty((*table, *value.shape[2:]), dtype))
                whole[block] = value

        def write(block: sweep.Block, values: dict[str, np.ndarray]) -> None:
            found = [values[name] for name in _RESULTS]
            pieces.save(f"row {block.rows.start}", found)
            place(block, found)

        def is_done(block: sweep.Block) -> bool:
            found = pieces.load(f"row {block.rows.start}")
            if found is not None:
                place(block, found)
            return found is not None

        sweep.run(
            sweep.Program(function), rows, cells, tile=(1, min(width, 2048)), chunk=(1, width),
            write=write, is_done=is_done,
        )  # fmt: skip
    return Runs(
        (kept + 1) * every,
        results["progress"].reshape(*shape, width, len(kept)),
        results["settled"].reshape(*shape, width, -1),
        results["iterates"].reshape(*shape, width, len(kept)),
    )


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
) -> dict[str, Array]:
    problem: problems.FiniteSum = row["problem"]  # type: ignore[assignment]
    trace = simulate.simulate(
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
    x = trace.x[jnp.array(kept)]
    gradients = jax.vmap(gradient)(x).reshape(len(kept), -1)
    second_half = trace.x[trace.x.shape[0] // 2 :].reshape(-1, max(1, row["x0"].size))
    return {
        "progress": bounds.progress(gradients, row["d0"], row["d1"]),
        "settled": second_half.mean(axis=0),
        "iterates": x.reshape(len(kept), -1)[:, 0],
    }
