"""Quadratics f_i(x) = ½ (x − b_i)ᵀ H_i (x − b_i), realizable (D0 = 0) if all centres b_i agree."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jaxtyping import Array, ArrayLike, Float

from adam_transition.problems.finite_sum import Leaf
from adam_transition.problems.problem_class import ProblemClass


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Quadratics:
    """A finite sum of n quadratics in d dimensions; made with `quadratics`."""

    num_components: Leaf  # [] n
    hessians: Leaf  # [n, d, d] H_i, symmetric
    centres: Leaf  # [n, d] b_i
    minimiser: Leaf  # [d] (Σ H_i)⁻¹ Σ H_i b_i

    @property
    def shape(self) -> tuple[int, ...]:
        return self.minimiser.shape[-1:]

    def value(self, index: ArrayLike, x: Float[Array, " d"]) -> Float[Array, ""]:
        return 0.5 * (x - jnp.asarray(self.centres)[index]) @ self.gradient(index, x)

    def gradient(self, index: ArrayLike, x: Float[Array, " d"]) -> Float[Array, " d"]:
        return jnp.asarray(self.hessians)[index] @ (x - jnp.asarray(self.centres)[index])

    def project(self, x: Float[Array, " d"]) -> Float[Array, " d"]:
        return x

    def problem_class(self, d1: float | None = None) -> ProblemClass:
        """The class with the exact L and the smallest D0 for a given D1.

        With u = x − x*, Σ‖∇f_i‖² = uᵀAu + 2Bᵀu + C and ‖∇f‖² = uᵀMu. So A2 holds if and only if
        D1·M ⪰ A and D0 ≥ C + Bᵀ(D1·M − A)⁻¹B, and a larger D1 permits a smaller D0 unless B = 0.
        The default D1 is the smallest possible value if B = 0, and twice that value otherwise.

        Raises:
          ValueError: d1 is below the smallest possible value.
        """
        h, b = np.asarray(self.hessians, np.float64), np.asarray(self.centres, np.float64)
        residuals = np.einsum("nij,nj->ni", h, np.asarray(self.minimiser, np.float64) - b)
        quadratic = np.einsum("nki,nkj->ij", h, h)
        linear = np.einsum("nki,nk->i", h, residuals)
        constant = np.sum(residuals**2)
        mean = h.mean(axis=0)
        eigenvalues, vectors = scipy.linalg.eigh(quadratic, mean.T @ mean)
        least = max(float(eigenvalues[-1]), len(h))  # D1 ≥ n holds up to rounding
        projected = vectors.T @ linear
        has_linear = np.abs(projected) > 1e-12 * (1 + np.abs(projected).max())
        if d1 is None:
            d1 = 2 * least if has_linear.any() else least
        if d1 < least or (has_linear & (d1 <= eigenvalues)).any():
            raise ValueError(f"d1={d1} is too small: this problem needs more than {least}")
        slack = np.where(has_linear, d1 - eigenvalues, 1.0)
        d0 = constant + np.sum(np.where(has_linear, projected**2, 0.0) / slack)
        smoothness = np.abs(np.linalg.eigvalsh(h)).max()
        return ProblemClass(len(h), float(smoothness), float(d0), d1)


def quadratics(
    hessians: Float[ArrayLike, "n d d"] | list, centres: Float[ArrayLike, "n d"] | list
) -> Quadratics:
    """Quadratics from their Hessians and centres; in one dimension, two lists of n numbers.

    Raises:
      ValueError: the shapes do not match, a value is not finite, a Hessian is not symmetric, or
        Σ H_i is not positive definite (f would have no unique minimiser).
    """
    h, b = np.asarray(hessians, np.float64), np.asarray(centres, np.float64)
    if h.ndim == 1 and b.ndim == 1:
        h, b = h[:, None, None], b[:, None]
    if h.ndim != 3 or b.ndim != 2 or h.shape != (*b.shape, b.shape[1]):
        raise ValueError(f"hessians {h.shape} and centres {b.shape} are not (n, d, d) and (n, d)")
    if not (np.isfinite(h).all() and np.isfinite(b).all()):
        raise ValueError("hessians and centres must be finite")
    if not np.allclose(h, h.transpose(0, 2, 1)):
        raise ValueError("a Hessian is not symmetric")
    total = h.sum(axis=0)
    if np.linalg.eigvalsh(total)[0] <= 0:
        raise ValueError("the sum of the Hessians is not positive definite")
    minimiser = np.linalg.solve(total, np.einsum("nij,nj->i", h, b))
    return Quadratics(len(h), h, b, minimiser)


def realizable_quadratics(n: int, dimension: int = 1) -> Quadratics:
    """Quadratics with curvatures from 1 to n and the common centre 0, so that D0 = 0.

    If d > 1, the order of the curvatures along the coordinates differs between components.
    """
    return quadratics(_spread_hessians(n, dimension), np.zeros((n, dimension)))


def nonrealizable_quadratics(n: int, dimension: int = 1) -> Quadratics:
    """Quadratics with unit curvature and skewed noise: one centre is (1, …, 1), the others 0.

    D0 > 0.
    """
    centres = np.zeros((n, dimension))
    centres[-1] = 1
    return quadratics(np.broadcast_to(np.eye(dimension), (n, dimension, dimension)), centres)


def _spread_hessians(n: int, dimension: int) -> np.ndarray:
    """Hessians with curvatures from 1 … n in a rotated basis, shifted by i for component i."""
    curvatures = 1.0 + (np.arange(n)[:, None] + np.arange(dimension)) % n
    basis = scipy.linalg.qr(np.vander(1.0 + np.arange(dimension), dimension))[0]
    return np.einsum("ij,nj,kj->nik", basis, curvatures, basis)
