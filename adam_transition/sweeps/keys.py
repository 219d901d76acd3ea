"""NumPy generators from JAX keys, for random numbers outside compiled programs."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key


def checked(key: Any) -> Key[Array, ""]:
    """The key as a typed key (`jax.random.key`).

    A key of `jax.random.PRNGKey` is converted and gives the same stream.

    Raises:
      ValueError: `key` is not a key, or is several keys.
    """
    if isinstance(key, jax.Array) and jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key):
        typed = key
    elif isinstance(key, jax.Array | np.ndarray) and key.dtype == np.uint32:
        try:
            typed = jax.random.wrap_key_data(jax.numpy.asarray(key))
        except (TypeError, ValueError):
            typed = None
    else:
        typed = None
    if typed is None or typed.shape != ():
        what = f"shape {typed.shape}" if typed is not None else repr(key)
        raise ValueError(f"key: needs one key, as jax.random.key(0) makes it, not {what}")
    return typed


def generator(key: Key[Array, ""]) -> np.random.Generator:
    """A generator that is a pure function of the key; the key is read, not consumed."""
    first, second = np.asarray(jax.random.key_data(checked(key))).ravel()[:2].tolist()
    return np.random.Generator(np.random.Philox(key=first << 32 | second))
