"""The stationary drift of the random orders, exactly.

A root has a Gaussian integral, 1/√v = (1/√π) ∫_0^∞ s^{−1/2} e^{−sv} ds, so that

    E[m/√v] = (1/√π) ∫ e^{u/2} H(e^u) du,    H(s) = E[m e^{−sv}],    F(s) = E[e^{−sv}].

With replacement, a step from (m', v') to m = β1 m' + (1−β1)g, v = β2 v' + (1−β2)g² has a fresh g.
So at stationarity, with φ(t) = E[e^{−t g²}] and ψ(t) = E[g e^{−t g²}],

    F(s) = φ(qs) F(β2 s),    H(s) = (1−β1) ψ(qs) F(β2 s) + β1 φ(qs) H(β2 s),    q = 1 − β2.

In u = log s both run upward in steps of λ = −log β2 from F(0) = 1 and H(0) = E[g]. The integrand
is analytic for |Im u| < π/2 and decays at both ends, so the trapezoidal rule is exact to rounding
at a spacing of a quarter (its error is of order e^{−π²/spacing}).

Under random shuffling epochs are independent, and within one the law of the next gradient depends
on how many of each value have been drawn. F and H therefore carry that state σ, a vector of counts:

    F_σ(s) = Σ_r P(σ − e_r → σ) e^{−q s g_r²} F_{σ−e_r}(β2 s),

and likewise H; the state in which all are drawn is that in which none is. D = −Σ_σ E[m/√v; σ].
A table of two values, one of them once, has 2n states; one of n different values has 2^n.

The drift is exact for any table with replacement, and with up to `MOST_STATES` states under random
shuffling, but for tables with gradients that are 0: there v may come near to 0, and the integrand
decays slowly.
"""

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from adam_transition import sampling, sweep

LEAST = 1e-5
"""The least 1 − β2: the integral takes about 80/(1 − β2) steps."""

MOST_STATES = 512
"""The most states of an epoch under random shuffling."""

_SPACING = 0.25
_CUT = 1e-32  # of E[v]·s, where the integral begins; half of the digits are lost to its root
_DECAYED = 60.0  # of least g²·s, where it ends
_LONG = 4096  # steps
_LANES = 16  # of a tile where lanes are long or few
_MOST_LANES = 4096
_NUMBERS_PER_TILE = 1 << 15  # of F, and as many of H: what a second cache holds


def num_steps(q: Float[np.ndarray, " C"]) -> Float[np.ndarray, " C"]:
    """About how many steps of F and H the integral of a cell takes."""
    return 80 / np.minimum(q, _SPACING)


def num_states(column: Float[np.ndarray, " n"], scheme: sampling.Sampling) -> int:
    """States of an epoch that F and H carry for one coordinate of a table."""
    if scheme == "with_replacement":
        return 1
    return math.prod(int(count) + 1 for count in np.unique(column, return_counts=True)[1])


def has_exact_drift(gradients: Float[np.ndarray, "n d"], scheme: sampling.Sampling) -> bool:
    """Whether `random_drift` takes a table; a coordinate may be 0 in all components or in none."""
    zeros = (gradients == 0).any(axis=0) & (gradients != 0).any(axis=0)
    return not zeros.any() and all(num_states(g, scheme) <= MOST_STATES for g in gradients.T)


def random_drift(
    gradients: Float[np.ndarray, "n d"],
    p: Float[np.ndarray, " C"],
    q: Float[np.ndarray, " C"],
    scheme: sampling.Sampling,
) -> Float[np.ndarray, "C d"]:
    """D = −n·E[m/√v] per epoch; relative to n·E|m|/√E[v] the error is below 1e-12.

    Call it with 64-bit types enabled.

    Args:
      gradients: a table that `has_exact_drift`.
      p: 1 − β1 of each cell, in (0, 1].
      q: 1 − β2, in [`LEAST`, 1].
      scheme: `with_replacement` or `random_shuffling`.
    """
    found = np.zeros((len(p), gradients.shape[1]))
    alike: dict[tuple[int, ...], list[tuple[int, np.ndarray]]] = {}
    for i, column in enumerate(gradients.T):
        if column.any():
            values, counts = np.unique(column / np.abs(column).min(), return_counts=True)
            order = np.argsort(counts, kind="stable")
            alike.setdefault(tuple(counts[order].tolist()), []).append((i, values[order]))
    for counts_of_all, columns in alike.items():
        which = [i for i, _ in columns]
        values = np.stack([values for _, values in columns])
        found[:, which] = _of_columns(values, np.array(counts_of_all), p, q, scheme)
    return found


class _Lanes(NamedTuple):
    """Nodes of an integral that are λ apart follow from each other: a lane of them.

    A cell has one lane if λ is below the spacing wanted, or several, offset from each other.
    """

    values: Float[np.ndarray, "*lanes r"]  # the different gradients
    p: Float[np.ndarray, "*lanes"]
    q: Float[np.ndarray, "*lanes"]
    first: Float[np.ndarray, "*lanes"]  # u of the first node
    last: Float[np.ndarray, "*lanes"]  # and where the integral ends
    step: Float[np.ndarray, "*lanes"]  # λ


def _of_columns(
    values: Float[np.ndarray, "d r"],
    counts: Int[np.ndarray, " r"],
    p: np.ndarray,
    q: np.ndarray,
    scheme: sampling.Sampling,
) -> Float[np.ndarray, "C d"]:
    """The drift of coordinates whose least gradient is ±1 and whose values occur equally often."""
    first = np.log(_CUT / ((values**2 @ counts) / counts.sum()))[:, None]
    last = math.log(_DECAYED)
    with np.errstate(divide="ignore"):  # β2 = 0: one step from s = 0 to anywhere
        step = np.minimum(-np.log1p(-q), last - first)
    num_offsets = np.ceil(step / _SPACING).astype(int)  # [d, C]
    spacing = step / num_offsets
    column, cell = np.indices(step.shape).reshape(2, -1).repeat(num_offsets.ravel(), axis=1)
    starts = np.cumsum(num_offsets) - num_offsets.ravel()
    offset = np.arange(len(cell)) - starts.repeat(num_offsets.ravel())
    lanes = _Lanes(
        values=values[column],
        p=p[cell],
        q=q[cell],
        first=first[column, 0] + offset * spacing[column, cell],
        last=np.full(len(cell), last),
        step=step[column, cell],
    )
    steps = np.ceil((last - first) / step).astype(int)[column, cell]
    sums = np.add.reduceat(_sums(lanes, steps, counts, scheme), starts).reshape(step.shape)
    return -(spacing * sums).T / math.sqrt(math.pi)


def _sums(
    lanes: _Lanes, steps: Int[np.ndarray, " K"], counts: np.ndarray, scheme: sampling.Sampling
) -> Float[np.ndarray, " K"]:
    """The sum over the nodes of each lane."""
    shape = () if scheme == "with_replacement" else tuple(_padded(int(k) + 1) for k in counts)
    numbers = max(math.prod(shape), lanes.values.shape[1])
    most = min(_MOST_LANES, max(1, _NUMBERS_PER_TILE // numbers))
    found = np.empty(len(steps))
    for group in (steps > _LONG, steps <= _LONG):
        chosen = np.flatnonzero(group)
        if not len(chosen):
            continue
        few = steps[chosen[0]] > _LONG or len(chosen) <= _LANES * _LANES
        width = min(_LANES, most) if few else most
        # lanes of a tile have about as many steps; the last one is filled up with its last lane
        order = chosen[np.argsort(-steps[chosen], kind="stable")]
        num_tiles = -(-len(order) // width)
        tiles = order[np.minimum(np.arange(num_tiles * width), len(order) - 1)].reshape(-1, width)
        sums = np.empty(tiles.shape)

        def write(block: sweep.Block, values: dict[str, np.ndarray], sums: Any = sums) -> None:
            sums[block.rows, block.columns] = values["sum"]

        rows = {
            "counts": np.broadcast_to(counts.astype(np.int32), (num_tiles, len(counts))),
            "num_steps": steps[tiles].max(axis=1),
        }
        cells = _Lanes(*(values[tiles] for values in lanes))
        sweep.run(
            _program(shape), rows, cells, tile=(1, width), chunk=(1, width), write=write,
            devices=_host(),
        )  # fmt: skip
        found[order] = sums.ravel()[: len(order)]
    return found


def _host() -> list[jax.Device] | None:
    """One device on the CPU: loops of little work would wait for a GPU at every step."""
    try:
        return jax.local_devices(backend="cpu")[:1]
    except RuntimeError:  # JAX_PLATFORMS leaves the CPU out
        return None


def _padded(length: int) -> int:
    """Lengths of a few sizes, so that tables of other n share a program."""
    return length if length <= 2 else max(8, 1 << (length - 1).bit_length())


@lru_cache
def _program(shape: tuple[int, ...]) -> sweep.Program:
    return sweep.Program(partial(_integrate, shape=shape), of_tables=True)


_Moments = tuple[jax.Array, jax.Array]  # F and H, of shape (*states, W)


def _integrate(
    tiles: dict[str, Array], lanes: _Lanes, *, shape: tuple[int, ...]
) -> dict[str, Float[Array, "1 W"]]:
    """Sums e^{u/2} n E[m e^{−sv}] along the lanes of one tile.

    `shape` is that of the states, () with replacement; states past the counts are never reached.
    """
    counts, num_steps = tiles["counts"][0], tiles["num_steps"][0]
    values, p, q, first, last, step = (one[0] for one in lanes)
    g, n = values.T, counts.sum()  # [r, W]
    probabilities = _probabilities(shape, counts)

    def advance(t: Float[Array, " W"], moments: _Moments) -> _Moments:
        """One step of Adam: from F(β2 s), H(β2 s) to F(s), H(s), with t = qs."""
        f, h = moments
        damping = jnp.exp(-t * g**2)
        if not shape:
            weights = probabilities * damping
            phi, psi = jnp.sum(weights, axis=0), jnp.sum(g * weights, axis=0)
            return phi * f, p * psi * f + (1 - p) * phi * h
        after, first_after = jnp.zeros_like(f), jnp.zeros_like(h)
        for axis, probability in enumerate(probabilities):
            weight = probability * damping[axis]
            moved = p * g[axis] * f + (1 - p) * h
            after = after + _drawn(weight * f, axis)
            first_after = first_after + _drawn(weight * moved, axis)
        return _next_epoch(after, counts), _next_epoch(first_after, counts)

    def add_node(k: Array, carry: tuple[Array, _Moments]) -> tuple[Array, _Moments]:
        total, moments = carry
        u = jnp.minimum(first + k * step, last)  # where others of the tile have longer lanes
        f, h = advance(q * jnp.exp(u), moments)
        h_of_states = h.reshape(-1, *p.shape)
        # the state in which none is drawn is counted as the one in which all are
        inner = jnp.sum(h_of_states[1:] if shape else n * h_of_states, axis=0)
        return total + jnp.exp(u / 2) * inner, (f, h)

    if shape:
        start = _start_of_shuffling(advance, p, counts, shape)
    else:
        start = jnp.ones_like(p), jnp.sum(probabilities * g, axis=0)
    total, _ = jax.lax.fori_loop(0, num_steps, add_node, (jnp.zeros_like(p), start))
    return {"sum": total[None]}


def _start_of_shuffling(
    advance: Callable[[Array, _Moments], _Moments], p: Array, counts: Array, shape: tuple[int, ...]
) -> _Moments:
    """F(0) and H(0): the probabilities of the states, and E[m] in each."""
    none_drawn, n = (0,) * len(shape), counts.sum()
    zeros = jnp.zeros((*shape, *p.shape))

    def epoch(mean: Array) -> _Moments:
        """An epoch of steps, each from one first state: every state comes to its own step."""

        def begin(f: Array, h: Array) -> _Moments:
            return f.at[none_drawn].set(1), h.at[none_drawn].set(mean)

        def one(_: Array, moments: _Moments) -> _Moments:
            return begin(*advance(jnp.zeros_like(p), moments))

        return jax.lax.fori_loop(0, n, one, begin(zeros, zeros))

    # the moment after an epoch that began with none, over 1 − β1^n, is that of stationarity
    of_one = epoch(jnp.zeros(()))[1][tuple(counts)]
    return epoch(of_one / -jnp.expm1(n * jnp.log1p(-p)))


def _probabilities(shape: tuple[int, ...], counts: Int[Array, " r"]) -> Float[Array, "r *states 1"]:
    """For each value, the probability that it is drawn next."""
    drawn = jnp.indices(shape) if shape else 0
    left = jnp.maximum(counts.reshape(-1, *[1] * len(shape)) - drawn, 0)
    return (left / jnp.maximum(left.sum(axis=0), 1))[..., None]


def _drawn(moments: Array, axis: int) -> Array:
    """Moves each state to that with one more of a value drawn."""
    width = [(0, 0)] * moments.ndim
    width[axis] = (1, 0)
    return jnp.pad(jax.lax.slice_in_dim(moments, 0, -1, axis=axis), width)


def _next_epoch(moments: Array, counts: Array) -> Array:
    """Where all are drawn, none is."""
    return moments.at[(0,) * len(counts)].set(moments[tuple(counts)])
