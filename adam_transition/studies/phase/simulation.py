"""Simulates and judges the cells of a phase diagram: the functions that a sweep maps.

The table of the sweep has a row for each n (all rows share one index stream) and a column for each
(β1, β2). On CPUs and GPUs problems run in a kernel (`run_table`) where they can, which takes the
same `simulate.take_step` as `run_cell`.
"""

from collections.abc import Mapping
from fractions import Fraction
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from adam_transition import adam, kernels, problems, sampling, simulate
from adam_transition.studies.phase.diagram import PhaseDiagram

RECORDS = 64
"""Records per run; each window of the verdict holds six or seven of them."""

_HARDLY_NORMAL = 1e6  # times the smallest normal number of a dtype


class Row(NamedTuple):
    """The values that the cells of a row share."""

    problem: problems.FiniteSum
    key: Array  # of the index stream
    x0: Array  # [] or [d]
    step_size: Array  # [] η0
    epsilon: Array  # []
    has_neighbourhood: Array  # [] bool: D0 > 0


def may_underflow(rows: Row, cells: Mapping[str, np.ndarray], spec: PhaseDiagram) -> bool:
    """Whether v may round to 0: the square of a gradient at x0 is close to the smallest number.

    If so, v is checked at every step, else at recorded steps only (`simulate.simulate`).
    """
    gradients = jax.vmap(
        partial(problems.component_gradients, num_components=max(spec.num_components))
    )(rows.problem, rows.x0)
    sizes = np.abs(np.asarray(gradients, np.float64))
    smallest = sizes[sizes > 0].min(initial=np.inf) ** 2 * float(cells["one_minus_beta2"].min())
    return bool(smallest < _HARDLY_NORMAL * np.finfo(spec.dtype).tiny)


def run_cell(
    row: Row,
    cell: Mapping[str, Array],
    *,
    method: simulate.Method,
    num_steps: int,
    max_components: int,
    watch_underflow: bool = False,
) -> dict[str, Array]:
    """Simulates and judges one cell.

    Args:
      row: what the cell shares with its row.
      cell: `one_minus_beta1`, `one_minus_beta2`, and optionally `stream`, the number of an index
        stream of the cell's own.
      method: sampling scheme, schedule and initialization.
      num_steps: T.
      max_components: the largest n of the table.
      watch_underflow: whether to check v at every step.

    Returns:
      The fields of `simulate.Verdict`, and `underflowed`.
    """
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
    return _verdict(row, _memory(cell, method), trace, method)


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
    """`run_cell` for a table, run in a kernel.

    Args:
      rows: stacked rows, leading axis R.
      cells: as for `run_cell`, leading axes (R, W).
      method: sampling scheme, schedule and initialization.
      num_steps: T.
      max_components: the largest n of the table.
      kernel: what executes the loop.
      watch_underflow: whether to check v at every step.
    """
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
    return jax.vmap(of_row)(rows, _memory(cells, method), trace)


def _controls(row: Row, method: simulate.Method, max_components: int) -> Array | None:
    """∇f_i(x0) − ∇f(x0) along x0 − x*, a control for the noise of the draws; None if not needed."""
    if method.sampling != "with_replacement":
        return None
    away = row.x0 - jnp.asarray(row.problem.minimiser, row.x0.dtype)
    table = problems.component_gradients(row.problem, row.x0, max_components)
    along = jnp.sum((table * away[None]).reshape(max_components, -1), axis=1)
    exists = jnp.arange(max_components) < row.problem.num_components
    return jnp.where(exists, along - jnp.mean(along, where=exists), 0)


def _memory(cells: Mapping[str, Array], method: simulate.Method) -> Array:
    """Steps that the direction remembers: of Adam m's, of other rules the longer of both axes."""
    p, q = cells["one_minus_beta1"], cells["one_minus_beta2"]
    return 1 / (p if method.rule is adam.ADAM else jnp.minimum(p, q))


def _verdict(
    row: Row, memory: Array, trace: simulate.Trace, method: simulate.Method
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
        memory=memory,
    )
    return {**verdict._asdict(), "underflowed": jnp.any(jnp.asarray(trace.underflowed))}


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
    """The cells of a table, leading axes (N, W). 1 − β is computed in float64, then rounded."""
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
