"""The conditions of the theorems: β1 < √β2, the threshold on β2, and any dimension."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np
import xarray as xr

from adam_transition import adam, problems
from adam_transition.problems import Family, Member, ProblemClass
from adam_transition.sampling import stream_key
from adam_transition.studies.runs import OCTAVES, octaves
from adam_transition.studies.theorems.spec import TheoremSpec
from adam_transition.sweeps.pieces import Pieces
from adam_transition.sweeps.study import variable
from adam_transition.theory import laws
from adam_transition.theory.convergence import left_hand_side

DIMENSIONS: dict[Family, int] = {
    "realizable_quadratics": 50,
    "nonrealizable_quadratics": 10,
    "logistic": 10,
    "geman_mcclure": 10,
}
"""Families of random members whose left-hand side is measured, and their dimensions."""

_N = 5
_MEMBERS = 3  # random ones of each family
_BETA1 = (0.0, 0.5, 0.8)
_Q = np.geomspace(0.3, 1e-3, 8)
_LINE_N, _LINE_Q = 10, 0.1
_THRESHOLD_N = (5, 10, 20, 30)

NAMES: Mapping[str, Sequence[str]] = {"dimensions": tuple(DIMENSIONS)}
"""Axes of names."""


def axes(spec: TheoremSpec) -> dict[str, tuple[str, np.ndarray, str]]:
    """Axes of numbers: dimension, values, label."""
    return {
        "dimensions_octave": ("dimensions_octave", octaves(_num_steps(spec)), "T"),
        "dimensions_beta1": ("dimensions_beta1", np.array(_BETA1), "β1"),
        "dimensions_q": ("dimensions_q", _Q, "1 − β2"),
    }


def _num_steps(spec: TheoremSpec) -> int:
    return min(spec.num_steps, 60_000)


def dimensions(spec: TheoremSpec, pieces: Pieces) -> Mapping[str, xr.Variable]:
    """The left-hand side of random members in many dimensions, convex and non-convex.

    `dimensions_lhs` over (dimensions, dimensions_beta1, dimensions_q) is that of one member per
    family; `dimensions_stationarity` over (member, seed, dimensions_beta1, dimensions_q,
    dimensions_octave) is for the members with D0 = 0.
    """
    beta1, q = (axis.ravel() for axis in np.meshgrid(_BETA1, _Q, indexing="ij"))
    lhs = []
    shape = (len(_BETA1), len(_Q))
    for family, dimension in DIMENSIONS.items():
        d0 = {"realizable_quadratics": 0.0, "geman_mcclure": 0.02}.get(family, 0.1)
        problem_class = ProblemClass(_N, 1.0, d0, 6.0 * _N)
        keys = [stream_key(spec.seed + 2 + j) for j in range(_MEMBERS if d0 == 0 else 1)]
        drawn = [problems.random_member(problem_class, family, dimension, key) for key in keys]
        runs = spec.run(
            [problems.centred(member) for member in drawn] if d0 == 0 else drawn,
            adam.Hyperparameters(1 - beta1, q),
            num_steps=_num_steps(spec),
            starts=[np.asarray(jax.random.normal(key, (dimension,)), np.float64) for key in keys],
            moves_unit=d0 == 0,
            pieces=pieces.within(family),
        )
        lhs.append(left_hand_side(runs.stationarity[0])[0][:, -1])
        if d0 == 0:
            stationarity = runs.mean_stationarity
    dims = ("dimensions", "dimensions_beta1", "dimensions_q")
    every = ("member", "seed", *dims[1:], "dimensions_octave")
    return {
        "dimensions_lhs": variable(
            dims,
            np.reshape(lhs, (len(DIMENSIONS), *shape)),
            "left-hand side at T",
            dtype=np.float64,
        ),
        "dimensions_stationarity": variable(
            every,
            stationarity.reshape(*stationarity.shape[:2], *shape, OCTAVES),
            "mean over (T/2, T], D0 = 0",
            dtype=np.float64,
        ),
    }


def line(spec: TheoremSpec, pieces: Pieces) -> Mapping[str, xr.Variable]:
    """`line` over (line_beta1, line_step), `line_stationarity` over (seed, line_beta1, octave).

    The left-hand side across β1 = √β2 at a β2 above the boundary, on the counterexample.
    """
    ratio = np.concatenate([np.linspace(0, 0.9, 10), np.linspace(0.91, 1.04, 27)])
    beta1 = ratio * np.sqrt(1 - _LINE_Q)
    problem = problems.counterexample(_LINE_N)
    runs = spec.run(
        [problems.centred(Member(problem, problem.problem_class(), exact=True))],
        adam.Hyperparameters(1 - beta1, np.full_like(beta1, _LINE_Q)),
        moves_unit=True,
        pieces=pieces,
    )
    lhs, _ = left_hand_side(runs.stationarity[0])
    dims = ("seed", "line_beta1", "octave")
    return {
        "line_ratio": variable("line_beta1", ratio, "β1/√β2"),
        "line_step": variable("line_step", runs.steps, "T", dtype=np.int64),
        "line_stationarity": variable(
            dims, runs.mean_stationarity[0], "mean over (T/2, T]", dtype=np.float64
        ),
        "line": variable(("line_beta1", "line_step"), lhs, "left-hand side", dtype=np.float64),
    }


def threshold(spec: TheoremSpec) -> Mapping[str, xr.Variable]:
    """`threshold`, `threshold_stderr` over (threshold_a, threshold_n): 1 − β2* at β1 = 0.

    For the study's sampling scheme and two slopes, a = 1/(n−1)² and a = 1.
    """
    values = np.empty((2, 2, len(_THRESHOLD_N)))
    for i, a in enumerate(([1 / (n - 1) ** 2 for n in _THRESHOLD_N], [1.0] * len(_THRESHOLD_N))):
        edges = laws.upper_edges(_THRESHOLD_N, a, 0.0, spec.sampling)
        values[:, i] = np.array(
            [(edge.one_minus_beta2, edge.stderr) if edge else (np.nan, np.nan) for edge in edges]
        ).T
    dims = ("threshold_a", "threshold_n")
    return {
        "threshold_n": variable("threshold_n", _THRESHOLD_N, "n", dtype=np.int64),
        "threshold_stderr": variable(dims, values[1], "its error"),
        "threshold": variable(dims, values[0], "1 − β2*, β1 = 0"),
    }
