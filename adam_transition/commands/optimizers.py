"""Where other optimisers than Adam diverge on the counterexample, and whether at their defaults.

For each optimiser, n, a and sampling scheme: the intervals of its last hyperparameter on which the
stationary drift points away from the minimiser. Example:

    python -m experiments.optimizers --flagfile=experiments/flagfiles/optimizers.flags
"""

import math
import sys
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any

from absl import flags

from adam_transition.commands import _flags, _outputs, _runner

if TYPE_CHECKING:
    from adam_transition.studies.optimizers.study import OptimizerStudy

FLAGS = _flags.common_flags("optimizers")
_list = partial(flags.DEFINE_list, flag_values=FLAGS)

_GREATEST_N = 200
_GREATEST_DEFAULT_N = 10_000
_MOST_BOUNDARIES = 2000
_GREATEST_SIZE = 64
_MOST_SLOPES = 4  # line styles
_MOST_N = 7  # colours
_SLOPES = 1e-9, 1e6

_list(
    "optimizer",
    "",
    "Optimisers by name (adam_transition.optimizers.OPTIMIZERS), or package.module:factory, a "
    "function (beta1, beta2) of an optax transformation with learning rate 1; default: all named.",
)
_list("n", "5,20,50", "Numbers of components, 3 to 200: a list or lo:hi:count.")
_list("a", "default,1", "Slopes a > 0 of the counterexample; default is 1/(n-1)^2 for each n.")
_list(
    "sampling",
    "cyclic,random_shuffling,with_replacement",
    "Sampling schemes: cyclic, shuffle_once, random_shuffling, with_replacement.",
)
flags.DEFINE_float(
    "beta1",
    0.9,
    "First beta of a factory of yours that has two, unless its argument has a default.",
    0.0,
    1.0,
    flag_values=FLAGS,
)
flags.DEFINE_integer(
    "samples", 100_000, "Steps averaged for each drift of a random scheme.", 1000, 10**8,
    flag_values=FLAGS,
)  # fmt: skip
_list(
    "default_n",
    "3,5,10,20,50,100,200,500,1000",
    "Numbers of components at which the libraries' defaults are tried in cyclic order, 3 to 10000.",
)
_list(
    "random_default_n",
    "5,20,100",
    "Numbers of components at which they are tried in random orders, 3 to 200.",
)
_list(
    "matrix_sizes",
    "2,4,8",
    "Rows and columns of the matrices on which Muon is tried, 2 to 64: a list or lo:hi:count.",
)
_list(
    "matrix_noise",
    "1,3,10",
    "Noise across the direction of the matrix counterexample, relative to it, each above 0.",
)


def main(values: dict[str, Any]) -> None:
    """Flags → boundaries → data set, figures, claims."""
    study = parse(values)
    _outputs.run_study(values, study, identity=_flags.sources(study.optimizers))


def parse(values: dict[str, Any]) -> "OptimizerStudy":
    """The study that the flags describe.

    Raises:
      ValueError: naming the flag, its value and what is allowed.
    """
    from adam_transition import optimizers, sampling
    from adam_transition.studies.optimizers.study import OptimizerStudy

    _flags.check_choices("sampling", values["sampling"], sampling.SAMPLINGS)
    n = _flags.integers_in(values, "n", 3, _GREATEST_N)
    if len(n) > _MOST_N:
        raise ValueError(f"--n={','.join(values['n'])}: at most {_MOST_N} values are allowed")
    slopes = _slopes(values["a"], n)
    if values["beta1"] == 1:
        raise ValueError("--beta1=1: must lie in [0, 1)")
    noise = _flags.parse_list("matrix_noise", values["matrix_noise"], float)
    if not all(0 < one < math.inf for one in noise):
        shown = ",".join(values["matrix_noise"])
        raise ValueError(f"--matrix_noise={shown}: must be finite and above 0")
    chosen = _flags.parse_optimizers(values["optimizer"] or list(optimizers.OPTIMIZERS))
    boundaries = len(chosen) * len(n) * len(slopes) * len(values["sampling"])
    _flags.check_work(
        values, ("optimizer", "n", "a", "sampling"), "boundaries", boundaries, _MOST_BOUNDARIES
    )
    return OptimizerStudy(
        optimizers=chosen,
        num_components=n,
        a=slopes,
        samplings=tuple(values["sampling"]),
        beta1=values["beta1"],
        num_samples=values["samples"],
        matrix_sizes=_flags.integers_in(values, "matrix_sizes", 2, _GREATEST_SIZE),
        matrix_noise=tuple(noise),
        default_n=_flags.integers_in(values, "default_n", 3, _GREATEST_DEFAULT_N),
        random_default_n=_flags.integers_in(values, "random_default_n", 3, _GREATEST_N),
        seed=values["seed"],
    )


def _slopes(given: list[str], n: tuple[int, ...]) -> tuple[float | None, ...]:
    """The values of --a, None for 1/(n−1)²."""
    from adam_transition import problems

    if not given or len(set(given)) < len(given) or len(given) > _MOST_SLOPES:
        raise ValueError(
            f"--a={','.join(given)}: needs 1 to {_MOST_SLOPES} different values, default being one"
        )
    numbers = _flags.parse_list("a", [one for one in given if one != "default"] or ["1"], Fraction)
    remaining = iter(numbers)
    slopes = [None if one == "default" else next(remaining) for one in given]
    for one_n in n:
        for slope in slopes:
            try:
                problems.counterexample(one_n, slope)
            except ValueError as error:
                raise ValueError(f"--{error}") from None
    for slope in slopes:
        if slope is not None and not _SLOPES[0] <= slope <= _SLOPES[1]:
            raise ValueError(f"--a={float(slope):g}: must lie in [{_SLOPES[0]:g}, {_SLOPES[1]:g}]")
    return tuple(None if slope is None else float(slope) for slope in slopes)


COMMAND = _runner.Command("optimizers", __doc__, FLAGS, main)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
