"""The authors' own heat map of the counterexample, overlaid with ours.

Which slope, n, order, start, initial moments and step sizes give the picture that the NeurIPS
version printed? Runs Adam on the picture's grid at every combination of those listed, and says
which map is nearest and which settings the picture excludes. Example:

    python -m experiments.published --n=10,11 --a=1
"""

import sys
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any

from absl import flags

from adam_transition.commands import _flags, _outputs, _runner

if TYPE_CHECKING:
    from adam_transition.studies.published.study import PublishedStudy

FLAGS = _flags.common_flags("published")
_list = partial(flags.DEFINE_list, flag_values=FLAGS)
_integer = partial(flags.DEFINE_integer, flag_values=FLAGS)

_MOST_STEPS = 1e12  # of cells, some ten minutes

_list("n", "10,11", "Numbers of components, 3 to 1000: a list or lo:hi:count.")
_list("a", "1,1/(n-1)^2", "Slopes a > 0 of the counterexample, or 1/(n-1)^2 of each n.")
_list(
    "sampling",
    "cyclic,random_shuffling,with_replacement",
    "Sampling schemes: cyclic, random_shuffling, with_replacement.",
)
_list("x0", "-1,0,0.75,1,1.25", "Starts, above the minimiser -2.")
_list(
    "initialization",
    "zero,first_gradient,bias_correction",
    "Initial moments: zero, first_gradient, bias_correction.",
)
_list(
    "schedule",
    "inverse_sqrt,inverse_sqrt_epoch",
    "Step sizes: constant, inverse_sqrt, inverse_sqrt_epoch.",
)
_list("step_size", "0.1,0.3", "Initial step sizes eta0, above 0.")
_integer("streams", 2, "Index streams of each random order.", 1, 100)
_integer("steps", 50_000, "Number of updates.", 1, 10**6)


def main(values: dict[str, Any]) -> None:
    """Flags → maps, scores → data set, figure, claims."""
    _outputs.run_study(values, parse(values))


def parse(values: dict[str, Any]) -> "PublishedStudy":
    """The study that the flags describe.

    Raises:
      ValueError: naming the flag, its value and what is allowed.
    """
    from adam_transition import adam
    from adam_transition.studies.published.data import OWN_SLOPE
    from adam_transition.studies.published.digitised import counterexample_2022
    from adam_transition.studies.published.study import PublishedStudy

    for name, allowed in (
        ("sampling", _flags.SCHEMES),
        ("initialization", adam.INITIALIZATIONS),
        ("schedule", adam.SCHEDULES),
    ):
        _flags.check_choices(name, values[name], allowed)
    n = _flags.integers_in(values, "n", 3, 1000)
    slopes = [_flags.parse_slope(n, "" if a == OWN_SLOPE else a) for a in values["a"]]
    of_n = [[Fraction(1, (m - 1) ** 2) if a is None else a for a in slopes] for m in n]
    if not slopes or any(len(set(one)) < len(one) for one in of_n):
        raise ValueError(f"--a={','.join(values['a'])}: needs one or more different slopes")
    starts = tuple(_flags.parse_list("x0", values["x0"], float))
    step_sizes = tuple(_flags.parse_list("step_size", values["step_size"], float))
    for size in step_sizes:
        _flags.check_number("step_size", size, dtype="float32", above=0.0)
    for start in starts:
        _flags.check_number("x0", start, dtype="float32", above=-2.0)
    study = PublishedStudy(
        samplings=tuple(values["sampling"]),
        num_components=n,
        a=tuple(slopes),
        schedules=tuple(values["schedule"]),
        step_sizes=step_sizes,
        initializations=tuple(values["initialization"]),
        x0=starts,
        num_streams=values["streams"],
        num_steps=values["steps"],
        seed=values["seed"],
    )
    work = study.num_settings * counterexample_2022().values.size * values["steps"]
    if work > _MOST_STEPS:
        raise ValueError(
            f"--n, --a, --x0, --sampling, --streams, …: {work:.0e} steps of all cells; at most "
            f"{_MOST_STEPS:.0e} are allowed"
        )
    return study


COMMAND = _runner.Command("published", __doc__, FLAGS, main)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
