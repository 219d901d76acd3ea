"""The data of the divergence study: regions, areas, trajectories, and the smallest D1.

Two members of the class represent the divergence theorem: the paper's, a = 1/(n−1)², and the member
with D1 = 2n² that `problems.divergence_construction` makes.
"""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array, ArrayLike

from adam_transition import adam, problems, simulate
from adam_transition.problems import counterexample_table
from adam_transition.sampling import Sampling, stream_key
from adam_transition.studies.runs import run_members
from adam_transition.sweeps import keys
from adam_transition.sweeps.pieces import Pieces
from adam_transition.sweeps.study import variable
from adam_transition.theory.boundary import divergence_intervals
from adam_transition.theory.divergence import (
    NUM_NODES,
    drift_of_places,
    patterns,
    proven_area,
    worst_case_drift,
)
from adam_transition.theory.least_d1 import least_d1, sign_sgd_certificate, sign_sgd_infimum
from adam_transition.theory.stationary_drift import stationary_drift

MEMBERS = ("a = 1/(n−1)²", "D1 = 2n²")
QUANTITIES = ("x", "gradient", "value")
STARTS = (1.0, -3.0)
"""Above −1, where the gradients are constant, and below −2, where they grow with the distance."""
SLOPE_A = Fraction(1, 10**6)
"""The slope of the members on which Sign-SGD diverges; D1 is within a few millionths of its
infimum."""

_CELLS_OF_AREAS = 200  # along each axis
_FILL_N = np.unique(np.geomspace(500, 30_000, 9).astype(int))
_POINTS, _TRIED = 16, 512  # (β1, β2) at which growth is measured, and those drawn to find them
_SEEDS = 8
_FARTHEST = max(abs(x0 + 2) for x0 in STARTS)
PATTERN_N = (3, 4, 5, 6)
PATTERN_EPOCHS = (2, 3)
_PATTERN_BETA1 = np.linspace(0, 0.95, 20)


@dataclass(frozen=True)
class DivergenceSpec:
    """What to compute."""

    num_components: tuple[int, ...]
    samplings: tuple[Sampling, ...]
    cells: int  # of the regions, along each axis
    largest_n: int
    point: tuple[float, float]  # (β1, β2) of the trajectories
    num_steps: int
    step_size: float
    d1_num_components: tuple[int, ...]
    d1_beta1: tuple[float, ...]
    d1_beta2: tuple[float, ...]
    seed: int


def member(which: int, n: int) -> problems.Counterexample:
    """The member of the class F^n: the paper's for which = 0, with L = c; else D1 = 2n², L = 1."""
    if which == 0:
        return problems.counterexample(n)
    return problems.divergence_construction(problems.ProblemClass(n, 1, 0, 2 * n**2))


def slope_a(which: int, n: int) -> float:
    """The parameter a of `member`."""
    return float(np.asarray(member(which, n).a, np.float64))


def middles(count: int) -> np.ndarray:
    """The centres of `count` equal cells of [0, 1)."""
    return (np.arange(count) + 0.5) / count


def _grid(count: int) -> adam.Hyperparameters:
    beta = middles(count)
    return adam.Hyperparameters(1 - beta[:, None], 1 - beta)


def coordinates(spec: DivergenceSpec) -> xr.Dataset:
    """The labelled axes."""
    beta = middles(spec.cells)
    return xr.Dataset(
        coords={
            "member": ("member", np.array(MEMBERS, dtype=object)),
            "sampling": ("sampling", np.array(spec.samplings, dtype=object)),
            "n": ("n", np.array(spec.num_components), {"long_name": "n", "units": "1"}),
            "beta1": ("beta1", beta, {"long_name": "β1", "units": "1"}),
            "beta2": ("beta2", beta, {"long_name": "β2", "units": "1"}),
            "quantity": ("quantity", np.array(QUANTITIES, dtype=object)),
            "start": ("start", np.array(STARTS), {"long_name": "x0", "units": "1"}),
            "d1_n": ("d1_n", np.array(spec.d1_num_components), {"long_name": "n", "units": "1"}),
            "d1_beta1": ("d1_beta1", np.array(spec.d1_beta1), {"long_name": "β1", "units": "1"}),
            "d1_beta2": ("d1_beta2", np.array(spec.d1_beta2), {"long_name": "β2", "units": "1"}),
        },
        attrs={"step_size": spec.step_size},
    )


def proven_regions(spec: DivergenceSpec) -> Mapping[str, xr.Variable]:
    """`worst_case` over (member, n, beta1, beta2), at the centres of the cells of a grid."""
    values = [
        [worst_case_drift(n, slope_a(which, n), _grid(spec.cells)) for n in spec.num_components]
        for which in range(len(MEMBERS))
    ]
    dims, label = ("member", "n", "beta1", "beta2"), "lower bound on the drift for every order"
    return {"worst_case": variable(dims, values, label, "1 / epoch")}


def exact_regions(spec: DivergenceSpec, pieces: Pieces) -> Mapping[str, xr.Variable]:
    """`drift`, `drift_stderr` over (member, sampling, n, beta1, beta2), on the same grid."""
    shape = (len(MEMBERS), len(spec.samplings), len(spec.num_components))
    values = np.empty((2, *shape, spec.cells, spec.cells))
    for i, j, k in np.ndindex(shape):
        n = spec.num_components[k]
        find = partial(_drift_of_grid, spec, counterexample_table(n, slope_a(i, n)), j)
        values[:, i, j, k] = pieces.keep(f"{i} {j} {k}", find)
    dims = ("member", "sampling", "n", "beta1", "beta2")
    return {
        "drift": variable(dims, values[0], "stationary drift D", "1 / epoch"),
        "drift_stderr": variable(dims, values[1], "standard error of D", "1 / epoch"),
    }


def _drift_of_grid(
    spec: DivergenceSpec, table: np.ndarray, which: int
) -> tuple[np.ndarray, np.ndarray]:
    found = stationary_drift(
        table,
        _grid(spec.cells),
        spec.samplings[which],
        key=stream_key(spec.seed),
    )
    return found.drift[..., 0], found.stderr[..., 0]


def areas(spec: DivergenceSpec) -> Mapping[str, xr.Variable]:
    """Areas of the regions in [0, 1)².

    `area`, `area_error` over (member, region, area_n): of the proven and of the cyclic region;
    `fill_area` over (member, fill_n): of the proven region at larger n.
    """
    n = np.unique(np.geomspace(3, spec.largest_n, 14).astype(int))
    grid = _grid(_CELLS_OF_AREAS)
    values = np.empty((2, len(MEMBERS), 2, len(n)))
    for i, k in np.ndindex(len(MEMBERS), len(n)):
        size = int(n[k])
        a = slope_a(i, size)
        proven = proven_area(size, a)
        cyclic = stationary_drift(counterexample_table(size, a), grid).drift[..., 0] > 0
        values[:, i, 0, k] = proven, abs(proven - proven_area(size, a, NUM_NODES // 2))
        values[:, i, 1, k] = cyclic.mean(), _edge_cells(cyclic).mean() / 2
    fill = [[proven_area(k, slope_a(i, k)) for k in _FILL_N.tolist()] for i in range(len(MEMBERS))]
    dims, regions = ("member", "region", "area_n"), "0: proven for every order, 1: cyclic order"
    of_error = "error of the area: that of the quadrature, or half of the cells at edges"
    return {
        "area_n": variable("area_n", n, "n", dtype=np.int64),
        "region": variable("region", np.arange(2), regions, dtype=np.int64),
        "area": variable(dims, values[0], "area of divergence in [0, 1)²"),
        "area_error": variable(dims, values[1], of_error),
        "fill_n": variable("fill_n", _FILL_N, "n", dtype=np.int64),
        "fill_area": variable(("member", "fill_n"), fill, "area of the proven region"),
    }


def _edge_cells(region: np.ndarray) -> np.ndarray:
    """Marks cells with a neighbour, along an axis, on the other side of the edge."""
    padded = np.pad(region, 1, mode="edge")
    neighbours = padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]
    return np.any([neighbour != region for neighbour in neighbours], axis=0)


def trajectories(spec: DivergenceSpec) -> Mapping[str, xr.Variable]:
    """`x`, `gradient`, `value` over (start, sampling, n, step): one run each at `spec.point`.

    Runs are on the member with D1 = 2n², from both of `STARTS`. `point_drift` and
    `point_drift_stderr` over (sampling, n) are D at that point.
    """
    records = 128
    record_every = -(-spec.num_steps // records)
    shape = (len(STARTS), len(spec.samplings), len(spec.num_components))
    hyper = adam.hyperparameters(*spec.point)
    found: list[np.ndarray] = []
    with jax.enable_x64(True):
        for sampling in spec.samplings:
            run_one = jax.jit(
                partial(
                    _trajectory, hyper=hyper, sampling=sampling, num_steps=spec.num_steps,
                    record_every=record_every, max_components=max(spec.num_components),
                )
            )  # fmt: skip
            for n in spec.num_components:
                problem = problems.as_arrays(member(1, n), np.float64)
                key = stream_key(spec.seed)
                for x0 in STARTS:
                    step, *rest = run_one(problem, jnp.float64(x0), spec.step_size, key)
                    found.append(np.stack([np.asarray(one) for one in rest]))
    # (sampling, n, start, quantity, step) → (quantity, start, sampling, n, step)
    values = np.stack(found).reshape(shape[1], shape[2], shape[0], 3, -1).transpose(3, 2, 0, 1, 4)
    drifts = np.array(
        [
            [_point_drift(spec, sampling, n) for n in spec.num_components]
            for sampling in spec.samplings
        ]
    )
    dims, label = ("start", "sampling", "n", "step"), "D at the trajectories' (β1, β2)"
    return {
        "step": variable("step", np.asarray(step), "step k", dtype=np.int64),
        "point_drift": variable(("sampling", "n"), drifts[..., 0], label),
        "point_drift_stderr": variable(("sampling", "n"), drifts[..., 1], label),
        "x": variable(dims, values[0], "iterate"),
        "gradient": variable(dims, values[1], "|∇f(x)|"),
        "value": variable(dims, values[2], "f(x), of smoothness 1"),
    }


def _point_drift(spec: DivergenceSpec, sampling: Sampling, n: int) -> tuple[float, float]:
    found = stationary_drift(
        counterexample_table(n, slope_a(1, n)),
        adam.hyperparameters(*spec.point),
        sampling,
        key=stream_key(spec.seed),
    )
    return float(found.drift[0]), float(found.stderr[0])


def _trajectory(
    problem: problems.Counterexample,
    x0: Array,
    step_size: ArrayLike,
    key: Array,
    *,
    hyper: adam.Hyperparameters,
    sampling: Sampling,
    num_steps: int,
    record_every: int,
    max_components: int,
) -> tuple[Array, Array, Array, Array]:
    trace = simulate.simulate(
        problem,
        hyper,
        x0,
        step_size,
        key,
        method=simulate.Method(sampling),
        num_steps=num_steps,
        record_every=record_every,
        max_components=max_components,
    )

    def mean(function: Any) -> Array:
        at = partial(
            problems.mean_over_components,
            function,
            n=problem.num_components,
            max_components=max_components,
        )
        return jax.vmap(at)(trace.x)

    return trace.step, trace.x, jnp.abs(mean(problem.gradient)), mean(problem.value)


def growth(spec: DivergenceSpec) -> Mapping[str, xr.Variable]:
    """`growth` over (quantity, start, sampling, n, seed, at): exponents of k, from T/4 to T.

    Points (β1, β2) are drawn from the region of divergence of the member with D1 = 2n²: those at
    which the exact drift carries a run, by step T/4, farther than its initial distance from x*.
    `growth_drift`, `growth_drift_stderr` over (sampling, n, at) are D/n at the points; `speed` over
    (sampling, n, seed, at) is the measured speed.
    """
    shape = (len(spec.samplings), len(spec.num_components), _SEEDS, _POINTS)
    exponents = np.full((3, len(STARTS), *shape), np.nan)
    speed, drifts = np.full(shape, np.nan), np.full((2, *shape[:2], _POINTS), np.nan)
    drawn = keys.generator(stream_key(spec.seed)).uniform(0, 1, (2, _TRIED))
    for (i, sampling), (j, n) in itertools.product(
        enumerate(spec.samplings), enumerate(spec.num_components)
    ):
        made = member(1, n)
        found = stationary_drift(
            counterexample_table(n, slope_a(1, n)), adam.Hyperparameters(*drawn), sampling,
            key=stream_key(spec.seed),
        )  # fmt: skip
        drift, stderr = found.drift[:, 0], found.stderr[:, 0]
        carried = (drift - 4 * stderr) / n * spec.step_size * spec.num_steps**0.5
        chosen = np.flatnonzero(carried >= _FARTHEST)[:_POINTS]
        if not chosen.size:
            continue
        one = problems.Member(made, made.problem_class(), exact=True)
        runs = run_members(
            [one] * len(STARTS), adam.Hyperparameters(*drawn[:, chosen]), sampling,
            num_steps=spec.num_steps, step_size=spec.step_size, num_seeds=_SEEDS,
            seed=spec.seed, starts=[np.array(x0) for x0 in STARTS], dtype="float64",
        )  # fmt: skip
        first = int(np.searchsorted(runs.steps, runs.steps[-1] // 4))
        x = runs.iterates[..., [first, -1]]  # (start, seed, point, 2)
        with jax.enable_x64(True):
            problem = problems.as_arrays(made, np.float64)
            gradients, values = (
                np.asarray(problems.mean_over_components(of, jnp.asarray(x), n, max_components=n))
                for of in (problem.gradient, problem.value)
            )
        span = np.log(runs.steps[-1] / runs.steps[first])
        for k, one_value in enumerate((x, gradients, values)):
            grown = np.log(np.abs(one_value[..., 1]) / np.abs(one_value[..., 0]))
            exponents[k, :, i, j, :, : chosen.size] = grown / span
        spent = adam.step_size(
            "inverse_sqrt", spec.step_size, np.arange(runs.steps[first], runs.steps[-1])
        )
        moved = (x[0, ..., 1] - x[0, ..., 0]) / float(np.asarray(spent, np.float64).sum())
        speed[i, j, :, : chosen.size] = moved
        drifts[:, i, j, : chosen.size] = drift[chosen] / n, stderr[chosen] / n
    points, dims = ("sampling", "n", "at"), ("sampling", "n", "seed", "at")
    gained = "increase of x per step and step size, from x0 > −1"
    return {
        "growth_drift_stderr": variable(points, drifts[1], "standard error of D/n"),
        "growth_drift": variable(points, drifts[0], "D/n at the point"),
        "speed": variable(dims, speed, gained),
        "growth": variable(("quantity", "start", *dims), exponents, "exponent of k"),
    }


def d1_of_members(spec: DivergenceSpec) -> Mapping[str, xr.Variable]:
    """D1 over member_n, exact and rounded once: the paper's member, Sign-SGD's smallest members."""
    n = np.arange(3, max(100, *spec.num_components) + 1)
    stated = [
        problems.counterexample(int(k)).problem_class().d1 / Fraction(2 * int(k) ** 2) for k in n
    ]
    members = [problems.sign_counterexample(int(k), SLOPE_A).slopes for k in n]
    certificates = [sign_sgd_certificate(slopes) for slopes in members]
    columns: dict[str, tuple[str, list[Any]]] = {
        "paper_d1_ratio": ("D1 of a = 1/(n−1)² over 2n²", [float(one) for one in stated]),
        "sign_infimum": (
            "infimum of D1 for Sign-SGD", [float(sign_sgd_infimum(int(k))) for k in n],
        ),
        "sign_member_drift": (
            "D of Sign-SGD on members close to it", [one.drift for one in certificates],
        ),
        "sign_member_d1": ("D1 of these members", [float(one.d1) for one in certificates]),
    }  # fmt: skip
    found = {"member_n": variable("member_n", n, "n", dtype=np.int64)}
    for name, (long_name, values) in columns.items():
        found[name] = variable("member_n", values, long_name, dtype=np.float64)
    return found


def least_d1_tables(spec: DivergenceSpec, pieces: Pieces) -> Mapping[str, xr.Variable]:
    """`least_d1`, `least_slopes` over (d1_n, d1_beta1, d1_beta2): the smallest D1 found, cyclic."""
    shape = (len(spec.d1_num_components), len(spec.d1_beta1), len(spec.d1_beta2))
    dims = ("d1_n", "d1_beta1", "d1_beta2")
    d1 = np.full(shape, np.nan)
    slopes = np.full((*shape, max(spec.d1_num_components)), np.nan)
    for i, n in enumerate(spec.d1_num_components):
        for j, beta1 in enumerate(spec.d1_beta1):
            find = partial(_least_d1_against_beta2, spec, n, beta1)
            d1[i, j], slopes[i, j, :, :n] = pieces.keep(f"{i} {j}", find)
    return {
        "least_d1": variable(dims, d1, "smallest D1 found, cyclic order"),
        "least_slopes": variable((*dims, "component"), slopes, "slopes that attain it, in order"),
    }


def _least_d1_against_beta2(
    spec: DivergenceSpec, n: int, beta1: float
) -> tuple[np.ndarray, np.ndarray]:
    """Searches at one β2 after the other; each starts from the result of the last."""
    d1 = np.full(len(spec.d1_beta2), np.nan)
    slopes = np.full((len(spec.d1_beta2), n), np.nan)
    last: list[np.ndarray] = []
    for k in np.argsort(spec.d1_beta2):
        found = least_d1(n, beta1, spec.d1_beta2[k], starts=last)
        if found is not None:
            d1[k], slopes[k] = found.d1, found.slopes
            last = [found.slopes]
    return d1, slopes


def patterns_of_hits() -> Mapping[str, xr.Variable]:
    """`share_below_cyclic`, `lowest_at_edges` over (pattern_n, pattern_a).

    Searches for orders with less drift than cyclic order, over the square and at the cyclic
    boundary: all places of the hit in `PATTERN_EPOCHS` epochs, for n in `PATTERN_N` and three
    values of a.
    """
    below, lowest_at_edges = [], []
    for n in PATTERN_N:
        for a in (slope_a(0, n), slope_a(1, n), 1.0):
            table = counterexample_table(n, a)
            rows = divergence_intervals(table, _PATTERN_BETA1)
            ends = [
                (1 - beta1, edge.one_minus_beta2)
                for beta1, intervals in zip(_PATTERN_BETA1, rows, strict=True)
                for interval in intervals
                for edge in interval
                if 0 < edge.beta2 < 1
            ]
            edges = adam.Hyperparameters(*np.array(ends).T)
            square = _grid(20)
            cyclic = stationary_drift(table, square).drift[..., 0]
            lowest, at_edges = cyclic, np.full(len(ends), np.inf)
            for epochs in PATTERN_EPOCHS:
                for places in patterns(n, epochs):
                    lowest = np.minimum(lowest, drift_of_places(n, a, square, places))
                    at_edges = np.minimum(at_edges, drift_of_places(n, a, edges, places))
            below.append((lowest < cyclic - 1e-9).mean())
            lowest_at_edges.append(at_edges.min())
    dims, shape = ("pattern_n", "pattern_a"), (len(PATTERN_N), 3)
    at_boundary = "smallest D of a pattern where the cyclic D is 0"
    return {
        "share_below_cyclic": variable(
            dims, np.reshape(below, shape), "share of the square where a pattern is below cyclic"
        ),
        "lowest_at_edges": variable(
            dims, np.reshape(lowest_at_edges, shape), at_boundary, "1 / epoch"
        ),
    }
