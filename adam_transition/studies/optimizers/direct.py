"""Muon on matrices, and the climb of ADOPT: drifts beside direct runs on the counterexample."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from jaxtyping import Array

from adam_transition import adam, problems
from adam_transition.optimizers import Optimizer, muon_of_matrices
from adam_transition.problems.matrices import KINDS
from adam_transition.sampling import stream_key
from adam_transition.simulate import Method, simulate
from adam_transition.sweeps.pieces import Pieces
from adam_transition.sweeps.study import variable
from adam_transition.theory import laws
from adam_transition.theory.rule_boundary import rule_intervals
from adam_transition.theory.rule_drift import drift_of_optimizer

MATRIX_N = 20
"""Number of components of the matrix counterexample."""

MOMENTA = np.array([0.0, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99])

CLIMB_N = (10, 14, 20)
CLIMB_BETA2 = np.array([0.0, 0.3, 0.5])

_SLOPES = None, 1.0  # a; None: 1/(n−1)²
_LEAST = 1e-2  # 1 − β of the scans on matrices
_MATRIX_STEPS = 20_000


def coordinates(sizes: Sequence[int], noise: Sequence[float]) -> xr.Dataset:
    """The labelled axes; `law` is 0 for a = 1/(n−1)² and 1 for a = 1."""
    size = {"long_name": "rows and columns of a matrix", "units": "1"}
    return xr.Dataset(
        coords={
            "kind": ("kind", np.array(KINDS, dtype=object)),
            "size": ("size", np.array(sizes), size),
            "noise": ("noise", np.array(noise), {"long_name": "noise σ", "units": "1"}),
            "momentum": ("momentum", MOMENTA, {"long_name": "momentum", "units": "1"}),
            "law": ("law", np.arange(2), {"long_name": "0: a = 1/(n−1)², 1: a = 1"}),
            "climb_n": ("climb_n", np.array(CLIMB_N), {"long_name": "n", "units": "1"}),
            "climb_beta2": ("climb_beta2", CLIMB_BETA2, {"long_name": "β2", "units": "1"}),
        }
    )


def matrices(
    sizes: Sequence[int], noise: Sequence[float], seed: int, pieces: Pieces
) -> Mapping[str, xr.Variable]:
    """Muon on the matrix counterexample, cyclic order: thresholds without and with noise, and runs.

    Matrices of all kinds have the largest size, and in the runs also the smallest noise.

    `fixed_threshold` (kind, law) and `noisy_threshold` (size, noise, law) are the largest momentum
    that diverges, 0 if none does; `noisy_intervals` is the number of intervals that diverge.
    `height_change` (momentum, law) is the change of ⟨A, X⟩ in a run, and `matrix_drift` the drift
    along A.
    """
    fixed = np.empty((len(KINDS), 2))
    jobs: dict[tuple, Callable] = {}
    for i, k in np.ndindex(*fixed.shape):
        direction = _direction(seed, max(sizes), KINDS[i])
        jobs["fixed", i, k] = partial(_threshold, _SLOPES[k], direction, 0.0, seed)
    noisy = np.empty((2, len(sizes), len(noise), 2))
    for i, j, k in np.ndindex(*noisy.shape[1:]):
        direction = _direction(seed, sizes[i], "generic")
        jobs["noisy", i, j, k] = partial(_threshold, _SLOPES[k], direction, noise[j], seed)
    direction = _direction(seed, max(sizes), "generic")
    for k, a in enumerate(_SLOPES):
        jobs["runs", k] = partial(_runs, a, direction, min(noise), seed)
    found = pieces.keep_all(jobs)
    for i, k in np.ndindex(*fixed.shape):
        fixed[i, k], _ = found["fixed", i, k]
    for i, j, k in np.ndindex(*noisy.shape[1:]):
        noisy[:, i, j, k] = found["noisy", i, j, k]
    runs = [found["runs", k] for k in range(len(_SLOPES))]
    change, drift = (np.stack(values, axis=-1) for values in zip(*runs, strict=True))
    text = "largest momentum at which Muon diverges"
    return {
        "fixed_threshold": variable(("kind", "law"), fixed, f"{text}, no noise"),
        "noisy_threshold": variable(("size", "noise", "law"), noisy[0], text),
        "noisy_intervals": variable(("size", "noise", "law"), noisy[1], "intervals of divergence"),
        "height_change": variable(("momentum", "law"), change, "change of ⟨A, X⟩ in a run"),
        "matrix_drift": variable(("momentum", "law"), drift, "drift along A", "1 / epoch"),
    }


def _direction(seed: int, size: int, kind: str) -> np.ndarray:
    return problems.fixed_matrix(kind, size, np.random.default_rng([seed, size]))


def _problem(a: float | None, direction: np.ndarray, noise: float, seed: int) -> problems.FiniteSum:
    generator = np.random.default_rng([seed, len(direction), 1])
    across = problems.noise_across(direction, MATRIX_N, noise, generator)
    return problems.matrix_counterexample(MATRIX_N, a, direction, across)


def _table(problem: problems.FiniteSum, direction: np.ndarray) -> np.ndarray:
    with jax.enable_x64(True):
        x = jnp.asarray(direction.ravel())
        return np.asarray(problems.component_gradients(problem, x, MATRIX_N))


def _threshold(a: float | None, direction: np.ndarray, noise: float, seed: int) -> list[np.ndarray]:
    """The largest momentum that diverges, and the number of intervals."""
    table = _table(_problem(a, direction, noise, seed), direction)
    optimizer = muon_of_matrices(*direction.shape)
    scan = rule_intervals(table, optimizer, 0.0, along=direction.ravel(), least=_LEAST)
    found = scan.diverges
    greatest = found[-1].high.beta2 if found else 0.0
    return [np.array(greatest), np.array(float(len(found)))]


def _runs(a: float | None, direction: np.ndarray, noise: float, seed: int) -> list[np.ndarray]:
    """Change of ⟨A, X⟩ from X = A on, and the drift along A; each of shape (momentum,)."""
    problem, along = _problem(a, direction, noise, seed), direction.ravel()
    optimizer = muon_of_matrices(*direction.shape)
    x = _iterates(problem, optimizer, along, MOMENTA, np.zeros_like(MOMENTA), _MATRIX_STEPS)
    p = 1 - MOMENTA
    drift = drift_of_optimizer(_table(problem, direction), optimizer, adam.Hyperparameters(p, p))
    return [x[:, -1] @ along - along @ along, drift.drift @ along]


def _iterates(
    problem: problems.FiniteSum,
    optimizer: Optimizer,
    x0: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    num_steps: int,
) -> np.ndarray:
    """Iterates in float64 and cyclic order, after every epoch; one run for each pair of β."""
    n = int(np.asarray(problem.num_components))
    method = Method("cyclic", rule=optimizer.rule)

    def run(p: Array, q: Array) -> Array:
        return simulate(
            problems.as_arrays(problem, jnp.float64), adam.Hyperparameters(p, q), jnp.asarray(x0),
            0.1, stream_key(0), method=method, num_steps=num_steps, record_every=n,
            max_components=n,
        ).x  # fmt: skip

    with jax.enable_x64(True):
        pairs = (jnp.asarray(1 - beta) for beta in (first, second))
        return np.asarray(jax.jit(jax.vmap(run))(*pairs))


def climbs(adopt: Optimizer, pieces: Pieces) -> Mapping[str, xr.Variable]:
    """`climb` and `climb_law` over (climb_n, climb_beta2, law): steps until ADOPT turns round.

    The step after which the iterate of a run is largest, to one epoch, and the S⁴ of
    `laws.adopt_climb`; β1 = 0, cyclic order.
    """
    shape = len(CLIMB_N), len(CLIMB_BETA2), 2
    values = np.empty((2, *shape))
    for j, n in enumerate(CLIMB_N):
        for k, a in enumerate(_SLOPES):
            values[:, j, :, k] = pieces.keep(f"climb {j} {k}", partial(_climb, adopt, n, a))
    dims = ("climb_n", "climb_beta2", "law")
    return {
        "climb": variable(dims, values[0], "steps until the iterate is largest", "step"),
        "climb_law": variable(dims, values[1], "S⁴", "step"),
    }


def _climb(adopt: Optimizer, n: int, a: float | None) -> list[np.ndarray]:
    law = np.array([laws.adopt_climb(n, a, float(beta2)) for beta2 in CLIMB_BETA2])
    num_steps = int(1.5 * law.max()) + 10 * n
    problem = problems.counterexample(n, a)
    zero = np.zeros_like(CLIMB_BETA2)
    x = _iterates(problem, adopt, np.array(1.0), zero, CLIMB_BETA2, num_steps)
    return [(x.argmax(axis=1) + 1.0) * n, law]
