"""The data of the concentration study: the lemma's band of 1/√v, and the update's direction.

The lemma bounds the distance of v_k from E_k v_k, its expectation given everything before the draw
of step k. For comparison there is the mean over all histories: the lemma does not cover it and
would be false for it, as Var v = (1−β2)/(1+β2)·Var g² makes √(E v/v) spread like √(1−β2), while
C_lower and C_upper are 1 ± O(1−β2).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np
import xarray as xr
from jaxtyping import Array, Float, Key

from adam_transition import adam
from adam_transition.problems import counterexample_table
from adam_transition.sampling import Sampling, stream_key
from adam_transition.sweeps.pieces import Pieces
from adam_transition.sweeps.study import variable
from adam_transition.theory.boundary import divergence_intervals
from adam_transition.theory.concentration import (
    Draws,
    concentration,
    largest_informative,
    second_moments,
)
from adam_transition.theory.stationary_drift import stationary_drift

QUANTILES = (0.001, 0.05, 0.5, 0.95, 0.999)
TABLES = ("counterexample", "normal")
READINGS = ("given the past", "over all histories")
"""Readings of the mean in the lemma's band: the lemma's own, and a wrong one."""
LEMMA_DIMS = ("n", "relative_delta", "relative_one_minus_beta2")
"""Dimensions of the lemma's bounds."""
DIMENSION = 40
"""Coordinates of the table in many dimensions."""

_SMALLEST_Q = 1e-3  # of the direction


@dataclass(frozen=True)
class ConcentrationSpec:
    """What to compute."""

    num_components: tuple[int, ...]
    relative_delta: tuple[float, ...]  # δ in units of 1/(4n)
    relative_q: tuple[float, ...]  # 1 − β2 over the largest at which the bound is non-trivial
    samplings: tuple[Sampling, ...]  # of the direction
    num_samples: int  # draws of v for each point
    beta1: float  # of the direction
    num_beta2: int
    seed: int

    def directions(self) -> adam.Hyperparameters:
        """β1 and the values of β2 at which the direction is computed."""
        q = 1 - _beta2_of_directions(self)
        return adam.Hyperparameters(np.full_like(q, 1 - self.beta1), q)


def _beta2_of_directions(spec: ConcentrationSpec) -> Float[np.ndarray, " B2"]:
    """Evenly spaced in log(1 − β2), towards 1."""
    return 1 - np.geomspace(1, _SMALLEST_Q, spec.num_beta2)


def table_of(kind: str, n: int, key: Key[Array, ""]) -> Float[np.ndarray, "n d"]:
    """The counterexample's slopes, or eight columns of standard normal gradients."""
    if kind == "counterexample":
        return counterexample_table(n)
    return np.asarray(jax.random.normal(key, (n, 8)), np.float64)


def many_dimensions(n: int, key: Key[Array, ""]) -> Float[np.ndarray, "n d"]:
    """Counterexamples in `DIMENSION` coordinates, a from 1e-3 to 1, hits at random components.

    The sum over components is ±1 in every coordinate, so each has a boundary β2* of its own.
    """
    hits, signs = jax.random.split(key)
    a = np.geomspace(1e-3, 1, DIMENSION)
    place = np.asarray(jax.random.randint(hits, (DIMENSION,), 0, n))
    sign = np.asarray(jax.random.rademacher(signs, (DIMENSION,)))
    table = np.broadcast_to(-a, (n, DIMENSION)).copy()
    table[place, np.arange(DIMENSION)] = 1 + (n - 1) * a
    return table * sign


def coordinates(spec: ConcentrationSpec) -> xr.Dataset:
    """The labelled axes."""
    axes = {
        "n": (spec.num_components, "n"),
        "relative_delta": (spec.relative_delta, "δ·4n"),
        "relative_one_minus_beta2": (
            spec.relative_q,
            "1 − β2 over the largest at which the lemma's bound is non-trivial",
        ),
        "direction_beta2": (_beta2_of_directions(spec), "β2"),
    }
    return xr.Dataset(
        coords={
            "reading": ("reading", np.array(READINGS, dtype=object)),
            "table": ("table", np.array(TABLES, dtype=object)),
            "sampling": ("sampling", np.array(spec.samplings, dtype=object)),
            "quantile_level": ("quantile_level", np.array(QUANTILES)),
            **{
                name: (name, np.array(values), {"long_name": label, "units": "1"})
                for name, (values, label) in axes.items()
            },
        },
        attrs={"num_samples": spec.num_samples},
    )


def band(spec: ConcentrationSpec, pieces: Pieces) -> Mapping[str, xr.Variable]:
    """The lemma's band, and how draws of v compare with it.

    - `failures`, `failures_stderr` over (reading, table, n, relative_delta,
      relative_one_minus_beta2): the share of draws with a coordinate outside the band.
    - `quantile`, with a quantile axis, and `spread`: quantiles and standard deviation of √(E v/v)
      for the coordinate that spreads most; `spread_law`: the spread to first order.
    - `one_minus_beta2`, `probability`, `lower`, `upper` over (n, relative_delta,
      relative_one_minus_beta2): the lemma's probability and bounds.
    """
    shape = (len(spec.num_components), len(spec.relative_delta), len(spec.relative_q))
    lemma = np.empty((4, *shape))
    failures = np.empty((2, len(READINGS), len(TABLES), *shape))
    spread = np.empty((2, len(TABLES), *shape))
    quantiles = np.empty((len(TABLES), *shape, len(QUANTILES)))
    key = stream_key(spec.seed)
    for i, j, k in np.ndindex(shape):
        n = spec.num_components[i]
        delta = spec.relative_delta[j] / (4 * n)
        q = spec.relative_q[k] * largest_informative(n, delta)
        allowed = concentration(n, q, delta)
        lemma[:, i, j, k] = q, allowed.probability, allowed.lower, allowed.upper
        for t, kind in enumerate(TABLES):
            cell_key = jax.random.fold_in(key, np.ravel_multi_index((t, i, j, k), (2, *shape)))
            table = table_of(kind, n, jax.random.fold_in(key, n))
            draw = partial(second_moments, table, q, cell_key, num_samples=spec.num_samples)
            draws = Draws(*pieces.keep(f"draws {t} {i} {j} {k}", draw))
            mean = (table**2).mean(axis=0)
            ratio = np.sqrt(mean / draws.before)
            given = np.sqrt(((1 - q) * draws.before + q * mean) / draws.after)
            for r, values in enumerate((given, ratio)):
                outside = (values < allowed.lower) | (values > allowed.upper)
                shares = outside.any(axis=2).mean(axis=0)  # of a chain
                stderr = shares.std(ddof=1) / np.sqrt(len(shares))
                failures[:, r, t, i, j, k] = shares.mean(), stderr
            law = np.sqrt(q / (2 - q) * (table**2).var(axis=0)) / (2 * mean)
            worst = int(law.argmax())
            spread[:, t, i, j, k] = ratio[..., worst].std(), law[worst]
            quantiles[t, i, j, k] = np.quantile(ratio[..., worst], QUANTILES)
    tables, readings = ("table", *LEMMA_DIMS), ("reading", "table", *LEMMA_DIMS)
    return {
        "one_minus_beta2": variable(LEMMA_DIMS, lemma[0], "1 − β2"),
        "probability": variable(LEMMA_DIMS, lemma[1], "the lemma's probability"),
        "lower": variable(LEMMA_DIMS, lemma[2], "C_lower"),
        "upper": variable(LEMMA_DIMS, lemma[3], "C_upper"),
        "quantile": variable((*tables, "quantile_level"), quantiles, "quantiles of √(E v/v)"),
        "spread": variable(tables, spread[0], "standard deviation of √(E v/v)"),
        "spread_law": variable(tables, spread[1], "½ √(Var v)/E v"),
        "failures_stderr": variable(readings, failures[1], "standard error of the share"),
        "failures": variable(readings, failures[0], "share of draws outside the band"),
    }


def direction_of_one(spec: ConcentrationSpec) -> Mapping[str, xr.Variable]:
    """`push` over (sampling, n, direction_beta2) on the counterexample, and `beta2_star`.

    The push is E[m/√v] in units of its limit as β2 → 1.
    """
    shape = (len(spec.samplings), len(spec.num_components))
    push = np.empty((2, *shape, spec.num_beta2))
    star = np.full((2, *shape), np.nan)
    key = stream_key(spec.seed)
    for i, j in np.ndindex(shape):
        n, sampling = spec.num_components[j], spec.samplings[i]
        table = counterexample_table(n)
        limit = table.mean() / np.sqrt((table**2).mean())
        found = stationary_drift(table, spec.directions(), sampling, key=key)
        push[:, i, j] = -found.drift[:, 0] / (n * limit), found.stderr[:, 0] / (n * limit)
        [intervals] = divergence_intervals(table, [spec.beta1], sampling, key=key)
        if intervals:
            star[:, i, j] = intervals[-1].high.beta2, intervals[-1].high.stderr
    cells, dims = ("sampling", "n"), ("sampling", "n", "direction_beta2")
    return {
        "beta2_star": variable(cells, star[0], "boundary β2*"),
        "beta2_star_stderr": variable(cells, star[1], "standard error of β2*"),
        "push_stderr": variable(dims, push[1], "standard error"),
        "push": variable(dims, push[0], "E[m/√v] over its limit as β2 → 1"),
    }


def direction_of_many(spec: ConcentrationSpec) -> Mapping[str, xr.Variable]:
    """`cosine`, `cosine_to_limit`, `wrong_share` over (sampling, direction_beta2).

    Computed on the table of `many_dimensions`.
    """
    n = max(spec.num_components)
    key = stream_key(spec.seed)
    table = many_dimensions(n, key)
    gradient = table.mean(axis=0)
    values = np.empty((3, len(spec.samplings), spec.num_beta2))
    for i, sampling in enumerate(spec.samplings):
        found = stationary_drift(table, spec.directions(), sampling, key=key, num_samples=20_000)
        direction = -found.drift
        norms = np.linalg.norm(direction, axis=1)
        limit = gradient / np.sqrt((table**2).mean(axis=0))
        values[0, i] = direction @ gradient / (norms * np.linalg.norm(gradient))
        values[1, i] = direction @ limit / (norms * np.linalg.norm(limit))
        values[2, i] = (direction * gradient < 0).mean(axis=1)
    dims = ("sampling", "direction_beta2")
    to_limit, wrong = "cosine of E[m/√v] and its limit as β2 → 1", "coordinates with the wrong sign"
    return {
        "cosine": variable(dims, values[0], "cosine of E[m/√v] and ∇f"),
        "cosine_to_limit": variable(dims, values[1], to_limit),
        "wrong_share": variable(dims, values[2], f"share of {wrong}"),
    }
