"""Packs lanes of different lengths into the tiles of a sweep and sums a program along them."""

from collections.abc import Mapping
from typing import TypeVar

import jax
import numpy as np
from jaxtyping import Float, Int

from adam_transition.sweeps import sweep

_NARROW = 8  # lanes per tile, if lanes are few or their lengths differ: one vector
_MOST_LANES = 4096  # per tile
_NUMBERS_PER_TILE = 1 << 15  # of state; twice as many fit into a second-level cache

# ns, measured on two cores with wide vectors; they decide the width of tiles and never the results
_STEP, _LANE, _NUMBER = 600, 15, 5  # a step of a tile; more for each lane; for each number in it
_TILE = 1e6  # to start one
_COMPILATION = 1e8  # most calls find the program in the cache

T = TypeVar("T", bound=tuple)


def sum_lanes(
    program: sweep.Program,
    shared: Mapping[str, np.ndarray],
    lanes: T,
    num_steps: Int[np.ndarray, " K"],
    numbers_per_lane: int,
) -> tuple[Float[np.ndarray, " K"], Float[np.ndarray, " K"]]:
    """Runs a program along K lanes; returns the sum along each lane and its last term.

    Args:
      program: takes a dict of arrays, `shared` and the tile's largest `num_steps`, with a leading
        axis of length 1, and a tile of lanes; returns `sums` and `last`.
      shared: arrays that all lanes share.
      lanes: a NamedTuple of arrays with leading axis K.
      num_steps: length of each lane.
      numbers_per_lane: size of the state carried along a lane.
    """
    most = min(_MOST_LANES, max(1, _NUMBERS_PER_TILE // numbers_per_lane))
    results = np.empty((2, len(num_steps)))
    # lanes of a tile have similar lengths; the last tile is padded with copies of its last lane
    longest_first = np.argsort(-num_steps, kind="stable")
    for width, order in _groups(longest_first, num_steps, most, numbers_per_lane):
        num_tiles = -(-len(order) // width)
        tiles = order[np.minimum(np.arange(num_tiles * width), len(order) - 1)].reshape(-1, width)
        sums = np.empty((2, *tiles.shape))

        def write(
            block: sweep.Block, values: dict[str, np.ndarray], sums: np.ndarray = sums
        ) -> None:
            # summed here, because inside the program the result may depend on the number of cores
            sums[:, block.rows, block.columns] = values["sums"].sum(axis=-1), values["last"]

        rows = {
            name: np.broadcast_to(value, (num_tiles, *value.shape))
            for name, value in shared.items()
        }
        sweep.run(
            program,
            {**rows, "num_steps": num_steps[tiles].max(axis=1)},
            type(lanes)(*(values[tiles] for values in lanes)),
            tile=(1, width),
            chunk=(1, width),
            write=write,
            devices=_host(),
        )
        results[:, order] = sums.reshape(2, -1)[:, : len(order)]
    return results[0], results[1]


def _groups(
    order: Int[np.ndarray, " K"], num_steps: Int[np.ndarray, " K"], most: int, numbers: int
) -> list[tuple[int, Int[np.ndarray, " _"]]]:
    """Widths of tiles, and the lanes of each: the cheapest of narrow tiles, wide ones and both.

    A tile takes as many steps as its longest lane, and every width is a program to compile.
    """
    narrow = min(_NARROW, most)

    def cost(width: int, lanes: np.ndarray) -> float:
        per_step = _STEP + width * (_LANE + _NUMBER * numbers)
        longest = num_steps[lanes[::width]]
        return float(longest.sum()) * per_step + len(longest) * _TILE

    pieces = [order[start : start + most] for start in range(0, len(order), most)]
    costs = np.array([[cost(width, piece) for piece in pieces] for width in (narrow, most)])
    choices = np.stack(
        [np.zeros(len(pieces), int), np.ones(len(pieces), int), costs.argmin(axis=0)]
    )
    totals = np.take_along_axis(costs.T, choices.T, axis=1).sum(axis=0)
    best = choices[np.argmin(totals + np.array([0, 0, _COMPILATION]))]
    return [
        (width, np.concatenate([piece for piece, choice in zip(pieces, best) if choice == which]))
        for which, width in enumerate((narrow, most))
        if (best == which).any()
    ]


def _host() -> list[jax.Device] | None:
    """One CPU device: a loop with little work per step would wait for a GPU at every step."""
    try:
        return jax.local_devices(backend="cpu")[:1]
    except RuntimeError:  # JAX_PLATFORMS excludes the CPU
        return None
