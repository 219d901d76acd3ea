"""What the instrument measures for each published statement: number and error, from no input."""

import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from adam_transition import adam, problems
from adam_transition.sampling import Sampling, stream_key
from adam_transition.simulate import Method, simulate
from adam_transition.theory.boundary import Interval, divergence_intervals
from adam_transition.theory.limit_points import limit_points
from adam_transition.theory.rule_boundary import rule_intervals
from adam_transition.theory.stationary_drift import stationary_drift


class Measured(NamedTuple):
    """A number and its error, 0 where it is exact to rounding or a count."""

    value: float
    uncertainty: float = 0.0


def reddi_threshold(beta2: float) -> Measured:
    """The β2 up to which Adam with β1 = 0.9 diverges from beta2 on: slopes 1010, −10, …, cyclic."""
    return _threshold(problems.reddi_online().constant_gradients(), 0.9, beta2)


def shi_threshold(large: Sequence[int] = (0,)) -> Measured:
    """β2 up to which RMSProp diverges on slope 10 at these steps of a period of ten, else −1."""
    slopes = np.full(10, -1.0)
    slopes[list(large)] = 10
    return _threshold(slopes, 0.0, 0.1)


def _threshold(slopes: Float[np.ndarray, " n"], beta1: float, beta2: float) -> Measured:
    """Where the interval of divergence ends that β2 is in; 0 if it is in none."""
    [intervals] = divergence_intervals(slopes[:, None], [beta1])
    return Measured(_end_of_interval(intervals, beta2))


def _end_of_interval(intervals: Sequence[Interval], beta2: float) -> float:
    ends = [one.high.beta2 for one in intervals if one.low.beta2 <= beta2 <= one.high.beta2]
    return ends[0] if ends else 0.0


_SHI_Q = 10 ** (-np.arange(1, 41) / 10)  # 1 − β2
_SHI_STEPS = 1_000_000
_SHI_RECORDS = 400


def shi_diagram() -> Measured:
    """The number of cells of Shi et al.'s diagram where their criterion and the drift disagree.

    C = 2 … 32, β2 = 1 − 10^(−i/10) for i = 1 … 40, β1 = 0, η_t = 1/√t, 10⁶ steps from 0 on [−1, 1].
    A run converges if the mean of log10|x + 1| over its last quarter is below −2. Only cells that
    `shi_drift` says can cross [−1, 1] are counted.
    """
    drift, crosses = shi_drift()
    with jax.enable_x64(True):
        problem = problems.stack(_shi_problems(), np.dtype("float64"))
        converges = np.asarray(_shi_converges(problem, jnp.asarray(_SHI_Q)))
    return Measured(float(np.sum((converges != (drift < 0))[crosses])))


def shi_drift() -> tuple[Float[np.ndarray, "31 40"], Bool[np.ndarray, "31 40"]]:
    """The stationary drift over their diagram, and where it crosses [−1, 1] in 10⁶ steps."""
    hyper = adam.Hyperparameters(np.ones_like(_SHI_Q), _SHI_Q)
    tables = [member.constant_gradients()[:, None] for member in _shi_problems()]
    drift = np.stack([stationary_drift(table, hyper).drift[..., 0] for table in tables])
    periods = np.array([len(table) for table in tables])
    # the path of a frozen table: drift per step times the sum of the step sizes
    return drift, np.abs(drift) / periods[:, None] * 2 * math.sqrt(_SHI_STEPS) > 2


def _shi_problems() -> list[problems.BoundedLinear]:
    return [problems.reddi(n) for n in range(2, 33)]


@jax.jit
def _shi_converges(problem: problems.FiniteSum, one_minus_beta2: Float[Array, " K"]) -> Array:
    """Whether each run converges by their criterion; of shape (members, K)."""

    def cell(member: problems.FiniteSum, q: Array) -> Array:
        trace = simulate(
            member,
            adam.Hyperparameters(1.0, q),
            jnp.zeros(()),
            1.0,
            stream_key(0),
            method=Method(),
            num_steps=_SHI_STEPS,
            record_every=_SHI_STEPS // _SHI_RECORDS,
            max_components=32,
        )
        late = trace.x[-_SHI_RECORDS // 4 :]
        return jnp.mean(jnp.log10(jnp.maximum(jnp.abs(late + 1), 1e-300))) < -2

    return jax.vmap(jax.vmap(cell, in_axes=(None, 0)), in_axes=(0, None))(problem, one_minus_beta2)


SKEWED = 0.0, 0.0, 0.0, 0.0, 1.0
"""Centres of quadratics whose third central moment is not 0."""

UNSKEWED = -5.0, -1.0, -1.0, -1.0, 4.0, 4.0
"""Centres that are not symmetric, although their third central moment is 0."""


def bias(
    sampling: Sampling,
    one_minus_beta2: float,
    batch_size: int = 1,
    centres: Sequence[float] = SKEWED,
) -> float:
    """|x̂ − x*| of Adam at β1 = 0 on f_i = ½(x − b_i)², b a mean of draws from the centres."""
    means = np.array([np.mean(b) for b in itertools.product(centres, repeat=batch_size)])
    # about their mean, so that small differences keep their digits
    means = (means - means.mean()) / np.ptp(means)
    problem = problems.quadratics(np.ones((len(means), 1, 1)), means[:, None])
    hyper = adam.Hyperparameters(1.0, one_minus_beta2)
    [point] = limit_points(problem, hyper, sampling, starts=np.array([[-0.3], [0.25]]))
    return abs(float(np.ravel(point.x)[0])) * float(np.ptp(centres))


def bias_exponent(sampling: Sampling, centres: Sequence[float] = SKEWED) -> Measured:
    """The exponent of the bias in 1 − β2 as that goes to 0."""
    q = np.array([1e-3, 1e-2 / 3, 1e-2])
    return _exponent(q, [bias(sampling, float(one), centres=centres) for one in q])


def bias_exponent_of_batch() -> Measured:
    """The exponent of the bias in 1/B, with replacement at 1 − β2 = 1e-3, B = 4, 3, 2, 1."""
    sizes = np.arange(4, 0, -1)
    return _exponent(1 / sizes, [bias("with_replacement", 1e-3, int(b)) for b in sizes])


def symmetric_bias() -> Measured:
    """|x̂ − x*| with replacement on centres that are symmetric about their mean, at β2 = 0.5."""
    return Measured(bias("with_replacement", 0.5, centres=(-1.0, -0.25, 0.25, 1.0)))


def _exponent(x: np.ndarray, y: Sequence[float]) -> Measured:
    """The local exponent between the first two points; its error is the change to the next two."""
    local = np.diff(np.log(y)) / np.diff(np.log(x))
    return Measured(float(local[0]), float(abs(local[1] - local[0])))


_MONOMIAL_STEPS = 100_000
_MONOMIAL_FLOOR = {4: 1e-40, 6: 1e-25}  # a gradient's square is above 1e-250 there


def stable_share(power: int) -> Measured:
    """The share of a 50 × 50 grid where x stays positive exactly if β1 < β2^(k/(2(k−2))).

    Adam on x^k/k from x0 = 1 with η = 1e-3, 10⁵ steps, m0 = g0 and v0 = g0², in float64. A run ends
    when x is so small that v would lose digits.
    """
    beta = np.linspace(0.01, 0.99, 50)
    with jax.enable_x64(True):
        has_crossed = np.asarray(_has_crossed(power, jnp.asarray(1 - beta)))
    beta1, beta2 = np.meshgrid(beta, beta, indexing="ij")
    # on the diagonal of k = 4 both sides are equal: rounding may not decide it
    exponent = power / (2 * (power - 2))
    away = np.abs(np.log(beta1) / np.log(beta2) - exponent) > 1e-9
    return Measured(float((~has_crossed == (beta1 < beta2**exponent))[away].mean()))


@partial(jax.jit, static_argnums=0)
def _has_crossed(power: int, one_minus_beta: Float[Array, " K"]) -> Array:
    hyper = adam.Hyperparameters(one_minus_beta[:, None], one_minus_beta[None])

    def step(_: Array, carry: tuple) -> tuple:
        x, state, crossed = carry
        gradient = x ** (power - 1)
        direction, after = adam.update(gradient, state, hyper)
        moved = x - 1e-3 * direction
        runs = jnp.abs(x) > _MONOMIAL_FLOOR[power]
        keep = partial(jnp.where, runs)
        state = adam.AdamState(
            keep(after.first, state.first), keep(after.second, state.second), after.step
        )
        return keep(moved, x), state, crossed | (runs & (moved <= 0))

    ones = jnp.ones(2 * (len(one_minus_beta),))
    start = ones, adam.init_from_gradients(ones, ones), ones < 0
    return jax.lax.fori_loop(0, _MONOMIAL_STEPS, step, start)[2]


def adopt_threshold() -> Measured:
    """The largest β2 at which ADOPT without its clip diverges, β1 = 0.9; 0 if at none."""
    scan = rule_intervals(problems.counterexample_table(20, 1.0), "adopt_unclipped", 0.9)
    return Measured(scan.diverges[-1].high.beta2 if scan.diverges else 0.0)


def muon_threshold() -> Measured:
    """β up to which Muon diverges on the counterexample, from β = 0.95 on; n = 20, a = 1."""
    scan = rule_intervals(problems.counterexample_table(20, 1.0), "muon", 0.0)
    return Measured(_end_of_interval(scan.diverges, 0.95))


def equal_betas_drift() -> Measured:
    """The stationary drift at β1 = β2 = 0.95 on the counterexample, n = 20, a = 1."""
    hyper = adam.Hyperparameters(0.05, 0.05)
    table = problems.counterexample_table(20, 1.0)
    return Measured(stationary_drift(table, hyper, "with_replacement").drift.item())


def threshold_exponent_of_batch() -> Measured:
    """The exponent of 1 − β2* in B at β1 = 0: B = 1 … 3 draws from 20, −1, …, −1 (n = 20)."""
    slopes, sizes = problems.counterexample_table(20, 1.0)[:, 0], np.arange(1, 4)
    thresholds = []
    for size in sizes:
        table = np.array([np.mean(b) for b in itertools.product(slopes, repeat=int(size))])
        [intervals] = divergence_intervals(table[:, None], [0.0], "with_replacement")
        thresholds.append(intervals[-1].high.one_minus_beta2)
    return _exponent(sizes, thresholds)
