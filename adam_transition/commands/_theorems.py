"""Shared by `experiments.theorem_3_1` and `theorem_3_3`, which differ in the sampling scheme."""

from functools import partial
from typing import TYPE_CHECKING, Any

from absl import flags

from adam_transition.commands import _flags, _outputs

if TYPE_CHECKING:
    from adam_transition.sampling import Sampling
    from adam_transition.studies.theorems.study import TheoremStudy


_BYTES_PER_RUN = 2000.0
"""An estimate: three results at 40 steps, in single and in double precision."""


def theorem_flags(name: str) -> flags.FlagValues:
    """The flags that both experiments share."""
    values = _flags.common_flags(name)
    integer = partial(flags.DEFINE_integer, flag_values=values)
    flags.DEFINE_list("n", "3,5,10,20", "Numbers of components, 3 or more.", flag_values=values)
    integer("triples", 384, "Pairs (beta1, beta2) per n and family of problems.", 16)
    integer("seeds", 10, "Number of index streams that expectations average over.", 3)
    integer("steps", 1_000_000, "Steps T of each run.", 2000, 2**31 - 1)
    _flags.define_float(
        "step_size", 0.1, "eta0 in eta0/sqrt(k), 1e-9 or more.", 1e-9, flag_values=values
    )
    integer("samples", 50_000, "Steps averaged per point of an estimated drift.", 10_000, 10**7)
    return values


def main(sampling: "Sampling", values: dict[str, Any]) -> None:
    """Flags → runs, limit points, thresholds → data set, figures, claims."""
    _outputs.run_study(values, parse(sampling, values))


def parse(sampling: "Sampling", values: dict[str, Any]) -> "TheoremStudy":
    """The study that the flags describe.

    Raises:
      ValueError: naming the flag, its value and what is allowed.
    """
    from adam_transition.studies.runs import record_every
    from adam_transition.studies.theorems.study import TheoremStudy

    _flags.check_number("step_size", values["step_size"], dtype="float32", above=0)
    if values["seed"] + 6 * values["seeds"] > 2**31:
        raise ValueError(
            f"--seeds={values['seeds']}: with --seed={values['seed']}, 6 times as many seeds must "
            "stay below 2^31"
        )
    n = _flags.parse_integers("n", values["n"])
    if min(n) < 3:
        raise ValueError(f"--n={min(n)}: the counterexample needs n ≥ 3")
    try:
        record_every(values["steps"], n)
    except ValueError as error:
        raise ValueError(f"--{error}") from None
    num_runs = len(n) * values["seeds"] * values["triples"]
    _flags.check_memory(
        f"--n={','.join(values['n'])} --seeds={values['seeds']} --triples={values['triples']}: "
        f"{num_runs} runs of each family",
        _BYTES_PER_RUN * num_runs,
    )
    return TheoremStudy(
        sampling=sampling,
        num_components=tuple(n),
        num_triples=values["triples"],
        num_seeds=values["seeds"],
        num_steps=values["steps"],
        step_size=values["step_size"],
        num_samples=values["samples"],
        seed=values["seed"],
    )
