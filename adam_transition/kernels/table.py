"""Simulates many cells in blocks; each block runs through all steps between two records.

`simulate_table` is `simulate.simulate` for a table of R rows and W columns. Between two records it
launches a kernel, which keeps the state of a block in the registers of a GPU (`mosaic`, `triton`)
or in the first-level cache of a core (`cpu`). The index streams and step sizes of those steps are
computed beforehand by the code that `simulate` uses, so all sampling schemes and schedules give the
same streams. If each cell has its own stream, they are computed in pieces that fit in memory. Any
one-dimensional problem is supported whose gradient and projection are elementwise in x; values that
depend only on the component are computed beforehand (`split`).
"""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from adam_transition import adam, sampling, simulate
from adam_transition.kernels.split import Split, split
from adam_transition.problems import FiniteSum

Kernel = Literal["cpu", "triton", "mosaic"]
"""cpu: blocks in the first-level cache. triton, mosaic: GPU kernels; see `for_gpu`."""

_DRAWS_AT_ONCE = {"cpu": 1 << 22, "triton": 1 << 26, "mosaic": 1 << 26}

_State = tuple[jax.Array, ...]  # leaves of `simulate.Carry` except the step, each of [R, W]
_Sums = tuple[jax.Array, jax.Array] | None  # `simulate.control_sums` since the last record


def for_gpu() -> Kernel:
    """The GPU kernel for the installed version of JAX: `mosaic` from 0.11 on, else `triton`."""
    return "mosaic" if jax.version.__version_info__ >= (0, 11) else "triton"


def reason_against_gpu(device: jax.Device) -> str | None:
    """Why the GPU kernel cannot run on a device; None if it can."""
    kernel = for_gpu()
    least, name = {"mosaic": (9.0, "Hopper"), "triton": (8.0, "Ampere")}[kernel]
    capability = getattr(device, "compute_capability", None)  # a name on AMD GPUs
    try:
        found = float(str(capability))
    except ValueError:
        found = 0.0
    if device.platform != "gpu" or found < least:
        here = f"{device.device_kind} of compute capability {capability}"
        return f"needs an NVIDIA GPU, {name} or newer ({least}); here is {here}"
    return None


def has_flat_state(rule: adam.UpdateRule) -> bool:
    """Whether a rule's state is made of single numbers of the type of the parameters.

    Others run without a kernel.
    """
    number = jax.ShapeDtypeStruct((), jnp.float32)
    state = jax.eval_shape(rule.init, number)._replace(step=None)
    return all((one.shape, one.dtype) == ((), number.dtype) for one in jax.tree.leaves(state))


def simulate_table(
    problem: FiniteSum,
    hyper: adam.Hyperparameters,
    x0: Float[Array, " R"],
    initial_step_size: Float[Array, " R"],
    key: Key[Array, "*RW"],
    *,
    method: simulate.Method,
    num_steps: int,
    record_every: int,
    max_components: int,
    kernel: Kernel,
    controls: Float[Array, "R N"] | None = None,
    watch_underflow: bool = False,
    interpret: bool = False,
) -> simulate.Trace:
    """Runs Adam on R × W cells; rows differ in the problem, columns in (β1, β2).

    Args:
      problem: a problem of shape () whose leaves have leading axis R.
      hyper: 1 − β1 and 1 − β2 of shape (R, W); ε and ε_root of shape (R,) or ().
      x0: starts; their dtype is the dtype of the simulation.
      initial_step_size: η0 of each row.
      key: keys of the index streams, of shape (R,), or (R, W) if each cell has its own stream.
      method: see `simulate.simulate`.
      num_steps: T; static.
      record_every: number of steps between records; static.
      max_components: the largest n; static.
      kernel: the kernel that runs the steps; static.
      controls: see `simulate.simulate`; here one row of controls for each row.
      watch_underflow: see `simulate.simulate`; static.
      interpret: run a GPU kernel on any device, slowly; static.

    Returns:
      The trace, of shape (R, W, records), as from `simulate` under two `vmap`s.

    Raises:
      ValueError: the problem is not one-dimensional; the state of the rule is not flat; an argument
        does not have one entry for each row; or as for `simulate.simulate`.
    """
    _check_rows(problem, hyper, method, max_components, x0, initial_step_size, controls)
    run = num_steps, record_every, max_components
    simulate.check_run(problem, hyper, initial_step_size, method, *run)
    dtype, (num_rows, num_columns) = x0.dtype, jnp.shape(hyper.one_minus_beta1)
    # imported here, because a machine may lack the dependencies of the other kernels
    room = importlib.import_module(f"adam_transition.kernels.{kernel}")
    block = room.cells_per_block(num_rows, num_columns)
    width = padded_width(num_columns, block, kernel)
    p, q = (_padded(jnp.asarray(value, dtype), width) for value in hyper[:2])
    epsilons = tuple(jnp.broadcast_to(jnp.asarray(v, dtype), num_rows) for v in hyper[2:])
    rows, counts = (problem, epsilons), jnp.broadcast_to(problem.num_components, num_rows)
    kind = _kind(problem, x0, method, watch_underflow)
    state = _initial_state(problem, x0, method, max_components, width, kind)
    own_streams = key.ndim == 2
    key = _padded(key, width) if own_streams else key
    parts = _split_step(rows, method, dtype, kind, own_streams=own_streams)
    of_rows = jax.vmap(parts.of_row)(rows)
    launch = partial(room.launch, interpret=True) if interpret else room.launch
    piece = record_every
    if own_streams:
        longest = _DRAWS_AT_ONCE[kernel] // (num_rows * width)
        piece = min(record_every, max(_shortest_piece(method, max_components), longest))
    of_row_steps = partial(_steps_of_row, parts, method, piece, max_components)
    over_rows = jax.vmap(of_row_steps, in_axes=(0, 0, 0, 0, 0, None, None))

    def run_block(state: _State, start: Array) -> tuple[_State, simulate.Trace]:
        stop = jnp.minimum(start + record_every, num_steps)

        def run_piece(
            carry: tuple[_State, _Sums], first: Array
        ) -> tuple[tuple[_State, _Sums], None]:
            state, sums = carry
            of_steps, of_draws, more = over_rows(
                rows, key, counts, initial_step_size, controls, first, stop
            )
            count = jnp.clip(stop - first, 0, piece)
            state = launch(parts, of_rows, of_steps, of_draws, count, p, q, state, block)
            return (state, jax.tree.map(jnp.add, sums, more)), None

        state = _leaves(simulate.begin_block(_carry(state, kind)))
        zeros = jnp.zeros(key.shape, dtype)
        carry = state, None if controls is None else (zeros, zeros)
        if piece == record_every:
            (state, sums), _ = run_piece(carry, start)
        else:
            firsts = start + jnp.arange(0, record_every, piece, dtype=jnp.int32)
            (state, sums), _ = jax.lax.scan(run_piece, carry, firsts)
        last = _carry(tuple(values[:, :num_columns] for values in state), kind)
        return state, _record(last, sums, stop, method, own_streams=own_streams)

    starts = jnp.arange(0, num_steps, record_every, dtype=jnp.int32)
    trace = jax.lax.scan(run_block, state, starts)[1]
    return _by_cell(trace, (num_rows, num_columns, len(starts)))


def padded_width(num_columns: int, block: int, kernel: Kernel) -> int:
    """The least multiple of `block` that holds a row; on a GPU the least one that is larger.

    There every measured table without a padded column took twice the time (H200, JAX 0.11.2: 5.1e11
    updates per second at 2^20 cells, 9.9e11 at 1e6 and 9.6e11 at 1.1e6; so for other blocks). XLA
    most likely clones the kernel to let one copy write straight into the records.
    """
    blocks = num_columns // block + 1 if kernel != "cpu" else -(-num_columns // block)
    return blocks * block


def _check_rows(
    problem: FiniteSum,
    hyper: adam.Hyperparameters,
    method: simulate.Method,
    max_components: int,
    x0: Array,
    initial_step_size: Array,
    controls: Array | None,
) -> None:
    if not has_flat_state(method.rule):
        raise ValueError("method: the state of its rule is not made of single numbers")
    if problem.shape != ():
        raise ValueError(f"a kernel runs problems of shape (), not {problem.shape}")
    num_rows = jnp.shape(hyper.one_minus_beta1)[0]
    for name, values, shape in (
        ("x0", x0, (num_rows,)),
        ("initial_step_size", initial_step_size, (num_rows,)),
        ("controls", controls, (num_rows, max_components)),
    ):
        if values is not None and jnp.shape(values) != shape:
            raise ValueError(f"{name} of shape {jnp.shape(values)}: must be {shape}")


def _record(
    last: simulate.Carry, sums: _Sums, stop: Array, method: simulate.Method, *, own_streams: bool
) -> simulate.Trace:
    """What is recorded of the cells after a block of steps."""
    control = None
    if sums is not None:
        mean = sums[0] / sums[1]
        control = mean[:, : last.x.shape[1]] if own_streams else mean[:, None]
    has_underflowed = partial(simulate.has_underflowed, method=method)
    underflowed = jax.vmap(jax.vmap(has_underflowed))(last)
    return simulate.Trace(stop, last.x, last.reaction, control, underflowed)


def _shortest_piece(method: simulate.Method, max_components: int) -> int:
    """Steps drawn at once: shuffling sorts two epochs more than these."""
    return 4 * max_components if method.sampling == "random_shuffling" else 1


def _by_cell(trace: simulate.Trace, shape: tuple[int, int, int]) -> simulate.Trace:
    """The records of each cell along its last axis."""
    return jax.tree.map(lambda values: jnp.broadcast_to(jnp.moveaxis(values, 0, -1), shape), trace)


def _kind(
    problem: FiniteSum, x0: Array, method: simulate.Method, watch_underflow: bool
) -> simulate.Carry:
    """An example of a cell's carry: it determines which numbers a state has."""
    first, number = jax.tree.map(lambda leaf: leaf[0], problem), jnp.zeros((), x0.dtype)
    return simulate.Carry(
        number,
        jax.tree.map(lambda _: number, jax.eval_shape(method.rule.init, number)),
        number if simulate.is_constrained(first, x0[0]) else None,
        number if watch_underflow else None,
    )


def _steps_of_row(
    parts: Split,
    method: simulate.Method,
    count: int,
    max_components: int,
    row: Any,
    key: Array,
    n: Array,
    eta0: Array,
    control: Array | None,
    start: Array,
    stop: Array,
) -> tuple[list[Array], list[Array], _Sums]:
    """The numbers of a row's steps and draws, and the sums of its controls.

    `key` has shape () or, if each cell has its own stream, (W,).
    """
    steps = start + jnp.arange(count, dtype=jnp.int32)
    step_sizes = adam.step_size(method.schedule, eta0, steps, n)
    of_key = partial(
        sampling.indices,
        method.sampling,
        start=start,
        count=count,
        num_components=n,
        max_components=max_components,
    )
    of_controls = simulate.control_sums
    if key.ndim:
        streams = jax.vmap(of_key, out_axes=1)(key)
        of_controls = jax.vmap(of_controls, in_axes=(None, 1, None, None))
        shared: tuple[Array, ...] = (step_sizes, steps)
        of_cells = jax.vmap(parts.of_draw, in_axes=(None, None, 0))
        of_draws = jax.vmap(of_cells, in_axes=(None, 0, 0))(row, shared, streams)
    else:
        streams, of_draws = of_key(key), []
        shared = (step_sizes, steps, streams)
    of_steps = jax.vmap(parts.of_step, in_axes=(None, 0))(row, shared)
    made = steps < stop
    sums = None if control is None else of_controls(control, streams, step_sizes, made)
    return of_steps, of_draws, sums


def _padded(values: Array, width: int) -> Array:
    """Values padded to (R, width) by repeating the last column; results there are unused."""
    return values[:, jnp.minimum(jnp.arange(width), values.shape[1] - 1)]


def _carry(state: _State, kind: simulate.Carry, step: Array | None = None) -> simulate.Carry:
    """The state as a carry of the same kind as `kind`; kernels do not store the step."""
    x, *others = state
    moments = kind.moments._replace(step=None)
    count = len(jax.tree.leaves(moments))
    moments = jax.tree.unflatten(jax.tree.structure(moments), others[:count])
    others = others[count:]
    reaction = None if kind.reaction is None else others.pop(0)
    underflowed = None if kind.underflowed is None else others.pop(0)
    return simulate.Carry(
        x, moments._replace(step=x if step is None else step), reaction, underflowed
    )


def _leaves(carry: simulate.Carry) -> _State:
    """All numbers of a carry but the step."""
    return tuple(jax.tree.leaves(carry._replace(moments=carry.moments._replace(step=None))))


def _initial_state(
    problem: FiniteSum,
    x0: Array,
    method: simulate.Method,
    max_components: int,
    width: int,
    kind: simulate.Carry,
) -> _State:
    start = partial(simulate.initial_state, method=method, max_components=max_components)
    moments = jax.tree.leaves(jax.vmap(start)(problem, x0)._replace(step=None))
    zeros = [jnp.zeros_like(x0)] * (len(_leaves(kind)) - 1 - len(moments))
    values = (x0, *moments, *zeros)
    return tuple(jnp.broadcast_to(value[:, None], (len(x0), width)) for value in values)


def _split_step(
    rows: Any, method: simulate.Method, dtype: jnp.dtype, kind: simulate.Carry, *, own_streams: bool
) -> Split:
    """One step of one cell, split by dependencies, with the types of the first row."""

    def step(row: Any, step: Any, draw: Any, p: Array, q: Array, *state: Array) -> _State:
        (problem, epsilons), (step_size, k, *index) = row, step
        found = simulate.take_step(
            problem,
            adam.Hyperparameters(p, q, *epsilons),
            draw if own_streams else index[0],
            step_size,
            _carry(state, kind, k),
            method=method,
        )
        return _leaves(found)

    row = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), rows)
    number, integer = (jax.ShapeDtypeStruct((), one) for one in (dtype, jnp.int32))
    shared = (number, integer) if own_streams else (number, integer, integer)
    draw = integer if own_streams else None
    return split(step, row, shared, draw, *[number] * (2 + len(_leaves(kind))))
