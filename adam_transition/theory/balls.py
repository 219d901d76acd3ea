"""The stationary drift in ball arithmetic: enclosures that hold whatever the rounding.

Needs python-flint (`pip install adam-transition[certify]`), whose balls (Arb, Johansson 2017)
contain every rounding error. Tables are one-dimensional and of exact rational numbers. In cyclic
order m depends on β1 alone and v on β2 alone, so that the drift over a rectangle of the plane is a
product of two vectors of balls; the random orders are enclosed at rational points. What is enclosed
and why is in docs/mathematics/certificates.md.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import product
from typing import NamedTuple, TypeAlias

from flint import arb, arb_mat, ctx, fmpq

from adam_transition.sampling import Sampling

PRECISION = 128
"""Bits of the balls' midpoints."""

_SPACING = 0.15  # of the nodes; the discretisation error is of the order of exp(−2π·1.25/0.15)
_STRIP = fmpq(5, 4)  # half the height of the strip in which the integrand is bounded
_FIRST_U = -100  # of log s
_LAST_S = 70
_LAST_U = 4.25  # its logarithm
_MOST_STATES = 2048
_MOST_WORK = 5e6  # states × steps of one point, some 20 s

State: TypeAlias = tuple[int, ...]
Fed: TypeAlias = Mapping[State, Sequence[tuple[int, State, fmpq]]]


def exact(values: Iterable[Fraction | int | float]) -> tuple[fmpq, ...]:
    """Numbers as rationals; floats are taken as what they are, p/2^k.

    Raises:
      ValueError: one is NaN or infinite.
    """
    try:
        ratios = [Fraction(value) for value in values]
    except OverflowError:
        raise ValueError("not finite") from None
    return tuple(fmpq(ratio.numerator, ratio.denominator) for ratio in ratios)


class Cyclic(NamedTuple):
    """A table in cyclic order: row j of each matrix holds the gradients j steps before each."""

    gradients: arb_mat  # [n, n]
    squares: arb_mat  # [n, n]


class Moment(NamedTuple):
    """Of all positions in the epoch, m or 1/√v, over an interval of its β."""

    at_centre: arb_mat
    over: arb_mat
    slope: arb_mat  # derivative in β over the interval


def cyclic(slopes: Sequence[fmpq]) -> Cyclic:
    """The table in the order of its rows."""
    n = len(slopes)
    shifted = [[slopes[(i - j) % n] for i in range(n)] for j in range(n)]
    return Cyclic(arb_mat(shifted), arb_mat([[g * g for g in row] for row in shifted]))


def first_moment(table: Cyclic, centre: fmpq, radius: fmpq) -> Moment:
    """The first moment m over β1 in centre ± radius, within [0, 1]; rows [1, n]."""
    centred, _ = _weights(arb(centre), table.gradients.nrows())
    over, slope = _weights(arb(centre, radius), table.gradients.nrows())
    return Moment(*(weights * table.gradients for weights in (centred, over, slope)))


def inverse_root(table: Cyclic, centre: fmpq, radius: fmpq) -> Moment:
    """1/√v over β2 in centre ± radius, within [0, 1]; columns [n, 1]. NaN where v may be 0."""
    n = table.squares.nrows()
    centred, _ = _weights(arb(centre), n)
    over, slope = _weights(arb(centre, radius), n)
    v = (over * table.squares).entries()
    change = (slope * table.squares).entries()
    return Moment(
        arb_mat(n, 1, [one.rsqrt() for one in (centred * table.squares).entries()]),
        arb_mat(n, 1, [one.rsqrt() for one in v]),
        arb_mat(n, 1, [-d * one.rsqrt() / (2 * one) for d, one in zip(change, v, strict=True)]),
    )


def _weights(beta: arb, n: int) -> tuple[arb_mat, arb_mat]:
    """(1−β)β^j/(1−β^n) = β^j/(1 + β + … + β^{n−1}) for j < n, and its derivative."""
    powers = [arb(1)]
    for _ in range(n - 1):
        powers.append(powers[-1] * beta)
    total = sum(powers, arb(0))
    change = [j * powers[j - 1] if j else arb(0) for j in range(n)]
    total_change = sum(change, arb(0))
    weights = [power / total for power in powers]
    slopes = [
        (d - weight * total_change) / total for d, weight in zip(change, weights, strict=True)
    ]
    return arb_mat(1, n, weights), arb_mat(1, n, slopes)


def drift_over(m: Moment, root: Moment, beta1_radius: fmpq, beta2_radius: fmpq) -> arb:
    """A ball that contains D on the rectangle: D at the centre plus slopes times radii."""
    in_beta1 = (m.slope * root.at_centre)[0, 0] * arb(0, beta1_radius)
    in_beta2 = (m.over * root.slope)[0, 0] * arb(0, beta2_radius)
    return -((m.at_centre * root.at_centre)[0, 0] + in_beta1 + in_beta2)


def slope_over(m: Moment, root: Moment) -> arb:
    """A ball that contains ∂D/∂β2 on the rectangle."""
    return -(m.over * root.slope)[0, 0]


def cyclic_drift_at(slopes: Sequence[fmpq], beta1: fmpq, beta2: fmpq) -> arb:
    """D at a point in cyclic order."""
    zero = fmpq(0)
    with ctx.workprec(PRECISION):
        table = cyclic(slopes)
        m, root = first_moment(table, beta1, zero), inverse_root(table, beta2, zero)
        return -(m.at_centre * root.at_centre)[0, 0]


def random_drift_at(slopes: Sequence[fmpq], beta1: fmpq, beta2: fmpq, sampling: Sampling) -> arb:
    """D at a point in a random order: the trapezoidal sum of the drift page, with all its errors.

    Costs about 100/min(0.15, 1 − β2) steps for every state: one with replacement; under random
    shuffling every number of draws of every value.

    Args:
      slopes: the table; no slope is 0.
      beta1: β1, in [0, 1).
      beta2: β2, in (0, 1).
      sampling: `with_replacement` or `random_shuffling`.

    Raises:
      ValueError: a slope is 0; a β is outside its range; there are too many states, or steps.
    """
    if not 0 <= beta1 < 1 or not 0 < beta2 < 1:
        raise ValueError(f"beta1={beta1}, beta2={beta2}: need 0 <= beta1 < 1 and 0 < beta2 < 1")
    if any(g == 0 for g in slopes):
        raise ValueError("slopes: some are 0, for which the random orders have no certificate")
    least = min(abs(g) for g in slopes)
    scaled = sorted(g / least for g in slopes)
    values = sorted(set(scaled))
    counts = [scaled.count(value) for value in values]
    with ctx.workprec(PRECISION):
        fed, share = _chain(counts, sampling)
        largest = max(abs(value) for value in values)
        lag = -arb(beta2).log()
        work = len(fed) * (_LAST_U - _FIRST_U) / min(float(lag.mid()), _SPACING)
        if work > _MOST_WORK:
            raise ValueError(
                f"beta2={float(Fraction(int(beta2.p), int(beta2.q)))!r}: a ball of the drift would "
                f"take {work:.0e} steps; at most {_MOST_WORK:.0e} are allowed"
            )
        lanes = max(1, math.ceil(float(lag.mid()) / _SPACING))
        spacing = lag / lanes
        total = arb(0)
        for lane in range(lanes):
            first = (arb(_FIRST_U) + spacing * lane).exp()
            total += _sum_of_nodes(values, counts, beta1, beta2, fed, share, first)
        times = len(slopes) if sampling == "with_replacement" else 1
        error = len(slopes) * _error(largest, spacing)
        return -times * spacing * total / arb.pi().sqrt() + arb(0, 1) * error


def _chain(counts: Sequence[int], sampling: Sampling) -> tuple[Fed, Mapping[State, fmpq]]:
    """What feeds each state, as (value drawn, state before, its probability), and P(state).

    Under random shuffling a state counts the draws of each value in the epoch; P sums to 1 over the
    states with equally many draws. With replacement there is one state.
    """
    n = sum(counts)
    if sampling == "with_replacement":
        return {(): [(r, (), fmpq(k, n)) for r, k in enumerate(counts)]}, {(): fmpq(1)}
    if sampling != "random_shuffling":
        raise ValueError(f"sampling={sampling}: must be with_replacement or random_shuffling")
    if math.prod(k + 1 for k in counts) > _MOST_STATES:
        raise ValueError(f"slopes: too many different ones for random shuffling ({len(counts)})")
    fed: dict[State, list[tuple[int, State, fmpq]]] = {}
    share: dict[State, fmpq] = {}
    for state in product(*(range(k + 1) for k in counts)):
        drawn = sum(state)
        if not drawn:
            continue  # the same as all drawn
        ways = math.prod(math.comb(k, taken) for k, taken in zip(counts, state, strict=True))
        share[state] = fmpq(ways, math.comb(n, drawn))
        fed[state] = []
        for r, taken in enumerate(state):
            if taken:
                before = tuple(x - (i == r) for i, x in enumerate(state))
                before = before if drawn > 1 else tuple(counts)
                fed[state].append((r, before, fmpq(counts[r] - taken + 1, n - drawn + 1)))
    return fed, share


def _sum_of_nodes(
    values: Sequence[fmpq],
    counts: Sequence[int],
    beta1: fmpq,
    beta2: fmpq,
    fed: Fed,
    share: Mapping[State, fmpq],
    first: arb,
) -> arb:
    """Σ √s Σ_σ H_σ(s) over s = first/β2^k up to `_LAST_S`, for values of which the least is ±1.

    F_σ = E[e^{−sv}; σ] begins within [1 − s max g², 1]·P(σ), and H_σ = E[m e^{−sv}; σ] within
    E[m; σ] ± max|g| s max g²·P(σ).
    """
    largest = max(abs(value) for value in values)
    squares = [value * value for value in values]
    f = {state: part * (1 - first * largest * largest * _unit()) for state, part in share.items()}
    near = arb(0, 1) * first * largest**3
    h = {
        state: part * (_mean(values, counts, state, beta1) + near) for state, part in share.items()
    }
    total, s, q = arb(0), first, 1 - beta2
    while s < _LAST_S:
        total += s.sqrt() * sum(h.values(), arb(0))
        s = s / beta2
        lost = [(-q * s * square).exp() for square in squares]
        new = [(1 - beta1) * g * e for g, e in zip(values, lost, strict=True)]
        old = [beta1 * e for e in lost]
        before_f, before_h = f, h
        f = {
            state: sum((part * lost[r] * before_f[x] for r, x, part in feeds), arb(0))
            for state, feeds in fed.items()
        }
        h = {
            state: sum(
                (part * (new[r] * before_f[x] + old[r] * before_h[x]) for r, x, part in feeds),
                arb(0),
            )
            for state, feeds in fed.items()
        }
    return total


def _mean(values: Sequence[fmpq], counts: Sequence[int], state: State, beta1: fmpq) -> fmpq:
    """E[m | σ]: the draws of an epoch are exchangeable; older ones have the mean of the table."""
    mean = sum((k * g for k, g in zip(counts, values, strict=True)), fmpq(0)) / sum(counts)
    drawn = sum(state)
    if not drawn:
        return mean
    of_drawn = sum((k * g for k, g in zip(state, values, strict=True)), fmpq(0)) / drawn
    return (1 - beta1**drawn) * of_drawn + beta1**drawn * mean


def _unit() -> arb:
    """[0, 1]."""
    return arb(fmpq(1, 2), fmpq(1, 2))


def _error(largest: fmpq, spacing: arb) -> arb:
    """What the sum for E[m/√v] leaves out, in units of the least |g|: both tails and the spacing.

    |H(s)| ≤ max|g| e^{−s}, and |m|/√v ≤ max|g|.
    """
    left = spacing * (arb(_FIRST_U) / 2).exp() / (1 - (-spacing / 2).exp())
    last = arb(_LAST_S - 1)  # √s e^{−s} falls, and so does its integral in log s
    right = last.sqrt() * (-last).exp() * (spacing + 1 / last)
    between = (
        2
        * arb.pi().sqrt()
        / (arb(_STRIP).cos().sqrt() * ((2 * arb.pi() * _STRIP / spacing).exp() - 1))
    )
    return largest * (left + right + between) / arb.pi().sqrt()
