"""Divergence for every order: the counterpart of the paper's divergence theorem, with its proof.

Setting. The counterexample for x ≥ −1, in units of a: one component has gradient R = c/a =
1/a + n − 1, the others −1. Each epoch visits every component once, in any order whatsoever, so it
holds one *hit* (the large gradient). At ε = 0 Adam does not see the unit; else e = ε/a, and
r = 1 + ε_root/a² stands where 1 stands at ε = 0. Write κ = (R² − 1)(1 − β2), and
d(y) = 1/(√(r + y) + e), which falls as y grows.

Moments. Up to initial terms that vanish geometrically, a step whose past hits lie j steps back has

    m = −1 + (R+1)(1−β1) Σ_hits β1^j,    v = 1 + κ Σ_hits β2^j.

Bound. Over a long run the mean of −Σ m/(√v + ε) per epoch is at least

    W = Σ_{i=0}^{n−1} d(κ S β2^i)  −  (1−β1)(R+1) Σ_{i≥0} β1^i d(κ β2^i),

with S = 1 + β2/(1 − β2^n).

Proof. *What pushes back.* The hit's share of Σ m/(√v + ε) is (1−β1)(R+1) Σ_{i≥0} β1^i/(√v + ε), v
taken i steps after it; there v ≥ 1 + κβ2^i, since other hits only add to it. There is one hit an
epoch.

*What pushes away* is Σ 1/(√v + ε) over all steps. Let hits be followed by G_1, G_2, … steps until
the next hit (counting the hit's own step). Between a hit and the k-th hit before it lie k − 1 whole
epochs, so it is (k−1)n + 1 steps back at least. So at a hit the sum over hits, itself included, is
at most 1 + β2 + β2^{n+1} + β2^{2n+1} + … = S, and the steps up to the next hit give at least

    F(G) = Σ_{i<G} d(κ S β2^i).

F(G+1) − F(G) = d(κ S β2^G) grows with G, so F is convex. The gaps have mean n in the long
run, one hit an epoch, so by Jensen the mean of F(G) is at least F(n).  ∎

Consequence. Where W > 0, Adam started at x0 large enough goes to +∞ with any step sizes η0/√k, for
random shuffling, one shuffle, cyclic order and any other sequence of permutations: by summation by
parts −Σ η_k m_k/√v_k ≥ (W/n)·Σ η_k − O(1), so x stays above −1 and the gradients stay as they are.

The bound is the exact cyclic drift but for S, which there is 1/(1 − β2^n), and but for the hits
that v is denied in the second sum.

A conjecture, and what became of it. One may ask whether cyclic order has the least drift of all
orders. It has not: under large β1 and small β2, where D is far below 0, two hits in a row beat it.
But at every boundary of the cyclic region that we tried, no pattern had D < 0: the search is in
`experiments.divergence`. So the cyclic region may well be exactly where Adam diverges for every
order. That is not proved.
"""

import itertools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import optimize

from adam_transition import adam
from adam_transition.problems import counterexample_table
from adam_transition.theory.stationary_drift import stationary_drift

_REST = 1e-12
_CELLS_PER_CALL = 1024


def worst_case_drift(
    num_components: int, a: float, hyper: adam.Hyperparameters
) -> Float[np.ndarray, "..."]:
    """W: a lower bound on the drift per epoch for every sequence of epoch permutations.

    Where it is positive Adam, started far enough above −1, goes to infinity on the counterexample
    whatever the order. In float64, and below W by a bound on what rounding and the rest of the
    series can have added (`_bound`), some 1e-12 of the two sums: it is a lower bound as computed.

    Args:
      num_components: n ≥ 3.
      a: the counterexample's a > 0.
      hyper: 1 − β1 and 1 − β2 in (0, 1], ε and ε_root at least 0, arrays that broadcast together.

    Raises:
      ValueError: parameters outside their ranges.

    >>> bool(worst_case_drift(20, 1 / 361, adam.hyperparameters(0.0, 0.5)) > 0)
    True
    """
    if num_components < 3:
        raise ValueError(f"n={num_components}: the counterexample needs n ≥ 3")
    if not 0 < a < float("inf") or not 1 / a < float("inf"):
        raise ValueError(f"a={a}: the counterexample needs a finite a > 0, and 1/a must be finite")
    p, q, epsilon, epsilon_root = np.broadcast_arrays(
        *(np.asarray(one, np.float64) for one in hyper)
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
    cells = [one.ravel() for one in (p, q, epsilon / a, epsilon_root / (a * a))]
    found = np.empty(p.size)
    # terms of the second sum go like 1/(1 − β1): cells of about the same β1 run together
    order = np.argsort(p, axis=None)
    with jax.enable_x64(True):
        for start in range(0, p.size, _CELLS_PER_CALL):
            chosen = np.resize(order[start : start + _CELLS_PER_CALL], _CELLS_PER_CALL)
            num_terms = _num_terms(float(cells[0][chosen].min()), r)
            found[chosen] = _bound(*(one[chosen] for one in cells), r, num_components, num_terms)
    return found.reshape(p.shape)


def _num_terms(p: float, r: float) -> int:
    """Terms of the second sum until what is left of it, at most (R+1) β1^J, is below `_REST`."""
    return 1 if p == 1 else int(np.ceil(np.log(_REST / (r + 1)) / np.log1p(-p))) + 2


def drift_of_places(
    num_components: int, a: float, hyper: adam.Hyperparameters, places: Sequence[int]
) -> Float[np.ndarray, "..."]:
    """Exact drift per epoch of the counterexample when hits fall at given places of the epochs.

    Args:
      num_components: n ≥ 3.
      a: the counterexample's a > 0.
      hyper: as for `worst_case_drift`.
      places: the place of the hit, 0 … n−1, in each of some epochs, which are repeated for ever.
    """
    n, length = num_components, len(places)
    slopes = counterexample_table(n, a)
    table = np.repeat(slopes[1:2], length * n, axis=0)
    table[np.arange(length) * n + np.array(places)] = slopes[0]
    return stationary_drift(table, hyper).drift[..., 0] / length


def patterns(num_components: int, num_epochs: int) -> Iterator[tuple[int, ...]]:
    """All places of the hits in that many epochs; the first is 0, as a rotation changes nothing."""
    places = range(num_components)
    yield from ((0, *rest) for rest in itertools.product(places, repeat=num_epochs - 1))


@jax.jit
def _bound(
    p: Array, q: Array, epsilon: Array, root: Array, r: float, n: int, num_terms: int
) -> Array:
    """W less what its computation can be in error by; ε in units of a, R = r.

    Nothing is used but sums, products, quotients and roots, each right to a relative u = 2^−53
    (fused operations round less often). R is right to 2u, κ to 9u as R² − 1 ≥ ¾R², β2^i to
    (2i + 1)u and 1 − β2^n = (1−β2) Σ_{i<n} β2^i to (3n + 1)u. So the terms of what pushes away are
    right to (2.5n + 14)u and their sum to (4n + 20)u; those of what pushes back to (3i + 12)u, and
    adding J of them rounds by at most J u of their sum. All of it is doubled, which leaves room for
    products of errors and for the rounding of this bound.
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


NUM_NODES = 64  # of the quadrature of proven areas


def proven_area(num_components: int, a: float, num_nodes: int = NUM_NODES) -> float:
    """The area of {W > 0} in [0, 1)², by Gauss–Legendre quadrature over β2.

    In W what pushes away does not depend on β1, and what pushes back is a mean, with
    the weights (1−β1)β1^i, of numbers that grow with i, so that it grows with β1: at each β2 the
    region is an interval of β1 from 0 on. Nodes are even in
    √(1−β2), from where the region ends at β2 near 1, and squared there, where β1 rises steeply.
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
        # beyond these terms a hit is forgotten; as W > 0 here they are not many
        i = np.arange(max(1, int(np.ceil(np.log(kappa * 1e10) / -log_beta2))))
        remembered, pushed = 1 / np.sqrt(1 + kappa * np.exp(i * log_beta2)), away(s)

        def outward(beta1: float) -> float:
            weights = (1 - beta1) * np.exp(i * np.log(beta1)) if beta1 else i == 0
            return pushed - (r + 1) * (weights @ remembered + beta1 ** len(i))

        return float(optimize.brentq(outward, 0.0, 1.0, xtol=1e-12))

    # as β2 → 1 the pushes away sum to n and the one back is r + 1 = 1/a + n: outside the region
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
