"""The problems on which the theorems are tested: one-dimensional families and their starts."""

import jax
import numpy as np

from adam_transition import problems
from adam_transition.problems import Member, ProblemClass
from adam_transition.sampling import stream_key

PROBLEMS = ("realizable", "symmetric", "skewed", "counterexample")
"""Families of problems: no noise at x*, symmetric noise, skewed noise (one centre of n apart from
the others), and the paper's counterexample."""

CENTRED = ("realizable", "counterexample")
"""The families with D0 = 0, in the coordinate z = x − x*."""

START = 1.5
"""Initial distance from x*."""


def member(family: str, n: int, seed: int) -> Member:
    """The problem of a family, of smoothness about 1; a random member for "realizable".

    Problems with D0 = 0 are centred: x* = 0.
    """
    if family == "realizable":
        problem_class = ProblemClass(n, 1, 0, 3 * n)
        key = jax.random.fold_in(stream_key(seed), n)
        return problems.centred(
            problems.random_member(problem_class, "realizable_quadratics", 1, key)
        )
    if family == "counterexample":
        made = problems.divergence_construction(ProblemClass(n, 1, 0, 2 * n**2))
        return problems.centred(Member(made, made.problem_class(), exact=True))
    problem = noisy(family, n)
    return Member(problem, problem.problem_class(), exact=True)


def noisy(noise: str, n: int) -> problems.Quadratics:
    """Quadratics of unit curvature, centred evenly in [−1, 1] ("symmetric") or at 0, …, 0, 1."""
    if noise == "symmetric":
        return problems.quadratics([1.0] * n, np.linspace(-1, 1, n).tolist())
    return problems.quadratics([1.0] * n, [0.0] * (n - 1) + [1.0])


def start_of(member: Member) -> np.ndarray:
    """The point at which runs on a member start."""
    return np.asarray(np.asarray(member.problem.minimiser, np.float64) + START)
