"""The data of the boundary study: intervals, curves, and how the threshold scales."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

import numpy as np
import xarray as xr
from jaxtyping import Float

from adam_transition.problems import counterexample_d1, counterexample_table
from adam_transition.sampling import RANDOM, Sampling, stream_key
from adam_transition.sweeps.pieces import Pieces
from adam_transition.sweeps.study import variable
from adam_transition.theory import laws
from adam_transition.theory.boundary import boundary_curve, divergence_intervals

D1_N = 20
"""The n at which the threshold is shown against D1."""

LAW_N = (20, 40, 80)
"""The values of n at which the law for sampling with replacement is tested."""

_MOST_INTERVALS = 4


@dataclass(frozen=True)
class BoundarySpec:
    """What to compute."""

    num_components: tuple[int, ...]
    a: tuple[Fraction, ...]  # empty: 1/(n−1)² for each n
    samplings: tuple[Sampling, ...]
    beta1: tuple[float, ...]
    largest_n: int
    seed: int

    def slopes(self, n: int) -> tuple[Fraction, ...]:
        """The values of a at this n."""
        return self.a or (Fraction(1, (n - 1) ** 2),)


def coordinates(spec: BoundarySpec) -> xr.Dataset:
    """The labelled axes."""
    n = np.array(spec.num_components)
    a = [[float(slope) for slope in spec.slopes(k)] for k in n.tolist()]
    return xr.Dataset(
        coords={
            "sampling": ("sampling", np.array(spec.samplings, dtype=object)),
            "n": ("n", n, {"long_name": "n", "units": "1"}),
            "a_value": (("n", "a"), np.array(a), {"long_name": "slope a", "units": "1"}),
            "beta1": ("beta1", np.array(spec.beta1), {"long_name": "β1", "units": "1"}),
        }
    )


def intervals(spec: BoundarySpec, pieces: Pieces) -> Mapping[str, xr.Variable]:
    """`beta2_low`, `beta2_high`, `one_minus_beta2_high`, `stderr`, NaN where there is no interval.

    Dims: (sampling, n, a, beta1, interval).
    """
    dims = ("sampling", "n", "a", "beta1", "interval")
    num_a = max(1, len(spec.a))
    shape = (len(spec.samplings), len(spec.num_components), num_a, len(spec.beta1))
    values = np.full((4, *shape, _MOST_INTERVALS), np.nan)
    for i, sampling in enumerate(spec.samplings):
        for j, n in enumerate(spec.num_components):
            for k, a in enumerate(spec.slopes(n)):
                ends = partial(_ends, spec, counterexample_table(n, float(a)), sampling)
                [values[:, i, j, k]] = pieces.keep(f"{i} {j} {k}", ends)
    low, high, rest, stderr = values
    return {
        "beta2_low": variable(dims, low, "lower end of an interval of divergence"),
        "beta2_high": variable(dims, high, "upper end of an interval of divergence"),
        "one_minus_beta2_high": variable(dims, rest, "1 − β2 at the upper end"),
        "stderr": variable(dims, stderr, "standard error of the ends, the larger of the two"),
    }


def _ends(
    spec: BoundarySpec, table: Float[np.ndarray, "n 1"], sampling: Sampling
) -> list[np.ndarray]:
    """Low end, high end, 1 − high end and error of every interval: shape (4, β1, interval)."""
    values = np.full((4, len(spec.beta1), _MOST_INTERVALS), np.nan)
    found = divergence_intervals(table, spec.beta1, sampling, key=stream_key(spec.seed))
    for m, of_beta1 in enumerate(found):
        for slot, (low, high) in enumerate(of_beta1):
            stderr = max(low.stderr, high.stderr)
            values[:, m, slot] = low.beta2, high.beta2, high.one_minus_beta2, stderr
    return [values]


def curves(spec: BoundarySpec, pieces: Pieces) -> Mapping[str, xr.Variable]:
    """`curve` over (sampling, n, a, vertex, axis): the boundary, NaN between lines."""
    key = stream_key(spec.seed)
    lines = {}
    gap = np.full((1, 2), np.nan)
    for i, sampling in enumerate(spec.samplings):
        for j, n in enumerate(spec.num_components):
            for k, a in enumerate(spec.slopes(n)):
                curve = partial(
                    boundary_curve,
                    counterexample_table(n, float(a)),
                    sampling,
                    key=key,
                    num_points=(96, 128) if sampling in RANDOM else (160, 240),
                )
                kept = pieces.keep(f"{i} {j} {k}", curve)
                parts = [part for line in kept for part in (line, gap)]
                lines[i, j, k] = np.vstack(parts or [gap])
    longest = max(len(line) for line in lines.values())
    shape = len(spec.samplings), len(spec.num_components), max(1, len(spec.a))
    values = np.full((*shape, longest, 2), np.nan)
    for where, line in lines.items():
        values[where][: len(line)] = line
    dims = ("sampling", "n", "a", "vertex", "axis")
    return {"curve": variable(dims, values, "boundary (β1, β2)")}


def scaling(spec: BoundarySpec) -> Mapping[str, xr.Variable]:
    """`scaling` over (a_law, scaling_n): 1 − β2* at β1 = 0 in cyclic order against n."""
    n = np.unique(np.geomspace(3, spec.largest_n, 22).astype(int))
    values = [
        [edge.one_minus_beta2 if edge else np.nan for edge in laws.upper_edges(n.tolist(), a, 0.0)]
        for a in ((1 / (n - 1.0) ** 2).tolist(), [1.0] * len(n))
    ]
    return {
        "scaling_n": variable("scaling_n", n, "n", dtype=np.int64),
        "a_law": variable("a_law", np.arange(2), "0: a = 1/(n−1)², 1: a = 1", dtype=np.int64),
        "scaling": variable(("a_law", "scaling_n"), values, "1 − β2*, cyclic, β1 = 0"),
    }


def against_a() -> Mapping[str, xr.Variable]:
    """`against_a` over (against_a_a): 1 − β2* at β1 = 0 in cyclic order and n = `D1_N`, with D1."""
    a = np.geomspace(1e-4, 1e3, 29)
    edges = laws.upper_edges([D1_N] * len(a), a.tolist(), 0.0)
    values = [edge.one_minus_beta2 if edge else np.nan for edge in edges]
    dim, label = "against_a_a", f"1 − β2*, n = {D1_N}, cyclic, β1 = 0"
    return {
        "against_a_a": variable(dim, a, "slope a"),
        "against_a_d1": variable(dim, counterexample_d1(D1_N, a), "D1"),
        "against_a": variable(dim, values, label),
    }


def replacement() -> Mapping[str, xr.Variable]:
    """`replacement` over (replacement_n): 1 − β2* with replacement at a = 1, β1 = 0, against n."""
    edges = laws.upper_edges(LAW_N, [1.0] * len(LAW_N), 0.0, "with_replacement")
    dim, label = "replacement_n", "1 − β2*, a = 1, β1 = 0"
    found = {"replacement_n": variable(dim, LAW_N, "n", dtype=np.int64)}
    for name, attribute in (("replacement_stderr", "stderr"), ("replacement", "one_minus_beta2")):
        values = [getattr(edge, attribute) if edge else np.nan for edge in edges]
        found[name] = variable(dim, values, f"{label}: {attribute}")
    return found
