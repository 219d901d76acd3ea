"""The data of the class-threshold study: what is proved, and the hardest tables."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import xarray as xr

from adam_transition.sampling import Sampling
from adam_transition.sweeps.pieces import Pieces
from adam_transition.sweeps.study import variable
from adam_transition.theory.class_threshold import hardest, hardest_of_two, sufficient

DIMS = "sampling", "beta1", "n", "ratio"

MOST_SHUFFLED = 20
"""Largest n at which tables are searched under random shuffling, whose drift is costly."""

DEFAULT_RATIO = tuple(np.geomspace(1.25, 400, 16).round(3).tolist())
"""Default values of D1/n."""


@dataclass(frozen=True)
class ClassThresholdSpec:
    """What to compute."""

    num_components: tuple[int, ...]
    d1: tuple[float, ...]  # empty: `DEFAULT_RATIO` times n
    samplings: tuple[Sampling, ...]
    beta1: tuple[float, ...]

    def d1_of(self, n: int) -> tuple[float, ...]:
        """The values of D1 for a number of components."""
        return self.d1 or tuple(ratio * n for ratio in DEFAULT_RATIO)


def coordinates(spec: ClassThresholdSpec) -> xr.Dataset:
    """The labelled axes; `ratio` counts the values of D1, which `d1` holds for each n."""
    d1 = np.array([spec.d1_of(n) for n in spec.num_components])
    return xr.Dataset(
        coords={
            "sampling": ("sampling", np.array(spec.samplings, dtype=object)),
            "beta1": ("beta1", np.array(spec.beta1), {"long_name": "β1", "units": "1"}),
            "n": ("n", np.array(spec.num_components), {"long_name": "n", "units": "1"}),
            "d1": (("n", "ratio"), d1, {"long_name": "D1", "units": "1"}),
        }
    )


def proved(spec: ClassThresholdSpec) -> Mapping[str, xr.Variable]:
    """`sufficient` over (sampling, beta1, n, ratio): 1 − β2 that is proved to be enough, or 0."""
    values = np.array(
        [
            [
                [[sufficient(n, d1, s, b) for d1 in spec.d1_of(n)] for n in spec.num_components]
                for b in spec.beta1
            ]
            for s in spec.samplings
        ]
    )
    return {"sufficient": variable(DIMS, values, "1 − β2 proved to be enough; 0: none")}


def found(spec: ClassThresholdSpec, pieces: Pieces) -> Mapping[str, xr.Variable]:
    """`hardest`, `of_two`, `num_positive` over (sampling, beta1, n, ratio), and `slopes`.

    `hardest` is 1 − β2 below which the hardest table returns, 1 if it returns everywhere;
    `of_two` is that of the hardest table of two slopes; `num_positive` is the number of positive
    slopes of the hardest, and `slopes` are they. NaN where not searched.
    """
    lengths = len(spec.samplings), len(spec.beta1), len(spec.num_components)
    shape = *lengths, len(spec.d1_of(spec.num_components[0]))
    jobs = {where: partial(_hardest, spec, where) for where in np.ndindex(*shape)}
    values = np.empty((3, *shape))
    slopes = np.full((*shape, max(spec.num_components)), np.nan)
    for where, (numbers, table) in pieces.keep_all(jobs).items():
        values[(slice(None), *where)] = numbers
        slopes[where][: len(table)] = table
    return {
        "hardest": variable(DIMS, values[0], "1 − β2* of the hardest table found"),
        "of_two": variable(DIMS, values[1], "1 − β2* of the hardest table of two slopes"),
        "num_positive": variable(DIMS, values[2], "number of positive slopes of the hardest"),
        "slopes": variable((*DIMS, "component"), slopes, "slopes of the hardest, sum 1"),
    }


def _hardest(spec: ClassThresholdSpec, where: tuple[int, ...]) -> list[np.ndarray]:
    s, b, j, k = where
    n, sampling, beta1 = spec.num_components[j], spec.samplings[s], spec.beta1[b]
    d1 = spec.d1_of(n)[k]
    if sampling == "random_shuffling" and n > MOST_SHUFFLED:
        return [np.full(3, np.nan), np.full(n, np.nan)]
    table = hardest(n, d1, sampling, beta1)
    two = hardest_of_two(n, d1, sampling, beta1) if sampling == "cyclic" else table
    numbers = table.one_minus_beta2, two.one_minus_beta2, float(table.num_positive)
    return [np.array(numbers), table.slopes]
