"""The divergence theorem: regions, areas, trajectories, Sign-SGD, and the smallest D1.

For each n there are two members of the problem class: the paper's, and one with D1 = 2n². Example:

    python -m experiments.divergence --flagfile=experiments/flagfiles/divergence.flags
"""

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from absl import flags

from adam_transition.commands import _flags, _outputs, _runner

if TYPE_CHECKING:
    from adam_transition.studies.divergence.study import DivergenceStudy

FLAGS = _flags.common_flags("divergence")
_list = partial(flags.DEFINE_list, flag_values=FLAGS)
_integer = partial(flags.DEFINE_integer, flag_values=FLAGS)

_GREATEST_N = {"n": 10**5, "d1_n": 100}
_MOST_N = 1000
_MOST_SEARCHES = 10_000  # for the smallest D1, seconds each

_list("n", "5,10,20,50", "Numbers of components for regions and trajectories, 3 to 10^5.")
_list(
    "sampling",
    "cyclic,random_shuffling,with_replacement",
    "Sampling schemes: cyclic, shuffle_once, random_shuffling, with_replacement.",
)
_integer("cells", 100, "Cells of the regions along each axis of [0, 1)^2.", 4, 1000)
_integer("largest_n", 3000, "Largest n at which areas are computed, from n = 3 on.", 30, 10**5)
flags.DEFINE_string(
    "point", "0.2/0.1", "beta1/beta2 of the trajectories, in [0, 1).", flag_values=FLAGS
)
_integer("steps", 100_000, "Steps of the trajectories.", 1000, 2**31 - 1)
_flags.define_float(
    "step_size", 0.1, "eta0 in eta0/sqrt(k), 1e-9 or more.", 1e-9, flag_values=FLAGS
)
_list("d1_n", "3,5,10,20", "Numbers of components for the smallest D1, 3 to 100.")
_list("d1_beta1", "0,0.9", "Values of beta1 for the smallest D1, in [0, 1).")
_list(
    "d1_beta2",
    "0.01,0.1,0.3,0.5,0.7,0.9,0.99",
    "Values of beta2 for the smallest D1, in (0, 1).",
)


def main(values: dict[str, Any]) -> None:
    """Flags → regions, trajectories, smallest D1 → data set, figures, claims."""
    _outputs.run_study(values, parse(values))


def parse(values: dict[str, Any]) -> "DivergenceStudy":
    """The study that the flags describe.

    Raises:
      ValueError: naming the flag, its value and what is allowed.
    """
    from adam_transition import sampling
    from adam_transition.studies.divergence.study import DivergenceStudy

    _flags.check_choices("sampling", values["sampling"], sampling.SAMPLINGS)
    _flags.check_number("step_size", values["step_size"], above=0)
    ns = {flag: _flags.parse_integers(flag, values[flag]) for flag in ("n", "d1_n")}
    for flag, entries in ns.items():
        if min(entries) < 3:
            raise ValueError(f"--{flag}={min(entries)}: the divergence theorem needs n ≥ 3")
        if max(entries) > _GREATEST_N[flag]:
            raise ValueError(f"--{flag}={max(entries)}: at most {_GREATEST_N[flag]} is allowed")
        _flags.check_work(values, [flag], "numbers of components", len(entries), _MOST_N)
    betas = {
        flag: tuple(_flags.parse_grid(flag, ",".join(values[flag])).tolist())
        for flag in ("d1_beta1", "d1_beta2")
    }
    if min(betas["d1_beta2"]) <= 0:
        raise ValueError("--d1_beta2: values must lie in (0, 1); β2 = 0 is solved exactly")
    searches = len(ns["d1_n"]) * len(betas["d1_beta1"]) * len(betas["d1_beta2"])
    _flags.check_work(
        values,
        ("d1_n", "d1_beta1", "d1_beta2"),
        "searches for the smallest D1",
        searches,
        _MOST_SEARCHES,
    )
    drifts = 2 * (len(values["sampling"]) + 1) * len(ns["n"]) * values["cells"] ** 2
    _flags.check_memory(
        f"--n={','.join(values['n'])} --cells={values['cells']}: {drifts} values of the drift",
        8.0 * 8 * drifts,
    )
    return DivergenceStudy(
        num_components=tuple(ns["n"]),
        samplings=tuple(values["sampling"]),
        cells=values["cells"],
        largest_n=values["largest_n"],
        point=_flags.parse_point("point", values["point"]),
        num_steps=values["steps"],
        step_size=values["step_size"],
        d1_num_components=tuple(ns["d1_n"]),
        d1_beta1=betas["d1_beta1"],
        d1_beta2=betas["d1_beta2"],
        seed=values["seed"],
    )


COMMAND = _runner.Command("divergence", __doc__, FLAGS, main)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
