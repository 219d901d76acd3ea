"""The exact phase boundary of the counterexample, and how it moves with n and with D1.

For each (n, a, sampling, β1): the intervals of β2 on which the stationary drift points away from
the minimiser. Example:

    python -m experiments.boundary --flagfile=experiments/flagfiles/boundary.flags
"""

import sys
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any

from absl import flags

from adam_transition.commands import _flags, _outputs, _runner

if TYPE_CHECKING:
    from adam_transition.studies.boundary.study import BoundaryStudy

FLAGS = _flags.common_flags("boundary")
_list = partial(flags.DEFINE_list, flag_values=FLAGS)
_integer = partial(flags.DEFINE_integer, flag_values=FLAGS)

_GREATEST_N = 10**6
_MOST_BOUNDARIES = 100_000

_list("n", "5,10,20,50", "Numbers of components, 3 to 10^6: a list or lo:hi:count.")
_list("a", "", "Slopes a > 0 of the counterexample; default: 1/(n-1)^2 for each n.")
_list(
    "sampling",
    "cyclic,random_shuffling,with_replacement",
    "Sampling schemes: cyclic, shuffle_once, random_shuffling, with_replacement.",
)
_list("beta1", "0,0.25,0.5,0.75,0.9", "Values of beta1 in [0, 1).")
_integer("largest_n", 10_000, "Largest n of the scaling figures, which start at 3.", 200, 10**6)


def main(values: dict[str, Any]) -> None:
    """Flags → boundaries → data set, figures, claims."""
    _outputs.run_study(values, parse(values))


def parse(values: dict[str, Any]) -> "BoundaryStudy":
    """The study that the flags describe.

    Raises:
      ValueError: naming the flag, its value and what is allowed.
    """
    from adam_transition import problems, sampling
    from adam_transition.studies.boundary.study import BoundaryStudy

    _flags.check_choices("sampling", values["sampling"], sampling.SAMPLINGS)
    n = _flags.parse_integers("n", values["n"])
    a = _flags.parse_list("a", values["a"], Fraction) if values["a"] else []
    if max(n) > _GREATEST_N:
        raise ValueError(f"--n={max(n)}: at most {_GREATEST_N} is allowed")
    beta1 = _flags.parse_grid("beta1", ",".join(values["beta1"]))
    boundaries = len(n) * max(1, len(a)) * len(values["sampling"]) * len(beta1)
    _flags.check_work(
        values, ("n", "a", "sampling", "beta1"), "boundaries", boundaries, _MOST_BOUNDARIES
    )
    _flags.check_slopes(n, a)
    for one_n in n:
        for one_a in a or [None]:
            try:
                problems.counterexample(one_n, one_a)
            except ValueError as error:
                raise ValueError(f"--{error}") from None
    return BoundaryStudy(
        num_components=tuple(n),
        a=tuple(a),
        samplings=tuple(values["sampling"]),
        beta1=tuple(beta1.tolist()),
        largest_n=values["largest_n"],
        seed=values["seed"],
    )


COMMAND = _runner.Command("boundary", __doc__, FLAGS, main)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
