"""Adam's limit points: the zeros of the stationary drift field, not of the gradient.

With η_k = η0/√k the iterate follows the slow flow dx/dt = D(x), where D(x) is the stationary drift
of the table of component gradients at x (Dereich, Jentzen & Kassing, arXiv:2511.04622, for draws
with replacement). It settles at an attracting zero x̂ of D, and |∇f(x̂)| is the exact radius of the
neighbourhood in Theorems 3.1 and 3.3.

To first order in 1 − β2, with replacement, β1 = 0 and d = 1, D = 0 where

    ∇f = ½(1−β2) Cov(g, g²)/E[g²] ≈ ½(1−β2) κ3/σ²,

with κ3 and σ² the third central moment and the variance of the component gradients. So for skewed
noise the radius is proportional to 1 − β2. For symmetric noise it is 0 at every β2 in the random
orders, under which a gradient and its mirror image are exchangeable.
"""

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy  # loads its submodules on first use
from jaxtyping import Array, Float, Key

from adam_transition import adam
from adam_transition.problems import FiniteSum, as_arrays, component_gradients
from adam_transition.sampling import Sampling, check
from adam_transition.theory.chains import Histories, draw_histories
from adam_transition.theory.drift_domain import is_estimated
from adam_transition.theory.stationary_drift import drift_of_groups, stationary_drift

_SCAN = 65
# lengths relative to the spread of the starts
_ASIDE = 7e-6  # offset from round numbers, where a gradient may be 0 and the drift have no value
_STEP = 1e-5  # step of finite differences
_SAME = 1e-6  # zeros closer than this count as one


class LimitPoint(NamedTuple):
    """A zero of the drift field, or the point at which D changes sign by a jump (D0 = 0)."""

    x: Float[np.ndarray, " d"]
    stderr: Float[np.ndarray, " d"]  # standard error of x; 0 if the drift is exact
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
    """Zeros of the drift field D, and whether they attract; computed in float64.

    In one dimension the range of the starts is scanned, and the zero at each sign change of the
    scan is computed to rounding. If ε > 0, the neighbourhood of each such zero is also searched for
    further zeros, down to the last digits of x, because D has more zeros where the gradients are as
    small as ε. In more dimensions Newton's method runs from each start, and other zeros are missed.

    In one dimension a zero attracts if D points towards it on both sides. In more dimensions it
    attracts if all eigenvalues of dD/dx have negative real parts, with finite differences over 1e-5
    of the spread of the starts. This refers to the flow dx/dt = D(x), that is, to steps much
    smaller than the distance over which the gradients change. No step is small in this sense close
    to a minimiser at which all component gradients vanish.

    Args:
      problem: a problem of shape () or (d,); its constraint, if any, is ignored.
      hyper: scalars; ε in units of the gradients.
      sampling: sampling scheme; `shuffle_once` draws its order from the key.
      starts: points of shape (S, d).
      key: needed for `shuffle_once` and for an estimated drift (`drift_domain.is_estimated`). All
        estimates share the histories of the key, so D is smooth in x.
      num_samples: number of steps averaged for each estimate.

    Raises:
      ValueError: the scheme is unknown; the starts have the wrong shape or, in one dimension, all
        coincide; a needed key is missing; a hyperparameter is an array; or as for
        `stationary_drift`.
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
        raise ValueError("starts: in one dimension two must differ, because their range is scanned")
    with jax.enable_x64(True):
        field = _field(problem, hyper, sampling, dimension, key, num_samples)
        if dimension == 1:
            zoom = bool(np.any(hyper.epsilon) or np.any(hyper.epsilon_root))
            return _scan(field, starts, zoom=zoom)
        return _newton(field, starts)


class _Field(NamedTuple):
    """D(x) as a mean over G groups of chains; G = 1 if the drift is exact."""

    groups: Callable[[np.ndarray], np.ndarray]  # [d] → [G, d]
    gradient: Callable[[np.ndarray], np.ndarray]  # [d] → [d]: ∇f
    along: Callable[[np.ndarray], np.ndarray]  # [K] → [K]: D at K points, if d = 1

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
        tables = np.hstack([table_at(np.asarray(x)) for x in points])
        if is_estimated(tables, sampling):
            return np.array([groups(np.asarray(x)).mean() for x in points])
        return drift_of(tables)[0]  # coordinates are independent: each holds one point

    return _Field(groups, gradient, along)


def _drift_of_table(
    n: int,
    dimension: int,
    hyper: adam.Hyperparameters,
    sampling: Sampling,
    key: Key[Array, ""] | None,
    num_samples: int,
) -> Callable[[np.ndarray], np.ndarray]:
    """The map from a table [n, d] to D for each group of chains [G, d]; G = 1 if D is exact."""
    cell = adam.Hyperparameters(*(np.atleast_1d(np.asarray(value, np.float64)) for value in hyper))

    @lru_cache
    def histories() -> Histories:
        if key is None:
            raise ValueError(f"sampling={sampling!r} needs a key for this problem")
        # 16 memories suffice for gradients that differ in size by 1e14: burn-in grows with the log
        memory = 16 / min(float(np.min(value)) for value in cell[:2])
        equal_gradients = np.ones((n, dimension))
        return draw_histories(
            equal_gradients, sampling, key, memory=memory, num_samples=num_samples
        )

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
    """Zeros in one dimension. `zoom` searches for further zeros close to each, as ε may cause."""

    def drift(x: float) -> float:
        return float(field.mean(np.array([x]))[0])

    scale = np.ptp(starts)
    aside = _ASIDE * scale

    def solve(left: float, right: float) -> float:
        return scipy.optimize.brentq(drift, left, right, xtol=1e-14 * scale, rtol=1e-14)

    def zero_between(left: float, right: float) -> LimitPoint:
        x = left if left == right else solve(left, right)
        point, step = np.array([x]), _STEP * scale
        slope = (drift(x + step) - drift(x - step)) / (2 * step)
        return LimitPoint(
            point,
            _stderr(field, point, np.array([[slope]])),
            float(np.linalg.norm(field.gradient(point))),
            # the sign on either side; the slope has no meaning if D jumps
            bool(slope < 0 if left == right else drift(left) > 0),
        )

    grid = np.linspace(starts.min() + aside, starts.max() - 2 * aside, _SCAN)
    zeros = []
    for left, right in _sign_changes(grid, field.along(grid)):
        # D is 0 on a whole interval where gradients underflow
        if left == right and drift(left - _STEP * scale) == drift(left + _STEP * scale) == 0:
            continue
        brackets = [(left, right)]
        if zoom and left < right:
            points = np.concatenate([[left], _around(solve(left, right), left, right), [right]])
            brackets = list(_sign_changes(points, field.along(points)))
        zeros += [zero_between(*bracket) for bracket in brackets]
    return zeros


def _sign_changes(x: np.ndarray, values: np.ndarray) -> Iterator[tuple[float, float]]:
    """Neighbouring points between which D changes sign; (x, x) for a point x where D is 0."""
    for (left, before), (right, after) in pairwise(zip(x.tolist(), values.tolist(), strict=True)):
        if before == 0:
            yield left, left
        elif before * after < 0:
            yield left, right


def _around(x: float, left: float, right: float) -> np.ndarray:
    """Points that approach x from both sides geometrically, down to its last digits."""
    distance = np.geomspace(1e-14, 1, 113) * (right - left)
    points = np.unique(np.concatenate([x - distance, x + distance]))
    return points[(points > left) & (points < right) & (points != x)]


def _newton(field: _Field, starts: np.ndarray) -> list[LimitPoint]:
    scale = max(float(np.ptp(starts, axis=0).max()), 1e-3 * float(np.abs(starts).max()), 1e-12)
    zeros: list[LimitPoint] = []
    for start in starts:
        solution = scipy.optimize.root(field.mean, start, method="hybr", options={"xtol": 1e-12})
        x = solution.x
        around = max(scale, float(np.abs(x - start).max()), 1e-3 * float(np.abs(x).max()))
        jacobian = _jacobian(field, x, _STEP * around)
        solved = np.abs(field.mean(x)).max() < 1e-6 * max(1, np.abs(field.mean(start)).max())
        solved &= _is_zero(field.mean(x), jacobian, 1e-4 * around)
        known = any(np.abs(x - other.x).max() < _SAME * scale for other in zeros)
        if solved and not known:
            zeros.append(
                LimitPoint(
                    x,
                    _stderr(field, x, jacobian),
                    float(np.linalg.norm(field.gradient(x))),
                    bool((np.linalg.eigvals(jacobian).real < 0).all()),
                )
            )
    return zeros


def _is_zero(drift: np.ndarray, jacobian: np.ndarray, tolerance: float) -> bool:
    """Whether the Newton step is at most `tolerance`.

    The size of D itself does not decide: D and dD/dx are both small where all gradients vanish.
    """
    if not np.isfinite(np.linalg.cond(jacobian)):
        return False
    return bool(np.abs(np.linalg.solve(jacobian, drift)).max() < tolerance)


def _jacobian(field: _Field, x: np.ndarray, step: float) -> np.ndarray:
    columns = [
        (field.mean(x + offset) - field.mean(x - offset)) / (2 * step)
        for offset in step * np.eye(len(x))
    ]
    return np.stack(columns, axis=1)


def _stderr(field: _Field, x: np.ndarray, jacobian: np.ndarray) -> np.ndarray:
    """Standard error of a zero: that of −J⁻¹D, its displacement, over the groups."""
    groups = field.groups(x)
    if len(groups) == 1 or not np.isfinite(np.linalg.cond(jacobian)):
        return np.zeros_like(x)
    moves = np.linalg.solve(jacobian, groups.T).T
    return moves.std(axis=0, ddof=1) / np.sqrt(len(groups))
