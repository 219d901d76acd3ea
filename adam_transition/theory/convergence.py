"""Theorems 3.1 and 3.3 as functions: their hypotheses, their left-hand side, and its rate.

The theorems state: if 0 ≤ β1 < √β2 < 1 and β2 ≥ γ1(n), η_k = η0/√k, then for T large enough

    min_{k≤T} E[ min{ ‖∇f(x_k)‖²/√D0, ‖∇f(x_k)‖/(2√(d D1)) } ]
        = O( log T/((1−β2)√T) ) + O( (1−β2)√D0 ),

with replacement (3.1, γ1 = 1 − O((1−β1^n)/n^5)) and at epoch starts under random shuffling (3.3, a
threshold of the same form). The constants in O(·) are unknown, because the paper's appendix was not
available: a quantity that depends on such a constant is given up to the constant only.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from adam_transition import adam


class Hypotheses(NamedTuple):
    """The conditions of Theorems 3.1 and 3.3; `…` is the common shape of β1 and β2."""

    bounded_steps: Bool[np.ndarray, "..."]  # 0 ≤ β1 < √β2 < 1
    diminishing_steps: bool  # η_k = η0/√k
    attracts: Bool[np.ndarray, "..."]  # our substitute for β2 ≥ γ1(n); see `hypotheses`
    needed_constant: Float[np.ndarray, "..."]  # the C with β2 = 1 − C(1−β1^n)/n^5

    @property
    def hold(self) -> Bool[np.ndarray, "..."]:
        """Whether all conditions hold, with the substitute for the threshold."""
        return self.bounded_steps & self.attracts & self.diminishing_steps


def hypotheses(
    n: ArrayLike,
    beta1: Float[np.ndarray, "..."],
    one_minus_beta2: Float[np.ndarray, "..."],
    *,
    drift: Float[np.ndarray, "..."] | float = math.nan,
    drift_stderr: Float[np.ndarray, "..."] | float = 0.0,
    schedule: adam.Schedule = "inverse_sqrt",
) -> Hypotheses:
    """Evaluates the conditions of Theorems 3.1 and 3.3; all arrays broadcast together.

    The constant in the threshold γ1(n) = 1 − O((1−β1^n)/n^5) is unknown. If D0 = 0, the sign of
    the stationary drift beside x* replaces the threshold: x* attracts if D < 0 by more than four
    standard errors. If the drift is NaN, the threshold is taken to hold. `needed_constant` is the
    smallest value of the theorem's constant with which β2 meets the threshold.

    Args:
      n: number of components.
      beta1: β1.
      one_minus_beta2: 1 − β2.
      drift: D beside x*, positive away from x*; NaN if unknown.
      drift_stderr: standard error of `drift`.
      schedule: step-size schedule.
    """
    beta1, q = np.asarray(beta1, np.float64), np.asarray(one_minus_beta2, np.float64)
    in_square = (beta1 >= 0) & (beta1 < 1) & (q > 0) & (q <= 1)
    with np.errstate(divide="ignore"):
        one_minus_power = -np.expm1(n * np.log(np.where(in_square, beta1, 0)))  # 1 − β1^n
    return Hypotheses(
        bounded_steps=in_square & bounded_steps(beta1, q),
        diminishing_steps=schedule.startswith("inverse_sqrt"),
        attracts=(drift < -4 * np.asarray(drift_stderr)) | np.isnan(drift),
        needed_constant=np.where(
            in_square, q * np.asarray(n, float) ** 5 / one_minus_power, np.inf
        ),
    )


def bounded_steps(beta1: ArrayLike, one_minus_beta2: ArrayLike) -> np.ndarray:
    """Whether β1 < √β2, which bounds |m|/√v for all gradient sequences."""
    return np.asarray(beta1) < np.sqrt(1 - np.asarray(one_minus_beta2))


def stationarity(
    gradients: Float[Array, "... d"], d0: ArrayLike, d1: ArrayLike
) -> Float[Array, "..."]:
    """min{‖∇f‖²/√D0, ‖∇f‖/(2√(d D1))}, whose mean the theorems bound; D0 may be 0."""
    norm = jnp.linalg.norm(gradients, axis=-1)
    d = gradients.shape[-1]
    slow = norm / (2 * jnp.sqrt(d * jnp.asarray(d1, norm.dtype)))
    root = jnp.sqrt(jnp.asarray(d0, norm.dtype))
    fast = jnp.where(root > 0, norm**2 / jnp.where(root > 0, root, 1), jnp.inf)
    return jnp.minimum(fast, slow)


def left_hand_side(
    values: Float[np.ndarray, "seed ... step"],
) -> tuple[Float[np.ndarray, "... step"], Float[np.ndarray, "... step"]]:
    """min_{k≤T} E[stationarity at k] for each recorded T, from the runs of several seeds.

    The minimum is over recorded steps only, so it is at least the minimum over all steps. A value
    that is not finite counts as infinite.

    Returns:
      The running minimum of the means over seeds, and the standard error of the mean at the step
      that attains the minimum.
    """
    values = np.where(np.isfinite(values), values, np.inf)
    with np.errstate(invalid="ignore"):
        mean = values.mean(axis=0)
        stderr = values.std(axis=0, ddof=1) / math.sqrt(len(values))
    minimum = np.minimum.accumulate(mean, axis=-1)
    attains = np.where(mean <= minimum, np.arange(mean.shape[-1]), 0)
    attained_at = np.maximum.accumulate(attains, axis=-1)
    return minimum, np.take_along_axis(np.nan_to_num(stderr), attained_at, axis=-1)


class Slope(NamedTuple):
    """Slope of log stationarity against log T, with its jackknife standard error over seeds."""

    slope: Float[np.ndarray, "..."]
    stderr: Float[np.ndarray, "..."]


def slope(mean_stationarity: Float[np.ndarray, "seed ... octave"]) -> Float[np.ndarray, "..."]:
    """The exponent in T of the mean of `stationarity` over (T/2, T], for doubling T.

    Fitted by least squares in logarithms. The left-hand side of the theorems is a minimum over
    k ≤ T of expectations, so this mean, taken over seeds as well, is an upper bound on it: the
    left-hand side decays at least as fast as the bound. Unlike the running minimum, the mean is
    insensitive to a single step at which a run happens to pass x*. The slope is +inf if a mean is
    not finite and positive.
    """
    octaves = np.arange(mean_stationarity.shape[-1]) * math.log(2)
    x = octaves - octaves.mean()
    mean = mean_stationarity.mean(axis=0, dtype=np.float64)
    is_valid = (np.isfinite(mean) & (mean > 0)).all(axis=-1)
    fitted = (np.log(np.where(is_valid[..., None], mean, 1.0)) * x).sum(axis=-1) / (x @ x)
    return np.where(is_valid, fitted, np.inf)


def without_each(
    statistic: Callable[[np.ndarray], np.ndarray], values: Float[np.ndarray, "seed ..."]
) -> Float[np.ndarray, "seed ..."]:
    """A statistic over seeds, evaluated with each seed left out in turn."""
    seeds = range(len(values))
    return np.stack([statistic(np.delete(values, seed, axis=0)) for seed in seeds])


def rate(mean_stationarity: Float[np.ndarray, "seed ... octave"]) -> Slope:
    """`slope` with its jackknife standard error, which is 0 if the slope is infinite."""
    with np.errstate(invalid="ignore"):
        stderr = np.nan_to_num(jackknife_stderr(without_each(slope, mean_stationarity)))
    return Slope(slope(mean_stationarity), stderr)


def jackknife_stderr(without: Float[np.ndarray, "seed ..."]) -> Float[np.ndarray, "..."]:
    """Jackknife standard error of a statistic from its leave-one-out values (`without_each`)."""
    return np.asarray(np.sqrt((len(without) - 1) * without.var(axis=0)))


def sufficient_slope(ends: Float[np.ndarray, " octave"]) -> float:
    """The slope that the theorems allow: that of the mean of log k/√k over (T/2, T].

    Fitted as in `slope`.

    Args:
      ends: T of each octave.
    """

    def integral(t: np.ndarray) -> np.ndarray:
        return 2 * np.sqrt(t) * (np.log(t) - 2)

    ends = np.asarray(ends, np.float64)
    means = (integral(ends) - integral(ends / 2)) / (ends / 2)
    return float(np.polyfit(np.log(ends), np.log(means), 1)[0])
