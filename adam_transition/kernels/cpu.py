"""The CPU kernel: a block of cells runs through all steps in a core's first-level cache.

By default XLA runs a loop operation by operation, with one call over all cells for each operation.
If the loop is marked as small, it becomes one compiled function. Only then are blocks of this size
worthwhile: they run as fast as the same loop in C (`benchmarks.simulation`).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.experimental.xla_metadata import set_xla_metadata
from jaxtyping import Array

from adam_transition.kernels.split import Split

_CELLS_WANTED = 128  # their x, m, v, p and q fill a tenth of a first-level cache
_VECTOR = 16  # numbers in the widest vector

State = tuple[jax.Array, ...]  # the numbers of a cell's state, each of [R, W]; see `table`


def cells_per_block(num_rows: int, num_columns: int) -> int:
    """About 128 cells, such that the blocks of a row need little padding."""
    del num_rows
    count = -(-num_columns // _CELLS_WANTED)
    return -(-num_columns // (count * _VECTOR)) * _VECTOR


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
      block: number of cells per block.
    """
    # shared values have no axis; those of cells have the axis of the block
    of_cells = jax.vmap(parts.of_cell, in_axes=(None, None, 0, 0, 0, *[0] * len(state)))

    @jax.jit
    def run_steps(
        of_row: list[Array],
        of_step: list[Array],
        of_draw: list[Array],
        count: Array,
        p: Array,
        q: Array,
        state: State,
    ) -> State:
        def body(k: Array, state: State) -> State:
            now = ([values[k] for values in of_kind] for of_kind in (of_step, of_draw))
            return of_cells(of_row, *now, p, q, *state)

        return jax.lax.fori_loop(0, count, body, state)

    def run_row(row: tuple) -> State:
        of_row, of_step, of_draw, *cells = row

        def run_block(block: tuple[list[Array], tuple[Array, ...]]) -> State:
            of_draw, (p, q, *state) = block
            # attributes by which XLA itself marks loops of few bytes; if XLA renames them, results
            # stay the same, at half the speed
            with set_xla_metadata(xla_cpu_small_call="true", inlineable="false"):
                return run_steps(of_row, of_step, of_draw, count, p, q, tuple(state))

        draws = [jnp.moveaxis(v.reshape(len(v), -1, block), 1, 0) for v in of_draw]
        found = jax.lax.map(run_block, (draws, tuple(v.reshape(-1, block) for v in cells)))
        return tuple(values.reshape(-1) for values in found)

    return jax.lax.map(run_row, (of_rows, of_steps, of_draws, p, q, *state))
