"""Rewrites a program of small arrays as one of single numbers.

A kernel holds a cell's state in registers or in vectors over cells, so a point of d coordinates is
d numbers to it. Elementwise operations become one operation for each element, sums over an axis and
products of matrices are written out, and operations that only move elements disappear.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

_MOST_OPERATIONS = 600  # XLA takes two seconds to compile these, and ten for 2500
_MOST_NUMBERS = 600  # of inputs

_MOVES = {
    "broadcast_in_dim", "concatenate", "pad", "reshape", "rev", "slice", "split", "squeeze",
    "tile", "transpose",
}  # fmt: skip
_REDUCTIONS: dict[str, Callable[[Any, Any], Any]] = {
    "reduce_sum": operator.add,
    "reduce_prod": operator.mul,
    "reduce_max": jnp.maximum,
    "reduce_min": jnp.minimum,
    "reduce_and": operator.and_,
    "reduce_or": operator.or_,
}


class NotScalarizedError(ValueError):
    """A program that cannot be written out in single numbers, or only in too many of them."""


def numbers(values: Any) -> np.ndarray:
    """The elements of an array, traced or not, in an array of objects of its shape."""
    found = np.empty(np.size(values), object)
    for place, index in enumerate(np.ndindex(np.shape(values))):
        found[place] = values[index]
    return found.reshape(np.shape(values))


def scalarized(program: core.Jaxpr) -> Callable[..., list[np.ndarray]]:
    """A function that runs a program on arrays of single numbers (`numbers`).

    Args:
      program: a program without constants and calls.

    Returns:
      A function of the program's inputs, arrays of objects, that returns its results as such. It
      raises `NotScalarizedError` if it meets an operation that is neither elementwise, a sum or
      product over an axis, a product of matrices, nor a move, or too many of them.

    Raises:
      NotScalarizedError: the inputs have too many numbers.
    """
    inputs: list[Any] = program.invars
    size = sum(v.aval.size for v in inputs)
    if size > _MOST_NUMBERS:
        raise NotScalarizedError(f"{size} numbers enter a step; at most {_MOST_NUMBERS} may")

    def run(*inputs: np.ndarray) -> list[np.ndarray]:
        known, count = dict(zip(program.invars, inputs, strict=True)), itertools.count()

        def read(atom: Any) -> np.ndarray:
            is_literal = isinstance(atom, core.Literal)
            return numbers(np.asarray(atom.val, atom.aval.dtype)) if is_literal else known[atom]

        for equation in program.eqns:
            found = _operation(equation, [read(atom) for atom in equation.invars], count)
            known |= dict(zip(equation.outvars, found, strict=True))
        return [read(atom) for atom in program.outvars]

    return run


def _operation(equation: Any, inputs: list[np.ndarray], count: Iterator[int]) -> list[np.ndarray]:
    primitive, parameters = equation.primitive, _of_numbers(equation.params)
    types = {atom.aval.dtype for atom in (*equation.invars, *equation.outvars)}
    if primitive.name == "convert_element_type" and len(types) == 1:
        return inputs  # only its weak type is lost
    if primitive.name in _MOVES:
        return _moved(primitive, inputs, parameters)
    if primitive.name in _REDUCTIONS:
        combine = _counted(_REDUCTIONS[primitive.name], count)
        return [_reduced(combine, inputs[0], parameters["axes"])]
    if primitive.name == "dot_general":
        dtype, (left, right) = equation.outvars[0].aval.dtype, inputs
        return [_product(left, right, parameters["dimension_numbers"], dtype, count)]
    if not _is_elementwise(equation):
        raise NotScalarizedError(f"{primitive.name} cannot be written as single numbers")
    return [_each(_counted(functools.partial(primitive.bind, **parameters), count), *inputs)]


def _counted(function: Callable[..., Any], count: Iterator[int]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        if next(count) >= _MOST_OPERATIONS:
            raise NotScalarizedError(f"more than {_MOST_OPERATIONS} operations on single numbers")
        return function(*arguments)

    return call


def _each(function: Callable[..., Any], *arrays: np.ndarray) -> np.ndarray:
    """The function of each element, on arrays of objects, which broadcast."""
    found = np.empty(np.broadcast_shapes(*(array.shape for array in arrays)), object)
    return np.frompyfunc(function, len(arrays), 1)(*arrays, out=found)


def _is_elementwise(equation: Any) -> bool:
    """Whether the primitive takes single numbers and, mapped over them, is itself on vectors."""
    if len(equation.outvars) != 1:
        return False
    shapes = [atom.aval.shape for atom in equation.invars]
    if equation.outvars[0].aval.shape != np.broadcast_shapes(*shapes):
        return False
    bind = functools.partial(equation.primitive.bind, **_of_numbers(equation.params))
    vectors = [jax.ShapeDtypeStruct((3,), atom.aval.dtype) for atom in equation.invars]
    try:
        mapped = jax.make_jaxpr(jax.vmap(bind))(*vectors).jaxpr.eqns
    except Exception:  # primitives say in many ways that they do not take single numbers
        return False
    found = [(e.primitive, _of_numbers(e.params)) for e in mapped]
    return found == [(equation.primitive, _of_numbers(equation.params))]


def _of_numbers(parameters: dict[str, Any]) -> dict[str, Any]:
    """The parameters without the sharding that differentiation leaves in conversions."""
    return {**parameters, "sharding": None} if "sharding" in parameters else parameters


def _moved(
    primitive: core.Primitive, inputs: list[np.ndarray], parameters: Any
) -> list[np.ndarray]:
    """Where the elements go: the operation on their positions tells."""
    elements = np.concatenate([array.ravel() for array in inputs])
    ends = np.cumsum([array.size for array in inputs])
    with jax.ensure_compile_time_eval():
        positions = [
            jnp.arange(end - array.size, end, dtype=jnp.int32).reshape(array.shape)
            for end, array in zip(ends, inputs, strict=True)
        ]
        found = [np.asarray(p) for p in jax.tree.leaves(primitive.bind(*positions, **parameters))]
    return [elements[places.ravel()].reshape(places.shape) for places in found]


def _reduced(
    combine: Callable[[Any, Any], Any], values: np.ndarray, axes: Sequence[int]
) -> np.ndarray:
    stacked = np.moveaxis(values, axes, range(len(axes)))
    stacked = stacked.reshape(-1, *stacked.shape[len(axes) :])
    lines = (stacked[i, ...] for i in range(len(stacked)))  # arrays, where [i] may be a number
    return functools.reduce(functools.partial(_each, combine), lines)


def _product(
    left: np.ndarray, right: np.ndarray, dimensions: Any, dtype: Any, count: Iterator[int]
) -> np.ndarray:
    """The product as `jax.lax.dot_general` defines it: axes of the batch, of left, of right."""
    contracted, batch = dimensions
    left, right = (
        np.moveaxis(
            _each(lambda value: jax.lax.convert_element_type(value, dtype), values),
            [*shared, *summed],
            [*range(len(shared)), *range(-len(summed), 0)],
        )
        for values, summed, shared in zip((left, right), contracted, batch, strict=True)
    )
    free = left.ndim - len(batch[0]) - len(contracted[0])
    others = right.ndim - len(batch[0]) - len(contracted[0])
    end = [slice(None)] * len(contracted[0])
    left = left[(..., *[None] * others, *end)]
    right = right[(*[slice(None)] * len(batch[0]), *[None] * free, ...)]
    terms = _each(_counted(operator.mul, count), left, right)
    axes = range(terms.ndim - len(contracted[0]), terms.ndim)
    return _reduced(_counted(operator.add, count), terms, axes)
