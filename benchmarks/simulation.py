"""The library's many-cell simulation against common alternatives, in one run.

Every contestant runs Adam in float32 on the counterexample (n = 20, cyclic order, ε = 0,
η_k = 0.1/√k) for the same random cells (β1, β2), and the results are compared:

  library           what `experiments.phase` runs
  c                 a loop in C, compiled at run time, on all cores: the CPU's limit
  optax             the usual idiom: vmap + scan over optax.inject_hyperparams(optax.adam)
  numpy             the update written on arrays of all cells
  pytorch           the same on tensors, eager (if torch is installed)
  pytorch_compiled  the same through torch.compile

Rates are Adam updates per second, the best of the repetitions, without compilation; the number of
steps is such that a repetition takes about `--seconds`. Ratios are the library's rate over that of
the alternative. Writes simulation.zarr and a figure to `--out`. Typical output: see BUILD.md.

    python -m benchmarks.simulation
"""

import argparse
import dataclasses
import functools
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr

from adam_transition.problems import counterexample
from adam_transition.studies.phase import backends, diagram, simulation
from adam_transition.sweeps import sweep
from benchmarks import c_loop, results

N, STEP_SIZE, X0, MINIMISER = 20, 0.1, 1.0, -2.0
C, A = 1 + 1 / (N - 1), 1 / (N - 1) ** 2
LEAST_STEPS, MOST_STEPS = 32, 1 << 20
COMPARED_STEPS = 200

Run = Callable[[], np.ndarray]
Contestant = Callable[[np.ndarray, np.ndarray, int], Run]
"""(β1, β2, number of steps) → a run that returns the gap of each cell."""


def library(beta1: np.ndarray, beta2: np.ndarray, num_steps: int) -> Run:
    spec = diagram.PhaseDiagram(
        problem="counterexample",
        num_components=(N,),
        samplings=("cyclic",),
        beta1=beta1[None].astype(np.float64),
        beta2=beta2[None].astype(np.float64),
        num_steps=num_steps,
        x0=X0,
        step_size=STEP_SIZE,
    )
    spec = dataclasses.replace(spec, backend=backends.fastest_backend(spec))
    return run_of_diagram(spec, simulation.rows(spec, None))


def run_of_diagram(spec: diagram.PhaseDiagram, rows: simulation.Row) -> Run:
    """A run of all cells in cyclic order, as `experiments.phase` makes it."""
    program, cells = backends.program(spec, "cyclic"), simulation.cells(spec)
    gap = np.empty(spec.table, np.float32)

    def simulate() -> np.ndarray:
        sweep.run(
            program,
            rows,
            cells,
            tile=backends.tile_shape(spec),
            chunk=spec.table,
            write=lambda block, values: gap.__setitem__(block, values["gap"]),
        )
        return gap[0]

    return simulate


def c(beta1: np.ndarray, beta2: np.ndarray, num_steps: int) -> Run:
    k = np.arange(num_steps)
    slopes = np.where(k % N == 0, C, -A)
    simulate = c_loop.simulation(slopes, STEP_SIZE / np.sqrt(k + 1), X0, MINIMISER)
    return functools.partial(simulate, 1 - beta1, 1 - beta2)


def optax_idiom(beta1: np.ndarray, beta2: np.ndarray, num_steps: int) -> Run:
    problem = counterexample(N, A)

    def train(beta1: jax.Array, beta2: jax.Array) -> jax.Array:
        optimizer = optax.inject_hyperparams(optax.adam)(
            learning_rate=lambda k: STEP_SIZE / jnp.sqrt(k + 1.0), b1=beta1, b2=beta2, eps=0.0
        )

        def step(carry: tuple, k: jax.Array) -> tuple[tuple, None]:
            x, state = carry
            gradient = jax.grad(lambda x: problem.value(k % N, x))(x)
            updates, state = optimizer.update(gradient, state, x)
            return (optax.apply_updates(x, updates), state), None

        x0 = jnp.float32(X0)
        (x, _), _ = jax.lax.scan(step, (x0, optimizer.init(x0)), jnp.arange(num_steps))
        return jnp.abs(x - MINIMISER)

    compiled = jax.jit(jax.vmap(train))
    return lambda: np.asarray(compiled(beta1, beta2))


def numpy_arrays(beta1: np.ndarray, beta2: np.ndarray, num_steps: int) -> Run:
    p, q = 1 - beta1, 1 - beta2

    def simulate() -> np.ndarray:
        x, m, v = np.full_like(p, X0), np.zeros_like(p), np.zeros_like(p)
        for k in range(num_steps):
            g = np.float32(C if k % N == 0 else -A) * np.minimum(x + np.float32(2), np.float32(1))
            m = beta1 * m + p * g
            v = beta2 * v + q * g * g
            direction = np.divide(m, np.sqrt(v), out=np.zeros_like(m), where=v > 0)
            x = x - np.float32(STEP_SIZE / np.sqrt(k + 1)) * direction
        return np.abs(x - np.float32(MINIMISER))

    return simulate


def pytorch(beta1: np.ndarray, beta2: np.ndarray, num_steps: int, *, compiled: bool = False) -> Run:
    import torch

    b1, b2 = torch.from_numpy(beta1), torch.from_numpy(beta2)
    p, q = 1 - b1, 1 - b2

    def step(x, m, v, slope, step_size):  # type: ignore[no-untyped-def]
        g = slope * torch.clamp(x + 2, max=1)
        m = b1 * m + p * g
        v = b2 * v + q * g * g
        return x - step_size * torch.where(v > 0, m / torch.sqrt(v), 0), m, v

    k = np.arange(num_steps)
    slopes = torch.from_numpy(np.where(k % N == 0, C, -A).astype(np.float32))
    step_sizes = torch.from_numpy((STEP_SIZE / np.sqrt(k + 1)).astype(np.float32))
    take = torch.compile(step) if compiled else step

    def simulate() -> np.ndarray:
        x, m, v = torch.full_like(p, X0), torch.zeros_like(p), torch.zeros_like(p)
        for slope, step_size in zip(slopes, step_sizes, strict=True):
            x, m, v = take(x, m, v, slope, step_size)
        return torch.abs(x - MINIMISER).numpy()

    return simulate


def contestants() -> dict[str, Contestant]:
    """The contestants that this machine can run."""
    found: dict[str, Contestant] = {"library": library}
    if jax.default_backend() == "cpu" and c_loop.compiler():
        found["c"] = c
    found |= {"optax": optax_idiom, "numpy": numpy_arrays}
    if importlib.util.find_spec("torch"):
        found["pytorch"] = pytorch
        found["pytorch_compiled"] = functools.partial(pytorch, compiled=True)
    return found


def measure(num_cells: int, seconds: float, repeats: int) -> dict[str, tuple[float, float, int]]:
    """Rate, median |Δgap| to the library after a few steps, and steps per run, by contestant."""
    generator = np.random.default_rng(0)
    beta1, beta2 = generator.uniform(0, 0.999, (2, num_cells)).astype(np.float32)
    runs, gaps = {}, {}
    for name, make in contestants().items():
        few = make(beta1, beta2, COMPARED_STEPS)
        gaps[name] = few().copy()
        runs[name] = _long_enough(functools.partial(make, beta1, beta2), seconds)
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(repeats):  # interleaved, so that disturbances affect all alike
        for name, (run, _) in runs.items():
            best[name] = min(best[name], _seconds(run))
    return {
        name: (
            num_cells * num_steps / best[name],
            float(np.nanmedian(np.abs(gaps[name] - gaps["library"]))),
            num_steps,
        )
        for name, (_, num_steps) in runs.items()
    }


def _long_enough(make: Callable[[int], Run], seconds: float) -> tuple[Run, int]:
    """A compiled run that takes about this time, and its number of steps."""
    num_steps = COMPARED_STEPS
    for _ in range(4):  # the fixed cost of a run biases the first estimates
        run = make(num_steps)
        run()
        spent = _seconds(run)
        wanted = 2 ** np.round(np.log2(num_steps * seconds / spent))
        if seconds / 2 <= spent <= 2 * seconds or num_steps == wanted:
            break
        num_steps = int(np.clip(wanted, LEAST_STEPS, MOST_STEPS))
    return run, num_steps


def main() -> None:
    parser = argparse.ArgumentParser(description="The library against C, optax, NumPy, PyTorch.")
    parser.add_argument("--cells", default="100,1000,10000,100000")
    parser.add_argument("--seconds", type=float, default=0.5, help="of a repetition, about")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.cells.split(",")]

    print(f"Adam updates per second on {results.device()}; ratio: the library's over the other's")
    measured = []
    for size in sizes:
        found = measure(size, arguments.seconds, arguments.repeats)
        measured.append(found)
        print(f"\n{size:17} cells  updates/s  library/it  median |Δgap|  steps")
        for name, (rate, difference, num_steps) in found.items():
            ratio = found["library"][0] / rate
            print(f"{name:23}  {rate:9.2e}  {ratio:10.2f}  {difference:13.1e}  {num_steps:5}")

    names = list(measured[0])
    rates = [[found[name][0] for found in measured] for name in names]
    steps = [[found[name][2] for found in measured] for name in names]
    dataset = xr.Dataset(
        {
            "rate": (("contestant", "cells"), rates, {"units": "updates/s"}),
            "num_steps": (("contestant", "cells"), steps),
        },
        {"contestant": np.array(names, object), "cells": sizes},
    )
    results.write(dataset, arguments.out, "simulation")
    results.draw_rates(dataset, arguments.out / "simulation.png")


def _seconds(run: Run) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
