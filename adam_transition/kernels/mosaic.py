"""The kernel for GPUs under JAX 0.11 and newer: the state of a cell never leaves its registers.

It goes through Pallas' Mosaic GPU route, which needs Hopper or newer. Its programs are warpgroups
of 128 threads. Several steps are written out in the body of the loop, so that what they load is on
its way while others compute.
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

State = tuple[jax.Array, ...]  # numbers of a cell, each of [R, W]; see `table`


def cells_per_block(num_rows: int, num_columns: int) -> int:
    """A power of two: few cells are spread over the whole GPU, many share what a step loads."""
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
    """As `triton.launch`; `block` is a multiple of 128."""
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
    """References: the count, values by row, step and draw, p, q, the state; the state out."""
    row, column = jax.lax.axis_index("row"), jax.lax.axis_index("column")
    here = pl.ds(column * block, block)
    row_refs, step_refs, draw_refs, rest = _divided(refs, counts)
    of_row = [ref[row] for ref in row_refs]
    p, q, *state = (ref[row, here] for ref in rest[: 2 + size])
    # shared values have no axis, a cell's have that of the block
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
    return getattr(mosaic, "InterpretGPUParams")()  # noqa: B009 (JAX 0.10 has none)


def _divided(refs: tuple[Any, ...], counts: tuple[int, ...]) -> list[tuple[Any, ...]]:
    """The references in groups of these sizes, and the rest."""
    groups, start = [], 0
    for number in counts:
        groups.append(refs[start : start + number])
        start += number
    return [*groups, refs[start:]]
