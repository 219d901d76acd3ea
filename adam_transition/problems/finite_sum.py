"""The finite-sum protocol: f(x) = (1/n) Σ_{i<n} f_i(x); a component is a mini-batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PyTree

from adam_transition import checks


@runtime_checkable
class FiniteSum(Protocol):
    """A finite sum. Implementations are pytrees, so problems can be vmapped over parameters.

    A point x is one array, of shape () in the one-dimensional constructions and (d,) in the others.
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
        """x*, of shape `shape`, or None if it is unknown."""
        ...

    def value(self, index: ArrayLike, x: Array) -> Array:
        """f_i(x), of shape ()."""
        ...

    def gradient(self, index: ArrayLike, x: Array) -> Array:
        """∇f_i(x), of the shape of x."""
        ...

    def project(self, x: Array) -> Array:
        """The nearest feasible point; x itself if the problem has no constraint."""
        ...


P = TypeVar("P", bound=FiniteSum)

Leaf: TypeAlias = Any
"""An array of the shape that a comment gives, a number, or what JAX puts in its place: problems are
pytrees, which may be stacked and mapped over."""


def component_gradients(problem: FiniteSum, x: Array, num_components: int) -> Array:
    """The table of ∇f_i(x), of shape `(n, *shape)`; n cannot be traced, because it is a shape."""
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
    """(1/n) Σ_{i<n} function(i, x) for a traced n.

    Args:
      function: takes the index of a component and x, and returns an array.
      x: a point.
      n: number of components; may be traced.
      max_components: an upper bound on n; static. The function is evaluated for so many components.
    """
    values = jax.vmap(function, in_axes=(0, None))(jnp.arange(max_components), x)
    exists = (jnp.arange(max_components) < n).reshape(-1, *[1] * (values.ndim - 1))
    return jnp.sum(values, axis=0, where=exists) / n


def gap(problem: FiniteSum, x: Array) -> Float[Array, ""]:
    """‖x − x*‖; NaN if the minimiser is unknown."""
    if problem.minimiser is None:
        return jnp.full((), jnp.nan, x.dtype)
    difference = x - jnp.asarray(problem.minimiser, x.dtype)
    return jnp.abs(difference) if difference.ndim == 0 else jnp.linalg.norm(difference)


def as_arrays(problem: P, dtype: jnp.dtype | type) -> P:
    """The problem with array leaves: floats in `dtype`, signed integers in int32.

    Booleans, unsigned integers and PRNG keys keep their dtypes.
    """

    def convert(leaf: Any) -> Array:
        if jax.dtypes.issubdtype(getattr(leaf, "dtype", np.float64), jax.dtypes.extended):
            return leaf  # PRNG keys
        if isinstance(leaf, Fraction):
            leaf = float(leaf)
        kind = jnp.result_type(leaf)
        if jnp.issubdtype(kind, jnp.floating):
            return jnp.asarray(leaf, dtype)
        return jnp.asarray(leaf, jnp.int32 if jnp.issubdtype(kind, jnp.signedinteger) else kind)

    return jax.tree.map(convert, problem)


def stack(problems: list[P], dtype: jnp.dtype | type) -> P:
    """One problem whose leaves have a leading axis, over which it can be vmapped.

    Leaves of different sizes (for example tables of n rows) are padded with zeros at the end;
    components beyond a problem's own n are never drawn.

    Raises:
      ValueError: the problems belong to different families.
    """
    arrays = [as_arrays(p, dtype) for p in problems]
    if len({jax.tree.structure(p) for p in arrays}) != 1:
        raise ValueError("only problems of one family can be stacked")

    def pad_and_stack(*leaves: Array) -> Array:
        if jax.dtypes.issubdtype(leaves[0].dtype, jax.dtypes.prng_key):
            data = pad_and_stack(*(jax.random.key_data(leaf) for leaf in leaves))
            return jax.random.wrap_key_data(data, impl=jax.random.key_impl(leaves[0]))
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
    """A finite sum with any JAX loss: f_i(x) = loss(x, data[i]); made with `from_loss`."""

    data: PyTree  # leaves of shape (n, …)
    minimiser: Leaf | None
    num_components: Leaf
    bounds: tuple[Leaf, Leaf] | None  # (low, high), each of the shape of x
    loss: Callable[[Array, PyTree], Array] = field(metadata={"static": True})
    shape: tuple[int, ...] = field(metadata={"static": True})
    nearest_feasible: Callable[[Array], Array] | None = field(metadata={"static": True})

    def value(self, index: ArrayLike, x: Array) -> Array:
        return self.loss(x, self._component(index))

    def gradient(self, index: ArrayLike, x: Array) -> Array:
        return jax.grad(self.loss)(x, self._component(index))

    def project(self, x: Array) -> Array:
        if self.nearest_feasible is not None:
            return self.nearest_feasible(x)
        if self.bounds is None:
            return x
        x = jnp.asarray(x)
        low, high = (jnp.asarray(bound, x.dtype) for bound in self.bounds)
        return jnp.clip(x, low, high)

    def _component(self, index: ArrayLike) -> PyTree:
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[index], self.data)


def from_loss(
    loss: Callable[[Array, PyTree], Array],
    data: PyTree,
    *,
    shape: tuple[int, ...] | int = (),
    minimiser: ArrayLike | Sequence[float] | None = None,
    project: Callable[[Array], Array] | None = None,
    bounds: tuple[ArrayLike | list, ArrayLike | list] | None = None,
) -> Custom:
    """A finite sum from a user's loss: component i is `loss(x, data[i])`.

    Gradients are computed by automatic differentiation.

    Args:
      loss: a differentiable function of (x, example) that returns a scalar.
      data: a pytree of arrays with a common leading axis of length n. Booleans, integers and PRNG
        keys reach the loss unchanged, floats in the dtype of the simulation.
      shape: the shape of x, () or (d,); an integer d means (d,).
      minimiser: x*, if known; with a constraint, the minimiser over feasible x.
      project: a constraint, as a function from x to the nearest feasible point; JAX must be able to
        trace it.
      bounds: a constraint low ≤ x ≤ high: numbers or arrays of the shape of x, ±inf for no bound.

    Raises:
      ValueError: an argument is invalid; the message names it, or the leaf of the data.

    >>> problem = from_loss(lambda x, b: 0.5 * (x - b) ** 2, jnp.array([0.0, 3.0]), minimiser=1.5)
    >>> component_gradients(problem, jnp.float32(1.0), 2)
    Array([ 1., -2.], dtype=float32)
    >>> constrained = from_loss(lambda x, s: s * x, jnp.array([3.0, -1.0]), bounds=(-1, 1))
    >>> constrained.project(jnp.float32(2))
    Array(1., dtype=float32)
    """
    shape = _shape_of_point(shape)
    n = _common_length(data)
    problem = Custom(data, minimiser, n, _checked_bounds(bounds, shape), loss, shape, project)
    if project is not None and bounds is not None:
        raise ValueError("project and bounds: give one of them")
    example = jax.tree.map(_example, data)
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    for name, function, arguments, expected in (
        ("loss", loss, (x, example), ()),
        ("project", problem.project, (x,), shape),
    ):
        try:
            result = jax.eval_shape(function, *arguments)
        except (
            jax.errors.ConcretizationTypeError,
            jax.errors.NonConcreteBooleanIndexError,
            jax.errors.TracerArrayConversionError,
            jax.errors.TracerIntegerConversionError,
        ) as error:
            raise ValueError(
                f"{name}: JAX cannot trace it; write jnp.where or jax.lax.cond for an if on x or "
                "data, and jax.numpy for NumPy"
            ) from error
        if name == "loss" and not jnp.issubdtype(getattr(result, "dtype", float), jnp.floating):
            raise ValueError(f"loss must return a real number, not {result}")
        if getattr(result, "shape", None) != expected:
            must = "a scalar" if name == "loss" else f"a point of shape {expected}"
            raise ValueError(f"{name} must return {must}, not {result}")
    if minimiser is not None and checks.is_concrete(minimiser):
        problem = replace(problem, minimiser=_checked_minimiser(problem))
    return problem


def _shape_of_point(shape: Any) -> tuple[int, ...]:
    sizes = shape if isinstance(shape, tuple | list) else (shape,)
    if not all(isinstance(size, int | np.integer) and size > 0 for size in sizes):
        raise ValueError(
            f"shape={shape!r}: x is one array, of shape () or (d,); flatten a pytree with "
            "jax.flatten_util.ravel_pytree"
        )
    return tuple(int(size) for size in sizes)


def _common_length(data: PyTree) -> int:
    lengths: dict[int, str] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(data):
        name = f"data{jax.tree_util.keystr(path)}"
        is_array = hasattr(leaf, "dtype") and hasattr(leaf, "shape")
        if not is_array and not isinstance(leaf, bool | int | float | complex):
            raise ValueError(
                f"{name} is a {type(leaf).__name__}, not an array; let the loss close over it (of "
                "an Equinox module keep eqx.filter(module, eqx.is_array))"
            )
        if not np.ndim(leaf):
            raise ValueError(
                f"{name} is a single number, but data need one common leading axis, of length n; "
                "a list is a pytree here: pass np.asarray(list)"
            )
        if isinstance(leaf, np.ndarray) and leaf.dtype.kind == "O":
            raise ValueError(f"{name} holds Python objects; it must be an array of numbers")
        if isinstance(leaf, np.ma.MaskedArray):
            raise ValueError(f"{name} is a masked array; fill it, and pass the mask as data too")
        if isinstance(leaf, np.ndarray) and (leaf.dtype.names or leaf.dtype.kind not in "biufcV"):
            raise ValueError(f"{name} holds {leaf.dtype}; it must be an array of numbers")
        if jnp.issubdtype(leaf.dtype, jnp.integer) and checks.is_concrete(leaf) and leaf.size:
            most = 2**32 if jnp.issubdtype(leaf.dtype, jnp.unsignedinteger) else 2**31
            if not -(2**31) <= int(leaf.min()) <= int(leaf.max()) < most:
                raise ValueError(
                    f"{name}: {leaf.dtype} values must fit into 32 bits; renumber them"
                )
        lengths.setdefault(leaf.shape[0], name)
    if len(lengths) != 1 or 0 in lengths:
        found = ", ".join(f"{length} ({name})" for length, name in sorted(lengths.items()))
        raise ValueError(f"data must have one common leading axis; found lengths {found or 'none'}")
    return next(iter(lengths))


def _example(leaf: Any) -> jax.ShapeDtypeStruct:
    dtype = leaf.dtype
    if not jax.dtypes.issubdtype(dtype, jax.dtypes.extended):
        dtype = jax.dtypes.canonicalize_dtype(dtype)
    return jax.ShapeDtypeStruct(leaf.shape[1:], dtype)


def _checked_bounds(
    bounds: tuple[ArrayLike | list, ArrayLike | list] | None, shape: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray] | None:
    if bounds is None:
        return None
    try:
        low, high = (np.broadcast_to(np.asarray(b, np.float64), shape) for b in bounds)
    except (TypeError, ValueError):
        raise ValueError(
            f"bounds={bounds!r}: must be (low, high), numbers or arrays of shape {shape}"
        ) from None
    if not (low < high).all():
        raise ValueError(f"bounds={bounds!r}: low must be below high")
    return low, high


def _checked_minimiser(problem: Custom) -> np.ndarray:
    try:
        best = np.asarray(problem.minimiser, np.float64)
    except (TypeError, ValueError):
        best = np.asarray(np.nan)
    if best.shape != problem.shape or not np.isfinite(best).all():
        raise ValueError(
            f"minimiser={problem.minimiser}: must be a finite point of shape {problem.shape}"
        )
    single = checks.rounded(best, np.float32)
    nearest = np.asarray(problem.project(jnp.asarray(single)))
    if not np.allclose(nearest, single, rtol=1e-6, atol=1e-6):
        raise ValueError(f"minimiser={best.tolist()}: not feasible; nearest is {nearest.tolist()}")
    return best
