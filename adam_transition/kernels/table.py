"""Many cells at once, a block of them through all steps before the next.

`simulate_table` is `simulate.simulate` for a table of rows × columns. Between two records it
launches one kernel, which keeps the state of a block where it is near: in the registers of a GPU
(`gpu`) or in the first cache of a core (`cpu`). Index streams and step sizes of those steps are
computed before, by the same code as on the other path, so every sampling scheme and schedule is the
same stream. Any one-dimensional problem will do whose gradient and projection are elementwise in x:
what depends on the component alone is computed before (`split`).
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp

from adam_transition import adam, sampling, simulate
from adam_transition.kernels import cpu, gpu
from adam_transition.kernels.split import Split, split
from adam_transition.problems import FiniteSum

if TYPE_CHECKING:
    from jaxtyping import Array, Float, Key

Kernel = Literal["cpu", "gpu", "gpu_interpreted"]
"""cpu: blocks in the first cache. gpu: Pallas. gpu_interpreted: the same, slowly, for tests."""

_State = tuple[jax.Array, ...]  # leaves of `simulate.Carry` but the step, each [R, W]


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
    kernel: Kernel,
    controls: Float[Array, "R N"] | None = None,
    watch_underflow: bool = False,
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
      kernel: what runs the steps; static.
      controls: see `simulate.simulate`.
      watch_underflow: see `simulate.simulate`; static.

    Returns:
      The trace, of shape (R, W, records), as `simulate` under two `vmap`s.

    Raises:
      ValueError: a problem that is not one-dimensional; as `simulate.simulate` for the rest.
    """
    if problem.shape != ():
        raise ValueError(f"a kernel runs problems of shape (), not {problem.shape}")
    simulate.check_run(
        problem, hyper, initial_step_size, method, num_steps, record_every, max_components
    )
    dtype, (num_rows, num_columns) = x0.dtype, jnp.shape(hyper.one_minus_beta1)
    room = cpu if kernel == "cpu" else gpu
    block = room.cells_per_block(num_rows, num_columns)
    width = -(-num_columns // block) * block
    p, q = (
        jnp.pad(jnp.asarray(v, dtype), ((0, 0), (0, width - num_columns)), mode="edge")
        for v in hyper[:2]
    )
    epsilons = tuple(jnp.broadcast_to(jnp.asarray(v, dtype), num_rows) for v in hyper[2:])
    rows, counts = (problem, epsilons), jnp.broadcast_to(problem.num_components, num_rows)
    first = jax.tree.map(lambda leaf: leaf[0], problem)
    number = jnp.zeros((), dtype)
    kind = simulate.Carry(  # which numbers a state has
        number,
        adam.AdamState(number, number, number),
        number if simulate.is_constrained(first, x0[0]) else None,
        number if watch_underflow else None,
    )
    state = _initial_state(problem, x0, method, max_components, width, kind)
    parts = _split_step(rows, method, dtype, kind)
    of_rows = jax.vmap(parts.of_row)(rows)
    launch = partial(gpu.launch, interpret=True) if kernel == "gpu_interpreted" else room.launch
    over_steps = jax.vmap(parts.of_step, in_axes=(None, 0))
    mean_controls = jax.vmap(simulate.mean_control, in_axes=(0, 0, 0, None))

    def of_row_steps(
        row: Any, key: Array, n: Array, eta0: Array, start: Array
    ) -> tuple[list[Array], Array, Array]:
        steps = start + jnp.arange(record_every, dtype=jnp.int32)
        stream = sampling.indices(
            method.sampling, key, start, record_every, n, max_components=max_components
        )
        step_sizes = adam.step_size(method.schedule, eta0, steps, n)
        return over_steps(row, (stream, step_sizes, steps)), stream, step_sizes

    def run_block(state: _State, start: Array) -> tuple[_State, simulate.Trace]:
        of_steps, streams, step_sizes = jax.vmap(of_row_steps, in_axes=(0, 0, 0, 0, None))(
            rows, key, counts, initial_step_size, start
        )
        stop = jnp.minimum(start + record_every, num_steps)
        state = _leaves(simulate.begin_block(_carry(state, kind)))
        state = launch(parts, of_rows, of_steps, stop - start, p, q, state, block)
        made = start + jnp.arange(record_every, dtype=jnp.int32) < stop
        control = mean_controls(controls, streams, step_sizes, made)
        if control is not None:
            control = control[:, None]
        carry = _carry(tuple(values[:, :num_columns] for values in state), kind)
        underflowed = jax.vmap(jax.vmap(simulate.has_underflowed))(carry)
        return state, simulate.Trace(stop, carry.x, carry.reaction, control, underflowed)

    starts = jnp.arange(0, num_steps, record_every, dtype=jnp.int32)
    trace = jax.lax.scan(run_block, state, starts)[1]
    shape = (num_rows, num_columns, len(starts))
    return jax.tree.map(lambda values: jnp.broadcast_to(jnp.moveaxis(values, 0, -1), shape), trace)


def _carry(state: _State, kind: simulate.Carry, step: Array | None = None) -> simulate.Carry:
    """The state as a carry of that kind; kernels keep no step of their own."""
    x, m, v, *others = state
    reaction = None if kind.reaction is None else others.pop(0)
    underflowed = None if kind.underflowed is None else others.pop(0)
    return simulate.Carry(
        x, adam.AdamState(m, v, x if step is None else step), reaction, underflowed
    )


def _leaves(carry: simulate.Carry) -> _State:
    x, (m, v, _), *others = carry
    return x, m, v, *(values for values in others if values is not None)


def _initial_state(
    problem: FiniteSum,
    x0: Array,
    method: simulate.Method,
    max_components: int,
    width: int,
    kind: simulate.Carry,
) -> _State:
    start = partial(
        simulate.initial_state, initialization=method.initialization, max_components=max_components
    )
    moments = jax.vmap(start)(problem, x0)
    zeros = [jnp.zeros_like(x0)] * (len(_leaves(kind)) - 3)
    values = (x0, moments.first, moments.second, *zeros)
    return tuple(jnp.broadcast_to(value[:, None], (len(x0), width)) for value in values)


def _split_step(
    rows: Any, method: simulate.Method, dtype: jnp.dtype, kind: simulate.Carry
) -> Split:
    """One step of one cell, split; its types are those of the first row."""

    def step(row: Any, step: Any, p: Array, q: Array, *state: Array) -> _State:
        (problem, epsilons), (index, step_size, k) = row, step
        found = simulate.take_step(
            problem,
            adam.Hyperparameters(p, q, *epsilons),
            index,
            step_size,
            _carry(state, kind, k),
            bias_correction=method.initialization == "bias_correction",
        )
        return _leaves(found)

    row = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), rows)
    number, integer = (jax.ShapeDtypeStruct((), one) for one in (dtype, jnp.int32))
    return split(step, row, (integer, number, integer), *[number] * (2 + len(_leaves(kind))))
