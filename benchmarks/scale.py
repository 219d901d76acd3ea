"""Time and memory of a large diagram, predicted from measured rates, with a check.

    python -m benchmarks.scale            # the table of docs/scale.md
    python -m benchmarks.scale --check    # runs of 1, 2 and 4 processes against it, some minutes

The model: devices share only the cells, so a run of `experiments.phase` without figures takes

    start + updates / (rate × devices) + cells × (the host's seconds per cell)

where `start` is that of one process, plus what each further process adds on the same cores. The
check measures `start` and the host's seconds on small diagrams, predicts larger runs, and then does
them.
"""

import argparse
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from adam_transition.sweeps import memory

DISK_BYTES, HOST_BYTES = 13, 100  # per cell
RATES = {"two cores": 3.9e9, "H200": 1.0e12}
STEPS = 50_000


class Costs(NamedTuple):
    """The measured costs of a machine."""

    start: float  # seconds of a run without cells
    rate: float  # updates per second of all its cores
    host: float  # seconds per cell, besides the updates


def seconds(costs: Costs, cells: float, steps: float, devices: int = 1) -> float:
    """Predicted seconds of a run, by the model."""
    return costs.start + cells * steps / (costs.rate * devices) + cells * costs.host


def duration(value: float) -> str:
    """Formats seconds for reading.

    >>> duration(0.05), duration(90), duration(7200), duration(2e6)
    ('50 ms', '1.5 min', '2 h', '23 days')
    """
    for unit, name in ((86_400, "days"), (3600, "h"), (60, "min")):
        if value >= unit:
            return f"{float(f'{value / unit:.2g}'):g} {name}"
    return f"{value:.2g} s" if value >= 1 else f"{1000 * value:.2g} ms"


def run(folder: Path, beta1: int, beta2: int, steps: int, processes: int = 1) -> float:
    """Seconds of one run of `experiments.phase`, cyclic order, n = 20."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "experiments.phase", "--n=20", "--sampling=cyclic", "--nofigures",
        "--noresume", f"--beta1=0:0.99:{beta1}", f"--beta2=0:0.999:{beta2}", f"--steps={steps}",
        f"--out={folder}",
    ]  # fmt: skip
    started, running = time.perf_counter(), []
    for i in range(processes):
        job = [f"--coordinator_address=localhost:{port}", f"--num_processes={processes}"]
        more = [*job, f"--process_id={i}"] if processes > 1 else []
        running.append(subprocess.Popen([*command, *more], stdout=subprocess.DEVNULL))
    statuses = [process.wait() for process in running]
    if any(statuses):
        raise SystemExit(f"{' '.join(command)} failed")
    return time.perf_counter() - started


def measured_costs(folder: Path, processes: int) -> Costs:
    """Costs from runs of very few cells, of many cells and few steps, and of few cells and many."""
    start = min(run(folder, 8, 8, 64, processes) for _ in range(3))  # the first one compiles
    many, few = (1000, 1000, 64), (256, 256, 300_000)
    with_cells, with_steps = (run(folder, *size, processes) - start for size in (many, few))
    # each is cells × host + updates / rate
    sizes = [[b1 * b2, b1 * b2 * steps] for b1, b2, steps in (many, few)]
    host, of_update = np.linalg.solve(np.array(sizes, float), [with_cells, with_steps])
    return Costs(start, 1 / of_update, host)


def check() -> None:
    print("processes  start  updates/s  host µs/cell   cells × steps   predicted  measured  ratio")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for processes in (1, 2, 4):
            costs = measured_costs(folder, processes)
            for beta1, beta2, steps in ((640, 640, 50_000), (400, 400, 100_000)):
                cells = beta1 * beta2
                predicted = seconds(costs, cells, steps)
                found = run(folder, beta1, beta2, steps, processes)
                print(
                    f"{processes:9}  {costs.start:4.1f}s  {costs.rate:9.2e}"
                    f"  {1e6 * costs.host:12.2f}   {cells:7} × {steps:6}  {predicted:8.1f}s"
                    f"  {found:7.1f}s  {found / predicted:5.2f}",
                    flush=True,
                )


def table() -> list[str]:
    """Lines of Markdown: the time that the updates of a diagram take, and its memory."""
    devices = (1, 8, 1000)
    names = ("cells", "disk", "first host's memory", *(f"{n} H200" for n in devices), "two cores")
    lines = [names, ("---",) * len(names)]
    for exponent in (6, 9, 12):
        cells = 10.0**exponent
        sizes = (memory.text(cells * size) for size in (DISK_BYTES, HOST_BYTES))
        times = [duration(cells * STEPS / (RATES["H200"] * n)) for n in devices]
        times.append(duration(cells * STEPS / RATES["two cores"]))
        lines.append((f"10^{exponent}", *sizes, *times))
    return [f"| {' | '.join(line)} |" for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(description="Time and memory of large diagrams.")
    parser.add_argument("--check", action="store_true", help="run what is predicted")
    arguments = parser.parse_args()
    if arguments.check:
        check()
    else:
        print("\n".join(table()))


if __name__ == "__main__":
    main()
