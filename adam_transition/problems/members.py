"""Random members of a problem class, with their actual constants.

Quadratics have the requested constants in closed form. For regressions, L is an upper bound, and
the smallest D0 for the class's D1 comes from maximising Σ‖∇f_i‖² − D1‖∇f‖² over x from many starts:
it is computed by optimisation and not proved to be the supremum. `Member.exact` distinguishes the
two cases.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np
import scipy  # loads its submodules on first use
from jaxtyping import Array, ArrayLike, Float, Key

from adam_transition.problems._quadratics import Quadratics, quadratics
from adam_transition.problems.constructions import Counterexample, divergence_construction
from adam_transition.problems.finite_sum import (
    FiniteSum,
    as_arrays,
    component_gradients,
    full_gradient,
    objective,
)
from adam_transition.problems.problem_class import ProblemClass
from adam_transition.problems.regressions import Link, Regression
from adam_transition.sweeps import keys

Family = Literal[
    "realizable_quadratics",
    "nonrealizable_quadratics",
    "logistic",
    "geman_mcclure",
    "counterexample",
]
FAMILIES: tuple[Family, ...] = get_args(Family)

_SAMPLES = 8  # per mini-batch of a regression
_RIDGE = 0.05  # relative to the curvature of the loss
_STARTS = 8  # of each search for the smallest D0


class Member(NamedTuple):
    """A problem and a class that contains it, as verified."""

    problem: FiniteSum
    problem_class: ProblemClass
    exact: bool  # constants in closed form; else L is a bound and D0 computed by optimisation


def random_member(
    problem_class: ProblemClass, family: Family, dimension: int, key: Key[Array, ""]
) -> Member:
    """A random problem of a family in the class, with the L, D0 and D1 of the class if possible.

    Args:
      problem_class: the class.
      family: one of `FAMILIES`.
      dimension: d.
      key: read, not consumed; not used for the counterexample.

    Raises:
      ValueError: the family is unknown, or does not have this dimension or these constants;
        regressions and non-realizable quadratics need D0 > 0.
    """
    if family not in FAMILIES:
        raise ValueError(f"family={family!r} is not one of {', '.join(FAMILIES)}")
    if dimension < 1 or (family == "counterexample" and dimension != 1):
        raise ValueError(f"dimension={dimension}: {family} has dimension 1 or more, or just 1")
    needs_noise = family in ("nonrealizable_quadratics", "logistic", "geman_mcclure")
    if (problem_class.d0 > 0) < needs_noise:
        raise ValueError(f"d0={problem_class.d0}: {family} needs D0 > 0")
    if family == "counterexample":
        member = divergence_construction(problem_class)
        return Member(member, member.problem_class(), exact=True)
    generator = keys.generator(key)
    if family in ("logistic", "geman_mcclure"):
        return _regression(problem_class, family, dimension, generator)
    return _quadratics(problem_class, family, dimension, generator)


def least_d0(problem: FiniteSum, d1: float, starts: Float[np.ndarray, "S d"]) -> float:
    """sup_x Σ‖∇f_i‖² − D1‖∇f‖², at least 0, as computed by optimisation from these starts."""
    n = int(np.asarray(problem.num_components))
    with jax.enable_x64(True):
        arrays = as_arrays(problem, np.float64)

        def slack(x: np.ndarray) -> tuple[float, np.ndarray]:
            value, gradient = _slack(x, arrays, d1, n)
            return float(value), np.asarray(gradient)

        minima = [
            scipy.optimize.minimize(slack, start, jac=True, method="L-BFGS-B").fun
            for start in starts
        ]
    return max(0.0, -float(min(minima)))


@partial(jax.jit, static_argnames="n")
def _slack(x: Array, problem: FiniteSum, d1: Array | float, n: int) -> tuple[Array, Array]:
    """D1‖∇f‖² − Σ‖∇f_i‖² at x, and its gradient."""

    def slack(x: Array) -> Array:
        table = component_gradients(problem, x, n)
        return d1 * jnp.sum(table.mean(axis=0) ** 2) - jnp.sum(table**2)

    return jax.value_and_grad(slack)(x)


def _quadratics(
    target: ProblemClass, family: Family, dimension: int, generator: np.random.Generator
) -> Member:
    """Hessians Q diag(1 + t w_i) Qᵀ, where w has mean 0 and variance 1, so that D1 = n(1 + t²)."""
    n, d1 = target.n, float(target.d1)
    realizable = family == "realizable_quadratics"
    # if D0 > 0, the cross term between curvatures and residuals takes a fraction of D1
    spread = np.sqrt(d1 / n - 1) if realizable else np.sqrt((d1 / n - 1) / 2)
    w = generator.standard_normal((n, dimension))
    w -= w.mean(axis=0)
    w /= w.std(axis=0) if n > 1 else 1
    basis = (
        scipy.stats.ortho_group.rvs(dimension, random_state=generator)
        if dimension > 1
        else np.eye(1)
    )
    curvatures = 1 + spread * w
    curvatures *= float(target.smoothness) / np.abs(curvatures).max()
    hessians = np.einsum("ij,nj,kj->nik", basis, curvatures, basis)
    hessians = (hessians + hessians.transpose(0, 2, 1)) / 2
    centre = generator.standard_normal(dimension)
    if realizable:
        problem = quadratics(hessians, np.broadcast_to(centre, (n, dimension)))
        return Member(problem, _rounded_up(problem.problem_class(), target), exact=True)
    centres = generator.standard_normal((n, dimension))
    unit = float(quadratics(hessians, centres).problem_class(d1).d0)
    problem = quadratics(hessians, centre + np.sqrt(float(target.d0) / unit) * centres)
    return Member(problem, _rounded_up(problem.problem_class(d1), target), exact=True)


def _rounded_up(actual: ProblemClass, target: ProblemClass) -> ProblemClass:
    """The constants of the problem, each replaced by the target one if equal up to rounding."""
    close = [
        float(getattr(target, name))
        if np.isclose(float(getattr(actual, name)), float(getattr(target, name)), rtol=1e-9)
        else getattr(actual, name)
        for name in ("smoothness", "d0", "d1")
    ]
    return ProblemClass(target.n, *close)


def _regression(
    target: ProblemClass, link: Link, dimension: int, generator: np.random.Generator
) -> Member:
    """Mini-batches a = shared + h·own, with h chosen for the requested D0 at the given L and D1."""
    n, d1 = target.n, float(target.d1)
    shared = generator.standard_normal((1, _SAMPLES, dimension + 1))
    own = generator.standard_normal((n, _SAMPLES, dimension + 1))
    radii = np.geomspace(0.1, 10, _STARTS)[:, None]
    starts = radii * generator.standard_normal((_STARTS, dimension))

    def problem_at(spread: float) -> Regression:
        data = (shared + spread * own) / np.sqrt(1 + spread**2)
        problem = Regression(
            n, data[..., :-1] / np.sqrt(dimension), data[..., -1], 1.0, _RIDGE, None, link
        )
        return replace(problem, scale=float(target.smoothness) / problem.smoothness())

    def excess(log_spread: float) -> float:
        return least_d0(problem_at(np.exp(log_spread)), d1, starts) - float(target.d0)

    low, high = np.log(1e-4), np.log(1e2)
    if excess(high) > 0:
        high = _bisect(excess, low, high)
    problem = problem_at(np.exp(high))
    d0 = min(float(target.d0), least_d0(problem, d1, starts))
    if link == "logistic":
        problem = replace(problem, minimiser=_minimiser(problem, starts[0]))
    return Member(problem, ProblemClass(n, float(target.smoothness), d0, d1), exact=False)


def _bisect(function: Callable[[float], float], low: float, high: float) -> float:
    """Bisects between low (function ≤ 0) and high (> 0); returns the last low."""
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) <= 0 else (low, middle)
    return low


def _minimiser(problem: Regression, start: np.ndarray) -> np.ndarray:
    """The minimiser of a strongly convex f: L-BFGS, then Newton's method."""
    n = int(np.asarray(problem.num_components))
    with jax.enable_x64(True):
        value = jax.jit(lambda x: objective(problem, x, n))
        gradient = jax.jit(lambda x: full_gradient(problem, x, n))
        jacobian = jax.jit(jax.jacfwd(gradient))
        rough = scipy.optimize.minimize(
            lambda x: float(value(x)),
            start,
            jac=lambda x: np.asarray(gradient(x)),
            method="L-BFGS-B",
        )
        x = jnp.asarray(rough.x)
        for _ in range(5):
            x = x - jnp.linalg.solve(jacobian(x), gradient(x))
        return np.asarray(x)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class CentredCounterexample(Counterexample):
    """The counterexample in z = x − x*, so that floats resolve small distances to x*; z* = 0."""

    minimiser = 0.0

    def value(self, index: ArrayLike, x: Float[Array, "..."]) -> Float[Array, "..."]:
        return self._slope(index) * jnp.where(x >= 1, x - 2, 0.5 * x**2 - 1.5)

    def gradient(self, index: ArrayLike, x: Float[Array, "..."]) -> Float[Array, "..."]:
        return self._slope(index) * jnp.minimum(x, 1)


def centred(member: Member) -> Member:
    """The same problem in z = x − x*, of the same class; for quadratics and the counterexample.

    Raises:
      ValueError: the problem is of another family.
    """
    problem = member.problem
    if isinstance(problem, Quadratics):
        centres = np.asarray(problem.centres)
        # a common centre must become exactly 0
        common = (centres == centres[:1]).all()
        centres = np.zeros_like(centres) if common else centres - np.asarray(problem.minimiser)
        moved = quadratics(problem.hessians, centres)
        zero = np.zeros_like(moved.minimiser)
        return member._replace(problem=replace(moved, minimiser=zero))
    if isinstance(problem, Counterexample):
        return member._replace(
            problem=CentredCounterexample(problem.num_components, problem.a, problem.scale)
        )
    raise ValueError(f"{type(problem).__name__} has no centred form")
