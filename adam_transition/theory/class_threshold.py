"""Which β2 is enough for every one-dimensional member of a class with D0 = 0.

The members are finite sums f_i = s_i·u of `problems.slope_table` with n components and
D1 = n² Σ s_i²/(Σ s_i)²; more generally, what is proved holds wherever the gradients of a problem in
one dimension satisfy A2 with D0 = 0 at the point in question. `sufficient` is proved in
docs/mathematics/class_threshold.md. `hardest` is the exact threshold of the worst table found, and
so a lower bound on that of the class. In the random orders it has two different slopes; with
replacement no table was found that needs more (36 settings, SLSQP from 22 starts each). In cyclic
order it is found by ascent of the drift over all tables, from several starts.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, assert_never

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float
from scipy.optimize import minimize

from adam_transition import adam
from adam_transition.sampling import Sampling
from adam_transition.theory.boundary import divergence_intervals
from adam_transition.theory.cyclic import cyclic_drift


class Hardest(NamedTuple):
    """The table found that needs the largest β2."""

    one_minus_beta2: float  # D > 0 for some 1 − β2 above this and for none below; 1: nowhere
    num_positive: int  # number of positive slopes
    slopes: Float[np.ndarray, " n"]  # sum 1, in their order, a positive one first


def sufficient(n: int, d1: float, sampling: Sampling, beta1: float = 0.0) -> float:
    """1 − β2 up to which D < 0 for every table of the class (proved); 0 if none is proved.

    With replacement the largest gradient is at most ρ = 1 + √((n−1)(D1/n − 1)) times the mean, and
    √β2 > 1 − 1/ρ is enough, for any β1. In the orders that draw each component once per epoch the
    negative gradients are in sum at most (r−1)/(r+1) times the positive ones, r = √(D1/n), and
    β2^(n−1/2) > c·(r−1)/(r+1) is enough, with c = 1 for β1 = 0 or a periodic order, and
    c = (1 + β1 − β1^n)/(1 − β1 + β1^n) otherwise.

    Args:
      n: number of components, at least 2.
      d1: D1, at least n.
      sampling: the sampling scheme.
      beta1: β1, in [0, 1).

    Raises:
      ValueError: an argument is outside its range.

    >>> round(1 - sufficient(20, 800.0, "with_replacement"), 4)
    0.9304
    """
    _check(n, d1, beta1)
    ratio = 1 + math.sqrt((n - 1) * max(d1 / n - 1, 0))
    return _enough(ratio, _share(math.sqrt(d1 / n)), n, sampling, beta1)


def sufficient_for(
    gradients: Float[np.ndarray, " n"], sampling: Sampling, beta1: float = 0.0
) -> float:
    """1 − β2 up to which the drift of one table points down the mean gradient; see `sufficient`.

    Args:
      gradients: of one coordinate, of shape (n,); their mean is not 0. Its sign has no effect.
      sampling: the sampling scheme.
      beta1: β1, in [0, 1).

    Raises:
      ValueError: the table is not of shape (n,) and finite, its mean is 0, or β1 is outside [0, 1).

    >>> table = np.array([20.0, *[-1.0] * 19])
    >>> round(1 - sufficient_for(table, "with_replacement"), 4)
    0.995
    """
    table = np.asarray(gradients, np.float64)
    if table.ndim != 1 or not table.size or not np.isfinite(table).all():
        raise ValueError(f"gradients of shape {table.shape}: need finite numbers of shape (n,)")
    table = table / max(np.abs(table).max(), np.finfo(float).tiny)
    mean = table.mean()
    if mean == 0:
        raise ValueError("gradients: their mean is 0, so there is no direction to go")
    table = table * np.sign(mean)
    _check(len(table), math.inf, beta1)
    positive, negative = table[table > 0].sum(), -table[table < 0].sum()
    ratio = table.max() / table.mean()
    return _enough(float(ratio), float(negative / positive), len(table), sampling, beta1)


def _check(n: int, d1: float, beta1: float) -> None:
    if not n >= 2:
        raise ValueError(f"n={n}: must be at least 2")
    if not d1 >= n:
        raise ValueError(f"d1={d1}: must be at least n={n}, as for any table (Cauchy–Schwarz)")
    if not 0 <= beta1 < 1:
        raise ValueError(f"beta1={beta1}: must lie in [0, 1)")


def _share(r: float) -> float:
    """The largest sum of negative gradients over that of the positive ones."""
    return (r - 1) / (r + 1)


def _enough(ratio: float, share: float, n: int, sampling: Sampling, beta1: float) -> float:
    match sampling:
        case "with_replacement":
            return (2 - 1 / ratio) / ratio
        case "cyclic" | "shuffle_once":
            factor = 1.0
        case "random_shuffling":
            factor = (1 + beta1 - beta1**n) / (1 - beta1 + beta1**n)
        case _:
            assert_never(sampling)
    if share == 0:
        return 1.0
    return max(0.0, -math.expm1(math.log(factor * share) / (n - 0.5)))


def two_valued(n: int, num_positive: int, d1: float) -> Float[np.ndarray, " n"]:
    """K equal positive slopes and n − k equal others, with sum 1 and Σ s² = D1/n².

    The others are negative if k·D1 > n².

    Raises:
      ValueError: k is not in [1, n − 1], or D1 < n.
    """
    _check(n, d1, 0.0)
    k = num_positive
    if not 1 <= k < n:
        raise ValueError(f"num_positive={k}: must lie in [1, {n - 1}]")
    spread = math.sqrt((d1 / n - 1) / (n * n))  # standard deviation of the slopes
    high = 1 / n + spread * math.sqrt((n - k) / k)
    low = 1 / n - spread * math.sqrt(k / (n - k))
    return np.array([high] * k + [low] * (n - k))


def hardest_of_two(
    n: int, d1: float, sampling: Sampling = "with_replacement", beta1: float = 0.0
) -> Hardest:
    """The table of two different slopes that needs the largest β2, among k ≤ n/2.

    Its threshold is exact (`divergence_intervals`); every member of the class with this table
    diverges just below it. With more positive slopes than negative ones the sign of a short average
    is right, and no such table was ever the hardest. The threshold was always unimodal in k, so k
    rises from the smallest one with negative slopes until the threshold has fallen twice.

    Args:
      n: number of components, at least 3.
      d1: D1, above n.
      sampling: the sampling scheme; `shuffle_once` has the threshold of one order only.
      beta1: β1, in [0, 1).

    Raises:
      ValueError: an argument is outside its range.

    >>> found = hardest_of_two(5, 50.0)
    >>> found.num_positive, round(1 - found.one_minus_beta2, 4)
    (1, 0.6093)
    """
    _check(n, d1, beta1)
    if n < 3:
        raise ValueError(f"n={n}: must be at least 3")
    if sampling == "shuffle_once":
        raise ValueError("sampling=shuffle_once: its threshold depends on the order that it draws")
    best, last = Hardest(1.0, 1, two_valued(n, 1, d1)), 0
    for k in range(1, n // 2 + 1):
        slopes = two_valued(n, k, d1)
        if slopes[-1] >= 0:
            continue  # all gradients have one sign
        q = _threshold(slopes, sampling, beta1)
        if q < best.one_minus_beta2:
            best, last = Hardest(q, k, slopes), k
        elif best.one_minus_beta2 < 1 and k >= last + 2:
            break
    return best


def hardest(
    n: int, d1: float, sampling: Sampling = "with_replacement", beta1: float = 0.0
) -> Hardest:
    """The table found that needs the largest β2: `hardest_of_two`, or `hardest_cyclic`.

    Raises:
      ValueError: an argument is outside its range.
    """
    if sampling == "cyclic":
        return hardest_cyclic(n, d1, beta1)
    return hardest_of_two(n, d1, sampling, beta1)


_SCAN = 1.5  # ratio of successive 1 − β2 in the search for any table that drifts away
_LEAST_GAIN = 1e-10  # relative, in 1 − β2


def hardest_cyclic(
    n: int,
    d1: float,
    beta1: float = 0.0,
    *,
    starts: Sequence[Float[np.ndarray, " n"]] = (),
) -> Hardest:
    """The table that needs the largest β2 in cyclic order, searched among all tables of n slopes.

    From 1 − β2 where none is proved to drift away (`sufficient`) it goes up until some table does,
    which is found by ascent of D over tables with this D1 (quasi-Newton, exact derivative). Then it
    goes down again: D is maximised at the table's own threshold, where it is 0, and the new table
    has a smaller one. Where it was tried, all starts ended at the same threshold; that it is the
    smallest is not proved. It costs about a second.

    Args:
      n: number of components, at least 3.
      d1: D1, above n.
      beta1: β1, in [0, 1).
      starts: additional tables to start from.

    Raises:
      ValueError: an argument is outside its range.

    >>> round(1 - hardest_cyclic(5, 50.0).one_minus_beta2, 4)
    0.4544
    """
    best = hardest_of_two(n, d1, "cyclic", beta1)
    falling = np.concatenate([[2.0 * n], -np.linspace(2, 0, n - 1)])
    quarter = np.where(np.arange(n) < max(1, n // 4), 3.0, -1.0) + np.linspace(0.1, -0.1, n)
    with jax.enable_x64(True):
        for start in (best.slopes, falling, falling[::-1], quarter, *starts):
            slopes = _cyclic_ascent(np.asarray(start, float), n, d1, beta1, best.one_minus_beta2)
            if slopes is None:
                continue
            q = _threshold(slopes, "cyclic", beta1)
            if q < best.one_minus_beta2:
                first = int(slopes.argmax())
                best = Hardest(q, int((slopes > 0).sum()), np.roll(slopes, -first))
    return best


def _threshold(slopes: Float[np.ndarray, " n"], sampling: Sampling, beta1: float) -> float:
    [intervals] = divergence_intervals(slopes[:, None], [beta1], sampling)
    return intervals[-1].high.one_minus_beta2 if intervals else 1.0


def _cyclic_ascent(
    start: Float[np.ndarray, " n"], n: int, d1: float, beta1: float, largest: float
) -> Float[np.ndarray, " n"] | None:
    """A table with a threshold below `largest` in 1 − β2, as small as the ascent finds; or None."""
    spread, p = math.sqrt((d1 / n - 1) / n), 1 - beta1
    q, direction = max(sufficient(n, d1, "cyclic", beta1), 1e-9), start
    while True:  # upwards, until some table drifts away
        direction, drift = _ascend(direction, spread, p, q)
        if drift > 0:
            break
        if q >= min(largest, 0.999):
            return None
        q = min(q * _SCAN, largest, 0.999)
    while True:  # downwards, from one threshold to the next
        low, high = q, q
        while _cyclic_drift(direction, spread, p, low) > 0:
            low, high = low / _SCAN, low
        for _ in range(50):
            middle = math.sqrt(low * high)
            is_away = _cyclic_drift(direction, spread, p, middle) > 0
            low, high = (low, middle) if is_away else (middle, high)
        gained, q = 1 - high / q, high
        following, drift = _ascend(direction, spread, p, q)
        if not drift > 0 or gained < _LEAST_GAIN:
            return np.asarray(_on_sphere(jnp.asarray(direction), spread))
        direction = following


def _ascend(
    start: Float[np.ndarray, " n"], spread: float, p: float, q: float
) -> tuple[Float[np.ndarray, " n"], float]:
    found = minimize(
        lambda y: [-np.asarray(one) for one in _value_and_slope(y, spread, p, q)],
        start,
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": 400, "maxcor": 20, "ftol": 1e-15, "gtol": 1e-10},
    )
    centred = found.x - found.x.mean()
    return centred / np.linalg.norm(centred), float(-found.fun)


def _on_sphere(direction: Float[Array, " n"], spread: ArrayLike) -> Float[Array, " n"]:
    """The table with sum 1 and Σ s² = D1/n² in a direction."""
    centred = direction - jnp.mean(direction)
    unit = centred / jnp.sqrt(jnp.sum(centred**2))
    return jnp.asarray(1 / len(direction) + spread * unit)


@jax.jit
def _cyclic_drift(
    direction: Float[Array, " n"], spread: ArrayLike, p: ArrayLike, q: ArrayLike
) -> Float[Array, ""]:
    table = _on_sphere(direction, spread)[:, None]
    hyper = adam.Hyperparameters(jnp.asarray(p)[None], jnp.asarray(q)[None])
    return cyclic_drift(table, len(table), hyper)[0, 0]


_value_and_slope = jax.jit(jax.value_and_grad(_cyclic_drift))
