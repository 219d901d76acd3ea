"""NumPy's randomness from a JAX key, for what is drawn outside compiled programs."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Key


def checked(key: Any) -> Key[Array, ""]:
    """The key as one of `jax.random.key`; one of `jax.random.PRNGKey` becomes the same stream.

    Raises:
      ValueError: anything else, or several keys.
    """
    if isinstance(key, jax.Array) and jax.dtypes.issubdtype(key.dtype, jax.dtypes.prng_key):
        found = key
    elif isinstance(key, jax.Array | np.ndarray) and key.dtype == np.uint32:
        try:
            found = jax.random.wrap_key_data(jax.numpy.asarray(key))
        except (TypeError, ValueError):
            found = None
    else:
        found = None
    if found is None or found.shape != ():
        what = f"shape {found.shape}" if found is not None else repr(key)
        raise ValueError(f"key: needs one key, as jax.random.key(0) makes it, not {what}")
    return found


def generator(key: Key[Array, ""]) -> np.random.Generator:
    """A generator that is a function of the key; the key is read, not consumed."""
    first, second = np.asarray(jax.random.key_data(checked(key))).ravel()[:2].tolist()
    return np.random.Generator(np.random.Philox(key=first << 32 | second))
