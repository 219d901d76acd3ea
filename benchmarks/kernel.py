"""The kernel against XLA's path and against the limits of the chip, in one run.

Needs only JAX (0.10 or 0.11), NumPy and jaxtyping, so that it runs on a bare GPU machine; on a CPU
it measures the CPU's kernel. On the counterexample (n = 20, ε = 0, η_k = 0.1/√k):

  cyclic, replacement  the kernel, by sampling scheme
  own streams          with replacement, each cell with its own index stream
  xla                  vmap of `simulate.simulate`, which launches an operation on the whole chip
                       for each part of a step
  roots                the arithmetic limit: the kernel with one square root and one division per
                       step
  copy                 the memory limit of any program that keeps the state of a cell in memory: per
                       step three arrays are read and written and two are read, at the speed of a
                       copy from device to device

Rates are Adam updates per second, the best of the repetitions, without compilation. It also reports
how well kernel and XLA agree: the median and largest distance of their iterates, over cells with
bounded steps, and the share of cells that end on the same side of the start. `--tune` tries the
block sizes and warps of a GPU in turn. Writes kernel.json to `--out`.

    python -m benchmarks.kernel
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from adam_transition import adam, kernels, problems, sampling, simulate
from adam_transition.kernels import tuned
from adam_transition.kernels.split import Split

N, STEP_SIZE, X0 = 20, 0.1, 1.0
BYTES_PER_UPDATE = 8 * 4
RECORDS = 64
DIAGRAM = 1000, 1000, 50_000
_GPU = {"cells": "10000,100000,1000000,10000000", "steps": 20_000, "xla_steps": 500}
_CPU = {"cells": "1000,10000,100000", "steps": 20_000, "xla_steps": 2000}


def setting(num_cells: int) -> tuple[Any, ...]:
    """Arguments of `kernels.simulate_table` for one row of random cells."""
    p, q = np.random.default_rng(0).uniform(0.001, 1, (2, 1, num_cells)).astype(np.float32)
    problem = problems.stack([problems.counterexample(N)], np.float32)
    one = partial(jnp.full, 1)
    key = sampling.stream_key(0)[None]
    return problem, adam.Hyperparameters(p, q, 0.0), one(X0), one(STEP_SIZE), key


def static(scheme: sampling.Sampling, num_steps: int) -> dict[str, Any]:
    return {
        "method": simulate.Method(scheme),
        "num_steps": num_steps,
        "record_every": -(-num_steps // RECORDS),
        "max_components": N,
    }


def run_kernel(
    num_cells: int,
    num_steps: int,
    scheme: sampling.Sampling = "cyclic",
    *,
    device: jax.Device | None = None,
    own_streams: bool = False,
) -> partial[Any]:
    *given, key = setting(num_cells)
    if own_streams:
        key = jax.random.split(key[0], (1, num_cells))
    arguments = jax.device_put((*given, key), device)
    function = partial(kernels.simulate_table, kernel=kernel_here(), **static(scheme, num_steps))
    return partial(compiled(function, arguments), *arguments)


def run_on_all_devices(num_cells: int, num_steps: int) -> Callable[[], list[Any]]:
    """Runs `num_cells` cells on each device."""
    runs = [run_kernel(num_cells, num_steps, device=device) for device in jax.local_devices()]
    return lambda: [run() for run in runs]


def bytes_per_cell(num_cells: int, num_steps: int) -> float:
    """Memory of a run per cell: inputs, records and temporaries."""
    program: Any = run_kernel(num_cells, num_steps).func
    memory = program.memory_analysis()
    total = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return total / num_cells


def run_xla(num_cells: int, num_steps: int) -> Callable[[], Any]:
    problem, hyper, *rest = setting(num_cells)

    def one(p: Any, q: Any, problem: Any, *rest: Any) -> Any:
        return simulate.simulate(
            problem, adam.Hyperparameters(p, q, 0.0), *rest, **static("cyclic", num_steps)
        )

    row = jax.tree.map(lambda leaf: leaf[0], (problem, *rest))
    arguments = jax.device_put((*(v[0] for v in hyper[:2]), *row))
    over_cells = jax.vmap(one, in_axes=(0, 0, *(None,) * len(row)))
    return partial(compiled(over_cells, arguments), *arguments)


def run_roots(num_cells: int, num_steps: int) -> Callable[[], Any]:
    room = importlib.import_module(f"adam_transition.kernels.{kernel_here()}")
    block = room.cells_per_block(1, num_cells)
    values = jnp.full((1, -(-num_cells // block) * block), 1.5, jnp.float32)

    def step(row: Any, _step: Any, _draw: Any, p: Any, q: Any, x: Any, m: Any, v: Any) -> Any:
        return p / (jnp.sqrt(x) + q + row[0]), m, v  # p/√x would become a reciprocal square root

    parts = Split((1, 0, 0), lambda _: [], lambda *_: [], lambda *_: [], step)
    of_row = [jnp.zeros(1, jnp.float32)]

    def function(p: Any, state: Any) -> Any:
        return room.launch(parts, of_row, [], [], jnp.int32(num_steps), p, p, state, block)

    arguments = (values, (values,) * 3)
    return partial(compiled(function, arguments), *arguments)


def copy_bytes_per_second(repeats: int) -> float:
    """Bytes read and written per second by a copy that is larger than any cache."""
    size = 1 << (30 if jax.default_backend() != "cpu" else 27)
    source = jnp.zeros(size // 4, jnp.float32)
    copy = jax.jit(jnp.copy)
    return 2 * size / best(lambda: copy(source), repeats)


def agreement(num_cells: int, num_steps: int) -> dict[str, float]:
    """Compares the kernel's last iterates with those of XLA's path."""
    _, hyper, *_ = setting(num_cells)
    p, q = hyper.one_minus_beta1[0], hyper.one_minus_beta2[0]
    kernel, xla = (np.asarray(run(num_cells, num_steps)().x) for run in (run_kernel, run_xla))
    kernel, xla = kernel[0, :, -1], xla[:, -1]
    bounded = (1 - p) ** 2 < 1 - q
    apart = np.abs(kernel - xla)[bounded] / np.maximum(np.abs(xla[bounded]), 1)
    same = (kernel > X0) == (xla > X0)
    return {"median": np.median(apart), "most": apart.max(), "same_side": same.mean()}


def sizes_to_try(kernel: kernels.Kernel) -> list[tuple[int, int]]:
    """Block sizes, with warps (Triton) or with steps in the body of the loop (Mosaic)."""
    blocks = (64, 128, 256, 512, 1024, 2048)
    if kernel == "mosaic":
        return [(block, unroll) for block in blocks[1:] for unroll in (1, 2, 4, 8, 16)]
    return [(b, warps) for b in blocks for warps in (1, 2, 4, 8) if 32 <= b // warps <= 512]


def tune(num_cells: int, num_steps: int, repeats: int) -> dict[str, float]:
    """Updates per second of the GPU's kernel for each `tuned.Size`, fastest first."""
    found = {}
    for block, second in sizes_to_try(kernel_here()):
        only = (tuned.Size(0, block, second),)
        with mock.patch.object(tuned, kernel_here().upper(), only):
            seconds = best(run_kernel(num_cells, num_steps), repeats)
        found[f"{block}, {second}"] = num_cells * num_steps / seconds
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def best(run: Callable[[], Any], repeats: int) -> float:
    """Seconds of the fastest of some repetitions, after a first one."""
    jax.block_until_ready(run())
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        jax.block_until_ready(run())
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def rates(num_cells: int, num_steps: int, xla_steps: int, repeats: int) -> dict[str, float]:
    """Updates per second by contestant."""
    own_steps = num_steps // 10
    work: dict[str, tuple[Callable[[], Any], int]] = {
        "cyclic": (run_kernel(num_cells, num_steps), num_steps),
        "replacement": (run_kernel(num_cells, num_steps, "with_replacement"), num_steps),
        "own_streams": (
            run_kernel(num_cells, own_steps, "with_replacement", own_streams=True),
            own_steps,
        ),
        "xla": (run_xla(num_cells, xla_steps), xla_steps),
        "roots": (run_roots(num_cells, num_steps), num_steps),
    }
    return {name: num_cells * steps / best(run, repeats) for name, (run, steps) in work.items()}


def main() -> None:
    preset = _CPU if jax.default_backend() == "cpu" else _GPU
    parser = argparse.ArgumentParser(description="The kernel, XLA's path and the chip's limits.")
    parser.add_argument("--cells", default=preset["cells"])
    parser.add_argument("--steps", type=int, default=preset["steps"])
    parser.add_argument("--xla_steps", type=int, default=preset["xla_steps"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--diagram", action="store_true", help="run the 1000 x 1000 diagram")
    parser.add_argument("--tune", action="store_true", help="try a GPU's blocks and warps")
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    arguments = parser.parse_args()
    sizes = [int(size) for size in arguments.cells.split(",")]
    device = jax.devices()[0]
    print(f"JAX {jax.__version__} on {device.device_kind}; Adam updates per second")

    copied = copy_bytes_per_second(arguments.repeats)
    limit = copied / BYTES_PER_UPDATE
    print(f"copy {copied:.2e} bytes/s: at most {limit:.2e} with the state in memory\n")
    print(
        "   cells     cyclic  replacement  own streams       xla     roots  kernel/xla"
        "  of the limit"
    )
    found: dict[str, Any] = {}
    for size in sizes:
        rate = rates(size, arguments.steps, arguments.xla_steps, arguments.repeats)
        found[str(size)] = rate
        print(
            f"{size:8}   {rate['cyclic']:.2e}     {rate['replacement']:.2e}"
            f"     {rate['own_streams']:.2e}  {rate['xla']:.2e}"
            f"  {rate['roots']:.2e}  {rate['cyclic'] / rate['xla']:10.1f}"
            f"  {rate['cyclic'] / rate['roots']:12.2f}"
        )

    alike = {k: float(v) for k, v in agreement(min(sizes[-1], 10_000), 2000).items()}
    print(
        f"\nkernel and xla: apart by {alike['median']:.1e} in the median, {alike['most']:.1e} at",
        end="",
    )
    print(f" most; the same side in {alike['same_side']:.4f} of the cells")
    half, steps = max(1, sizes[-1] // 2), arguments.steps // 2
    whole = best(run_kernel(sizes[-1], arguments.steps), arguments.repeats)
    linear = {
        "cells": best(run_kernel(half, arguments.steps), arguments.repeats) * 2 / whole,
        "steps": best(run_kernel(sizes[-1], steps), arguments.repeats) * 2 / whole,
    }
    print(f"twice the time of half the cells {linear['cells']:.3f}, of half the steps", end=" ")
    print(f"{linear['steps']:.3f}, in units of the whole: 1 is linear")
    devices = best(run_on_all_devices(sizes[-1], arguments.steps), arguments.repeats)
    memory = {str(size): bytes_per_cell(size, arguments.steps) for size in sizes}
    print(
        f"{jax.local_device_count()} devices with as many cells each: {whole / devices:.3f}", end=""
    )
    print(f" of the rate of one alone; bytes a cell with {RECORDS} records:", end="")
    print("".join(f" {value:.0f}" for value in memory.values()))
    result = {
        "device": device.device_kind,
        "jax": jax.__version__,
        "updates_per_s": found,
        "copy_bytes_per_s": copied,
        "agreement": alike,
        "linear": linear,
        "devices": {"count": jax.local_device_count(), "rate_of_each": whole / devices},
        "bytes_per_cell": memory,
    }
    if arguments.diagram or preset is _GPU:
        height, width, num_steps = DIAGRAM
        seconds = best(run_kernel(height * width, num_steps), 1)
        result["diagram_s"] = seconds
        print(f"{height} x {width} cells, {num_steps} steps: {seconds:.2f} s")
    if arguments.tune and kernel_here() != "cpu":
        print("\n(block, warps or steps in the body of the loop) updates per second, fastest first")
        for size in sizes:
            result[f"tuned_{size}"] = tune(size, arguments.steps, arguments.repeats)
            fastest = list(result[f"tuned_{size}"].items())[:4]
            shown = ", ".join(f"({name}) {rate_of_one:.2e}" for name, rate_of_one in fastest)
            print(f"{size:8} cells: {shown}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "kernel.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"wrote {path}")


def kernel_here() -> kernels.Kernel:
    return "cpu" if jax.default_backend() == "cpu" else kernels.for_gpu()


def compiled(function: Callable, arguments: tuple[Any, ...]) -> Callable:
    on_cpu = jax.default_backend() == "cpu"
    options = {"xla_cpu_prefer_vector_width": 512} if on_cpu else {}
    return jax.jit(function, compiler_options=options).lower(*arguments).compile()


if __name__ == "__main__":
    main()
