"""The finite-sum protocol: f(x) = (1/n) Σ_{i<n} f_i(x), one component a mini-batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
    from jaxtyping import Array, ArrayLike, Float, PyTree


@runtime_checkable
class FiniteSum(Protocol):
    """A finite sum. Implementations are pytrees, so problems can be vmapped over parameters.

    A point x is one array; the one-dimensional constructions use shape (), others (d,).
    """

    @property
    def num_components(self) -> ArrayLike:
        """n, an integer that may be traced."""
        ...

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a point: () or (d,)."""
        ...

    @property
    def minimiser(self) -> ArrayLike | None:
        """x*, of shape `shape`, or None where it is not known."""
        ...

    def value(self, index: ArrayLike, x: Array) -> Array:
        """f_i(x), of shape ()."""
        ...

    def gradient(self, index: ArrayLike, x: Array) -> Array:
        """∇f_i(x), of the shape of x."""
        ...

    def project(self, x: Array) -> Array:
        """The nearest feasible point; x itself where the problem has no constraint."""
        ...


P = TypeVar("P", bound=FiniteSum)


def component_gradients(problem: FiniteSum, x: Array, num_components: int) -> Array:
    """The table of ∇f_i(x), of shape `(n, *shape)`; n is a number because it is a shape."""
    return jax.vmap(problem.gradient, in_axes=(0, None))(jnp.arange(num_components), x)


def objective(problem: FiniteSum, x: Array, num_components: int) -> Float[Array, ""]:
    """f(x) = (1/n) Σ f_i(x)."""
    return jax.vmap(problem.value, in_axes=(0, None))(jnp.arange(num_components), x).mean()


def full_gradient(problem: FiniteSum, x: Array, num_components: int) -> Array:
    """∇f(x) = (1/n) Σ ∇f_i(x), of the shape of x."""
    return component_gradients(problem, x, num_components).mean(axis=0)


def mean_over_components(
    function: Callable[[ArrayLike, Array], Array], x: Array, n: ArrayLike, max_components: int
) -> Array:
    """(1/n) Σ_{i<n} function(i, x) where n is traced: max_components is evaluated, n counted."""
    values = jax.vmap(function, in_axes=(0, None))(jnp.arange(max_components), x)
    exists = (jnp.arange(max_components) < n).reshape(-1, *[1] * (values.ndim - 1))
    return jnp.sum(values, axis=0, where=exists) / n


def gap(problem: FiniteSum, x: Array) -> Float[Array, ""]:
    """‖x − x*‖; NaN where the minimiser is not known."""
    if problem.minimiser is None:
        return jnp.full((), jnp.nan, x.dtype)
    difference = x - jnp.asarray(problem.minimiser, x.dtype)
    return jnp.abs(difference) if difference.ndim == 0 else jnp.linalg.norm(difference)


def as_arrays(problem: P, dtype: jnp.dtype | type) -> P:
    """The problem with array leaves: integers as int32, everything else as dtype."""

    def convert(leaf: object) -> Array:
        if isinstance(leaf, int) or np.issubdtype(getattr(leaf, "dtype", np.float64), np.integer):
            return jnp.asarray(leaf, jnp.int32)
        if hasattr(leaf, "dtype"):
            return jnp.asarray(leaf, dtype)
        return jnp.asarray(float(leaf), dtype)  # type: ignore[arg-type]

    return jax.tree.map(convert, problem)


def stack(problems: list[P], dtype: jnp.dtype | type) -> P:
    """One problem whose leaves have a leading axis, to be vmapped over.

    Leaves of different sizes (a table of n rows, say) are padded with zeros at the end; components
    past a problem's own n are never drawn.

    Raises:
      ValueError: problems of different families.
    """
    arrays = [as_arrays(p, dtype) for p in problems]
    if len({jax.tree.structure(p) for p in arrays}) != 1:
        raise ValueError("only problems of one family can be stacked")

    def pad_and_stack(*leaves: Array) -> Array:
        shape = np.max([leaf.shape for leaf in leaves], axis=0, initial=0).astype(int)
        stacked = np.zeros((len(leaves), *shape), leaves[0].dtype)
        for i, leaf in enumerate(leaves):
            corner: tuple[Any, ...] = (i, *(slice(0, size) for size in leaf.shape))
            stacked[corner] = leaf
        return jnp.asarray(stacked)

    return jax.tree.map(pad_and_stack, *arrays)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Custom:
    """A finite sum made from any JAX loss: f_i(x) = loss(x, data[i]); made by `from_loss`."""

    data: PyTree  # leaves of shape (n, …)
    minimiser: ArrayLike | None
    num_components: ArrayLike
    loss: Callable[[Array, PyTree], Array] = field(metadata={"static": True})
    shape: tuple[int, ...] = field(metadata={"static": True})

    def value(self, index: ArrayLike, x: Array) -> Array:
        return self.loss(x, self._component(index))

    def gradient(self, index: ArrayLike, x: Array) -> Array:
        return jax.grad(self.loss)(x, self._component(index))

    def project(self, x: Array) -> Array:
        return x

    def _component(self, index: ArrayLike) -> PyTree:
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[index], self.data)


def from_loss(
    loss: Callable[[Array, PyTree], Array],
    data: PyTree,
    *,
    shape: tuple[int, ...] = (),
    minimiser: ArrayLike | None = None,
) -> Custom:
    """A user's finite sum: component i is `loss(x, data[i])`, gradients come from autodiff.

    Args:
      loss: a differentiable function of (x, example) that returns a scalar.
      data: a pytree of arrays with a common leading axis of length n.
      shape: the shape of x, () or (d,).
      minimiser: x*, where it is known.

    Raises:
      ValueError: leaves of different lengths, or a loss that does not return a scalar.

    >>> problem = from_loss(lambda x, b: 0.5 * (x - b) ** 2, jnp.array([0.0, 3.0]), minimiser=1.5)
    >>> component_gradients(problem, jnp.float32(1.0), 2)
    Array([ 1., -2.], dtype=float32)
    """
    lengths = {np.shape(leaf)[0] if np.ndim(leaf) else 0 for leaf in jax.tree.leaves(data)}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"data must have one common leading axis; found lengths {sorted(lengths)}")
    example = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), data)
    result = jax.eval_shape(loss, jax.ShapeDtypeStruct(shape, jnp.float32), example)
    if getattr(result, "shape", None) != ():
        raise ValueError(f"loss must return a scalar, not {result}")
    return Custom(data, minimiser, lengths.pop(), loss, shape)
