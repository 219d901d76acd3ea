"""The built-in problems by name, for flags and sweeps."""

from collections.abc import Callable
from fractions import Fraction

import numpy as np

from adam_transition.problems.constructions import (
    BoundedLinear,
    Counterexample,
    counterexample,
    reddi,
    reddi_mod3,
    reddi_online,
    reddi_stochastic,
)
from adam_transition.problems.quadratics import (
    Quadratics,
    nonrealizable_quadratics,
    realizable_quadratics,
)

BuiltIn = Counterexample | BoundedLinear | Quadratics

_OF_N: dict[str, Callable[[int], BuiltIn]] = {
    "counterexample": counterexample,
    "reddi": reddi,
    "realizable_quadratics": realizable_quadratics,
    "nonrealizable_quadratics": nonrealizable_quadratics,
}
_OF_FIXED_N: dict[str, Callable[[], BoundedLinear]] = {
    "reddi_mod3": reddi_mod3,
    "reddi_online": reddi_online,
    "reddi_stochastic": reddi_stochastic,
}

PROBLEMS = (*_OF_N, *_OF_FIXED_N)
"""Names that `built_in` knows."""


def default_n(name: str) -> tuple[int, ...]:
    """The numbers of components that a diagram of this problem shows by default."""
    if name in _OF_FIXED_N:
        return (int(np.asarray(_OF_FIXED_N[name]().num_components)),)
    return (5, 10, 20, 50)


def built_in(name: str, n: int | None = None, a: Fraction | float | None = None) -> BuiltIn:
    """The built-in problem of that name.

    Args:
      name: one of `PROBLEMS`.
      n: number of components; default 20, or what the problem fixes.
      a: the counterexample's parameter; default 1/(n−1)².

    Raises:
      ValueError: an unknown name, an n or a that the problem does not allow.

    >>> built_in("reddi_online").num_components
    101
    """
    if a is not None and name != "counterexample":
        raise ValueError(f"a={a}: only the counterexample has a parameter a, not {name}")
    if name in _OF_FIXED_N:
        problem = _OF_FIXED_N[name]()
        if n not in (None, problem.num_components):
            raise ValueError(f"n={n}: {name} has n={problem.num_components}")
        return problem
    if name not in _OF_N:
        raise ValueError(f"problem={name!r} is not one of {', '.join(PROBLEMS)}")
    n = 20 if n is None else n
    if n < 1:
        raise ValueError(f"n={n} is below 1")
    return counterexample(n, a) if name == "counterexample" else _OF_N[name](n)
