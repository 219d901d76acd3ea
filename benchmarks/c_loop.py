"""The CPU's limit: Adam's loop in C, compiled at run time for this machine, on all its cores."""

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

_SOURCE = Path(__file__).with_name("adam_loop.c")
_FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-shared", "-fPIC")
_WIDE = "-mprefer-vector-width=512"
_WIDTH = 64  # of the C file
_BLOCKS_PER_TASK = 16


def compiler() -> str | None:
    """The machine's C compiler; None if it has none."""
    return os.environ.get("CC") or shutil.which("cc")


def compile_loop(folder: Path) -> ctypes.CDLL:
    """Compiles the loop into a folder, with vectors as wide as the machine's.

    Raises:
      subprocess.CalledProcessError: compilation fails.
    """
    library = folder / "adam_loop.so"
    command = [compiler() or "cc", *_FLAGS, str(_SOURCE), "-lm", "-o", str(library)]
    try:
        subprocess.run([*command, _WIDE], check=True, capture_output=True)
    except subprocess.CalledProcessError:  # not an x86 CPU
        subprocess.run(command, check=True, capture_output=True)
    return ctypes.CDLL(str(library))


def simulation(
    slopes: np.ndarray, step_sizes: np.ndarray, x0: float, minimiser: float
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Returns a function (1 − β1, 1 − β2) of W cells → |x_T − x*|.

    Args:
      slopes: slope drawn at each step.
      step_sizes: η_k at each step.
      x0: start.
      minimiser: x*.
    """
    with tempfile.TemporaryDirectory() as folder:
        loop = compile_loop(Path(folder)).adam_loop
    pointer = np.ctypeslib.ndpointer(np.float32, flags="C")
    loop.argtypes = [ctypes.c_long, ctypes.c_long, *[pointer] * 4, *[ctypes.c_float] * 2, pointer]
    loop.restype = None
    slopes, step_sizes = (np.ascontiguousarray(v, np.float32) for v in (slopes, step_sizes))
    cores = len(os.sched_getaffinity(0))

    def simulate(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        padded = [np.pad(v, (0, -len(v) % _WIDTH), mode="edge") for v in (p, q)]
        gap = np.empty_like(padded[0])
        # tasks of many cells, but enough tasks to keep all cores busy
        blocks = max(1, min(_BLOCKS_PER_TASK, len(gap) // _WIDTH // cores))
        tasks = [slice(i, i + blocks * _WIDTH) for i in range(0, len(gap), blocks * _WIDTH)]

        def run(task: slice) -> None:
            one, other, found = padded[0][task], padded[1][task], gap[task]
            loop(len(found), len(slopes), slopes, step_sizes, one, other, x0, minimiser, found)

        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(run, tasks))
        return gap[: len(p)]

    return simulate
