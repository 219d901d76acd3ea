"""Built-in problems by name, for flags and sweeps."""

import inspect
from collections.abc import Callable
from fractions import Fraction

import numpy as np

from adam_transition.problems._quadratics import (
    Quadratics,
    nonrealizable_quadratics,
    realizable_quadratics,
)
from adam_transition.problems.constructions import (
    BoundedLinear,
    Counterexample,
    counterexample,
    reddi,
    reddi_mod3,
    reddi_online,
    reddi_stochastic,
)
from adam_transition.problems.problem_class import Number

BuiltIn = Counterexample | BoundedLinear | Quadratics

_MAKERS: dict[str, Callable[..., BuiltIn]] = {
    "counterexample": counterexample,
    "reddi": reddi,
    "realizable_quadratics": realizable_quadratics,
    "nonrealizable_quadratics": nonrealizable_quadratics,
    "reddi_mod3": reddi_mod3,
    "reddi_online": reddi_online,
    "reddi_stochastic": reddi_stochastic,
}

PROBLEMS = tuple(_MAKERS)
"""Names of the built-in problems."""


def parameters(name: str) -> tuple[str, ...]:
    """The names of the parameters of a built-in problem except n.

    >>> parameters("reddi_online")
    ('large', 'small')
    """
    return tuple(key for key in inspect.signature(_MAKERS[name]).parameters if key != "n")


def default_n(name: str) -> tuple[int, ...]:
    """The values of n in a diagram of this problem by default."""
    if _fixes_n(name):
        return (int(np.asarray(_MAKERS[name]().num_components)),)
    return (5, 10, 20, 50)


def built_in(
    name: str, n: int | None = None, a: Fraction | float | None = None, **others: Number
) -> BuiltIn:
    """The built-in problem of a given name.

    Args:
      name: one of `PROBLEMS`.
      n: number of components; default: 20, or the problem's only n.
      a: the counterexample's parameter; default: 1/(n−1)².
      others: further `parameters` of the problem, with the defaults of its function.

    Raises:
      ValueError: the name is unknown, or the problem does not have or allow a parameter.

    >>> built_in("reddi_online").num_components
    101
    >>> built_in("reddi_mod3", large=15).large
    15
    """
    if name not in _MAKERS:
        raise ValueError(f"problem={name!r} is not one of {', '.join(PROBLEMS)}")
    given = {key: value for key, value in {"a": a, **others}.items() if value is not None}
    for key, value in given.items():
        if key not in parameters(name):
            has = [problem for problem in PROBLEMS if key in parameters(problem)]
            raise ValueError(f"{key}={value}: {name} has none; only {_listed(has)}")
    if _fixes_n(name):
        problem = _MAKERS[name](**given)
        if n not in (None, problem.num_components):
            raise ValueError(f"n={n}: {name} has n={problem.num_components}")
        return problem
    n = 20 if n is None else n
    if not 1 <= n < 2**31:
        raise ValueError(f"n={n}: must lie in [1, 2³¹)")
    return _MAKERS[name](n, **given)


def _fixes_n(name: str) -> bool:
    return "n" not in inspect.signature(_MAKERS[name]).parameters


def _listed(names: list[str]) -> str:
    *others, last = names
    return f"{', '.join(others)} and {last} have it" if others else f"{last} has it"
