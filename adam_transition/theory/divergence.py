"""Divergence for every order: the counterpart of the paper's divergence theorem, with its proof.

Setting. Take the counterexample for x ≥ −1, in units of a: one component has gradient R = c/a =
1/a + n − 1, the others −1. Each epoch visits every component once, in an arbitrary order, so it
contains one *hit* (the large gradient). At ε = 0 Adam is invariant to the unit. Otherwise let
e = ε/a, and replace the 1 of ε = 0 by r = 1 + ε_root/a². Write κ = (R² − 1)(1 − β2) and
d(y) = 1/(√(r + y) + e), which decreases in y.

Moments. Up to initial terms that vanish geometrically, at a step whose past hits are j steps back,

    m = −1 + (R+1)(1−β1) Σ_hits β1^j,    v = 1 + κ Σ_hits β2^j.

Bound. Over a long run the mean of −Σ m/(√v + ε) per epoch is at least

    W = Σ_{i=0}^{n−1} d(κ S β2^i)  −  (1−β1)(R+1) Σ_{i≥0} β1^i d(κ β2^i),

with S = 1 + β2/(1 − β2^n).

Proof. *The push back.* The hit contributes (1−β1)(R+1) Σ_{i≥0} β1^i/(√v + ε) to Σ m/(√v + ε), with
v taken i steps after it. There v ≥ 1 + κβ2^i, since other hits only increase v. Each epoch has one
hit.

*The push away* is Σ 1/(√v + ε) over all steps. Let G_1, G_2, … be the numbers of steps from each
hit (inclusive) to the next (exclusive). Between a hit and the k-th hit before it lie k − 1 whole
epochs, so the earlier hit is at least (k−1)n + 1 steps back. At a hit, the sum over hits including
itself is therefore at most 1 + β2 + β2^{n+1} + β2^{2n+1} + … = S, and the steps before the next
hit contribute at least

    F(G) = Σ_{i<G} d(κ S β2^i).

F(G+1) − F(G) = d(κ S β2^G) increases in G, so F is convex. In the long run the gaps have mean n,
since each epoch has one hit, so by Jensen's inequality the mean of F(G) is at least F(n).  ∎

Consequence. If W > 0, Adam started at a large enough x0 goes to +∞ with any step sizes η0/√k, for
random shuffling, one shuffle, cyclic order and any other sequence of permutations. By summation by
parts, −Σ η_k m_k/√v_k ≥ (W/n)·Σ η_k − O(1), so x stays above −1 and the gradients stay constant.

The bound differs from the exact cyclic drift in two places only: S, which is 1/(1 − β2^n) in cyclic
order, and the second sum, where v counts only the latest hit.

Conjecture (false): cyclic order has the smallest drift of all orders. Counterexample: for large β1
and small β2, where D is far below 0, two consecutive hits give a smaller drift.

Conjecture (open): Adam diverges for every order exactly in the region where it diverges in cyclic
order. At every tested point of the boundary of that region, no pattern had D < 0; the search is in
`experiments.divergence`.
"""

import itertools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float
from scipy import optimize

from adam_transition import adam
from adam_transition.problems import counterexample_table
from adam_transition.theory.stationary_drift import stationary_drift

_REST = 1e-12  # bound on the truncated terms of the second sum
_CELLS_PER_CALL = 1024


def worst_case_drift(
    num_components: int, a: float, hyper: adam.Hyperparameters
) -> Float[np.ndarray, "..."]:
    """W: a lower bound on the drift per epoch for every sequence of epoch permutations.

    If W > 0, Adam started far enough above −1 goes to infinity on the counterexample in every
    order. Computed in float64, less a bound on the errors of rounding and truncation (`_bound`),
    about 1e-12 of the two sums. So the returned value is itself a lower bound.

    Args:
      num_components: n ≥ 3.
      a: the counterexample's a > 0.
      hyper: 1 − β1 and 1 − β2 in (0, 1], ε and ε_root at least 0; arrays that broadcast together
        to the shape `…`.

    Raises:
      ValueError: a parameter is outside its range.

    >>> bool(worst_case_drift(20, 1 / 361, adam.hyperparameters(0.0, 0.5)) > 0)
    True
    """
    if num_components < 3:
        raise ValueError(f"n={num_components}: the counterexample needs n ≥ 3")
    if not 0 < a < float("inf") or not 1 / a < float("inf"):
        raise ValueError(f"a={a}: the counterexample needs a finite a > 0, and 1/a must be finite")
    p, q, epsilon, epsilon_root = np.broadcast_arrays(
        *(np.asarray(value, np.float64) for value in hyper)
    )
    for name, values in (("one_minus_beta1", p), ("one_minus_beta2", q)):
        if not ((values > 0) & (values <= 1)).all():
            raise ValueError(f"{name}: values must lie in (0, 1]")
    for name, values in (("epsilon", epsilon), ("epsilon_root", epsilon_root)):
        if not ((values >= 0) & np.isfinite(values)).all():
            raise ValueError(f"{name}: values must be finite and at least 0")
    r = 1 / a + num_components - 1
    if not r * r < float("inf"):
        raise ValueError(f"a={a}: the square of 1/a does not fit in float64")
    cells = [values.ravel() for values in (p, q, epsilon / a, epsilon_root / (a * a))]
    bounds = np.empty(p.size)
    # the second sum has about 1/(1 − β1) terms, so cells of similar β1 run together
    order = np.argsort(p, axis=None)
    with jax.enable_x64(True):
        for start in range(0, p.size, _CELLS_PER_CALL):
            chosen = np.resize(order[start : start + _CELLS_PER_CALL], _CELLS_PER_CALL)
            num_terms = _num_terms(float(cells[0][chosen].min()), r)
            inputs = (values[chosen] for values in cells)
            bounds[chosen] = _bound(*inputs, r, num_components, num_terms)
    return bounds.reshape(p.shape)


def _num_terms(p: float, r: float) -> int:
    """Number of terms J after which the rest of the second sum, ≤ (R+1) β1^J, is below `_REST`."""
    return 1 if p == 1 else int(np.ceil(np.log(_REST / (r + 1)) / np.log1p(-p))) + 2


def drift_of_places(
    num_components: int, a: float, hyper: adam.Hyperparameters, places: Sequence[int]
) -> Float[np.ndarray, "..."]:
    """Exact drift per epoch of the counterexample for a periodic pattern of hits.

    Args:
      num_components: n ≥ 3.
      a: the counterexample's a > 0.
      hyper: as for `worst_case_drift`.
      places: position of the hit, 0 … n−1, in each epoch of one period.
    """
    n, length = num_components, len(places)
    slopes = counterexample_table(n, a)
    table = np.repeat(slopes[1:2], length * n, axis=0)
    table[np.arange(length) * n + np.array(places)] = slopes[0]
    drift = stationary_drift(table, hyper).drift[..., 0] / length
    return np.asarray(drift)


def patterns(num_components: int, num_epochs: int) -> Iterator[tuple[int, ...]]:
    """All patterns of hit positions over `num_epochs` epochs, up to rotation: the first is 0."""
    places = range(num_components)
    yield from ((0, *rest) for rest in itertools.product(places, repeat=num_epochs - 1))


@jax.jit
def _bound(
    p: Array,
    q: Array,
    epsilon: Array,
    root: Array,
    r: ArrayLike,
    n: ArrayLike,
    num_terms: ArrayLike,
) -> Array:
    """W minus a bound on the error of its computation; ε in units of a, R = r.

    The computation uses only sums, products, quotients and square roots, each with relative error
    u = 2^−53 (fused operations round less often). The relative errors are at most 2u for R, 9u for
    κ (as R² − 1 ≥ ¾R²), (2i + 1)u for β2^i, and (3n + 1)u for 1 − β2^n = (1−β2) Σ_{i<n} β2^i. Those
    of the terms of the push away are therefore at most (2.5n + 14)u, and that of their sum is at
    most (4n + 20)u. The terms of the push back have at most (3i + 12)u, and adding J of them rounds
    by at most J u of their sum. The total is doubled to cover products of errors and the rounding
    of this bound.
    """
    decay1, decay2 = 1 - p, 1 - q
    zero, one = jnp.zeros_like(q), jnp.ones_like(q)
    kappa = (r * r - 1) * q

    def geometric(_: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        total, power = carry
        return total + power, power * decay2

    epoch = q * jax.lax.fori_loop(0, n, geometric, (zero, one))[0]  # 1 − β2^n
    crowded = kappa * (1 + decay2 / epoch)  # κ S

    def term(y: Array) -> Array:
        return 1 / (jnp.sqrt((1 + root) + y) + epsilon)

    def away(_: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        total, power = carry
        return total + term(crowded * power), power * decay2

    def back(i: Array, carry: tuple) -> tuple:
        total, error, power1, power2 = carry
        share = power1 * term(kappa * power2)
        return total + share, error + (3 * i + 12) * share, power1 * decay1, power2 * decay2

    pushes_away = jax.lax.fori_loop(0, n, away, (zero, one))[0]
    total, error, *_ = jax.lax.fori_loop(0, num_terms, back, (zero, zero, one, one))
    weight = p * (r + 1)
    pushes_back = weight * total
    units = (4 * n + 24) * pushes_away + weight * (error + (num_terms + 10) * total)
    return (pushes_away - pushes_back) - 2.0**-52 * units - 2 * _REST


NUM_NODES = 64  # of the quadrature in `proven_area`


def proven_area(num_components: int, a: float, num_nodes: int = NUM_NODES) -> float:
    """The area of {W > 0} in [0, 1)² at ε = 0, by Gauss–Legendre quadrature over β2.

    The push away does not depend on β1. The push back is a mean, with weights (1−β1)β1^i, of
    numbers that increase in i, so it increases in β1. At each β2 the region is therefore an
    interval of β1 that starts at 0. With s = √(1−β2) and s_0 its value at the end of the region
    close to β2 = 1, the quadrature variable is t in s = s_0 + (1 − s_0)t², which puts more nodes
    close to s_0, where the largest β1 changes fast.

    Args:
      num_components: n ≥ 3.
      a: the counterexample's a > 0.
      num_nodes: number of quadrature nodes.
    """
    n, r = num_components, 1 / a + num_components - 1

    def away(s: float) -> float:
        kappa, log_beta2 = (r**2 - 1) * s**2, np.log1p(-(s**2))
        crowded = kappa * (1 + (1 - s**2) / -np.expm1(n * log_beta2))
        return float((1 / np.sqrt(1 + crowded * np.exp(np.arange(n) * log_beta2))).sum())

    def at_beta1_zero(s: float) -> float:
        return away(s) - (r + 1) / np.sqrt(1 + (r**2 - 1) * s**2)

    def largest_beta1(s: float) -> float:
        kappa, log_beta2 = (r**2 - 1) * s**2, np.log1p(-(s**2))
        # after these terms the hit has decayed from v; W > 0 here, so the terms are few
        i = np.arange(max(1, int(np.ceil(np.log(kappa * 1e10) / -log_beta2))))
        remembered, pushed = 1 / np.sqrt(1 + kappa * np.exp(i * log_beta2)), away(s)

        def outward(beta1: float) -> float:
            weights = (1 - beta1) * np.exp(i * np.log(beta1)) if beta1 else i == 0
            return pushed - (r + 1) * (weights @ remembered + beta1 ** len(i))

        return float(optimize.brentq(outward, 0.0, 1.0, xtol=1e-12))

    # as β2 → 1 the push away is n and the push back is r + 1 = 1/a + n: outside the region
    tried = np.geomspace(1e-3 / n, 1 - 1e-9, 100)
    inside = np.array([at_beta1_zero(s) > 0 for s in tried])
    first = int(inside.argmax())
    if not inside[first]:
        return 0.0
    edge = float(optimize.brentq(at_beta1_zero, tried[first - 1], tried[first], xtol=1e-15))
    nodes, weights = np.polynomial.legendre.leggauss(num_nodes)
    area = 0.0
    for t, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        s = edge + (1 - edge) * t**2
        if at_beta1_zero(s) > 0:
            area += weight * 2 * t * (1 - edge) * 2 * s * largest_beta1(s)
    return float(area)
