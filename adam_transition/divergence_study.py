"""The data set behind `experiments.divergence`: regions, areas, trajectories, and the least D1.

Two members of the class stand for the divergence theorem: the paper's, a = 1/(n−1)², and the one
that `ProblemClass.divergence_construction` makes from D1 = 2n².
"""

import itertools
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array
from scipy import optimize

from adam_transition import adam, keys, problems, sampling, simulate, store, theorem_runs
from adam_transition.boundary import divergence_intervals
from adam_transition.drift import counterexample_table, stationary_drift
from adam_transition.least_d1 import least_d1, sign_sgd_certificate, sign_sgd_infimum
from adam_transition.store import Variable
from adam_transition.studies import Plan
from adam_transition.worst_case import drift_of_places, patterns, worst_case_drift

MEMBERS = ("a = 1/(n−1)²", "D1 = 2n²")
QUANTITIES = ("x", "gradient", "value")
STARTS = (1.0, -3.0)
"""Above −1, where the gradients are constant, and below −2, where they grow with the distance."""
SLOPE_A = Fraction(1, 10**6)
"""Of the members on which Sign-SGD diverges: D1 is within a few millionths of its infimum."""

_CELLS_OF_AREAS = 200  # along each axis
_NODES = 64  # of the quadrature of proven areas
_FILL_N = np.unique(np.geomspace(500, 30_000, 9).astype(int))
_POINTS, _TRIED = 16, 512  # of (β1, β2) where divergence is looked at, and drawn to find them
_SEEDS = 8
_FARTHEST = max(abs(x0 + 2) for x0 in STARTS)
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
    area_n) of the proven and of the cyclic region, and `fill_area` over (member, fill_n), the
    proven one at larger n; `x`, `gradient`, `value` over (start, sampling, n, step), one run each
    at the point asked for; `growth` over (quantity, start, sampling, n, seed, at), exponents of k
    at points drawn from the region, with `growth_drift` and `speed`; D1 of the paper's and of
    Sign-SGD's members over member_n; `least_d1`, `least_slopes` over (d1_n, d1_beta1, d1_beta2);
    and the search over patterns of hits, over (pattern_n, pattern_a).
    """
    parts = {
        "worst_case": _worst_case_regions,
        "drift_stderr": _exact_regions,
        "fill_area": _areas,
        "value": _trajectories,
        "growth": _growth,
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
            "quantity": ("quantity", np.array(QUANTITIES, dtype=object)),
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


def proven_area(num_components: int, a: float, num_nodes: int = _NODES) -> float:
    """The area of {W > 0} in [0, 1)², by Gauss–Legendre quadrature over β2.

    In W (`worst_case`) what pushes away does not depend on β1, and what pushes back is a mean, with
    the weights (1−β1)β1^i, of numbers that grow with i, so that it grows with β1: at each β2 the
    region is an interval of β1 from 0 on. Nodes are even in
    √(1−β2), from where the region ends at β2 near 1, and squared there, where β1 rises steeply.
    """
    n, r = num_components, 1 / a + num_components - 1

    def away(s: float) -> float:
        kappa, log_beta2 = (r**2 - 1) * s**2, np.log1p(-(s**2))
        crowded = kappa * (1 + (1 - s**2) / -np.expm1(n * log_beta2))
        return float((1 / np.sqrt(1 + crowded * np.exp(np.arange(n) * log_beta2))).sum())

    def at_beta1_zero(s: float) -> float:
        return away(s) - (r + 1) / np.sqrt(1 + (r**2 - 1) * s**2)

    def largest_beta1(s: float) -> float:
        kappa, log_beta2 = (r**2 - 1) * s**2, np.log1p(-(s**2))
        # beyond these terms a hit is forgotten; as W > 0 here they are not many
        i = np.arange(max(1, int(np.ceil(np.log(kappa * 1e10) / -log_beta2))))
        remembered, pushed = 1 / np.sqrt(1 + kappa * np.exp(i * log_beta2)), away(s)

        def outward(beta1: float) -> float:
            weights = (1 - beta1) * np.exp(i * np.log(beta1)) if beta1 else i == 0
            return pushed - (r + 1) * (weights @ remembered + beta1 ** len(i))

        return float(optimize.brentq(outward, 0.0, 1.0, xtol=1e-12))

    # as β2 → 1 the pushes away sum to n and the one back is r + 1 = 1/a + n: outside the region
    tried = np.geomspace(1e-3 / n, 1 - 1e-9, 100)
    inside = np.array([at_beta1_zero(s) > 0 for s in tried])
    first = int(inside.argmax())
    if not inside[first]:
        return 0.0
    edge = float(optimize.brentq(at_beta1_zero, tried[first - 1], tried[first], xtol=1e-15))
    nodes, weights = np.polynomial.legendre.leggauss(num_nodes)
    area = 0.0
    for t, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        s = edge + (1 - edge) * t**2
        if at_beta1_zero(s) > 0:
            area += weight * 2 * t * (1 - edge) * 2 * s * largest_beta1(s)
    return float(area)


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
    for i, k in np.ndindex(len(MEMBERS), len(n)):
        size = int(n[k])
        a = slope_a(i, size)
        proven = proven_area(size, a)
        cyclic = stationary_drift(counterexample_table(size, a), grid).drift[..., 0] > 0
        values[:, i, 0, k] = proven, abs(proven - proven_area(size, a, _NODES // 2))
        values[:, i, 1, k] = cyclic.mean(), _edge_cells(cyclic).mean() / 2
    fill = [[proven_area(k, slope_a(i, k)) for k in _FILL_N.tolist()] for i in range(len(MEMBERS))]
    results.add("area_n", Variable(("area_n",), np.int64, "n"), n)
    results.add(
        "region",
        Variable(("region",), np.int64, "0: proven for every order, 1: cyclic order"),
        np.arange(2),
    )
    dims = ("member", "region", "area_n")
    results.add("area", Variable(dims, np.float64, "area of divergence in [0, 1)²"), values[0])
    variable = Variable(
        dims, np.float64, "its error: of the quadrature, or half the cells at edges"
    )
    results.add("area_error", variable, values[1])
    results.add("fill_n", Variable(("fill_n",), np.int64, "n"), _FILL_N)
    variable = Variable(("member", "fill_n"), np.float64, "area of the proven region")
    results.add("fill_area", variable, np.array(fill))


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


def _growth(study: DivergenceStudy, results: store.Store) -> None:
    """Exponents of k at points drawn from the region of divergence, on the member with D1 = 2n².

    From T/4 to T, for several seeds. Points are those at which the exact drift carries a run, until
    T/4, farther than it starts from x*.
    """
    shape = (len(study.samplings), len(study.num_components), _SEEDS, _POINTS)
    exponents = np.full((3, len(STARTS), *shape), np.nan)
    speed, drifts = np.full(shape, np.nan), np.full((2, *shape[:2], _POINTS), np.nan)
    drawn = keys.generator(sampling.stream_key(study.seed)).uniform(0, 1, (2, _TRIED))
    for (i, scheme), (j, n) in itertools.product(
        enumerate(study.samplings), enumerate(study.num_components)
    ):
        made = member(1, n)
        found = stationary_drift(
            counterexample_table(n, slope_a(1, n)), adam.Hyperparameters(*drawn), scheme,
            key=sampling.stream_key(study.seed),
        )  # fmt: skip
        drift, stderr = found.drift[:, 0], found.stderr[:, 0]
        carried = (drift - 4 * stderr) / n * study.step_size * study.num_steps**0.5
        chosen = np.flatnonzero(carried >= _FARTHEST)[:_POINTS]
        if not chosen.size:
            continue
        one = problems.Member(made, made.problem_class(), exact=True)
        runs = theorem_runs.run(
            [one] * len(STARTS), adam.Hyperparameters(*drawn[:, chosen]), scheme,
            num_steps=study.num_steps, step_size=study.step_size, num_seeds=_SEEDS,
            seed=study.seed, starts=[np.array(x0) for x0 in STARTS], dtype="float64",
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
            "inverse_sqrt", study.step_size, np.arange(runs.steps[first], runs.steps[-1])
        )
        moved = (x[0, ..., 1] - x[0, ..., 0]) / float(np.asarray(spent, np.float64).sum())
        speed[i, j, :, : chosen.size] = moved
        drifts[:, i, j, : chosen.size] = drift[chosen] / n, stderr[chosen] / n
    dims = ("sampling", "n", "seed", "at")
    names = {
        "growth_drift_stderr": "standard error of D/n",
        "growth_drift": "D/n at the point",
    }
    for (name, long_name), one_value in zip(names.items(), drifts[::-1], strict=True):
        results.add(name, Variable(("sampling", "n", "at"), np.float64, long_name), one_value)
    variable = Variable(dims, np.float64, "what x gains per step and step size, from x0 > −1")
    results.add("speed", variable, speed)
    variable = Variable(("quantity", "start", *dims), np.float64, "exponent of k")
    results.add("growth", variable, exponents)


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
