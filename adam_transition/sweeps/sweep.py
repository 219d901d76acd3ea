"""Runs a pure function over many cells: chunks, devices, processes, progress, resuming.

Independent of Adam.

Cells form a table of R rows and W columns. The cells of a row share the row's inputs: under `vmap`,
values that depend only on the row (for example an index stream) are computed once per row.

Two sizes matter. A *tile* is the block of cells that one call of the compiled program evaluates.
Its shape follows from the table alone, and tiles at the edges are padded. Tiles are dealt out to
devices and, on CPUs, to threads: a tile that fits in the cache runs on one core, which is faster
than sharing each operation of a large tile between cores. A *chunk* is the block of cells that is
written at once; it may have any size. XLA may round differently in programs of different shapes,
but all tiles have one shape, so results do not depend on chunks or devices, bit for bit.
"""

import functools
import math
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, PyTree
from tqdm import tqdm

from adam_transition.sweeps import processes

CellFunction = Callable[..., Mapping[str, Array]]
"""`(row inputs, cell inputs, *constants)` → named results, all without batch axes."""


class Block(NamedTuple):
    """A rectangle of the table."""

    rows: slice
    columns: slice

    @property
    def shape(self) -> tuple[int, int]:
        """Number of rows and of columns."""
        return self.rows.stop - self.rows.start, self.columns.stop - self.columns.start


def block_shape(
    table: tuple[int, int], cells: int, *, columns_multiple: int = 1
) -> tuple[int, int]:
    """Numbers of rows and columns of a block of about `cells` cells.

    A block consists of whole rows if a row fits. Otherwise it is a piece of one row, whose width is
    a multiple of `columns_multiple`.
    """
    num_rows, num_columns = table
    if num_columns <= cells:
        return min(num_rows, cells // num_columns), num_columns
    pieces = math.ceil(num_columns / cells)
    groups = math.ceil(math.ceil(num_columns / columns_multiple) / pieces)
    return 1, groups * columns_multiple


def blocks(area: Block, shape: tuple[int, int]) -> Iterator[Block]:
    """Blocks that cover a rectangle in order; they are smaller than `shape` at the far edges."""
    for r in range(area.rows.start, area.rows.stop, shape[0]):
        for c in range(area.columns.start, area.columns.stop, shape[1]):
            yield Block(
                slice(r, min(r + shape[0], area.rows.stop)),
                slice(c, min(c + shape[1], area.columns.stop)),
            )


@dataclass(frozen=True)
class Program:
    """A cell function mapped over rows and, within them, over columns; compiled once per device.

    `constants` are further arguments that all cells share (for example a data set). Each device
    holds one copy, which is not part of the program. With `of_tables` the function (for example a
    kernel) is not mapped and receives whole tiles, that is, inputs with their leading axes.
    """

    function: CellFunction
    constants: tuple[PyTree, ...] = ()
    of_tables: bool = False
    _compiled: dict[Any, Callable] = field(default_factory=dict, repr=False)

    def compiled_for(self, device: jax.Device, inputs: tuple[PyTree, PyTree]) -> Callable:
        """The compiled function for one tile: (rows, cells) of these types → results by name."""
        key = (device, *((leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(inputs)))
        if key not in self._compiled:
            shared = (None,) * len(self.constants)
            batched = self.function
            if not self.of_tables:
                over_columns = jax.vmap(self.function, in_axes=(None, 0, *shared))
                batched = jax.vmap(over_columns, in_axes=(0, 0, *shared))
            constants = jax.device_put(self.constants, device)
            lowered = jax.jit(batched).lower(*inputs, *constants)
            compiled = lowered.compile(_options(device.platform))
            self._compiled[key] = functools.partial(_call, compiled, constants)
        return self._compiled[key]


def run(
    program: Program,
    rows: PyTree,
    cells: PyTree,
    *,
    tile: tuple[int, int],
    chunk: tuple[int, int],
    write: Callable[[Block, dict[str, np.ndarray]], None],
    is_done: Callable[[Block], bool] = lambda _: False,
    devices: Sequence[jax.Device] | None = None,
    shared: bool = False,
    progress: tqdm | None = None,
) -> None:
    """Evaluates a function on every cell that is not done yet, chunk by chunk.

    With `shared`, each process of a job (`jax.distributed`) evaluates and writes its share of the
    chunks. Processes wait for each other after every chunk, so they notice if one ends.

    Args:
      program: the cell function.
      rows: a pytree of arrays with leading axis R.
      cells: a pytree of arrays with leading axes (R, W).
      tile: rows and columns of one evaluation (`block_shape`); bounds the memory of a device.
      chunk: rows and columns that are written at once.
      write: receives each finished chunk and its results by name, of shape (rows, columns, …).
      is_done: whether the results of a chunk exist already; called before anything is written.
      devices: devices that evaluate tiles; default: all local devices.
      shared: share the chunks with other processes, which must call this with the same arguments.
      progress: a bar that counts cells, including those of other processes and those done before.

    Raises:
      ValueError: the leading axes of rows and cells do not match.
      ProcessError: another process has ended, or has a different number of chunks to do.
    """
    table = _table_shape(rows, cells)
    devices = jax.local_devices() if devices is None else devices
    num_workers = _num_workers(devices)
    rows = jax.tree.map(_on_host, rows)
    pending: deque[tuple[Block, list[tuple[Block, Future]]]] = deque()
    num_tiles = 0

    @functools.lru_cache(maxsize=len(devices))  # tiles of the same rows are consecutive
    def row_inputs(start: int, stop: int, device: jax.Device) -> PyTree:
        row = _positions(slice(start, stop), tile[0])
        return jax.device_put(jax.tree.map(lambda leaf: leaf[row], rows), device)

    def cell_inputs(piece: Block, device: jax.Device) -> PyTree:
        row, column = (_positions(part, length) for part, length in zip(piece, tile, strict=True))
        return jax.device_put(jax.tree.map(lambda leaf: leaf[row[:, None], column], cells), device)

    def advance(num_cells: int) -> None:
        if shared:
            num_cells = int(processes.gather(num_cells).sum())
        if progress is not None:
            progress.update(num_cells)

    def finish_oldest() -> None:
        block, pieces = pending.popleft()
        write(block, _assemble(block, pieces))
        advance(math.prod(block.shape))

    todo = [
        b for b in blocks(Block(slice(0, table[0]), slice(0, table[1])), chunk) if not is_done(b)
    ]
    if progress is not None:
        progress.update(math.prod(table) - sum(math.prod(block.shape) for block in todo))
    rounds, mine = _my_share(todo) if shared else (len(todo), todo)
    pool = ThreadPoolExecutor(num_workers)
    try:
        for block in mine:
            pieces = []
            for piece in blocks(block, tile):
                device = devices[num_tiles % len(devices)]
                # placed here, not in the thread: JAX's contexts (for example x64) are per thread
                inputs = (
                    row_inputs(piece.rows.start, piece.rows.stop, device),
                    cell_inputs(piece, device),
                )
                compiled = program.compiled_for(device, inputs)
                pieces.append((piece, pool.submit(_evaluate, compiled, inputs)))
                num_tiles += 1
            pending.append((block, pieces))
            while sum(len(queued) for _, queued in pending) > 2 * num_workers and len(pending) > 1:
                finish_oldest()
        while pending:
            finish_oldest()
        for _ in range(rounds - len(mine)):  # some processes have one chunk more
            advance(0)
    finally:
        pool.shutdown(cancel_futures=True)


def _num_workers(devices: Sequence[jax.Device]) -> int:
    """Threads that evaluate tiles: one per device, or per core on CPUs."""
    if devices[0].platform != "cpu":
        return len(devices)
    return max(len(devices), len(os.sched_getaffinity(0)))


def _my_share(todo: list[Block]) -> tuple[int, list[Block]]:
    """The rounds of all processes, and the chunks of this one."""
    _check_equal(len(todo))
    return -(-len(todo) // processes.count()), list(processes.share(todo))


def _check_equal(num_chunks: int) -> None:
    counts = processes.gather(num_chunks)
    if len(set(counts)) > 1:
        raise processes.ProcessError(
            f"the processes of this job have {sorted(set(counts.tolist()))} chunks to do: they "
            "need the same flags, and an output folder on a file system that they share"
        )


def _on_host(leaf: Any) -> Any:
    """An array that is indexed in microseconds; PRNG keys stay where they are."""
    return leaf if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key) else np.asarray(leaf)


def _table_shape(rows: PyTree, cells: PyTree) -> tuple[int, int]:
    tables = {np.shape(leaf)[:2] for leaf in jax.tree.leaves(cells)}
    lengths = {np.shape(leaf)[0] for leaf in jax.tree.leaves(rows)}
    if len(tables) != 1 or lengths - {next(iter(tables))[0]}:
        raise ValueError(f"rows of length {lengths} and cells of shapes {tables} do not match")
    return tables.pop()


@functools.cache
def _options(platform: str) -> dict[str, str | bool]:
    """Options of XLA for a platform, as far as the installed version has them.

    By default it uses half of the vector width on cores with AVX-512, and a library of reductions
    that takes two to three times as long for sums over a few records.
    """
    found: dict[str, str | bool] = {}
    wanted = {"xla_cpu_prefer_vector_width": "512", "xla_cpu_experimental_ynn_fusion_type": ""}
    for name, value in wanted.items() if platform == "cpu" else ():
        try:
            jax.jit(lambda x: x).lower(0.0).compile({name: value})
        except jax.errors.JaxRuntimeError:
            continue
        found[name] = value
    return found


def _call(compiled: Callable, constants: tuple[PyTree, ...], *inputs: PyTree) -> Any:
    return compiled(*inputs, *constants)


def _evaluate(compiled: Callable, inputs: tuple[PyTree, PyTree]) -> dict[str, np.ndarray]:
    return {name: np.asarray(values) for name, values in compiled(*inputs).items()}


def _positions(part: slice, length: int) -> np.ndarray:
    """Indices of a tile's rows or columns; a smaller block is padded with its last index."""
    return np.minimum(np.arange(part.start, part.start + length), part.stop - 1)


def _assemble(block: Block, pieces: list[tuple[Block, Future]]) -> dict[str, np.ndarray]:
    whole = {
        name: np.empty((*block.shape, *values.shape[2:]), values.dtype)
        for name, values in pieces[0][1].result().items()
    }
    for piece, future in pieces:
        height, width = piece.shape
        top, left = (a.start - b.start for a, b in zip(piece, block, strict=True))
        for name, values in future.result().items():
            whole[name][top : top + height, left : left + width] = values[:height, :width]
    return whole
