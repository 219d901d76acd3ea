"""The library's many-cell simulation against the ways people do it today, in one run.

Every contestant runs Adam in float32 on the counterexample (n = 20, cyclic order, ε = 0,
η_k = 0.1/√k) for the same 256 × 256 cells of (β1, β2), and the results are compared. Alternatives:

  optax    the usual idiom: vmap + scan over optax.inject_hyperparams(optax.adam)
  numpy    the update written on arrays of all cells
  pytorch  the same on tensors (if torch is installed)

Rates are Adam updates per second, the best of the repetitions; ratios are the library's rate over
the alternative's. Typical output on 2 cores: see BUILD.md.

    python -m benchmarks.simulation
"""

import argparse
import importlib.util
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adam_transition import phase_diagram, sweep
from adam_transition.problems import counterexample

N, STEP_SIZE, X0, MINIMISER = 20, 0.1, 1.0, -2.0
C, A = 1 + 1 / (N - 1), 1 / (N - 1) ** 2


def library(beta: np.ndarray, num_steps: int) -> Callable[[], np.ndarray]:
    spec = phase_diagram.PhaseDiagram(
        problem="counterexample",
        num_components=(N,),
        samplings=("cyclic",),
        beta1=beta,
        beta2=beta,
        num_steps=num_steps,
        x0=X0,
        step_size=STEP_SIZE,
    )
    program = sweep.Program(phase_diagram.cell_function(spec, "cyclic"))
    rows, cells = phase_diagram.rows(spec, None), phase_diagram.cells(spec)
    gap = np.empty(spec.table, np.float32)

    def simulate() -> np.ndarray:
        sweep.run(
            program,
            rows,
            cells,
            tile=sweep.block_shape(spec.table, phase_diagram.cells_per_tile()),
            chunk=spec.table,
            write=lambda block, values: gap.__setitem__(block, values["gap"]),
        )
        return gap[0]

    return simulate


def optax_idiom(beta: np.ndarray, num_steps: int) -> Callable[[], np.ndarray]:
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

    beta1, beta2 = _pairs(beta)
    compiled = jax.jit(jax.vmap(train))
    return lambda: np.asarray(compiled(beta1, beta2))


def numpy_arrays(beta: np.ndarray, num_steps: int) -> Callable[[], np.ndarray]:
    beta1, beta2 = _pairs(beta)
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


def pytorch(beta: np.ndarray, num_steps: int) -> Callable[[], np.ndarray]:
    import torch

    beta1, beta2 = (torch.from_numpy(b) for b in _pairs(beta))
    p, q = 1 - beta1, 1 - beta2

    def simulate() -> np.ndarray:
        x = torch.full_like(p, X0)
        m, v = torch.zeros_like(p), torch.zeros_like(p)
        for k in range(num_steps):
            g = (C if k % N == 0 else -A) * torch.clamp(x + 2, max=1)
            m = beta1 * m + p * g
            v = beta2 * v + q * g * g
            direction = torch.where(v > 0, m / torch.sqrt(v), 0)
            x = x - STEP_SIZE / (k + 1) ** 0.5 * direction
        return torch.abs(x - MINIMISER).numpy()

    return simulate


def main() -> None:
    parser = argparse.ArgumentParser(description="The library against optax, NumPy and PyTorch.")
    parser.add_argument("--side", type=int, default=256, help="cells are side × side")
    parser.add_argument("--steps", type=int, default=20_000, help="steps of the library's run")
    parser.add_argument("--slow_steps", type=int, default=200, help="steps of the alternatives'")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    beta = np.arange(arguments.side, dtype=np.float32) / arguments.side

    contestants = {"library": library, "optax": optax_idiom, "numpy": numpy_arrays}
    if importlib.util.find_spec("torch"):
        contestants["pytorch"] = pytorch
    runs, verdicts = {}, {}
    for name, make in contestants.items():
        num_steps = arguments.steps if name == "library" else arguments.slow_steps
        runs[name] = make(beta, num_steps), num_steps
        verdicts[name] = make(beta, arguments.slow_steps)()
        runs[name][0]()
    best = dict.fromkeys(runs, 0.0)
    for _ in range(arguments.repeats):  # interleaved, so that all meet the same disturbances
        for name, (simulate, num_steps) in runs.items():
            started = time.perf_counter()
            simulate()
            best[name] = max(best[name], beta.size**2 * num_steps / (time.perf_counter() - started))

    print(f"{beta.size**2} cells on {jax.devices()[0].device_kind}")
    print(f"{'':8}  updates/s  library/it  median |Δgap|")
    for name, rate in best.items():
        difference = np.nanmedian(np.abs(verdicts[name] - verdicts["library"]))
        print(f"{name:8}  {rate:9.2e}  {best['library'] / rate:10.1f}  {difference:13.1e}")


def _pairs(beta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    beta1, beta2 = np.meshgrid(beta, beta, indexing="ij")
    return beta1.ravel(), beta2.ravel()


if __name__ == "__main__":
    main()
