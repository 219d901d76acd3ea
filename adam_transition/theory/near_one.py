"""Power series of the integral of the random orders, for 1 − β2 that is small.

With c = E[g²] and w = v − c, the integral of `random_sampling` is that of e^{−cs} E[m e^{−sw}]. As
β2 → 1, w is of the order of √(1−β2), and E[m e^{−sw}] is a power series in s with few terms: no
recursion over the memory of v, whose cost grows like 1/(1−β2). The coefficients follow from one
epoch. With t draws in it, and σ the state after them (`random_sampling`), let

    A_σ(s) = E[e^{−s a}; σ],    B_σ(s) = E[b e^{−s a}; σ],

where a = (1−β2) Σ β2^j (g² − c) and b = (1−β1) Σ β1^j g are the parts of w and m that these draws
contribute. The epochs before are independent, so for F = E[e^{−sw}] and H = E[m e^{−sw}],

    F_σ(s) = A_σ(s) F(β2^t s),    H_σ(s) = β1^t A_σ(s) H(β2^t s) + B_σ(s) F(β2^t s),

and at the end of the epoch F and H return, which determines their coefficients one by one. With
replacement, an epoch is a single draw.

The series are used up to `range_of`. For very small 1 − β2 the integral has ended there.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from adam_transition.sampling import Sampling

MOST_STATES = 4096
"""Largest number of states of an epoch for which the series are used."""

LAST = 60.0
"""c·s at which the integral ends if the series reach as far."""

_ORDER = 64
NUM_COEFFICIENTS = _ORDER + 1
"""Of each series."""

_BAND = 20  # terms of e^{−(1−β2) s (g² − c)}
_MOST_EXPONENT = 0.75  # of that: 0.75^20/20! = 1e-21

Coefficients = Float[np.ndarray, "C order"]
State = tuple[int, ...]


class Series(NamedTuple):
    """Series in s/unit, for C cells of one coordinate."""

    unit: Float[np.ndarray, " C"]  # of s
    mean_square: float  # c
    p: Float[np.ndarray, " C"]
    q: Float[np.ndarray, " C"]
    draws: dict[State, tuple[Coefficients, Coefficients]]  # A_σ, B_σ
    length: int  # draws in an epoch
    num_components: int
    f: Coefficients  # at the end of an epoch
    h: Coefficients


def range_of(
    values: Float[np.ndarray, " r"], counts: Int[np.ndarray, " r"], q: Float[np.ndarray, " C"]
) -> Float[np.ndarray, " C"]:
    """The s up to which the series are accurate to rounding."""
    mean_square = values**2 @ counts / counts.sum()
    return np.minimum(LAST / mean_square, _MOST_EXPONENT / (q * (values**2).max()))


def reaches_the_end(
    values: Float[np.ndarray, " r"], counts: Int[np.ndarray, " r"], q: Float[np.ndarray, " C"]
) -> Bool[np.ndarray, " C"]:
    """Whether the integral has ended where the series do."""
    largest = (values**2).max() / (values**2 @ counts / counts.sum())
    return np.asarray(_MOST_EXPONENT / (q * largest) >= LAST)


def series(
    values: Float[np.ndarray, " r"],
    counts: Int[np.ndarray, " r"],
    p: Float[np.ndarray, " C"],
    q: Float[np.ndarray, " C"],
    sampling: Sampling,
) -> Series:
    """The series of one coordinate, in units of `range_of`.

    Args:
      values: the different gradients.
      counts: how often each occurs.
      p: 1 − β1.
      q: 1 − β2, below 1.
      sampling: `with_replacement` or `random_shuffling`.
    """
    unit = range_of(values, counts, q)
    mean_square = float(values**2 @ counts / counts.sum())
    terms = _exponential(-np.multiply.outer(values**2 - mean_square, q * unit))
    if sampling == "with_replacement":
        draws, length = _single_draw(values, counts / counts.sum(), p, terms), 1
    else:
        draws, length = _shuffled(values, counts, p, q, terms), int(counts.sum())
    [(a, b)] = [one for state, one in draws.items() if sum(state) == length]
    orders = np.arange(_ORDER + 1)
    with np.errstate(divide="ignore"):
        log_beta1, log_beta2 = np.log1p(-p)[:, None], np.log1p(-q)[:, None]
    shifted = np.exp(length * orders * log_beta2)
    f = np.zeros_like(shifted)
    f[:, 0] = 1
    for k in range(1, _ORDER + 1):
        f[:, k] = _coefficient(a, f * shifted, k) / -np.expm1(length * k * log_beta2[:, 0])
    from_f = _product(b, f * shifted)
    kept = -np.expm1(length * (log_beta1 + orders * log_beta2))
    h = np.zeros_like(shifted)
    for k in range(_ORDER + 1):
        older = (1 - p) ** length * _coefficient(a, h * shifted, k)
        h[:, k] = (from_f[:, k] + older) / kept[:, k]
    return Series(unit, mean_square, p, q, draws, length, int(counts.sum()), f, h)


def moment(found: Series) -> Coefficients:
    """E[m e^{−sw}], averaged over the positions of an epoch."""
    total = np.zeros_like(found.f)
    for t, (a, b) in _by_number(found).items():
        at = np.exp(t * np.arange(_ORDER + 1) * np.log1p(-found.q)[:, None])
        older = ((1 - found.p) ** t)[:, None]
        total += _product(a, older * at * found.h) + _product(b, at * found.f)
    return total / found.length


def by_state(
    found: Series, s: Float[np.ndarray, " C"]
) -> dict[State, tuple[Float[np.ndarray, " C"], Float[np.ndarray, " C"]]]:
    """E[e^{−sv}; σ] − P(σ) and E[m e^{−sv}; σ] − E[m; σ] at one s for each cell."""
    at, moved = s / found.unit, {}
    damping = np.exp(-found.mean_square * s)
    for state, (a, b) in found.draws.items():
        t = sum(state)
        beta1, beta2 = (1 - found.p) ** t, np.exp(t * np.log1p(-found.q))
        before_f, before_h = (evaluate(one, beta2 * at) for one in (found.f, found.h))
        a_at, b_at = evaluate(a, at), evaluate(b, at)
        moved[state] = (
            damping * a_at * before_f - a[:, 0],
            damping * (beta1 * a_at * before_h + b_at * before_f)
            - (beta1 * a[:, 0] * found.h[:, 0] + b[:, 0]),
        )
    return moved


def evaluate(
    coefficients: Coefficients, at: Float[np.ndarray, "*nodes C"]
) -> Float[np.ndarray, "*nodes C"]:
    """A series at arguments in [0, 1]."""
    value = np.zeros_like(at)
    for coefficient in coefficients.T[::-1]:
        value = value * at + coefficient
    return value


def _by_number(found: Series) -> dict[int, tuple[Coefficients, Coefficients]]:
    """A and B by the number of draws."""
    sums: dict[int, tuple[Coefficients, Coefficients]] = {}
    for state, (a, b) in found.draws.items():
        before = sums.get(sum(state))
        sums[sum(state)] = (a, b) if before is None else (before[0] + a, before[1] + b)
    return sums


def _exponential(exponent: Float[np.ndarray, "r C"]) -> Float[np.ndarray, "r C band"]:
    """The coefficients of e^{x s}."""
    terms = np.ones((*exponent.shape, _BAND))
    for i in range(1, _BAND):
        terms[..., i] = terms[..., i - 1] * exponent / i
    return terms


def _banded_product(terms: Float[np.ndarray, "C band"], other: Coefficients) -> Coefficients:
    found = terms[:, :1] * other
    for i in range(1, _BAND):
        found[:, i:] += terms[:, i, None] * other[:, :-i]
    return found


def _product(one: Coefficients, other: Coefficients) -> Coefficients:
    found = one[:, :1] * other
    for i in range(1, _ORDER + 1):
        found[:, i:] += one[:, i, None] * other[:, :-i]
    return found


def _coefficient(one: Coefficients, other: Coefficients, k: int) -> Float[np.ndarray, " C"]:
    """Of order k of the product, without the term of order k of `other`."""
    return np.einsum("ci,ci->c", one[:, 1 : k + 1], other[:, :k][:, ::-1])


def _single_draw(
    values: np.ndarray, probabilities: np.ndarray, p: np.ndarray, terms: np.ndarray
) -> dict[State, tuple[Coefficients, Coefficients]]:
    padding = ((0, 0), (0, _ORDER + 1 - _BAND))
    a, b = (
        np.pad(np.einsum("r,rcb->cb", weights, terms), padding)
        for weights in (probabilities, probabilities * values)
    )
    return {(1,): (a, p[:, None] * b)}


def _shuffled(
    values: np.ndarray, counts: np.ndarray, p: np.ndarray, q: np.ndarray, terms: np.ndarray
) -> dict[State, tuple[Coefficients, Coefficients]]:
    """A and B by state, in the order of the number of draws."""
    powers = np.exp(np.arange(_ORDER + 1) * np.log1p(-q)[:, None])  # β2^k
    beta1 = 1 - p[:, None]
    n, none = int(counts.sum()), (0,) * len(counts)
    start = np.zeros_like(powers)
    start[:, 0] = 1
    found: dict[State, tuple[np.ndarray, np.ndarray]] = {}
    level = {none: (start, np.zeros_like(start))}
    for drawn in range(n):
        following: dict[State, tuple[np.ndarray, np.ndarray]] = {}
        for state, (a, b) in level.items():
            older = powers * a, powers * beta1 * b
            for r, (value, count) in enumerate(zip(values, counts.tolist(), strict=True)):
                if state[r] == count:
                    continue
                probability = (count - state[r]) / (n - drawn)
                new = probability * _banded_product(terms[r], older[0])
                moved = probability * _banded_product(terms[r], older[1])
                moved += (value * p)[:, None] * new
                after = (*state[:r], state[r] + 1, *state[r + 1 :])
                before = following.get(after, (0.0, 0.0))
                following[after] = before[0] + new, before[1] + moved
        found |= following
        level = following
    return found
