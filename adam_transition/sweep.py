"""Runs a pure function over many cells: chunks, devices, progress, resume. Knows nothing of Adam.

Cells form a table of R rows and W columns. A row's inputs are shared by its cells: under `vmap`
what depends on the row alone (an index stream, say) is computed once for the row. One compiled
program serves all chunks; edge chunks are padded by repeating their last row and column.

A cell's result depends on its own inputs only, so the bits do not depend on how cells are cut into
chunks or spread over devices.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import AxisType, PartitionSpec
from jaxtyping import Array, PyTree
from tqdm import tqdm

CellFunction = Callable[[PyTree, PyTree], Mapping[str, Array]]
"""(row inputs, cell inputs) → named results, all without batch axes."""


class Batched(NamedTuple):
    """A cell function compiled over rows and columns; made by `batch`."""

    evaluate: Callable[[PyTree, PyTree], Mapping[str, Array]]
    num_devices: int


class Block(NamedTuple):
    """One chunk of the table."""

    rows: slice
    columns: slice


def chunk_shape(
    table: tuple[int, int], cells_per_chunk: int, *, columns_multiple: int = 1
) -> tuple[int, int]:
    """Rows and columns of a chunk of about `cells_per_chunk` cells.

    Whole rows are taken together where they fit; otherwise one row is cut at a multiple of
    `columns_multiple` columns.
    """
    num_rows, num_columns = table
    rows = min(num_rows, max(1, cells_per_chunk // num_columns))
    if rows * num_columns <= cells_per_chunk:
        return rows, num_columns
    pieces = math.ceil(num_columns / cells_per_chunk)
    groups = math.ceil(math.ceil(num_columns / columns_multiple) / pieces)
    return 1, groups * columns_multiple


def blocks(table: tuple[int, int], chunk: tuple[int, int]) -> list[Block]:
    """The chunks of a table of R rows and W columns, in order."""
    return [
        Block(slice(r, min(r + chunk[0], table[0])), slice(c, min(c + chunk[1], table[1])))
        for r in range(0, table[0], chunk[0])
        for c in range(0, table[1], chunk[1])
    ]


def batch(function: CellFunction, devices: list[jax.Device] | None = None) -> Batched:
    """Maps a pure function over rows and, inside, over columns, sharded over devices.

    Compiles once for each shape of chunk. By default all local devices are used.
    """
    devices = jax.local_devices() if devices is None else devices
    over_cells = jax.vmap(jax.vmap(function, in_axes=(None, 0)))
    if len(devices) == 1:
        return Batched(jax.jit(over_cells), 1)
    mesh = jax.make_mesh((len(devices),), ("cells",), (AxisType.Auto,), devices=devices)
    columns = PartitionSpec(None, "cells")
    # shard_map and not automatic sharding: the loop inside must not wait for other devices
    sharded = jax.shard_map(
        over_cells,
        mesh=mesh,
        in_specs=(PartitionSpec(), columns),
        out_specs=columns,
        check_vma=False,
    )
    return Batched(jax.jit(sharded), len(devices))


def run(
    function: Batched,
    rows: PyTree,
    cells: PyTree,
    *,
    chunk: tuple[int, int],
    write: Callable[[Block, dict[str, np.ndarray]], None],
    is_done: Callable[[Block], bool] = lambda _: False,
    progress: tqdm | None = None,
) -> None:
    """Evaluates `function` on every cell that is not done, chunk by chunk.

    Args:
      function: the cell function, batched.
      rows: a pytree of arrays with leading axis R.
      cells: a pytree of arrays with leading axes (R, W).
      chunk: rows and columns of a chunk (`chunk_shape`); bounds the memory.
      write: receives each finished chunk, results of shape (rows, columns, …) by name.
      is_done: whether a chunk's results are at hand already.
      progress: a bar counting cells; advanced for chunks that were done too.
    """
    shapes = {np.shape(leaf)[:2] for leaf in jax.tree.leaves(cells)}
    lengths = {np.shape(leaf)[0] for leaf in jax.tree.leaves(rows)}
    if len(shapes) != 1 or lengths - {next(iter(shapes))[0]}:
        raise ValueError(f"rows of length {lengths} and cells of shapes {shapes} do not fit")
    padded = chunk[0], math.ceil(chunk[1] / function.num_devices) * function.num_devices
    for block in blocks(shapes.pop(), chunk):
        count = (block.rows.stop - block.rows.start) * (block.columns.stop - block.columns.start)
        if not is_done(block):
            results = function.evaluate(*_inputs(block, padded, rows, cells))
            inside = tuple(slice(0, part.stop - part.start) for part in block)
            write(block, {name: np.asarray(values)[inside] for name, values in results.items()})
        if progress is not None:
            progress.update(count)


def _inputs(
    block: Block, padded: tuple[int, int], rows: PyTree, cells: PyTree
) -> tuple[PyTree, PyTree]:
    row, column = (
        np.minimum(np.arange(part.start, part.start + length), part.stop - 1)
        for part, length in zip(block, padded, strict=True)
    )
    return (
        jax.tree.map(lambda leaf: leaf[row], rows),
        jax.tree.map(lambda leaf: leaf[row[:, None], column], cells),
    )
