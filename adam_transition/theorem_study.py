"""The data set behind `experiments.theorem_3_1` and `theorem_3_3`: the theorems at work.

Both theorems are about one scheme each; what is computed is the same.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from adam_transition import adam, bounds, keys, problems, sampling, scaling, store, theorem_runs
from adam_transition.boundary import divergence_intervals
from adam_transition.drift import counterexample_table, stationary_drift
from adam_transition.limit_points import LimitPoint, limit_points
from adam_transition.problems import Member, ProblemClass
from adam_transition.store import Variable
from adam_transition.studies import Plan

FAMILIES = ("realizable", "symmetric", "skewed", "counterexample")
NOISES = ("skewed", "symmetric")
_BINS = ((1e-1, 1.0), (1e-2, 1e-1), (1e-3, 1e-2))
GROUPS = (*(f"1 − β2 from {low:g} to {high:g}" for low, high in _BINS), "D > 0: x* repels")
BAND = (0.05, 0.5, 0.95)
PANELS = ("cyclic", "random", "diminishing steps")
_PLATEAU_N = 5
_PLATEAU_Q = np.geomspace(0.5, 0.02, 7)
_SCALES = (0.1, 1.0, 10.0)
_MANY = {"nonrealizable_quadratics": 10, "logistic": 5}  # family: dimension
DIMENSIONS = {
    "realizable_quadratics": 50,
    "nonrealizable_quadratics": 10,
    "logistic": 10,
    "geman_mcclure": 10,
}
"""Families of random members whose left-hand side is measured, and their dimensions."""
_DIMENSION_BETA1 = (0.0, 0.5, 0.8)
_DIMENSION_Q = np.geomspace(0.3, 1e-3, 8)
_MANY_Q = 0.3
_WINDOW_N = (5, 20)
_LINE_N, _LINE_Q = 10, 0.1
_THRESHOLD_N = (5, 10, 20, 30)
_REDDI_N = 10


@dataclass(frozen=True)
class TheoremStudy:
    """What to compute; see `plan`."""

    scheme: sampling.Sampling
    num_components: tuple[int, ...]
    num_triples: int  # for each n and family
    num_seeds: int
    num_steps: int
    step_size: float
    num_samples: int  # of the random drift
    seed: int


def plan(study: TheoremStudy) -> Plan:
    """The parts of the data set.

    - Triples: `beta1`, `one_minus_beta2` over (n, triple); `lhs`, `lhs_stderr` over (family, n,
      triple, step), `slope`, `slope_stderr`, `slope_without` (each seed), and `drift`,
      `drift_stderr` beside the minimiser, NaN where the table of gradients there has no one
      direction (D0 > 0); `lhs_band` over (family, group, band, step), quantiles over triples.
    - Neighbourhood: `bias`, `bias_stderr` over (noise, scheme, plateau_q), |∇f| at the limit
      point; `settled_bias` from simulations with the study's scheme; `scaled_bias` over (scale).
    - Many dimensions: `many_error`, `many_error_stderr`, `many_bias` over (many).
      `dimensions_lhs`, `dimensions_slope` over (dimensions, dimensions_beta1, dimensions_q) of
      random members.
    - Window: `window` over (window_n, window_q, window_step).
    - Line: `line` over (line_beta1, line_step). Threshold: `threshold`, `threshold_stderr` over
      (threshold_a, threshold_n). Reddi: `reddi` over (panel, reddi_beta2, reddi_step).
    """
    parts = {
        "slope": _triples,
        "drift": _drift_at_minimisers,
        "lhs_band": _bands,
        "bias": _neighbourhood,
        "many_error": _many_dimensions,
        "dimensions_stderr": _dimensions,
        "window": _window,
        "line": _line,
        "threshold": _threshold,
        "reddi": _reddi,
    }
    return Plan(_coordinates(study), {name: partial(part, study) for name, part in parts.items()})


def member(family: str, n: int, seed: int) -> Member:
    """The problem of a family, of smoothness about 1: random where the class has many."""
    if family == "realizable":
        wanted = ProblemClass(n, 1, 0, 3 * n)
        return problems.random_member(
            wanted, "realizable_quadratics", 1, jax.random.fold_in(sampling.stream_key(seed), n)
        )
    if family == "counterexample":
        made = ProblemClass(n, 1, 0, 2 * n**2).divergence_construction()
        return Member(made, made.problem_class(), exact=True)
    noisy = _noisy(family, n)
    return Member(noisy, noisy.problem_class(), exact=True)


def _noisy(noise: str, n: int, scale: float = 1.0) -> problems.Quadratics:
    """Unit curvature; centres at 0 but one, or even between −1 and 1."""
    if noise == "symmetric":
        return problems.quadratics([1.0] * n, (scale * np.linspace(-1, 1, n)).tolist())
    return problems.quadratics([1.0] * n, [0.0] * (n - 1) + [scale])


def _start(one: Member) -> np.ndarray:
    return np.asarray(one.problem.minimiser, np.float64) + 1.5


def _pairs(study: TheoremStudy) -> tuple[np.ndarray, np.ndarray]:
    """β1 uniform, 1 − β2 even in its logarithm from 1e-3 to 1; each (n, triple)."""
    rng = keys.generator(sampling.stream_key(study.seed))
    shape = (len(study.num_components), study.num_triples)
    return rng.uniform(0, 0.99, shape), 10 ** rng.uniform(-3, 0, shape)


def _coordinates(study: TheoremStudy) -> xr.Dataset:
    beta1, q = _pairs(study)
    return xr.Dataset(
        coords={
            "family": ("family", np.array(FAMILIES, dtype=object)),
            "noise": ("noise", np.array(NOISES, dtype=object)),
            "scheme": ("scheme", np.array(sampling.SAMPLINGS, dtype=object)),
            "n": ("n", np.array(study.num_components), {"long_name": "n", "units": "1"}),
            "beta1": (("n", "triple"), beta1, {"long_name": "β1", "units": "1"}),
            "one_minus_beta2": (("n", "triple"), q, {"long_name": "1 − β2", "units": "1"}),
            "plateau_q": ("plateau_q", _PLATEAU_Q, {"long_name": "1 − β2", "units": "1"}),
            "scale": ("scale", np.array(_SCALES), {"long_name": "size of the noise", "units": "1"}),
            "many": ("many", np.array(list(_MANY), dtype=object)),
            "dimensions": ("dimensions", np.array(list(DIMENSIONS), dtype=object)),
            "dimensions_beta1": (
                "dimensions_beta1", np.array(_DIMENSION_BETA1), {"long_name": "β1", "units": "1"},
            ),
            "dimensions_q": ("dimensions_q", _DIMENSION_Q, {"long_name": "1 − β2", "units": "1"}),
            "group": ("group", np.array(GROUPS, dtype=object)),
            "band": ("band", np.array(BAND), {"long_name": "quantile", "units": "1"}),
            "panel": ("panel", np.array(PANELS, dtype=object)),
        }
    )  # fmt: skip


def _attracting(problem: problems.FiniteSum, *arguments: Any, **settings: Any) -> LimitPoint:
    """The attracting limit point that is nearest to a critical point."""
    found = [p for p in limit_points(problem, *arguments, **settings) if p.attracting]
    if not found:
        raise ValueError(f"no attracting limit point of {type(problem).__name__} was found")
    return min(found, key=lambda point: point.gradient_norm)


def _run(
    study: TheoremStudy, members: list[Member], hyper: adam.Hyperparameters, **more: Any
) -> theorem_runs.Runs:
    settings: dict[str, Any] = {
        "num_steps": study.num_steps,
        "step_size": study.step_size,
        "num_seeds": study.num_seeds,
        "seed": study.seed,
        "starts": [_start(one) for one in members],
    }
    return theorem_runs.run(members, hyper, study.scheme, **{**settings, **more})


def _triples(study: TheoremStudy, results: store.Store) -> None:
    beta1, q = _pairs(study)
    found = []
    for family in FAMILIES:
        members = [member(family, n, study.seed) for n in study.num_components]
        runs = _run(
            study, members, adam.Hyperparameters(1 - beta1, q), pieces=results.pieces(family)
        )
        by_seed = runs.progress.swapaxes(0, 1).astype(np.float64)
        found.append((*bounds.left_hand_side(by_seed), *bounds.rate(by_seed, runs.steps)))
    parts = (np.stack(part) for part in zip(*found, strict=True))
    lhs, stderr, slope, slope_stderr, without = parts
    results.add("step", Variable(("step",), np.int64, "T"), runs.steps)
    dims = ("family", "n", "triple")
    results.add("lhs", Variable((*dims, "step"), np.float64, "left-hand side"), lhs)
    variable = Variable((*dims, "step"), np.float64, "standard error of the left-hand side")
    results.add("lhs_stderr", variable, stderr)
    variable = Variable(("family", "seed", "n", "triple"), np.float64, "slope without one seed")
    results.add("slope_without", variable, without)
    results.add("slope_stderr", Variable(dims, np.float64, "its standard error"), slope_stderr)
    results.add("slope", Variable(dims, np.float64, "slope of log LHS against log T"), slope)


def _drift_at_minimisers(study: TheoremStudy, results: store.Store) -> None:
    """D beside the minimiser, where D0 = 0 and the table of gradients has one direction."""
    beta1, q = _pairs(study)
    shape = (2, len(FAMILIES), len(study.num_components), study.num_triples)
    values = np.full(shape, np.nan)
    for i, family in enumerate(FAMILIES):
        if family not in ("realizable", "counterexample"):
            continue
        for j, n in enumerate(study.num_components):
            problem = member(family, n, study.seed).problem
            table = np.asarray(
                problems.component_gradients(problem, jnp.asarray(problem.minimiser) + 0.5, n)
            )
            found = stationary_drift(
                table.reshape(n, 1),
                adam.Hyperparameters(1 - beta1[j], q[j]),
                study.scheme,
                key=sampling.stream_key(study.seed),
                num_samples=study.num_samples,
            )
            values[:, i, j] = found.drift[:, 0], found.stderr[:, 0]
    dims = ("family", "n", "triple")
    variable = Variable(dims, np.float64, "standard error of D", "1 / epoch")
    results.add("drift_stderr", variable, values[1])
    results.add("drift", Variable(dims, np.float64, "D beside x*", "1 / epoch"), values[0])


def _bands(study: TheoremStudy, results: store.Store) -> None:
    """Quantiles of the left-hand side over triples of about the same β2, and where x* repels."""
    del study
    dataset = results.load()
    repels = (dataset["drift"] > 0).values
    bounded = bounds.bounded_steps(dataset["beta1"].values, dataset["one_minus_beta2"].values)
    q, lhs = dataset["one_minus_beta2"].values, dataset["lhs"].values
    values = np.full((len(FAMILIES), len(GROUPS), len(BAND), lhs.shape[-1]), np.nan)
    for i in range(len(FAMILIES)):
        groups = [bounded & ~repels[i] & (q >= low) & (q < high) for low, high in _BINS]
        for j, chosen in enumerate((*groups, repels[i])):
            if chosen.any():
                values[i, j] = np.quantile(lhs[i][chosen], BAND, axis=0)
    dims = ("family", "group", "band", "step")
    results.add("lhs_band", Variable(dims, np.float64, "quantiles of the left-hand side"), values)


def _neighbourhood(study: TheoremStudy, results: store.Store) -> None:
    key = sampling.stream_key(study.seed)
    shape = (len(NOISES), len(sampling.SAMPLINGS), len(_PLATEAU_Q))
    bias = np.empty((2, *shape))

    def limit(
        noise: str, scheme: sampling.Sampling, q: float, scale: float = 1.0
    ) -> tuple[np.ndarray, np.ndarray]:
        point = _attracting(
            _noisy(noise, _PLATEAU_N, scale), adam.Hyperparameters(1.0, q), scheme,
            starts=scale * np.array([[-0.9], [1.1]]), key=key, num_samples=8 * study.num_samples,
        )  # fmt: skip
        return np.asarray(point.gradient_norm), np.asarray(point.stderr[0])

    for i, j, k in np.ndindex(shape):
        where = NOISES[i], sampling.SAMPLINGS[j], float(_PLATEAU_Q[k])
        bias[:, i, j, k] = results.piece(f"limit {i} {j} {k}", partial(limit, *where))
    scaled = [float(limit("skewed", study.scheme, 0.2, scale)[0]) for scale in _SCALES]
    members = [member("skewed", _PLATEAU_N, study.seed)]
    hyper = adam.Hyperparameters(np.ones_like(_PLATEAU_Q), _PLATEAU_Q)
    runs = _run(
        study, members, hyper, num_seeds=4 * study.num_seeds, pieces=results.pieces("settled")
    )
    settled = runs.settled[0, :, :, 0].astype(np.float64)
    gradient = np.abs(settled.mean(axis=0) - 1 / _PLATEAU_N)
    variable = Variable(("plateau_q",), np.float64, "|∇f| where simulations settle")
    results.add("settled_bias", variable, gradient)
    error = settled.std(axis=0, ddof=1) / np.sqrt(len(settled))
    results.add("settled_stderr", Variable(("plateau_q",), np.float64, "its error"), error)
    d0 = [float(_noisy("skewed", _PLATEAU_N, scale).problem_class().d0) for scale in _SCALES]
    results.add("scaled_d0", Variable(("scale",), np.float64, "D0"), np.array(d0))
    variable = Variable(("scale",), np.float64, "|∇f| at the limit point")
    results.add("scaled_bias", variable, np.array(scaled))
    dims = ("noise", "scheme", "plateau_q")
    variable = Variable(dims, np.float64, "standard error of the bias")
    results.add("bias_stderr", variable, bias[1])
    results.add("bias", Variable(dims, np.float64, "|∇f| at the limit point"), bias[0])


def _many_dimensions(study: TheoremStudy, results: store.Store) -> None:
    """Where simulations settle in many dimensions beside the limit point, as parts of the bias."""
    n, hyper = 5, adam.Hyperparameters(0.5, _MANY_Q)
    values = np.empty((3, len(_MANY)))
    for i, (family, dimension) in enumerate(_MANY.items()):
        key = sampling.stream_key(study.seed + 1)
        # noise of a size beside which steps are small
        wanted = ProblemClass(n, 1.0, 100.0 if "quadratics" in family else 0.05, 6.0 * n)
        one = problems.random_member(wanted, family, dimension, key)  # type: ignore[arg-type]
        minimiser = np.asarray(one.problem.minimiser, np.float64)
        point = _attracting(
            one.problem, hyper, study.scheme, starts=minimiser[None], key=key,
            num_samples=8 * study.num_samples,
        )  # fmt: skip
        runs = _run(
            study, [one], adam.Hyperparameters(np.array([0.5]), np.array([_MANY_Q])),
            num_steps=min(study.num_steps, 200_000), num_seeds=6 * study.num_seeds,
            pieces=results.pieces(family), starts=[minimiser],
        )  # fmt: skip
        settled = runs.settled[0, :, 0].astype(np.float64)
        error = settled.mean(axis=0) - point.x
        noise = np.hypot(settled.std(axis=0, ddof=1) / np.sqrt(len(settled)), point.stderr)
        bias = np.linalg.norm(point.x - minimiser)
        values[:, i] = np.linalg.norm(error) / bias, np.linalg.norm(noise) / bias, bias
    names = {
        "many_bias": "‖x̂ − x*‖",
        "many_error_stderr": "its standard error",
        "many_error": "‖settled − x̂‖/‖x̂ − x*‖",
    }
    for (name, long_name), one_value in zip(names.items(), values[[2, 1, 0]], strict=True):
        results.add(name, Variable(("many",), np.float64, long_name), one_value)


def _dimensions(study: TheoremStudy, results: store.Store) -> None:
    """The left-hand side of random members in many dimensions, convex and not."""
    beta1, q = (axis.ravel() for axis in np.meshgrid(_DIMENSION_BETA1, _DIMENSION_Q, indexing="ij"))
    found = []
    for family, dimension in DIMENSIONS.items():
        key = sampling.stream_key(study.seed + 2)
        d0 = {"realizable_quadratics": 0.0, "geman_mcclure": 0.02}.get(family, 0.1)
        wanted = ProblemClass(_PLATEAU_N, 1.0, d0, 6.0 * _PLATEAU_N)
        one = problems.random_member(wanted, family, dimension, key)  # type: ignore[arg-type]
        runs = _run(
            study, [one], adam.Hyperparameters(1 - beta1, q),
            num_steps=min(study.num_steps, 60_000), pieces=results.pieces(family),
            starts=[np.asarray(jax.random.normal(key, (dimension,)), np.float64)],
        )  # fmt: skip
        lhs = bounds.left_hand_side(runs.progress[0])[0]
        # in float32 and these dimensions gradients below 1e-7 are rounding
        rate = bounds.rate(runs.progress[0], runs.steps, least=1e-7)
        found.append((lhs[:, -1], rate.slope, rate.stderr))
    shape = (len(DIMENSIONS), len(_DIMENSION_BETA1), len(_DIMENSION_Q))
    dims = ("dimensions", "dimensions_beta1", "dimensions_q")
    names = {
        "dimensions_lhs": "left-hand side at T",
        "dimensions_slope": "slope of log LHS",
        "dimensions_stderr": "standard error of the slope",
    }
    for (name, long_name), values in zip(names.items(), zip(*found, strict=True), strict=True):
        results.add(name, Variable(dims, np.float64, long_name), np.reshape(values, shape))


def _window(study: TheoremStudy, results: store.Store) -> None:
    """LHS against 1 − β2 at several T: too small a β2 is biased, too large a one is slow."""
    q = np.geomspace(1e-10, 1, 41)
    found = []
    for n in _WINDOW_N:
        runs = _run(
            study, [member("skewed", n, study.seed)], adam.Hyperparameters(np.ones_like(q), q),
            dtype="float64", num_seeds=4 * study.num_seeds, pieces=results.pieces(str(n)),
        )  # fmt: skip
        found.append(bounds.left_hand_side(runs.progress[0])[0])
    results.add("window_q", Variable(("window_q",), np.float64, "1 − β2"), q)
    results.add("window_n", Variable(("window_n",), np.int64, "n"), np.array(_WINDOW_N))
    results.add("window_step", Variable(("window_step",), np.int64, "T"), runs.steps)
    variable = Variable(("window_n", "window_q", "window_step"), np.float64, "left-hand side")
    results.add("window", variable, np.stack(found))


def _line(study: TheoremStudy, results: store.Store) -> None:
    """LHS across β1 = √β2 at a β2 above the boundary, on the counterexample."""
    ratio = np.concatenate([np.linspace(0, 0.9, 10), np.linspace(0.91, 1.04, 27)])
    beta1 = ratio * np.sqrt(1 - _LINE_Q)
    one = problems.counterexample(_LINE_N)
    runs = _run(
        study, [Member(one, one.problem_class(), exact=True)],
        adam.Hyperparameters(1 - beta1, np.full_like(beta1, _LINE_Q)), pieces=results.pieces(),
    )  # fmt: skip
    lhs, _ = bounds.left_hand_side(runs.progress[0])
    results.add("line_ratio", Variable(("line_beta1",), np.float64, "β1/√β2"), ratio)
    results.add("line_step", Variable(("line_step",), np.int64, "T"), runs.steps)
    results.add("line", Variable(("line_beta1", "line_step"), np.float64, "left-hand side"), lhs)


def _threshold(study: TheoremStudy, results: store.Store) -> None:
    """1 − β2* at β1 = 0 against n: the boundary of the scheme, for two slopes a."""
    values = np.empty((2, 2, len(_THRESHOLD_N)))
    for i, a in enumerate(([1 / (n - 1) ** 2 for n in _THRESHOLD_N], [1.0] * len(_THRESHOLD_N))):
        edges = scaling.upper_edges(_THRESHOLD_N, a, 0.0, study.scheme)
        values[:, i] = np.array(
            [(edge.one_minus_beta2, edge.stderr) if edge else (np.nan, np.nan) for edge in edges]
        ).T
    results.add("threshold_n", Variable(("threshold_n",), np.int64, "n"), np.array(_THRESHOLD_N))
    dims = ("threshold_a", "threshold_n")
    results.add("threshold_stderr", Variable(dims, np.float64, "its error"), values[1])
    results.add("threshold", Variable(dims, np.float64, "1 − β2*, β1 = 0"), values[0])


def _reddi(study: TheoremStudy, results: store.Store) -> None:
    """Iterates on Reddi's example, at three times 1 − β2* and at a third of it, β1 = 0."""
    problem = problems.reddi(_REDDI_N)
    table = counterexample_table(_REDDI_N, 1.0)  # the same slopes, n and −1
    one = Member(problem, problem.problem_class(), exact=True)
    settings: dict[str, tuple[sampling.Sampling, adam.Schedule]] = {
        "cyclic": ("cyclic", "constant"),
        "random": (study.scheme, "constant"),
        "diminishing steps": (study.scheme, "inverse_sqrt"),
    }
    stars, found = [], []
    for scheme, schedule in settings.values():
        [intervals] = divergence_intervals(table, [0.0], scheme)
        star = intervals[-1].high.one_minus_beta2
        q = np.array([min(0.999, 3 * star), star / 3])
        runs = theorem_runs.run(
            [one], adam.Hyperparameters(np.ones(2), q), scheme, num_steps=study.num_steps,
            step_size=0.002 if schedule == "constant" else study.step_size, num_seeds=1,
            seed=study.seed, starts=[np.array(0.0)], schedule=schedule,
        )  # fmt: skip
        stars.append(1 - q)
        found.append(runs.iterates[0, 0])
    results.add("reddi_step", Variable(("reddi_step",), np.int64, "step k"), runs.steps)
    variable = Variable(("panel", "reddi_beta2"), np.float64, "β2 below and above the boundary")
    results.add("reddi_beta2_value", variable, np.array(stars))
    dims = ("panel", "reddi_beta2", "reddi_step")
    results.add("reddi", Variable(dims, np.float64, "iterate"), np.stack(found).astype(float))
