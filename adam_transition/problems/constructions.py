"""Piecewise constructions: the paper's counterexample and the examples of Reddi et al.

Reddi et al. is arXiv:1904.09237. In `Counterexample` and `BoundedLinear`, component 0 has a large
positive slope and the others have small negative slopes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from adam_transition.problems.finite_sum import Leaf
from adam_transition.problems.problem_class import Number, ProblemClass, is_integer


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Counterexample:
    """The paper's construction on which Adam diverges for small β2; made with `counterexample`.

    f_0(x) = c·x for x ≥ −1 and (c/2)(x+2)² − 3c/2 for x < −1, with c = 1 + (n−1)a. The others have
    the same shape with slope −a. The slopes sum to 1, the minimiser is −2, D0 = 0, and gradients
    are unbounded.
    """

    num_components: Leaf  # [] n
    a: Leaf  # [] minus the slope of the other components, > 0
    scale: Leaf = 1  # [] factor of f; Adam is invariant to it at ε = 0

    shape = ()
    minimiser = -2.0

    def value(self, index: ArrayLike, x: Float[Array, "..."]) -> Float[Array, "..."]:
        return self._slope(index) * unit_value(x)

    def gradient(self, index: ArrayLike, x: Float[Array, "..."]) -> Float[Array, "..."]:
        return self._slope(index) * _unit_gradient(x)

    def project(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        return x

    def problem_class(self) -> ProblemClass:
        """The smallest class: L = c·scale, D0 = 0, D1 = n²(c² + (n−1)a²).

        The constants are exact if a and the scale are Fractions.
        """
        n, a = int(np.asarray(self.num_components)), _concrete(self.a)
        smoothness = _concrete(self.scale) * large_slope(n, a)
        return ProblemClass(n, smoothness, 0, counterexample_d1(n, a))

    def constant_gradients(self) -> Float[np.ndarray, " n"]:
        """∇f_i for x ≥ −1, where they do not depend on x; float64, of shape (n,)."""
        n, a = int(np.asarray(self.num_components)), float(_concrete(self.a))
        slopes = np.full(n, -a)
        slopes[0] = large_slope(n, a)
        return float(_concrete(self.scale)) * slopes

    def _slope(self, index: ArrayLike) -> Array:
        a = _real(self.a)
        return _real(self.scale) * jnp.where(index == 0, large_slope(self.num_components, a), -a)


N = TypeVar("N", bound=Any)  # numbers of any kind: exact, traced or arrays


def large_slope(n: Any, a: N) -> N:
    """The slope c = 1 + (n−1)a, with which c, −a, …, −a sum to 1."""
    return 1 + (n - 1) * a


def counterexample_d1(n: int, a: N) -> N:
    """D1 = n²(c² + (n−1)a²) of the counterexample, in the arithmetic of a."""
    return n**2 * (large_slope(n, a) ** 2 + (n - 1) * a**2)


def counterexample(n: int, a: Number | None = None) -> Counterexample:
    """The paper's counterexample; a defaults to the paper's choice 1/(n−1)², a Fraction.

    Raises:
      ValueError: n < 3 or a ≤ 0.

    >>> counterexample(3).problem_class().d1  # the paper states 2n² = 18
    Fraction(171, 8)
    """
    if not is_integer(n) or n < 3:
        raise ValueError(f"n={n}: the counterexample needs n ≥ 3")
    a = Fraction(1, (n - 1) ** 2) if a is None else a
    if not 0 < a < float("inf"):
        raise ValueError(f"a={a}: the counterexample needs a finite a > 0")
    return Counterexample(n, a)


def counterexample_table(n: int, a: Number | None = None) -> Float[np.ndarray, "n 1"]:
    """The gradients c, −a, …, −a of the counterexample for x ≥ −1, as a float64 table.

    Raises:
      ValueError: as for `counterexample`.
    """
    return counterexample(n, a).constant_gradients()[:, None]


def divergence_construction(problem_class: ProblemClass) -> Counterexample:
    """The paper's counterexample with the D1 of the class.

    It is not the worst member of the class: some tables of slopes with the same or a smaller D1
    have a positive drift at (β1, β2) at which this one does not (`theory.least_d1`).

    a is the largest float64 with n²((1+(n−1)a)² + (n−1)a²) ≤ D1, compared in exact arithmetic. The
    scale is chosen such that the smoothness is L. D0 = 0 for every D0 of the class.

    Raises:
      ValueError: the class contains no counterexample: n < 3, L = 0 or D1 ≤ n².
    """
    n, smoothness, d1 = problem_class.n, problem_class.smoothness, problem_class.d1
    if n < 3 or d1 <= n**2 or smoothness == 0:
        raise ValueError(
            f"the class n={n}, smoothness={smoothness}, d1={d1} is too small for the "
            f"counterexample, which needs n ≥ 3, smoothness > 0 and d1 > n² = {n**2}"
        )
    # (1+(n−1)a)² + (n−1)a² = D1/n², a quadratic in a
    excess = float(Fraction(d1) / n**2 - 1)
    root = np.sqrt((n - 1) ** 2 + n * (n - 1) * excess)
    a = float((n - 1) * excess / ((n - 1 + root) * (n - 1)))
    while counterexample_d1(n, Fraction(a)) <= Fraction(d1):
        a = float(np.nextafter(a, np.inf))
    while counterexample_d1(n, Fraction(a)) > Fraction(d1):
        a = float(np.nextafter(a, 0))
    return Counterexample(n, Fraction(a), Fraction(smoothness) / large_slope(n, Fraction(a)))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SlopeTable:
    """The counterexample's shape with arbitrary slopes: f_i = s_i·u; made with `slope_table`.

    u(x) = x for x ≥ −1 and ((x+2)² − 3)/2 for x < −1. The minimiser is −2 and D0 = 0 if Σ s_i > 0.
    """

    slopes: tuple[Leaf, ...]  # n numbers, which may be traced

    shape = ()
    minimiser = -2.0

    @property
    def num_components(self) -> int:
        return len(self.slopes)

    def value(self, index: ArrayLike, x: Float[Array, "..."]) -> Float[Array, "..."]:
        return self._slopes()[index] * unit_value(x)

    def gradient(self, index: ArrayLike, x: Float[Array, "..."]) -> Float[Array, "..."]:
        return self._slopes()[index] * _unit_gradient(x)

    def project(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        return x

    def problem_class(self) -> ProblemClass:
        """The smallest class: L = max |s_i|, D0 = 0, D1 = n²Σs_i²/(Σs_i)²; exact for Fractions."""
        slopes = [_concrete(slope) for slope in self.slopes]
        squares: Number = sum(slope**2 for slope in slopes)
        d1 = Fraction(len(slopes) ** 2) * squares / sum(slopes) ** 2
        return ProblemClass(len(slopes), max(-min(slopes), max(slopes)), 0, d1)

    def constant_gradients(self) -> Float[np.ndarray, " n"]:
        """∇f_i for x ≥ −1, where they do not depend on x; float64, of shape (n,)."""
        return np.array([float(_concrete(slope)) for slope in self.slopes])

    def _slopes(self) -> Array:
        return jnp.stack([_real(slope) for slope in self.slopes])


def slope_table(slopes: Sequence[Number] | Float[np.ndarray, " n"]) -> SlopeTable:
    """The finite sum with these slopes.

    Raises:
      ValueError: there are no slopes, one is not finite, or their sum is not positive.
    """
    values: tuple[Number, ...] = tuple(_concrete(slope) for slope in slopes)
    if not all(-float("inf") < slope < float("inf") for slope in values):
        raise ValueError(f"slopes={[float(slope) for slope in values]}: must be finite")
    if not values or not sum(values) > 0:
        raise ValueError(f"slopes={[float(slope) for slope in values]}: their sum must be positive")
    return SlopeTable(values)


def sign_counterexample(n: int, a: Number) -> SlopeTable:
    """A problem on which Sign-SGD diverges although D1 may be far below 2n².

    ⌊n/2⌋ + 1 slopes are −a and the other p = ⌊(n−1)/2⌋ are b, with sum 1. In each epoch Sign-SGD
    moves n − 2p > 0 net steps in the wrong direction, and D1 = n²(p b² + (n−p)a²) → n²/p as a → 0.

    Raises:
      ValueError: n < 3 or a ≤ 0.

    >>> float(sign_counterexample(100, Fraction(1, 10**6)).problem_class().d1)  # 2n² = 20 000
    204.1...
    """
    if not is_integer(n) or n < 3:
        raise ValueError(f"n={n}: needs n ≥ 3, or no slope is positive")
    if not 0 < a < float("inf"):
        raise ValueError(f"a={a}: needs a finite a > 0")
    num_positive = (n - 1) // 2
    b = (1 + (n - num_positive) * _concrete(a)) / Fraction(num_positive)
    return slope_table([b] * num_positive + [-a] * (n - num_positive))


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BoundedLinear:
    """f_0(x) = large·x, f_i(x) = −small·x on [−1, 1]; made with the `reddi…` functions."""

    num_components: Leaf  # [] n
    large: Leaf  # [] slope of component 0
    small: Leaf  # [] minus the slope of the others

    shape = ()
    minimiser = -1.0

    def value(self, index: ArrayLike, x: Float[Array, "..."]) -> Float[Array, "..."]:
        return self.gradient(index, x) * x

    def gradient(self, index: ArrayLike, x: Float[Array, "..."]) -> Float[Array, "..."]:
        slope = jnp.where(index == 0, _real(self.large), -_real(self.small))
        return slope * jnp.ones_like(x)

    def project(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        return jnp.clip(x, -1, 1)

    def problem_class(self) -> ProblemClass:
        """The smallest class: L = 0, D0 = 0, D1 = n² Σ s_i² / (Σ s_i)² for the slopes s_i."""
        n = int(np.asarray(self.num_components))
        large, small = _concrete(self.large), _concrete(self.small)
        squares, total = large**2 + (n - 1) * small**2, large - (n - 1) * small
        return ProblemClass(n, 0, 0, Fraction(n**2) * squares / total**2)

    def constant_gradients(self) -> Float[np.ndarray, " n"]:
        """∇f_i, which do not depend on x; float64, of shape (n,)."""
        slopes = np.full(int(np.asarray(self.num_components)), -float(_concrete(self.small)))
        slopes[0] = float(_concrete(self.large))
        return slopes


def reddi(n: int, large: Number | None = None) -> BoundedLinear:
    """Reddi et al.'s deterministic example: large·x once, −x otherwise; large defaults to n.

    With large = n, D1 = n⁴ + n³ − n². With replacement it is the toy problem of ADOPT (Taniguchi et
    al., arXiv:2411.02853), whose slopes k² and −k are n times these.

    Raises:
      ValueError: n < 2, or the sum of the slopes is not positive.
    """
    return _bounded_linear(n, n if large is None else large, 1)


def reddi_mod3(large: Number = 3) -> BoundedLinear:
    """Reddi et al.'s Theorem 1, in cyclic order: C·x every third step, −x otherwise, C > 2."""
    if not large > 2:
        raise ValueError(f"large={large}: the mod-3 example needs C > 2")
    return _bounded_linear(3, large, 1)


def reddi_online(large: Number = 1010, small: Number = 10) -> BoundedLinear:
    """Reddi et al.'s online experiment, in cyclic order: 1010·x every 101st step, else −10·x."""
    return _bounded_linear(101, large, small)


def reddi_stochastic(large: Number = 1010, small: Number = 10) -> BoundedLinear:
    """Reddi et al.'s stochastic experiment: 1010·x with probability 0.01, −10·x otherwise."""
    return _bounded_linear(100, large, small)


def _bounded_linear(n: int, large: Number, small: Number) -> BoundedLinear:
    if not is_integer(n) or n < 2:
        raise ValueError(f"n={n}: the example needs n ≥ 2")
    for name, slope in (("large", large), ("small", small)):
        if not 0 < slope < float("inf"):
            raise ValueError(f"{name}={slope}: must be a finite number above 0")
    if not large > (n - 1) * small:
        raise ValueError(
            f"large={large}: must be above (n − 1)·small = {(n - 1) * small}; otherwise −1 is not "
            "the minimiser"
        )
    return BoundedLinear(n, large, small)


def unit_value(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The component of slope 1: x for x ≥ −1, a parabola with its minimum at −2 below."""
    return jnp.where(x >= -1, x, 0.5 * (x + 2) ** 2 - 1.5)


def _unit_gradient(x: Float[Array, "..."]) -> Float[Array, "..."]:
    return jnp.minimum(x + 2, 1)


def _concrete(value: ArrayLike | Fraction) -> Number:
    return Fraction(value) if isinstance(value, int | Fraction) else float(np.asarray(value))


def _real(value: ArrayLike | Fraction) -> Array:
    return jnp.asarray(float(value) if isinstance(value, Fraction) else value)
