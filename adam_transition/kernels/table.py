"""All steps of many cells in one kernel: the state of a cell never leaves its registers.

`simulate_table` is `simulate.simulate` for a table of rows × columns at once. Between two records
it launches one Pallas kernel; index streams and step sizes of those steps are computed by XLA
before, by the same code, so every sampling scheme and schedule is the same stream as on the other
path. Any one-dimensional problem will do whose gradient and projection are elementwise in x: what
depends on the component alone is computed before (`split`).

The kernel goes through Pallas' Triton route. Mosaic GPU, the default on CUDA in JAX 0.10, lacks the
root in loops.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float, Key

from adam_transition import adam, sampling, simulate
from adam_transition.kernels.split import Split, split
from adam_transition.problems import FiniteSum

_LEAST_BLOCK, _MOST_BLOCK = 32, 512
_BLOCKS_WANTED = 512  # to fill a large GPU
_CELLS_PER_WARP = 128  # four for each lane, whose roots and divisions overlap

_State = tuple[Array, Array, Array]  # x, m, v of [R, W]


def simulate_table(
    problem: FiniteSum,
    hyper: adam.Hyperparameters,
    x0: Float[Array, " R"],
    initial_step_size: Float[Array, " R"],
    key: Key[Array, " R"],
    *,
    method: simulate.Method,
    num_steps: int,
    record_every: int,
    max_components: int,
    interpret: bool = False,
) -> simulate.Trace:
    """Runs Adam on R × W cells; rows differ in problem and stream, columns in (β1, β2).

    Args:
      problem: leaves with leading axis R; of shape ().
      hyper: 1 − β1 and 1 − β2 of shape (R, W); ε and ε' of shape (R,) or ().
      x0: starts; their dtype is that of the simulation.
      initial_step_size: η0.
      key: keys of the index streams.
      method: see `simulate.simulate`, as the arguments that follow.
      num_steps: T; static.
      record_every: steps between records; static.
      max_components: the largest n; static.
      interpret: run the kernel on any backend, slowly; for tests.

    Returns:
      The trace: step (R, W, records) and x (R, W, records), as `simulate` under two `vmap`s.

    Raises:
      ValueError: a problem that is not one-dimensional.
    """
    if problem.shape != ():
        raise ValueError(f"a kernel runs problems of shape (), not {problem.shape}")
    dtype, (num_rows, num_columns) = x0.dtype, jnp.shape(hyper.one_minus_beta1)
    block = _cells_per_block(num_rows * num_columns)
    width = -(-num_columns // block) * block
    p, q = (
        jnp.pad(jnp.asarray(v, dtype), ((0, 0), (0, width - num_columns)), mode="edge")
        for v in hyper[:2]
    )
    epsilons = tuple(jnp.broadcast_to(jnp.asarray(v, dtype), num_rows) for v in hyper[2:])
    rows, counts = (problem, epsilons), jnp.broadcast_to(problem.num_components, num_rows)
    state = _initial_state(problem, x0, method, max_components, width)
    parts = _split_step(rows, method, dtype)
    of_rows = jax.vmap(parts.of_row)(rows)
    over_steps = jax.vmap(parts.of_step, in_axes=(None, 0))

    def of_row_steps(row: Any, key: Array, n: Array, eta0: Array, start: Array) -> list[Array]:
        steps = start + jnp.arange(record_every, dtype=jnp.int32)
        stream = sampling.indices(
            method.sampling, key, start, record_every, n, max_components=max_components
        )
        step_sizes = adam.step_size(method.schedule, eta0, steps, n)
        return over_steps(row, (stream, step_sizes, steps))

    def run_block(state: _State, start: Array) -> tuple[_State, simulate.Trace]:
        of_steps = jax.vmap(of_row_steps, in_axes=(0, 0, 0, 0, None))(
            rows, key, counts, initial_step_size, start
        )
        stop = jnp.minimum(start + record_every, num_steps)
        state = _launch(parts, of_rows, of_steps, stop - start, p, q, state, block, interpret)
        return state, simulate.Trace(stop, state[0][:, :num_columns])

    starts = jnp.arange(0, num_steps, record_every, dtype=jnp.int32)
    trace = jax.lax.scan(run_block, state, starts)[1]
    x = jnp.moveaxis(trace.x, 0, -1)
    return simulate.Trace(jnp.broadcast_to(trace.step, x.shape), x)


def _initial_state(
    problem: FiniteSum, x0: Array, method: simulate.Method, max_components: int, width: int
) -> _State:
    start = partial(
        simulate.initial_state, initialization=method.initialization, max_components=max_components
    )
    moments = jax.vmap(start)(problem, x0)
    values = (x0, moments.first, moments.second)
    x, m, v = (jnp.broadcast_to(value[:, None], (len(x0), width)) for value in values)
    return x, m, v


def _split_step(rows: Any, method: simulate.Method, dtype: jnp.dtype) -> Split:
    """One step of one cell, split; its types are those of the first row."""

    def step(row: Any, step: Any, p: Array, q: Array, x: Array, m: Array, v: Array) -> _State:
        (problem, epsilons), (index, step_size, k) = row, step
        x, state = simulate.take_step(
            problem,
            adam.Hyperparameters(p, q, *epsilons),
            index,
            step_size,
            (x, adam.AdamState(m, v, k)),
            bias_correction=method.initialization == "bias_correction",
        )
        return x, state.first, state.second

    row = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), rows)
    number, integer = (jax.ShapeDtypeStruct((), kind) for kind in (dtype, jnp.int32))
    return split(step, row, (integer, number, integer), *[number] * 5)


def _launch(
    parts: Split,
    of_rows: list[Array],
    of_steps: list[Array],
    count: Array,
    p: Array,
    q: Array,
    state: _State,
    block: int,
    interpret: bool,
) -> _State:
    """Runs `count` steps of all cells, of_steps holding at least as many."""
    cells = pl.BlockSpec((None, block), lambda row, column: (row, column))
    alone = pl.BlockSpec((None, 1), lambda row, _: (row, 0))
    once = pl.BlockSpec((1,), lambda *_: (0,))
    stream = [pl.BlockSpec((None, values.shape[1]), lambda row, _: (row, 0)) for values in of_steps]
    shape = jax.ShapeDtypeStruct(p.shape, p.dtype)
    warps = max(1, block // _CELLS_PER_WARP)
    found = pl.pallas_call(
        partial(_kernel, parts, len(of_rows), len(of_steps)),
        grid=(p.shape[0], p.shape[1] // block),
        in_specs=[once, *[alone] * len(of_rows), *stream, *[cells] * 5],
        out_specs=[cells] * 3,
        out_shape=[shape] * 3,
        compiler_params=triton.CompilerParams(num_warps=warps, num_stages=1),
        interpret=interpret,
    )(count[None], *[values[:, None] for values in of_rows], *of_steps, p, q, *state)
    x, m, v = found
    return x, m, v


def _kernel(parts: Split, num_rows: int, num_steps: int, count: Any, *refs: Any) -> None:
    """References: the count, values of the row and of each step, p, q, x, m, v; out x, m, v."""
    of_row = [ref[0] for ref in refs[:num_rows]]
    step_refs = refs[num_rows : num_rows + num_steps]
    p, q, x, m, v, x_out, m_out, v_out = refs[num_rows + num_steps :]
    p, q = p[...], q[...]
    # shared values have no axis, a cell's have that of the block
    of_cells = jax.vmap(parts.of_cell, in_axes=(None, None, 0, 0, 0, 0, 0))

    def body(k: Array, state: _State) -> _State:
        return of_cells(of_row, [ref[k] for ref in step_refs], p, q, *state)

    state = jax.lax.fori_loop(0, count[0], body, (x[...], m[...], v[...]))
    x_out[...], m_out[...], v_out[...] = state


def _cells_per_block(num_cells: int) -> int:
    """A power of two: few cells are spread over the whole GPU, many share what a step loads."""
    wanted = 1 << (max(1, num_cells // _BLOCKS_WANTED) - 1).bit_length()
    return min(max(wanted, _LEAST_BLOCK), _MOST_BLOCK)
