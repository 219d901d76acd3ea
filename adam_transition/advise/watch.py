"""The monitor's record of one Adam: sums over blocks of steps, for some of its coordinates.

Adam's moments before and after a step determine the gradient that it received,
g = (m' − β1 m)/(1 − β1), whatever transformed it before, and show whether they follow the assumed
β1 and β2: v' = β2 v + (1 − β2) g².
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from adam_transition import adam
from adam_transition.advise.find_adam import Settings

BLOCKS = 16
ROWS = ("gradient", "square", "cube", "fourth", "first", "step", "step_square", "second")
"""Sums over a block, per coordinate: g, g², g³, g⁴; m; u = m/(√v + ε), u²; v. Moments are corrected
for bias if Adam corrects them; m is the numerator of Adam's step, also with Nesterov momentum."""
_LARGE = 1e15  # represents an infinite step: its squares and their sums are finite
_CHANGED = 1.5  # a change of 1 − β by this factor begins a new record
_STALLED = 0.01  # v stalls if it should move by more than this fraction of (1 − β2) v but does not


class Counts(NamedTuple):
    """The integers of a record."""

    adam: Array  # the count in Adam's state, as last seen
    steps: Array  # number of Adam's steps observed
    record: Array  # steps in the blocks, since the start or a change of β
    skipped: Array  # steps with a number that is not finite
    contradicted: Array  # steps in which the moments did not follow the assumed β
    overruled: Array  # steps in which an argument differed from the optimiser's own value
    block: Array  # steps in a block


class Numbers(NamedTuple):
    """The real numbers of a record."""

    one_minus_beta1: Array  # as last seen
    one_minus_beta2: Array
    epsilon: Array
    epsilon_root: Array
    began_beta1: Array  # 1 − β1 and 1 − β2 when the record began
    began_beta2: Array
    stalled: Array  # decaying count of coordinates whose v stood still but should have moved
    moving: Array  # decaying count of coordinates whose v should have moved
    share: Array  # share of the parameters that this Adam moves


class Watch(NamedTuple):
    """A record of one Adam, with k watched coordinates.

    It consists of few arrays, as each costs time in every step.
    """

    moments: Float[Array, "3 k"]  # m and v as last seen; the largest g² so far
    blocks: Float[Array, "blocks rows k"]  # the last `BLOCKS`, a ring
    counts: Int[Array, " counts"]  # of `Counts`
    numbers: Float[Array, " numbers"]  # of `Numbers`


def start(
    first: Float[Array, " k"], second: Array, count: Array, *, block: int, share: float
) -> Watch:
    """An empty record.

    Args:
      first: m of the watched coordinates.
      second: v of the watched coordinates.
      count: the count in Adam's state.
      block: steps in a block.
      share: share of the parameters that this Adam moves.
    """
    counts = jnp.zeros(len(Counts._fields), jnp.int32).at[0].set(count).at[-1].set(block)
    return Watch(
        jnp.stack([first, second, jnp.zeros_like(first)]),
        jnp.zeros((BLOCKS, len(ROWS), *first.shape), jnp.float32),
        counts,
        jnp.zeros(len(Numbers._fields), jnp.float32).at[-1].set(share),
    )


def size(tree: PyTree) -> int:
    """Number of real numbers in a tree."""
    return sum(int(np.prod(leaf.shape)) for leaf in _real_leaves(tree))


def pick(tree: PyTree, num_coordinates: int, seed: int) -> Float[Array, " k"]:
    """Some of a tree's real numbers, in float32; the same positions for the same shapes."""
    parts = [
        _at(leaf, index).astype(jnp.float32)
        for leaf, index in _places(_real_leaves(tree), num_coordinates, seed)
    ]
    return jnp.concatenate(parts) if parts else jnp.zeros(0, jnp.float32)


def rounding(
    first: PyTree, second: PyTree, num_coordinates: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Relative spacing of the numbers that `pick` takes from m and v; the smallest normal v > 0."""
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
    """The floating-point arrays of a tree; masks and placeholders contribute none."""
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
    """The leaves with watched coordinates, each with indices along every axis."""
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
    """Numbers of a leaf, replicated to every device if the leaf is sharded over explicit axes."""
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
    """The record after a call of the optimiser; its sums change only if Adam has taken a step.

    Args:
      watch: the record before the call.
      first: m after the call.
      second: v after the call.
      count: Adam's own count after the call.
      settings: β1, β2, ε of this step.
      rounding: from `rounding`.
      block: steps in a block.
      overruled: whether an argument differs from the settings.
      dropped: whether a gradient was withheld from Adam in this call.
    """
    hyper = [jnp.asarray(one, jnp.float32) for one in settings.hyper]
    p, q = hyper[:2]
    before, numbers = Counts(*watch.counts), Numbers(*watch.numbers)
    m, _, largest = watch.moments
    stepped = count != before.adam
    g = (first - (1 - p) * m) / p
    off, moved, stood, should, lost = _compare(
        watch.moments[:2], first, second, g, (p, q), rounding
    )
    # a step contradicts β if most coordinates that moved are off by more than rounding explains
    counted = stepped & (2 * off <= moved)

    began = numbers.began_beta1, numbers.began_beta2
    changed = before.steps == 0
    for now, then in zip((p, q), began, strict=True):
        changed |= (now > _CHANGED * then) | (then > _CHANGED * now)
    record = jnp.where(counted & changed, 0, before.record)
    slot, place = (record // block) % BLOCKS, record % block
    held = jax.lax.dynamic_index_in_dim(watch.blocks, slot, keepdims=False)
    rows = _rows(first, second, g, count, settings, hyper)
    held = jnp.where(counted, jnp.where(place == 0, 0, held) + rows, held)
    # contradicted steps yield no gradient; a NaN fails the comparison
    largest = jnp.where(counted & (rows[1] > largest), rows[1], largest)
    decay = jnp.where(stepped, 1 - 1 / (block * BLOCKS), 1)
    return Watch(
        jnp.where(stepped, jnp.stack([first, second, largest]), watch.moments),
        jax.lax.dynamic_update_index_in_dim(watch.blocks, held, slot, 0),
        jnp.stack(
            Counts(
                count.astype(jnp.int32),
                before.steps + stepped,
                record + counted,
                before.skipped + ((stepped & (lost > 0)) | dropped),
                before.contradicted + (stepped & ~counted),
                before.overruled + (stepped & overruled),
                before.block,
            )
        ),
        jnp.stack(
            Numbers(
                p,
                q,
                hyper[2],
                hyper[3],
                jnp.where(counted & changed, p, began[0]),
                jnp.where(counted & changed, q, began[1]),
                decay * numbers.stalled + jnp.where(stepped, stood, 0),
                decay * numbers.moving + jnp.where(stepped, should, 0),
                numbers.share,
            )
        ),
    )


def _compare(
    moments: Float[Array, "2 k"],
    first: Float[Array, " k"],
    second: Float[Array, " k"],
    g: Float[Array, " k"],
    one_minus_beta: tuple[Array, Array],
    rounding: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> Float[Array, "5"]:
    """Counts coordinates that contradict β1 and β2; moved; stall; should move; became NaN.

    The error of g is that of m over 1 − β1.
    """
    (m, v), (p, q) = moments, one_minus_beta
    of_g = 4 * rounding[0] * (jnp.abs(m) + jnp.abs(first)) / p
    push = q * (g * g - v)
    least = rounding[2] + jnp.finfo(jnp.float32).tiny
    allowed = 8 * rounding[1] * (v + second) + q * (2 * jnp.abs(g) + of_g) * of_g + least
    finite = jnp.isfinite(second) & jnp.isfinite(push)
    off = finite & (jnp.abs(second - v - push) > allowed)
    vanished = (second == 0) & (first != 0)  # squares underflow
    should = finite & ((jnp.abs(push) > _STALLED * q * v + least) | vanished)
    lost = ~jnp.isfinite(first + second) & jnp.isfinite(m + v)
    flags = [off, finite & ((second != v) | off), should & (second == v), should, lost]
    return jnp.sum(jnp.stack(flags).astype(jnp.float32), axis=1)


def _rows(
    first: Float[Array, " k"],
    second: Float[Array, " k"],
    g: Float[Array, " k"],
    count: Int[Array, ""],
    settings: Settings,
    hyper: list[Array],
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
    return jnp.stack([g, g * g, g * g * g, (g * g) ** 2, divided, update, update * update, second])
