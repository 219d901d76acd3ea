"""The exact diagram against the simulated one, and the drift of the random orders three ways.

Cost: seconds to find the sign of the drift in every cell of a side × side grid (counterexample,
n = 20), by the stationary drift and by 50 000 steps of Adam, without compilation; and the share of
cells that agree.

The grid as a product of two matrices, against the same cells one by one, and the largest
difference, in units of the drift of |g|.

Random orders: seconds for a 25-cell grid by the exact integral and by chains of Adam, and the error
of the chains; the error of the integral is that of rounding.

Near β2 = 1: seconds for one cell of the random orders (n = 20), by series and recursions as they
are used, and by recursions from s = 0 on alone; and the difference in units of the drift of |g|.

Accuracy: the drift with replacement and under random shuffling from independent chains, and from
chains in groups that form a Latin square, with equal numbers of steps: the ratio of their
variances, the squared standard errors averaged over the grid.

    python -m benchmarks.drift
"""

import argparse
import dataclasses
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from adam_transition import adam, sampling
from adam_transition.problems.constructions import counterexample_table
from adam_transition.sampling import RANDOM
from adam_transition.studies.phase import backends, diagram, simulation
from adam_transition.sweeps import sweep
from adam_transition.theory import random_sampling
from adam_transition.theory.chains import Histories, draw_histories
from adam_transition.theory.stationary_drift import stationary_drift

N = 20


def main() -> None:
    parser = argparse.ArgumentParser(description="Exact and simulated diagrams; random drift.")
    parser.add_argument("--side", type=int, default=256, help="cells are side × side")
    parser.add_argument("--steps", type=int, default=50_000, help="steps of the simulation")
    parser.add_argument("--samples", type=int, default=100_000, help="steps of a random drift")
    arguments = parser.parse_args()
    beta = np.arange(arguments.side) / arguments.side
    hyper = adam.Hyperparameters(1 - beta[:, None], 1 - beta)
    table = counterexample_table(N)

    simulated, simulation_s = _best(_simulation(beta, arguments.steps), 2)
    exact, exact_s = _best(lambda: stationary_drift(table, hyper).drift[..., 0] > 0, 5)
    print(f"{beta.size**2} cells, n = {N}, cyclic; agreement {np.mean(exact == simulated):.4f}")
    print(f"simulated  {simulation_s:8.3f} s   {arguments.steps} steps a cell")
    print(f"exact      {exact_s:8.3f} s   ratio {simulation_s / exact_s:.0f}")

    _grid_against_cells()

    coarse = np.array([0.0, 0.3, 0.5, 0.7, 0.9])
    few = adam.Hyperparameters(1 - coarse[:, None], 1 - coarse)
    print("\nthe random orders, 25 cells: exact and from chains")
    for scheme in RANDOM:
        chains = draw_histories(
            table, scheme, sampling.stream_key(0), memory=10, num_samples=arguments.samples
        )
        integral = partial(stationary_drift, table, few, scheme)
        estimate = partial(integral, histories=chains)
        exact, exact_s = _best(lambda f=integral: f().drift, 3)  # type: ignore[misc]
        rough, rough_s = _best(lambda f=estimate: f().drift, 3)  # type: ignore[misc]
        error = np.sqrt(np.mean((rough - exact) ** 2))
        print(
            f"{scheme:17}  exact {exact_s:6.3f} s   chains {rough_s:6.3f} s, error {error:.1e}; "
            f"to an error of 1e-4 they take about {rough_s * (error / 1e-4) ** 2:.0f} s"
        )

    _near_one()

    print("\nvariance of independent chains over ours, at equal steps")
    for scheme in RANDOM:
        key = sampling.stream_key(0)
        ours = draw_histories(table, scheme, key, memory=10, num_samples=arguments.samples)
        variances = [
            np.mean(stationary_drift(table, few, scheme, histories=histories).stderr ** 2)
            for histories in (_independent(ours, scheme), ours)
        ]
        print(f"{scheme:17}  {variances[0] / variances[1]:6.1f}")


def _grid_against_cells(side: int = 1024) -> None:
    beta = np.arange(side) / side
    grid = adam.Hyperparameters(1 - beta[:, None], 1 - beta)
    cells = adam.Hyperparameters(
        *(np.ravel(one) for one in np.broadcast_arrays(grid.one_minus_beta1, grid.one_minus_beta2))
    )
    print(f"\ncyclic, {side}²: cells one by one, and the grid as a product")
    for n in (20, 50):
        table = counterexample_table(n)
        by_cells, cells_s = _best(lambda t=table: stationary_drift(t, cells).drift, 5)  # type: ignore[misc]
        product, grid_s = _best(lambda t=table: stationary_drift(t, grid).drift, 5)  # type: ignore[misc]
        unit = np.abs(stationary_drift(abs(table), grid).drift)
        error = (np.abs(by_cells.reshape(product.shape) - product) / unit).max()
        print(
            f"n = {n}: {side**2 / cells_s:.2e} cells/s, {side**2 / grid_s:.2e}; ratio "
            f"{cells_s / grid_s:.0f}, difference {error:.0e}"
        )


def _near_one() -> None:
    print("\none cell near β2 = 1: with series, and by recursions alone")
    table = counterexample_table(N)
    for scheme in RANDOM:
        for q in (1e-2, 1e-3, 1e-4, 1e-5, 1e-7):
            cell = adam.Hyperparameters(0.5, np.array([q]))
            drift = partial(stationary_drift, table, cell, scheme)
            begun, begun_s = _best(lambda f=drift: f().drift, 2)  # type: ignore[misc]
            line = f"{scheme:17}  1 − β2 = {q:g}: {begun_s:7.4f} s"
            if q >= 1e-4:
                usual = random_sampling._LARGEST_Q_OF_SERIES
                random_sampling._LARGEST_Q_OF_SERIES = 0.0
                alone, alone_s = _best(lambda f=drift: f().drift, 1)  # type: ignore[misc]
                random_sampling._LARGEST_Q_OF_SERIES = usual
                unit = stationary_drift(abs(table), cell, scheme).drift
                error = float(np.abs((begun - alone) / unit).max())
                line += f", {alone_s:7.3f} s; ratio {alone_s / begun_s:.0f}, difference {error:.0e}"
            print(line)


def _simulation(beta: np.ndarray, num_steps: int) -> Callable[[], np.ndarray]:
    spec = diagram.PhaseDiagram(
        "counterexample", (N,), ("cyclic",), beta, beta, num_steps=num_steps
    )
    spec = dataclasses.replace(spec, backend=backends.fastest_backend(spec))
    program = backends.program(spec, "cyclic")
    diverged = np.empty(spec.table, bool)

    def simulate() -> np.ndarray:
        sweep.run(
            program,
            simulation.rows(spec, None),
            simulation.cells(spec),
            tile=backends.tile_shape(spec),
            chunk=spec.table,
            write=lambda block, values: diverged.__setitem__(block, values["diverged"]),
        )
        return diverged[0].reshape(beta.size, beta.size)

    return simulate


def _independent(like: Histories, scheme: str) -> Histories:
    """Histories of the same size with independent chains."""
    n, rng = like.num_components, np.random.default_rng(1)
    count, num_steps, num_chains = like.batches.shape
    if scheme == "with_replacement":
        return like._replace(batches=rng.integers(0, n, like.batches.shape))
    epochs = np.broadcast_to(np.arange(n), (count, num_steps // n, num_chains, n))
    shuffled = np.moveaxis(rng.permuted(epochs, axis=3), 3, 2)
    return like._replace(batches=shuffled.reshape(like.batches.shape))


def _best(function: Callable[[], np.ndarray], repeats: int) -> tuple[np.ndarray, float]:
    """The result, and the minimum time of some calls after a first one."""
    result, times = function(), []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return result, min(times)


if __name__ == "__main__":
    main()
