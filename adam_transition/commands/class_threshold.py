"""Which β2 is enough for every one-dimensional problem of a class, and where less fails.

The classes are those of finite sums with n components, D0 = 0 and a given D1. With replacement the
bound holds for every beta1; for random shuffling it gets weaker with beta1, up to saying nothing.

Example:
    python -m experiments.class_threshold --n=20 --d1=800 --sampling=with_replacement --json=-
"""

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from absl import flags

from adam_transition.commands import _flags, _outputs, _runner

if TYPE_CHECKING:
    from adam_transition.studies.class_threshold.study import ClassThresholdStudy

FLAGS = _flags.common_flags("class_threshold")
_list = partial(flags.DEFINE_list, flag_values=FLAGS)

_GREATEST_N = 100
_MOST_TABLES = 20_000
_MOST_D1 = 1e6

_list("n", "5,10,20,40", "Numbers of components, 3 to 100: a list or lo:hi:count.")
_list("d1", "", "Values of D1, above n; default: from 1.25 n to 160 n.")
_list(
    "sampling",
    "with_replacement,cyclic",
    "Sampling schemes: cyclic, random_shuffling, with_replacement.",
)
_list("beta1", "0", "Values of beta1 in [0, 1).")


def main(values: dict[str, Any]) -> None:
    """Flags → thresholds → data set, figure, claims."""
    _outputs.run_study(values, parse(values))


def parse(values: dict[str, Any]) -> "ClassThresholdStudy":
    """The study that the flags describe.

    Raises:
      ValueError: naming the flag, its value and what is allowed.
    """
    from adam_transition.studies.class_threshold.data import DEFAULT_RATIO
    from adam_transition.studies.class_threshold.study import ClassThresholdStudy

    _flags.check_choices("sampling", values["sampling"], _flags.SCHEMES)
    n = _flags.integers_in(values, "n", 3, _GREATEST_N)
    d1 = _flags.parse_list("d1", values["d1"], float) if values["d1"] else []
    for one in d1:
        if not max(n) < one <= _MOST_D1:
            raise ValueError(f"--d1={one:g}: must lie in ({max(n)}, {_MOST_D1:g}] for these --n")
    beta1 = _flags.parse_grid("beta1", ",".join(values["beta1"]))
    tables = sum(k // 2 for k in n) * len(values["sampling"]) * len(beta1)
    tables *= len(d1) or len(DEFAULT_RATIO)
    _flags.check_work(values, ("n", "d1", "sampling", "beta1"), "tables", tables, _MOST_TABLES)
    return ClassThresholdStudy(
        num_components=n,
        d1=tuple(sorted(d1)),
        samplings=tuple(values["sampling"]),
        beta1=tuple(beta1.tolist()),
    )


COMMAND = _runner.Command("class_threshold", __doc__, FLAGS, main)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
