"""Where starts near the minimiser stay although the drift points away: the trap, mapped.

Within a few steps of x* gradients are not frozen, and the sign of the stationary drift does not
decide. For each cell with a positive drift: the largest distance in steps from which a start stays,
under the map without a scale; and runs of Adam beside it. Example:

    python -m experiments.trap --n=3,5,10 --a=1
"""

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from absl import flags

from adam_transition.commands import _flags, _outputs, _runner

if TYPE_CHECKING:
    from adam_transition.studies.trap.study import TrapStudy

FLAGS = _flags.common_flags("trap")
_list = partial(flags.DEFINE_list, flag_values=FLAGS)
_string = partial(flags.DEFINE_string, flag_values=FLAGS)
_integer = partial(flags.DEFINE_integer, flag_values=FLAGS)

_GREATEST_N = 100
_MOST_WORK = 2e11  # steps of cells and starts, some ten minutes

_list("n", "3,5,10,20", "Numbers of components, 3 to 100: a list or lo:hi:count.")
_string("a", "1", "Slope a > 0 of the counterexample; empty: 1/(n-1)^2 for each n.")
_list(
    "sampling",
    "cyclic,random_shuffling,with_replacement",
    "Sampling schemes: cyclic, random_shuffling, with_replacement.",
)
_string("beta1", "0:0.98:50", "beta1 in [0, 1): lo:hi:count, lo:hi:count:logit or a list.")
_string("beta2", "0.01:0.99:50", "beta2 in [0, 1), likewise.")
_integer("epochs", 4096, "Length of the runs of the map, in epochs.", 64, 10**6)


def main(values: dict[str, Any]) -> None:
    """Flags → basins, runs → data set, figure, claims."""
    _outputs.run_study(values, parse(values))


def parse(values: dict[str, Any]) -> "TrapStudy":
    """The study that the flags describe.

    Raises:
      ValueError: naming the flag, its value and what is allowed.
    """
    from adam_transition.studies.trap.data import STARTS
    from adam_transition.studies.trap.study import TrapStudy

    _flags.check_choices("sampling", values["sampling"], _flags.SCHEMES)
    n = _flags.integers_in(values, "n", 3, _GREATEST_N)
    a = _flags.parse_slope(n, values["a"])
    beta1 = _flags.parse_grid("beta1", values["beta1"])
    beta2 = _flags.parse_grid("beta2", values["beta2"])
    steps = sum(n) * values["epochs"] * len(beta1) * len(beta2) * len(STARTS)
    work = steps * len(values["sampling"])
    if work > _MOST_WORK:
        raise ValueError(
            f"--beta1, --beta2, --n, --epochs: {work:.0e} steps; at most {_MOST_WORK:.0e} are "
            "allowed"
        )
    return TrapStudy(
        num_components=n,
        a=a,
        samplings=tuple(values["sampling"]),
        beta1=beta1,
        beta2=beta2,
        num_epochs=values["epochs"],
        seed=values["seed"],
    )


COMMAND = _runner.Command("trap", __doc__, FLAGS, main)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
