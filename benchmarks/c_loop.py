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


def compile_loop(folder: Path, dimension: int = 1) -> ctypes.CDLL:
    """Compiles the loops into a folder, with vectors as wide as the machine's.

    Args:
      folder: where the library is written.
      dimension: number of coordinates of the quadratics.

    Raises:
      subprocess.CalledProcessError: compilation fails.
    """
    library = folder / "adam_loop.so"
    flags = [*_FLAGS, f"-DD={dimension}"]
    command = [compiler() or "cc", *flags, str(_SOURCE), "-lm", "-o", str(library)]
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

    def run(p: np.ndarray, q: np.ndarray, gap: np.ndarray) -> None:
        loop(len(gap), len(slopes), slopes, step_sizes, p, q, x0, minimiser, gap)

    return _on_all_cores(run)


def quadratics(
    components: np.ndarray,
    hessians: np.ndarray,
    centres: np.ndarray,
    step_sizes: np.ndarray,
    x0: float,
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """Returns a function (1 − β1, 1 − β2) of W cells → ‖x_T‖, for quadratics in d coordinates.

    Args:
      components: component drawn at each step.
      hessians: H_i, of shape (n, d, d).
      centres: b_i, of shape (n, d).
      step_sizes: η_k at each step.
      x0: start of every coordinate.
    """
    with tempfile.TemporaryDirectory() as folder:
        loop = compile_loop(Path(folder), centres.shape[1]).adam_quadratics
    pointer = np.ctypeslib.ndpointer(np.float32, flags="C")
    whole = np.ctypeslib.ndpointer(np.int32, flags="C")
    loop.argtypes = [ctypes.c_long, ctypes.c_long, whole, *[pointer] * 5, ctypes.c_float, pointer]
    loop.restype = None
    drawn = np.ascontiguousarray(components, np.int32)
    tables = [np.ascontiguousarray(v, np.float32) for v in (hessians, centres, step_sizes)]

    def run(p: np.ndarray, q: np.ndarray, norm: np.ndarray) -> None:
        loop(len(norm), len(drawn), drawn, *tables, p, q, x0, norm)

    return _on_all_cores(run)


def _on_all_cores(
    run: Callable[[np.ndarray, np.ndarray, np.ndarray], None],
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """A function of (p, q) of many cells, run on blocks of them."""
    cores = len(os.sched_getaffinity(0))

    def simulate(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        padded = [np.pad(v, (0, -len(v) % _WIDTH), mode="edge") for v in (p, q)]
        found = np.empty_like(padded[0])
        # tasks of many cells, but enough tasks to keep all cores busy
        blocks = max(1, min(_BLOCKS_PER_TASK, len(found) // _WIDTH // cores))
        tasks = [slice(i, i + blocks * _WIDTH) for i in range(0, len(found), blocks * _WIDTH)]
        with ThreadPoolExecutor(cores) as pool:
            list(pool.map(lambda t: run(padded[0][t], padded[1][t], found[t]), tasks))
        return found[: len(p)]

    return simulate
