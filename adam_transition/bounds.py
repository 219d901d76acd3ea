"""Theorems 3.1 and 3.3 and the concentration lemma as functions: hypotheses, left and right sides.

The theorems: if 0 ≤ β1 < √β2 < 1 and β2 ≥ γ1(n), η_k = η0/√k, then for T large enough

    min_{k≤T} E[ min{ ‖∇f(x_k)‖²/√D0, ‖∇f(x_k)‖/(2√(d D1)) } ]
        = O( log T/((1−β2)√T) ) + O( (1−β2)√D0 ),

with replacement (3.1, γ1 = 1 − O((1−β1^n)/n^5)) and at epoch starts under random shuffling (3.3, a
threshold of the same kind). The constants in O(·) are not known to us: what needs one is given up
to it, never as a number.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from adam_transition import adam
from adam_transition.problems import ProblemClass


class Hypothesis(NamedTuple):
    """A condition of a theorem: whether it holds, and by how much."""

    name: str
    holds: bool | None  # None: it depends on a constant that is not known
    margin: float  # > 0 where it holds; what the unknown constant must be, where that decides


class RightHandSide(NamedTuple):
    """The two terms of the bound, without their constants."""

    rate: float  # log T/((1−β2)√T)
    neighbourhood: float  # (1−β2)√D0


class Band(NamedTuple):
    """The concentration lemma: C_lower ≤ √(E_k v/v) ≤ C_upper with probability ≥ `probability`.

    E_k is the expectation given everything before the draw of step k:
    E_k v_k = β2 v_{k−1} + (1−β2) Σ g_i²/n.
    """

    probability: float  # may be negative: then it says nothing
    lower: float  # may be negative: then only the upper side says something
    upper: float  # inf where the inner bracket is not positive

    @property
    def informative(self) -> bool:
        """Whether probability and both sides say something."""
        return self.probability > 0 and self.lower > 0 and math.isfinite(self.upper)


def hypotheses(
    problem_class: ProblemClass, beta1: float, beta2: float, *, schedule: adam.Schedule
) -> tuple[Hypothesis, ...]:
    """The conditions of Theorems 3.1 and 3.3, with margins.

    The margin of the threshold is the C for which β2 = 1 − C(1−β1^n)/n^5: it holds if the theorem's
    constant is at least that.
    """
    n, q = problem_class.n, 1 - beta2
    in_square = 0 <= beta1 < 1 and 0 <= beta2 < 1
    needed = q * n**5 / float(adam.one_minus_power(1 - beta1, n)) if in_square else math.inf
    return (
        Hypothesis("0 ≤ β1, β2 < 1", in_square, min(beta1, beta2, 1 - beta1, 1 - beta2)),
        Hypothesis("β1 < √β2", beta1 < math.sqrt(max(beta2, 0)), math.sqrt(max(beta2, 0)) - beta1),
        Hypothesis("β2 ≥ 1 − C(1−β1^n)/n^5", None, needed),
        Hypothesis("η_k = η0/√k", schedule.startswith("inverse_sqrt"), math.nan),
    )


def bounded_steps(beta1: ArrayLike, one_minus_beta2: ArrayLike) -> np.ndarray:
    """Whether β1 < √β2: then |m|/√v is bounded whatever the gradients."""
    return np.asarray(beta1) < np.sqrt(1 - np.asarray(one_minus_beta2))


def progress(gradients: Float[Array, "... d"], d0: ArrayLike, d1: ArrayLike) -> Float[Array, "..."]:
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
    """min_{k≤T} E[progress at k] for each recorded T, from runs of several seeds.

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
    """Slope of log progress against log T, with its standard error from a jackknife over seeds."""

    slope: Float[np.ndarray, "..."]
    stderr: Float[np.ndarray, "..."]


def slope(mean_progress: Float[np.ndarray, "seed ... octave"]) -> Float[np.ndarray, "..."]:
    """The exponent with which the mean of `progress` over (T/2, T] falls, T doubling each time.

    The left-hand side of the theorems is a minimum over k ≤ T of expectations, so this mean, taken
    over seeds as well, is an upper bound on it: where the mean falls at a rate, so does the
    theorem's left side. Other than the running minimum it has no use for a moment at which a run
    happens to pass x*. By least squares in logarithms. A mean that is not finite and positive has
    slope +inf: nothing is shown by it.
    """
    octaves = np.arange(mean_progress.shape[-1]) * math.log(2)
    x = octaves - octaves.mean()
    mean = mean_progress.mean(axis=0, dtype=np.float64)
    told = (np.isfinite(mean) & (mean > 0)).all(axis=-1)
    fitted = (np.log(np.where(told[..., None], mean, 1.0)) * x).sum(axis=-1) / (x @ x)
    return np.where(told, fitted, np.inf)


def without_each(
    statistic: Callable[[np.ndarray], np.ndarray], values: Float[np.ndarray, "seed ..."]
) -> Float[np.ndarray, "seed ..."]:
    """A statistic of the seeds with each of them left out in turn."""
    seeds = range(len(values))
    return np.stack([statistic(np.delete(values, seed, axis=0)) for seed in seeds])


def rate(mean_progress: Float[np.ndarray, "seed ... octave"]) -> Slope:
    """`slope` with its standard error, 0 where the slope is infinite."""
    with np.errstate(invalid="ignore"):
        stderr = np.nan_to_num(jackknife_stderr(without_each(slope, mean_progress)))
    return Slope(slope(mean_progress), stderr)


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


def concentration(n: int, one_minus_beta2: float, delta: float) -> Band:
    """The lemma's band and probability, for 0 < δ ≤ 1/(4n).

    Raises:
      ValueError: n < 1, 1 − β2 outside (0, 1), or δ outside (0, 1/(4n)].
    """
    q = one_minus_beta2
    if n < 1:
        raise ValueError(f"n={n} is below 1")
    if not 0 < q < 1:
        raise ValueError(f"one_minus_beta2={q} is outside (0, 1)")
    if not 0 < delta <= 1 / (4 * n):
        raise ValueError(f"delta={delta} is outside (0, 1/(4n)] = (0, {1 / (4 * n):g}]")
    probability = 1 - n * math.exp(-(delta**2) / (q * (28 / (3 * n) + 8 / 3 * delta)))
    unit = q * n / ((1 - 2 * n * delta) * (1 - q) ** n) if (1 - q) ** n > 0 else math.inf
    bracket = 1 - 8 * unit
    return Band(probability, 1 - 4 * unit, bracket**-0.5 if bracket > 0 else math.inf)


def largest_informative(n: int, delta: float) -> float:
    """The greatest 1 − β2 for which the lemma says something at this δ, to 12 digits.

    Everything that must be positive falls as 1 − β2 grows, so below it the lemma always speaks.

    >>> 2.5e-4 < largest_informative(10, 1 / 40) < 3e-4
    True
    """
    low, high = 0.0, 1.0
    concentration(n, 0.5, delta)  # refuses what is out of range
    for _ in range(80):
        middle = (low + high) / 2
        if 0 < middle < 1 and concentration(n, middle, delta).informative:
            low = middle
        else:
            high = middle
    return low
