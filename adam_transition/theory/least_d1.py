"""How small D1 can be while Adam goes to infinity: the paper's question about n < D1 < 2n².

Members of the class are the finite sums f_i = s_i·u of `problems.slope_table` in one dimension,
D0 = 0, for which D1 = n² Σ s_i²/(Σ s_i)². On them Adam, started many steps away from the minimiser,
goes to infinity with a speed where the stationary drift D of the slopes is positive; ε = 0.

Proved, for Sign-SGD (β1 = β2 = 0). Under every sampling scheme the drift is the number of negative
slopes less the number of positive ones. If it is positive, at most p = ⌊(n−1)/2⌋ slopes are
positive; let P be their sum. Some slope is negative, so Σ s_i < P, and Σ s_i² > P²/p by
Cauchy–Schwarz. Hence D1 > n²/p, and `problems.sign_counterexample` comes as near to it as one
likes: n²/⌊(n−1)/2⌋, about 2n, is the greatest lower bound, and it is not attained.  ∎

Where the drift is 0, for n even and half of the slopes negative, Sign-SGD has no speed and does not
converge either: it freezes (cyclic order, shuffling) or wanders (with replacement). There D1 may
come down to 2n, below n²/⌊(n−1)/2⌋ (docs/mathematics/theorems.md).

Found numerically, for β2 > 0 and cyclic order: `least_d1` minimises D1 over all tables of n slopes
with D ≥ 0. Its value is attained by the table that it returns, so the least D1 is at most that;
that no table does better is not proved.
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import minimize

from adam_transition import adam
from adam_transition.problems import slope_table
from adam_transition.theory.cyclic import cyclic_drift

_MARGIN = 1e-9  # of the drift, so that rounding does not leave the table outside


class Certificate(NamedTuple):
    """Exact proof that Sign-SGD goes to infinity on a table of slopes, if the drift is positive."""

    drift: int  # signs per epoch in the wrong direction
    d1: Fraction


class LeastD1(NamedTuple):
    """A table of slopes with D ≥ 0, on the boundary or past it, and D1 as small as was found."""

    d1: float
    slopes: Float[np.ndarray, " n"]  # in cyclic order, the largest first; they sum to 1
    drift: float  # D ≥ 0 on it


def sign_sgd_certificate(slopes: Sequence[Fraction]) -> Certificate:
    """The drift of Sign-SGD and D1 of a table, in rational arithmetic.

    Raises:
      ValueError: a sum of slopes that is not positive.

    >>> sign_sgd_certificate([Fraction(3, 5)] * 2 + [Fraction(-1, 15)] * 3)
    Certificate(drift=1, d1=Fraction(55, 3))
    """
    exact = [Fraction(slope) for slope in slopes]
    signs = sum((slope < 0) - (slope > 0) for slope in exact)
    return Certificate(signs, Fraction(slope_table(exact).problem_class().d1))


def sign_sgd_infimum(n: int) -> Fraction:
    """n²/⌊(n−1)/2⌋: no table with this D1 or less has a drift above 0, some above it have.

    That is about going to infinity with a speed. For n even, tables with drift 0, on which Sign-SGD
    does not converge either, have a D1 down to 2n.

    Raises:
      ValueError: n < 3: then the drift of Sign-SGD is never positive.
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
    """The least D1 found among tables of n slopes with D ≥ 0 in cyclic order, ε = 0.

    Minimises Σ s² subject to Σ s = 1 and D(s) ≥ 0 by sequential quadratic programming with the
    derivative of the drift, from two-valued tables with few to many positive slopes, together and
    spread over the epoch.

    Args:
      n: number of components, at least 3.
      beta1: in [0, 1).
      beta2: in (0, 1); at 0 the drift is not continuous, see `sign_sgd_infimum`.
      starts: further tables to start from.

    Returns:
      The best table found, or None if no start led to one.

    Raises:
      ValueError: parameters outside their ranges.
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
    tilt = 1 + 1e-2 * np.linspace(-1, 1, n)  # off the tables that a symmetry makes stationary
    for num_positive in np.unique(np.linspace(1, n - 1, 9).astype(int)):
        together = np.arange(num_positive)
        spread = together * n // num_positive
        for a in (0.003, 0.03, 0.3):
            for places in (together, spread):
                slopes = np.full(n, -a)
                slopes[places] = (1 + (n - num_positive) * a) / num_positive
                yield slopes * tilt


def _descend(start: np.ndarray, p: float, q: float) -> np.ndarray:
    found = minimize(
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
    return found / found.sum()


@jax.jit
def _drift(slopes: Float[Array, " n"], p: float, q: float) -> Float[Array, ""]:
    hyper = adam.Hyperparameters(jnp.asarray(p)[None], jnp.asarray(q)[None])
    return cyclic_drift(slopes[:, None], len(slopes), hyper)[0, 0]


_drift_gradient = jax.jit(jax.grad(_drift))
