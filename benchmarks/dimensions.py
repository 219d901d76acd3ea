"""Problems in several coordinates, in blocks and without, against their own loop in C, in one run.

Adam in float32 on quadratics f_i = ½ xᵀH_i x in d coordinates (n = 20, cyclic order, ε = 0,
η_k = 0.1/√k) for the same random cells (β1, β2). Rates are updates of a whole point per second, the
best of the repetitions, without compilation. Typical output: see BUILD.md.

    python -m benchmarks.dimensions
"""

import argparse
import functools
import time
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from adam_transition import sampling
from adam_transition.problems import realizable_quadratics, stack
from adam_transition.studies.phase import diagram, simulation
from benchmarks import c_loop, results
from benchmarks.simulation import Run, run_of_diagram

N, STEP_SIZE, X0 = 20, 0.1, 1.0


def library(
    dimension: int, beta1: np.ndarray, beta2: np.ndarray, num_steps: int, backend: diagram.Backend
) -> Run:
    """A run of these cells with the backend."""
    spec = diagram.PhaseDiagram(
        problem="realizable_quadratics",
        num_components=(N,),
        samplings=("cyclic",),
        beta1=beta1[None].astype(np.float64),
        beta2=beta2[None].astype(np.float64),
        num_steps=num_steps,
        x0=X0,
        step_size=STEP_SIZE,
        backend=backend,
    )
    rows = simulation.Row(
        problem=stack([realizable_quadratics(N, dimension)], np.dtype(np.float32)),
        key=sampling.stream_key(0)[None],
        x0=jnp.full((1, dimension), X0),
        step_size=jnp.full(1, STEP_SIZE),
        epsilon=jnp.zeros(1),
        has_neighbourhood=jnp.zeros(1, bool),
    )
    return run_of_diagram(spec, rows)


def c(dimension: int, beta1: np.ndarray, beta2: np.ndarray, num_steps: int) -> Run:
    problem, k = realizable_quadratics(N, dimension), np.arange(num_steps)
    tables = problem.hessians, problem.centres, STEP_SIZE / np.sqrt(k + 1)
    return functools.partial(c_loop.quadratics(k % N, *tables, X0), 1 - beta1, 1 - beta2)


def measure(
    dimension: int, num_cells: int, num_steps: int, repeats: int
) -> dict[str, tuple[float, float]]:
    """Updates per second, and the median |Δgap| to C after 200 steps, by contestant."""
    generator = np.random.default_rng(0)
    beta1, beta2 = generator.uniform(0, 0.999, (2, num_cells)).astype(np.float32)
    contestants: dict[str, Callable[..., Run]] = {
        "blocks": functools.partial(library, backend="blocks"),
        "xla": functools.partial(library, backend="xla"),
        "c": c,
    }
    few = {name: make(dimension, beta1, beta2, 200)() for name, make in contestants.items()}
    runs = {name: make(dimension, beta1, beta2, num_steps) for name, make in contestants.items()}
    best = dict.fromkeys(runs, float("inf"))
    for repeat in range(repeats + 1):  # interleaved, so that disturbances affect all alike
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            if repeat:  # the first compiles
                best[name] = min(best[name], time.perf_counter() - started)
    return {
        name: (num_cells * num_steps / best[name], float(np.median(np.abs(few[name] - few["c"]))))
        for name in runs
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Blocks, XLA's path and C in several dimensions.")
    parser.add_argument("--dimensions", default="1,2,3,5,10")
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=4)
    arguments = parser.parse_args()
    print(f"updates of a point per second on {results.device()}, {arguments.cells} cells")
    print(" d    blocks       xla         c  blocks/xla  blocks/c  median |Δgap| to c")
    for dimension in map(int, arguments.dimensions.split(",")):
        found = measure(dimension, arguments.cells, arguments.steps, arguments.repeats)
        blocks, xla, limit = (found[name][0] for name in ("blocks", "xla", "c"))
        print(
            f"{dimension:2}  {blocks:8.2e}  {xla:8.2e}  {limit:8.2e}  {blocks / xla:10.2f}"
            f"  {blocks / limit:8.2f}  {found['blocks'][1]:18.1e}"
        )


if __name__ == "__main__":
    main()
