"""The stationary drift in cyclic order, in closed form.

The moments follow a periodic orbit, one epoch long, whose start is known in closed form.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Int

from adam_transition import adam

_CELLS_PER_CALL = 1 << 16


def cyclic_drift(
    table: Float[Array, "N d"], num_components: ArrayLike, hyper: adam.Hyperparameters
) -> Float[Array, "C d"]:
    """D in cyclic order in closed form, O(n) for each cell: a function to trace and differentiate.

    Two passes over the table: the first finds the moments at the start of the periodic orbit,
    m = M/(1 − β1^n) with M those of one epoch from zero; the second sums m/(√v + ε) along it.

    Args:
      table: the first n rows count; others may pad it, so that tables of other n share a program.
        Squares must fit into the dtype; a coordinate should not begin with a gradient that is 0,
        nor be differentiated where it has one.
      num_components: n; may be traced, but then there is no reverse-mode derivative.
      hyper: 1 − β1 and 1 − β2 of the C cells, arrays of shape (C,); ε and ε_root of shape (),
        (C,) or (C, d).
    """
    n, d = num_components, table.shape[1]
    p, q, epsilon, epsilon_root = (
        jnp.expand_dims(one, -1) if jnp.ndim(one) == 1 else jnp.asarray(one) for one in hyper
    )
    hyper = adam.Hyperparameters(p, q, epsilon, epsilon_root)
    num_cells = len(p)
    # where g = 0 the ratio m/√v is known from the step before, though v may be below all numbers
    growth = jnp.where(p < 1, (1 - p) / jnp.sqrt(1 - q), 0)
    without = (epsilon == 0) & (epsilon_root == 0)

    def step(i: Array, before: Array, state: adam.AdamState) -> tuple[Array, adam.AdamState]:
        gradient = jnp.broadcast_to(table[i], (num_cells, d))
        direction, state = adam.update(gradient, state, hyper)
        return jnp.where((gradient == 0) & without, before * growth, direction), state

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

    Call it with 64-bit types enabled.

    Args:
      table: its largest gradient of each coordinate near 1.
      hyper: 1 − β1 and 1 − β2 of shape (C,); ε and ε_root of shape (C, d).
    """
    n = len(table)
    padded = np.zeros((1 << (n - 1).bit_length(), table.shape[1]))
    padded[:n] = np.stack([_from_its_largest(column) for column in table.T], axis=1)
    return _in_calls(lambda cells: _compiled(padded, n, cells), hyper)


def _from_its_largest(column: np.ndarray) -> np.ndarray:
    """The same cycle, not begun in a run of zeros."""
    return column if column[0] != 0 else np.roll(column, -int(np.abs(column).argmax()))


def _in_calls(
    function: Callable[[adam.Hyperparameters], Array], hyper: adam.Hyperparameters
) -> np.ndarray:
    """Bounds the memory: at most `_CELLS_PER_CALL` cells at once, all calls of one shape."""
    num_cells = len(np.asarray(hyper.one_minus_beta1))
    size = min(_CELLS_PER_CALL, 1 << max(0, num_cells - 1).bit_length())
    pieces = []
    for start in range(0, num_cells, size):
        inside = np.minimum(np.arange(start, start + size), num_cells - 1)
        values = function(adam.Hyperparameters(*(np.asarray(one)[inside] for one in hyper)))
        pieces.append(np.asarray(values)[: num_cells - start])
    return np.concatenate(pieces)


@jax.jit
def _compiled(
    table: Float[Array, "N d"], n: Int[Array, ""], hyper: adam.Hyperparameters
) -> Float[Array, "C d"]:
    return cyclic_drift(table, n, hyper)
