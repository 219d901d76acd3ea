"""The parts of the phase diagram: gap and verdict of every cell, drift, trajectories."""

import itertools
import math
from collections.abc import Mapping, Sequence
from functools import partial

import jax
import numpy as np
import xarray as xr
from jaxtyping import Array, PyTree
from tqdm import tqdm

from adam_transition import adam, problems, simulate
from adam_transition.studies.phase import backends, simulation
from adam_transition.studies.phase.diagram import (
    PhaseDiagram,
    Plane,
    coordinates,
    planes,
    precision,
    variables,
)
from adam_transition.sweeps import processes, store, sweep
from adam_transition.sweeps.study import Filled, variable

_RECORDS_OF_TRAJECTORIES = 400


def simulated(spec: PhaseDiagram, cells_per_chunk: int = 0) -> Filled:
    """Gap and verdict of every cell, simulated by all processes of a job.

    Args:
      spec: what to simulate.
      cells_per_chunk: number of cells written at once, which is what an interruption may lose; 0
        for the default. The results do not depend on it.
    """
    cells = cells_per_chunk or backends.default_cells_per_chunk(spec, backends.tile_shape(spec))
    inner = _cells_per_step(spec)
    chunk = sweep.block_shape(spec.table, cells, columns_multiple=inner)
    return Filled(
        variables(spec),
        {
            "optimizer": 1,
            "sampling": 1,
            "n": chunk[0],
            "a": 1,
            spec.cell_dims[0]: chunk[1] // inner,
        },
        partial(_simulate, spec),
    )


def _cells_per_step(spec: PhaseDiagram) -> int:
    """Columns of a table at one value of the first cell dimension."""
    return 1 if spec.paired else len(spec.beta2)


def _simulate(spec: PhaseDiagram, results: store.Store) -> None:
    # an existing store keeps its chunk sizes
    sizes = results.chunk_sizes("gap")
    chunk = sizes["n"], sizes[spec.cell_dims[0]] * _cells_per_step(spec)
    total = len(list(planes(spec))) * math.prod(spec.table)
    hidden = None if processes.is_first() else True
    bar = tqdm(total=total, unit="cell", unit_scale=True, disable=hidden, leave=False)
    with bar, precision(spec):
        cells = simulation.cells(spec)
        rows = {a: simulation.rows(spec, a) for a in spec.a or (None,)}
        watch = any(simulation.may_underflow(table, cells, spec) for table in rows.values())
        for (optimizer, scheme), table in itertools.groupby(planes(spec), key=lambda one: one[:2]):
            bar.set_description(f"{optimizer.name}, {scheme}" if spec.has_optimizers else scheme)
            program = backends.program(spec, scheme, optimizer=optimizer, watch_underflow=watch)
            for plane in table:
                _run_plane(spec, plane, program, rows[plane.a], results, chunk, bar)


def _run_plane(
    spec: PhaseDiagram,
    plane: Plane,
    program: sweep.Program,
    rows: simulation.Row,
    results: store.Store,
    chunk: tuple[int, int],
    bar: tqdm,
) -> None:
    names = list(variables(spec))
    inner = _cells_per_step(spec)

    def region(block: sweep.Block) -> dict[str, slice]:
        columns = slice(block.columns.start // inner, block.columns.stop // inner)
        return {**plane.region, "n": block.rows, spec.cell_dims[0]: columns}

    def write(block: sweep.Block, values: PyTree) -> None:
        part = region(block)
        sizes = dict(coordinates(spec).sizes)
        shape = [len(range(*part.get(dim, slice(None)).indices(sizes[dim]))) for dim in spec.dims]
        results.write(part, {name: value.reshape(shape) for name, value in values.items()})

    sweep.run(
        program,
        rows,
        simulation.cells(spec),
        tile=backends.tile_shape(spec),
        chunk=chunk,
        write=write,
        is_done=lambda block: results.is_complete(region(block), names),
        shared=True,
        progress=bar,
    )


def trajectories(
    spec: PhaseDiagram, points: Sequence[tuple[float, float]]
) -> Mapping[str, xr.Variable]:
    """Distances |x_k − x*| along runs at a few (β1, β2), for all n, the first optimiser and a.

    The variable `trajectory` has dims (sampling, n, point, step), with about 400 steps.
    """
    record_every = -(-spec.num_steps // _RECORDS_OF_TRAJECTORIES)
    beta1, beta2 = np.array(points).T
    betas = [(1 - beta).astype(spec.dtype) for beta in (beta1, beta2)]

    def distances(
        row: simulation.Row, p: Array, q: Array, method: simulate.Method
    ) -> tuple[Array, Array]:
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

    of_schemes = []
    with precision(spec):
        table = simulation.rows(spec, spec.a[0] if spec.a else None)
        for sampling in spec.samplings:
            method = simulate.Method(
                sampling, spec.schedule, spec.initialization, spec.optimizers[0].rule
            )
            over_points = jax.vmap(partial(distances, method=method), in_axes=(None, 0, 0))
            steps, gaps = jax.jit(jax.vmap(over_points, in_axes=(0, None, None)))(table, *betas)
            of_schemes.append(np.asarray(gaps))
    dims = ("sampling", "n", "point", "step")
    return {
        "step": variable("step", np.asarray(steps)[0, 0], "step k"),
        "point_beta1": variable("point", beta1, "β1"),
        "point_beta2": variable("point", beta2, "β2"),
        "trajectory": variable(dims, np.stack(of_schemes), "distance |x_k − x*|", dtype=spec.dtype),
    }
