"""The phase diagram as a sweep: gap and verdict of every (sampling, n, β1, β2), on disk.

The table of the sweep has a row for each n (rows share an index stream) and a column for each
(β1, β2); it is run once for each sampling scheme and each a.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, PyTree
from tqdm import tqdm

from adam_transition import (
    adam,
    kernels,
    problems,
    processes,
    sampling,
    simulate,
    store,
    sweep,
)

RECORDS = 64
"""Records of a run; the verdict's windows hold six or seven of them each."""

_CELLS_PER_TILE = {"cpu": 1 << 13, "gpu": 1 << 20, "tpu": 1 << 20}
_LEAST_TILE = 256
_HARDLY_HELD = 1e6  # times the least number of a dtype
_BYTES_OF_SORTS = {"cpu": 1 << 28, "gpu": 1 << 34, "tpu": 1 << 33}
_BLOCK_TILES = 16  # of a table: the same work for 2, 4, 8 and 16 cores
_CELLS_PER_CHUNK = {"cpu": 1 << 16, "gpu": 1 << 20, "tpu": 1 << 20}

Backend = Literal["xla", "blocks", "pallas"]
"""xla: one program of XLA's, on any device, for any problem. The others are for one-dimensional
problems. blocks: for CPUs, a block of cells goes through all steps in the first cache. pallas: a
kernel for GPUs that keeps the state of a cell in registers."""


@dataclass(frozen=True)
class PhaseDiagram:
    """What to simulate. β arrays are 1-D grids, or (N, W) with β1 and β2 paired by columns."""

    problem: str
    num_components: tuple[int, ...]  # N values of n
    samplings: tuple[sampling.Sampling, ...]
    beta1: np.ndarray  # [B1], or [N, W] if paired
    beta2: np.ndarray  # [B2], or [N, W] if paired
    a: tuple[Fraction | float, ...] = ()  # parameters of the counterexample; empty: 1/(n−1)²
    num_steps: int = 50_000
    x0: float = 1.0
    step_size: float = 0.1
    epsilon: float = 0.0
    schedule: adam.Schedule = "inverse_sqrt"
    initialization: adam.Initialization = "zero"
    dtype: str = "float32"
    seed: int = 0
    common_random_numbers: bool = True
    backend: Backend = "xla"
    parameters: Mapping[str, problems.Number] = field(default_factory=dict)  # of the problem

    @property
    def paired(self) -> bool:
        """Whether the cells are a list for each n, not a grid."""
        return self.beta1.ndim == 2

    @property
    def cell_dims(self) -> tuple[str, ...]:
        return ("sample",) if self.paired else ("beta1", "beta2")

    @property
    def dims(self) -> tuple[str, ...]:
        """Dimensions of the results; `a` only where it was given."""
        return ("sampling", "n", *(("a",) if self.a else ()), *self.cell_dims)

    @property
    def table(self) -> tuple[int, int]:
        """Rows and columns of one table."""
        columns = self.beta1.shape[1] if self.paired else self.beta1.size * self.beta2.size
        return len(self.num_components), columns

    def problem_at(self, n: int, a: Fraction | float | None) -> problems.BuiltIn:
        return problems.built_in(self.problem, n, a, **self.parameters)


class Panel(NamedTuple):
    """One table: all n and (β1, β2) for a sampling scheme and an a."""

    sampling: sampling.Sampling
    a: Fraction | float | None
    region: dict[str, slice]


def tile_shape(spec: PhaseDiagram) -> tuple[int, int]:
    """Rows and columns of one evaluation: enough for a GPU, and on a CPU few for a core's cache.

    In blocks the cache is no concern: tiles are as large as leaves work for all cores.
    """
    cells = _CELLS_PER_TILE[jax.default_backend()]
    if spec.backend == "blocks":
        rounds = -(-math.prod(spec.table) // (_BLOCK_TILES * 8 * cells))
        cells = max(_LEAST_TILE, -(-math.prod(spec.table) // (_BLOCK_TILES * rounds)))
    if not spec.common_random_numbers and "random_shuffling" in spec.samplings:
        # each cell sorts some six epochs of its own, four numbers of four bytes a step
        of_cell = 6 * 16 * max(spec.num_components)
        cells = min(cells, max(1, _BYTES_OF_SORTS[jax.default_backend()] // of_cell))
    return sweep.block_shape(spec.table, cells)


def _cells_per_chunk(spec: PhaseDiagram, tile: tuple[int, int]) -> int:
    cells = _CELLS_PER_CHUNK[jax.default_backend()]
    if jax.process_count() > 1:  # some for every process
        cells = min(cells, math.prod(spec.table) // (2 * jax.process_count()))
    return max(cells, math.prod(tile))


def reason_against(backend: Backend, spec: PhaseDiagram) -> str | None:
    """Why a backend cannot run a diagram on JAX's devices here; None if it can."""
    if backend == "xla":
        return None
    device = {"blocks": "cpu", "pallas": "gpu"}[backend]
    if jax.default_backend() != device:
        return f"needs a {device.upper()}; JAX runs on {jax.default_backend()} here"
    if spec.problem_at(spec.num_components[0], None).shape != ():
        return f"{spec.problem} is not one-dimensional"
    if backend == "pallas":
        return kernels.reason_against_gpu(jax.local_devices()[0])
    return None


def fastest_backend(spec: PhaseDiagram) -> Backend:
    """The backend that was fastest where they were measured: a kernel where one can run, or XLA."""
    return next((b for b in ("blocks", "pallas") if not reason_against(b, spec)), "xla")


def panels(spec: PhaseDiagram) -> Iterator[Panel]:
    """The tables of a diagram, in order."""
    for i, scheme in enumerate(spec.samplings):
        for j, a in enumerate(spec.a or (None,)):
            region = {"sampling": slice(i, i + 1), "a": slice(j, j + 1)}
            yield Panel(scheme, a, region)


def run(
    spec: PhaseDiagram,
    path: Path,
    *,
    identity: Mapping[str, Any],
    attrs: Mapping[str, Any],
    resume: bool = True,
    cells_per_chunk: int = 0,
    progress: bool = True,
) -> store.Store:
    """Simulates every cell into a store, or the cells that a store of this identity lacks.

    The processes of a job (`jax.distributed`) share the work; all must call this alike.

    Args:
      spec: what to simulate.
      path: the store.
      identity: see `store.open_or_create`.
      attrs: see `store.open_or_create`.
      resume: see `store.open_or_create`.
      cells_per_chunk: what is written at once, and what a kill may lose; 0 chooses. The numbers do
        not depend on it.
      progress: whether to show a bar on stderr, if that is a terminal.

    Raises:
      ValueError: a problem that does not exist, or parameters that it does not allow.
      StoreError: see `store`.
      ProcessError: another process of the job has ended.
    """
    inner = 1 if spec.paired else len(spec.beta2)
    tile = tile_shape(spec)
    cells_per_chunk = cells_per_chunk or _cells_per_chunk(spec, tile)
    chunk = sweep.block_shape(spec.table, cells_per_chunk, columns_multiple=inner)
    if not processes.is_first():  # the first process makes the store
        processes.gather(0)
    results = store.open_or_create(
        path,
        coords=coordinates(spec),
        variables=variables(spec),
        chunks={"sampling": 1, "n": chunk[0], "a": 1, spec.cell_dims[0]: chunk[1] // inner},
        identity=identity,
        attrs=attrs,
        resume=resume,
        shared=not processes.is_first(),
    )
    if processes.is_first():
        processes.gather(0)
    # a store that exists keeps the chunks it was begun with
    sizes = results.chunk_sizes("gap")
    chunk = sizes["n"], sizes[spec.cell_dims[0]] * inner
    total = len(spec.samplings) * max(1, len(spec.a)) * spec.table[0] * spec.table[1]
    hidden = None if progress and processes.is_first() else True
    bar = tqdm(total=total, unit="cell", unit_scale=True, disable=hidden)
    tables = [rows(spec, a) for a in spec.a or (None,)]
    watch = any(may_underflow(table, cells(spec), spec) for table in tables)
    with bar, results.closed_on_error():
        for scheme in spec.samplings:
            compiled = program(spec, scheme, watch_underflow=watch)
            for panel in panels(spec):
                if panel.sampling == scheme:
                    bar.set_description(scheme)
                    _run_panel(spec, panel, compiled, results, tile, chunk, bar)
    return results


def program(
    spec: PhaseDiagram, scheme: sampling.Sampling, *, watch_underflow: bool = False
) -> sweep.Program:
    """The program of one sampling scheme, for the spec's backend."""
    static: dict[str, Any] = {
        "watch_underflow": watch_underflow,
        "method": simulate.Method(scheme, spec.schedule, spec.initialization),
        "num_steps": spec.num_steps,
        "max_components": max(spec.num_components),
    }
    if spec.backend == "xla":
        return sweep.Program(partial(run_cell, **static))
    kernel = "cpu" if spec.backend == "blocks" else kernels.for_gpu()
    return sweep.Program(partial(run_table, **static, kernel=kernel), of_tables=True)


class Row(NamedTuple):
    """What the cells of a row share."""

    problem: problems.FiniteSum
    key: Array  # of the index stream
    x0: Array  # [] or [d]
    step_size: Array  # [] η0
    epsilon: Array  # []
    has_neighbourhood: Array  # [] bool: D0 > 0


def may_underflow(rows: Row, cells: Mapping[str, np.ndarray], spec: PhaseDiagram) -> bool:
    """Whether v may round to 0: a gradient at x0 has a square that the dtype hardly holds.

    Then every step is watched; elsewhere the recorded ones tell (`simulate.simulate`).
    """
    gradients = jax.vmap(
        partial(problems.component_gradients, num_components=max(spec.num_components))
    )(rows.problem, rows.x0)
    sizes = np.abs(np.asarray(gradients, np.float64))
    least = sizes[sizes > 0].min(initial=np.inf) ** 2 * float(cells["one_minus_beta2"].min())
    return bool(least < _HARDLY_HELD * np.finfo(spec.dtype).tiny)


def run_cell(
    row: Row,
    cell: Mapping[str, Array],
    *,
    method: simulate.Method,
    num_steps: int,
    max_components: int,
    watch_underflow: bool = False,
) -> dict[str, Array]:
    """Simulates and judges one cell; `cell` holds 1 − β1, 1 − β2 and perhaps a stream number."""
    key = jax.random.fold_in(row.key, cell["stream"]) if "stream" in cell else row.key
    hyper = adam.Hyperparameters(cell["one_minus_beta1"], cell["one_minus_beta2"], row.epsilon)
    trace = simulate.simulate(
        row.problem,
        hyper,
        row.x0,
        row.step_size,
        key,
        method=method,
        num_steps=num_steps,
        record_every=-(-num_steps // RECORDS),
        max_components=max_components,
        controls=_controls(row, method, max_components),
        watch_underflow=watch_underflow,
    )
    return _verdict(row, cell["one_minus_beta1"], trace, method)


def run_table(
    rows: Row,
    cells: Mapping[str, Array],
    *,
    method: simulate.Method,
    num_steps: int,
    max_components: int,
    kernel: kernels.Kernel,
    watch_underflow: bool = False,
) -> dict[str, Array]:
    """`run_cell` for a table, leading axes R and (R, W), in a kernel."""
    controls, key = None, rows.key
    if "stream" in cells:
        over_columns = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
        key = jax.vmap(over_columns)(key, cells["stream"])
    if method.sampling == "with_replacement":
        controls = jax.vmap(partial(_controls, method=method, max_components=max_components))(rows)
    trace = kernels.simulate_table(
        rows.problem,
        adam.Hyperparameters(cells["one_minus_beta1"], cells["one_minus_beta2"], rows.epsilon),
        rows.x0,
        rows.step_size,
        key,
        method=method,
        num_steps=num_steps,
        record_every=-(-num_steps // RECORDS),
        max_components=max_components,
        kernel=kernel,
        controls=controls,
        watch_underflow=watch_underflow,
    )
    of_row = jax.vmap(partial(_verdict, method=method), in_axes=(None, 0, 0))
    return jax.vmap(of_row)(rows, cells["one_minus_beta1"], trace)


def _controls(row: Row, method: simulate.Method, max_components: int) -> Array | None:
    """∇f_i(x0) − ∇f(x0) along x0 − x*, for the noise of the draws; None where there is none."""
    if method.sampling != "with_replacement":
        return None
    away = row.x0 - jnp.asarray(row.problem.minimiser, row.x0.dtype)
    table = problems.component_gradients(row.problem, row.x0, max_components)
    along = jnp.sum((table * away).reshape(max_components, -1), axis=1)
    exists = jnp.arange(max_components) < row.problem.num_components
    return jnp.where(exists, along - jnp.mean(along, where=exists), 0)


def _verdict(
    row: Row, one_minus_beta1: Array, trace: simulate.Trace, method: simulate.Method
) -> dict[str, Array]:
    start = problems.gap(row.problem, row.x0)
    verdict = simulate.judge(
        trace,
        row.problem,
        step_sizes=adam.step_size(
            method.schedule, row.step_size, trace.step - 1, row.problem.num_components
        ),
        arrival=jnp.where(row.has_neighbourhood, 0, start / 10),
        neighbourhood=jnp.where(row.has_neighbourhood, start, 0),
        memory=1 / one_minus_beta1,
    )
    return {**verdict._asdict(), "underflowed": jnp.any(jnp.asarray(trace.underflowed))}


def start_distance(spec: PhaseDiagram) -> float | None:
    """|x0 − x*|; None where it is not the same for every n."""
    members = [spec.problem_at(n, spec.a[0] if spec.a else None) for n in spec.num_components]
    found = {float(np.linalg.norm(spec.x0 - np.asarray(m.minimiser))) for m in members}
    return found.pop() if len(found) == 1 else None


def rows(spec: PhaseDiagram, a: Fraction | float | None) -> Row:
    """The rows of a table, stacked; leading axis N."""
    members = [spec.problem_at(n, a) for n in spec.num_components]
    num_rows = len(members)
    return Row(
        problem=problems.stack(members, np.dtype(spec.dtype)),
        key=jnp.stack([sampling.stream_key(spec.seed)] * num_rows),
        x0=jnp.full((num_rows, *members[0].shape), spec.x0, spec.dtype),
        step_size=jnp.full(num_rows, spec.step_size, spec.dtype),
        epsilon=jnp.full(num_rows, spec.epsilon, spec.dtype),
        has_neighbourhood=jnp.array([member.problem_class().d0 > 0 for member in members]),
    )


def cells(spec: PhaseDiagram) -> dict[str, np.ndarray]:
    """The cells of a table, leading axes (N, W). 1 − β is taken in float64, then rounded."""
    if spec.paired:
        beta1, beta2 = spec.beta1, spec.beta2
    else:
        grid = np.meshgrid(spec.beta1, spec.beta2, indexing="ij")
        beta1, beta2 = (np.broadcast_to(beta.ravel(), spec.table) for beta in grid)
    found = {
        "one_minus_beta1": (1 - beta1).astype(spec.dtype),
        "one_minus_beta2": (1 - beta2).astype(spec.dtype),
    }
    if not spec.common_random_numbers:
        found["stream"] = np.arange(beta1.size, dtype=np.uint32).reshape(spec.table)
    return found


def coordinates(spec: PhaseDiagram) -> xr.Dataset:
    """The labelled axes of a diagram."""
    coords: dict[str, Any] = {
        "sampling": ("sampling", np.array(spec.samplings, dtype=object), {"long_name": "sampling"}),
        "n": ("n", np.array(spec.num_components), {"long_name": "n", "units": "1"}),
    }
    if spec.a:
        values = np.array([float(a) for a in spec.a])
        coords["a"] = ("a", values, {"long_name": "slope a", "units": "1"})
    for name, values in (("beta1", spec.beta1), ("beta2", spec.beta2)):
        dims = ("n", "sample") if spec.paired else (name,)
        symbol = {"beta1": "β1", "beta2": "β2"}[name]
        coords[name] = (dims, values, {"long_name": symbol, "units": "1"})
    return xr.Dataset(coords=coords)


def variables(spec: PhaseDiagram) -> dict[str, store.Variable]:
    """What is simulated, by name."""

    def variable(dtype: Any, long_name: str) -> store.Variable:
        return store.Variable(spec.dims, dtype, long_name)

    return {
        "gap": variable(spec.dtype, "distance |x_T − x*| at the end"),
        "late_gap": variable(spec.dtype, "mean distance over the steps [9T/10, T]"),
        "speed": variable(spec.dtype, "push away from x* per step and step size"),
        "speed_error": variable(spec.dtype, "half-width of the speed's 95 % interval"),
        "diverged": variable(bool, "diverging: pushed away from x*"),
        "undecided": variable(bool, "neither diverging nor converging within its error"),
        "underflowed": variable(bool, "v was 0 after a gradient was seen, or overflowed"),
    }


def _run_panel(
    spec: PhaseDiagram,
    panel: Panel,
    program: sweep.Program,
    results: store.Store,
    tile: tuple[int, int],
    chunk: tuple[int, int],
    bar: tqdm,
) -> None:
    names = list(variables(spec))
    inner = 1 if spec.paired else len(spec.beta2)

    def region(block: sweep.Block) -> dict[str, slice]:
        columns = slice(block.columns.start // inner, block.columns.stop // inner)
        return {**panel.region, "n": block.rows, spec.cell_dims[0]: columns}

    def write(block: sweep.Block, values: PyTree) -> None:
        part = region(block)
        sizes = dict(coordinates(spec).sizes)
        shape = [len(range(*part.get(dim, slice(None)).indices(sizes[dim]))) for dim in spec.dims]
        results.write(part, {name: value.reshape(shape) for name, value in values.items()})

    sweep.run(
        program,
        rows(spec, panel.a),
        cells(spec),
        tile=tile,
        chunk=chunk,
        write=write,
        is_done=lambda block: results.is_complete(region(block), names),
        shared=True,
        progress=bar,
    )


def add_trajectories(
    spec: PhaseDiagram, points: list[tuple[float, float]], results: store.Store, num_records: int
) -> None:
    """Adds the distance along the runs at a few (β1, β2), at about `num_records` steps, for all n.

    The variable `trajectory` has dims (sampling, n, point, step); the first a is used.
    """
    record_every = -(-spec.num_steps // num_records)
    table = rows(spec, spec.a[0] if spec.a else None)
    beta1, beta2 = np.array(points).T
    betas = [(1 - beta).astype(spec.dtype) for beta in (beta1, beta2)]

    def distances(row: Row, p: Array, q: Array, method: simulate.Method) -> tuple[Array, Array]:
        trace = simulate.simulate(
            row.problem,
            adam.Hyperparameters(p, q, row.epsilon),
            row.x0,
            row.step_size,
            row.key,
            method=method,
            num_steps=spec.num_steps,
            record_every=record_every,
            max_components=max(spec.num_components),
        )
        return trace.step, jax.vmap(partial(problems.gap, row.problem))(trace.x)

    found = []
    for scheme in spec.samplings:
        method = simulate.Method(scheme, spec.schedule, spec.initialization)
        over_points = jax.vmap(partial(distances, method=method), in_axes=(None, 0, 0))
        steps, gaps = jax.jit(jax.vmap(over_points, in_axes=(0, None, None)))(table, *betas)
        found.append(np.asarray(gaps))
    coords = {
        "step": (np.asarray(steps)[0, 0], "step k", ("step",)),
        "point_beta1": (beta1, "β1", ("point",)),
        "point_beta2": (beta2, "β2", ("point",)),
    }
    for name, (values, label, dims) in coords.items():
        results.add(name, store.Variable(dims, values.dtype, label), values)
    variable = store.Variable(
        ("sampling", "n", "point", "step"), np.dtype(spec.dtype), "distance |x_k − x*|"
    )
    results.add("trajectory", variable, np.stack(found))


def diverged_fraction(dataset: xr.Dataset) -> xr.DataArray:
    """The share of cells that diverge, for each sampling scheme and n (and a)."""
    return share_of_cells(dataset["diverged"])


def share_of_cells(truths: xr.DataArray) -> xr.DataArray:
    """The share of cells of which something is true, for each sampling scheme and n (and a)."""
    return truths.mean([dim for dim in truths.dims if dim not in ("sampling", "n", "a")])
