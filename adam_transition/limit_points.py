"""Adam's limit points: the zeros of the stationary drift field, not of the gradient.

With η_k = η0/√k the iterate follows the slow flow dx/dt = D(x), where D(x) is the stationary drift
of the table of component gradients at x. It settles at an attracting zero x̂ of D, and |∇f(x̂)| is
the neighbourhood of Theorems 3.1 and 3.3, exactly.

To first order in 1 − β2 with replacement and β1 = 0, in one dimension, D = 0 where

    ∇f = ½(1−β2) Cov(g, g²)/E[g²] ≈ ½(1−β2) κ3/σ²,

κ3 and σ² the third central moment and the variance of the components: the neighbourhood is
proportional to 1 − β2 for skewed noise. For symmetric noise it vanishes at every β2 in the random
orders, which cannot tell a component from its mirror image.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key
from scipy.optimize import brentq, root

from adam_transition import adam, sampling
from adam_transition.drift import (
    RANDOM,
    Histories,
    cyclic_drift,
    draw_histories,
    drift_of_groups,
    is_estimated,
    stationary_drift,
)
from adam_transition.problems import FiniteSum, as_arrays, component_gradients

_SCAN = 65
_ASIDE = 7e-6  # of round numbers, where a gradient may be 0 and the drift has no exact value
_STEP = 1e-5  # of finite differences, relative to the spread of the starts
_SAME = 1e-6  # zeros nearer than this, relative to the spread, are one


class LimitPoint(NamedTuple):
    """A zero of the drift field, or, where D jumps over 0 (D0 = 0), the place of the jump."""

    x: Float[np.ndarray, " d"]
    stderr: Float[np.ndarray, " d"]  # of x; 0 where the drift is exact
    gradient_norm: float  # ‖∇f(x̂)‖
    attracting: bool


def limit_points(
    problem: FiniteSum,
    hyper: adam.Hyperparameters,
    scheme: sampling.Sampling = "cyclic",
    *,
    starts: Float[np.ndarray, "S d"],
    key: Key[Array, ""] | None = None,
    num_samples: int = 200_000,
) -> list[LimitPoint]:
    """The zeros of D found from some starts, and whether they attract; ε = 0, float64.

    In one dimension the range of the starts is scanned, and every sign change that the scan sees is
    solved for, to rounding. In more, Newton's method goes from each start; zeros that no start
    leads to are not found. A zero attracts if all eigenvalues of dD/dx have negative real parts.

    Args:
      problem: of shape () or (d,); its constraint, if any, is ignored.
      hyper: scalars 1 − β1 and 1 − β2.
      scheme: sampling scheme; `shuffle_once` draws its order from the key.
      starts: where to look.
      key: for `shuffle_once`, and where the drift is estimated (`drift.is_estimated`): one key is
        one set of histories, so D is smooth in x.
      num_samples: steps averaged for each estimate.

    Raises:
      ValueError: an unknown scheme, starts that do not fit, a key that is needed and not given, or
        what the drift raises.
    """
    sampling.check(scheme)
    starts = np.asarray(starts, np.float64)
    dimension = int(np.prod(problem.shape))
    if starts.ndim != 2 or starts.shape[1] != dimension or len(starts) < 1:
        raise ValueError(f"starts of shape {starts.shape}: need (S, {dimension})")
    if dimension == 1 and not np.ptp(starts) > 0:
        raise ValueError("starts: one dimension needs two that differ; their range is scanned")
    with jax.enable_x64(True):
        field = _field(problem, hyper, scheme, dimension, key, num_samples)
        if dimension == 1:
            return _scan(field, starts)
        return _newton(field, starts)


class _Field(NamedTuple):
    """D(x) as a mean over groups; exact where there is one group."""

    groups: Callable[[np.ndarray], np.ndarray]  # [d] → [G, d]
    gradient: Callable[[np.ndarray], np.ndarray]  # [d] → [d]: ∇f
    along: Callable[[np.ndarray], np.ndarray]  # [K] → [K]: D at K points of one dimension

    def mean(self, x: np.ndarray) -> np.ndarray:
        return self.groups(x).mean(axis=0)


def _field(
    problem: FiniteSum,
    hyper: adam.Hyperparameters,
    scheme: sampling.Sampling,
    dimension: int,
    key: Key[Array, ""] | None,
    num_samples: int,
) -> _Field:
    n = int(np.asarray(problem.num_components))
    arrays = as_arrays(problem, np.float64)

    def table_at(x: np.ndarray) -> np.ndarray:
        return np.asarray(_table(arrays, jnp.asarray(x).reshape(problem.shape), n))

    def gradient(x: np.ndarray) -> np.ndarray:
        return table_at(x).mean(axis=0)

    drift_of = _drift_of_table(n, dimension, hyper, scheme, key, num_samples)

    def groups(x: np.ndarray) -> np.ndarray:
        return drift_of(table_at(x))

    def along(points: np.ndarray) -> np.ndarray:
        tables = np.hstack([table_at(x) for x in points])
        if is_estimated(tables, scheme):
            return np.array([groups(x).mean() for x in points])
        return drift_of(tables)[0]  # coordinates do not meet: as many points at once

    return _Field(groups, gradient, along)


def _drift_of_table(
    n: int,
    dimension: int,
    hyper: adam.Hyperparameters,
    scheme: sampling.Sampling,
    key: Key[Array, ""] | None,
    num_samples: int,
) -> Callable[[np.ndarray], np.ndarray]:
    """[n, d] → [G, d], by groups of chains where it is estimated, else with G = 1."""
    p, q = (np.atleast_1d(np.asarray(value, np.float64)) for value in hyper[:2])
    cell = adam.Hyperparameters(p, q)

    @lru_cache
    def histories() -> Histories:
        if key is None:
            raise ValueError(f"sampling={scheme!r} needs a key for this problem")
        # room for tables whose gradients differ in size by 1e14: the burn-in grows with the log
        memory = 16 * float(1 / min(p[0], q[0]))
        alike = np.ones((n, dimension))
        return draw_histories(alike, scheme, key, memory=memory, num_samples=num_samples)

    def random(table: np.ndarray) -> np.ndarray:
        if is_estimated(table, scheme):
            return drift_of_groups(table, p, q, histories())[0]
        return stationary_drift(table, cell, scheme).drift

    if scheme in RANDOM:
        return random
    order = np.arange(n)
    if scheme == "shuffle_once":
        if key is None:
            raise ValueError(f"sampling={scheme!r} needs a key")
        order = np.asarray(sampling.indices(scheme, key, 0, n, n, max_components=n))
    return lambda table: np.asarray(_exact(table[order], p, q))


@partial(jax.jit, static_argnames="n")
def _table(problem: FiniteSum, x: Array, n: int) -> Float[Array, "n d"]:
    return component_gradients(problem, x, n).reshape(n, -1)


@jax.jit
def _exact(
    table: Float[Array, "n d"], p: Float[Array, "1"], q: Float[Array, "1"]
) -> Float[Array, "1 d"]:
    return cyclic_drift(table, len(table), adam.Hyperparameters(p, q))


def _scan(field: _Field, starts: np.ndarray) -> list[LimitPoint]:
    def drift(x: float) -> float:
        return float(field.mean(np.array([x]))[0])

    scale = np.ptp(starts)
    aside = _ASIDE * scale
    grid = np.linspace(starts.min() + aside, starts.max() - 2 * aside, _SCAN)
    values = field.along(grid)
    found = []
    for left, right, before, after in zip(grid, grid[1:], values, values[1:], strict=False):
        if before == 0 or before * after < 0:
            x = left if before == 0 else brentq(drift, left, right, xtol=1e-14 * scale, rtol=1e-14)
            point = np.array([x])
            step = _STEP * scale
            slope = (drift(x + step) - drift(x - step)) / (2 * step)
            found.append(
                LimitPoint(
                    point,
                    _stderr(field, point, np.array([[slope]])),
                    float(np.linalg.norm(field.gradient(point))),
                    bool(slope < 0),
                )
            )
    return found


def _newton(field: _Field, starts: np.ndarray) -> list[LimitPoint]:
    scale = max(float(np.ptp(starts, axis=0).max()), 1e-3 * float(np.abs(starts).max()), 1e-12)
    found: list[LimitPoint] = []
    for start in starts:
        solution = root(field.mean, start, method="hybr", options={"xtol": 1e-12})
        x = solution.x
        around = max(scale, float(np.abs(x - start).max()), 1e-3 * float(np.abs(x).max()))
        jacobian = _jacobian(field, x, _STEP * around)
        solved = np.abs(field.mean(x)).max() < 1e-6 * max(1, np.abs(field.mean(start)).max())
        known = any(np.abs(x - other.x).max() < _SAME * scale for other in found)
        if solved and not known:
            found.append(
                LimitPoint(
                    x,
                    _stderr(field, x, jacobian),
                    float(np.linalg.norm(field.gradient(x))),
                    bool((np.linalg.eigvals(jacobian).real < 0).all()),
                )
            )
    return found


def _jacobian(field: _Field, x: np.ndarray, step: float) -> np.ndarray:
    columns = [
        (field.mean(x + offset) - field.mean(x - offset)) / (2 * step)
        for offset in step * np.eye(len(x))
    ]
    return np.stack(columns, axis=1)


def _stderr(field: _Field, x: np.ndarray, jacobian: np.ndarray) -> np.ndarray:
    """The spread over groups of −J⁻¹D, the move of the zero that each of them asks for."""
    groups = field.groups(x)
    if len(groups) == 1 or not np.isfinite(np.linalg.cond(jacobian)):
        return np.zeros_like(x)
    moves = np.linalg.solve(jacobian, groups.T).T
    return moves.std(axis=0, ddof=1) / np.sqrt(len(groups))
