"""NumPy's randomness from a JAX key, for what is drawn outside compiled programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Array, Key


def generator(key: Key[Array, ""]) -> np.random.Generator:
    """A generator that is a function of the key; the key is read, not consumed."""
    first, second = np.asarray(jax.random.key_data(key)).ravel()[:2].tolist()
    return np.random.Generator(np.random.Philox(key=first << 32 | second))
