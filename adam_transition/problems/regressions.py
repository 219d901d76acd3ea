"""Ridge regressions with mini-batch losses φ(⟨a, x⟩ − b): logistic (convex) or Geman–McClure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from adam_transition.problems.finite_sum import Leaf

Link = Literal["logistic", "geman_mcclure"]
"""logistic: φ(r) = log(1 + e^{−r}), convex. geman_mcclure: φ(r) = r²/(2(1 + r²)), not convex."""

_CURVATURE: dict[Link, float] = {"logistic": 0.25, "geman_mcclure": 1.0}  # sup |φ''|


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Regression:
    """f_i(x) = scale·(mean_j φ(⟨a_ij, x⟩ − b_ij) + ridge·‖x‖²/2), for mini-batch i of m samples.

    For the logistic loss, features include the labels: pass y·a.
    """

    num_components: Leaf  # [] n
    features: Leaf  # [n, m, d] a
    offsets: Leaf  # [n, m] b
    scale: Leaf  # []
    ridge: Leaf  # []
    minimiser: Leaf  # [d]
    link: Link = field(metadata={"static": True})

    @property
    def shape(self) -> tuple[int, ...]:
        return self.features.shape[-1:]

    def value(self, index: ArrayLike, x: Float[Array, " d"]) -> Float[Array, ""]:
        residual = self._residual(index, x)
        if self.link == "logistic":
            losses = jax.nn.softplus(-residual)
        else:
            losses = residual**2 / (2 * (1 + residual**2))
        return jnp.asarray(self.scale) * (losses.mean() + self.ridge * jnp.sum(x**2) / 2)

    def gradient(self, index: ArrayLike, x: Float[Array, " d"]) -> Float[Array, " d"]:
        residual = self._residual(index, x)
        if self.link == "logistic":
            slopes = -jax.nn.sigmoid(-residual)
        else:
            slopes = residual / (1 + residual**2) ** 2
        features = jnp.asarray(self.features)[index]
        return jnp.asarray(self.scale) * (slopes @ features / features.shape[0] + self.ridge * x)

    def project(self, x: Float[Array, " d"]) -> Float[Array, " d"]:
        return x

    def smoothness(self) -> float:
        """An upper bound on the smallest L: scale·(sup|φ''|·max_i λ_max(A_iᵀA_i)/m + ridge)."""
        a = np.asarray(self.features, np.float64)
        largest = np.linalg.norm(a, 2, axis=(1, 2)).max() ** 2 / a.shape[1]
        bound = _CURVATURE[self.link] * largest + np.asarray(self.ridge)
        return float(np.asarray(self.scale) * bound)

    def _residual(self, index: ArrayLike, x: Float[Array, " d"]) -> Float[Array, " m"]:
        return jnp.asarray(self.features)[index] @ x - jnp.asarray(self.offsets)[index]
