"""The kernel for CPUs: a block of cells goes through all steps in a core's first cache.

By itself XLA runs a loop operation by operation, each a call of its own over all cells. Marked as
small, the loop becomes one compiled function, which is what makes blocks of this size worth while:
it is as fast as the same loop in C (`benchmarks.simulation`).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.experimental.xla_metadata import set_xla_metadata
from jaxtyping import Array

from adam_transition.kernels.split import Split

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
    of_draws: list[Array],
    count: Array,
    p: Array,
    q: Array,
    state: State,
    block: int,
) -> State:
    """As `triton.launch`."""
    # shared values have no axis, a cell's have that of the block
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
            # XLA's own names: it marks loops of few bytes so. Were they to change, results would
            # be the same, at half the speed.
            with set_xla_metadata(xla_cpu_small_call="true", inlineable="false"):
                return run_steps(of_row, of_step, of_draw, count, p, q, tuple(state))

        draws = [jnp.moveaxis(v.reshape(len(v), -1, block), 1, 0) for v in of_draw]
        found = jax.lax.map(run_block, (draws, tuple(v.reshape(-1, block) for v in cells)))
        return tuple(values.reshape(-1) for values in found)

    return jax.lax.map(run_row, (of_rows, of_steps, of_draws, p, q, *state))
