"""Heat maps read off published pictures by colour: facts about them, each with its resolution."""

import csv
from importlib import resources
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Num


class PublishedMap(NamedTuple):
    """A digitised heat map; values at the ends of the colour scale are clipped."""

    beta1: Float[np.ndarray, " K"]
    beta2: Float[np.ndarray, " W"]
    values: Float[np.ndarray, "K W"]
    low: float  # of the colour scale
    high: float
    resolution: float  # of a reading, in units of the values

    @property
    def reading_error(self) -> float:
        """What a reading can be wrong by, in units of the scale."""
        return self.resolution / (self.high - self.low)

    @property
    def middle(self) -> float:
        """The value in the middle of the scale."""
        return (self.low + self.high) / 2

    def on_scale(self, values: Num[np.ndarray, "K W"]) -> Num[np.ndarray, "K W"]:
        """A map as the picture would show it; what has overflowed is at the upper end."""
        return np.clip(np.nan_to_num(values, nan=np.inf), self.low, self.high)

    def is_clipped(self) -> np.ndarray:
        """Where the value is the upper end of the scale or beyond it, of shape (K, W)."""
        return self.values >= self.high - self.resolution / 2


def counterexample_2022() -> PublishedMap:
    """The counterexample of the NeurIPS 2022 version's first figure (arXiv:2208.09632).

    Distance to the minimiser at the end, scale 0 to 70. The picture says neither the slope a, nor
    the start, the order, the initial moments or the step sizes.
    """
    return _read("counterexample.csv", low=0.0, high=70.0, resolution=0.7)


def mnist_2022() -> PublishedMap:
    """Training loss on MNIST, of the same figure; scale 0.38 to 0.55 nats.

    The picture says neither the network, the batch size, the learning rate nor the epochs.
    """
    return _read("mnist.csv", low=0.38, high=0.55, resolution=0.0017)


def _read(name: str, *, low: float, high: float, resolution: float) -> PublishedMap:
    text = resources.files(__package__).joinpath(name).read_text("utf-8")
    head, *rows = csv.reader(line for line in text.splitlines() if not line.startswith("#"))
    table = np.array(rows, float)
    return PublishedMap(table[:, 0], np.array(head[1:], float), table[:, 1:], low, high, resolution)
