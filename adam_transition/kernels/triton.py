"""The GPU kernel for JAX 0.10, which keeps the state of a cell in registers.

Uses Pallas with the Triton backend, which JAX 0.11 deprecates; `mosaic` is used there. Needs Ampere
or newer.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array

from adam_transition.kernels import tuned
from adam_transition.kernels.elementary import without_missing
from adam_transition.kernels.split import Split

State = tuple[jax.Array, ...]  # the numbers of a cell's state, each of [R, W]; see `table`


def cells_per_block(num_rows: int, num_columns: int) -> int:
    """A power of two: few cells spread over the whole GPU; many cells share the loads of a step."""
    return tuned.choose(tuned.TRITON, num_rows * num_columns).block


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
      parts: the step, split by dependencies.
      of_rows: numbers of each row, of shape (R,).
      of_steps: numbers of each row and step, of shape (R, steps); steps is at least `count`.
      of_draws: numbers of each cell and step, of shape (R, steps, W).
      count: number of steps; may be traced.
      p: 1 − β1 of each cell, of shape (R, W); W is a multiple of `block`.
      q: 1 − β2 of each cell, of shape (R, W).
      state: numbers of each cell that a step changes, of shape (R, W).
      block: number of cells per program.
      interpret: run on any backend, slowly.
    """
    cells = pl.BlockSpec((None, block), lambda row, column: (row, column))
    alone = pl.BlockSpec((None, 1), lambda row, _: (row, 0))
    once = pl.BlockSpec((1,), lambda *_: (0,))
    stream = [pl.BlockSpec((None, values.shape[1]), lambda row, _: (row, 0)) for values in of_steps]
    draws = [
        pl.BlockSpec((None, values.shape[1], block), lambda row, column: (row, 0, column))
        for values in of_draws
    ]
    shape = jax.ShapeDtypeStruct(p.shape, p.dtype)
    warps = tuned.choose(tuned.TRITON, p.size).warps_or_unroll
    found = pl.pallas_call(
        partial(_kernel, parts, len(of_rows), len(of_steps), len(of_draws)),
        grid=(p.shape[0], p.shape[1] // block),
        in_specs=[once, *[alone] * len(of_rows), *stream, *draws, *[cells] * (2 + len(state))],
        out_specs=[cells] * len(state),
        out_shape=[shape] * len(state),
        compiler_params=triton.CompilerParams(num_warps=warps, num_stages=1),
        interpret=interpret,
    )(count[None], *[values[:, None] for values in of_rows], *of_steps, *of_draws, p, q, *state)
    return tuple(found)


def _kernel(
    parts: Split, num_rows: int, num_steps: int, num_draws: int, count: Any, *refs: Any
) -> None:
    """The program. `refs`: values by row, step and draw, p, q, the state, and the output state."""
    of_row = [ref[0] for ref in refs[:num_rows]]
    step_refs = refs[num_rows : num_rows + num_steps]
    draw_refs = refs[num_rows + num_steps : num_rows + num_steps + num_draws]
    p, q, *state_refs = refs[num_rows + num_steps + num_draws :]
    size = len(state_refs) // 2
    p, q = p[...], q[...]
    # shared values have no axis; those of cells have the axis of the block
    of_cells = jax.vmap(without_missing(parts.of_cell), in_axes=(None, None, 0, 0, 0, *[0] * size))

    def body(k: Array, state: State) -> State:
        of_step, of_draw = [ref[k] for ref in step_refs], [ref[k, :] for ref in draw_refs]
        return of_cells(of_row, of_step, of_draw, p, q, *state)

    state = jax.lax.fori_loop(0, count[0], body, tuple(ref[...] for ref in state_refs[:size]))
    for ref, values in zip(state_refs[size:], state, strict=True):
        ref[...] = values
