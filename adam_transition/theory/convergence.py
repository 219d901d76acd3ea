"""Theorems 3.1 and 3.3 as functions: their hypotheses, the left-hand side, and its rate.

The theorems: if 0 ≤ β1 < √β2 < 1 and β2 ≥ γ1(n), η_k = η0/√k, then for T large enough

    min_{k≤T} E[ min{ ‖∇f(x_k)‖²/√D0, ‖∇f(x_k)‖/(2√(d D1)) } ]
        = O( log T/((1−β2)√T) ) + O( (1−β2)√D0 ),

with replacement (3.1, γ1 = 1 − O((1−β1^n)/n^5)) and at epoch starts under random shuffling (3.3, a
threshold of the same kind). The constants in O(·) are unknown, as the paper's appendix was not
available: what needs one is given up to it, never as a number.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float

from adam_transition import adam


class Hypotheses(NamedTuple):
    """The conditions of Theorems 3.1 and 3.3 at some (β1, β2), whose common shape is `…`."""

    bounded_steps: Bool[np.ndarray, "..."]  # 0 ≤ β1 < √β2 < 1
    diminishing_steps: bool  # η_k = η0/√k
    attracts: Bool[np.ndarray, "..."]  # our stand-in for β2 ≥ γ1(n); see `hypotheses`
    needed_constant: Float[np.ndarray, "..."]  # the C with β2 = 1 − C(1−β1^n)/n^5

    @property
    def hold(self) -> Bool[np.ndarray, "..."]:
        """Whether all of them do, with the stand-in for the threshold."""
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
    """The conditions of Theorems 3.1 and 3.3; all arrays broadcast together.

    The constant in the threshold γ1(n) = 1 − O((1−β1^n)/n^5) is unknown. Where D0 = 0 the stationary
    drift beside x* stands in for it: x* attracts where D < 0, by four standard errors. A drift that
    is NaN says nothing, and the threshold is then taken to hold. `needed_constant` is what the
    theorem's own constant would have to be at least.

    Args:
      n: number of components.
      beta1: β1.
      one_minus_beta2: 1 − β2.
      drift: D beside x*, away from it; NaN where it is not known.
      drift_stderr: its standard error.
      schedule: of the step sizes.
    """
    beta1, q = np.asarray(beta1, np.float64), np.asarray(one_minus_beta2, np.float64)
    in_square = (beta1 >= 0) & (beta1 < 1) & (q > 0) & (q <= 1)
    with np.errstate(divide="ignore"):
        room = -np.expm1(n * np.log(np.where(in_square, beta1, 0)))  # 1 − β1^n
    return Hypotheses(
        bounded_steps=in_square & bounded_steps(beta1, q),
        diminishing_steps=schedule.startswith("inverse_sqrt"),
        attracts=(drift < -4 * np.asarray(drift_stderr)) | np.isnan(drift),
        needed_constant=np.where(in_square, q * np.asarray(n, float) ** 5 / room, np.inf),
    )


def bounded_steps(beta1: ArrayLike, one_minus_beta2: ArrayLike) -> np.ndarray:
    """Whether β1 < √β2: then |m|/√v is bounded whatever the gradients."""
    return np.asarray(beta1) < np.sqrt(1 - np.asarray(one_minus_beta2))


def stationarity(
    gradients: Float[Array, "... d"], d0: ArrayLike, d1: ArrayLike
) -> Float[Array, "..."]:
    """min{‖∇f‖²/√D0, ‖∇f‖/(2√(d D1))}, of which the theorems bound the mean; D0 may be 0."""
    norm = jnp.linalg.norm(gradients, axis=-1)
    d = gradients.shape[-1]
    slow = norm / (2 * jnp.sqrt(d * jnp.asarray(d1, norm.dtype)))
    root = jnp.sqrt(jnp.asarray(d0, norm.dtype))
    fast = jnp.where(root > 0, norm**2 / jnp.where(root > 0, root, 1), jnp.inf)
    return jnp.minimum(fast, slow)


def left_hand_side(
    values: Float[np.ndarray, "seed ... step"],
) -> tuple[Float[np.ndarray, "... step"], Float[np.ndarray, "... step"]]:
    """min_{k≤T} E[stationarity at k] for each recorded T, from runs of several seeds.

    Returns the running minimum of the means over seeds, and the standard error of the mean at the
    step where the minimum is attained. The minimum is over recorded steps: never below that over
    all steps. A run that is not finite counts as infinite.
    """
    values = np.where(np.isfinite(values), values, np.inf)
    with np.errstate(invalid="ignore"):
        mean = values.mean(axis=0)
        stderr = values.std(axis=0, ddof=1) / math.sqrt(len(values))
    least = np.minimum.accumulate(mean, axis=-1)
    where = np.maximum.accumulate(np.where(mean <= least, np.arange(mean.shape[-1]), 0), axis=-1)
    return least, np.take_along_axis(np.nan_to_num(stderr), where, axis=-1)


class Slope(NamedTuple):
    """Slope of log stationarity against log T, with its standard error from a jackknife over seeds."""

    slope: Float[np.ndarray, "..."]
    stderr: Float[np.ndarray, "..."]


def slope(mean_stationarity: Float[np.ndarray, "seed ... octave"]) -> Float[np.ndarray, "..."]:
    """The exponent with which the mean of `stationarity` over (T/2, T] falls, T doubling each time.

    The left-hand side of the theorems is a minimum over k ≤ T of expectations, so this mean, taken
    over seeds as well, is an upper bound on it: where the mean falls at a rate, so does the
    theorem's left side. Other than the running minimum it has no use for a moment at which a run
    happens to pass x*. By least squares in logarithms. A mean that is not finite and positive has
    slope +inf: nothing is shown by it.
    """
    octaves = np.arange(mean_stationarity.shape[-1]) * math.log(2)
    x = octaves - octaves.mean()
    mean = mean_stationarity.mean(axis=0, dtype=np.float64)
    told = (np.isfinite(mean) & (mean > 0)).all(axis=-1)
    fitted = (np.log(np.where(told[..., None], mean, 1.0)) * x).sum(axis=-1) / (x @ x)
    return np.where(told, fitted, np.inf)


def without_each(
    statistic: Callable[[np.ndarray], np.ndarray], values: Float[np.ndarray, "seed ..."]
) -> Float[np.ndarray, "seed ..."]:
    """A statistic of the seeds with each of them left out in turn."""
    seeds = range(len(values))
    return np.stack([statistic(np.delete(values, seed, axis=0)) for seed in seeds])


def rate(mean_stationarity: Float[np.ndarray, "seed ... octave"]) -> Slope:
    """`slope` with its standard error, 0 where the slope is infinite."""
    with np.errstate(invalid="ignore"):
        stderr = np.nan_to_num(jackknife_stderr(without_each(slope, mean_stationarity)))
    return Slope(slope(mean_stationarity), stderr)


def jackknife_stderr(without: Float[np.ndarray, "seed ..."]) -> Float[np.ndarray, "..."]:
    """Standard error of a statistic from its values with one seed left out each."""
    return np.sqrt((len(without) - 1) * without.var(axis=0))


def sufficient_slope(ends: Float[np.ndarray, " octave"]) -> float:
    """The slope that the theorems allow: of the mean of log k/√k over (T/2, T], as `slope` fits.

    Args:
      ends: T of each octave.
    """

    def integral(t: np.ndarray) -> np.ndarray:
        return 2 * np.sqrt(t) * (np.log(t) - 2)

    ends = np.asarray(ends, np.float64)
    means = (integral(ends) - integral(ends / 2)) / (ends / 2)
    return float(np.polyfit(np.log(ends), np.log(means), 1)[0])
