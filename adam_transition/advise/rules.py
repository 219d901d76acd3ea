"""Rules that carry a setting that works at batch size B1 over to batch size B2.

Three rules, none of which leaves [0, 1):

- *Half-life* (Marek et al., 2025, arXiv:2507.07101): β2 → β2^k with k = B2/B1 keeps the number of
  samples that v averages over. The phase boundary of skewed noise moves in the same way: with
  mini-batches of B independent samples, 1 − β2* ≈ 2μσ²B/κ3 to first order, linear in B.
- *SDE* (Malladi et al., 2022, arXiv:2205.10287), in its exponential form: β1 and β2 → β^k, learning
  rate × √k, ε/√k. It keeps the distribution of the path while this is the path of a stochastic
  differential equation: while a step forgets little of m and v, that is, while k(1 − β1) and
  k(1 − β2) are small. The linear form 1 − β → k(1 − β) agrees there, and gives a negative β beyond.
- *Clipped*: the half-life rule between a floor and a ceiling. At large batches there is little
  noise left to average, and runs without a floor have spiked.

None of them depends on the learning rate, although the β2 that training needs depends on it as much
as on the batch size. Batch sizes may be counted in samples or in tokens.
"""

import math
from typing import Literal, NamedTuple

from adam_transition.advise import arguments

Rule = Literal["half-life", "SDE", "clipped"]

SMALL = 0.5
"""The SDE rule holds while 1 − β is at most this at both batch sizes: at 1/2 its exponential and
linear forms differ by a third or more."""

ENOUGH = 0.999
"""The default β2 of optax and PyTorch."""

_LEAST_BETA2 = 0.5  # below which the half-life rule does not hold
_MOST_RATIO = 1e9  # of batch sizes


class Setting(NamedTuple):
    """Adam's hyperparameters at a batch size."""

    batch_size: float
    beta1: float
    beta2: float


class Advice(NamedTuple):
    """The advice of one rule."""

    rule: Rule
    setting: Setting
    learning_rate_factor: float
    epsilon_factor: float
    half_life: float  # of v: samples after which the weight of a gradient has halved
    bounded_steps: bool  # β1 < √β2
    steps: tuple[str, ...]  # instructions, in the paper's order
    holds: bool  # whether the rule holds for this change of batch size
    preserves: str  # the quantity that the rule keeps
    limits: str  # where the rule stops holding


def half_life(beta2: float, batch_size: float) -> float:
    """Samples (or tokens) after which the weight of a squared gradient in v has halved.

    Raises:
      ValueError: β2 outside [0, 1), or a batch size that is not positive.

    >>> round(half_life(0.999, 512))
    354714
    """
    arguments.in_unit("beta2", beta2)
    _check_size("batch_size", batch_size)
    return 0.0 if beta2 == 0 else batch_size * math.log(2) / -math.log(beta2)


def beta2_of_half_life(samples: float, batch_size: float) -> float:
    """The β2 whose half-life is this many samples (or tokens): 2^(−batch_size/samples).

    Raises:
      ValueError: a half-life or a batch size that is not positive, or a half-life so long that β2
        rounds to 1.

    >>> round(beta2_of_half_life(10e6, 0.5e6), 4)  # 10 million tokens, half a million a step
    0.9659
    """
    _check_size("samples", samples)
    _check_size("batch_size", batch_size)
    beta2 = 2 ** (-batch_size / samples)
    if beta2 == 1:
        raise ValueError(f"samples={samples}: β2 rounds to 1 at batch_size={batch_size}")
    return beta2


def half_life_rule(known: Setting, batch_size: float) -> Setting:
    """β2 → β2^(B2/B1), with β1 unchanged.

    Raises:
      ValueError: a β outside [0, 1), a batch size that is not positive, or a β2 that rounds to 1.

    >>> round(half_life_rule(Setting(512, 0.9, 0.95), 16).beta2, 5)
    0.9984
    """
    ratio = _ratio(known, batch_size)
    return Setting(batch_size, known.beta1, _power("beta2", known.beta2, ratio))


def sde_rule(known: Setting, batch_size: float) -> Setting:
    """β1 and β2 → β^(B2/B1), to be used with learning rate × √(B2/B1) and ε/√(B2/B1).

    Raises:
      ValueError: as for `half_life_rule`.
    """
    ratio = _ratio(known, batch_size)
    beta1, beta2 = (
        _power(name, value, ratio)
        for name, value in (("beta1", known.beta1), ("beta2", known.beta2))
    )
    return Setting(batch_size, beta1, beta2)


def clipped_rule(
    known: Setting, batch_size: float, *, floor: float = 0.95, ceiling: float = 0.9999
) -> Setting:
    """The half-life rule, with β2 clipped to [floor, ceiling].

    Args:
      known: the setting that works.
      batch_size: the new batch size.
      floor: in [0, 1).
      ceiling: in [0, 1).

    Raises:
      ValueError: as for `half_life_rule`, or a floor above the ceiling.
    """
    arguments.in_unit("floor", floor)
    arguments.in_unit("ceiling", ceiling)
    if floor > ceiling:
        raise ValueError(f"floor={floor} is above ceiling={ceiling}")
    exponent = _ratio(known, batch_size)
    beta2 = min(max(known.beta2**exponent, floor), ceiling)
    return Setting(batch_size, known.beta1, beta2)


def advise(
    known: Setting, batch_size: float, *, floor: float = 0.95, ceiling: float = 0.9999
) -> list[Advice]:
    """The advice of each rule: its setting, whether it holds, and what to do in the paper's order.

    Args:
      known: the setting that works.
      batch_size: the new batch size.
      floor: of the clipped rule.
      ceiling: of the clipped rule.

    Raises:
      ValueError: as for the rules.
    """
    ratio = _ratio(known, batch_size)
    return [
        _advice("half-life", known, half_life_rule(known, batch_size), ratio),
        _advice("SDE", known, sde_rule(known, batch_size), ratio),
        _advice(
            "clipped", known, clipped_rule(known, batch_size, floor=floor, ceiling=ceiling), ratio
        ),
    ]


def recommended(advice: list[Advice]) -> Advice:
    """The advice to follow: the clipped rule, which always holds and does not change β1."""
    return next(one for one in advice if one.rule == "clipped")


def recommendation(
    known: Setting, advice: list[Advice], *, learning_rate: float | None = None
) -> str:
    """One line: what to do about β2, what else matters, and when to stop believing it.

    A smaller batch needs a β2 at least as large as that of the rule. A β2 that works is never
    lowered, as too large a β2 costs little.

    Args:
      known: the setting that works.
      advice: from `advise`.
      learning_rate: of the setting that works, if known.

    Raises:
      ValueError: known is not a Setting.
    """
    _check_setting(known)
    one = recommended(advice)
    size, beta1, found = one.setting
    if found <= known.beta2:
        what = f"keep β2 = {_shown(known.beta2)}: it is large enough for batches of {size:g}"
        beta2 = known.beta2
    else:
        what, beta2 = f"β2 = {_shown(found)}", found
        if found <= ENOUGH:
            what += f" or more (the usual {ENOUGH:g} is already enough)"
    rest = f"β1 = {_shown(beta1)}"
    if beta1 >= math.sqrt(beta2):
        rest = f"β1 below √β2 = {_shown(math.sqrt(beta2), 4)} instead of {_shown(beta1)}"
    rate, lower = "the learning rate as it is", ""
    if learning_rate is not None:
        rate, lower = f"learning rate {learning_rate:g} as it is", f", to {learning_rate / 3:.2g}"
    return (
        f"Do this: {what}; {rest}; {rate}. It matters as much as β2: if the loss still spikes, "
        f"lower it first{lower}. No rule knows your network: if the batch changes by more than a "
        "factor of 4, or the loss disagrees, measure with find_beta2"
    )


def _advice(rule: Rule, known: Setting, found: Setting, ratio: float) -> Advice:
    holds, preserves, limits = _scope(rule, known, found, ratio)
    scale = math.sqrt(ratio) if rule == "SDE" else 1.0
    samples = half_life(found.beta2, found.batch_size)
    bounded = found.beta1 < math.sqrt(found.beta2)
    steps = _steps(known, found, bounded, scale) if holds else (f"does not hold here: {limits}",)
    return Advice(rule, found, scale, 1 / scale, samples, bounded, steps, holds, preserves, limits)


def _scope(rule: Rule, known: Setting, found: Setting, ratio: float) -> tuple[bool, str, str]:
    """Whether a rule holds, what it keeps, and where it stops holding."""
    if rule == "SDE":
        largest = max((1 - beta) * max(ratio, 1) for beta in (known.beta1, known.beta2))
        limits = (
            "k(1 − β1) and k(1 − β2) have to be small, k = B2/B1; the larger is "
            f"{largest:.3g}, at most {SMALL:g} will do"
        )
        kept = "the distribution of the path, in the limit of small steps"
        return bool(largest <= SMALL), kept, limits
    kept = "the samples over which v averages"
    if rule == "half-life":
        limits = (
            f"β2 = {found.beta2:.3g} is below {_LEAST_BETA2:g}: an average over hardly a step"
            if found.beta2 < _LEAST_BETA2
            else "it knows no learning rate, and at large batches β2 falls without a floor"
        )
        holds = bool(found.beta2 >= _LEAST_BETA2 or found.beta2 == known.beta2)
        return holds, kept, limits
    return True, f"{kept}, between floor and ceiling", "it knows no learning rate"


def _steps(known: Setting, found: Setting, bounded: bool, scale: float) -> tuple[str, ...]:
    before, after = _shown(known.beta2), _shown(found.beta2)
    if found.beta2 > known.beta2:
        first = f"raise β2 from {before} to {after}: smaller batches are noisier"
    elif found.beta2 < known.beta2:
        first = f"β2 may fall from {before} to {after}; as it is it may be slow"
    else:
        first = f"keep β2 = {before}"
    steps = [first]
    if not bounded:
        limit = math.sqrt(found.beta2)
        steps.append(
            f"then take β1 below √β2 = {_shown(limit, 4)}: beyond it single steps are unbounded"
        )
    elif found.beta1 != known.beta1:
        steps.append(f"then take β1 = {_shown(found.beta1)}, below √β2")
    if scale != 1:
        steps.append(f"and multiply the learning rate by {scale:.4g}, divide ε by it")
    return tuple(steps)


def _ratio(known: Setting, batch_size: float) -> float:
    _check_setting(known)
    arguments.in_unit("beta1", known.beta1)
    arguments.in_unit("beta2", known.beta2)
    _check_size("batch_size", known.batch_size)
    _check_size("new_batch_size", batch_size)
    ratio = batch_size / known.batch_size
    if not ratio <= _MOST_RATIO:
        raise ValueError(
            f"new_batch_size={batch_size:g} is {ratio:.3g} times batch_size={known.batch_size:g}: "
            f"no rule reaches farther than a factor of {_MOST_RATIO:g}"
        )
    return ratio


def _power(name: str, beta: float, ratio: float) -> float:
    found = beta**ratio
    if found == 1:
        raise ValueError(f"{name}={beta}: {name}^{ratio:g} rounds to 1")
    return found


def _check_setting(known: Setting) -> None:
    if not isinstance(known, Setting):
        raise ValueError(f"known={known!r}: needs a Setting(batch_size, beta1, beta2)")


def _check_size(name: str, value: float) -> None:
    if not 0 < arguments.number(name, value, "(0, ∞)", lambda _: True) < math.inf:
        raise ValueError(f"{name}={value} is not a positive number")


def _shown(beta: float, digits: int = 6) -> str:
    """Formats β with as many digits as it takes to differ from 1."""
    texts = (f"{beta:.{count}g}" for count in range(digits, 18))
    return next((text for text in texts if float(text) < 1), repr(beta))
