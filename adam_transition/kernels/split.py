"""Splits a function of rows, steps, draws and cells by the dependencies of its values.

A kernel that runs all steps of many cells should compute per cell only the values that differ
between cells. Values that depend only on the row (for example the problem), the step (for example
its size) and the draw (the component index, if each cell has its own stream) are computed by XLA
beforehand and passed to the kernel as numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.extend import core
from jaxtyping import Array, PyTree

ROW, STEP, DRAW, CELL = 0, 1, 2, 3


class Split(NamedTuple):
    """`f(row, step, draw, *cell) = of_cell(of_row(…), of_step(…), of_draw(…), *cell)`."""

    of_row: Callable[[PyTree], list[Array]]
    of_step: Callable[[PyTree, PyTree], list[Array]]
    of_draw: Callable[[PyTree, PyTree, PyTree], list[Array]]
    of_cell: Callable[..., PyTree]


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
    """
    closed, shape = jax.make_jaxpr(function, return_shape=True)(row, step, draw, *cell)
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

    def program(
        invars: Sequence[Any], outvars: Sequence[Any], eqns: Sequence[Any]
    ) -> Callable[..., list[Array]]:
        part = core.Jaxpr(jaxpr.constvars, invars, outvars, eqns, debug_info=unnamed)
        return core.jaxpr_as_fun(core.ClosedJaxpr(part, closed.consts))

    def program_above(which: int) -> Callable[..., list[Array]]:
        levels = above[: which + 1]
        found = program(
            [v for level in levels for v in inputs[level]],
            kept[which],
            [e for level in levels for e in equations[level]],
        )
        return lambda *args: [_as_number(v) for v in found(*jax.tree.leaves(args))]

    passed = [v for which in above for v in kept[which]]
    cell_program = program([*passed, *inputs[CELL]], jaxpr.outvars, equations[CELL])
    truths = [v.aval.dtype == jnp.bool for v in passed]

    def of_cell(
        of_row: list[Array], of_step: list[Array], of_draw: list[Array], *cell: PyTree
    ) -> PyTree:
        numbers = [
            value != 0 if truth else value
            for value, truth in zip([*of_row, *of_step, *of_draw], truths, strict=True)
        ]
        found = cell_program(*numbers, *jax.tree.leaves(cell))
        return jax.tree.unflatten(jax.tree.structure(shape), found)

    return Split(program_above(ROW), program_above(STEP), program_above(DRAW), of_cell)


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
