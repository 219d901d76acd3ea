"""The data set behind `experiments.theorem_3_1` and `theorem_3_3`: the theorems at work.

Both theorems are about one scheme each; what is computed is the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Float

from adam_transition import adam, bounds, keys, problems, sampling, scaling, store, theorem_runs
from adam_transition.boundary import divergence_intervals
from adam_transition.drift import counterexample_table, stationary_drift
from adam_transition.limit_points import LimitPoint, limit_points
from adam_transition.problems import Member, ProblemClass
from adam_transition.store import Variable
from adam_transition.studies import Plan

RANDOM_ORDERS: tuple[sampling.Sampling, ...] = ("with_replacement", "random_shuffling")
FAMILIES = ("realizable", "symmetric", "skewed", "counterexample")
_BINS = ((1e-1, 1.0), (1e-2, 1e-1), (1e-3, 1e-2))
GROUPS = (*(f"1 − β2 from {low:g} to {high:g}" for low, high in _BINS), "D > 0: x* repels")
BAND = (0.05, 0.5, 0.95)
PANELS = ("cyclic", "random", "diminishing steps")
START = 1.5
"""Distance from x* at which runs start."""
MEMORIES = 100
"""Of 1/(1 − β2) steps that the first window of T must hold: several spikes at large β2."""
_CENTRED = ("realizable", "counterexample")  # D0 = 0, in z = x − x*
_REGION_C = 1.0
_REGION_LONGER = 4  # times num_steps
_REGION_SHARE = 6  # of the triples
_PLATEAU_N = 5
_PLATEAU_Q = np.geomspace(0.5, 0.02, 7)
_SMALL_Q = (2e-3, 1e-3)
_MANY = {"nonrealizable_quadratics": 10, "logistic": 5}  # family: dimension
_MEMBERS = 3  # random ones of each family
DIMENSIONS = {
    "realizable_quadratics": 50,
    "nonrealizable_quadratics": 10,
    "logistic": 10,
    "geman_mcclure": 10,
}
"""Families of random members whose left-hand side is measured, and their dimensions."""
_DIMENSION_BETA1 = (0.0, 0.5, 0.8)
_DIMENSION_Q = np.geomspace(0.3, 1e-3, 8)
_MANY_Q = (0.3, 0.15)
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

    - Triples: `beta1`, `one_minus_beta2` over (n, triple); `mean_progress` over (family, seed, n,
      triple, octave), the mean of what the theorems bound over the records of (T/2, T], T the
      octave's end; `lhs`, `lhs_stderr` over (family, n, triple, step); `arrived` over (family, n,
      triple), runs that lie on x* exactly. `drift`, `drift_stderr` beside the minimiser, NaN where
      the table of gradients there has no one direction (D0 > 0). `lhs_band` over (family, group,
      band, step), quantiles over triples.
    - Region of the theorem, 1 − β2 ≤ C(1−β1^n)/n^5 with C = 1: `region_progress` over
      (region_family, seed, n, region_triple, region_octave) at `region_beta1`, `region_q`; NaN for
      an n at which the region is empty: there no T of this length is large enough.
    - Neighbourhood: `bias`, `bias_stderr` over (scheme, plateau_q), |∇f| at the limit point, and
      `small_bias` over (small_scheme, small_q); `settled` over (seed, plateau_q, settled_over),
      means of the iterate over the windows of `theorem_runs.SETTLED` with the study's scheme.
    - Many dimensions: `many_miss` over (many, seed, settled_over), how far these means are from the
      limit point along the bias, as a part of it; `many_gradient` over (many, member, many_q),
      ‖∇f‖ at the limit point. `dimensions_lhs` over (dimensions, dimensions_beta1, dimensions_q)
      and `dimensions_progress` over (member, seed, dimensions_beta1, dimensions_q, octave), random
      members with D0 = 0.
    - Window: `window` over (window_n, window_q, window_step), `window_progress` by seed.
    - Line: `line` over (line_beta1, line_step), `line_progress` over (seed, line_beta1, octave).
      Threshold: `threshold`, `threshold_stderr` over (threshold_a, threshold_n). Reddi: `reddi`
      over (panel, reddi_beta2, reddi_step).
    """
    parts = {
        "mean_progress": _triples,
        "drift": _drift_at_minimisers,
        "lhs_band": _bands,
        "region_progress": _region,
        "bias": _neighbourhood,
        "many_miss": _many_dimensions,
        "dimensions_progress": _dimensions,
        "window": _window,
        "line": _line,
        "threshold": _threshold,
        "reddi": _reddi,
    }
    return Plan(_coordinates(study), {name: partial(part, study) for name, part in parts.items()})


def member(family: str, n: int, seed: int) -> Member:
    """The problem of a family, of smoothness about 1: random where the class has many.

    Where D0 = 0 it is centred: x* = 0.
    """
    if family == "realizable":
        wanted = ProblemClass(n, 1, 0, 3 * n)
        key = jax.random.fold_in(sampling.stream_key(seed), n)
        return problems.centred(problems.random_member(wanted, "realizable_quadratics", 1, key))
    if family == "counterexample":
        made = ProblemClass(n, 1, 0, 2 * n**2).divergence_construction()
        return problems.centred(Member(made, made.problem_class(), exact=True))
    noisy = _noisy(family, n)
    return Member(noisy, noisy.problem_class(), exact=True)


def _noisy(noise: str, n: int) -> problems.Quadratics:
    """Unit curvature; centres at 0 but one, or even between −1 and 1."""
    if noise == "symmetric":
        return problems.quadratics([1.0] * n, np.linspace(-1, 1, n).tolist())
    return problems.quadratics([1.0] * n, [0.0] * (n - 1) + [1.0])


def _start(one: Member) -> np.ndarray:
    return np.asarray(one.problem.minimiser, np.float64) + START


def region(
    study: TheoremStudy,
) -> tuple[Float[np.ndarray, "n triple"], Float[np.ndarray, "n triple"]]:
    """β1 and 1 − β2 of triples in the theorem's own region with C = 1, NaN where it is empty.

    Its upper end is the theorem's, 1 − β2 ≤ C(1−β1^n)/n^5; below the lower one T is not large.
    """
    rng = keys.generator(jax.random.fold_in(sampling.stream_key(study.seed), 1))
    shape = (len(study.num_components), -(-study.num_triples // _REGION_SHARE))
    n = np.array(study.num_components)[:, None]
    least = MEMORIES * 2**theorem_runs.OCTAVES / (_REGION_LONGER * study.num_steps)
    # β1 up to where the interval of 1 − β2 closes: (1−β1^n) = least·n^5/C
    room = np.clip(1 - least * n**5.0 / _REGION_C, 0, None)
    beta1 = rng.uniform(0, 1, shape) * np.minimum(0.99, room ** (1 / n))
    most = _REGION_C * (1 - beta1**n) / n**5.0
    q = least * (np.maximum(most, least) / least) ** rng.uniform(0, 1, shape)
    return np.where(room > 0, beta1, np.nan), np.where(room > 0, q, np.nan)


def _pairs(study: TheoremStudy) -> tuple[np.ndarray, np.ndarray]:
    """β1 uniform, 1 − β2 even in its logarithm from 1e-3 to 1; each (n, triple)."""
    rng = keys.generator(sampling.stream_key(study.seed))
    shape = (len(study.num_components), study.num_triples)
    return rng.uniform(0, 0.99, shape), 10 ** rng.uniform(-3, 0, shape)


def _coordinates(study: TheoremStudy) -> xr.Dataset:
    beta1, q = _pairs(study)
    region_beta1, region_q = region(study)
    return xr.Dataset(
        coords={
            "family": ("family", np.array(FAMILIES, dtype=object)),
            "region_family": ("region_family", np.array(_CENTRED, dtype=object)),
            "scheme": ("scheme", np.array(sampling.SAMPLINGS, dtype=object)),
            "n": ("n", np.array(study.num_components), {"long_name": "n", "units": "1"}),
            "beta1": (("n", "triple"), beta1, {"long_name": "β1", "units": "1"}),
            "one_minus_beta2": (("n", "triple"), q, {"long_name": "1 − β2", "units": "1"}),
            "plateau_q": ("plateau_q", _PLATEAU_Q, {"long_name": "1 − β2", "units": "1"}),
            "small_q": ("small_q", np.array(_SMALL_Q), {"long_name": "1 − β2", "units": "1"}),
            "small_scheme": ("small_scheme", np.array(RANDOM_ORDERS, dtype=object)),
            "region_beta1": (
                ("n", "region_triple"), region_beta1, {"long_name": "β1", "units": "1"},
            ),
            "region_q": (("n", "region_triple"), region_q, {"long_name": "1 − β2", "units": "1"}),
            "octave": (
                "octave", theorem_runs.octaves(study.num_steps), {"long_name": "T", "units": "1"},
            ),
            "region_octave": (
                "region_octave", theorem_runs.octaves(_REGION_LONGER * study.num_steps),
                {"long_name": "T", "units": "1"},
            ),
            "many_q": ("many_q", np.array(_MANY_Q), {"long_name": "1 − β2", "units": "1"}),
            "dimensions_octave": (
                "dimensions_octave", theorem_runs.octaves(_dimension_steps(study)),
                {"long_name": "T", "units": "1"},
            ),
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
        hyper = adam.Hyperparameters(1 - beta1, q)
        runs = _run(
            study, members, hyper, moving_unit=family in _CENTRED, pieces=results.pieces(family)
        )
        by_seed = runs.progress.swapaxes(0, 1).astype(np.float64)
        found.append(
            (
                *bounds.left_hand_side(by_seed),
                runs.mean_progress.swapaxes(0, 1),
                runs.arrived.sum(axis=1),
            )
        )
    lhs, stderr, progress, arrived = (np.stack(part) for part in zip(*found, strict=True))
    results.add("step", Variable(("step",), np.int64, "T"), runs.steps)
    dims = ("family", "n", "triple")
    results.add("lhs", Variable((*dims, "step"), np.float64, "left-hand side"), lhs)
    variable = Variable((*dims, "step"), np.float64, "standard error of the left-hand side")
    results.add("lhs_stderr", variable, stderr)
    results.add("arrived", Variable(dims, np.int64, "runs that lie on x* exactly"), arrived)
    every = ("family", "seed", "n", "triple", "octave")
    results.add("mean_progress", Variable(every, np.float64, "mean over (T/2, T]"), progress)


def _region(study: TheoremStudy, results: store.Store) -> None:
    """Runs in the theorem's own region, as long as its β2 needs them."""
    beta1, q = region(study)
    octaves = theorem_runs.OCTAVES
    values = np.full((len(_CENTRED), study.num_seeds, *q.shape, octaves), np.nan)
    for j, n in enumerate(study.num_components):
        if np.isnan(q[j]).any():
            continue
        for i, family in enumerate(_CENTRED):
            runs = _run(
                study, [member(family, n, study.seed)], adam.Hyperparameters(1 - beta1[j], q[j]),
                num_steps=_REGION_LONGER * study.num_steps, moving_unit=True,
            )  # fmt: skip
            values[i, :, j] = runs.mean_progress[0]
    dims = ("region_family", "seed", "n", "region_triple", "region_octave")
    results.add("region_progress", Variable(dims, np.float64, "mean over (T/2, T]"), values)


def _drift_at_minimisers(study: TheoremStudy, results: store.Store) -> None:
    """D beside the minimiser, where D0 = 0 and the table of gradients has one direction."""
    beta1, q = _pairs(study)
    shape = (2, len(FAMILIES), len(study.num_components), study.num_triples)
    values = np.full(shape, np.nan)
    for i, family in enumerate(FAMILIES):
        if family not in _CENTRED:
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

    def limit(scheme: sampling.Sampling, q: float) -> tuple[np.ndarray, np.ndarray]:
        point = _attracting(
            _noisy("skewed", _PLATEAU_N), adam.Hyperparameters(1.0, q), scheme,
            starts=np.array([[-0.9], [1.1]]), key=key, num_samples=8 * study.num_samples,
        )  # fmt: skip
        return np.asarray(point.gradient_norm), np.asarray(point.stderr[0])

    def kept(scheme: sampling.Sampling, q: float) -> Sequence[np.ndarray]:
        return results.piece(f"limit {scheme} {q}", partial(limit, scheme, q))

    bias = np.array([[kept(one, float(q)) for q in _PLATEAU_Q] for one in sampling.SAMPLINGS])
    small = np.array([[kept(one, q)[0] for q in _SMALL_Q] for one in RANDOM_ORDERS])
    hyper = adam.Hyperparameters(np.ones_like(_PLATEAU_Q), _PLATEAU_Q)
    runs = _run(
        study, [member("skewed", _PLATEAU_N, study.seed)], hyper, num_seeds=4 * study.num_seeds,
        dtype="float64", pieces=results.pieces("settled"),
    )  # fmt: skip
    variable = Variable(("many_seed", "plateau_q", "settled_over"), np.float64, "mean iterate")
    results.add("settled", variable, runs.settled[0, :, :, :, 0])
    variable = Variable(("small_scheme", "small_q"), np.float64, "|∇f| at the limit point")
    results.add("small_bias", variable, small)
    dims = ("scheme", "plateau_q")
    variable = Variable(dims, np.float64, "standard error of the bias")
    results.add("bias_stderr", variable, bias[..., 1])
    results.add("bias", Variable(dims, np.float64, "|∇f| at the limit point"), bias[..., 0])


def _many_dimensions(study: TheoremStudy, results: store.Store) -> None:
    """Limit points of random members in many dimensions, and where simulations settle."""
    n, seeds = 5, 6 * study.num_seeds
    gradients = np.empty((len(_MANY), _MEMBERS, len(_MANY_Q)))
    misses = np.empty((len(_MANY), seeds, len(theorem_runs.SETTLED)))
    for i, (family, dimension) in enumerate(_MANY.items()):
        # noise of a size beside which steps are small
        wanted = ProblemClass(n, 1.0, 100.0 if "quadratics" in family else 0.05, 6.0 * n)
        for j in range(_MEMBERS):
            key = sampling.stream_key(study.seed + 1 + j)
            one = problems.random_member(wanted, family, dimension, key)  # type: ignore[arg-type]
            minimiser = np.asarray(one.problem.minimiser, np.float64)
            points = [
                _attracting(
                    one.problem, adam.Hyperparameters(0.5, q), study.scheme,
                    starts=minimiser[None], key=key, num_samples=8 * study.num_samples,
                )
                for q in _MANY_Q
            ]  # fmt: skip
            gradients[i, j] = [point.gradient_norm for point in points]
            if j == 0:
                runs = _run(
                    study, [one], adam.Hyperparameters(np.array([0.5]), np.array(_MANY_Q[:1])),
                    num_steps=min(study.num_steps, 200_000), num_seeds=seeds, starts=[minimiser],
                    dtype="float64", pieces=results.pieces(family),
                )  # fmt: skip
                bias = points[0].x - minimiser
                settled = runs.settled[0, :, 0] - points[0].x  # (seed, window, coordinate)
                misses[i] = settled @ bias / (bias @ bias)
    variable = Variable(("many", "member", "many_q"), np.float64, "‖∇f‖ at the limit point")
    results.add("many_gradient", variable, gradients)
    dims = ("many", "more_seed", "settled_over")
    variable = Variable(dims, np.float64, "mean iterate less x̂ along x̂ − x*, as a part of it")
    results.add("many_miss", variable, misses)


class SettledLimit(NamedTuple):
    """Where each run settles as η → 0, and an estimate of the error of that."""

    value: Float[np.ndarray, "..."]
    remainder: Float[np.ndarray, "..."]  # by how much the third window changes the value


def settled_limit(settled: Float[np.ndarray, "... 3"]) -> SettledLimit:
    """Extrapolates the means over `theorem_runs.SETTLED` to η = 0.

    Steps of size η move the mean of the iterate by c·η + c'·η² + O(η³). From one window to the next
    η doubles and η² is four times as large, so two windows remove the first term and three both
    (Richardson). The remainder is an estimate, not a bound: higher orders and a run still on its
    way show in it, as they change the value from two windows to three.
    """
    late, earlier, earliest = np.moveaxis(settled, -1, 0)
    first, before = 2 * late - earlier, 2 * earlier - earliest
    return SettledLimit((4 * first - before) / 3, (first - before) / 3)


def _dimension_steps(study: TheoremStudy) -> int:
    return min(study.num_steps, 60_000)


def _dimensions(study: TheoremStudy, results: store.Store) -> None:
    """The left-hand side of random members in many dimensions, convex and not."""
    beta1, q = (axis.ravel() for axis in np.meshgrid(_DIMENSION_BETA1, _DIMENSION_Q, indexing="ij"))
    found = []
    shape = (len(_DIMENSION_BETA1), len(_DIMENSION_Q))
    for family, dimension in DIMENSIONS.items():
        d0 = {"realizable_quadratics": 0.0, "geman_mcclure": 0.02}.get(family, 0.1)
        wanted = ProblemClass(_PLATEAU_N, 1.0, d0, 6.0 * _PLATEAU_N)
        all_keys = [sampling.stream_key(study.seed + 2 + j) for j in range(_MEMBERS)]
        drawn = [
            problems.random_member(wanted, family, dimension, key)  # type: ignore[arg-type]
            for key in (all_keys if d0 == 0 else all_keys[:1])
        ]
        runs = _run(
            study, [problems.centred(one) for one in drawn] if d0 == 0 else drawn,
            adam.Hyperparameters(1 - beta1, q), num_steps=_dimension_steps(study),
            starts=[
                np.asarray(jax.random.normal(key, (dimension,)), np.float64)
                for key in all_keys[: len(drawn)]
            ],
            moving_unit=d0 == 0, pieces=results.pieces(family),
        )  # fmt: skip
        found.append(bounds.left_hand_side(runs.progress[0])[0][:, -1])
        if d0 == 0:
            progress = runs.mean_progress
    dims = ("dimensions", "dimensions_beta1", "dimensions_q")
    variable = Variable(dims, np.float64, "left-hand side at T")
    results.add("dimensions_lhs", variable, np.reshape(found, (len(DIMENSIONS), *shape)))
    every = ("member", "seed", *dims[1:], "dimensions_octave")
    variable = Variable(every, np.float64, "mean over (T/2, T], D0 = 0")
    values = progress.reshape(*progress.shape[:2], *shape, theorem_runs.OCTAVES)
    results.add("dimensions_progress", variable, values)


def _window(study: TheoremStudy, results: store.Store) -> None:
    """LHS against 1 − β2 at several T: too small a β2 is biased, too large a one is slow."""
    q = np.geomspace(1e-10, 1, 41)
    runs = _run(
        study, [member("skewed", n, study.seed) for n in _WINDOW_N],
        adam.Hyperparameters(np.ones_like(q), q), dtype="float64", num_seeds=4 * study.num_seeds,
        pieces=results.pieces(),
    )  # fmt: skip
    by_seed = runs.progress.swapaxes(0, 1)
    results.add("window_q", Variable(("window_q",), np.float64, "1 − β2"), q)
    results.add("window_n", Variable(("window_n",), np.int64, "n"), np.array(_WINDOW_N))
    results.add("window_step", Variable(("window_step",), np.int64, "T"), runs.steps)
    over = ("window_n", "window_q", "window_step")
    variable = Variable(("many_seed", *over), np.float64, "what the theorem bounds, by seed")
    results.add("window_progress", variable, by_seed)
    variable = Variable(over, np.float64, "left-hand side")
    results.add("window", variable, bounds.left_hand_side(by_seed)[0])


def _line(study: TheoremStudy, results: store.Store) -> None:
    """LHS across β1 = √β2 at a β2 above the boundary, on the counterexample."""
    ratio = np.concatenate([np.linspace(0, 0.9, 10), np.linspace(0.91, 1.04, 27)])
    beta1 = ratio * np.sqrt(1 - _LINE_Q)
    one = problems.counterexample(_LINE_N)
    runs = _run(
        study, [problems.centred(Member(one, one.problem_class(), exact=True))],
        adam.Hyperparameters(1 - beta1, np.full_like(beta1, _LINE_Q)), moving_unit=True,
        pieces=results.pieces(),
    )  # fmt: skip
    lhs, _ = bounds.left_hand_side(runs.progress[0])
    results.add("line_ratio", Variable(("line_beta1",), np.float64, "β1/√β2"), ratio)
    results.add("line_step", Variable(("line_step",), np.int64, "T"), runs.steps)
    dims = ("seed", "line_beta1", "octave")
    variable = Variable(dims, np.float64, "mean over (T/2, T]")
    results.add("line_progress", variable, runs.mean_progress[0])
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
