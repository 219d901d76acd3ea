"""How a phase diagram is run: its backend, the size of its tiles, and the compiled program."""

import math
from functools import partial
from typing import Any

import jax

from adam_transition import kernels, simulate
from adam_transition.optimizers import ADAM, Optimizer
from adam_transition.sampling import Sampling
from adam_transition.studies.phase.diagram import Backend, PhaseDiagram
from adam_transition.studies.phase.simulation import run_cell, run_table
from adam_transition.sweeps import sweep

_CELLS_PER_TILE = {"cpu": 1 << 13, "gpu": 1 << 20, "tpu": 1 << 20}
_BLOCK_TILES = 16  # per table, or a multiple: a number that 2, 4, 8 and 16 cores share evenly
_CELLS_OF_BLOCKS = (256, 1 << 12)  # per tile; the records of more would not fit into a cache
_BYTES_OF_SORTS = {"cpu": 1 << 28, "gpu": 1 << 34, "tpu": 1 << 33}
_CELLS_PER_CHUNK = {"cpu": 1 << 16, "gpu": 1 << 20, "tpu": 1 << 20}


def tile_shape(spec: PhaseDiagram) -> tuple[int, int]:
    """Rows and columns of one evaluation: enough for a GPU, few enough for the cache of a CPU core.

    The backend `blocks` takes care of the cache itself: tiles are as large as their records permit
    while all cores have work; a table that is smaller than two tiles is halved.
    """
    cells = _CELLS_PER_TILE[jax.default_backend()]
    if spec.backend == "blocks":
        least, most = _CELLS_OF_BLOCKS
        total = math.prod(spec.table)
        rounds = -(-total // (_BLOCK_TILES * most))
        cells = max(min(least, -(-total // 2)), -(-total // (_BLOCK_TILES * rounds)))
    if not spec.common_random_numbers and "random_shuffling" in spec.samplings:
        # each cell sorts some six epochs of its own, four numbers of four bytes per step
        of_cell = 6 * 16 * max(spec.num_components)
        cells = min(cells, max(1, _BYTES_OF_SORTS[jax.default_backend()] // of_cell))
    return sweep.block_shape(spec.table, cells)


def default_cells_per_chunk(spec: PhaseDiagram, tile: tuple[int, int]) -> int:
    """The number of cells written at once: at least one tile, and several chunks per process."""
    cells = _CELLS_PER_CHUNK[jax.default_backend()]
    if jax.process_count() > 1:
        cells = min(cells, math.prod(spec.table) // (2 * jax.process_count()))
    return max(cells, math.prod(tile))


def reason_against(backend: Backend, spec: PhaseDiagram) -> str | None:
    """Why a backend cannot run a diagram on the devices that JAX has; None if it can."""
    if backend == "xla":
        return None
    device = {"blocks": "cpu", "pallas": "gpu"}[backend]
    if jax.default_backend() != device:
        return f"needs a {device.upper()}; JAX runs on {jax.default_backend()} here"
    problem = spec.problem_at(spec.num_components[0], None)
    if backend == "pallas" and problem.shape != ():
        return f"{spec.problem} is not one-dimensional"
    for optimizer in spec.optimizers:
        if reason := kernels.reason_against(problem, optimizer.rule):
            return f"{spec.problem} with {optimizer.name} cannot run in a kernel: {reason}"
    if backend == "pallas":
        return kernels.reason_against_gpu(jax.local_devices()[0])
    return None


def fastest_backend(spec: PhaseDiagram) -> Backend:
    """The backend that was fastest in measurements: a kernel where one can run, else XLA."""
    return next((b for b in ("blocks", "pallas") if not reason_against(b, spec)), "xla")


def program(
    spec: PhaseDiagram,
    scheme: Sampling,
    *,
    optimizer: Optimizer = ADAM,
    watch_underflow: bool = False,
) -> sweep.Program:
    """The program of one optimiser and sampling scheme, for the backend of the diagram.

    On CPUs and GPUs the default backend is a kernel where one can run the problem: it takes the
    same `simulate.take_step` as `simulate.simulate`, but does not call the latter.

    Args:
      spec: the diagram.
      scheme: sampling scheme.
      optimizer: whose update rule runs.
      watch_underflow: whether to check v at every step, see `simulation.may_underflow`.
    """
    static: dict[str, Any] = {
        "watch_underflow": watch_underflow,
        "method": simulate.Method(scheme, spec.schedule, spec.initialization, optimizer.rule),
        "num_steps": spec.num_steps,
        "max_components": max(spec.num_components),
    }
    if spec.backend == "xla":
        return sweep.Program(partial(run_cell, **static))
    kernel = "cpu" if spec.backend == "blocks" else kernels.for_gpu()
    return sweep.Program(partial(run_table, **static, kernel=kernel), of_tables=True)
