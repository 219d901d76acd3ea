"""What `experiments.theorem_3_1` and `theorem_3_3` share: they differ in the sampling scheme."""

from functools import partial
from typing import TYPE_CHECKING, Any

from absl import flags

from experiments import common

if TYPE_CHECKING:
    from adam_transition.sampling import Sampling
    from adam_transition.theorem_study import TheoremStudy


_BYTES_PER_RUN = 2000.0
"""Three results at 40 steps in single precision, and again in double: an estimate."""


def theorem_flags(name: str) -> flags.FlagValues:
    """The flags of either experiment."""
    values = common.common_flags(name)
    integer = partial(flags.DEFINE_integer, flag_values=values)
    flags.DEFINE_list("n", "3,5,10,20", "Numbers of components.", flag_values=values)
    integer("triples", 384, "Pairs (beta1, beta2) for each n and family of problems.", 16)
    integer("seeds", 10, "Index streams over which expectations are taken.", 3)
    integer("steps", 1_000_000, "Steps of each run.", 2000, 2**31 - 1)
    common.define_float("step_size", 0.1, "eta0 in eta0/sqrt(k).", 1e-9, flag_values=values)
    integer("samples", 50_000, "Steps averaged for each point of the random drift.", 10_000, 10**7)
    return values


def main(name: str, scheme: "Sampling", values: dict[str, Any]) -> None:
    """Flags → runs, limit points, thresholds → data set, figures, claims."""
    study = parse(scheme, values)

    from adam_transition import figures, theorem_claims, theorem_study

    common.run_study(
        name,
        values,
        theorem_study.plan(study),
        figures={
            f"{name}_rate": figures.theorem_rate,
            f"{name}_neighbourhood": figures.theorem_neighbourhood,
            f"{name}_conditions": figures.theorem_conditions,
            f"{name}_reddi": figures.theorem_reddi,
        },
        claims=theorem_claims.claims,
        more=lambda dataset: {"rows": theorem_claims.rows(dataset)},
        attrs={"theorem_scheme": scheme, "step_size": study.step_size},
    )


def parse(scheme: "Sampling", values: dict[str, Any]) -> "TheoremStudy":
    """The study that the flags describe.

    Raises:
      ValueError: naming the flag, its value and what is allowed.
    """
    from adam_transition import theorem_runs
    from adam_transition.theorem_study import TheoremStudy

    common.check_number("step_size", values["step_size"], dtype="float32", above=0)
    if values["seed"] + 6 * values["seeds"] > 2**31:
        raise ValueError(
            f"--seeds={values['seeds']}: with --seed={values['seed']}, 6 times as many seeds must "
            "stay below 2^31"
        )
    n = common.parse_integers("n", values["n"])
    if min(n) < 3:
        raise ValueError(f"--n={min(n)}: the counterexample needs n ≥ 3")
    try:
        theorem_runs.record_every(values["steps"], n)
    except ValueError as error:
        raise ValueError(f"--{error}") from None
    runs = len(n) * values["seeds"] * values["triples"]
    common.check_memory(
        f"--n={','.join(values['n'])} --seeds={values['seeds']} --triples={values['triples']}: "
        f"{runs} runs of each family",
        _BYTES_PER_RUN * runs,
    )
    return TheoremStudy(
        scheme=scheme,
        num_components=tuple(n),
        num_triples=values["triples"],
        num_seeds=values["seeds"],
        num_steps=values["steps"],
        step_size=values["step_size"],
        num_samples=values["samples"],
        seed=values["seed"],
    )
