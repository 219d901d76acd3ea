"""The exact mean and mean square of Adam's step on frozen gradients, and the influence of each row.

With rows drawn with replacement, φ(t) = E[e^{−t g²}], ρ(t) = E[g e^{−t g²}]/φ(t) and τ(t) =
E[g² e^{−t g²}]/φ(t) − ρ(t)², the moments of one coordinate at stationarity have, with q = 1 − β2,

    F(s) = E[e^{−sv}] = Π_j φ(q β2^j s),
    E[m e^{−sv}]  = F(s) η(s),   η(s) = (1−β1) Σ_j β1^j ρ(q β2^j s),
    E[m² e^{−sv}] = F(s) κ(s),   κ(s) = η(s)² + (1−β1)² Σ_j β1^{2j} τ(q β2^j s),

as the draws remain independent under the weights e^{−sv}. The denominators are mixtures of e^{−sv}
too: 1/(√v + ε) = ∫ w(s) e^{−sv} ds with w(s) = 1/√(πs) − ε erfcx(ε√s), and 1/(√v + ε)² has −∂w/∂ε
instead of w. All of this is smooth in log s: the integral is a sum over an even grid, and the sums
over j are convolutions with kernels that depend on β1 and β2 only. So a row's influence, the
derivative with respect to its weight, is given by the transposed convolutions, at about the same
cost. `theory.random_sampling` computes the same integral for one table to more digits, by a
recursion over 80/q steps.
"""

from functools import lru_cache
from typing import NamedTuple

import chex
import numpy as np
from jaxtyping import Float
from scipy import fft, special

_SPACING = 0.2  # of log t; the integrands are analytic for |Im log s| < π/2
_LEFT = 16.0  # e-folds below the smaller of 1/E[v] and 1/ε² at which the integral begins
_DECAYED = 60.0  # value of t·(smallest g)² at which φ has decayed
_NEGLECTED = 1e-8  # fraction of the step neglected where ε ends the integral
_MOST_RIGHT = 250.0
_LEAST_LOG = -1e3  # log φ below which F is 0 anyway
_LEAST_EXPONENT = -200.0  # x below which e^x counts as 0
_ROUND = 64  # grids have a multiple of this many nodes
_POINTS = 8  # of the interpolation between nodes
_SMALL_STEP = 0.05  # in log s per update, below which the sum over j is an integral and its ends
_LEAST_POWER = 1e-14  # β1^j below which the sum over j is cut

LINEAR = 1e10
"""With ε of this many √E g² the denominator is ε alone: √v is at most 1e-10 of it."""


class Influenced(NamedTuple):
    """A statistic of the rows at Q values of β2, and the influence of each row on it."""

    value: Float[np.ndarray, " Q"]
    influence: Float[np.ndarray, "n Q"]  # n ∂value/∂(weight of the row), with mean 0


class Steps(NamedTuple):
    """E[m/(√v + ε)] and E[m²/(√v + ε)²] of one coordinate; they may be infinite."""

    mean: Influenced
    square: Influenced


def steps(
    column: Float[np.ndarray, " n"],
    p: float,
    q: Float[np.ndarray, " Q"],
    epsilon: float,
    weights: Float[np.ndarray, "#Q n"] | None = None,
    *,
    influences: bool = True,
) -> Steps:
    """The steps of one coordinate whose gradient is drawn from `column` with replacement.

    Exact to about 1e-6 of √E[(m/(√v + ε))²]. If a share z of the rows is exactly 0 and ε = 0, √v
    decays more slowly than m only if β1 < √β2; otherwise the mean is infinite if z·β1 ≥ √β2, and
    the square is infinite if z·β1² ≥ β2.

    Args:
      column: gradients of one coordinate.
      p: 1 − β1, in (0, 1].
      q: 1 − β2, each in (0, 1].
      epsilon: outside the square root, ≥ 0, in the units of the gradient.
      weights: probabilities of the rows, the same for all β2 or one set per β2; uniform if None.
      influences: whether to compute influences, which needs a single set of weights; if False they
        have no rows.

    Raises:
      AssertionError: the weights are not those of the rows, or of other β2.
    """
    chex.assert_rank([column, q], 1)
    if weights is not None:
        chex.assert_shape(weights, ({1, len(q)}, len(column)))
    share = np.full((1, len(column)), 1 / len(column)) if weights is None else weights
    largest = np.abs(column).max()
    if largest == 0:
        nothing = Influenced(np.zeros(len(q)), np.zeros((len(column) if influences else 0, len(q))))
        return Steps(nothing, nothing)
    column, epsilon = column / largest, epsilon / largest  # else squares may over- or underflow
    scale = np.sqrt((share @ column**2).max())
    if epsilon > LINEAR * scale:
        # m/(√v + ε) is m/ε: scale the result of a smaller ε
        smaller = LINEAR * scale
        mean, square = steps(column, p, q, smaller, weights, influences=influences)
        factor = smaller / epsilon
        return Steps(_times(mean, factor), _times(square, factor**2))
    return _scaled_steps(column / scale, p, q, epsilon / scale, share, influences=influences)


def _scaled_steps(
    g: Float[np.ndarray, " n"],
    p: float,
    q: Float[np.ndarray, " Q"],
    eps: float,
    share: Float[np.ndarray, "#Q n"],
    *,
    influences: bool,
) -> Steps:
    """`steps` for gradients whose mean square is about 1, with given probabilities of the rows."""
    zeros = share[:, g == 0].sum(axis=1)
    log_t = _grid(g, q, eps, zeros, 1 - p)
    square = g**2
    least = float(square.min())
    with np.errstate(under="ignore", over="ignore"):
        t = np.exp(log_t)
        damping = np.outer(least - square, t)
        # subnormal numbers would cost most of the time
        np.exp(np.maximum(damping, _LEAST_EXPONENT, out=damping), out=damping)
    phi = share @ damping
    log_phi = np.maximum(np.log(phi) - least * t, _LEAST_LOG)
    rho = (share * g) @ damping / phi
    tau = np.maximum((share * square) @ damping / phi - rho**2, 0)
    mean = (share @ g)[:, None]
    variance = (share @ square)[:, None] - mean**2

    kernels = [_kernels(1 - p, one, len(log_t)) for one in q.tolist()]
    products, first, second = (np.stack(part) for part in zip(*kernels, strict=True))
    log_f = _convolve(products, log_phi)
    eta = mean + p * _convolve(first, rho - mean)
    spread = p / (2 - p) * variance + p**2 * _convolve(second, tau - variance)
    kappa = eta**2 + spread
    weight, weight2 = _weights(log_t, q, eps, zeros, 1 - p)
    f = np.where(log_f > _LEAST_EXPONENT, np.exp(np.minimum(log_f, 0)), 0)
    wf, wf2 = weight * f, weight2 * f

    root = np.sqrt(1 - q)
    waits = (zeros > 0) & (eps == 0 and p < 1)
    endless = waits & (zeros * (1 - p) >= root)
    endless2 = waits & (zeros * (1 - p) ** 2 >= 1 - q)
    found = np.where(endless, np.copysign(np.inf, mean[:, 0]), (wf * eta).sum(axis=1))
    found2 = np.where(endless2, np.inf, (wf2 * kappa).sum(axis=1))
    if not influences:
        none = np.zeros((0, len(q)))
        return Steps(Influenced(found, none), Influenced(found2, none))

    # derivatives by the weights of the rows: the transposes, from each node back to its summands
    [[mean]], [[variance]] = mean, variance
    damping /= phi  # the weights of the rows under e^{−t g²}
    by_mean = _influence(
        g, damping, rho, tau, mean, variance,
        of_log_f=_transpose(products, wf * eta),
        of_rho=p * _transpose(first, wf), of_mean=wf.sum(axis=1) - p * _transpose(first, wf).sum(1),
        of_tau=np.zeros_like(wf), of_variance=np.zeros(len(q)),
    )  # fmt: skip
    by_eta = 2 * wf2 * eta
    back = _transpose(first, by_eta)
    back2 = _transpose(second, wf2)
    by_square = _influence(
        g, damping, rho, tau, mean, variance,
        of_log_f=_transpose(products, wf2 * kappa),
        of_rho=p * back, of_mean=by_eta.sum(axis=1) - p * back.sum(axis=1),
        of_tau=p**2 * back2,
        of_variance=p / (2 - p) * wf2.sum(axis=1) - p**2 * back2.sum(axis=1),
    )  # fmt: skip
    return Steps(Influenced(found, by_mean), Influenced(found2, by_square))


def _times(found: Influenced, factor: float) -> Influenced:
    return Influenced(found.value * factor, found.influence * factor)


def _grid(
    g: np.ndarray, q: np.ndarray, epsilon: float, zeros: np.ndarray, beta1: float
) -> Float[np.ndarray, " N"]:
    """Nodes in log t = log(qs), from where e^{−sv} is 1 to where the integrand has vanished."""
    left = np.log(q.min()) - _LEFT - 2 * np.log(max(epsilon, 1.0))  # w(s) turns at s = 1/ε²
    right = np.log(_DECAYED) - 2 * np.log(np.abs(g[g != 0]).min())
    ended = _MOST_RIGHT
    if epsilon > 0:
        # the integral of w from s on is 1/(ε²√s), to compare with a step of 1, or 1/ε if smaller
        ended = -2 * np.log(_NEGLECTED) - 4 * np.log(epsilon) + 2 * np.log(max(epsilon, 1.0))
    most = zeros.max()
    if most > 0 and beta1 > 0:
        # only runs of zeros are left, of probability z^j: integrands √s (zβ1)^j and s (zβ1²)^j
        with np.errstate(divide="ignore"):
            step = float(-np.log1p(-q.max()))
            rates = [0.5 * k + np.log(most * beta1**k) / step for k in (1, 2)]
        right += 2 - np.log(_NEGLECTED) / max(-max(rates), 1e-3)
    count = int(np.ceil((min(right, ended, _MOST_RIGHT) - left) / _SPACING)) + 1
    # a rounded number of nodes, so that columns share their kernels
    return left + _SPACING * np.arange(-(-count // _ROUND) * _ROUND)


def _weights(
    log_t: np.ndarray, q: np.ndarray, epsilon: float, zeros: np.ndarray, beta1: float
) -> tuple[Float[np.ndarray, "Q N"], Float[np.ndarray, "Q N"]]:
    """s·w(s) and −s·∂w/∂ε times the spacing; the ends include the geometric series beyond them."""
    h = _SPACING
    root = np.exp((log_t - np.log(q)[:, None]) / 2)  # √s
    x = epsilon * root
    far = x > 100
    near = np.where(far, 1.0, x)
    bell = special.erfcx(near)
    inverse = 1 / np.where(far, x, 1.0) ** 2
    pi = np.sqrt(np.pi)
    one = np.where(far, inverse * (0.5 - 0.75 * inverse) / pi, 1 / pi - near * bell)
    two = np.where(
        far,
        inverse * (1 - 3 * inverse) / (pi * np.where(far, x, 1.0)),
        (1 + 2 * near**2) * bell - 2 * near / pi,
    )
    weight, weight2 = h * root * one, h * root**2 * two
    weight[:, 0] += h * root[:, 0] / pi / np.expm1(h / 2)
    weight2[:, 0] += h * root[:, 0] ** 2 / np.expm1(h)
    if zeros.any() and epsilon == 0 and beta1 > 0:
        with np.errstate(divide="ignore"):
            step = -np.log1p(-q)
            for exponent, power, one_weight in ((0.5, 1, weight), (1.0, 2, weight2)):
                a = exponent + np.log(zeros * beta1**power) / step
                _add_tail(one_weight, a, step)
    return weight, weight2


def _add_tail(weight: np.ndarray, a: np.ndarray, step: np.ndarray) -> None:
    """Adds the tail beyond the last node, where the integrand falls like e^{a u} per `step`."""
    for row, rate, period in zip(weight, a, step, strict=True):
        if not np.isfinite(rate) or rate >= 0:
            continue
        nodes = max(period / _SPACING, 1.0)
        ratio = np.exp(rate * nodes * _SPACING)
        whole = int(nodes)
        factor = np.ones(whole + 1)
        factor[0] = nodes - whole
        row[-len(factor) :] *= 1 + factor * ratio / (1 - ratio)


@lru_cache(maxsize=1024)
def _kernels(beta1: float, q: float, num_nodes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Spectra of the kernels of the sums over j with factors 1, β1^j and β1^{2j}, on a grid."""
    with np.errstate(divide="ignore"):
        step = float(-np.log1p(-q))
    found = (
        _sum_of_all(step, num_nodes),
        _sum_of_powers(beta1, step, num_nodes),
        _sum_of_powers(beta1**2, step, num_nodes),
    )
    one, first, second = (fft.rfft(kernel, _fft_size(num_nodes)) for kernel in found)
    return one, first, second


def _sum_of_powers(base: float, step: float, num_nodes: int) -> np.ndarray:
    """Σ_j base^j f(x − j·step), by Lagrange interpolation; entry i is the lag i − _POINTS/2."""
    most = (num_nodes - 1) * _SPACING
    count = 1 if base == 0 or not np.isfinite(step) else int(most / step) + 1
    if 0 < base < 1:
        count = min(count, int(np.log(_LEAST_POWER) / np.log(base)) + 1)
    j = np.arange(count)
    place = j * (step if count > 1 else 0.0) / _SPACING
    whole = np.floor(place).astype(int)
    part = place - whole
    kernel = np.zeros(num_nodes + _POINTS)
    offsets = np.arange(1 - _POINTS // 2, _POINTS // 2 + 1)
    powers = base ** j.astype(float)
    for offset in offsets:
        others = offsets[offsets != offset]
        lagrange = np.prod([(part - o) / (offset - o) for o in others], axis=0)
        np.add.at(kernel, whole + offset + _POINTS // 2, powers * lagrange)
    return kernel


def _sum_of_all(step: float, num_nodes: int) -> np.ndarray:
    """Σ_j f(x − j·step); for small steps by the Euler–Maclaurin formula, on both grids."""
    if not step < _SMALL_STEP:
        return _sum_of_powers(1.0, step, num_nodes)
    h, centre = _SPACING, _POINTS // 2
    kernel = np.zeros(num_nodes + _POINTS)
    kernel[centre + 1 :] = h / step
    kernel[centre] = (h / step + 1) / 2
    first = np.array([1, -9, 45, 0, -45, 9, -1]) / (60 * h)  # of f' at lags −3 … 3
    third = np.array([-1, 8, -13, 0, 13, -8, 1]) / (8 * h**3)
    ends = (step - h**2 / step) / 12 * first + (h**4 / step - step**3) / 720 * third
    kernel[centre - 3 : centre + 4] += ends
    return kernel


def _convolve(kernels: np.ndarray, values: Float[np.ndarray, "#Q N"]) -> Float[np.ndarray, "Q N"]:
    """Σ_l kernel[l] values[x − l] at every node; values are 0 left of the grid, constant right."""
    num, right = values.shape[1], _POINTS // 2
    padded = np.concatenate([values, np.repeat(values[:, -1:], right, axis=1)], axis=1)
    size = _fft_size(num)
    product = fft.irfft(fft.rfft(padded, size) * kernels, size)
    return product[:, right : right + num]


def _transpose(kernels: np.ndarray, values: Float[np.ndarray, "Q N"]) -> Float[np.ndarray, "Q N"]:
    num, right = values.shape[1], _POINTS // 2
    size = _fft_size(num)
    shifted = np.zeros((len(values), num + right))
    shifted[:, right:] = values
    product = fft.irfft(fft.rfft(shifted, size) * np.conj(kernels), size)
    found = product[:, :num].copy()
    found[:, -1] += product[:, num : num + right].sum(axis=1)
    return found


def _fft_size(num_nodes: int) -> int:
    return fft.next_fast_len(2 * num_nodes + 2 * _POINTS, real=True)


def _influence(
    g: np.ndarray, damping: np.ndarray, rho: np.ndarray, tau: np.ndarray,
    mean: float, variance: float, *,
    of_log_f: np.ndarray, of_rho: np.ndarray, of_mean: np.ndarray,
    of_tau: np.ndarray, of_variance: np.ndarray,
) -> Float[np.ndarray, "n Q"]:  # fmt: skip
    """Chains the derivatives by log φ, ρ, τ, E[g] and Var g to those by the weights of the rows.

    δ log φ = d − 1, δρ = (g − ρ)d and δτ = ((g − ρ)² − τ)d, with d = e^{−t g²}/φ.
    """
    constant = of_log_f - of_rho * rho + of_tau * (rho**2 - tau)
    parts = np.concatenate([constant, of_rho - 2 * of_tau * rho, of_tau])
    parts[np.abs(parts) < 1e-60] = 0
    by_power = (damping @ parts.T).reshape(len(g), 3, -1)
    found = by_power[:, 0] + g[:, None] * (by_power[:, 1] + g[:, None] * by_power[:, 2])
    centred = g - mean
    found += np.outer(centred, of_mean) + np.outer(centred**2 - variance, of_variance)
    return found - found.mean(axis=0)
