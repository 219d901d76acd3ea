"""Loops whose steps do little work, on CPUs."""

from collections.abc import Callable
from typing import TypeVar

import jax
from jax.experimental.xla_metadata import set_xla_metadata
from jaxtyping import Array, Int, PyTree

T = TypeVar("T", bound=PyTree)

_MOST_BYTES = 1 << 18  # of an array of the carry


def small_loop(count: Int[Array, ""], body: Callable[[Array, T], T], carry: T) -> T:
    """`jax.lax.fori_loop(0, count, body, carry)`, on CPUs as one compiled function.

    By default XLA makes a call of its own of every operation of a step, which takes longer than the
    operation if it has some hundred numbers. These attributes are those by which XLA itself marks
    loops of few bytes; if a version renames them, results stay the same and loops become slower.

    XLA's compiler aborts if an array that enters such a loop is a constant or is never used:
    neither may hold for what `body` closes over. The carry may be both, as it is hidden behind
    barriers. XLA fails if it splits an operation between cores, as it does with some from 512 KiB
    on; so the loop of a large carry is an ordinary one.

    Args:
      count: number of steps, at least 0; traced.
      body: one step.
      carry: the state before the first step.
    """

    def run(count: Array, carry: T) -> T:
        return jax.lax.fori_loop(0, count, body, carry)

    if any(leaf.nbytes > _MOST_BYTES for leaf in jax.tree.leaves(carry)):
        return run(count, carry)
    with set_xla_metadata(xla_cpu_small_call="true", inlineable="false"):
        return jax.lax.optimization_barrier(
            jax.jit(run)(count, jax.lax.optimization_barrier(carry))
        )
