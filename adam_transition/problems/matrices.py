"""The counterexample on matrices: its slopes times fixed matrices."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from adam_transition.problems.constructions import counterexample, unit_value
from adam_transition.problems.finite_sum import Custom, from_loss
from adam_transition.problems.problem_class import Number

KINDS = "identity", "orthogonal", "rank_one", "generic"
"""Kinds of matrices of `fixed_matrix`."""


def matrix_counterexample(
    n: int,
    a: Number | None,
    direction: Float[ArrayLike, "rows columns"],
    noise: Float[ArrayLike, "n rows columns"] | None = None,
) -> Custom:
    """The counterexample along one direction of a matrix, with noise across it.

    With the slopes s_i of `counterexample` and A the direction over its Frobenius norm,
    f_i(X) = s_i (u(⟨A, X⟩) + ⟨B_i, X⟩), where u is the counterexample's unit function. The noise is
    to satisfy ⟨A, B_i⟩ = 0 and Σ s_i B_i = 0. Then f(X) = u(⟨A, X⟩)/n is convex, its minimisers are
    the matrices with ⟨A, X⟩ = −2, and for ⟨A, X⟩ ≥ −1 the gradients are the constant matrices
    s_i (A + B_i).

    A point is the matrix flattened by rows, of shape (rows·columns,). The problem has no single
    minimiser and states none; watch ⟨A, X⟩.

    Args:
      n: number of components, at least 3.
      a: as for `counterexample`.
      direction: A up to a factor; not 0.
      noise: the B_i; none by default.

    Raises:
      ValueError: n, a, the direction or the noise is invalid.
    """
    slopes = counterexample(n, a).constant_gradients()
    direction = np.asarray(direction, np.float64)
    norm = np.linalg.norm(direction) if direction.ndim == 2 else np.nan
    if not 0 < norm < np.inf:
        raise ValueError(f"direction of shape {direction.shape}: must be a finite matrix, not 0")
    along = direction.ravel() / norm
    across = np.zeros((n, *direction.shape)) if noise is None else np.asarray(noise, np.float64)
    if across.shape != (n, *direction.shape):
        raise ValueError(f"noise of shape {across.shape}: must be {(n, *direction.shape)}")
    across = across.reshape(n, -1)
    size = np.abs(across).max(initial=1)
    if not (np.abs(across @ along) <= 1e-9 * size).all():
        raise ValueError("noise: ⟨direction, noise⟩ must be 0 for every component")
    if not (np.abs(slopes @ across) <= 1e-9 * size * np.abs(slopes).sum()).all():
        raise ValueError("noise: its sum, weighted by the slopes, must be 0")

    def loss(x: Array, component: PyTree) -> Array:
        height = jnp.asarray(along, x.dtype) @ x
        return component["slope"] * (unit_value(height) + component["noise"] @ x)

    return from_loss(loss, {"slope": slopes, "noise": across}, shape=along.size)


def fixed_matrix(kind: str, size: int, generator: np.random.Generator) -> np.ndarray:
    """A square matrix of Frobenius norm 1: of one of `KINDS`, random but for the identity.

    Raises:
      ValueError: the kind is none of `KINDS`.
    """
    normal = generator.standard_normal((size, size))
    orthogonal = np.linalg.qr(normal)[0]
    match kind:
        case "identity":
            matrix = np.eye(size)
        case "orthogonal":
            matrix = orthogonal
        case "rank_one":
            matrix = np.outer(orthogonal[0], orthogonal[-1])
        case "generic":
            matrix = normal
        case _:
            raise ValueError(f"kind={kind!r} is not one of {', '.join(KINDS)}")
    return np.asarray(matrix / np.linalg.norm(matrix))


def noise_across(
    direction: Float[np.ndarray, "rows columns"],
    n: int,
    size: float,
    generator: np.random.Generator,
) -> Float[np.ndarray, "n rows columns"]:
    """Gaussian noise for `matrix_counterexample`: 0 in the component of the large slope.

    In the others it is across the direction and sums to 0; their root mean square norm is `size`.

    Raises:
      ValueError: the direction is a 1 × 1 matrix.
    """
    along = direction / np.linalg.norm(direction)
    noise = generator.standard_normal((n - 1, *direction.shape))
    noise -= np.tensordot(noise, along, axes=2)[:, None, None] * along
    noise -= noise.mean(axis=0)
    scale = np.sqrt((noise**2).sum(axis=(1, 2)).mean())
    if direction.size < 2:
        raise ValueError(f"direction of shape {direction.shape}: a number has no room across it")
    return np.concatenate([np.zeros((1, *direction.shape)), size * noise / scale])
