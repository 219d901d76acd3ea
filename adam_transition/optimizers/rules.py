"""Update rules other than Adam's, written in p = 1 − β so that β near 1 keeps its digits.

Each is an `adam.UpdateRule` on an array of parameters. Where a rule has a bias correction, the
argument `bias_correction` of its update turns it on; the update then equals that of optax, with
ε = 0 unless it is given. In the long run the correction is 1. Two numbers of `adam.Hyperparameters`
are the axes of the plane: p, of the rule's first β, and q, of its second. A rule with one β has no
use for q. Further constants are arguments of the functions that make rules.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from adam_transition import adam
from adam_transition.adam import AdamState, Hyperparameters, UpdateRule, one_minus_power

YOGI_START = 1e-6
"""Initial m and v of Yogi in optax."""

ADAN_BETA2 = 0.92
"""Decay of Adan's average of differences: its default."""

_NEWTON_SCHULZ = 3.4445, -4.775, 2.0315
_NEWTON_SCHULZ_STEPS = 5

Numbers = Float[Array, "..."]


class Momentum(NamedTuple):
    """The state of a rule with one average."""

    first: Numbers  # m
    step: Int[Array, ""]


class MaximumState(NamedTuple):
    """The state of AMSGrad."""

    first: Numbers  # m
    second: Numbers  # v
    largest: Numbers  # of all v so far
    step: Int[Array, ""]


class TwoSpeeds(NamedTuple):
    """The state of AdEMAMix."""

    first: Numbers  # m
    slow: Numbers  # average with β3
    second: Numbers  # v
    step: Int[Array, ""]


class Differences(NamedTuple):
    """The state of Adan."""

    first: Numbers  # average of gradients
    difference: Numbers  # average of differences of consecutive gradients
    second: Numbers  # average of squares
    last: Numbers  # the gradient before
    step: Int[Array, ""]


def _average(value: Numbers, p: ArrayLike, new: Numbers) -> Numbers:
    """(1 − p)·value + p·new, without rounding 1 − p."""
    return value - p * value + p * new


def _moments(gradient: Numbers, state: Any, hyper: Hyperparameters) -> tuple[Numbers, Numbers]:
    """Adam's m and v after the gradient, without bias correction."""
    p, q, *_ = hyper
    return _average(state.first, p, gradient), _average(state.second, q, gradient * gradient)


def _no_step() -> Int[Array, ""]:
    return jnp.zeros((), jnp.int32)


def _never(state: Any) -> Bool[Array, ""]:
    del state
    return jnp.array(False)


def _corrected(value: Numbers, p: ArrayLike, step: Array, bias_correction: bool) -> Numbers:
    return value / one_minus_power(p, step) if bias_correction else value


def _ratio(m: Numbers, v: Numbers, hyper: Hyperparameters) -> Numbers:
    return adam.ratio(m, v, hyper.epsilon, hyper.epsilon_root)


def _nesterov(
    m: Numbers, gradient: Numbers, p: ArrayLike, step: Array, bias_correction: bool
) -> Numbers:
    """β m̂ + (1 − β) ĝ, with the corrections of optax: m̂ for the next step, ĝ for this one."""
    ahead = _corrected(m, p, step + 1, bias_correction)
    return _average(ahead, p, _corrected(gradient, p, step, bias_correction))


def _amsgrad(
    gradient: Numbers, state: MaximumState, hyper: Hyperparameters, *, bias_correction: bool
) -> tuple[Numbers, MaximumState]:
    p, q, *_ = hyper
    step = state.step + 1
    m, v = _moments(gradient, state, hyper)
    largest = jnp.maximum(state.largest, _corrected(v, q, step, bias_correction))
    direction = _ratio(_corrected(m, p, step, bias_correction), largest, hyper)
    return direction, MaximumState(m, v, largest, step)


AMSGRAD = UpdateRule(
    lambda x: MaximumState(jnp.zeros_like(x), jnp.zeros_like(x), jnp.zeros_like(x), _no_step()),
    lambda full, square: MaximumState(full, square, square, _no_step()),
    _amsgrad,
    _never,
)
"""Reddi, Kale & Kumar (arXiv:1904.09237): m/√(largest v so far), as in optax."""


def _nadam(
    gradient: Numbers, state: AdamState, hyper: Hyperparameters, *, bias_correction: bool
) -> tuple[Numbers, AdamState]:
    p, q, *_ = hyper
    step = state.step + 1
    m, v = _moments(gradient, state, hyper)
    ahead = _nesterov(m, gradient, p, step, bias_correction)
    return _ratio(ahead, _corrected(v, q, step, bias_correction), hyper), AdamState(m, v, step)


NADAM = UpdateRule(adam.init, adam.init_from_gradients, _nadam, adam.has_underflowed)
"""Dozat (ICLR workshop 2016): Adam with Nesterov momentum, as in optax."""


def _adabelief(
    gradient: Numbers, state: AdamState, hyper: Hyperparameters, *, bias_correction: bool
) -> tuple[Numbers, AdamState]:
    p, q, *_ = hyper
    step = state.step + 1
    m = _average(state.first, p, gradient)
    error = gradient - m
    v = _average(state.second, q, error * error) + hyper.epsilon_root
    direction = adam.ratio(
        _corrected(m, p, step, bias_correction),
        _corrected(v, q, step, bias_correction),
        hyper.epsilon,
        0.0,
    )
    return direction, AdamState(m, v, step)


ADABELIEF = UpdateRule(adam.init, adam.init_from_gradients, _adabelief, adam.has_underflowed)
"""Zhuang et al. (arXiv:2010.07468): v averages (g − m)². At β1 = 0 that is 0, and the rule does not
move unless ε > 0."""


def _yogi(
    gradient: Numbers, state: AdamState, hyper: Hyperparameters, *, bias_correction: bool
) -> tuple[Numbers, AdamState]:
    p, q, *_ = hyper
    step = state.step + 1
    m = _average(state.first, p, gradient)
    square = gradient * gradient
    v = state.second - q * jnp.sign(state.second - square) * square
    direction = _ratio(
        _corrected(m, p, step, bias_correction), _corrected(v, q, step, bias_correction), hyper
    )
    return direction, AdamState(m, v, step)


YOGI = UpdateRule(
    lambda x: AdamState(jnp.full_like(x, YOGI_START), jnp.full_like(x, YOGI_START), _no_step()),
    adam.init_from_gradients,
    _yogi,
    _never,
)
"""Zaheer et al. (NeurIPS 2018): v moves by at most (1 − β2) g² towards g². m and v begin at 1e-6,
as in optax."""


def _adamax(
    gradient: Numbers, state: AdamState, hyper: Hyperparameters, *, bias_correction: bool
) -> tuple[Numbers, AdamState]:
    p, q, epsilon, _ = hyper
    step = state.step + 1
    m = _average(state.first, p, gradient)
    v = jnp.maximum(state.second - q * state.second, jnp.abs(gradient) + epsilon)
    direction = _divided(_corrected(m, p, step, bias_correction), v)
    return direction, AdamState(m, v, step)


ADAMAX = UpdateRule(
    adam.init,
    lambda full, square: AdamState(full, jnp.sqrt(square), _no_step()),
    _adamax,
    adam.has_underflowed,
)
"""Kingma & Ba (arXiv:1412.6980), section 7.1: v is the largest of β2^j |g| over the past."""


def _divided(m: Numbers, v: Numbers) -> Numbers:
    return jnp.where(v == 0, 0, m / v)


def _radam(
    gradient: Numbers, state: AdamState, hyper: Hyperparameters, *, bias_correction: bool
) -> tuple[Numbers, AdamState]:
    p, q, *_ = hyper
    step = state.step + 1
    m, v = _moments(gradient, state, hyper)
    limit = 2 / jnp.asarray(q) - 1
    m_hat = _corrected(m, p, step, bias_correction)
    adaptive = _ratio(m_hat, _corrected(v, q, step, bias_correction), hyper)
    if not bias_correction:  # the limit of many steps
        return jnp.where(limit > _RADAM_THRESHOLD, adaptive, m_hat), AdamState(m, v, step)
    left = one_minus_power(q, step)
    length = limit - 2 * step * (1 - left) / left
    factor = (length - 4) * (length - 2) * limit / ((limit - 4) * (limit - 2) * length)
    is_warm = length >= _RADAM_THRESHOLD
    factor = jnp.sqrt(jnp.where(is_warm, factor, 1))
    return jnp.where(is_warm, factor * adaptive, m_hat), AdamState(m, v, step)


_RADAM_THRESHOLD = 5.0
RADAM = UpdateRule(adam.init, adam.init_from_gradients, _radam, adam.has_underflowed)
"""Liu et al. (arXiv:1908.03265): Adam once 2/(1 − β2) − 1 − 2kβ2^k/(1 − β2^k) ≥ 5, momentum before.
At β2 ≤ 2/3 it never is."""


def _rmsprop(
    gradient: Numbers, state: AdamState, hyper: Hyperparameters, *, bias_correction: bool
) -> tuple[Numbers, AdamState]:
    p, q, *_ = hyper
    step = state.step + 1
    v = _average(state.second, q, gradient * gradient)
    scaled = _ratio(gradient, _corrected(v, q, step, bias_correction), hyper)
    direction = state.first - p * state.first + scaled
    return direction, AdamState(direction, v, step)


RMSPROP = UpdateRule(
    adam.init,
    lambda full, square: AdamState(jnp.zeros_like(full), square, _no_step()),
    _rmsprop,
    _never,
)
"""Tieleman & Hinton (2012), as in optax: momentum, not averaged, over g/√v. The first β is the
momentum, the second the decay of v."""


def ademamix(beta3: float = 0.9999, alpha: float = 5.0) -> UpdateRule:
    """AdEMAMix (arXiv:2409.03137): (m + α m₂)/√v, where m₂ averages with β3, uncorrected."""

    def update(
        gradient: Numbers, state: TwoSpeeds, hyper: Hyperparameters, *, bias_correction: bool
    ) -> tuple[Numbers, TwoSpeeds]:
        p, q, *_ = hyper
        step = state.step + 1
        m = _average(state.first, p, gradient)
        slow = _average(state.slow, 1 - beta3, gradient)
        v = _average(state.second, q, gradient * gradient)
        mixed = _corrected(m, p, step, bias_correction) + alpha * slow
        direction = _ratio(mixed, _corrected(v, q, step, bias_correction), hyper)
        return direction, TwoSpeeds(m, slow, v, step)

    return UpdateRule(
        lambda x: TwoSpeeds(jnp.zeros_like(x), jnp.zeros_like(x), jnp.zeros_like(x), _no_step()),
        lambda full, square: TwoSpeeds(full, full, square, _no_step()),
        update,
        _never,
    )


def _still(zeros: Numbers) -> Differences:
    return Differences(zeros, zeros, zeros, zeros, _no_step())


def adan(beta2: float = ADAN_BETA2) -> UpdateRule:
    """Adan (arXiv:2208.06677) in the parametrisation of optax; the axes are its β1 and β3."""
    p2 = 1 - beta2

    def update(
        gradient: Numbers, state: Differences, hyper: Hyperparameters, *, bias_correction: bool
    ) -> tuple[Numbers, Differences]:
        p, q, *_ = hyper
        step = state.step + 1
        change = jnp.where(state.step == 0, 0, gradient - state.last)
        m = _average(state.first, p, gradient)
        difference = _average(state.difference, p2, change)
        ahead = gradient + p2 * change
        v = _average(state.second, q, ahead * ahead)
        sum_ = _corrected(m, p, step, bias_correction)
        sum_ = sum_ + p2 * _corrected(difference, p2, step, bias_correction)
        direction = _ratio(sum_, _corrected(v, q, step, bias_correction), hyper)
        return direction, Differences(m, difference, v, gradient, step)

    return UpdateRule(
        lambda x: _still(jnp.zeros_like(x)),
        lambda full, square: Differences(full, jnp.zeros_like(full), square, full, _no_step()),
        update,
        _never,
    )


def adopt(*, clip: bool = True) -> UpdateRule:
    """ADOPT (arXiv:2411.02853): m averages g/√v, where v does not contain g yet.

    With `clip`, the default in optax, g/√v is clipped to ±k^(1/4) in the step that follows k.
    """

    def update(
        gradient: Numbers, state: AdamState, hyper: Hyperparameters, *, bias_correction: bool
    ) -> tuple[Numbers, AdamState]:
        del bias_correction  # the rule has none
        p, q, epsilon, _ = hyper
        is_first = state.step == 0
        root = jnp.maximum(jnp.sqrt(state.second), epsilon)
        scaled = _divided(gradient, root)
        if clip:
            count = state.step.astype(scaled.dtype)
            most = jnp.sqrt(jnp.sqrt(count))
            scaled = jnp.clip(scaled, -most, most)
        m = jnp.where(is_first, state.first, _average(state.first, p, scaled))
        square = gradient * gradient
        v = jnp.where(is_first, square, _average(state.second, q, square))
        return m, AdamState(m, v, state.step + 1)

    return UpdateRule(
        adam.init,
        lambda full, square: AdamState(jnp.zeros_like(full), square, _no_step() + 1),
        update,
        _never,
    )


def _lion(
    gradient: Numbers, state: Momentum, hyper: Hyperparameters, *, bias_correction: bool
) -> tuple[Numbers, Momentum]:
    del bias_correction
    p, q, *_ = hyper
    direction = jnp.sign(_average(state.first, p, gradient))
    return direction, Momentum(_average(state.first, q, gradient), state.step + 1)


def _momentum_rule(update: Any) -> UpdateRule:
    return UpdateRule(
        lambda x: Momentum(jnp.zeros_like(x), _no_step()),
        lambda full, _: Momentum(full, _no_step()),
        update,
        _never,
    )


LION = _momentum_rule(_lion)
"""Chen et al. (arXiv:2302.06675): the sign of an average with β1 of g and an average with β2."""


def _signum(
    gradient: Numbers, state: Momentum, hyper: Hyperparameters, *, bias_correction: bool
) -> tuple[Numbers, Momentum]:
    del bias_correction  # a sign needs none
    m = _average(state.first, hyper.one_minus_beta1, gradient)
    return jnp.sign(m), Momentum(m, state.step + 1)


SIGNUM = _momentum_rule(_signum)
"""Bernstein et al. (arXiv:1802.04434): the sign of m. It is Muon with exact orthogonalisation on
1 × 1 matrices."""


def _sgd(
    gradient: Numbers, state: Momentum, hyper: Hyperparameters, *, bias_correction: bool
) -> tuple[Numbers, Momentum]:
    m = _average(state.first, hyper.one_minus_beta1, gradient)
    step = state.step + 1
    return _corrected(m, hyper.one_minus_beta1, step, bias_correction), Momentum(m, step)


SGD = _momentum_rule(_sgd)
"""Stochastic gradient descent with averaged momentum, m ← β m + (1 − β) g."""


def orthogonalized(matrix: Float[Array, "rows columns"]) -> Float[Array, "rows columns"]:
    """Five Newton–Schulz iterations from the matrix over its Frobenius norm, as in optax."""
    a, b, c = _NEWTON_SCHULZ
    flipped = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if flipped else matrix
    x = x / (jnp.linalg.norm(x) + _MUON_EPSILON)
    for _ in range(_NEWTON_SCHULZ_STEPS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if flipped else x


_MUON_EPSILON = 1e-8


def _orthogonalized_number(value: Numbers) -> Numbers:
    """`orthogonalized` of 1 × 1 matrices, elementwise."""
    a, b, c = _NEWTON_SCHULZ
    x = value / (jnp.abs(value) + _MUON_EPSILON)
    for _ in range(_NEWTON_SCHULZ_STEPS):
        gram = x * x
        x = a * x + (b * gram + c * gram * gram) * x
    return x


def _muon(
    gradient: Numbers,
    state: Momentum,
    hyper: Hyperparameters,
    *,
    bias_correction: bool,
    orthogonalize: Callable[[Numbers], Numbers],
) -> tuple[Numbers, Momentum]:
    p, step = hyper.one_minus_beta1, state.step + 1
    m = _average(state.first, p, gradient)
    ahead = _nesterov(m, gradient, p, step, bias_correction)
    return orthogonalize(ahead), Momentum(m, step)


MUON = _momentum_rule(partial(_muon, orthogonalize=_orthogonalized_number))
"""Jordan et al. (2024), as in optax: Nesterov momentum, then five Newton–Schulz iterations, of
numbers that are 1 × 1 matrices each."""


@lru_cache
def muon_of_matrices(rows: int, columns: int) -> UpdateRule:
    """`MUON` of one matrix of parameters, flattened by rows."""

    def orthogonalize(flat: Numbers) -> Numbers:
        return orthogonalized(flat.reshape(rows, columns)).reshape(flat.shape)

    return _momentum_rule(partial(_muon, orthogonalize=orthogonalize))


@lru_cache
def frozen_at(rule: UpdateRule, step: int) -> UpdateRule:
    """The rule at a step number that does not count on: its law there is stationary."""

    def update(
        gradient: Numbers, state: Any, hyper: Hyperparameters, *, bias_correction: bool
    ) -> tuple[Numbers, Any]:
        frozen = state._replace(step=jnp.asarray(step, jnp.int32))
        direction, state = rule.update(gradient, frozen, hyper, bias_correction=bias_correction)
        return direction, state._replace(step=frozen.step)

    return rule._replace(update=update)


@lru_cache
def started_at(rule: UpdateRule, factor: float) -> UpdateRule:
    """The rule with its v beginning at a multiple of the square that it is given."""
    if factor == 1:
        return rule
    return rule._replace(
        init_from_gradients=lambda full, square: rule.init_from_gradients(full, factor * square)
    )
