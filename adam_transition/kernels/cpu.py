"""The kernel for CPUs: a block of cells goes through all steps in a core's first cache.

By itself XLA runs a loop operation by operation, each a call of its own over all cells. Marked as
small, the loop becomes one compiled function, which is what makes blocks of this size worth while:
it is as fast as the same loop in C (`benchmarks.simulation`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
from jax.experimental.xla_metadata import set_xla_metadata

from adam_transition.kernels.split import Split

if TYPE_CHECKING:
    from jaxtyping import Array

_CELLS_WANTED = 128  # x, m, v, p and q of them fill a tenth of a first cache
_VECTOR = 16  # numbers in the widest vector

State = tuple[jax.Array, ...]  # numbers of a cell, each of [R, W]; see `table`


def cells_per_block(num_rows: int, num_columns: int) -> int:
    """About 128, so that a row is a whole number of blocks with little left over."""
    del num_rows
    count = -(-num_columns // _CELLS_WANTED)
    return -(-num_columns // (count * _VECTOR)) * _VECTOR


def launch(
    parts: Split,
    of_rows: list[Array],
    of_steps: list[Array],
    count: Array,
    p: Array,
    q: Array,
    state: State,
    block: int,
) -> State:
    """As `gpu.launch`."""
    # shared values have no axis, a cell's have that of the block
    of_cells = jax.vmap(parts.of_cell, in_axes=(None, None, 0, 0, *[0] * len(state)))

    @jax.jit
    def run_steps(
        of_row: list[Array], of_step: list[Array], count: Array, p: Array, q: Array, state: State
    ) -> State:
        def body(k: Array, state: State) -> State:
            return of_cells(of_row, [values[k] for values in of_step], p, q, *state)

        return jax.lax.fori_loop(0, count, body, state)

    def run_row(row: tuple) -> State:
        of_row, of_step, *cells = row

        def run_block(cells: tuple[Array, ...]) -> State:
            # XLA's own names: it marks loops of few bytes so. Were they to change, results would
            # be the same, at half the speed.
            with set_xla_metadata(xla_cpu_small_call="true", inlineable="false"):
                return run_steps(of_row, of_step, count, cells[0], cells[1], cells[2:])

        found = jax.lax.map(run_block, tuple(values.reshape(-1, block) for values in cells))
        return tuple(values.reshape(-1) for values in found)

    return jax.lax.map(run_row, (of_rows, of_steps, p, q, *state))
