"""Arguments of `advise`: each is what it should be, or one line that names it."""

import math
from collections.abc import Callable
from typing import Any


def number(name: str, value: Any, allowed: str, holds: Callable[[float], bool]) -> float:
    """One real number in its range, as a float.

    Raises:
      ValueError: naming the argument and the range: anything else.

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
    """A whole number from 1 on, as an int.

    Raises:
      ValueError: naming the argument: anything else.
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
