"""Block sizes of the GPU kernels, as measured by `benchmarks.kernel --tune`.

Measured in float32 on the counterexample (n = 20, cyclic order, 20 000 steps). Block sizes affect
the speed and never the results.
"""

from __future__ import annotations

from typing import NamedTuple


class Size(NamedTuple):
    """Launch parameters of a kernel for tables of at least `cells` cells."""

    cells: int
    block: int  # cells per program
    warps_or_unroll: int  # Triton: warps per program; Mosaic: steps in the body of the loop


TRITON = (Size(0, 64, 2), Size(100_000, 128, 1))
"""H200, JAX 0.11.2: 6.8e10 updates per second at 1e4 cells, 8.0e11 at 1e6."""

MOSAIC = (Size(0, 128, 1), Size(30_000, 128, 4), Size(300_000, 512, 4))
"""H200, JAX 0.11.2: 7.5e10 updates per second at 1e4 cells, 5.7e11 at 1e5, 9.9e11 at 1e6, 1.07e12
at 1e7. More steps in the body gain 1 to 8 % and take seconds to compile."""


def choose(sizes: tuple[Size, ...], num_cells: int) -> Size:
    """The entry for a table of `num_cells` cells."""
    return max(size for size in sizes if size.cells <= num_cells)
