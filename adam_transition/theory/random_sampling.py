"""The exact stationary drift of the random orders.

The inverse square root is a Gaussian integral, 1/√v = (1/√π) ∫_0^∞ s^{−1/2} e^{−sv} ds. With ε,

    1/(√v + ε) = (1/√π) ∫_0^∞ s^{−1/2} c(ε√s) e^{−sv} ds,    c(z) = 1 − √π z e^{z²} erfc(z),

so with s = e^u and ρ for the ε inside the square root,

    E[m/(√(v + ρ) + ε)] = (1/√π) ∫ e^{u/2} c(ε e^{u/2}) e^{−ρs} H(e^u) du,
    H(s) = E[m e^{−sv}],    F(s) = E[e^{−sv}].

With replacement, the g in a step m = β1 m' + (1−β1)g, v = β2 v' + (1−β2)g² is independent of
(m', v'). So at stationarity, with φ(t) = E[e^{−t g²}] and ψ(t) = E[g e^{−t g²}],

    F(s) = φ(qs) F(β2 s),    H(s) = (1−β1) ψ(qs) F(β2 s) + β1 φ(qs) H(β2 s),    q = 1 − β2.

In u = log s, both recursions run upward in steps of λ = −log β2 from F(0) = 1 and H(0) = E[g]. The
integrand is analytic for |Im u| < π/2 and decays at both ends, so the trapezoidal rule is exact to
rounding at a spacing of 1/4 (its error is of order e^{−π²/spacing}). The recursion takes about
80/(1−β2) steps. To avoid cancellation it carries F − 1 and H − E[g], which start at 0, while
s E[v] < 1, and after that F and H, which decay to 0. For small 1 − β2 it starts where the series of
`near_one` end, which may be the end of the integral.

Zero gradients, a fraction p0 of the table: for large s all other gradients are damped out, and
H(s) = β1 p0 H(β2 s). At ε = ρ = 0 the nodes of one lane (nodes that are λ apart) then decrease like
a geometric series with ratio β1 p0/√β2, which is summed in closed form; the ratio must be below 1.
With ε or ρ the integrand itself decays.

Under random shuffling, epochs are independent, and within an epoch the law of the next gradient
depends on how often each value has been drawn. F and H therefore carry that state σ, a vector of
counts:

    F_σ(s) = Σ_r P(σ − e_r → σ) e^{−q s g_r²} F_{σ−e_r}(β2 s),

and likewise for H. The state "all drawn" of one epoch is the state "none drawn" of the next, and
D = −Σ_σ E[m/√v; σ]. A table of two values, one of which occurs once, has 2n states; a table of n
different values has 2^n. With k zeros in an epoch, a run of zeros has at most 2k steps, after which
the integrand is 0.

The drift is computed for any table with replacement, and for tables with at most `MOST_STATES`
states under random shuffling (`MOST_STATES_OF_TWO` for two values).
"""

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple, assert_never

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from adam_transition import adam
from adam_transition.sampling import Sampling
from adam_transition.sweeps import sweep
from adam_transition.sweeps.small_loop import small_loop
from adam_transition.theory import _tiles, near_one

LEAST = 1e-9
"""Smallest 1 − β2."""

MOST_STATES = 512
"""Largest number of states of an epoch under random shuffling."""

MOST_STATES_OF_TWO = 1 << 22
"""Largest number of states for a table with at most two different gradients."""

MOST_WORK = 1e10
"""Largest number of states × steps for one cell, which takes some minutes."""

_SPACING = 0.25
# ends of the integral
_FIRST_SV = 1e-32  # s·E[v] at the start; the omitted part is of the order of its square root
_LAST_SV = 60.0  # s times the smallest v, at the end
_LAST_WEIGHT = 1e-34  # 1/(ε²s) at the end if ε > 0; the integrand decreases like its square root
_LARGEST_U = 700.0  # e^700 fits in float64
_LARGEST_Q_OF_SERIES = 0.02  # 1 − β2 up to which the series save time
_MOST_COEFFICIENTS = 1 << 21  # of series held at once


def work(
    gradients: Float[np.ndarray, "n d"], q: Float[np.ndarray, " C"], sampling: Sampling
) -> Float[np.ndarray, " C"]:
    """States × steps of the integral of a cell, for the coordinate for which they are most.

    The recursions take about 80/(1 − β2) steps from s = 0 on. Near β2 = 1 series take their place
    at a cost of some hundred steps, as far as they reach (`near_one`).
    """
    most = np.zeros(len(q))
    for column in np.asarray(gradients).T:
        largest = float(np.abs(column).max()) or 1.0  # squares of large gradients overflow
        values, counts = np.unique(column / largest, return_counts=True)
        states = num_states(column, sampling)
        steps = 80 / np.minimum(q, _SPACING)
        if states <= near_one.MOST_STATES and (values != 0).all():
            rest = np.where(near_one.reaches_the_end(values, counts, q), 0, 20 / q)
            steps = np.where(q <= _LARGEST_Q_OF_SERIES, 1e3 + rest, steps)
        most = np.maximum(most, states * steps)
    return most


def num_states(column: Float[np.ndarray, " n"], sampling: Sampling) -> int:
    """Number of states of an epoch that F and H carry for one coordinate of a table.

    Raises:
      ValueError: the scheme is not random.
    """
    match sampling:
        case "with_replacement":
            return 1
        case "random_shuffling":
            counts = np.unique(column, return_counts=True)[1]
            # a product of powers, because there may be a million values
            multiplicities = zip(*np.unique(counts, return_counts=True), strict=True)
            return math.prod((int(count) + 1) ** int(values) for count, values in multiplicities)
        case "cyclic" | "shuffle_once":
            raise ValueError(f"sampling={sampling!r}: its drift is no integral over states")
        case _:
            assert_never(sampling)


def has_exact_drift(gradients: Float[np.ndarray, "n d"], sampling: Sampling) -> bool:
    """Whether `random_drift` can compute the drift of a table: its number of states is limited."""
    return all(
        num_states(g, sampling) <= (MOST_STATES_OF_TWO if len(np.unique(g)) <= 2 else MOST_STATES)
        for g in np.asarray(gradients).T
    )


def random_drift(
    gradients: Float[np.ndarray, "n d"], hyper: adam.Hyperparameters, sampling: Sampling
) -> Float[np.ndarray, "C d"]:
    """D = −n·E[m/(√(v + ε_root) + ε)] per epoch, with error below 1e-12 of n·E[|m|/√v].

    Requires 64-bit types.

    Args:
      gradients: a table with `has_exact_drift`, whose largest gradient in each coordinate is close
        to 1 in size.
      hyper: 1 − β1 in (0, 1] and 1 − β2 in [`LEAST`, 1], of shape (C,); ε and ε_root, of shape
        (C, d). If both are 0 and the table has zero gradients, the drift must be finite.
      sampling: `with_replacement` or `random_shuffling`.
    """
    p, q = np.asarray(hyper.one_minus_beta1), np.asarray(hyper.one_minus_beta2)
    shape = (len(p), gradients.shape[1])
    epsilon, epsilon_root = (np.broadcast_to(value, shape) for value in hyper[2:])
    drift = np.zeros(shape)
    columns_of_kind: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = {}
    unit = np.ones(shape[1])
    for i, column in enumerate(gradients.T):
        if column.any():
            unit[i] = np.abs(column[column != 0]).min()
            values, counts = np.unique(column / unit[i], return_counts=True)
            order = np.argsort(counts, kind="stable")
            kind = (*counts[order].tolist(), -1 if (values == 0).any() else 0)
            columns_of_kind.setdefault(kind, []).append((i, values[order]))
    for (*counts_of_all, _), columns in columns_of_kind.items():
        counts = np.array(counts_of_all)
        which = [i for i, _ in columns]
        with np.errstate(over="ignore"):
            root = epsilon_root[:, which].T / unit[which, None] ** 2
        cells = _Cells(p, q, epsilon[:, which].T / unit[which, None], root)
        begun = _begins_with_series(cells, num_states(gradients[:, which[0]], sampling), columns)
        for k, (i, values) in enumerate(columns):
            if begun[k].any():
                one = cells.at(begun[k], slice(k, k + 1))
                drift[begun[k], i] = _from_series(values, counts, one, sampling)
        rest = np.asarray(~begun.all(axis=0))
        if rest.any():
            every = np.stack([values for _, values in columns])
            found = _of_columns(every, counts, cells.at(rest), sampling)
            for k, i in enumerate(which):
                drift[rest, i] = np.where(begun[k][rest], drift[rest, i], found[:, k])
    return drift


class _Cells(NamedTuple):
    """Hyperparameters of C cells, with each coordinate in units of its smallest gradient."""

    p: Float[np.ndarray, " C"]
    q: Float[np.ndarray, " C"]
    epsilon: Float[np.ndarray, "d C"]
    root: Float[np.ndarray, "d C"]  # ε inside the square root

    def at(self, chosen: np.ndarray | slice, columns: slice = slice(None)) -> "_Cells":
        """Some of the cells, of some of the coordinates."""
        epsilon, root = (values[columns][:, chosen] for values in (self.epsilon, self.root))
        return _Cells(self.p[chosen], self.q[chosen], epsilon, root)


class _Lanes(NamedTuple):
    """Lanes: sequences of nodes that are λ apart, each of which follows from the one before.

    A cell has one lane if λ is below the required spacing, and otherwise several with offsets.
    """

    values: Float[np.ndarray, "*lanes r"]  # the r different gradients
    p: Float[np.ndarray, "*lanes"]
    q: Float[np.ndarray, "*lanes"]
    epsilon: Float[np.ndarray, "*lanes"]
    root: Float[np.ndarray, "*lanes"]
    first: Float[np.ndarray, "*lanes"]  # u of the first node
    lag: Float[np.ndarray, "*lanes"]  # λ
    large: Float[np.ndarray, "*lanes"]  # u from which F and H themselves are carried
    num_nodes: Int[np.ndarray, "*lanes"]
    every: Int[np.ndarray, "*lanes"]  # steps between nodes that count
    f: Float[np.ndarray, "..."]  # F − F(0) by state, one step before the first node
    h: Float[np.ndarray, "..."]  # H − H(0)


def _begins_with_series(
    cells: _Cells, states: int, columns: list[tuple[int, np.ndarray]]
) -> Bool[np.ndarray, "d C"]:
    """Where the integral begins with the series of `near_one`, which then saves time."""
    has_epsilon = (cells.epsilon > 0) | (cells.root > 0)
    no_zeros = np.array([(values != 0).all() for _, values in columns])[:, None]
    is_small = (cells.q <= _LARGEST_Q_OF_SERIES) & (states <= near_one.MOST_STATES)
    return is_small & (has_epsilon | no_zeros)


def _from_series(
    values: Float[np.ndarray, " r"],
    counts: Int[np.ndarray, " r"],
    cells: _Cells,
    sampling: Sampling,
) -> Float[np.ndarray, " C"]:
    """The drift of one coordinate: by series as far as they reach, then by the recursions."""
    states = num_states(np.repeat(values, counts), sampling)
    size = max(1, _MOST_COEFFICIENTS // (2 * near_one.NUM_COEFFICIENTS * states))
    pieces = []
    for start in range(0, len(cells.p), size):
        some = cells.at(slice(start, start + size))
        found = near_one.series(values, counts, some.p, some.q, sampling)
        lag = -np.log1p(-some.q)
        every = np.floor(_SPACING / lag).astype(int)
        has_ended = near_one.reaches_the_end(values, counts, some.q)
        sums = _sum_of_series(found, some, every * lag, has_ended)
        if not has_ended.all():
            sums[~has_ended] += _sum_beyond(
                found, values, counts, some, every, ~has_ended, sampling
            )
        pieces.append(-every * lag * sums / math.sqrt(math.pi))
    return np.concatenate(pieces)


def _sum_of_series(
    found: near_one.Series,
    cells: _Cells,
    spacing: Float[np.ndarray, " C"],
    with_last: Bool[np.ndarray, " C"],
) -> Float[np.ndarray, " C"]:
    """The sum over the nodes below s = `found.unit`, and over that node where it is the last."""
    epsilon, root = cells.epsilon[0], cells.root[0]
    first = np.log(_FIRST_SV) - np.log(found.mean_square + epsilon**2 + root)
    back = np.arange(math.ceil(((np.log(found.unit) - first) / spacing).max()) + 1)[:, None]
    u = np.log(found.unit) - back * spacing
    has_epsilon = bool((epsilon > 0).any() or (root > 0).any())
    weight = _weight(u, epsilon, root, has_epsilon, np.exp)  # shapes vary: no compilation
    weight = weight * np.exp(-found.mean_square * np.exp(u)) * ((back > 0) | with_last)
    moment = near_one.evaluate(near_one.moment(found), np.exp(-back * spacing))
    return found.num_components * np.sum(weight * moment, axis=0)


def _sum_beyond(
    found: near_one.Series,
    values: Float[np.ndarray, " r"],
    counts: Int[np.ndarray, " r"],
    cells: _Cells,
    every: Int[np.ndarray, " C"],
    chosen: Bool[np.ndarray, " C"],
    sampling: Sampling,
) -> Float[np.ndarray, " K"]:
    """The sum over the nodes from s = `found.unit` on, of K chosen cells."""
    some = cells.at(chosen)
    lag = -np.log1p(-some.q)
    first = np.log(found.unit[chosen])
    [last], _ = _end(some, lag[None], 0, int(counts.sum()), sampling)
    last = np.minimum(last, _end_of_decay(values, counts, some.q))
    shape = _shape_of_states(counts, sampling)
    f, h = np.zeros((2, len(first), *shape))
    for state, (f_at, h_at) in near_one.by_state(found, found.unit * (1 - cells.q)).items():
        # "all drawn" is also "none drawn" of the next epoch; with replacement there is one state
        same = [state, (0,) * len(shape)] if sum(state) == found.length else [state]
        for one in same if shape else [()]:
            f[:, *one], h[:, *one] = f_at[chosen], h_at[chosen]
    lanes = _Lanes(
        values=np.broadcast_to(values, (len(first), len(values))),
        p=some.p,
        q=some.q,
        epsilon=some.epsilon[0],
        root=some.root[0],
        first=first,
        lag=lag,
        large=np.full(len(first), -math.log(found.mean_square)),
        num_nodes=np.maximum(np.floor((last - first) / lag).astype(int) + 1, 0),
        every=every[chosen],
        f=f,
        h=h,
    )
    return _sums(lanes, counts, sampling)[0]


def _end_of_decay(
    values: Float[np.ndarray, " r"], counts: Int[np.ndarray, " r"], q: Float[np.ndarray, " C"]
) -> Float[np.ndarray, " C"]:
    """The u from which F is so small that the integral has ended.

    With replacement −log F(s) = Σ_k ℓ(log(qs) − kλ), where ℓ(x) = −log φ(e^x) rises, so that it is
    at least (1/λ) ∫ ℓ dx up to log(qs). Under random shuffling F is smaller: the draws of an epoch
    are negatively associated (Joag-Dev & Proschan 1983).
    """
    x = np.linspace(-40, 8, 4801) - math.log((values**2).max())
    lost = np.expm1(-np.multiply.outer(np.exp(x), values**2)) @ counts / counts.sum()
    loss = -np.log1p(np.maximum(lost, -1 + 1e-15))
    integral = loss[0] + np.concatenate([[0.0], np.cumsum(loss[:-1])]) * (x[1] - x[0])
    needed = -np.log1p(-q) * (_LAST_SV + math.log(np.abs(values).max()))
    return np.interp(needed, integral, x, right=np.inf) - np.log(q)


def _of_columns(
    values: Float[np.ndarray, "d r"],
    counts: Int[np.ndarray, " r"],
    cells: _Cells,
    sampling: Sampling,
) -> Float[np.ndarray, "C d"]:
    """The drift of coordinates with smallest gradient ±1 and the same counts of their values."""
    with np.errstate(divide="ignore"):
        lag = np.broadcast_to(-np.log1p(-cells.q), cells.epsilon.shape)  # ∞ where β2 = 0
    mean_square = ((values**2 @ counts) / counts.sum())[:, None]
    # the mass of the integrand lies around √s = 1/√(E v) and 1/ε
    first = np.log(_FIRST_SV) - np.log(mean_square + cells.epsilon**2 + cells.root)
    num_zeros = int(counts[(values[0] == 0)].sum())
    last, ratio = _end(cells, lag, num_zeros, int(counts.sum()), sampling)
    last = np.maximum(last, first + 1)
    is_single_step = np.isinf(lag)  # one step leads from s = 0 to any s
    lag = np.where(is_single_step, last - first, lag)
    shape = _shape_of_states(counts, sampling)
    num_offsets = np.ceil(lag / _SPACING).astype(int)  # [d, C]
    spacing = lag / num_offsets
    column, cell = np.indices(lag.shape).reshape(2, -1).repeat(num_offsets.ravel(), axis=1)
    starts = np.cumsum(num_offsets) - num_offsets.ravel()
    offset = np.arange(len(cell)) - starts.repeat(num_offsets.ravel())
    begin = first[column, cell] + offset * spacing[column, cell]
    # up to the last node that counts, or to the next node if the rest is a geometric series
    num_nodes = np.floor((last[column, cell] - begin) / lag[column, cell]).astype(int) + 1
    num_nodes = np.where(is_single_step[column, cell], 1, num_nodes + (ratio[column, cell] > 0))
    lanes = _Lanes(
        values=values[column],
        p=cells.p[cell],
        q=cells.q[cell],
        epsilon=cells.epsilon[column, cell],
        root=cells.root[column, cell],
        first=begin,
        lag=lag[column, cell],
        large=-np.log(mean_square)[column, 0],
        num_nodes=num_nodes,
        every=np.ones_like(num_nodes),
        **dict.fromkeys(("f", "h"), np.zeros((len(cell), *[1] * len(shape)))),
    )
    sums, last_nodes = _sums(lanes, counts, sampling)
    sums = sums + last_nodes * (ratio / (1 - ratio))[column, cell]
    return -(spacing * np.add.reduceat(sums, starts).reshape(lag.shape)).T / math.sqrt(math.pi)


def _end(
    cells: _Cells,
    lag: Float[np.ndarray, "d C"],
    num_zeros: int,
    n: int,
    sampling: Sampling,
) -> tuple[Float[np.ndarray, "d C"], Float[np.ndarray, "d C"]]:
    """The u at which the integral may end, and the ratio of successive nodes after it."""
    with np.errstate(divide="ignore"):
        by_epsilon = -math.log(_LAST_WEIGHT) - 2 * np.log(cells.epsilon)
        by_root = math.log(_LAST_SV) - np.log(cells.root)
    ratio = np.zeros_like(lag)
    if not num_zeros:
        return np.minimum(by_epsilon, math.log(_LAST_SV) - np.log1p(cells.root)), ratio
    without = (cells.epsilon == 0) & (cells.root == 0)
    beta1 = np.broadcast_to(1 - cells.p, lag.shape)
    damped = math.log(_LAST_SV) - np.log(cells.q)  # end of the contribution of nonzero gradients
    if sampling == "with_replacement":
        np.multiply(num_zeros / n * beta1, np.exp(lag / 2), out=ratio, where=without & (beta1 > 0))
        last = np.broadcast_to(damped, lag.shape)
    else:
        run = np.zeros_like(lag)
        np.multiply(2 * num_zeros + 1, lag, out=run, where=without & (beta1 > 0))
        last = damped + run
    return np.where(without, last, np.minimum(by_epsilon, by_root)), ratio


def _sums(
    lanes: _Lanes, counts: Int[np.ndarray, " r"], sampling: Sampling
) -> tuple[Float[np.ndarray, " K"], Float[np.ndarray, " K"]]:
    """The sum over the nodes of each lane, and the last node."""
    shape = _shape_of_states(counts, sampling)
    shared = {
        "counts": counts.astype(np.int32),
        "probabilities": _probabilities_of_states(shape, counts),
    }
    with_epsilon = bool((lanes.epsilon > 0).any() or (lanes.root > 0).any())
    numbers = max(math.prod(shape), lanes.values.shape[1])
    return _tiles.sum_lanes(_program(shape, with_epsilon), shared, lanes, lanes.num_nodes, numbers)


def _shape_of_states(counts: Int[np.ndarray, " r"], sampling: Sampling) -> tuple[int, ...]:
    if sampling == "with_replacement":
        return ()
    return tuple(_padded(int(k) + 1) for k in counts)


def _probabilities_of_states(
    shape: tuple[int, ...], counts: Int[np.ndarray, " r"]
) -> Float[np.ndarray, " *states"]:
    """P(σ) after |σ| draws of an epoch, Π C(k_r, σ_r)/C(n, |σ|); 0 where the shape is padded.

    Each value is hypergeometric given those before it: a product of as many ratios as the value
    has components, so no binomial coefficient is formed. The last value, which occurs most often,
    needs no factor.
    """
    probability = np.ones(shape, np.longdouble)
    if not shape:
        return probability.astype(np.float64)
    taken = np.indices(shape, sparse=True)
    left, total = sum(taken), int(counts.sum())  # draws and components of the remaining values
    for draws, count in zip(taken, counts.tolist(), strict=True):
        probability = np.where(draws <= count, probability, 0)
        if draws is taken[-1]:
            break
        for i in range(count):
            drawn = np.where(i < draws, left - i, total - left - (i - draws))
            ways = np.where(i < draws, (count - i) / np.longdouble(i + 1), 1)
            probability = probability * (drawn * ways / (total - i))
        left, total = left - draws, total - count
    return probability.astype(np.float64)


def _padded(length: int) -> int:
    """The length rounded up to one of few sizes, so that tables of different n share a program."""
    return length if length <= 2 else max(8, 1 << (length - 1).bit_length())


@lru_cache
def _program(shape: tuple[int, ...], with_epsilon: bool) -> sweep.Program:
    integrate = partial(_integrate, shape=shape, with_epsilon=with_epsilon)
    return sweep.Program(integrate, of_tables=True)


_Moments = tuple[jax.Array, jax.Array]  # F and H, or their differences from s = 0; [*states, W]


@jax.numpy_rank_promotion("allow")
def _integrate(
    tiles: dict[str, Array], lanes: _Lanes, *, shape: tuple[int, ...], with_epsilon: bool
) -> dict[str, Float[Array, "1 W ..."]]:
    """Sums e^{u/2} c(ε e^{u/2}) e^{−ρs} n E[m e^{−sv}] along the W lanes of a tile, by states.

    Also returns the last node of each lane. `shape` is the shape of the states, () with
    replacement; states beyond the counts are never reached. Lanes are the last axis everywhere, so
    values of lanes [W] broadcast over states [*states, W].
    """
    counts, num_steps = tiles["counts"][0], tiles["num_steps"][0]
    lane: Any = _Lanes(*(values[0] for values in lanes))
    g, p, n = lane.values.T, lane.p, counts.sum()  # g: [r, W]
    probabilities = _probabilities(shape, counts)
    f_at_0 = tiles["probabilities"][0][..., None]  # [*states, 1]: F(0) by state
    h_at_0 = _mean_in_states(shape, counts, f_at_0, g, p)  # [*states, W]: E[m; σ]

    def with_replacement(lost: Array, base: Array, moments: _Moments) -> _Moments:
        """The increments of F and H in one step."""
        f, h = moments
        phi = jnp.sum(probabilities * lost, axis=0)  # φ(t) − φ(0)
        psi = jnp.sum(probabilities * (g * lost), axis=0)  # ψ(t) − ψ(0)
        from_f = jnp.where(base > 0, psi * (1 + f) + h_at_0 * f, (h_at_0 + psi) * f)
        return phi * (base + f), p * (from_f - h) + (1 - p) * (phi * (base * h_at_0 + h))

    def shuffled(lost: Array, base: Array, moments: _Moments) -> _Moments:
        """F and H after one step."""
        f, h = moments
        after, first_after = jnp.zeros_like(f), jnp.zeros_like(h)
        for axis, probability in enumerate(probabilities):
            # each sum has one product, so that rounding does not depend on which one is fused
            damped = f + lost[axis] * (f + base * f_at_0)
            carried = h + lost[axis] * (h + base * h_at_0)
            moved = carried + p * (g[axis] * damped - carried)
            after = after + _drawn(probability * damped, axis)
            first_after = first_after + _drawn(probability * moved, axis)
        return _next_epoch(after, counts), _next_epoch(first_after, counts)

    def add_node(k: Array, carry: tuple) -> tuple:
        totals, rest, last, base, moments, rests = carry
        # nodes past the last one, which longer lanes of the tile require, do not count
        u = lane.first + jnp.minimum(k, lane.num_nodes) * lane.lag
        small = jnp.where(u < lane.large, 1.0, 0.0)
        moments = moments[0] + (base - small) * f_at_0, moments[1] + (base - small) * h_at_0
        lost = jnp.expm1(-(lane.q * jnp.exp(jnp.minimum(u, _LARGEST_U))) * g**2)  # e^{−t g²} − 1
        if shape:
            moments = shuffled(lost, small, moments)
        else:
            change = with_replacement(lost, small, moments)
            (f, f_rest), (h, h_rest) = map(_add, moments, rests, change)
            moments, rests = (f, h), (f_rest, h_rest)
        counts_now = (k < lane.num_nodes) & (k % lane.every == 0)
        weight = _weight(u, lane.epsilon, lane.root, with_epsilon)
        node = jnp.where(counts_now, weight, 0) * (moments[1] + small * h_at_0)
        last = jnp.where(k == lane.num_nodes - 1, node, last) if not shape else last
        totals, rest = _add(totals, rest, node)
        return totals, rest, last, small, moments, rests

    zero = jnp.zeros_like(p)
    zeros = jnp.zeros((*shape, *p.shape))
    rests = (zero, zero) if not shape else ()
    start = tuple(jnp.moveaxis(values, 0, -1) + zeros for values in (lane.f, lane.h))
    carry = zeros, zeros, zero, jnp.ones_like(p), start, rests
    totals, _, last, *_ = small_loop(num_steps, add_node, carry)
    # the state "none drawn" is the state "all drawn": counted once
    sums = totals.reshape(-1, *p.shape)[1:] if shape else n * totals[None]
    return {"sums": sums.T[None], "last": n * last[None]}


def _weight(
    u: Any, epsilon: Any, root: Any, with_epsilon: bool, exp: Callable[[Any], Any] = jnp.exp
) -> Any:
    """e^{u/2} c(ε e^{u/2}) e^{−ρs}, of JAX or of NumPy arrays with NumPy's exp."""
    half = exp(u / 2)
    if not with_epsilon:
        return half
    return half * _share_beside(epsilon * half) * exp(-root * exp(u))


def _add(total: Array, rest: Array, term: Array) -> tuple[Array, Array]:
    """Compensated addition: `rest` is the accumulated rounding error of the total."""
    term = term + rest
    new = total + term
    return new, term - (new - total)


def _mean_in_states(
    shape: tuple[int, ...], counts: Array, probability: Array, g: Array, p: Array
) -> Float[Array, "*states W"]:
    """E[m; σ] for all states σ.

    The draws of the current epoch are exchangeable and independent of other epochs. So with |σ| = t
    draws, E[m | σ] = (1 − β1^t)·(mean of the drawn gradients) + β1^t E[g].
    """
    n = counts.sum()
    mean = jnp.sum(counts[:, None] * g, axis=0) / n
    if not shape:
        return mean
    drawn = jnp.indices(shape)
    steps = jnp.maximum(drawn.sum(axis=0), 1)[..., None]
    total = sum(count[..., None] * value for count, value in zip(drawn, g, strict=True))
    new = -jnp.expm1(steps * jnp.log1p(-p))
    # before the first draw of an epoch the mean is that after the last draw
    is_first = (drawn.sum(axis=0) == 0)[..., None]
    return probability * jnp.where(is_first, mean, new * (total / steps) + (1 - new) * mean)


_SCALE = 4.0  # z at x = 0


@lru_cache
def _coefficients() -> tuple[float, ...]:
    """Chebyshev coefficients of (1 + 2z²) c(z) in x = (z − 4)/(z + 4), accurate to 1e-14.

    They are computed from c(z) = 2 ∫_0^∞ t e^{−t² − 2zt} dt, which involves no cancellation.
    """
    count = 28
    angle = (np.arange(count) + 0.5) * np.pi / count
    z = (_SCALE / np.tan(angle / 2) ** 2)[:, None]
    spacing = 1 / 16
    t = np.exp(np.arange(-20, 4, spacing)) / (1 + z)
    values = (
        (1 + 2 * z[:, 0] ** 2) * 2 * spacing * np.sum(t**2 * np.exp(-(t**2) - 2 * z * t), axis=1)
    )
    coefficients = 2 / count * np.cos(np.outer(np.arange(count), angle)) @ values
    coefficients[0] /= 2
    return tuple(coefficients.tolist())


def _share_beside(z: Any) -> Any:
    """c(z) = 1 − √π z e^{z²} erfc(z) by Clenshaw's sum; 1 at z = 0, about 1/(2z²) for large z."""
    x = (z - _SCALE) / (z + _SCALE)
    before, now = 0 * z, 0 * z
    coefficients = _coefficients()
    for coefficient in coefficients[:0:-1]:
        before, now = now, coefficient + 2 * x * now - before
    return (coefficients[0] + x * now - before) / (1 + 2 * z**2)


def _probabilities(shape: tuple[int, ...], counts: Int[Array, " r"]) -> Float[Array, "r *states 1"]:
    """The probability of each of the r values to be drawn next, by state."""
    drawn = jnp.indices(shape) if shape else 0
    left = jnp.maximum(counts.reshape(-1, *[1] * len(shape)) - drawn, 0)
    return (left / jnp.maximum(left.sum(axis=0), 1))[..., None]


def _drawn(moments: Array, axis: int) -> Array:
    """Shifts each state to the state with one more draw of the value of that axis."""
    width = [(0, 0)] * moments.ndim
    width[axis] = (1, 0)
    return jnp.pad(jax.lax.slice_in_dim(moments, 0, -1, axis=axis), width)


def _next_epoch(moments: Array, counts: Array) -> Array:
    """Starts the next epoch: the state "all drawn" becomes "none drawn"."""
    return moments.at[(0,) * len(counts)].set(moments[tuple(counts)])
