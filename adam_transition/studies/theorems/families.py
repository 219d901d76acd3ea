"""The problems on which the theorems are tested: families of one dimension and their starts."""

import jax
import numpy as np

from adam_transition import problems
from adam_transition.problems import Member, ProblemClass
from adam_transition.sampling import stream_key

PROBLEMS = ("realizable", "symmetric", "skewed", "counterexample")
"""Noise of the families: none, of mean 0 and symmetric, one centre of n aside, the paper's."""

CENTRED = ("realizable", "counterexample")
"""Those with D0 = 0, in z = x − x*."""

START = 1.5
"""Distance from x* at which runs start."""


def member(family: str, n: int, seed: int) -> Member:
    """The problem of a family, of smoothness about 1: random where the class has many.

    Where D0 = 0 it is centred: x* = 0.
    """
    if family == "realizable":
        wanted = ProblemClass(n, 1, 0, 3 * n)
        key = jax.random.fold_in(stream_key(seed), n)
        return problems.centred(problems.random_member(wanted, "realizable_quadratics", 1, key))
    if family == "counterexample":
        made = ProblemClass(n, 1, 0, 2 * n**2).divergence_construction()
        return problems.centred(Member(made, made.problem_class(), exact=True))
    problem = noisy(family, n)
    return Member(problem, problem.problem_class(), exact=True)


def noisy(noise: str, n: int) -> problems.Quadratics:
    """Unit curvature; centres at 0 but one, or even between −1 and 1."""
    if noise == "symmetric":
        return problems.quadratics([1.0] * n, np.linspace(-1, 1, n).tolist())
    return problems.quadratics([1.0] * n, [0.0] * (n - 1) + [1.0])


def start_of(member: Member) -> np.ndarray:
    """Where its runs start."""
    return np.asarray(member.problem.minimiser, np.float64) + START
