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

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy  # loads its modules when they are used
from jaxtyping import Array, Float, Key

from adam_transition import adam
from adam_transition.problems import FiniteSum, as_arrays, component_gradients
from adam_transition.sampling import Sampling, check
from adam_transition.theory.chains import Histories, draw_histories
from adam_transition.theory.drift_domain import is_estimated
from adam_transition.theory.stationary_drift import drift_of_groups, stationary_drift

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
    sampling: Sampling = "cyclic",
    *,
    starts: Float[np.ndarray, "S d"],
    key: Key[Array, ""] | None = None,
    num_samples: int = 200_000,
) -> list[LimitPoint]:
    """The zeros of D found from some starts, and whether they attract; in float64.

    In one dimension the range of the starts is scanned, and every sign change that the scan sees is
    solved for, to rounding; with ε also those that lie near to it, down to its last digits, as D
    has further zeros where the gradients come down to ε. In more dimensions Newton's method goes
    from each start; zeros that no start leads to are not found. A zero attracts if D points to it
    from both sides; in more dimensions if all eigenvalues of dD/dx, taken over 1e-5 of the spread
    of the starts, have negative real parts.

    "Attracts" is said of the flow dx/dt = D(x): of steps that are small against the distances over
    which the gradients change. Near a minimiser at which all gradients vanish none are.

    Args:
      problem: of shape () or (d,); its constraint, if any, is ignored.
      hyper: scalars; ε counts, in the units of the gradients.
      sampling: sampling scheme; `shuffle_once` draws its order from the key.
      starts: where to look.
      key: for `shuffle_once`, and where the drift is estimated (`drift.is_estimated`): one key is
        one set of histories, so D is smooth in x.
      num_samples: steps averaged for each estimate.

    Raises:
      ValueError: an unknown scheme, starts that do not fit, a key that is needed and not given,
        hyperparameters that are arrays, or what the drift raises.
    """
    check(sampling)
    for name, value in hyper._asdict().items():
        if np.ndim(value):
            raise ValueError(
                f"{name} of shape {np.shape(value)}: needs a number; call once for each"
            )
    starts = np.asarray(starts, np.float64)
    dimension = int(np.prod(problem.shape))
    if starts.ndim != 2 or starts.shape[1] != dimension or len(starts) < 1:
        raise ValueError(f"starts of shape {starts.shape}: need (S, {dimension})")
    if dimension == 1 and not np.ptp(starts) > 0:
        raise ValueError("starts: one dimension needs two that differ; their range is scanned")
    with jax.enable_x64(True):
        field = _field(problem, hyper, sampling, dimension, key, num_samples)
        if dimension == 1:
            zoom = bool(np.any(hyper.epsilon) or np.any(hyper.epsilon_root))
            return _scan(field, starts, zoom=zoom)
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
    sampling: Sampling,
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

    drift_of = _drift_of_table(n, dimension, hyper, sampling, key, num_samples)

    def groups(x: np.ndarray) -> np.ndarray:
        return drift_of(table_at(x))

    def along(points: np.ndarray) -> np.ndarray:
        tables = np.hstack([table_at(x) for x in points])
        if is_estimated(tables, sampling):
            return np.array([groups(x).mean() for x in points])
        return drift_of(tables)[0]  # coordinates do not meet: as many points at once

    return _Field(groups, gradient, along)


def _drift_of_table(
    n: int,
    dimension: int,
    hyper: adam.Hyperparameters,
    sampling: Sampling,
    key: Key[Array, ""] | None,
    num_samples: int,
) -> Callable[[np.ndarray], np.ndarray]:
    """[n, d] → [G, d], by groups of chains where it is estimated, else with G = 1."""
    cell = adam.Hyperparameters(*(np.atleast_1d(np.asarray(one, np.float64)) for one in hyper))

    @lru_cache
    def histories() -> Histories:
        if key is None:
            raise ValueError(f"sampling={sampling!r} needs a key for this problem")
        # room for tables whose gradients differ in size by 1e14: the burn-in grows with the log
        memory = 16 / min(float(np.min(one)) for one in cell[:2])
        alike = np.ones((n, dimension))
        return draw_histories(alike, sampling, key, memory=memory, num_samples=num_samples)

    def drift(table: np.ndarray) -> np.ndarray:
        if is_estimated(table, sampling):
            return drift_of_groups(table, cell, histories())[0]
        return stationary_drift(table, cell, sampling, key=key).drift

    if sampling == "shuffle_once" and key is None:
        raise ValueError(f"sampling={sampling!r} needs a key")
    return drift


@partial(jax.jit, static_argnames="n")
def _table(problem: FiniteSum, x: Array, n: int) -> Float[Array, "n d"]:
    return component_gradients(problem, x, n).reshape(n, -1)


def _scan(field: _Field, starts: np.ndarray, *, zoom: bool) -> list[LimitPoint]:
    """`zoom`: look for further zeros near each, as there are where ε is beside the gradients."""

    def drift(x: float) -> float:
        return float(field.mean(np.array([x]))[0])

    scale = np.ptp(starts)
    aside = _ASIDE * scale

    def solve(left: float, right: float) -> float:
        return scipy.optimize.brentq(drift, left, right, xtol=1e-14 * scale, rtol=1e-14)

    def found_between(left: float, right: float) -> LimitPoint:
        x = left if left == right else solve(left, right)
        point, step = np.array([x]), _STEP * scale
        slope = (drift(x + step) - drift(x - step)) / (2 * step)
        return LimitPoint(
            point,
            _stderr(field, point, np.array([[slope]])),
            float(np.linalg.norm(field.gradient(point))),
            # the sign on its sides; the slope would be that of a jump, if there is one
            bool(slope < 0 if left == right else drift(left) > 0),
        )

    grid = np.linspace(starts.min() + aside, starts.max() - 2 * aside, _SCAN)
    found = []
    for left, right in _sign_changes(grid, field.along(grid)):
        # where gradients underflow, D is 0 all around
        if left == right and drift(left - _STEP * scale) == drift(left + _STEP * scale) == 0:
            continue
        brackets = [(left, right)]
        if zoom and left < right:
            near = np.concatenate([[left], _around(solve(left, right), left, right), [right]])
            brackets = list(_sign_changes(near, field.along(near)))
        found += [found_between(*bracket) for bracket in brackets]
    return found


def _sign_changes(x: np.ndarray, values: np.ndarray) -> Iterator[tuple[float, float]]:
    """Neighbours with D of opposite signs between them; a point twice where D is 0."""
    for (left, before), (right, after) in pairwise(zip(x.tolist(), values.tolist(), strict=True)):
        if before == 0:
            yield left, left
        elif before * after < 0:
            yield left, right


def _around(x: float, left: float, right: float) -> np.ndarray:
    """Points ever nearer to x from both sides, down to its last digits."""
    distance = np.geomspace(1e-14, 1, 113) * (right - left)
    points = np.unique(np.concatenate([x - distance, x + distance]))
    return points[(points > left) & (points < right) & (points != x)]


def _newton(field: _Field, starts: np.ndarray) -> list[LimitPoint]:
    scale = max(float(np.ptp(starts, axis=0).max()), 1e-3 * float(np.abs(starts).max()), 1e-12)
    found: list[LimitPoint] = []
    for start in starts:
        solution = scipy.optimize.root(field.mean, start, method="hybr", options={"xtol": 1e-12})
        x = solution.x
        around = max(scale, float(np.abs(x - start).max()), 1e-3 * float(np.abs(x).max()))
        jacobian = _jacobian(field, x, _STEP * around)
        solved = np.abs(field.mean(x)).max() < 1e-6 * max(1, np.abs(field.mean(start)).max())
        solved &= _is_zero(field.mean(x), jacobian, 1e-4 * around)
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


def _is_zero(drift: np.ndarray, jacobian: np.ndarray, near: float) -> bool:
    """Whether D leads to a zero near by; where all gradients vanish, D is small and so is dD/dx."""
    if not np.isfinite(np.linalg.cond(jacobian)):
        return False
    return bool(np.abs(np.linalg.solve(jacobian, drift)).max() < near)


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
