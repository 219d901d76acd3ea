"""The concentration lemma, and the direction of the update as beta2 changes.

Example:
python -m experiments.concentration --flagfile=experiments/flagfiles/concentration.flags
"""

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from absl import flags

from adam_transition.commands import _flags, _outputs, _runner

if TYPE_CHECKING:
    from adam_transition.studies.concentration.study import ConcentrationStudy

FLAGS = _flags.common_flags("concentration")
_list = partial(flags.DEFINE_list, flag_values=FLAGS)
_integer = partial(flags.DEFINE_integer, flag_values=FLAGS)

_LEAST_Q = 1e-12
_GREATEST_N = 10**4

_list("n", "3,5,10,20,50", "Numbers of components, 3 to 10^4.")
_list("delta", "1,0.5", "delta of the lemma in units of 1/(4n), in (0, 1].")
_list(
    "q",
    "0.9,0.3,0.1,0.03",
    "1 - beta2 as a fraction, in (0, 1], of the largest with a non-trivial bound of the lemma.",
)
_list(
    "sampling",
    "cyclic,random_shuffling,with_replacement",
    "Sampling schemes for the direction of the update.",
)
_integer("samples", 4096, "Draws of v per point.", 256, 2**31 - 1)
flags.DEFINE_string(
    "beta1", "0", "beta1 for the direction of the update, in [0, 1).", flag_values=FLAGS
)
_integer("points", 33, "Number of beta2 for the direction of the update.", 5, 1000)


def main(values: dict[str, Any]) -> None:
    """Flags → draws of v, directions → data set, figures, claims."""
    _outputs.run_study(values, parse(values))


def parse(values: dict[str, Any]) -> "ConcentrationStudy":
    """The study that the flags describe.

    Raises:
      ValueError: naming the flag, its value and what is allowed.
    """
    from adam_transition import sampling
    from adam_transition.studies.concentration.study import ConcentrationStudy
    from adam_transition.theory import concentration

    _flags.check_choices("sampling", values["sampling"], sampling.SAMPLINGS)
    n = _flags.parse_integers("n", values["n"])
    if min(n) < 3:
        raise ValueError(f"--n={min(n)}: the counterexample needs n ≥ 3")
    if max(n) > _GREATEST_N:
        raise ValueError(f"--n={max(n)}: at most {_GREATEST_N} is allowed")
    beta1 = _flags.parse_grid("beta1", values["beta1"])
    if beta1.size > 1:
        raise ValueError(f"--beta1={values['beta1']}: needs one value")
    relative = {}
    for flag in ("delta", "q"):
        relative[flag] = _flags.parse_list(flag, values[flag], float)
        if not all(0 < value <= 1 for value in relative[flag]):
            raise ValueError(f"--{flag}={','.join(values[flag])}: values must lie in (0, 1]")
    for one_n in n:
        for delta in relative["delta"]:
            largest = concentration.largest_informative(one_n, delta / (4 * one_n))
            for q in relative["q"]:
                if not q * largest >= _LEAST_Q:
                    raise ValueError(
                        f"--q={q:g}: with --n={one_n} and --delta={delta:g}, 1 - beta2 is "
                        f"{q * largest:.2g}; at least {_LEAST_Q:g} is allowed"
                    )
    _flags.check_memory(
        f"--samples={values['samples']}", 8.0 * 8 * 8 * values["samples"] + 64 * max(n) ** 2
    )
    return ConcentrationStudy(
        num_components=tuple(n),
        relative_delta=tuple(relative["delta"]),
        relative_q=tuple(relative["q"]),
        samplings=tuple(values["sampling"]),
        num_samples=values["samples"],
        beta1=float(beta1[0]),
        num_beta2=values["points"],
        seed=values["seed"],
    )


COMMAND = _runner.Command("concentration", __doc__, FLAGS, main)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
