"""Trajectories of Adam on a finite sum: problem + index stream + Adam → trace.

`simulate` runs one cell. It is a pure function of arrays, so `jax.vmap` runs many cells. Map over
(β1, β2) with the key and the problem unmapped: all cells then share one index stream, which is
drawn once. Map over n and the seed outside of that. Cells do not interact.

Dimension letters are those of `adam`; here R counts the records of a run and N is `max_components`.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple, assert_never

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key
from scipy.special import stdtrit

from adam_transition import adam, checks, moving_unit, sampling
from adam_transition.problems import FiniteSum, component_gradients, gap
from adam_transition.sampling import Sampling, indices


class Method(NamedTuple):
    """The static choices of a simulation; each combination compiles one program."""

    sampling: Sampling = "cyclic"
    schedule: adam.Schedule = "inverse_sqrt"
    initialization: adam.Initialization = "zero"
    rule: adam.UpdateRule = adam.ADAM


class Trace(NamedTuple):
    """The record of one cell at R steps, of which the last is the end of the run."""

    step: Int[Array, " R"]  # number of updates made
    x: Float[Array, "R ..."]  # iterates
    reaction: Float[Array, "R ..."] | None = None  # see `Carry`; None without a constraint
    control: Float[Array, " R"] | None = None  # mean of `controls` since the last record
    underflowed: Bool[Array, " R"] | None = None  # v is 0 although m ≠ 0, or v has overflowed
    scaled: Float[Array, "R ..."] | None = None  # iterates in their own unit, if it moves


class Verdict(NamedTuple):
    """The outcome of a run: diverged, undecided, or converged if it is neither."""

    gap: Float[Array, ""]  # ‖x_T − x*‖
    late_gap: Float[Array, ""]  # mean gap over the records in [9T/10, T]
    speed: Float[Array, ""]  # push away from x* per step and step size, after T/10
    speed_error: Float[Array, ""]  # half-width of a 95 % interval; inf if the run is too short
    diverged: Bool[Array, ""]
    undecided: Bool[Array, ""]  # the run shows neither; excludes `diverged`


class Carry(NamedTuple):
    """The state of a cell between two steps."""

    x: Float[Array, "..."]
    moments: Any  # the state of the rule; for Adam an `adam.AdamState`
    reaction: Float[Array, "..."] | None  # Σ (y − project(y)) since the last record
    underflowed: Float[Array, ""] | None  # 1 if v was ever 0 although m ≠ 0; None: not watched
    level: moving_unit.Level | None  # of the unit of x and m; None if it does not move


def simulate(
    problem: FiniteSum,
    hyper: adam.Hyperparameters,
    x0: Float[ArrayLike, "..."],
    initial_step_size: ArrayLike,
    key: Key[Array, ""],
    *,
    method: Method,
    num_steps: int,
    record_every: int,
    max_components: int,
    controls: Float[Array, " N"] | None = None,
    watch_underflow: bool = False,
    moves_unit: bool = False,
) -> Trace:
    """Runs Adam for `num_steps` updates x ← project(x − η_k m/(√v + ε)) from x0.

    Args:
      problem: a finite sum with array leaves (`as_arrays`); its n may be traced.
      hyper: scalar hyperparameters; traced.
      x0: the start, of shape `problem.shape`; its dtype is the dtype of the simulation.
      initial_step_size: η0, a scalar.
      key: key of the index stream (`sampling.stream_key`); read, not consumed.
      method: sampling scheme, step-size schedule, initial moments and update rule; static.
      num_steps: T; static.
      record_every: number of steps between records; static. R = ⌈T/record_every⌉ records are kept,
        the last at T, and they determine the memory. The iterates do not depend on it.
      max_components: the largest n of any cell; static.
      controls: a number for each component. Its mean over the steps since the last record, weighted
        by the step sizes, is recorded as `control`; see `judge`.
      watch_underflow: whether `Trace.underflowed` covers every step, which costs time, or only the
        recorded steps; static.
      moves_unit: whether x may come closer to a minimiser at 0 than floats can represent; gradients
        must be proportional to x there (`moving_unit`). Static.

    Returns:
      The trace, with leading axis R.

    Raises:
      ValueError: an argument is invalid; traced values are not checked.
    """
    x0 = checked_start(problem, x0)
    check_run(problem, hyper, initial_step_size, method, num_steps, record_every, max_components)
    if moves_unit:
        check_moving_unit(problem, x0, method)
    if controls is not None and jnp.shape(controls) != (max_components,):
        raise ValueError(f"controls of shape {jnp.shape(controls)}: must be ({max_components},)")
    n = jnp.asarray(problem.num_components, jnp.int32)
    hyper = adam.Hyperparameters(*(jnp.asarray(value, x0.dtype) for value in hyper))
    eta0 = jnp.asarray(initial_step_size, x0.dtype)

    def run_block(carry: Carry, start: Array) -> tuple[Carry, Trace]:
        steps = start + jnp.arange(record_every, dtype=jnp.int32)
        stream = indices(
            method.sampling, key, start, record_every, n, max_components=max_components
        )
        step_sizes = adam.step_size(method.schedule, eta0, steps, n)

        def step(i: Array, carry: Carry) -> Carry:
            return take_step(problem, hyper, stream[i], step_sizes[i], carry, method=method)

        stop = jnp.minimum(start + record_every, num_steps)
        carry = jax.lax.fori_loop(0, stop - start, step, begin_block(carry))
        return carry, Trace(
            stop,
            position(carry),
            carry.reaction,
            mean_control(controls, stream, step_sizes, steps < stop),
            has_underflowed(carry, method),
            carry.x if moves_unit else None,
        )

    starts = jnp.arange(0, num_steps, record_every, dtype=jnp.int32)
    start = Carry(
        x0,
        initial_state(problem, x0, method, max_components),
        jnp.zeros_like(x0) if is_constrained(problem, x0) else None,
        jnp.zeros((), x0.dtype) if watch_underflow else None,
        jnp.zeros((), x0.dtype) if moves_unit else None,
    )
    return jax.lax.scan(run_block, start, starts)[1]


def checked_start(problem: FiniteSum, x0: ArrayLike) -> Array:
    """x0 as an array of floats.

    Raises:
      ValueError: x0 does not have the problem's shape, or it is not traced and not finite.
    """
    given, start = x0, jnp.asarray(x0)
    if not jnp.issubdtype(start.dtype, jnp.floating):
        start = start.astype(float)
    if start.shape != problem.shape:
        raise ValueError(f"x0 of shape {start.shape}: must be a point of shape {problem.shape}")
    # in NumPy, because jnp would trace even constants inside a jitted function
    if checks.is_concrete(given) and not np.isfinite(checks.rounded(given, start.dtype)).all():
        raise ValueError(f"x0={given}: must be finite in {start.dtype}")
    return start


def check_run(
    problem: FiniteSum,
    hyper: adam.Hyperparameters,
    initial_step_size: ArrayLike,
    method: Method,
    num_steps: int,
    record_every: int,
    max_components: int,
) -> None:
    """Checks the arguments of `simulate`; traced values are not checked.

    Args:
      problem: as for `simulate`, like the other arguments.
      hyper: values may be arrays.
      initial_step_size: η0; may be an array.
      method: the static choices.
      num_steps: T.
      record_every: number of steps between records.
      max_components: the largest n of any cell.

    Raises:
      ValueError: an argument is invalid.
    """
    if not isinstance(method, Method):
        raise ValueError(f"method={method!r}: must be a simulate.Method")
    if not isinstance(hyper, adam.Hyperparameters):
        raise ValueError(f"hyper={hyper!r}: must be an adam.Hyperparameters")
    sampling.check(method.sampling)
    adam.check_schedule(method.schedule)
    adam.check_initialization(method.initialization)
    checks.check_integer("num_steps", num_steps, 1, 2**31)
    checks.check_integer("record_every", record_every, 1, 2**31)
    checks.check_integer("max_components", max_components, 1, 2**31)
    n = problem.num_components
    if checks.is_concrete(n) and not np.all(np.asarray(n) <= max_components):
        raise ValueError(f"max_components={max_components}: must be at least n={np.max(n)}")
    for name, values in hyper._asdict().items():
        is_rate = name.startswith("one_minus")
        low, high = (0, 1) if is_rate else (0, math.inf)
        _check_numbers(name, values, low, high, open_below=is_rate)
    _check_numbers("initial_step_size", initial_step_size, 0, math.inf, open_below=True)


def check_moving_unit(problem: FiniteSum, x0: Array, method: Method) -> None:
    """Checks that the unit of a run may move, as far as no values are traced.

    Raises:
      ValueError: it may not.
    """
    minimiser = problem.minimiser
    if minimiser is not None and not checks.is_concrete(minimiser):
        minimiser = 0.0  # traced
    reason = moving_unit.reason_against(minimiser, x0.dtype, method.initialization)
    if reason is None and method.rule is not adam.ADAM:
        reason = "needs Adam's rule"
    if reason is None and is_constrained(problem, x0):
        reason = "needs a problem without a constraint"
    if reason is not None:
        raise ValueError(f"moves_unit=True: {reason}")


def _check_numbers(
    name: str, values: ArrayLike, low: float, high: float, *, open_below: bool
) -> None:
    if not checks.is_concrete(values):
        return
    array = np.asarray(values)
    inside = ((array > low) if open_below else (array >= low)) & (array <= high)
    wrong = array[~(inside & np.isfinite(array))]
    if wrong.size:
        least = "above" if open_below else "at least"
        most = f" and at most {high}" if math.isfinite(high) else ""
        raise ValueError(f"{name}={wrong.flat[0]:g}: must be finite, {least} {low}{most}")


def take_step(
    problem: FiniteSum,
    hyper: adam.Hyperparameters,
    index: ArrayLike,
    step_size: ArrayLike,
    carry: Carry,
    *,
    method: Method,
) -> Carry:
    """One update of the method's rule on component `index`: x ← project(x − η·direction).

    For Adam the direction is m/(√v + ε): this is a step of Algorithm 1.

    Args:
      problem: a finite sum with array leaves.
      hyper: scalar hyperparameters.
      index: the component.
      step_size: η.
      carry: the state before the update.
      method: its rule and initialization count; static.

    Returns:
      The state after the update.
    """
    gradient = problem.gradient(index, carry.x)
    return apply_gradient(problem, hyper, gradient, step_size, carry, method=method)


def apply_gradient(
    problem: FiniteSum,
    hyper: adam.Hyperparameters,
    gradient: Float[Array, "..."],
    step_size: ArrayLike,
    carry: Carry,
    *,
    method: Method,
) -> Carry:
    """The second half of `take_step`: the update, once the gradient is known."""
    if carry.level is None:
        corrected = method.initialization == "bias_correction"
        direction, moments = method.rule.update(
            gradient, carry.moments, hyper, bias_correction=corrected
        )
    else:
        direction, moments = moving_unit.update(gradient, carry.moments, hyper, carry.level)
    unprojected = carry.x - step_size * direction
    x = problem.project(unprojected)
    reaction = None if carry.reaction is None else carry.reaction + (unprojected - x)
    level = carry.level
    if level is not None:
        x, first, level = moving_unit.move(x, moments.first, level)
        moments = moments._replace(first=first)
    updated = Carry(x, moments, reaction, carry.underflowed, level)
    if carry.underflowed is None:
        return updated
    now = has_underflowed(updated, method)
    return updated._replace(underflowed=jnp.where(now, 1, carry.underflowed))


def position(carry: Carry) -> Float[Array, "..."]:
    """The iterate, which the carry holds in a unit that may have moved."""
    return carry.x if carry.level is None else moving_unit.in_first_unit(carry.x, carry.level)


def has_underflowed(carry: Carry, method: Method) -> Bool[Array, ""]:
    """Whether v is 0 in some coordinate although m ≠ 0, at this step or at a watched step.

    Also true if v is not finite because the square of a gradient overflows. In both cases Adam does
    not move in that coordinate.
    """
    now = method.rule.has_underflowed(carry.moments)
    return now if carry.underflowed is None else now | (carry.underflowed > 0)


def begin_block(carry: Carry) -> Carry:
    """The state after a record, with the reaction reset to 0."""
    reaction = None if carry.reaction is None else jnp.zeros_like(carry.reaction)
    return carry._replace(reaction=reaction)


def is_constrained(problem: FiniteSum, x: Array) -> bool:
    """Whether `project` does anything other than return its argument."""
    jaxpr = jax.make_jaxpr(problem.project)(x).jaxpr
    return jaxpr.outvars[0] is not jaxpr.invars[0]


def mean_control(
    controls: Array | None, stream: Array, step_sizes: Array, made: Array
) -> Array | None:
    """The mean of the controls over the steps made, weighted by the step sizes.

    Args:
      controls: a number for each component, of shape (N,), or None.
      stream: component index of each step.
      step_sizes: step size of each step.
      made: whether each step is made; a block at the end of a run may be cut short.

    Returns:
      A scalar, or None without controls.
    """
    if controls is None:
        return None
    total, weight = control_sums(controls, stream, step_sizes, made)
    return total / weight


def control_sums(
    controls: Array, stream: Array, step_sizes: Array, made: Array
) -> tuple[Array, Array]:
    """The sum of the controls weighted by the step sizes, and the sum of the weights.

    Args:
      controls: a number for each component, of shape (N,).
      stream: component index of each step.
      step_sizes: step size of each step.
      made: whether each step is made.
    """
    weights = jnp.where(made, step_sizes, 0)
    return jnp.sum(controls[stream] * weights), jnp.sum(weights)


def judge(
    trace: Trace,
    problem: FiniteSum,
    *,
    step_sizes: Float[Array | np.ndarray, " R"],
    arrival: ArrayLike = 0.0,
    neighbourhood: ArrayLike = 0.0,
    memory: ArrayLike = 1.0,
) -> Verdict:
    """Judges a run by its final distance to x* and by the push of its steps before projection.

    With η_k = η0/√k, a cell with stationary drift D (per epoch) is pushed by η_k·D/n in each step,
    away from x* or towards it. The *speed* is the push per step and step size, averaged over the
    blocks between records after T/10. The push is the growth of the gap plus, with a constraint,
    the displacement that the projection undid (`Trace.reaction`); so a run that sits on the wall
    farthest from x* has the speed of an unconstrained run. The speed estimates D/n as long as the
    table of gradients is constant. If the trace has a `control` of mean 0, the regression of the
    push on it is subtracted, which removes the main effects of the single draws.

    `speed_error` is the half-width of a 95 % interval from the means of fourteen batches of blocks
    (Student's t with 13 degrees of freedom), plus the resolution limit of any run: one step and the
    rounding of x. It is inf if a batch is shorter than an epoch or than `memory`. The speed is
    *outward* or *inward* if it is above or below 0 by more than `speed_error`. At D = 0 this occurs
    in one run in twenty, and the larger |D|, the fewer runs have the wrong sign.

    If D0 = 0, x* attracts or repels. A run

    - has *settled*, and so converged, if it is long enough for eight batches and its late gap is at
      most `arrival`, or at most one step η_T and less than half of the initial gap;
    - has *diverged* if it has not settled and its speed is outward, or if it is not finite;
    - has *converged* if its speed is inward, or if it came within `arrival` of x*, was thrown away
      (steps close to x* are unbounded if β1 > √β2), and its speed since then is not outward;
    - is *undecided* otherwise. A run with zero drift is undecided for every T.

    If D0 > 0, Adam settles beside x*; pass `neighbourhood`. A run that ends closer to x* than
    `neighbourhood` has converged, unless its speed is outward: then it has diverged if it presses
    against a wall, and is undecided otherwise. For a run that ends farther away, the speed decides
    as above.

    In several dimensions the gap may shrink while one coordinate goes to infinity. A run has not
    converged if a single coordinate is outward and more than one step η_T from that of x*: it is
    undecided, unless it has diverged by the rules above.

    A run that starts within a few steps of x* may be trapped there although D > 0; it counts as
    converged.

    Args:
      trace: the run.
      problem: the problem, with a known minimiser.
      step_sizes: η_k of the step that led to each record.
      arrival: a gap that only runs that stay close to x* reach; for example a tenth of the initial
        gap.
      neighbourhood: 0 if D0 = 0, otherwise the initial gap.
      memory: memory of m in steps, 1/(1 − β1); batches must be longer.

    Raises:
      ValueError: there is not one step size for each record.
    """
    if jnp.shape(step_sizes) != trace.step.shape:
        shapes = f"{jnp.shape(step_sizes)} for {trace.step.shape} records"
        raise ValueError(f"step_sizes of shape {shapes}: need one of each")
    end = trace.step[-1]
    gaps = jax.vmap(partial(gap, problem))(trace.x)
    is_late = trace.step >= jnp.floor(0.9 * end)
    late = jnp.mean(gaps, where=is_late)
    reaction = _outward_reaction(trace, problem, gaps)
    least_batch = jnp.maximum(jnp.asarray(problem.num_components), memory)
    num_steps = jnp.diff(trace.step).astype(gaps.dtype)
    spent = num_steps * (step_sizes[:-1] + step_sizes[1:]) / 2
    arrived = gaps <= arrival
    if trace.reaction is not None:
        arrived = jnp.zeros_like(arrived)  # a constrained run cannot be thrown away
    last_visit = jnp.max(jnp.where(arrived, jnp.arange(len(gaps)), -1))
    block = jnp.arange(len(gaps) - 1)
    inside = block >= _first(len(gaps) - 1)
    counted = inside & (block > last_visit)
    weights = jnp.where(counted, num_steps, 0)
    control = None if trace.control is None else trace.control[1:]
    speed, error = _mean_push((jnp.diff(gaps) + reaction) / spent, weights, control, least_batch)
    # resolution limit of any run: one step, and a rounding of x by half a unit in each step
    rounding = jnp.finfo(gaps.dtype).eps / 2 * jnp.max(jnp.abs(trace.x))
    first_step = jnp.max(step_sizes[:-1], where=counted, initial=0)
    unresolved = first_step + rounding * jnp.sum(num_steps, where=counted)
    total = jnp.sum(spent, where=counted)
    resolution = jnp.where(total > 0, unresolved / total, jnp.inf)
    error = error + resolution
    # in a run of few epochs, coming close to x* may be a coincidence
    is_long = jnp.sum(num_steps, where=inside) >= _LEAST_BATCHES * least_batch

    outward, inward = speed > error, speed < -error
    has_neighbourhood = jnp.asarray(neighbourhood) > 0
    start = jnp.where(has_neighbourhood, neighbourhood, 10 * jnp.asarray(arrival))
    settled = (late <= step_sizes[-1]) & ((start == 0) | (late < start / 2))
    settled = is_long & (settled | ~has_neighbourhood & (late <= arrival))
    beside = is_long & has_neighbourhood & (late < neighbourhood)
    presses = jnp.sum(reaction, where=counted) > step_sizes[-1]
    diverged = outward & ~settled & (~beside | presses)
    converged = ~outward & (inward | settled | beside | (jnp.any(arrived) & is_long))
    if trace.x[0].size > 1:
        distances, reactions = _by_coordinate(trace, problem)
        level = 1 - 0.05 / distances.shape[1]
        push = partial(_mean_push, control=control, least_batch=least_batch, level=level)
        speeds, errors = jax.vmap(push, in_axes=(1, None))(
            (jnp.diff(distances, axis=0) + reactions) / spent[:, None], weights
        )
        late_distances = jnp.mean(distances, axis=0, where=is_late[:, None])
        converged &= ~jnp.any((speeds > errors + resolution) & (late_distances > step_sizes[-1]))
    is_finite = jnp.isfinite(late)
    return Verdict(
        gaps[-1], late, speed, error, diverged | ~is_finite, is_finite & ~diverged & ~converged
    )


_BATCHES = 14  # at least, if there are enough blocks
_LEAST_BATCHES = 8  # with fewer, the error is inf


def _first(num_blocks: int) -> int:
    """The first block that counts for the speed, after a tenth of the records."""
    return (num_blocks + 1) // 10


def _mean_push(
    pushes: Float[Array, " B"],
    weights: Float[Array, " B"],
    control: Float[Array, " B"] | None,
    least_batch: ArrayLike,
    level: float = 0.95,
) -> tuple[Array, Array]:
    """The weighted mean of the pushes, and the half-width of its interval from batch means.

    Blocks of weight 0 do not count. Batches are used instead of blocks because a block need not
    consist of whole epochs, and neighbouring blocks are correlated.
    """
    counted = weights > 0
    pushes = jnp.where(counted, pushes, 0)
    total = jnp.sum(weights)
    mean = jnp.sum(weights * pushes) / total
    if control is not None:
        centred = control - jnp.sum(control * weights) / total
        squares = jnp.sum(weights * centred**2)
        slope = jnp.sum(weights * centred * pushes) / squares
        pushes = pushes - jnp.where(squares > 0, slope, 0) * control
        mean = jnp.sum(weights * pushes) / total
    inside = len(pushes) - _first(len(pushes))
    size = max(1, inside // _BATCHES)
    count = inside // size
    if count < _LEAST_BATCHES:
        return jnp.where(total > 0, mean, 0), jnp.full_like(mean, jnp.inf)
    # all cells have the same batches, which is cheap; the oldest blocks are left over
    grouped = weights[-count * size :].reshape(count, size)
    sums = jnp.sum(grouped * pushes[-count * size :].reshape(count, size), axis=1)
    sizes = jnp.sum(grouped, axis=1)
    full = sizes >= jnp.maximum(least_batch, 1)
    num_full = jnp.sum(full)
    squares = jnp.sum((sums / sizes - mean) ** 2, where=full)
    spread = jnp.sqrt(squares / jnp.maximum(num_full * (num_full - 1), 1))
    quantiles = [math.inf] * (_LEAST_BATCHES - 1)
    quantiles += [float(stdtrit(dof, level)) for dof in range(_LEAST_BATCHES - 1, count)]
    error = jnp.asarray([math.inf, *quantiles], mean.dtype)[num_full] * spread
    enough = num_full >= _LEAST_BATCHES
    return jnp.where(total > 0, mean, 0), jnp.where(enough, error, jnp.inf)


def _by_coordinate(
    trace: Trace, problem: FiniteSum
) -> tuple[Float[Array, "R d"], Float[Array, "B d"]]:
    """Each coordinate's distance to that of x*, and its outward displacement that was undone.

    The projection undoes the displacement; it is summed over the B = R − 1 blocks between records.
    """
    away = trace.x - jnp.asarray(problem.minimiser, trace.x.dtype)[None]
    away = away.reshape(len(away), -1)
    distances = jnp.abs(away)
    if trace.reaction is None:
        return distances, jnp.zeros_like(away[1:])
    far = jnp.where(distances[1:] >= distances[:-1], away[1:], away[:-1])
    return distances, jnp.sign(far) * trace.reaction[1:].reshape(len(away) - 1, away.shape[1])


def _outward_reaction(trace: Trace, problem: FiniteSum, gaps: Array) -> Array:
    """The displacement away from x* that the projection undid in each block between records."""
    if trace.reaction is None:
        return jnp.zeros_like(gaps[1:])
    # the end of the block that is farther from x* defines the outward direction: x* has none
    column = (-1,) + (1,) * (trace.x.ndim - 1)
    far = jnp.where((gaps[1:] >= gaps[:-1]).reshape(column), trace.x[1:], trace.x[:-1])
    away = far - jnp.asarray(problem.minimiser, far.dtype)[None]
    along = jnp.sum(away * trace.reaction[1:], axis=tuple(range(1, away.ndim)))
    distance = jnp.maximum(gaps[1:], gaps[:-1])
    return jnp.where(distance > 0, along / distance, 0)


def initial_state(problem: FiniteSum, x0: Array, method: Method, max_components: int) -> Any:
    """The state of the method's rule before the first update: for Adam its moments.

    Args:
      problem: a finite sum with array leaves; its n may be traced.
      x0: the start.
      method: its rule and initialization count.
      max_components: an upper bound on n; static.
    """
    match method.initialization:
        case "zero" | "bias_correction":
            return method.rule.init(x0)
        case "first_gradient":
            table = component_gradients(problem, x0, max_components)
            n = problem.num_components
            exists = (jnp.arange(max_components) < n).reshape(-1, *[1] * x0.ndim)
            full_gradient = jnp.sum(table, axis=0, where=exists) / n
            largest_square = jnp.max(table**2, axis=0, where=exists, initial=0)
            return method.rule.init_from_gradients(full_gradient, largest_square)
        case _:
            assert_never(method.initialization)
