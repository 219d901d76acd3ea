"""Is β2 large enough for this batch size? The stationary drift of a user's own gradients.

The probe freezes the parameters, draws mini-batch gradients, and asks where Adam would go with
them: E[m/√v] with independent mini-batches, for a grid of β2. It compares the progress
⟨∇f, E[m/√v]⟩ with its limit as β2 → 1, ⟨∇f, ∇f/√(E g²)⟩. Where the ratio is 1 noise does not
matter; where it is below 0 Adam goes uphill. Gradients of larger batches are means of draws.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, Key, PyTree
from tqdm import tqdm

from adam_transition import adam, keys

_CHAINS = 64
_MEMORIES = 8  # of burn-in; then as many are averaged, but at least _LEAST_STEPS
_LEAST_STEPS = 2000
_ROWS = 4096  # of the table of a larger batch


class GradientTable(NamedTuple):
    """Mini-batch gradients at one point, for some coordinates of the parameters."""

    rows: Float[np.ndarray, "n k"]
    num_parameters: int
    squared_norms: Float[np.ndarray, " n"]  # ‖g_i‖² over all parameters
    mean_squared_norm: float  # ‖mean of g_i‖² over all parameters

    @property
    def noise_ratio(self) -> float:
        """Mean ‖g_i‖²/‖mean g_i‖²: D1/n of assumption A2 at this point, if D0 = 0."""
        return float(self.squared_norms.mean() / self.mean_squared_norm)

    @property
    def skewness(self) -> Float[np.ndarray, " k"]:
        """Third standardised moment of each coordinate; 0 where it does not vary."""
        centred = self.rows - self.rows.mean(axis=0)
        scale = centred.std(axis=0)
        return (centred**3).mean(axis=0) / np.where(scale > 0, scale, 1) ** 3


class Probe(NamedTuple):
    """What Adam would do with these gradients; S batch sizes, Q values of β2."""

    batch_factors: np.ndarray  # [S] batch sizes over that of the table
    one_minus_beta2: np.ndarray  # [Q]
    progress: Float[np.ndarray, "S Q"]  # ⟨∇f, E[m/√v]⟩ over its limit as β2 → 1
    progress_stderr: Float[np.ndarray, "S Q"]
    wrong_mass: Float[np.ndarray, "S Q"]  # share of Σ|∇f| in coordinates with the wrong sign


class Needed(NamedTuple):
    """The smallest β2 that keeps the progress."""

    one_minus_beta2: float
    stderr: float


def gradient_table(
    loss: Callable[[PyTree, Any], Array],
    params: PyTree,
    batches: Iterable[Any],
    key: Key[Array, ""],
    *,
    num_coordinates: int = 64,
) -> GradientTable:
    """Draws gradients of a loss at params, one batch at a time; keeps some coordinates of each.

    Memory: two gradients and n × num_coordinates numbers. Progress on stderr, if a terminal.

    Args:
      loss: (params, batch) → scalar, differentiable.
      params: any pytree of floating-point arrays.
      batches: mini-batches of one size, a finite iterable.
      key: chooses the coordinates.
      num_coordinates: how many to keep; all if there are fewer.

    Raises:
      ValueError: a loss that is not a finite scalar, fewer than two batches, gradients that are
        not finite or all zero, no coordinates.
    """
    flat, unravel = ravel_pytree(params)
    if num_coordinates < 1 or not flat.size:
        raise ValueError(f"num_coordinates={num_coordinates} of {flat.size} parameters: need one")
    chosen = jax.random.choice(
        key, flat.size, (min(num_coordinates, flat.size),), replace=False
    ).sort()

    @jax.jit
    def one(flat: Array, batch: Any) -> tuple[Array, Array]:
        def of_flat(flat: Array) -> Array:
            value = loss(unravel(flat), batch)
            if jnp.shape(value) != ():
                raise ValueError(f"loss has shape {jnp.shape(value)}: it must be a scalar")
            return value

        return jax.value_and_grad(of_flat)(flat)

    total, rows, norms = jnp.zeros_like(flat), [], []
    for i, batch in enumerate(tqdm(batches, unit="batch", disable=None)):
        value, gradient = one(flat, batch)
        if not (jnp.isfinite(value) and jnp.isfinite(gradient).all()):
            raise ValueError(f"batch {i}: loss={float(value)} or its gradient is not finite")
        total += gradient
        rows.append(np.asarray(gradient[chosen], np.float64))
        norms.append(float(jnp.sum(gradient.astype(jnp.float32) ** 2)))
    if len(rows) < 2:
        raise ValueError(f"{len(rows)} batches: need at least two")
    mean = float(jnp.sum((total / len(rows)).astype(jnp.float32) ** 2))
    if mean == 0:
        raise ValueError("the mean gradient is zero at these parameters")
    return GradientTable(np.stack(rows), flat.size, np.array(norms), mean)


def probe(
    table: GradientTable,
    one_minus_beta2: Sequence[float],
    key: Key[Array, ""],
    *,
    beta1: float = 0.9,
    batch_factors: Sequence[int] = (1,),
) -> Probe:
    """Progress and wrong signs over a grid of β2 and batch sizes, from one set of histories.

    Args:
      table: from `gradient_table`.
      one_minus_beta2: values in (0, 1].
      key: of the histories and of the larger batches.
      beta1: in [0, 1).
      batch_factors: batch sizes in units of that of the table, 1 or more.

    Raises:
      ValueError: values outside their ranges.
    """
    q = np.asarray(one_minus_beta2, np.float64)
    if q.ndim != 1 or not q.size or not ((q > 0) & (q <= 1)).all():
        raise ValueError(f"one_minus_beta2={one_minus_beta2}: needs a list of values in (0, 1]")
    if not 0 <= beta1 < 1:
        raise ValueError(f"beta1={beta1} is outside [0, 1)")
    if not batch_factors or min(batch_factors) < 1:
        raise ValueError(f"batch_factors={batch_factors}: need whole numbers from 1 on")
    found = []
    for factor in batch_factors:
        rows = _rows_of(table, factor, key)
        found.append(
            tuple(
                np.array(part)
                for part in zip(*(_at(rows, 1 - beta1, one, key) for one in q), strict=True)
            )
        )
    progress, stderr, wrong = (np.stack(part) for part in zip(*found, strict=True))
    return Probe(np.asarray(batch_factors), q, progress, stderr, wrong)


def needed_beta2(
    table: GradientTable,
    key: Key[Array, ""],
    *,
    beta1: float = 0.9,
    batch_factor: int = 1,
    progress: float = 0.5,
    least: float = 1e-4,
) -> Needed:
    """The greatest 1 − β2 up to which Adam keeps that part of its progress.

    Looked for on a grid even in log(1 − β2) from `least` to 1, then by bisection with the same
    histories. `progress=0` is where the update turns: the phase boundary, if there is one. NaN if
    even 1 − β2 = `least` is too much, 1 if nothing is.

    Raises:
      ValueError: values outside their ranges: `batch_factor` from 1 on, `progress` in [0, 1),
        `least` in (0, 1).
    """
    if batch_factor < 1:
        raise ValueError(f"batch_factor={batch_factor}: needs a whole number from 1 on")
    for name, value, allowed, holds in (
        ("beta1", beta1, "[0, 1)", 0 <= beta1 < 1),
        ("progress", progress, "[0, 1)", 0 <= progress < 1),
        ("least", least, "(0, 1)", 0 < least < 1),
    ):
        if not holds:
            raise ValueError(f"{name}={value} is outside {allowed}")
    grid = np.geomspace(least, 1, 17)
    rows = _rows_of(table, batch_factor, key)

    def excess(q: float) -> tuple[float, float]:
        value, stderr, _ = _at(rows, 1 - beta1, q, key)
        return value - progress, stderr

    low = high = float(grid[0])
    if excess(low)[0] < 0:
        return Needed(np.nan, np.nan)
    for high in grid[1:].tolist():
        if excess(high)[0] < 0:
            break
        low = high
    else:
        return Needed(1.0, 0.0)
    for _ in range(18):
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if excess(middle)[0] >= 0 else (low, middle)
    step = 1.05
    slope = (excess(low * step)[0] - excess(low / step)[0]) / (low * step - low / step)
    return Needed(low, abs(excess(low)[1] / slope))


def _rows_of(table: GradientTable, factor: int, key: Key[Array, ""]) -> np.ndarray:
    """Gradients of batches `factor` times as large: means of draws, each row drawn equally often.

    So the mean is that of the table exactly; moving it there would change the small gradients,
    whose sign matters where noise is heavy-tailed.
    """
    if factor == 1:
        return table.rows
    generator = keys.generator(jax.random.fold_in(key, factor))
    count = factor * -(-_ROWS // len(table.rows))
    drawn = generator.permutation(np.repeat(np.arange(len(table.rows)), count)).reshape(-1, factor)
    return sum(table.rows[one] for one in drawn.T) / factor


def _at(rows: np.ndarray, p: float, q: float, key: Key[Array, ""]) -> tuple[float, float, float]:
    """Progress, its standard error over chains, and the mass with the wrong sign."""
    gradient, square = rows.mean(axis=0), (rows**2).mean(axis=0)
    limit = np.divide(gradient, np.sqrt(square), out=np.zeros_like(square), where=square > 0)
    burn_in = int(_MEMORIES / min(p, q))
    # a power of two, so that values of β2 share programs
    num_steps = 1 << (max(_LEAST_STEPS, burn_in) - 1).bit_length()
    with jax.enable_x64(True):
        chains = np.asarray(
            _directions(jnp.asarray(rows), p, q, key, burn_in=num_steps, num_steps=num_steps)
        )
    progress = chains @ gradient / (limit @ gradient)
    wrong = np.abs(gradient)[chains.mean(axis=0) * gradient < 0].sum() / np.abs(gradient).sum()
    return (
        float(progress.mean()),
        float(progress.std(ddof=1) / np.sqrt(_CHAINS)),
        float(wrong),
    )


@partial(jax.jit, static_argnames=("burn_in", "num_steps"))
def _directions(
    rows: Float[Array, "n k"], p: Array, q: Array, key: Array, *, burn_in: int, num_steps: int
) -> Float[Array, "chains k"]:
    """The mean of m/√v along chains of independent draws."""
    hyper = adam.Hyperparameters(p, q)
    start = adam.init_from_gradients(
        jnp.broadcast_to(rows.mean(axis=0), (_CHAINS, rows.shape[1])),
        jnp.broadcast_to((rows**2).mean(axis=0), (_CHAINS, rows.shape[1])),
    )

    def step(k: Array, carry: tuple[Array, adam.AdamState]) -> tuple[Array, adam.AdamState]:
        total, state = carry
        drawn = jax.random.randint(jax.random.fold_in(key, k), (_CHAINS,), 0, len(rows))
        direction, state = adam.update(rows[drawn], state, hyper)
        return total + jnp.where(k >= burn_in, direction, 0), state

    zero = jnp.zeros((_CHAINS, rows.shape[1]))
    return jax.lax.fori_loop(0, burn_in + num_steps, step, (zero, start))[0] / num_steps
