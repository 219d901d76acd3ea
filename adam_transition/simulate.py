"""Trajectories of Adam on a finite sum: problem + index stream + Adam → trace.

`simulate` runs one cell. It is a pure function of arrays, so many cells are `jax.vmap` of it: map
over (β1, β2) with the key and the problem unmapped, and all cells share one index stream, drawn
once; map over n and the seed outside that. No cell can reach another.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from adam_transition import adam
from adam_transition.problems import FiniteSum, component_gradients, gap
from adam_transition.sampling import Sampling, indices

if TYPE_CHECKING:
    from jaxtyping import Array, ArrayLike, Bool, Float, Int, Key


class Method(NamedTuple):
    """The static choices of a simulation: one compiled program each."""

    sampling: Sampling = "cyclic"
    schedule: adam.Schedule = "inverse_sqrt"
    initialization: adam.Initialization = "zero"


class Trace(NamedTuple):
    """Iterates of one cell at R recorded steps; the last is the end of the run."""

    step: Int[Array, " R"]  # number of updates made
    x: Float[Array, "R ..."]  # iterates


class Verdict(NamedTuple):
    """Whether a run converges, from its trace."""

    gap: Float[Array, ""]  # ‖x_T − x*‖
    late_gap: Float[Array, ""]  # mean gap over the steps in [9T/10, T]
    speed: Float[Array, ""]  # growth of the gap per step and step size, after T/10
    diverged: Bool[Array, ""]


Carry = tuple[jax.Array, adam.AdamState]
"""x and the moments."""


def simulate(
    problem: FiniteSum,
    hyper: adam.Hyperparameters,
    x0: Float[Array, "..."],
    initial_step_size: ArrayLike,
    key: Key[Array, ""],
    *,
    method: Method,
    num_steps: int,
    record_every: int,
    max_components: int,
) -> Trace:
    """Runs Adam for `num_steps` updates x ← project(x − η_k m/(√v + ε)) from x0.

    Args:
      problem: a finite sum with array leaves (`as_arrays`); its n may be traced.
      hyper: β1, β2, ε; traced.
      x0: the start, of shape `problem.shape`; its dtype is that of the simulation.
      initial_step_size: η0.
      key: key of the index stream (`sampling.stream_key`); read, not consumed.
      method: sampling scheme, step-size schedule and initial moments; static.
      num_steps: T; static.
      record_every: steps between records, static: R = ⌈T/record_every⌉ records are kept, the last
        at T. Memory is that of the records. The iterates do not depend on it.
      max_components: the largest n of any cell; static.
    """
    n, x0 = jnp.asarray(problem.num_components, jnp.int32), jnp.asarray(x0)
    hyper = adam.Hyperparameters(*(jnp.asarray(value, x0.dtype) for value in hyper))
    eta0 = jnp.asarray(initial_step_size, x0.dtype)
    correct = method.initialization == "bias_correction"

    def run_block(carry: Carry, start: Array) -> tuple[Carry, Trace]:
        steps = start + jnp.arange(record_every, dtype=jnp.int32)
        stream = indices(
            method.sampling, key, start, record_every, n, max_components=max_components
        )
        step_sizes = adam.step_size(method.schedule, eta0, steps, n)

        def step(i: Array, carry: Carry) -> Carry:
            return take_step(
                problem, hyper, stream[i], step_sizes[i], carry, bias_correction=correct
            )

        stop = jnp.minimum(start + record_every, num_steps)
        carry = jax.lax.fori_loop(0, stop - start, step, carry)
        return carry, Trace(stop, carry[0])

    starts = jnp.arange(0, num_steps, record_every, dtype=jnp.int32)
    state = initial_state(problem, x0, method.initialization, max_components)
    return jax.lax.scan(run_block, (x0, state), starts)[1]


def take_step(
    problem: FiniteSum,
    hyper: adam.Hyperparameters,
    index: ArrayLike,
    step_size: ArrayLike,
    carry: Carry,
    *,
    bias_correction: bool,
) -> Carry:
    """One update of Algorithm 1 on component `index`: x ← project(x − η m/(√v + ε))."""
    x, state = carry
    gradient = problem.gradient(index, x)
    direction, state = adam.update(gradient, state, hyper, bias_correction=bias_correction)
    return problem.project(x - step_size * direction), state


def judge(
    trace: Trace,
    problem: FiniteSum,
    *,
    step_sizes: Float[Array, " R"],
    arrival: ArrayLike = 0.0,
    neighbourhood: ArrayLike = 0.0,
) -> Verdict:
    """Judges a run: it diverges if its gap grows, and it neither arrived at x* nor settled near it.

    With η_k = η0/√k a cell of stationary drift D (per epoch) moves by η_k·D/n a step, away from x*
    or towards it. The growth of the gap between records over the step sizes spent, averaged from
    T/10 on, estimates D/n with the efficiency of a mean over all those steps. A cell is

        diverged ⇔ speed ≥ 0, least gap > arrival and late gap > max(η_T, neighbourhood),

    or its gap is not finite. Within one last step η_T no run differs from one that has arrived.

    Where D0 = 0, x* repels if D > 0, so a run that was ever much nearer to x* than it began has
    not diverged: pass a tenth of the gap of x0 as `arrival`. That settles two cases that the speed
    alone does not: runs that hop about x* at the scale of their steps, and, where β1 > √β2 and
    steps are unbounded, runs that are thrown far away now and then and come back. Where D0 > 0 a
    run settles at a gap that neither grows nor vanishes: pass the gap of x0 as `neighbourhood`, and
    a run that ends nearer to x* than it began has not diverged.

    Near the boundary, |D| → 0, no finite run decides: drifts D/n below about σ/√T are hidden by
    the noise, σ² being the long-run variance of m/√v. Under cyclic order there is no noise, and
    what remains is the transient of the initial moments.

    Args:
      trace: the run.
      problem: the problem, with a known minimiser.
      step_sizes: η_k of the step that led to each record.
      arrival: see above.
      neighbourhood: see above.
    """
    end = trace.step[-1]
    gaps = jax.vmap(partial(gap, problem))(trace.x)
    late = jnp.mean(gaps, where=trace.step >= jnp.floor(0.9 * end))
    spent = jnp.diff(trace.step) * (step_sizes[:-1] + step_sizes[1:]) / 2
    counted = trace.step[:-1] >= jnp.floor(0.1 * end)
    growth = jnp.sum(jnp.diff(gaps) / spent, where=counted)
    speed = growth / jnp.maximum(jnp.sum(counted), 1)
    settled = (late <= jnp.maximum(step_sizes[-1], neighbourhood)) | (jnp.min(gaps) <= arrival)
    return Verdict(gaps[-1], late, speed, ((speed >= 0) & ~settled) | ~jnp.isfinite(late))


def initial_state(
    problem: FiniteSum, x0: Array, initialization: adam.Initialization, max_components: int
) -> adam.AdamState:
    """The moments before the first update."""
    if initialization != "first_gradient":
        return adam.init(x0)
    table = component_gradients(problem, x0, max_components)
    n = problem.num_components
    exists = (jnp.arange(max_components) < n).reshape(-1, *[1] * x0.ndim)
    full_gradient = jnp.sum(table, axis=0, where=exists) / n
    largest_square = jnp.max(table**2, axis=0, where=exists, initial=0)
    return adam.init_from_gradients(full_gradient, largest_square)
