"""The stationary drift in cyclic order, in closed form.

The moments follow a periodic orbit with a period of one epoch, whose start has a closed form.
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from adam_transition import adam

_CELLS_PER_CALL = 1 << 16


class Axes(NamedTuple):
    """The axes of a grid in the (β1, β2) plane."""

    p: Float[np.ndarray, " A"]  # 1 − β1
    q: Float[np.ndarray, " B"]  # 1 − β2


def cyclic_drift(
    table: Float[Array, "N d"], num_components: ArrayLike, hyper: adam.Hyperparameters
) -> Float[Array, "C d"]:
    """D in cyclic order in closed form; can be traced and differentiated. O(n) for each cell.

    Takes two passes over the table. The first computes the moments at the start of the periodic
    orbit: m = M/(1 − β1^n), where M is m after one epoch from zero, and likewise v. The second sums
    m/(√v + ε) along the orbit.

    Args:
      table: only the first n rows are used; the others are padding, so that tables of different n
        share a program. Squares must fit into the dtype. No coordinate should begin with a zero
        gradient, and derivatives are not valid if a coordinate has one.
      num_components: n; may be traced, but then there is no reverse-mode derivative.
      hyper: 1 − β1 and 1 − β2, of shape (C,); ε and ε_root, of shape (), (C,) or (C, d).

    Raises:
      AssertionError: the table or the cells have other shapes.
    """
    chex.assert_rank([table, hyper.one_minus_beta1], [2, 1])
    chex.assert_equal_shape([hyper.one_minus_beta1, hyper.one_minus_beta2])
    n, d = num_components, table.shape[1]
    p, q, epsilon, epsilon_root = (
        jnp.expand_dims(value, -1) if jnp.ndim(value) == 1 else jnp.asarray(value)
        for value in hyper
    )
    hyper = adam.Hyperparameters(p, q, epsilon, epsilon_root)
    num_cells = len(p)
    # for g = 0 and no ε, m/√v follows from the step before, even if v underflows
    growth = jnp.where(p < 1, (1 - p) / jnp.sqrt(1 - q), 0)
    without = (epsilon == 0) & (epsilon_root == 0)

    def step(i: Array, before: Array, state: adam.AdamState) -> tuple[Array, adam.AdamState]:
        gradient = jnp.broadcast_to(table[i], (num_cells, d))
        direction, state = adam.update(gradient, state, hyper)
        grown = jnp.where(before == 0, 0, before * growth)  # growth is infinite at β2 = 0
        return jnp.where((gradient == 0) & without, grown, direction), state

    zero = adam.init(jnp.zeros((num_cells, d)))
    epoch = jax.lax.fori_loop(0, n, lambda i, state: step(i, zero.first, state)[1], zero)
    start = epoch._replace(
        first=epoch.first / adam.one_minus_power(p, n),
        second=epoch.second / adam.one_minus_power(q, n),
    )

    def accumulate(i: Array, carry: tuple) -> tuple:
        total, before, state = carry
        direction, state = step(i, before, state)
        return total + direction, direction, state

    nonzero = jnp.where(start.second > 0, start.second, 1)
    before = jnp.where(start.second > 0, start.first / jnp.sqrt(nonzero), 0)
    total, _, _ = jax.lax.fori_loop(0, n, accumulate, (zero.first, before, start))
    return -total


def drift_of_cells(
    table: Float[np.ndarray, "n d"], hyper: adam.Hyperparameters
) -> Float[np.ndarray, "C d"]:
    """`cyclic_drift` for any number of cells, in bounded memory and with few compilations.

    Requires 64-bit types.

    Args:
      table: a table whose largest gradient in each coordinate is close to 1 in size.
      hyper: 1 − β1 and 1 − β2 of shape (C,); ε and ε_root of shape (C, d).
    """
    n = len(table)
    padded = np.zeros((1 << (n - 1).bit_length(), table.shape[1]))
    padded[:n] = np.stack([_from_its_largest(column) for column in table.T], axis=1)
    return _in_calls(lambda cells: _compiled(padded, n, cells), hyper)


def drift_of_grid(
    table: Float[np.ndarray, "n d"], axes: Axes, epsilon: float = 0.0, epsilon_root: float = 0.0
) -> Float[np.ndarray, "A B d"]:
    """D at every (β1, β2) of a grid: one product of two matrices for each coordinate.

    m depends on β1 alone and the denominator on β2 alone, so that the square roots and divisions
    are as many as the values of one axis, and the rest is a matrix product over the n positions of
    the epoch.

    Args:
      table: without zeros, except in coordinates in which all gradients are 0.
      axes: 1 − β1 and 1 − β2 of the grid.
      epsilon: ε outside the square root.
      epsilon_root: ε inside the square root.
    """
    drift = np.zeros((len(axes.p), len(axes.q), table.shape[1]))
    for i, column in enumerate(table.T):
        if column.any():
            m = _averages(column, axes.p)
            root = np.sqrt(_averages(column * column, axes.q) + epsilon_root)
            np.matmul(-m.T, 1 / (root + epsilon), out=drift[..., i])
    return drift


def _averages(
    values: Float[np.ndarray, " n"], rate: Float[np.ndarray, " R"]
) -> Float[np.ndarray, "n R"]:
    """The exponential moving average after each of n values that repeat for ever."""
    average = np.zeros(len(rate))
    for value in values:  # as `adam.update`: 1 − rate would round
        average = average - rate * average + rate * value
    with jax.enable_x64(True):
        average = average / np.asarray(adam.one_minus_power(rate, len(values)))
    found = np.empty((len(values), len(rate)))
    for row, value in zip(found, values, strict=True):
        average = average - rate * average + rate * value
        row[:] = average
    return found


def _from_its_largest(column: np.ndarray) -> np.ndarray:
    """The column, rotated to begin with its largest gradient if it begins with a zero."""
    return column if column[0] != 0 else np.roll(column, -int(np.abs(column).argmax()))


def _in_calls(
    function: Callable[[adam.Hyperparameters], Array], hyper: adam.Hyperparameters
) -> np.ndarray:
    """Calls the function on at most `_CELLS_PER_CALL` cells at a time, always of one shape."""
    num_cells = len(np.asarray(hyper.one_minus_beta1))
    size = min(_CELLS_PER_CALL, 1 << max(0, num_cells - 1).bit_length())
    pieces = []
    for start in range(0, num_cells, size):
        inside = np.minimum(np.arange(start, start + size), num_cells - 1)
        values = function(adam.Hyperparameters(*(np.asarray(value)[inside] for value in hyper)))
        pieces.append(np.asarray(values)[: num_cells - start])
    return np.concatenate(pieces)


@jax.jit
def _compiled(
    table: Float[Array, "N d"], n: Int[Array, ""], hyper: adam.Hyperparameters
) -> Float[Array, "C d"]:
    return cyclic_drift(table, n, hyper)
