"""Simulates many cells in blocks; each block runs through all steps between two records.

`simulate_table` is `simulate.simulate` for a table of R rows and W columns. Between two records it
launches a kernel, which keeps the state of a block in the registers of a GPU (`mosaic`, `triton`)
or in the first-level cache of a core (`cpu`). The index streams and step sizes of those steps are
computed beforehand by the code that `simulate` uses, so all sampling schemes and schedules give the
same streams. If each cell has its own stream, they are computed in pieces that fit in memory. Any
problem is supported whose gradient and projection can be written out in single numbers, those of
the coordinates (`scalarized`); values that depend only on the component are computed beforehand
(`split`).
"""

from __future__ import annotations

import importlib
import operator
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from adam_transition import adam, sampling, simulate
from adam_transition.kernels.scalarized import NotScalarizedError
from adam_transition.kernels.split import Split, split
from adam_transition.problems import FiniteSum, stack

Kernel = Literal["cpu", "triton", "mosaic"]
"""cpu: blocks in the first-level cache. triton, mosaic: GPU kernels; see `for_gpu`."""

_DRAWS_AT_ONCE = {"cpu": 1 << 22, "triton": 1 << 26, "mosaic": 1 << 26}

_State = tuple[jax.Array, ...]  # all numbers of `simulate.Carry` except the step, each of [R, W]
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


def reason_against(problem: FiniteSum, rule: adam.UpdateRule) -> str | None:
    """Why a problem with an update rule cannot run in a kernel; None if it can.

    The kernels for GPUs may still lack a function of its gradient.
    """
    one, number = jnp.ones((1, 1), jnp.float32), np.dtype(np.float32)
    run = partial(
        simulate_table,
        method=simulate.Method(rule=rule),
        num_steps=1,
        record_every=1,
        max_components=int(np.asarray(problem.num_components)),
        kernel="cpu",
    )
    x0, key = jnp.ones((1, *problem.shape), number), sampling.stream_key(0)[None]
    cell = adam.Hyperparameters(one, one, 0.0)
    try:
        jax.eval_shape(run, stack([problem], number), cell, x0, one[0], key)
    except NotScalarizedError as error:
        return str(error)
    return None


def fastest(problem: FiniteSum, rule: adam.UpdateRule) -> Kernel | None:
    """The kernel for a problem on the devices that JAX uses; None if XLA alone can run it there.

    A user's loss may still have a function that XLA or the GPU kernel cannot compile.
    """
    if reason_against(problem, rule) is not None:
        return None
    platform = jax.default_backend()
    if platform == "cpu":
        return "cpu"
    is_scalar = problem.shape == ()
    if platform == "gpu" and is_scalar and not reason_against_gpu(jax.local_devices()[0]):
        return for_gpu()
    return None


def simulate_table(
    problem: FiniteSum,
    hyper: adam.Hyperparameters,
    x0: Float[Array, "R ..."],
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
    moves_unit: bool = False,
    interpret: bool = False,
) -> simulate.Trace:
    """Runs Adam on R × W cells; rows differ in the problem, columns in (β1, β2).

    Args:
      problem: a problem whose leaves have leading axis R.
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
      moves_unit: see `simulate.simulate`; static.
      interpret: run a GPU kernel on any device, slowly; static.

    Returns:
      The trace, of shape (R, W, records, …), as from `simulate` under two `vmap`s.

    Raises:
      ValueError: no kernel can run the problem with this rule (`reason_against`); an argument does
        not have one entry for each row; or as for `simulate.simulate`.
    """
    _check_rows(problem, hyper, max_components, x0, initial_step_size, controls)
    lengths = num_steps, record_every, max_components
    simulate.check_run(problem, hyper, initial_step_size, method, *lengths)
    dtype, (num_rows, num_columns) = x0.dtype, jnp.shape(hyper.one_minus_beta1)
    # imported here, because a machine may lack the dependencies of the other kernels
    room = importlib.import_module(f"adam_transition.kernels.{kernel}")
    block = room.cells_per_block(num_rows, num_columns)
    width = padded_width(num_columns, block, kernel)
    p, q = (_padded(jnp.asarray(value, dtype), width) for value in hyper[:2])
    epsilons = tuple(jnp.broadcast_to(jnp.asarray(v, dtype), num_rows) for v in hyper[2:])
    rows, counts = (problem, epsilons), jnp.broadcast_to(problem.num_components, num_rows)
    kind, own_streams = _kind(problem, x0, method, watch_underflow, moves_unit), key.ndim == 2
    key = _padded(key, width) if own_streams else key
    parts = _split_step(rows, method, dtype, kind, kernel=kernel, own_streams=own_streams)
    state = _numbers(_initial_state(problem, x0, method, max_components, width, kind), kind)
    of_rows = jax.vmap(parts.of_row)(rows)
    launch = partial(room.launch, interpret=True) if interpret else room.launch
    piece = record_every
    if own_streams:
        numbers = num_rows * width * max(1, parts.counts[2])
        piece = min(piece, _drawn_at_once(numbers, method, max_components, kernel))
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

        state = _begun(state, kind)
        zeros = jnp.zeros(key.shape, dtype)
        carry = state, None if controls is None else (zeros, zeros)
        if piece == record_every:
            (state, sums), _ = run_piece(carry, start)
        else:
            firsts = start + jnp.arange(0, record_every, piece, dtype=jnp.int32)
            (state, sums), _ = jax.lax.scan(run_piece, carry, firsts)
        kept = tuple(values[:, :num_columns] for values in state)
        last = _carry(_arrays(kept, kind), kind)
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
    max_components: int,
    x0: Array,
    initial_step_size: Array,
    controls: Array | None,
) -> None:
    num_rows = jnp.shape(hyper.one_minus_beta1)[0]
    for name, values, shape in (
        ("x0", x0, (num_rows, *problem.shape)),
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
    x = jax.vmap(jax.vmap(simulate.position))(last)
    scaled = None if last.level is None else last.x
    return simulate.Trace(stop, x, last.reaction, control, underflowed, scaled)


def _drawn_at_once(
    numbers: int, method: simulate.Method, max_components: int, kernel: Kernel
) -> int:
    """Steps drawn at once, at `numbers` per step; shuffling sorts two epochs more than these."""
    least = 4 * max_components if method.sampling == "random_shuffling" else 1
    return max(least, _DRAWS_AT_ONCE[kernel] // numbers)


def _by_cell(trace: simulate.Trace, shape: tuple[int, int, int]) -> simulate.Trace:
    """The records of each cell along the axis after those of the table."""

    def of_cells(values: Array) -> Array:
        last = jnp.moveaxis(values, 0, min(2, values.ndim - 1))
        return jnp.broadcast_to(last, (*shape, *values.shape[3:]))

    return jax.tree.map(of_cells, trace)


def _kind(
    problem: FiniteSum,
    x0: Array,
    method: simulate.Method,
    watch_underflow: bool,
    moves_unit: bool,
) -> simulate.Carry:
    """An example of a cell's carry: it determines which numbers a state has."""
    first, point = jax.tree.map(lambda leaf: leaf[0], problem), jnp.zeros_like(x0[0])
    if moves_unit:
        simulate.check_moving_unit(first, x0[0], method)
    kind = simulate.Carry(
        point,
        jax.tree.map(jnp.zeros_like, jax.eval_shape(method.rule.init, point)),
        point if simulate.is_constrained(first, x0[0]) else None,
        jnp.zeros((), x0.dtype) if watch_underflow else None,
        jnp.zeros((), x0.dtype) if moves_unit else None,
    )
    if any(leaf.dtype != x0.dtype for leaf in _leaves(kind)):
        raise NotScalarizedError(f"the state of the rule is not made of {x0.dtype} numbers")
    return kind


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


def _carry(
    arrays: tuple[Array, ...], kind: simulate.Carry, step: Array | None = None
) -> simulate.Carry:
    """Arrays as a carry of the same kind as `kind`; kernels do not store the step."""
    x, *others = arrays
    moments = kind.moments._replace(step=None)
    count = len(jax.tree.leaves(moments))
    moments = jax.tree.unflatten(jax.tree.structure(moments), others[:count])
    others = others[count:]
    reaction = None if kind.reaction is None else others.pop(0)
    underflowed = None if kind.underflowed is None else others.pop(0)
    level = None if kind.level is None else others.pop(0)
    moments = moments._replace(step=x if step is None else step)
    return simulate.Carry(x, moments, reaction, underflowed, level)


def _begun(state: _State, kind: simulate.Carry) -> _State:
    return _numbers(_leaves(simulate.begin_block(_carry(_arrays(state, kind), kind))), kind)


def _leaves(carry: simulate.Carry) -> tuple[Array, ...]:
    """All arrays of a carry but the step."""
    return tuple(jax.tree.leaves(carry._replace(moments=carry.moments._replace(step=None))))


def _numbers(arrays: tuple[Array, ...], kind: simulate.Carry) -> _State:
    """All numbers of a cell's arrays, in order; each keeps the leading axes."""
    return tuple(
        array[(..., *place)]
        for array, example in zip(arrays, _leaves(kind), strict=True)
        for place in np.ndindex(example.shape)
    )


def _arrays(state: _State, kind: simulate.Carry) -> tuple[Array, ...]:
    """The arrays with these numbers: the inverse of `_numbers`."""
    found, numbers = [], iter(state)
    for example in _leaves(kind):
        own = [next(numbers) for _ in range(example.size)]
        stacked = jnp.stack(own, axis=-1).reshape(*own[0].shape, *example.shape)
        found.append(stacked if example.ndim else own[0])
    return tuple(found)


def _initial_state(
    problem: FiniteSum,
    x0: Array,
    method: simulate.Method,
    max_components: int,
    width: int,
    kind: simulate.Carry,
) -> tuple[Array, ...]:
    """The arrays of a cell's carry at the start, of shape (R, width, …)."""
    start = partial(simulate.initial_state, method=method, max_components=max_components)
    moments = jax.tree.leaves(jax.vmap(start)(problem, x0)._replace(step=None))
    given = (x0, *moments)
    others = (jnp.zeros((len(x0), *one.shape), x0.dtype) for one in _leaves(kind)[len(given) :])
    return tuple(
        jnp.broadcast_to(value[:, None], (len(x0), width, *value.shape[1:]))
        for value in (*given, *others)
    )


def _split_step(
    rows: Any,
    method: simulate.Method,
    dtype: jnp.dtype,
    kind: simulate.Carry,
    *,
    kernel: Kernel,
    own_streams: bool,
) -> Split:
    """One step of one cell, split by dependencies, with the types of the first row.

    On CPUs the gradient is a function of its own. Otherwise XLA would compute it anew for every
    moment and coordinate that it enters.
    """

    def gradient(row: Any, step: Any, draw: Any, x: Array) -> Array:
        (problem, _), (_, _, *index) = row, step
        return problem.gradient(draw if own_streams else index[0], x)

    def update(
        row: Any, step: Any, draw: Any, p: Array, q: Array, gradient: Array, *cell: Array
    ) -> Any:
        del draw
        (problem, epsilons), (step_size, k, *_) = row, step
        found = simulate.apply_gradient(
            problem,
            adam.Hyperparameters(p, q, *epsilons),
            gradient,
            step_size,
            _carry(cell, kind, k),
            method=method,
        )
        return _leaves(found)

    row = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), rows)
    number, integer = (jax.ShapeDtypeStruct((), one) for one in (dtype, jnp.int32))
    shared = (number, integer) if own_streams else (number, integer, integer)
    draw = integer if own_streams else None
    first = split(gradient, row, shared, draw, kind.x)
    second = split(update, row, shared, draw, number, number, kind.x, *_leaves(kind))
    take_gradient = jax.jit(first.of_cell) if kernel == "cpu" else first.of_cell

    def of_cell(
        of_row: list[Array], of_step: list[Array], of_draw: list[Array], *cell: Array
    ) -> _State:
        handed = list(zip((of_row, of_step, of_draw), first.counts, strict=True))
        p, q, *state = cell
        found = take_gradient(*(of[:count] for of, count in handed), *state[: kind.x.size])
        return second.of_cell(*(of[count:] for of, count in handed), p, q, *found, *state)

    return Split(
        tuple(map(operator.add, first.counts, second.counts)),
        lambda *given: first.of_row(*given) + second.of_row(*given),
        lambda *given: first.of_step(*given) + second.of_step(*given),
        lambda *given: first.of_draw(*given) + second.of_draw(*given),
        of_cell,
    )
