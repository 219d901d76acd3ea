"""What the monitor keeps of one Adam: sums over blocks of steps, for some of its coordinates.

Adam's moments before and after a step give back the gradient that it was fed,
g = (m' − β1 m)/(1 − β1), whatever was done to it on the way, and say whether they follow the β1 and
β2 in hand: v' = β2 v + (1 − β2) g².
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from adam_transition import adam
from adam_transition.advise.adams import Settings

BLOCKS = 20
ROWS = ("gradient", "square", "cube", "first", "first_square", "step", "step_square", "second")
"""Sums over a block, per coordinate: g, g², g³; m, m² (what Adam divides); u = m/(√v + ε), u²; v.
Moments are corrected for bias if Adam does so."""
_LARGE = 1e15  # stands for an infinite step: squares of it and their sums are finite
_CHANGED = 1.5  # a factor of 1 − β that begins a new record
_STALLED = 0.01  # v that should move by more than this part of (1 − β2) v, and does not


class Watch(NamedTuple):
    """A record of one Adam; k watched coordinates."""

    moments: Float[Array, "2 k"]  # m and v as last seen
    blocks: Float[Array, "blocks rows k"]  # the last `BLOCKS`, a ring
    hyper: adam.Hyperparameters  # as last seen, float32
    reference: Float[Array, "2"]  # 1 − β1, 1 − β2 when the record began
    stalled: Float[Array, "2"]  # coordinates whose v stood still and should not; all; with decay
    count: Int[Array, ""]  # of Adam's state, as last seen
    steps: Int[Array, ""]  # of Adam, seen
    record: Int[Array, ""]  # steps in the blocks since the start or a change of β
    skipped: Int[Array, ""]  # steps with a number that is not finite
    contradicted: Int[Array, ""]  # steps in which the moments did not follow the β in hand
    overruled: Int[Array, ""]  # steps in which an argument differed from the optimiser's own
    share: Float[Array, ""]  # of the parameters that this Adam moves


def start(first: Float[Array, " k"], second: Array, count: Array, share: float) -> Watch:
    """An empty record."""
    return Watch(
        jnp.stack([first, second]),
        jnp.zeros((BLOCKS, len(ROWS), *first.shape), jnp.float32),
        adam.Hyperparameters(*(jnp.zeros((), jnp.float32) for _ in range(4))),
        jnp.ones(2, jnp.float32),
        jnp.zeros(2, jnp.float32),
        jnp.asarray(count, jnp.int32),
        *(jnp.zeros((), jnp.int32) for _ in range(5)),
        jnp.asarray(share, jnp.float32),
    )


def size(tree: PyTree) -> int:
    """How many real numbers a tree holds."""
    return sum(int(np.prod(leaf.shape)) for leaf in _real_leaves(tree))


def pick(tree: PyTree, num_coordinates: int, seed: int) -> Float[Array, " k"]:
    """Some of a tree's real numbers, in float32: the same places for the same shapes."""
    parts = [
        _at(leaf, index).astype(jnp.float32)
        for leaf, index in _places(_real_leaves(tree), num_coordinates, seed)
    ]
    return jnp.concatenate(parts) if parts else jnp.zeros(0, jnp.float32)


def rounding(
    first: PyTree, second: PyTree, num_coordinates: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Relative spacing of the numbers that `pick` takes from m and from v; the least v > 0."""
    leaves = _real_leaves(first), _real_leaves(second)
    spacing = []
    for numbers, name in ((0, "eps"), (1, "eps"), (1, "smallest_normal")):
        parts = [
            np.full(len(index[0]) if index else 1, getattr(jnp.finfo(leaf.dtype), name), np.float32)
            for leaf, index in _places(leaves[numbers], num_coordinates, seed)
        ]
        spacing.append(np.concatenate([np.zeros(0, np.float32), *parts]))
    return spacing[0], spacing[1], spacing[2]


def _real_leaves(tree: PyTree) -> list[Array]:
    """The leaves that Adam's diagnostics understand; masks and placeholders have none."""
    return [
        leaf
        for leaf in jax.tree.leaves(tree)
        if hasattr(leaf, "shape")
        and np.prod(leaf.shape)
        and jnp.issubdtype(leaf.dtype, jnp.floating)
    ]


def _places(
    leaves: list[Array], num_coordinates: int, seed: int
) -> list[tuple[Array, tuple[np.ndarray, ...]]]:
    """The leaves that are looked at, each with an index along every axis."""
    sizes = [int(np.prod(leaf.shape)) for leaf in leaves]
    count = min(num_coordinates, sum(sizes))
    places = np.sort(np.random.default_rng(seed).choice(sum(sizes), count, replace=False))
    stops = np.cumsum(sizes)
    found = []
    for leaf, many, stop in zip(leaves, sizes, stops, strict=True):
        inside = places[(places >= stop - many) & (places < stop)] - (stop - many)
        if inside.size:
            found.append((leaf, np.unravel_index(inside, leaf.shape) if leaf.ndim else ()))
    return found


def _at(leaf: Array, index: tuple[np.ndarray, ...]) -> Float[Array, " k"]:
    """Numbers of a leaf; those of one that is sharded over explicit axes, on every device."""
    leaf = jnp.asarray(leaf)
    sharding = jax.typeof(leaf).sharding
    whole = None
    if sharding.mesh.are_all_axes_explicit or any(
        kind == jax.sharding.AxisType.Explicit for kind in sharding.mesh.axis_types
    ):
        whole = jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec(None))
    if not index:
        return leaf.reshape(1)
    return leaf.at[index].get(out_sharding=whole, mode="promise_in_bounds", unique_indices=True)


def observe(
    watch: Watch,
    first: Float[Array, " k"],
    second: Float[Array, " k"],
    count: Int[Array, ""],
    settings: Settings,
    *,
    rounding: tuple[np.ndarray, np.ndarray, np.ndarray],
    block: int,
    overruled: Bool[Array, ""] | bool = False,
    dropped: Bool[Array, ""] | bool = False,
) -> Watch:
    """The record after a call of the optimiser; the same if Adam has taken no step in it.

    Args:
      watch: before it.
      first: m after it.
      second: v after it.
      count: Adam's own, after it.
      settings: β1, β2, ε of this step.
      rounding: from `rounding`.
      block: steps in a block.
      overruled: whether an argument differs from the settings.
      dropped: whether a gradient was kept from Adam in this call.
    """
    p, q, epsilon, epsilon_root = (jnp.asarray(one, jnp.float32) for one in settings.hyper)
    m, v = watch.moments
    stepped = count != watch.count
    g = (first - (1 - p) * m) / p
    follows, stalled, moving = _follows(watch.moments, first, second, g, (p, q), rounding)
    finite = jnp.isfinite(first) & jnp.isfinite(second)
    lost = stepped & jnp.any(~finite & jnp.isfinite(m) & jnp.isfinite(v))
    counted = stepped & follows

    before = watch.reference
    now = jnp.stack([p, q])
    changed = jnp.any((now > _CHANGED * before) | (before > _CHANGED * now)) | (watch.steps == 0)
    record = jnp.where(counted & changed, 0, watch.record)
    slot, place = (record // block) % BLOCKS, record % block
    rows = _rows(first, second, g, count, settings, (p, q, epsilon, epsilon_root))
    held = jax.lax.dynamic_index_in_dim(watch.blocks, slot, keepdims=False)
    held = jnp.where(counted, jnp.where(place == 0, 0, held) + rows, held)
    decay = 1 - 1 / (block * BLOCKS)
    one = lambda flag: flag.astype(jnp.int32)  # noqa: E731
    return Watch(
        jnp.where(stepped, jnp.stack([first, second]), watch.moments),
        jax.lax.dynamic_update_index_in_dim(watch.blocks, held, slot, 0),
        adam.Hyperparameters(p, q, epsilon, epsilon_root),
        jnp.where(counted & changed, now, before),
        jnp.where(stepped, decay * watch.stalled + jnp.stack([stalled, moving]), watch.stalled),
        count.astype(jnp.int32),
        watch.steps + one(stepped),
        record + one(counted),
        watch.skipped + one(lost | dropped),
        watch.contradicted + one(stepped & ~follows),
        watch.overruled + one(stepped & overruled),
        watch.share,
    )


def _follows(
    moments: Float[Array, "2 k"],
    first: Float[Array, " k"],
    second: Float[Array, " k"],
    g: Float[Array, " k"],
    one_minus_beta: tuple[Array, Array],
    rounding: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> tuple[Bool[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """Whether the moments follow β1 and β2; coordinates whose v stalls; those whose v should move.

    The error of g is that of m over 1 − β1. A step contradicts when most coordinates that moved
    are off by more than rounding explains.
    """
    (m, v), (p, q) = moments, one_minus_beta
    of_g = 4 * rounding[0] * (jnp.abs(m) + jnp.abs(first)) / p
    push = q * (g * g - v)
    least = jnp.finfo(jnp.float32).tiny
    allowed = 8 * rounding[1] * (v + second) + q * (2 * jnp.abs(g) + of_g) * of_g + rounding[2]
    finite = jnp.isfinite(second) & jnp.isfinite(push)
    off = finite & (jnp.abs(second - v - push) > allowed + least)
    moved = finite & ((second != v) | off)
    vanished = (second == 0) & (first != 0)  # squares below the least number
    should = finite & ((jnp.abs(push) > _STALLED * q * v + least) | vanished)
    return (
        2 * jnp.sum(off) <= jnp.sum(moved),
        jnp.sum(should & (second == v)).astype(jnp.float32),
        jnp.sum(should).astype(jnp.float32),
    )


def _rows(
    first: Float[Array, " k"],
    second: Float[Array, " k"],
    g: Float[Array, " k"],
    count: Int[Array, ""],
    settings: Settings,
    hyper: tuple[Array, Array, Array, Array],
) -> Float[Array, "rows k"]:
    p, q, epsilon, epsilon_root = hyper
    step = jnp.maximum(count, 1)
    if settings.bias_correction:
        divided = first / adam.one_minus_power(p, step)
        if settings.nesterov:
            ahead = (1 - p) * first / adam.one_minus_power(p, step + 1)
            divided = ahead + p * g / adam.one_minus_power(p, step)
        second = second / adam.one_minus_power(q, step)
    else:
        divided = first
    denominator = jnp.sqrt(second + epsilon_root) + epsilon
    positive = denominator > 0
    update = jnp.where(
        positive, divided / jnp.where(positive, denominator, 1), jnp.sign(divided) * _LARGE
    )
    update = jnp.clip(update, -_LARGE, _LARGE)
    return jnp.stack(
        [g, g * g, g * g * g, divided, divided * divided, update, update * update, second]
    )
