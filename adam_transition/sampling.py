"""Index streams: the component drawn at each step.

A stream is a pure function of (key, step, n). So it can be entered at any step, and all cells with
the same key and n share it (common random numbers).

The randomness of step k is one block of Threefry-2x32 with counter k: `fold_in(key, k)`.
"""

from __future__ import annotations

from functools import partial
from typing import Literal, NamedTuple, assert_never, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Int, Key, UInt32

Sampling = Literal["cyclic", "random_shuffling", "shuffle_once", "with_replacement"]
"""cyclic: 0, 1, …, n−1 repeated. random_shuffling: a new uniform permutation in each epoch
(Theorem 3.3). shuffle_once: one uniform permutation, repeated. with_replacement: independent
and uniform draws (Theorem 3.1)."""

SAMPLINGS: tuple[Sampling, ...] = get_args(Sampling)


class Scheme(NamedTuple):
    """Properties of a sampling scheme."""

    title: str  # in figures
    is_random: bool  # its stationary drift is a mean over index streams
    is_permutation: bool  # every epoch visits each component once


def scheme(sampling: Sampling) -> Scheme:
    """The properties of a sampling scheme.

    If a scheme is added to `Sampling`, the type checker reports every place that must handle it.
    """
    match sampling:
        case "cyclic":
            return Scheme("cyclic", is_random=False, is_permutation=True)
        case "random_shuffling":
            return Scheme("random shuffling", is_random=True, is_permutation=True)
        case "shuffle_once":
            return Scheme("shuffled once", is_random=False, is_permutation=True)
        case "with_replacement":
            return Scheme("with replacement", is_random=True, is_permutation=False)
        case _:
            assert_never(sampling)


RANDOM: tuple[Sampling, ...] = tuple(name for name in SAMPLINGS if scheme(name).is_random)
"""The schemes whose stationary drift is a mean over index streams."""


def check(sampling: str) -> None:
    """Raises ValueError unless `sampling` is one of `SAMPLINGS`."""
    if sampling not in SAMPLINGS:
        raise ValueError(f"sampling={sampling!r} is not one of {', '.join(SAMPLINGS)}")


def stream_key(seed: int) -> Key[Array, ""]:
    """The key of an index stream. The generator is fixed, because it defines the streams."""
    return jax.random.key(seed, impl="threefry2x32")


def indices(
    sampling: Sampling,
    key: Key[Array, ""],
    start: ArrayLike,
    count: int,
    num_components: ArrayLike,
    *,
    max_components: int,
) -> Int[Array, " count"]:
    """Component indices of the steps start, …, start + count − 1.

    A draw with replacement is a 32-bit word modulo n, with a bias below n/2³². A permutation sorts
    its epoch by 64-bit words, so it is uniform except for ties, which have a probability below
    n²/2⁶⁵.

    Args:
      sampling: the sampling scheme; static.
      key: read, not consumed: equal keys give equal streams.
      start: the first step; may be traced.
      count: number of steps; static.
      num_components: n; may be traced, so that cells of different n share one program.
      max_components: an upper bound on n; static.

    Raises:
      ValueError: `sampling` is not one of `SAMPLINGS`.
    """
    check(sampling)
    n = jnp.asarray(num_components, jnp.int32)
    steps = jnp.asarray(start, jnp.int32) + jnp.arange(count, dtype=jnp.int32)
    match sampling:
        case "cyclic":
            return steps % n
        case "with_replacement":
            return (_words(key, steps)[:, 0] % n.astype(jnp.uint32)).astype(jnp.int32)
        case "shuffle_once":
            return _permutations(key, jnp.int32(0), max_components, n)[steps % n]
        case "random_shuffling":
            epoch_start = jnp.asarray(start, jnp.int32) // n * n
            # whole epochs: the first may start before `start`, the last may end after the steps
            shuffled = _permutations(key, epoch_start, count + 2 * max_components, n)
            return jax.lax.dynamic_slice_in_dim(shuffled, start - epoch_start, count)
        case _:
            assert_never(sampling)


def _permutations(
    key: Key[Array, ""], epoch_start: Int[Array, ""], count: int, n: Int[Array, ""]
) -> Int[Array, " count"]:
    """Uniform permutations of 0 … n−1, one per epoch, by one sort.

    The last epoch is truncated, and so not a permutation, unless `count` is a multiple of n.
    """
    steps = epoch_start + jnp.arange(count, dtype=jnp.int32)
    words = _words(key, steps)
    *_, shuffled = jax.lax.sort((steps // n, words[:, 0], words[:, 1], steps % n), num_keys=3)
    return shuffled


@partial(jax.vmap, in_axes=(None, 0))
def _words(key: Key[Array, ""], step: Int[Array, ""]) -> UInt32[Array, "2"]:
    return jax.random.key_data(jax.random.fold_in(key, step))
