"""The data of the class-threshold study: what is proved, and the hardest tables."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import xarray as xr

from adam_transition.sampling import Sampling
from adam_transition.sweeps.pieces import Pieces
from adam_transition.sweeps.study import variable
from adam_transition.theory.class_threshold import hardest, sufficient

DIMS = "sampling", "beta1", "n", "ratio"

DEFAULT_RATIO = tuple(np.geomspace(1.25, 160, 15).round(3).tolist())
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
    """`hardest` and `num_positive` over (sampling, beta1, n, ratio), and the table's `slopes`.

    `hardest` is 1 − β2 below which the hardest table of two slopes returns, 1 if it returns
    everywhere; `num_positive` is the number of its positive slopes.
    """
    lengths = len(spec.samplings), len(spec.beta1), len(spec.num_components)
    shape = *lengths, len(spec.d1_of(spec.num_components[0]))
    jobs = {where: partial(_hardest, spec, where) for where in np.ndindex(*shape)}
    values = np.empty((2, *shape))
    for (s, b, j, k), pair in pieces.keep_all(jobs).items():
        values[:, s, b, j, k] = pair
    return {
        "hardest": variable(DIMS, values[0], "1 − β2* of the hardest table of two slopes"),
        "num_positive": variable(DIMS, values[1], "its number of positive slopes"),
    }


def _hardest(spec: ClassThresholdSpec, where: tuple[int, ...]) -> list[np.ndarray]:
    s, b, j, k = where
    n = spec.num_components[j]
    table = hardest(n, spec.d1_of(n)[k], spec.samplings[s], spec.beta1[b])
    return [np.array(table.one_minus_beta2), np.array(float(table.num_positive))]
