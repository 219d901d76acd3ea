"""The definition of a phase diagram: its axes, variables, and the tables that are simulated."""

import itertools
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import xarray as xr

from adam_transition import adam, problems
from adam_transition.optimizers import ADAM, Optimizer
from adam_transition.sampling import Sampling
from adam_transition.sweeps import store

Backend = Literal["xla", "blocks", "pallas"]
"""xla: a single XLA program, on any device, for any problem. blocks: for CPUs, runs a block of
cells through all steps in the L1 cache; for problems of a few coordinates. pallas: a kernel for
GPUs that keeps the state of a cell in registers; for one-dimensional problems."""


@dataclass(frozen=True)
class PhaseDiagram:
    """What to simulate. β arrays are 1-D grids, or (N, W) with β1 and β2 paired by columns."""

    problem: str
    num_components: tuple[int, ...]  # N values of n
    samplings: tuple[Sampling, ...]
    beta1: np.ndarray  # [B1], or [N, W] if paired
    beta2: np.ndarray  # [B2], or [N, W] if paired
    a: tuple[Fraction | float, ...] = ()  # parameters of the counterexample; empty: 1/(n−1)²
    num_steps: int = 50_000
    x0: float = 1.0
    step_size: float = 0.1
    epsilon: float = 0.0
    schedule: adam.Schedule = "inverse_sqrt"
    initialization: adam.Initialization = "zero"
    dtype: str = "float32"
    seed: int = 0
    common_random_numbers: bool = True
    backend: Backend = "xla"
    parameters: Mapping[str, problems.Number] = field(default_factory=dict)  # of the problem
    optimizers: tuple[Optimizer, ...] = (ADAM,)  # β1 and β2 are the axes of each

    @property
    def paired(self) -> bool:
        """Whether the cells of each n are a list and not a grid."""
        return self.beta1.ndim == 2

    @property
    def cell_dims(self) -> tuple[str, ...]:
        return ("sample",) if self.paired else ("beta1", "beta2")

    @property
    def dims(self) -> tuple[str, ...]:
        """Dimensions of the results; `a` only if it is given, `optimizer` unless it is Adam."""
        leading = ("optimizer",) if self.has_optimizers else ()
        return (*leading, "sampling", "n", *(("a",) if self.a else ()), *self.cell_dims)

    @property
    def has_optimizers(self) -> bool:
        """Whether there is anything but Adam."""
        return self.optimizers != (ADAM,)

    @property
    def table(self) -> tuple[int, int]:
        """Rows and columns of one table."""
        columns = self.beta1.shape[1] if self.paired else self.beta1.size * self.beta2.size
        return len(self.num_components), columns

    def problem_at(self, n: int, a: Fraction | float | None) -> problems.BuiltIn:
        return problems.built_in(self.problem, n, a, **self.parameters)


PANEL_DIMS = "optimizer", "sampling", "n", "a"
"""Dimensions that are not those of cells, as far as a diagram has them."""


class Plane(NamedTuple):
    """One table: all n and (β1, β2) for one optimiser, one sampling scheme and one a."""

    optimizer: Optimizer
    sampling: Sampling
    a: Fraction | float | None
    region: dict[str, slice]


def planes(spec: PhaseDiagram) -> Iterator[Plane]:
    """The tables of a diagram, in order."""
    for (o, optimizer), (i, scheme), (j, a) in itertools.product(
        enumerate(spec.optimizers), enumerate(spec.samplings), enumerate(spec.a or (None,))
    ):
        region = {"sampling": slice(i, i + 1), "a": slice(j, j + 1)}
        leading = {"optimizer": slice(o, o + 1)} if spec.has_optimizers else {}
        yield Plane(optimizer, scheme, a, {**leading, **region})


def precision(spec: PhaseDiagram) -> AbstractContextManager:
    """A context in which JAX can represent the diagram's dtype."""
    return jax.enable_x64(spec.dtype == "float64" or jax.config.read("jax_enable_x64"))


def start_distance(spec: PhaseDiagram) -> float | None:
    """|x0 − x*|; None if it depends on n."""
    members = [spec.problem_at(n, spec.a[0] if spec.a else None) for n in spec.num_components]
    found = {float(np.linalg.norm(spec.x0 - np.asarray(m.minimiser))) for m in members}
    return found.pop() if len(found) == 1 else None


def coordinates(spec: PhaseDiagram) -> xr.Dataset:
    """The labelled axes of a diagram."""
    coords: dict[str, Any] = {
        "sampling": ("sampling", np.array(spec.samplings, dtype=object), {"long_name": "sampling"}),
        "n": ("n", np.array(spec.num_components), {"long_name": "n", "units": "1"}),
    }
    if spec.has_optimizers:
        names = np.array([one.name for one in spec.optimizers], dtype=object)
        coords["optimizer"] = ("optimizer", names, {"long_name": "optimizer"})
    if spec.a:
        values = np.array([float(a) for a in spec.a])
        coords["a"] = ("a", values, {"long_name": "slope a", "units": "1"})
    for name, values in (("beta1", spec.beta1), ("beta2", spec.beta2)):
        dims = ("n", "sample") if spec.paired else (name,)
        symbol = {"beta1": "β1", "beta2": "β2"}[name]
        coords[name] = (dims, values, {"long_name": symbol, "units": "1"})
    return xr.Dataset(coords=coords)


def variables(spec: PhaseDiagram) -> dict[str, store.Variable]:
    """The simulated variables, by name."""

    def variable(dtype: Any, long_name: str) -> store.Variable:
        return store.Variable(spec.dims, dtype, long_name)

    return {
        "gap": variable(spec.dtype, "distance |x_T − x*| at the end"),
        "late_gap": variable(spec.dtype, "mean distance over the steps [9T/10, T]"),
        "speed": variable(spec.dtype, "push away from x* per step and step size"),
        "speed_error": variable(spec.dtype, "half-width of the speed's 95 % interval"),
        "diverged": variable(bool, "diverging: pushed away from x*"),
        "undecided": variable(bool, "neither diverging nor converging within its error"),
        "underflowed": variable(bool, "v was 0 after a gradient was seen, or overflowed"),
    }


def diverged_fraction(dataset: xr.Dataset) -> xr.DataArray:
    """The share of cells that diverge, for each of `PANEL_DIMS`."""
    return share_of_cells(dataset["diverged"])


def share_of_cells(truths: xr.DataArray) -> xr.DataArray:
    """The share of cells that are true, for each of `PANEL_DIMS`."""
    return truths.mean([dim for dim in truths.dims if dim not in PANEL_DIMS])
