"""The data set behind `experiments.boundary`: intervals, curves and scaling, with their claims."""

from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from adam_transition import sampling, scaling, store
from adam_transition.boundary import boundary_curve, divergence_intervals
from adam_transition.claims import Claim, assess
from adam_transition.drift import RANDOM, counterexample_table
from adam_transition.store import Variable
from adam_transition.studies import Plan

_MOST_INTERVALS = 4
_D1_N = 20
_LAW_N = (20, 40, 80)


@dataclass(frozen=True)
class BoundaryStudy:
    """What to compute; see `plan`."""

    num_components: tuple[int, ...]
    a: tuple[Fraction, ...]  # empty: 1/(n−1)² for each n
    samplings: tuple[sampling.Sampling, ...]
    beta1: tuple[float, ...]
    largest_n: int
    seed: int


def plan(study: BoundaryStudy) -> Plan:
    """The parts of the data set.

    Variables: `beta2_low`, `beta2_high`, `one_minus_beta2_high`, `stderr` over (sampling, n, a,
    beta1, interval), NaN where there is no interval; `curve` over (sampling, n, vertex, axis), the
    boundary for the first a; and 1 − β2* at β1 = 0 in cyclic order against n (`scaling`) and
    against a at n = 20 (`against_a`), and with replacement against n at a = 1 (`replacement`).
    """
    parts = {
        "stderr": _intervals,
        "curve": _curves,
        "scaling": _scaling,
        "against_a": _against_a,
        "replacement": _replacement,
    }
    return Plan(_coordinates(study), {name: partial(part, study) for name, part in parts.items()})


def rows(dataset: xr.Dataset) -> list[dict[str, Any]]:
    """The intervals as plain rows, one for each (n, a, sampling, β1)."""
    found = []
    low, high, stderr = (dataset[name] for name in ("beta2_low", "beta2_high", "stderr"))
    for i, j, k, m in np.ndindex(low.shape[:4]):
        kept = np.isfinite(low[i, j, k, m].values)
        found.append(
            {
                "n": int(dataset["n"][j]),
                "a": float(dataset["a_value"][j, k]),
                "sampling": str(dataset["sampling"].values[i]),
                "beta1": float(dataset["beta1"][m]),
                "diverges": np.stack(
                    [low[i, j, k, m].values[kept], high[i, j, k, m].values[kept]], axis=1
                ).tolist(),
                "stderr": stderr[i, j, k, m].values[kept].tolist(),
            }
        )
    return found


def claims(dataset: xr.Dataset) -> list[Claim]:
    """Exponents and laws beside what our first-order theory says.

    Tolerances are the laws' own next-order terms. That 1 − β2* falls no faster than the n⁻⁵ that
    suffices for Theorem 3.1 is no claim: here it follows from the laws, and cannot fail.
    """
    n = dataset["scaling_n"].values
    one = dataset["scaling"].values[1]  # a = 1
    found = [
        assess(
            "cyclic_law",
            f"(1 − β2*)·a·n²/4 → 1 at a = 1, cyclic, β1 = 0 (at n = {n[-1]}, where the law's next "
            "term is 1/n)",
            "first-order theory",
            measured=float(one[-1] / scaling.cyclic_law(n[-1], 1.0)),
            at_least=1.0,
            at_most=1 + 2 / n[-1],
            ours=True,
        )
    ]
    against_a = dataset["against_a"].values
    least_a = 100.0
    steep = dataset["against_a_a"].values >= least_a * (1 - 1e-9)
    law = scaling.fit_power_law(dataset["against_a_d1"].values[steep], against_a[steep])
    tolerance = 1 / (_D1_N * least_a)
    found.append(
        assess(
            "d1_law",
            f"1 − β2* falls like 1/√D1 at n = {_D1_N} for a ≥ {least_a:g} (exponent; corrections "
            f"are of order 1/(n a) ≤ {tolerance:g})",
            "first-order theory",
            measured=law.exponent,
            uncertainty=2 * law.stderr,
            at_least=-0.5 - tolerance,
            at_most=-0.5 + tolerance,
            ours=True,
        )
    )
    last = dataset["replacement"].isel(replacement_n=-1)
    stderr = dataset["replacement_stderr"].isel(replacement_n=-1)
    table = counterexample_table(int(last["replacement_n"]), 1.0)
    law_value = scaling.with_replacement_law(table, 0.0)
    found.append(
        assess(
            "with_replacement_law",
            "With replacement 1 − β2* is 2E[g]E[g²]/Cov(g, g²) to first order (ratio at a = 1, "
            f"n = {_LAW_N[-1]}, β1 = 0, within that value itself)",
            "first-order theory",
            measured=float(last / law_value),
            uncertainty=float(2 * stderr / law_value),
            at_least=1 - law_value,
            at_most=1 + law_value,
            ours=True,
        )
    )
    return [*found, *_order_of_schemes(dataset)]


def _order_of_schemes(dataset: xr.Dataset) -> list[Claim]:
    """How far the threshold moves up from cyclic order to shuffling to draws with replacement."""
    order = ("cyclic", "random_shuffling", "with_replacement")
    if not set(order) <= set(dataset["sampling"].values):
        return []
    # the highest edge at each (n, a, β1), where all three schemes have one
    highest = dataset["beta2_high"].max("interval").sel(sampling=list(order))
    return [
        assess(
            "order_of_schemes",
            "On the counterexample, the more random the order, the larger β2 must be: cyclic, then "
            "random shuffling, then with replacement (least step of β2* from one to the next, over "
            "n, a and β1)",
            "none: Theorems 3.1 and 3.3 have thresholds of one kind",
            measured=float(highest.diff("sampling").min()),
            uncertainty=4 * float(dataset["stderr"].max().fillna(0)),
            at_least=0.0,
            ours=True,
        )
    ]


def _coordinates(study: BoundaryStudy) -> xr.Dataset:
    n = np.array(study.num_components)
    a = [[float(one) for one in study.a or (Fraction(1, (k - 1) ** 2),)] for k in n.tolist()]
    return xr.Dataset(
        coords={
            "sampling": ("sampling", np.array(study.samplings, dtype=object)),
            "n": ("n", n, {"long_name": "n", "units": "1"}),
            "a_value": (("n", "a"), np.array(a), {"long_name": "slope a", "units": "1"}),
            "beta1": ("beta1", np.array(study.beta1), {"long_name": "β1", "units": "1"}),
        }
    )


def _intervals(study: BoundaryStudy, results: store.Store) -> None:
    dims = ("sampling", "n", "a", "beta1", "interval")
    num_a = max(1, len(study.a))
    shape = (len(study.samplings), len(study.num_components), num_a, len(study.beta1))
    values = np.full((4, *shape, _MOST_INTERVALS), np.nan)
    for i, scheme in enumerate(study.samplings):
        for j, n in enumerate(study.num_components):
            for k, a in enumerate(study.a or (Fraction(1, (n - 1) ** 2),)):
                find = partial(_ends, study, counterexample_table(n, float(a)), scheme)
                [values[:, i, j, k]] = results.piece(f"{i} {j} {k}", find)
    names = {
        "beta2_low": "lower end of an interval of divergence",
        "beta2_high": "upper end of an interval of divergence",
        "one_minus_beta2_high": "1 − β2 at the upper end",
        "stderr": "standard error of the ends, the larger of the two",
    }
    for (name, long_name), one in zip(names.items(), values, strict=True):
        results.add(name, Variable(dims, np.float64, long_name), one)


def _ends(study: BoundaryStudy, table: np.ndarray, scheme: sampling.Sampling) -> list[np.ndarray]:
    """Low, high, 1 − high and error of every interval: (4, β1, interval)."""
    values = np.full((4, len(study.beta1), _MOST_INTERVALS), np.nan)
    found = divergence_intervals(table, study.beta1, scheme, key=sampling.stream_key(study.seed))
    for m, intervals in enumerate(found):
        for slot, (low, high) in enumerate(intervals):
            stderr = max(low.stderr, high.stderr)
            values[:, m, slot] = low.beta2, high.beta2, high.one_minus_beta2, stderr
    return [values]


def _curves(study: BoundaryStudy, results: store.Store) -> None:
    key = sampling.stream_key(study.seed)
    lines = {}
    for i, scheme in enumerate(study.samplings):
        for j, n in enumerate(study.num_components):
            a = float(study.a[0]) if study.a else None
            find = partial(
                boundary_curve, counterexample_table(n, a), scheme, key=key,
                num_points=(96, 128) if scheme in RANDOM else (160, 240),
            )  # fmt: skip
            pieces = results.piece(f"{i} {j}", find)
            gap = np.full((1, 2), np.nan)
            lines[i, j] = np.vstack([part for piece in pieces for part in (piece, gap)] or [gap])
    longest = max(len(line) for line in lines.values())
    shape = (len(study.samplings), len(study.num_components), longest, 2)
    values = np.full(shape, np.nan)
    for where, line in lines.items():
        values[where][: len(line)] = line
    variable = Variable(("sampling", "n", "vertex", "axis"), np.float64, "boundary (β1, β2)")
    results.add("curve", variable, values)


def _scaling(study: BoundaryStudy, results: store.Store) -> None:
    n = np.unique(np.geomspace(3, study.largest_n, 22).astype(int))
    values = [
        [
            edge.one_minus_beta2 if edge else np.nan
            for edge in scaling.upper_edges(n.tolist(), a, 0.0)
        ]
        for a in ((1 / (n - 1.0) ** 2).tolist(), [1.0] * len(n))
    ]
    results.add("scaling_n", Variable(("scaling_n",), np.int64, "n"), n)
    results.add(
        "family", Variable(("family",), np.int64, "0: a = 1/(n−1)², 1: a = 1"), np.arange(2)
    )
    variable = Variable(("family", "scaling_n"), np.float64, "1 − β2*, cyclic, β1 = 0")
    results.add("scaling", variable, np.array(values))


def _against_a(study: BoundaryStudy, results: store.Store) -> None:
    del study
    a = np.geomspace(1e-4, 1e3, 29)
    edges = scaling.upper_edges([_D1_N] * len(a), a.tolist(), 0.0)
    values = np.array([edge.one_minus_beta2 if edge else np.nan for edge in edges])
    results.add("against_a_a", Variable(("against_a_a",), np.float64, "slope a"), a)
    d1 = scaling.counterexample_d1(_D1_N, a)
    results.add("against_a_d1", Variable(("against_a_a",), np.float64, "D1"), d1)
    variable = Variable(("against_a_a",), np.float64, f"1 − β2*, n = {_D1_N}, cyclic, β1 = 0")
    results.add("against_a", variable, values)


def _replacement(study: BoundaryStudy, results: store.Store) -> None:
    del study
    edges = scaling.upper_edges(_LAW_N, [1.0] * len(_LAW_N), 0.0, "with_replacement")
    results.add("replacement_n", Variable(("replacement_n",), np.int64, "n"), np.array(_LAW_N))
    for name, attribute in (("replacement_stderr", "stderr"), ("replacement", "one_minus_beta2")):
        values = np.array([getattr(edge, attribute) if edge else np.nan for edge in edges])
        variable = Variable(("replacement_n",), np.float64, f"1 − β2*, a = 1, β1 = 0: {attribute}")
        results.add(name, variable, values)
