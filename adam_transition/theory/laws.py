"""How the boundary depends on n, a and D1 at ε = 0: measured edges, laws, fitted exponents."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from adam_transition.problems import counterexample_table
from adam_transition.problems.constructions import large_slope
from adam_transition.sampling import Sampling
from adam_transition.theory.boundary import Edge, divergence_intervals


class PowerLaw(NamedTuple):
    """y ≈ factor·x^exponent, from least squares in logarithms."""

    exponent: float
    stderr: float  # standard error of the exponent, from the residuals
    factor: float


def upper_edges(
    ns: Sequence[int | np.integer],
    a: Sequence[float],
    beta1: float,
    sampling: Sampling = "cyclic",
) -> list[Edge | None]:
    """β2*, the upper end of the highest interval of divergence of the counterexample.

    No key is needed: the counterexample has an exact drift, and each of its shuffles is a rotation
    of cyclic order.

    Args:
      ns: values of n.
      a: value of the counterexample's a for each n.
      beta1: β1.
      sampling: the sampling scheme.

    Returns:
      One edge for each pair (n, a); None if no β2 diverges.
    """
    edges: list[Edge | None] = []
    for n, slope in zip(ns, a, strict=True):
        [intervals] = divergence_intervals(counterexample_table(int(n), slope), [beta1], sampling)
        edges.append(intervals[-1].high if intervals else None)
    return edges


def cyclic_law(n: float | np.integer, a: float) -> float:
    """1 − β2* ≈ 4/(a n²) on the counterexample in cyclic order, for β1 = 0, fixed a and large n.

    As D1 ≈ n⁴a² there, this is 4/√D1.
    """
    return 4 / (a * n**2)


def with_replacement_law(table: Float[np.ndarray, "n 1"], beta1: float) -> float:
    """1 − β2* with replacement, to first order in 1 − β2; accurate if the result is small.

    At β1 = 0 it is q0 = 2 E[g] E[g²]/Cov(g, g²), and with momentum q0(1−β1)/((1−β1) − β1 q0). A
    negative result carries no information.
    """
    g = np.asarray(table)[:, 0]
    g = g / np.abs(g).max()  # cubes could overflow
    q0 = 2 * g.mean() * (g**2).mean() / ((g**3).mean() - g.mean() * (g**2).mean())
    return float(q0 * (1 - beta1) / ((1 - beta1) - beta1 * q0))


def fit_power_law(x: np.ndarray, y: np.ndarray) -> PowerLaw:
    """Fits a straight line to log y against log x; both of shape (K,).

    Raises:
      ValueError: there are fewer than three points, or a value is not positive.
    """
    if len(x) < 3 or not (np.all(np.asarray(x) > 0) and np.all(np.asarray(y) > 0)):
        raise ValueError(f"a power law needs three or more positive points, not {len(x)}")
    (slope, intercept), covariance = np.polyfit(np.log(x), np.log(y), 1, cov=True)
    return PowerLaw(float(slope), float(np.sqrt(covariance[0, 0])), float(np.exp(intercept)))


def sign_momentum_threshold(n: int, a: float, *, nesterov: bool = False) -> float:
    """β* up to which sign momentum diverges on the counterexample in cyclic order.

    The root of (R + 1)(1 − β)β^h = 1 − β^n with R the ratio of the slopes and h = ⌈n/2⌉ − 1, or
    ⌈n/2⌉ with Nesterov momentum; proved in docs/mathematics/other_rules.md. At a = 1, 1 − β* is
    √24 n^(−3/2) to first order.

    Args:
      n: number of components, at least 3.
      a: slope of the counterexample, above 0.
      nesterov: whether the sign is that of β m + (1 − β) g, as in Muon.
    """
    from scipy.optimize import brentq

    ratio = large_slope(n, a) / a
    half = -(-n // 2) - (not nesterov)

    def excess(p: float) -> float:
        log_beta = math.log1p(-p)
        return math.log((ratio + 1) * p / -math.expm1(n * log_beta)) + half * log_beta

    return 1 - float(brentq(excess, 1e-3 / n**1.5, 1 - 1e-9, xtol=1e-15))


def adopt_climb(n: int, a: float | None, beta2: float) -> float:
    """Steps for which ADOPT with its clip k^(1/4) moves away from x* in cyclic order.

    It is S⁴, with S the sum of a/√v over the n − 1 steps of small slopes, v being that before the
    step; ADOPT climbs only if S > 1. Proved in docs/mathematics/other_rules.md for frozen v.

    Args:
      n: number of components, at least 3.
      a: slope of the counterexample; None for 1/(n−1)².
      beta2: β2, in [0, 1).
    """
    a = (n - 1.0) ** -2 if a is None else a
    squared_ratio = (large_slope(n, a) / a) ** 2
    steps = np.arange(n - 1)
    # v/a² falls to 1 after the large slope
    v = 1 + (squared_ratio - 1) * (1 - beta2) * beta2**steps / (1 - beta2**n)
    return float((v**-0.5).sum() ** 4)
