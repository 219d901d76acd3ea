"""Coverage of the 95 % intervals of `advise`, over tables of different batches of the same data.

For Gaussian, skewed (one large gradient in a hundred), heavy-tailed (Student's t, 3 degrees of
freedom) and sparse gradients it draws tables of n batches. For each statistic it prints the share
of tables whose interval contains the value from 20 000 batches, and the share with a finite
interval.

    python -m benchmarks.coverage --tables=1000 --batches=400
"""

import argparse
from collections.abc import Callable

import numpy as np

from adam_transition import sampling
from adam_transition.advise import GradientTable, needed_beta2, probe

_K = 4
DRAWS: dict[str, Callable[[np.random.Generator, int], np.ndarray]] = {
    "gaussian": lambda rng, n: rng.normal(0.3, 1, (n, _K)),
    "one in 100": lambda rng, n: (
        np.where(rng.random((n, _K)) < 0.01, 30.0, 0.0) + rng.normal(-0.2, 0.05, (n, _K))
    ),
    "student 3": lambda rng, n: rng.standard_t(3, (n, _K)) + 0.3,
    "sparse": lambda rng, n: np.where(rng.random((n, _K)) < 0.05, rng.normal(1, 1, (n, _K)), 0.0),
}


def intervals(table: GradientTable, q: list[float]) -> dict[str, tuple[float, float, float]]:
    """Value, lower end and upper end of every statistic."""
    key = sampling.stream_key(0)
    found = probe(table, q, key)
    values: dict[str, tuple[float, float, float]] = {}
    for i, one in enumerate(q):
        for name in ("progress", "squares"):
            ends = (getattr(found, f"{name}{end}")[0, i] for end in ("", "_low", "_high"))
            value, low, high = (float(end) for end in ends)
            values[f"{name} {one:g}"] = value, low, high
    low, high = (float(np.asarray(end)) for end in table.noise_ratio_interval)
    values["noise ratio"] = table.noise_ratio, low, high
    low, high = (float(np.asarray(end)[0]) for end in table.skewness_interval)
    values["skewness"] = float(table.skewness[0]), low, high
    for beta1 in (0.0, 0.9):
        needed = needed_beta2(table, key, beta1=beta1, least=1e-3)
        value = float(np.nan_to_num(needed.one_minus_beta2))
        values[f"needed, β1 = {beta1:g}"] = value, needed.low, needed.high
    return values


def main() -> None:
    parser = argparse.ArgumentParser(description="Coverage of the intervals of advise.")
    parser.add_argument("--tables", type=int, default=1000)
    parser.add_argument("--batches", type=int, default=400)
    arguments = parser.parse_args()
    q = [0.1, 0.01, 0.001]
    for name, draw in DRAWS.items():
        rows = draw(np.random.default_rng(99), 20_000)
        true = {
            what: value
            for what, (value, _, _) in intervals(
                GradientTable.from_rows(rows, complete=True), q
            ).items()
        }
        if name in ("gaussian", "student 3"):
            true["skewness"] = 0.0  # by symmetry; Student's t has no third moment
        rng = np.random.default_rng(0)
        inside = {what: [0, 0] for what in true}
        for _ in range(arguments.tables):
            table = GradientTable.from_rows(draw(rng, arguments.batches))
            for what, (_, low, high) in intervals(table, q).items():
                inside[what][0] += low <= true[what] <= high
                inside[what][1] += bool(np.isfinite([low, high]).all())
        for what, counts in inside.items():
            covered, finite = (count / arguments.tables for count in counts)
            print(
                f"{name:12} {what:16} {true[what]:9.4g}  covered {covered:.3f}  finite {finite:.3f}"
            )


if __name__ == "__main__":
    main()
