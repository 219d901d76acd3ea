"""Checks of the arguments of `advise`; errors are one line that names the argument."""

import math
from collections.abc import Callable
from typing import Any


def number(name: str, value: Any, allowed: str, holds: Callable[[float], bool]) -> float:
    """A real number in its range, as a float.

    Args:
      name: of the argument.
      value: its value.
      allowed: the range, in words.
      holds: whether a number is in the range.

    Raises:
      ValueError: naming the argument and the range, for anything else.

    >>> number("beta1", 0.9, "[0, 1)", lambda x: 0 <= x < 1)
    0.9
    """
    try:
        if isinstance(value, str | bytes) or getattr(value, "ndim", None):
            raise TypeError
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name}={_shown(value)}: needs one number in {allowed}") from None
    if not holds(found):
        raise ValueError(f"{name}={value} is outside {allowed}")
    return found


def in_unit(name: str, value: Any) -> float:
    """A number in [0, 1)."""
    return number(name, value, "[0, 1)", lambda x: 0 <= x < 1)


def not_negative(name: str, value: Any) -> float:
    """A number in [0, ∞)."""
    return number(name, value, "[0, ∞)", lambda x: 0 <= x < math.inf)


def whole(name: str, value: Any) -> int:
    """A positive integer, as an int.

    Raises:
      ValueError: naming the argument, for anything else.
    """
    try:
        if isinstance(value, bool | str | bytes) or getattr(value, "ndim", None):
            raise TypeError
        found = int(value)
        if found < 1 or found != value:
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{name}={_shown(value)}: needs a whole number from 1 on") from None
    return found


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
