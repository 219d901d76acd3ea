"""The GPU kernel for JAX 0.11 and newer, which keeps the state of a cell in registers.

Uses Pallas with the Mosaic GPU backend, which needs Hopper or newer. A program is a warpgroup of
128 threads. The body of the loop contains several steps, so that the loads of one step overlap with
the computation of another.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as mosaic
from jaxtyping import Array

from adam_transition.kernels import tuned
from adam_transition.kernels.elementary import without_missing
from adam_transition.kernels.split import Split

State = tuple[jax.Array, ...]  # the numbers of a cell's state, each of [R, W]; see `table`


def cells_per_block(num_rows: int, num_columns: int) -> int:
    """A power of two: few cells spread over the whole GPU; many cells share the loads of a step."""
    return tuned.choose(tuned.MOSAIC, num_rows * num_columns).block


def launch(
    parts: Split,
    of_rows: list[Array],
    of_steps: list[Array],
    of_draws: list[Array],
    count: Array,
    p: Array,
    q: Array,
    state: State,
    block: int,
    interpret: bool = False,
) -> State:
    """Runs `count` steps of all cells.

    Args:
      parts: as for `triton.launch`, like all other arguments.
      of_rows: numbers of each row, of shape (R,).
      of_steps: numbers of each row and step, of shape (R, steps).
      of_draws: numbers of each cell and step, of shape (R, steps, W).
      count: number of steps; may be traced.
      p: 1 − β1 of each cell, of shape (R, W).
      q: 1 − β2 of each cell, of shape (R, W).
      state: numbers of each cell that a step changes, of shape (R, W).
      block: number of cells per program, a multiple of 128.
      interpret: run on any backend, slowly.
    """
    num_rows, width = p.shape
    shape = jax.ShapeDtypeStruct(p.shape, p.dtype)
    counts = len(of_rows), len(of_steps), len(of_draws)
    unroll = tuned.choose(tuned.MOSAIC, p.size).warps_or_unroll
    run = mosaic.kernel(
        partial(_kernel, parts, counts, len(state), block, unroll),
        out_type=[shape] * len(state),
        grid=(num_rows, width // block),
        grid_names=("row", "column"),
        interpret=_interpreter() if interpret else None,
    )
    return tuple(run(count[None], *of_rows, *of_steps, *of_draws, p, q, *state))


def _kernel(
    parts: Split,
    counts: tuple[int, int, int],
    size: int,
    block: int,
    unroll: int,
    count: Any,
    *refs: Any,
) -> None:
    """The program. `refs`: values by row, step and draw, p, q, the state, and the output state."""
    row, column = jax.lax.axis_index("row"), jax.lax.axis_index("column")
    here = pl.ds(column * block, block)
    row_refs, step_refs, draw_refs, rest = _divided(refs, counts)
    of_row = [ref[row] for ref in row_refs]
    p, q, *state = (ref[row, here] for ref in rest[: 2 + size])
    # shared values have no axis; those of cells have the axis of the block
    of_cells = jax.vmap(without_missing(parts.of_cell), in_axes=(None, None, 0, 0, 0, *[0] * size))

    def run(first: Array, number: int, state: State) -> State:
        read = [
            ([ref[row, k] for ref in step_refs], [ref[row, k, here] for ref in draw_refs])
            for k in (first + i for i in range(number))
        ]
        for of_step, of_draw in read:
            state = of_cells(of_row, of_step, of_draw, p, q, *state)
        return state

    whole = count[0] // unroll
    found = jax.lax.fori_loop(0, whole, lambda i, s: run(i * unroll, unroll, s), tuple(state))
    found = jax.lax.fori_loop(whole * unroll, count[0], lambda k, s: run(k, 1, s), found)
    for ref, values in zip(rest[2 + size :], found, strict=True):
        ref[row, here] = values


def _interpreter() -> Any:
    return getattr(mosaic, "InterpretGPUParams")()  # noqa: B009 (missing in JAX 0.10)


def _divided(refs: tuple[Any, ...], counts: tuple[int, ...]) -> list[tuple[Any, ...]]:
    """The references in groups of the given sizes, followed by the rest."""
    groups, start = [], 0
    for number in counts:
        groups.append(refs[start : start + number])
        start += number
    return [*groups, refs[start:]]
