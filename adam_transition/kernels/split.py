"""Splits a function of rows, steps, draws and cells by the dependencies of its values.

A kernel that runs all steps of many cells should compute per cell only the values that differ
between cells. Values that depend only on the row (for example the problem), the step (for example
its size) and the draw (the component index, if each cell has its own stream) are computed by XLA
beforehand and passed to the kernel as numbers: all elements of an array one by one. The program of
a cell is written out in numbers too (`scalarized`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jaxtyping import Array, PyTree

from adam_transition.kernels.scalarized import numbers, scalarized

ROW, STEP, DRAW, CELL = 0, 1, 2, 3


class Split(NamedTuple):
    """`f(row, step, draw, *cell) = of_cell(of_row(…), of_step(…), of_draw(…), *cell)`.

    Every value that is passed on is a number of shape (); `of_cell` takes all elements of `cell` in
    order and returns those of the result as a tuple.
    """

    counts: tuple[int, int, int]  # of the numbers of a row, a step and a draw

    of_row: Callable[[PyTree], list[Array]]
    of_step: Callable[[PyTree, PyTree], list[Array]]
    of_draw: Callable[[PyTree, PyTree, PyTree], list[Array]]
    of_cell: Callable[..., tuple[Array, ...]]


def split(
    function: Callable[..., PyTree], row: PyTree, step: PyTree, draw: PyTree, *cell: PyTree
) -> Split:
    """Splits `function(row, step, draw, *cell)` by dependencies.

    Booleans are passed to `of_cell` as int32, which every kernel language can load.

    Args:
      function: the function.
      row: an example of the values of a row; as in all examples, only shapes and dtypes matter.
      step: an example of the values of a step.
      draw: an example of the values of a draw.
      cell: examples of the values of a cell.

    Raises:
      NotScalarizedError: too many numbers enter the program of a cell; or, when `of_cell` is
        traced, that program cannot be written out in numbers.
    """
    closed = _without_calls(jax.make_jaxpr(function)(row, step, draw, *cell))
    jaxpr = closed.jaxpr
    sizes = [len(jax.tree.leaves(part)) for part in (row, step, draw, cell)]
    inputs = {
        level: jaxpr.invars[sum(sizes[:level]) : sum(sizes[: level + 1])]
        for level in (ROW, STEP, DRAW, CELL)
    }
    level = {var: which for which, variables in inputs.items() for var in variables}
    level |= dict.fromkeys(jaxpr.constvars, ROW)
    equations: dict[int, list[Any]] = {ROW: [], STEP: [], DRAW: [], CELL: []}
    for equation in _live(jaxpr):
        which = max((level[v] for v in _variables(equation.invars)), default=ROW)
        level |= dict.fromkeys(equation.outvars, which)
        equations[which].append(equation)
    used = {*_variables(v for e in equations[CELL] for v in e.invars), *_variables(jaxpr.outvars)}
    above = (ROW, STEP, DRAW)
    kept = {which: [v for v in level if v in used and level[v] == which] for which in above}

    unnamed = jaxpr.debug_info.with_unknown_names()

    def program_above(which: int) -> Callable[..., list[Array]]:
        levels = above[: which + 1]
        part = core.Jaxpr(
            jaxpr.constvars,
            [v for level in levels for v in inputs[level]],
            kept[which],
            [e for level in levels for e in equations[level]],
            debug_info=unnamed,
        )
        found = core.jaxpr_as_fun(core.ClosedJaxpr(part, closed.consts))
        return lambda *args: [
            number for v in found(*jax.tree.leaves(args)) for number in numbers(_as_number(v)).flat
        ]

    passed = [v for which in above for v in kept[which]]
    arguments = [*passed, *inputs[CELL]]
    run = scalarized(core.Jaxpr([], arguments, jaxpr.outvars, equations[CELL], debug_info=unnamed))

    def of_cell(
        of_row: list[Array], of_step: list[Array], of_draw: list[Array], *cell: Array
    ) -> tuple[Array, ...]:
        values = iter([*of_row, *of_step, *of_draw, *cell])
        arrays = []
        for v in arguments:
            array = np.empty(v.aval.size, object)
            for place in range(array.size):
                value = next(values)
                array[place] = value != 0 if v.aval.dtype == jnp.bool else value
            arrays.append(array.reshape(v.aval.shape))
        return tuple(jnp.asarray(number) for array in run(*arrays) for number in array.flat)

    rows, steps, draws = (sum(v.aval.size for v in kept[which]) for which in above)
    programs = program_above(ROW), program_above(STEP), program_above(DRAW)
    return Split((rows, steps, draws), *programs, of_cell)


_CALLS = {
    "jit": "jaxpr",
    "closed_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "checkpoint": "jaxpr",
}


def _without_calls(program: core.ClosedJaxpr) -> core.ClosedJaxpr:
    """The program with the operations of functions that it calls in place of the calls."""

    def run(jaxpr: core.Jaxpr, constants: Sequence[Any], *inputs: Any) -> list[Any]:
        known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *inputs], strict=True))
        for equation in jaxpr.eqns:
            read = [v.val if isinstance(v, core.Literal) else known[v] for v in equation.invars]
            name, parameters = equation.primitive.name, equation.params
            if name in _CALLS:
                inner = parameters[_CALLS[name]]
                is_open = isinstance(inner, core.Jaxpr)
                found = run(inner, (), *read) if is_open else run(inner.jaxpr, inner.consts, *read)
            elif name == "cond":  # all branches, as when it is mapped over cells
                which, *given = read
                cases = [run(one.jaxpr, one.consts, *given) for one in parameters["branches"]]
                found = [jax.lax.select_n(which, *case) for case in zip(*cases, strict=True)]
            else:
                found = equation.primitive.bind(*read, **parameters)
                found = found if equation.primitive.multiple_results else [found]
            known |= dict(zip(equation.outvars, found, strict=True))
        return [v.val if isinstance(v, core.Literal) else known[v] for v in jaxpr.outvars]

    shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in program.jaxpr.invars]
    return jax.make_jaxpr(lambda *inputs: run(program.jaxpr, program.consts, *inputs))(*shapes)


def _live(jaxpr: Any) -> list[Any]:
    """The equations on which the results depend.

    Automatic differentiation leaves unused equations behind. Their values would be passed to a
    kernel in vain, and XLA's CPU compiler aborts on loops with such inputs.
    """
    needed, live = set(_variables(jaxpr.outvars)), []
    for equation in reversed(jaxpr.eqns):
        if needed & set(equation.outvars):
            live.append(equation)
            needed |= set(_variables(equation.invars))
    return live[::-1]


def _variables(atoms: Iterable[Any]) -> list[Any]:
    return [atom for atom in atoms if not isinstance(atom, core.Literal)]


def _as_number(value: Array) -> Array:
    return value.astype(jnp.int32) if value.dtype == jnp.bool else value
