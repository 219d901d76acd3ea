"""The problem class F^n_{L,D0,D1}(R^d): finite sums that satisfy A1 and A2."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import jax
import numpy as np
from jaxtyping import Array, Float

from adam_transition.problems.finite_sum import FiniteSum, component_gradients

Number = int | float | Fraction


def is_integer(value: object) -> bool:
    """Whether the type of a value is an integer type; 5.0 and True are not integers."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


@dataclass(frozen=True)
class ProblemClass:
    """All f = (1/n) Σ f_i with (A1) L-Lipschitz ∇f_i and (A2) Σ‖∇f_i‖² ≤ D1‖∇f‖² + D0.

    Constants may be `Fraction`s. Those of the piecewise problems are if their parameters are.

    Raises:
      ValueError: n < 1, a constant is negative or not finite, or D1 < n. If D1 < n, A2 and
        Cauchy–Schwarz bound the gradient, ‖∇f‖² ≤ D0/(n − D1), a case that no theorem here covers.
    """

    n: int
    smoothness: Number  # L
    d0: Number
    d1: Number

    def __post_init__(self) -> None:
        if not is_integer(self.n):
            raise ValueError(f"n={self.n!r} is not an integer")
        if self.n < 1:
            raise ValueError(f"n={self.n} is below 1")
        for name in ("smoothness", "d0", "d1"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise ValueError(f"{name}={value} is not a finite number that is at least 0")
        if self.d1 < self.n:
            raise ValueError(f"d1={self.d1} is below n={self.n}, which bounds all gradients")

    def contains(self, other: ProblemClass) -> bool:
        """Whether every member of `other` is a member of this class."""
        return (
            other.n == self.n
            and other.smoothness <= self.smoothness
            and other.d0 <= self.d0
            and other.d1 <= self.d1
        )

    def scaled(self, factor: Number) -> ProblemClass:
        """The class of s·f for all f in this class: L scales by s, D0 by s², D1 is unchanged."""
        if factor <= 0:
            raise ValueError(f"factor={factor} is not positive")
        return ProblemClass(self.n, self.smoothness * factor, self.d0 * factor**2, self.d1)

    def violations(
        self, problem: FiniteSum, points: Float[Array, "P ..."], *, relative: float = 1e-6
    ) -> list[str]:
        """Tests membership by evaluation, and describes each failure of A1 or A2.

        A1 is tested on every component and each pair of consecutive points, A2 at each point. An
        empty list does not prove membership; an entry disproves it, up to rounding.

        Args:
          problem: the problem to test.
          points: points, with a leading axis.
          relative: relative tolerance for rounding.
        """
        n = int(np.asarray(problem.num_components))
        if n != self.n:
            return [f"the problem has n={n} components, the class n={self.n}"]
        table = jax.vmap(lambda x: component_gradients(problem, x, n))(points)
        g = np.asarray(table, np.float64).reshape(len(points), n, -1)
        failures = []
        for point, rows in zip(np.asarray(points), g, strict=True):
            total, full = np.sum(rows**2), np.sum(rows.mean(axis=0) ** 2)
            bound = float(self.d1) * full + float(self.d0)
            if total > bound * (1 + relative):
                failures.append(f"A2 fails at x={point}: Σ‖∇f_i‖²={total:g} > {bound:g}")
        flat = np.asarray(points, np.float64).reshape(len(points), -1)
        distances = np.linalg.norm(np.diff(flat, axis=0), axis=1)
        changes = np.linalg.norm(np.diff(g, axis=0), axis=2).max(axis=1)
        bounds = float(self.smoothness) * distances
        failures += [
            f"A1 fails between points {k} and {k + 1}: a gradient moves by {changes[k]:g} "
            f"> L‖x−y‖={bounds[k]:g}"
            for k in np.flatnonzero(changes > bounds * (1 + relative) + relative)
        ]
        return failures
