"""Mini-batch gradients at frozen parameters, from a loss in JAX or from rows of any library."""

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, PyTree
from tqdm import tqdm

from adam_transition.advise import arguments, sampling_error
from adam_transition.advise.sampling_error import ConfidenceInterval
from adam_transition.sweeps import keys

_NO_MEAN = (
    "the mean gradient is zero at these parameters: there is no direction to keep. Look for units "
    "that are always off (a dead network), a loss that does not depend on the parameters, or "
    "gradients that underflow, and probe a checkpoint from before"
)

_LARGEST = 1e120  # of a row's entries: norms of 1e12 parameters must not overflow


class GradientTable(NamedTuple):
    """Mini-batch gradients at one point, for some coordinates of the parameters.

    Create it with `gradient_table`, or with `GradientTable.from_rows` from gradients of any
    library.
    """

    rows: Float[np.ndarray, "n k"]
    num_parameters: int
    squared_norms: Float[np.ndarray, " n"]  # ‖g_i‖² over all parameters
    mean_squared_norm: float  # ‖mean of g_i‖² over all parameters
    alignments: Float[np.ndarray, " n"] | None = None  # ⟨g_i, mean of g_0 … g_{i−1}⟩, likewise
    complete: bool = False  # whether the rows are all existing mini-batches, equally often

    @classmethod
    def from_rows(
        cls, rows: Any, *, num_parameters: int | None = None, complete: bool = False
    ) -> "GradientTable":
        """A table from gradients that were computed elsewhere, one mini-batch per row.

        Args:
          rows: [n, k], anything that NumPy can read: arrays, lists, tensors on the CPU.
          num_parameters: of the whole model, if the k coordinates were drawn from it at random;
            norms are then estimated from the rows. k if None.
          complete: whether the rows are all existing mini-batches and not a sample.

        Raises:
          ValueError: rows that are not a table of finite numbers, have masked entries, are fewer
            than two, have a mean of zero, or entries of a size beyond 1e±120.
        """
        found = checked_rows(rows)
        whole = found.shape[1]
        if num_parameters is not None:
            whole = arguments.whole("num_parameters", num_parameters)
        if whole < found.shape[1]:
            raise ValueError(f"num_parameters={whole} is below the {found.shape[1]} of the rows")
        scale = whole / found.shape[1]
        squares, mean = scale * (found**2).sum(axis=1), found.mean(axis=0)
        if not mean.any():
            raise ValueError(f"rows: {_NO_MEAN}")
        return cls(found, whole, squares, float(scale * (mean**2).sum()), None, complete)

    @property
    def noise_ratio(self) -> float:
        """E‖g_i‖²/‖E g_i‖²: D1/n of assumption A2 at this point, if D0 = 0.

        The variance of the mean of the rows is subtracted from its square; the ratio is infinite if
        nothing is left.
        """
        square, mean = self._norms()
        return square / mean if mean > 0 else np.inf

    @property
    def noise_ratio_interval(self) -> ConfidenceInterval:
        """95 % interval over the choice of batches; no upper end if the mean is lost in noise."""
        square, mean = self._norms()
        if self.complete:
            return ConfidenceInterval(square / mean, square / mean)
        squares, n = np.asarray(self.squared_norms, np.float64), len(self.rows)
        aligned, part = self._alignments()
        influence = 2 * (aligned - aligned.mean()) - mean / square * (
            squares[part] - squares[part].mean()
        )
        half = sampling_error.half_widths(influence, n)
        low, high = (mean - half.down) / square, (mean + half.up) / square
        unseen = sampling_error.mean_with_tail(squares) / square
        low /= unseen
        return ConfidenceInterval(1 / high if high > 0 else np.inf, 1 / low if low > 0 else np.inf)

    @property
    def skewness(self) -> Float[np.ndarray, " k"]:
        """Third standardised moment of each coordinate; 0 where it does not vary."""
        return sampling_error.skewness(np.asarray(self.rows, np.float64))

    @property
    def skewness_interval(self) -> ConfidenceInterval:
        """95 % interval of each coordinate's skewness over the choice of batches, two arrays [k].

        Infinite where the largest rows do not bound it: if they have most of the third moment, or
        fall off so slowly that it may not exist.
        """
        rows = np.asarray(self.rows, np.float64)
        if self.complete:
            return ConfidenceInterval(self.skewness, self.skewness)
        return sampling_error.skewness_interval(rows)

    @property
    def unseen(self) -> float:
        """A kind of batch rarer than this is missing from the table with 5 % probability or more.

        This is the rule of three, 3/n; 0 if the table is complete. No error bar accounts for
        batches that are unlike all those in the table.
        """
        return 0.0 if self.complete else min(1.0, 3 / len(self.rows))

    def _norms(self) -> tuple[float, float]:
        """E‖g‖² and ‖E g‖², the latter unbiased."""
        n = len(self.rows)
        square, mean = float(np.mean(self.squared_norms)), float(self.mean_squared_norm)
        return square, mean if self.complete else (n * mean - square) / (n - 1)

    def _alignments(self) -> tuple[np.ndarray, slice]:
        """The best available estimates of ⟨g_i, E g⟩, and the rows that they are for."""
        rows, n = np.asarray(self.rows, np.float64), len(self.rows)
        if self.alignments is not None and n >= 8:
            # only the later half, as means of few rows are noise
            part = slice(n // 2, None)
            return np.asarray(self.alignments, np.float64)[part], part
        return self.num_parameters / rows.shape[1] * (rows @ rows.mean(axis=0)), slice(None)


def checked_rows(rows: Any) -> Float[np.ndarray, "n k"]:
    """The rows in float64.

    Raises:
      ValueError: rows that are not a table of finite numbers, are fewer than two, have no
        coordinate, masked entries, or entries whose squares over- or underflow.
    """
    if np.ma.is_masked(rows):
        raise ValueError("rows: a masked array with entries missing: fill them or leave them out")
    try:
        found = np.asarray(rows)
        if found.dtype.kind not in "fiub" and found.dtype.name not in ("bfloat16",):
            raise TypeError(f"of type {found.dtype}")
        found = found.astype(np.float64)
    except (TypeError, ValueError, RuntimeError) as error:
        first = " ".join(str(error).split())
        raise ValueError(f"rows: needs a table of numbers, one batch a row: {first}") from None
    if found.ndim != 2 or found.shape[1] < 1:
        raise ValueError(f"rows have shape {found.shape}: needs [batches, coordinates]")
    if len(found) < 2:
        raise ValueError(f"{len(found)} batches: need at least two")
    bad = np.flatnonzero(~np.isfinite(found).all(axis=1))
    if len(bad):
        raise ValueError(f"row {bad[0]} of {len(found)} is not finite; {len(bad)} such in all")
    largest = float(np.abs(found).max())
    if largest > 0 and not 1 / _LARGEST <= largest <= _LARGEST:
        raise ValueError(
            f"rows: the largest entry is {largest:.3g}, whose square floats do not hold or nearly "
            f"so: rescale gradients, and ε with them, to between {1 / _LARGEST:g} and {_LARGEST:g}"
        )
    return found


def gradient_table(
    loss: Callable[..., Any],
    params: PyTree,
    batches: Iterable[Any],
    key: Key[Array, ""],
    *,
    num_coordinates: int = 64,
    has_aux: bool = False,
    key_per_batch: bool = False,
    complete: bool = False,
) -> GradientTable:
    """Computes gradients of a loss at params, one batch at a time; keeps some coordinates of each.

    Memory: two gradients in float32 or wider and n × num_coordinates numbers. Progress is shown on
    stderr, if that is a terminal. Sums are in float32 or wider, whatever the parameters' type.

    State that the loss reads but does not train (running means of a batch norm) belongs in the
    function: `lambda p, batch: model_loss(p, state, batch)`. Randomness such as dropout needs a key
    per batch: `key_per_batch=True`. A `flax.nnx` module can be passed directly; it is not changed,
    and its random streams advance from batch to batch.

    Args:
      loss: (params, batch) → scalar, differentiable by JAX; (params, batch, key) with
        `key_per_batch`. For gradients of other libraries use `GradientTable.from_rows`.
      params: any pytree; its floating-point arrays are watched, all else is passed on unchanged.
      batches: a finite iterable of mini-batches of one size, pytrees of arrays and numbers.
      key: chooses the coordinates.
      num_coordinates: how many to keep; all if there are fewer.
      has_aux: whether the loss returns (value, anything).
      key_per_batch: whether the loss takes a separate key for each batch.
      complete: whether the batches are all that exist and not a sample.

    Raises:
      ValueError: naming the batch or the leaf: a loss that is not a finite scalar, batches of
        several sizes, fewer than two, gradients that are not finite, a mean of zero, nothing to
        differentiate.
    """
    if isinstance(batches, Mapping | str | bytes):
        raise ValueError(f"batches is one {type(batches).__name__}: needs an iterable of batches")
    key = keys.checked(key)
    evaluate, params = _evaluation(loss, params, key if key_per_batch else None)
    leaves, structure = jax.tree_util.tree_flatten(params)
    trained = _trained(params)
    start = [jnp.asarray(leaf) for leaf, one in zip(leaves, trained, strict=True) if one]
    size = sum(leaf.size for leaf in start)
    num_coordinates = arguments.whole("num_coordinates", num_coordinates)
    if not size:
        raise ValueError(f"num_coordinates={num_coordinates} of {size} parameters: need one")
    chosen = _chosen([leaf.size for leaf in start], min(num_coordinates, size), key)

    @jax.jit
    def one(trained_leaves: list[Array], total: list[Array], batch: Any, i: Array) -> _Gradient:
        def of_trained(trained_leaves: list[Array]) -> Array:
            rest = iter(trained_leaves)
            whole = [next(rest) if on else leaf for leaf, on in zip(leaves, trained, strict=True)]
            return _scalar(
                evaluate(jax.tree_util.tree_unflatten(structure, whole), batch, i), has_aux
            )

        value, gradient = jax.value_and_grad(of_trained)(trained_leaves)
        wide = [_wide(g) for g in gradient]
        return _Gradient(
            _wide(value),
            jnp.concatenate([g.reshape(-1)[at] for g, at in zip(wide, chosen, strict=True)]),
            _dot(wide, wide),
            _dot(wide, total),
            [t + g for t, g in zip(total, wide, strict=True)],
        )

    total = [jnp.zeros(leaf.shape, jnp.promote_types(leaf.dtype, jnp.float32)) for leaf in start]
    rows, norms, alignments = [], [], []
    first: tuple[Any, ...] | None = None
    for i, batch in enumerate(tqdm(batches, unit="batch", disable=None)):
        shapes = _shapes(batch, i)
        first = first or shapes
        if shapes != first:
            raise ValueError(
                f"batch {i} has {_named(shapes)}, but batch 0 has {_named(first)}: gradients of "
                f"batches of several sizes are not draws of one kind; leave it out"
            )
        value, kept, square, aligned, total = _called(one, start, total, batch, i)
        row = np.asarray(kept, np.float64)
        norms.append(_product(square))
        if not (np.isfinite(value) and np.isfinite(row).all() and np.isfinite(norms[-1])):
            raise ValueError(f"batch {i}: loss={float(value)} or its gradient is not finite")
        alignments.append(_product(aligned) / max(i, 1))
        rows.append(row)
    if len(rows) < 2:
        used = "; was it a generator that is used up?" if not rows else ""
        raise ValueError(f"{len(rows)} batches: need at least two{used}")
    mean = _product(jax.jit(_dot)(total, total)) / len(rows) ** 2
    if mean == 0:
        raise ValueError(_NO_MEAN)
    return GradientTable(
        np.stack(rows), size, np.array(norms), mean, np.array(alignments), complete
    )


class _Gradient(NamedTuple):
    """The gradient of one batch."""

    value: Float[Array, ""]  # of the loss
    kept: Float[Array, " k"]
    square: tuple[Array, tuple[Array, Array]]  # ‖g‖², see `_dot`
    aligned: tuple[Array, tuple[Array, Array]]  # ⟨g, sum of the gradients before⟩
    total: list[Array]  # sum of the gradients, including this one


def _wide(x: Array) -> Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _dot(one: list[Array], other: list[Array]) -> tuple[Array, tuple[Array, Array]]:
    """⟨one, other⟩ as a mantissa and two factors: small squares underflow in float32."""
    largest = [
        jnp.max(jnp.stack([jnp.max(jnp.abs(x)) for x in xs if x.size])) for xs in (one, other)
    ]
    scales = [jnp.where(x > 0, x, 1) for x in largest]
    parts = [jnp.sum((a / scales[0]) * (b / scales[1])) for a, b in zip(one, other, strict=True)]
    return jnp.sum(jnp.stack(parts)), (scales[0], scales[1])


def _product(found: tuple[Array, tuple[Array, Array]]) -> float:
    mantissa, (first, second) = found
    return float(mantissa) * float(first) * float(second)


def _scalar(found: Any, has_aux: bool) -> Array:
    if isinstance(found, tuple):
        if not has_aux:
            raise ValueError(
                f"loss returns a tuple of {len(found)}: if it is (value, anything), "
                "pass has_aux=True"
            )
        found = found[0]
    elif has_aux:
        raise ValueError("has_aux=True, but loss does not return (value, anything)")
    if jnp.shape(found) != ():
        raise ValueError(f"loss has shape {jnp.shape(found)}: it must be a scalar, such as a mean")
    value = jnp.asarray(found)
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise ValueError(f"loss has dtype {value.dtype}: it must be a floating-point number")
    return value


def _evaluation(
    loss: Callable[..., Any], params: PyTree, key: Key[Array, ""] | None
) -> tuple[Callable[[PyTree, Any, Array], Any], PyTree]:
    """The loss as a function of (params, batch, number of the batch), and the trained pytree."""

    def more(i: Array) -> tuple[Array, ...]:
        return () if key is None else (jax.random.fold_in(key, i),)

    nnx = sys.modules.get("flax.nnx")
    if nnx is None or not isinstance(params, nnx.Module):
        return lambda params, batch, i: loss(params, batch, *more(i)), params
    graph, trained, counts, rest = nnx.split(params, nnx.Param, nnx.RngCount, ...)

    def of_module(trained: PyTree, batch: Any, i: Array) -> Any:
        moved = jax.tree.map(lambda count: count + i.astype(count.dtype), counts)
        module = nnx.merge(graph, trained, moved, rest, copy=True)
        return loss(module, batch, *more(i))

    return of_module, trained


def _trained(params: PyTree) -> list[bool]:
    """For each leaf, whether the loss is differentiated with respect to it."""
    found = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(params)[0]:
        dtype = getattr(leaf, "dtype", None)
        if isinstance(leaf, float):
            found.append(True)
        elif isinstance(leaf, jax.Array | np.ndarray | np.generic) and dtype is not None:
            if jnp.issubdtype(dtype, jnp.complexfloating):
                name = jax.tree_util.keystr(path)
                raise ValueError(
                    f"params{name} is complex: split it into its real and imaginary parts"
                )
            found.append(bool(jnp.issubdtype(dtype, jnp.floating)))
        else:
            found.append(False)
    return found


def _chosen(sizes: list[int], count: int, key: Key[Array, ""]) -> list[np.ndarray]:
    """Draws `count` of all positions, by leaf; by Floyd's algorithm, without a list of all."""
    places = np.sort(keys.generator(key).choice(sum(sizes), count, replace=False, shuffle=False))
    ends = np.cumsum(sizes)
    parts = np.split(places, np.searchsorted(places, ends)[:-1])
    return [part - (end - size) for part, end, size in zip(parts, ends, sizes, strict=True)]


def _shapes(batch: Any, i: int) -> tuple[Any, ...]:
    """The tree structure of a batch, with names and shapes of its leaves.

    Raises:
      ValueError: naming a leaf that is neither an array nor a number.
    """
    found = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(batch)[0]:
        name = jax.tree_util.keystr(path)
        numbers = isinstance(leaf, jax.Array | bool | int | float | complex) or (
            isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.kind not in "OUSMm"
        )
        if not numbers:
            raise ValueError(
                f"batch {i}{name} is a {type(leaf).__name__}: batches hold arrays and numbers only"
            )
        found.append((name, tuple(np.shape(leaf))))
    return (jax.tree.structure(batch), *found)


def _named(shapes: tuple[Any, ...]) -> str:
    return ", ".join(f"{name or 'an array'} of shape {shape}" for name, shape in shapes[1:])


def _called(one: Callable[..., _Gradient], start: Any, total: Any, batch: Any, i: int) -> _Gradient:
    """Calls `one`; turns JAX's errors about losses it cannot differentiate into one line."""
    try:
        return one(start, total, batch, jnp.asarray(i, jnp.int32))
    except jax.errors.JAXTypeError as error:
        kind = type(error).__name__
        raise ValueError(
            f"JAX cannot differentiate this loss ({kind}): it calls NumPy or Python on its "
            "arguments. Write it with jax.numpy, or compute gradients yourself and hand them to "
            "GradientTable.from_rows"
        ) from error
    except Exception as error:
        if type(error).__name__ != "TraceContextError":
            raise
        raise ValueError(
            "loss changes a flax module that lies outside of it: pass the nnx module as params, or "
            "merge it with nnx.merge(..., copy=True)"
        ) from error
