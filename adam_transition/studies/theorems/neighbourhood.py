"""The neighbourhood of the theorems: limit points, settled simulations, and the window of β2."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from jaxtyping import Float

from adam_transition import adam, problems
from adam_transition.problems import ProblemClass
from adam_transition.sampling import SAMPLINGS, Sampling, stream_key
from adam_transition.studies.runs import SETTLED
from adam_transition.studies.theorems.families import member, noisy
from adam_transition.studies.theorems.spec import TheoremSpec
from adam_transition.sweeps.pieces import Pieces
from adam_transition.sweeps.study import variable
from adam_transition.theory.convergence import left_hand_side
from adam_transition.theory.limit_points import LimitPoint, limit_points

SKEWED_N = 5
"""Number of components of the skewed problem: one has its centre at 1, the others at 0."""

MANY_DIMENSIONS: dict[problems.Family, int] = {"nonrealizable_quadratics": 10, "logistic": 5}
"""Families whose limit points are computed in many dimensions, and their dimensions."""

_PLATEAU_Q = np.geomspace(0.5, 0.02, 7)
_SMALL_Q = (2e-3, 1e-3)
_RANDOM_ORDERS: tuple[Sampling, ...] = ("with_replacement", "random_shuffling")

_MANY_Q = (0.3, 0.15)
_MEMBERS = 3  # random ones of each family
_WINDOW_N = (5, 20)

NAMES: Mapping[str, Sequence[str]] = {
    "sampling": SAMPLINGS,
    "small_sampling": _RANDOM_ORDERS,
    "many": tuple(MANY_DIMENSIONS),
}
"""Axes of names."""


def axes() -> dict[str, tuple[str, np.ndarray, str]]:
    """Axes of numbers: dimension, values, label."""
    return {
        "plateau_q": ("plateau_q", _PLATEAU_Q, "1 − β2"),
        "small_q": ("small_q", np.array(_SMALL_Q), "1 − β2"),
        "many_q": ("many_q", np.array(_MANY_Q), "1 − β2"),
    }


def limits(spec: TheoremSpec, pieces: Pieces) -> Mapping[str, xr.Variable]:
    """Limit points on the skewed problem, and the points at which simulations settle.

    - `bias`, `bias_stderr` over (sampling, plateau_q), and `small_bias` over (small_sampling,
      small_q): |∇f| at the limit point.
    - `settled` over (many_seed, plateau_q, settled_over): means of the iterate over the windows of
      `runs.SETTLED`, with the study's sampling scheme.
    """
    key = stream_key(spec.seed)

    def limit(sampling: Sampling, q: float) -> tuple[np.ndarray, np.ndarray]:
        point = _attracting(
            noisy("skewed", SKEWED_N),
            adam.Hyperparameters(1.0, q),
            sampling,
            starts=np.array([[-0.9], [1.1]]),
            key=key,
            num_samples=8 * spec.num_samples,
        )
        return np.asarray(point.gradient_norm), np.asarray(point.stderr[0])

    def kept(sampling: Sampling, q: float) -> Sequence[np.ndarray]:
        return pieces.keep(f"limit {sampling} {q}", partial(limit, sampling, q))

    bias = np.array([[kept(scheme, float(q)) for q in _PLATEAU_Q] for scheme in SAMPLINGS])
    small = np.array([[kept(scheme, q)[0] for q in _SMALL_Q] for scheme in _RANDOM_ORDERS])
    runs = spec.run(
        [member("skewed", SKEWED_N, spec.seed)],
        adam.Hyperparameters(np.ones_like(_PLATEAU_Q), _PLATEAU_Q),
        num_seeds=4 * spec.num_seeds,
        dtype="float64",
        pieces=pieces.within("settled"),
    )
    dims, over = ("sampling", "plateau_q"), ("many_seed", "plateau_q", "settled_over")
    at_limit = "|∇f| at the limit point"
    return {
        "settled": variable(over, runs.settled[0, :, :, :, 0], "mean iterate"),
        "small_bias": variable(("small_sampling", "small_q"), small, at_limit),
        "bias_stderr": variable(dims, bias[..., 1], "standard error of the bias"),
        "bias": variable(dims, bias[..., 0], at_limit),
    }


def _attracting(problem: problems.FiniteSum, *arguments: Any, **settings: Any) -> LimitPoint:
    """The attracting limit point with the smallest gradient."""
    points = [p for p in limit_points(problem, *arguments, **settings) if p.attracting]
    if not points:
        raise ValueError(f"no attracting limit point of {type(problem).__name__} was found")
    return min(points, key=lambda point: point.gradient_norm)


def many_dimensions(spec: TheoremSpec, pieces: Pieces) -> Mapping[str, xr.Variable]:
    """Limit points of random members in many dimensions, and where simulations settle.

    - `many_miss` over (many, more_seed, settled_over): distance of the mean iterate from the limit
      point along the bias, as a fraction of the bias.
    - `many_gradient` over (many, member, many_q): ‖∇f‖ at the limit point.
    """
    n, seeds = 5, 6 * spec.num_seeds
    gradients = np.empty((len(MANY_DIMENSIONS), _MEMBERS, len(_MANY_Q)))
    misses = np.empty((len(MANY_DIMENSIONS), seeds, len(SETTLED)))
    for i, (family, dimension) in enumerate(MANY_DIMENSIONS.items()):
        # noise that is large compared with a step
        problem_class = ProblemClass(n, 1.0, 100.0 if "quadratics" in family else 0.05, 6.0 * n)
        for j in range(_MEMBERS):
            key = stream_key(spec.seed + 1 + j)
            random = problems.random_member(problem_class, family, dimension, key)
            minimiser = np.asarray(random.problem.minimiser, np.float64)
            points = [
                _attracting(
                    random.problem,
                    adam.Hyperparameters(0.5, q),
                    spec.sampling,
                    starts=minimiser[None],
                    key=key,
                    num_samples=8 * spec.num_samples,
                )
                for q in _MANY_Q
            ]
            gradients[i, j] = [point.gradient_norm for point in points]
            if j == 0:
                runs = spec.run(
                    [random],
                    adam.Hyperparameters(np.array([0.5]), np.array(_MANY_Q[:1])),
                    num_steps=min(spec.num_steps, 200_000),
                    num_seeds=seeds,
                    starts=[minimiser],
                    dtype="float64",
                    pieces=pieces.within(family),
                )
                bias = points[0].x - minimiser
                settled = runs.settled[0, :, 0] - points[0].x  # (seed, window, coordinate)
                misses[i] = settled @ bias / (bias @ bias)
    miss = "mean iterate minus x̂ along x̂ − x*, as a fraction of x̂ − x*"
    return {
        "many_gradient": variable(
            ("many", "member", "many_q"), gradients, "‖∇f‖ at the limit point"
        ),
        "many_miss": variable(("many", "more_seed", "settled_over"), misses, miss),
    }


class SettledLimit(NamedTuple):
    """The point at which each run settles as η → 0, and an estimate of its error."""

    value: Float[np.ndarray, "..."]
    remainder: Float[np.ndarray, "..."]  # change of the value due to the third window


def settled_limit(settled: Float[np.ndarray, "... 3"]) -> SettledLimit:
    """Extrapolates the means over `runs.SETTLED` to η = 0.

    Steps of size η shift the mean of the iterate by c·η + c'·η² + O(η³). From one window to the
    next η doubles and η² quadruples, so two windows remove the first term and three remove both
    (Richardson). The remainder, the change from two windows to three, is an estimate and not a
    bound; it reflects higher orders and runs that have not settled.
    """
    late, earlier, earliest = np.moveaxis(settled, -1, 0)
    first, before = 2 * late - earlier, 2 * earlier - earliest
    return SettledLimit((4 * first - before) / 3, (first - before) / 3)


def window(spec: TheoremSpec, pieces: Pieces) -> Mapping[str, xr.Variable]:
    """`window` over (window_n, window_q, window_step), `window_stationarity` by seed.

    The left-hand side against 1 − β2 at several T: too small a β2 is biased, too large a β2 slow.
    """
    q = np.geomspace(1e-10, 1, 41)
    runs = spec.run(
        [member("skewed", n, spec.seed) for n in _WINDOW_N],
        adam.Hyperparameters(np.ones_like(q), q),
        dtype="float64",
        num_seeds=4 * spec.num_seeds,
        pieces=pieces,
    )
    by_seed = runs.stationarity.swapaxes(0, 1)
    over = ("window_n", "window_q", "window_step")
    bounded = "the quantity that the theorem bounds, by seed"
    return {
        "window_q": variable("window_q", q, "1 − β2"),
        "window_n": variable("window_n", _WINDOW_N, "n", dtype=np.int64),
        "window_step": variable("window_step", runs.steps, "T", dtype=np.int64),
        "window_stationarity": variable(("many_seed", *over), by_seed, bounded),
        "window": variable(over, left_hand_side(by_seed)[0], "left-hand side"),
    }
