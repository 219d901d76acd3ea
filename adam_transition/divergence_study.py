"""The data set behind `experiments.divergence`: regions, areas, trajectories, and the least D1.

Two members of the class stand for the divergence theorem: the paper's, a = 1/(n−1)², and the one
that `ProblemClass.divergence_construction` makes from D1 = 2n².
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array

from adam_transition import adam, problems, sampling, simulate, store
from adam_transition.boundary import divergence_intervals
from adam_transition.drift import counterexample_table, stationary_drift
from adam_transition.least_d1 import least_d1, sign_sgd_certificate, sign_sgd_infimum
from adam_transition.store import Variable
from adam_transition.studies import Plan
from adam_transition.worst_case import drift_of_places, patterns, worst_case_drift

MEMBERS = ("a = 1/(n−1)²", "D1 = 2n²")
STARTS = (1.0, -3.0)
"""Above −1, where the gradients are constant, and below −2, where they grow with the distance."""
SLOPE_A = Fraction(1, 10**6)
"""Of the members on which Sign-SGD diverges: D1 is within a few millionths of its infimum."""

_CELLS_OF_AREAS = 200  # along each axis
_PATTERN_N = (3, 4, 5, 6)
_PATTERN_EPOCHS = (2, 3)
_PATTERN_BETA1 = np.linspace(0, 0.95, 20)


@dataclass(frozen=True)
class DivergenceStudy:
    """What to compute; see `plan`."""

    num_components: tuple[int, ...]
    samplings: tuple[sampling.Sampling, ...]
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
    """The member of the class F^n with D1 = 2n² (or what the paper's a gives) and L = 1 or c."""
    if which == 0:
        return problems.counterexample(n)
    return problems.ProblemClass(n, 1, 0, 2 * n**2).divergence_construction()


def slope_a(which: int, n: int) -> float:
    """The parameter a of `member`."""
    return float(np.asarray(member(which, n).a, np.float64))


def plan(study: DivergenceStudy) -> Plan:
    """The parts of the data set.

    Variables: `worst_case` over (member, n, beta1, beta2) and `drift`, `drift_stderr` with a
    sampling axis, at the middles of the cells of a grid; `area`, `area_error` over (member, region,
    area_n) of the proven and of the cyclic region, and `area_above`, how much of β1 > β2^¼ is in
    the cyclic one of the paper's member; `x`, `gradient`, `value` over (start, sampling, n, step);
    `sign_drift` over (sampling, n); D1 of the paper's and of Sign-SGD's members over member_n;
    `least_d1`, `least_slopes` over (d1_n, d1_beta1, d1_beta2); and the search over patterns of
    hits, over (pattern_n, pattern_a).
    """
    parts = {
        "worst_case": _worst_case_regions,
        "drift_stderr": _exact_regions,
        "area_above": _areas,
        "value": _trajectories,
        "sign_drift": _sign_sgd,
        "sign_member_d1": _d1_of_members,
        "least_slopes": _least_d1,
        "lowest_at_edges": _search_patterns,
    }
    return Plan(_coordinates(study), {name: partial(part, study) for name, part in parts.items()})


def middles(count: int) -> np.ndarray:
    """The middles of `count` equal cells of [0, 1)."""
    return (np.arange(count) + 0.5) / count


def _grid(count: int) -> adam.Hyperparameters:
    beta = middles(count)
    return adam.Hyperparameters(1 - beta[:, None], 1 - beta)


def _coordinates(study: DivergenceStudy) -> xr.Dataset:
    beta = middles(study.cells)
    return xr.Dataset(
        coords={
            "member": ("member", np.array(MEMBERS, dtype=object)),
            "sampling": ("sampling", np.array(study.samplings, dtype=object)),
            "n": ("n", np.array(study.num_components), {"long_name": "n", "units": "1"}),
            "beta1": ("beta1", beta, {"long_name": "β1", "units": "1"}),
            "beta2": ("beta2", beta, {"long_name": "β2", "units": "1"}),
            "start": ("start", np.array(STARTS), {"long_name": "x0", "units": "1"}),
            "d1_n": ("d1_n", np.array(study.d1_num_components), {"long_name": "n", "units": "1"}),
            "d1_beta1": ("d1_beta1", np.array(study.d1_beta1), {"long_name": "β1", "units": "1"}),
            "d1_beta2": ("d1_beta2", np.array(study.d1_beta2), {"long_name": "β2", "units": "1"}),
        }
    )


def _worst_case_regions(study: DivergenceStudy, results: store.Store) -> None:
    values = [
        [worst_case_drift(n, slope_a(which, n), _grid(study.cells)) for n in study.num_components]
        for which in range(len(MEMBERS))
    ]
    variable = Variable(
        ("member", "n", "beta1", "beta2"),
        np.float64,
        "lower bound on the drift for every order",
        "1 / epoch",
    )
    results.add("worst_case", variable, np.array(values))


def _exact_regions(study: DivergenceStudy, results: store.Store) -> None:
    shape = (len(MEMBERS), len(study.samplings), len(study.num_components))
    values = np.empty((2, *shape, study.cells, study.cells))
    for i, j, k in np.ndindex(shape):
        n = study.num_components[k]
        find = partial(_drift_of_grid, study, counterexample_table(n, slope_a(i, n)), j)
        values[:, i, j, k] = results.piece(f"{i} {j} {k}", find)
    dims = ("member", "sampling", "n", "beta1", "beta2")
    names = {"drift": "stationary drift D", "drift_stderr": "standard error of D"}
    for (name, long_name), one in zip(names.items(), values, strict=True):
        results.add(name, Variable(dims, np.float64, long_name, "1 / epoch"), one)


def _drift_of_grid(
    study: DivergenceStudy, table: np.ndarray, which: int
) -> tuple[np.ndarray, np.ndarray]:
    found = stationary_drift(
        table,
        _grid(study.cells),
        study.samplings[which],
        key=sampling.stream_key(study.seed),
    )
    return found.drift[..., 0], found.stderr[..., 0]


def _areas(study: DivergenceStudy, results: store.Store) -> None:
    n = np.unique(np.geomspace(3, study.largest_n, 14).astype(int))
    grid = _grid(_CELLS_OF_AREAS)
    values = np.empty((2, len(MEMBERS), 2, len(n)))
    beta = middles(_CELLS_OF_AREAS)
    above = beta[:, None] > beta**0.25
    above_share = np.empty(len(n))
    for i, k in np.ndindex(len(MEMBERS), len(n)):
        a = slope_a(i, int(n[k]))
        regions = (
            worst_case_drift(int(n[k]), a, grid) > 0,
            stationary_drift(counterexample_table(int(n[k]), a), grid).drift[..., 0] > 0,
        )
        for j, region in enumerate(regions):
            values[:, i, j, k] = region.mean(), _edge_cells(region).mean() / 2
        if i == 0:
            above_share[k] = regions[1][above].mean()
    results.add("area_n", Variable(("area_n",), np.int64, "n"), n)
    results.add(
        "region",
        Variable(("region",), np.int64, "0: proven for every order, 1: cyclic order"),
        np.arange(2),
    )
    dims = ("member", "region", "area_n")
    results.add("area", Variable(dims, np.float64, "area of divergence in [0, 1)²"), values[0])
    results.add("area_error", Variable(dims, np.float64, "half the cells at the edge"), values[1])
    variable = Variable(("area_n",), np.float64, "share of β1 > β2^¼ that diverges, a = 1/(n−1)²")
    results.add("area_above", variable, above_share)


def _edge_cells(region: np.ndarray) -> np.ndarray:
    """Cells with a neighbour along an axis on the other side."""
    padded = np.pad(region, 1, mode="edge")
    neighbours = padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]
    return np.any([neighbour != region for neighbour in neighbours], axis=0)


def _trajectories(study: DivergenceStudy, results: store.Store) -> None:
    """Iterates, |∇f| and f along runs on the member with D1 = 2n², from both sides."""
    records = 128
    record_every = -(-study.num_steps // records)
    shape = (len(STARTS), len(study.samplings), len(study.num_components))
    hyper = adam.hyperparameters(*study.point)
    found: list[np.ndarray] = []
    with jax.enable_x64(True):
        for scheme in study.samplings:
            run_one = jax.jit(
                partial(
                    _trajectory, hyper=hyper, scheme=scheme, num_steps=study.num_steps,
                    record_every=record_every, max_components=max(study.num_components),
                )
            )  # fmt: skip
            for n in study.num_components:
                problem = problems.as_arrays(member(1, n), np.float64)
                key = sampling.stream_key(study.seed)
                for x0 in STARTS:
                    step, *rest = run_one(problem, jnp.float64(x0), study.step_size, key)
                    found.append(np.stack([np.asarray(one) for one in rest]))
    # (sampling, n, start, quantity, step) → (quantity, start, sampling, n, step)
    values = np.stack(found).reshape(shape[1], shape[2], shape[0], 3, -1).transpose(3, 2, 0, 1, 4)
    results.add("step", Variable(("step",), np.int64, "step k"), np.asarray(step))
    drifts = np.array(
        [
            [_point_drift(study, scheme, n) for n in study.num_components]
            for scheme in study.samplings
        ]
    )
    for name, one in zip(("point_drift", "point_drift_stderr"), np.moveaxis(drifts, 2, 0)):
        variable = Variable(("sampling", "n"), np.float64, "D at the trajectories' (β1, β2)")
        results.add(name, variable, one)
    names = {"x": "iterate", "gradient": "|∇f(x)|", "value": "f(x), of smoothness 1"}
    for (name, long_name), one in zip(names.items(), values, strict=True):
        results.add(name, Variable(("start", "sampling", "n", "step"), np.float64, long_name), one)


def _point_drift(study: DivergenceStudy, scheme: sampling.Sampling, n: int) -> tuple[float, float]:
    found = stationary_drift(
        counterexample_table(n, slope_a(1, n)),
        adam.hyperparameters(*study.point),
        scheme,
        key=sampling.stream_key(study.seed),
    )
    return float(found.drift[0]), float(found.stderr[0])


def _trajectory(
    problem: problems.Counterexample,
    x0: Array,
    step_size: float,
    key: Array,
    *,
    hyper: adam.Hyperparameters,
    scheme: sampling.Sampling,
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
        method=simulate.Method(scheme),
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


def _sign_sgd(study: DivergenceStudy, results: store.Store) -> None:
    """D at β1 = β2 = 0, where m/√v is the sign of the gradient: no history matters."""
    corner = adam.hyperparameters(0.0, 0.0)
    values = [
        [
            stationary_drift(
                counterexample_table(n), corner, scheme, key=sampling.stream_key(study.seed)
            ).drift[0]
            for n in study.num_components
        ]
        for scheme in study.samplings
    ]  # fmt: skip
    variable = Variable(("sampling", "n"), np.float64, "D of Sign-SGD", "1 / epoch")
    results.add("sign_drift", variable, np.array(values))


def _d1_of_members(study: DivergenceStudy, results: store.Store) -> None:
    """Exact constants, rounded once: of the paper's member and of Sign-SGD's smallest members."""
    n = np.arange(3, max(100, *study.num_components) + 1)
    stated = [
        problems.counterexample(int(k)).problem_class().d1 / Fraction(2 * int(k) ** 2) for k in n
    ]
    members = [problems.sign_counterexample(int(k), SLOPE_A).slopes for k in n]
    certificates = [sign_sgd_certificate(slopes) for slopes in members]  # type: ignore[arg-type]
    columns = {
        "paper_d1_ratio": ("D1 of a = 1/(n−1)² over 2n²", [float(one) for one in stated]),
        "sign_infimum": (
            "infimum of D1 for Sign-SGD", [float(sign_sgd_infimum(int(k))) for k in n],
        ),
        "sign_member_drift": (
            "D of Sign-SGD on members near it", [one.drift for one in certificates],
        ),
        "sign_member_d1": ("D1 of these members", [float(one.d1) for one in certificates]),
    }  # fmt: skip
    results.add("member_n", Variable(("member_n",), np.int64, "n"), n)
    for name, (long_name, values) in columns.items():
        results.add(name, Variable(("member_n",), np.float64, long_name), np.array(values))


def _least_d1(study: DivergenceStudy, results: store.Store) -> None:
    shape = (len(study.d1_num_components), len(study.d1_beta1), len(study.d1_beta2))
    dims = ("d1_n", "d1_beta1", "d1_beta2")
    d1 = np.full(shape, np.nan)
    slopes = np.full((*shape, max(study.d1_num_components)), np.nan)
    for i, n in enumerate(study.d1_num_components):
        for j, beta1 in enumerate(study.d1_beta1):
            find = partial(_least_d1_against_beta2, study, n, beta1)
            d1[i, j], slopes[i, j, :, :n] = results.piece(f"{i} {j}", find)
    results.add("least_d1", Variable(dims, np.float64, "least D1 found, cyclic order"), d1)
    variable = Variable((*dims, "component"), np.float64, "slopes that attain it, in order")
    results.add("least_slopes", variable, slopes)


def _least_d1_against_beta2(
    study: DivergenceStudy, n: int, beta1: float
) -> tuple[np.ndarray, np.ndarray]:
    """One search after the other: each starts where the last one ended."""
    d1 = np.full(len(study.d1_beta2), np.nan)
    slopes = np.full((len(study.d1_beta2), n), np.nan)
    last: list[np.ndarray] = []
    for k in np.argsort(study.d1_beta2):
        found = least_d1(n, beta1, study.d1_beta2[k], starts=last)
        if found is not None:
            d1[k], slopes[k] = found.d1, found.slopes
            last = [found.slopes]
    return d1, slopes


def _search_patterns(study: DivergenceStudy, results: store.Store) -> None:
    """Looks for orders with less drift than the cyclic one: over the square, and at its boundary.

    For n = 3 … 6 and three values of a: all places of the hit in two and in three epochs.
    """
    del study
    below, lowest_at_edges = [], []
    for n in _PATTERN_N:
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
            for epochs in _PATTERN_EPOCHS:
                for places in patterns(n, epochs):
                    lowest = np.minimum(lowest, drift_of_places(n, a, square, places))
                    at_edges = np.minimum(at_edges, drift_of_places(n, a, edges, places))
            below.append((lowest < cyclic - 1e-9).mean())
            lowest_at_edges.append(at_edges.min())
    dims = ("pattern_n", "pattern_a")
    shape = (len(_PATTERN_N), 3)
    variable = Variable(dims, np.float64, "share of the square where a pattern is below cyclic")
    results.add("share_below_cyclic", variable, np.reshape(below, shape))
    variable = Variable(
        dims, np.float64, "least D of a pattern where the cyclic D is 0", "1 / epoch"
    )
    results.add("lowest_at_edges", variable, np.reshape(lowest_at_edges, shape))
