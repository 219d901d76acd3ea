"""Checks of arguments: integers, real numbers, and whether a dtype can represent them."""

import operator
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike


def is_concrete(*values: Any) -> bool:
    """Whether none of the values is traced, so that their numbers are known."""
    return not any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(values))


def rounded(values: ArrayLike | Sequence[float], dtype: np.dtype | type | str) -> np.ndarray:
    """The values in the dtype, ±inf beyond its range, without NumPy's CPU-dependent warning.

    >>> rounded([0.5, -1e300], np.float32).tolist()
    [0.5, -inf]
    """
    with np.errstate(over="ignore"):
        return np.asarray(values, dtype)


def check_integer(name: str, value: Any, least: int, below: int) -> None:
    """Checks that an argument is an integer in [least, below).

    Args:
      name: name of the argument, for the message.
      value: the argument.
      least: smallest allowed value.
      below: upper bound, itself not allowed.

    Raises:
      ValueError: it is not; the message names the argument.
    """
    try:
        inside = least <= operator.index(value) < below
    except TypeError:
        inside = False
    if not inside:
        raise ValueError(f"{name}={value!r}: must be an integer in [{least}, {below})")


def numbers(name: str, values: ArrayLike | Sequence[Any]) -> np.ndarray:
    """The values as an array of float64.

    Raises:
      ValueError: the values are not real numbers; the message names the argument.
    """
    try:
        dtype = np.asarray(values).dtype
        if dtype.kind not in "biu" and not jnp.issubdtype(dtype, jnp.floating):  # bfloat16 is one
            raise TypeError
        return np.asarray(values, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name}={values!r}: must be a real number, or an array of them") from None


def number(name: str, value: ArrayLike) -> float:
    """The value as a float.

    Raises:
      ValueError: the value is not one real number; the message names the argument.
    """
    array = numbers(name, value)
    if array.ndim:
        raise ValueError(f"{name} of shape {array.shape}: must be one number")
    return float(array)


def is_representable(value: float | Fraction, dtype: np.dtype | type | str) -> bool:
    """Whether a dtype represents the number to full precision: as 0 or as a normal number.

    >>> [is_representable(value, np.float32) for value in (0.0, 0.1, 1e39, 1e-40, float("nan"))]
    [True, True, False, False, False]
    """
    if value == 0:
        return True
    try:
        size = abs(float(value))
    except OverflowError:  # a Fraction
        return False
    limits = np.finfo(dtype)
    return float(limits.tiny) <= size <= float(limits.max)


def check_representable(name: str, value: float | Fraction, dtype: np.dtype | type | str) -> None:
    """Raises ValueError, which names the argument, unless `is_representable`."""
    if not is_representable(value, dtype):
        limits = np.finfo(dtype)
        raise ValueError(
            f"{name}={value}: {np.dtype(dtype).name} holds 0 and sizes from {limits.tiny:.2g} to "
            f"{limits.max:.2g}"
        )
