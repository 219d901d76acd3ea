"""How small D1 can be while Adam goes to infinity: the paper's question about n < D1 < 2n².

The problems are the one-dimensional finite sums f_i = s_i·u of `problems.slope_table`, with D0 = 0
and D1 = n² Σ s_i²/(Σ s_i)²; ε = 0. Started many steps away from the minimiser, Adam goes to
infinity at a positive speed if the stationary drift D of the slopes is positive.

Proved, for Sign-SGD (β1 = β2 = 0). Under every sampling scheme the drift is the number of negative
slopes minus the number of positive ones. If it is positive, at most p = ⌊(n−1)/2⌋ slopes are
positive; let P be their sum. Some slope is negative, so Σ s_i < P, and Σ s_i² > P²/p by
Cauchy–Schwarz. Hence D1 > n²/p, and `problems.sign_counterexample` comes arbitrarily close to it:
the infimum is n²/⌊(n−1)/2⌋, about 2n, and it is not attained.  ∎

If the drift is 0, which requires an even n and half of the slopes negative, Sign-SGD has no speed
and still does not converge: it freezes (cyclic order, shuffling) or wanders (with replacement).
Then D1 can be as small as 2n, below n²/⌊(n−1)/2⌋ (docs/mathematics/theorems.md).

Computed, for β2 > 0 and cyclic order: `least_d1` minimises D1 over all tables of n slopes with
D ≥ 0. The returned table attains the returned value, which is therefore an upper bound on the
smallest D1. It is not proved that no table has a smaller D1.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float
from scipy.optimize import minimize

from adam_transition import adam
from adam_transition.problems import slope_table
from adam_transition.theory.cyclic import cyclic_drift

_MARGIN = 1e-9  # lower bound on the drift, so that rounding cannot make it negative


class Certificate(NamedTuple):
    """Exact proof that Sign-SGD goes to infinity on a table of slopes, if `drift` is positive."""

    drift: int  # net number of steps per epoch in the wrong direction
    d1: Fraction


class LeastD1(NamedTuple):
    """A table of slopes with D ≥ 0 and the smallest D1 that the search reached."""

    d1: float
    slopes: Float[np.ndarray, " n"]  # in cyclic order, the largest first; sum 1
    drift: float  # D ≥ 0 of the table


def sign_sgd_certificate(slopes: Sequence[Fraction]) -> Certificate:
    """The drift of Sign-SGD and D1 of a table, in rational arithmetic.

    Raises:
      ValueError: the sum of the slopes is not positive.

    >>> sign_sgd_certificate([Fraction(3, 5)] * 2 + [Fraction(-1, 15)] * 3)
    Certificate(drift=1, d1=Fraction(55, 3))
    """
    exact = [Fraction(slope) for slope in slopes]
    signs = sum((slope < 0) - (slope > 0) for slope in exact)
    return Certificate(signs, Fraction(slope_table(exact).problem_class().d1))


def sign_sgd_infimum(n: int) -> Fraction:
    """n²/⌊(n−1)/2⌋, the infimum of D1 over the tables on which Sign-SGD has a positive drift.

    The infimum is not attained. For even n, Sign-SGD does not converge on tables with drift 0
    either, and their D1 can be as small as 2n.

    Raises:
      ValueError: n < 3, for which the drift of Sign-SGD is never positive.
    """
    if n < 3:
        raise ValueError(f"n={n}: needs n ≥ 3; with fewer slopes the positive ones are in majority")
    return Fraction(n**2, (n - 1) // 2)


def least_d1(
    n: int,
    beta1: float,
    beta2: float,
    *,
    starts: Sequence[Float[np.ndarray, " n"]] = (),
) -> LeastD1 | None:
    """Minimises D1 over tables of n slopes with D ≥ 0 in cyclic order, at ε = 0.

    Minimises Σ s² subject to Σ s = 1 and D(s) ≥ 0 by sequential quadratic programming with the
    derivative of the drift. The starts are two-valued tables with various numbers of positive
    slopes, either adjacent or spread evenly over the epoch.

    Args:
      n: number of components, at least 3.
      beta1: β1 in [0, 1).
      beta2: β2 in (0, 1); at 0 the drift is discontinuous, see `sign_sgd_infimum`.
      starts: additional tables to start from, of shape (n,).

    Returns:
      The table with the smallest D1, or None if no start led to a table with D ≥ 0.

    Raises:
      ValueError: a parameter is outside its range.
    """
    if n < 3:
        raise ValueError(f"n={n}: needs n ≥ 3")
    if not 0 <= beta1 < 1:
        raise ValueError(f"beta1={beta1} is outside [0, 1)")
    if not 0 < beta2 < 1:
        raise ValueError(f"beta2={beta2} is outside (0, 1)")
    best = None
    with jax.enable_x64(True):
        for start in (*starts, *_starts(n)):
            slopes = _descend(start / start.sum(), 1 - beta1, 1 - beta2)
            drift, d1 = float(_drift(slopes, 1 - beta1, 1 - beta2)), n**2 * float(slopes @ slopes)
            if drift >= 0 and (best is None or d1 < best.d1):
                best = LeastD1(d1, np.roll(slopes, -int(slopes.argmax())), drift)
    return best


def _starts(n: int) -> Iterator[Float[np.ndarray, " n"]]:
    tilt = 1 + 1e-2 * np.linspace(-1, 1, n)  # breaks symmetries that make a start stationary
    for num_positive in np.unique(np.linspace(1, n - 1, 9).astype(int)):
        together = np.arange(num_positive)
        spread = together * n // num_positive
        for a in (0.003, 0.03, 0.3):
            for places in (together, spread):
                slopes = np.full(n, -a)
                slopes[places] = (1 + (n - num_positive) * a) / num_positive
                yield slopes * tilt


def _descend(start: np.ndarray, p: float, q: float) -> np.ndarray:
    slopes = minimize(
        lambda s: s @ s,
        start,
        jac=lambda s: 2 * s,
        method="SLSQP",
        constraints=[
            {"type": "eq", "fun": lambda s: s.sum() - 1, "jac": np.ones_like},
            {
                "type": "ineq",
                "fun": lambda s: float(_drift(s, p, q)) - _MARGIN,
                "jac": lambda s: np.asarray(_drift_gradient(s, p, q)),
            },
        ],
        options={"maxiter": 300, "ftol": 1e-13},
    ).x
    return slopes / slopes.sum()


@jax.jit
def _drift(slopes: Float[Array, " n"], p: ArrayLike, q: ArrayLike) -> Float[Array, ""]:
    hyper = adam.Hyperparameters(jnp.asarray(p)[None], jnp.asarray(q)[None])
    return cyclic_drift(slopes[:, None], len(slopes), hyper)[0, 0]


_drift_gradient = jax.jit(jax.grad(_drift))
