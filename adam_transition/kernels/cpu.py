"""The CPU kernel: a block of cells runs through all steps in a core's first-level cache.

Only as a `small_loop` are blocks of this size worthwhile: they run as fast as the same loop in C
(`benchmarks.simulation`).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array

from adam_transition.kernels.scalarized import NotScalarizedError
from adam_transition.kernels.split import Split
from adam_transition.sweeps.small_loop import small_loop

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
    of_cells = jax.vmap(parts.of_cell, in_axes=(None, None, 0, 0, 0, *[0] * len(state)))
    row_numbers, step_numbers = len(of_rows), len(of_steps)
    packed = [_packed(values, p.dtype) for values in (of_rows, of_steps) if values]
    shared = jnp.concatenate([bits.reshape(len(p), -1) for bits in packed], axis=1)

    def run_row(row: tuple) -> State:
        shared, of_draw, *cells = row

        def run_block(block: tuple[list[Array], tuple[Array, ...]]) -> State:
            of_draw, (p, q, *state) = block

            def take_step(k: Array, state: State) -> State:
                start = row_numbers + k * step_numbers
                step = jax.lax.dynamic_slice(shared, (start,), (step_numbers,))
                now = _unpacked(shared[:row_numbers], of_rows), _unpacked(step, of_steps)
                return of_cells(*now, [values[k] for values in of_draw], p, q, *state)

            return small_loop(count, take_step, tuple(state))

        draws = [jnp.moveaxis(v.reshape(len(v), -1, block), 1, 0) for v in of_draw]
        found = jax.lax.map(run_block, (draws, tuple(v.reshape(-1, block) for v in cells)))
        return tuple(values.reshape(-1) for values in found)

    return jax.lax.map(run_row, (shared, of_draws, p, q, *state))


def _packed(values: list[Array], dtype: jnp.dtype) -> Array:
    """Numbers side by side on the last axis of one array, as bits of one type.

    One array, because XLA's compiler aborts if the loop does not use one of its inputs; and LLVM
    gives up vectors if a loop reads many arrays.
    """
    return jnp.stack([_as_bits(value, dtype) for value in values], axis=-1)


def _unpacked(bits: Array, examples: list[Array]) -> list[Array]:
    return [_from_bits(bits[i], example.dtype) for i, example in enumerate(examples)]


def _as_bits(value: Array, dtype: jnp.dtype) -> Array:
    """A number without loss in a float type that is at least as wide.

    Raises:
      NotScalarizedError: it has a wider type, or is complex.
    """
    if value.dtype == dtype:
        return value
    is_real = not jnp.issubdtype(value.dtype, jnp.complexfloating)
    if not is_real or value.dtype.itemsize > dtype.itemsize:
        raise NotScalarizedError(f"a number of type {value.dtype} does not fit into {dtype}")
    if jnp.issubdtype(value.dtype, jnp.floating):
        return value.astype(dtype)
    kind = "uint" if jnp.issubdtype(value.dtype, jnp.unsignedinteger) else "int"
    wide = jnp.dtype(f"{kind}{8 * dtype.itemsize}")
    return jax.lax.bitcast_convert_type(value.astype(wide), dtype)


def _from_bits(bits: Array, dtype: jnp.dtype) -> Array:
    if jnp.issubdtype(dtype, jnp.floating):
        return bits.astype(dtype)
    kind = "uint" if jnp.issubdtype(dtype, jnp.unsignedinteger) else "int"
    wide = jnp.dtype(f"{kind}{8 * bits.dtype.itemsize}")
    return jax.lax.bitcast_convert_type(bits, wide).astype(dtype)
