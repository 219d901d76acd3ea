"""The phase diagram: for which (β1, β2) does Adam converge, at each n and sampling scheme?

Simulates every cell of a grid (or of random cells), judges it, and writes a labelled data set,
figures and a summary. Example:

    python -m experiments.phase --flagfile=experiments/flagfiles/phase.flags
"""

import dataclasses
import sys
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any, cast, get_args

from absl import flags

from adam_transition.commands import _flags, _outputs, _runner

if TYPE_CHECKING:
    import numpy as np

    from adam_transition import problems
    from adam_transition.optimizers import Optimizer
    from adam_transition.studies.phase.diagram import Backend, PhaseDiagram
    from adam_transition.studies.phase.study import PhaseStudy

FLAGS = _flags.common_flags("phase")
_string = partial(flags.DEFINE_string, flag_values=FLAGS)
_list = partial(flags.DEFINE_list, flag_values=FLAGS)
_integer = partial(flags.DEFINE_integer, flag_values=FLAGS)
_float = partial(_flags.define_float, flag_values=FLAGS)

_string("problem", "counterexample", "A built-in problem: adam_transition.problems.PROBLEMS.")
_list(
    "n",
    "",
    "Numbers of components, a list or lo:hi:count; default: 5,10,20,50 or fixed by the problem.",
)
_list("a", "", "Slopes a > 0 of the counterexample; default: 1/(n-1)^2 for each n.")
_string("C", "", "Large slope of the examples of Reddi et al.; default: n, 3 (mod3) or 1010.")
_string("small", "", "Minus the small slope of reddi_online and reddi_stochastic; default: 10.")
_string("dimension", "", "Dimension of the quadratics; default: 1.")
_list(
    "sampling",
    "cyclic,random_shuffling,with_replacement",
    "Sampling schemes: cyclic, shuffle_once, random_shuffling, with_replacement.",
)
_list(
    "optimizer",
    "adam",
    "Optimisers by name (adam_transition.optimizers.OPTIMIZERS), or package.module:factory, a "
    "function (beta1, beta2) of an optax transformation with learning rate 1.",
)
_string("beta1", "0:0.99609375:256", "Grid in [0, 1): lo:hi:count, lo:hi:count:logit or a list.")
_string("beta2", "0:0.99609375:256", "Grid in [0, 1), as for --beta1.")
_integer("random_cells", 0, "If > 0: this many random (beta1, beta2) per n, not a grid.", 0)
_integer("steps", 50_000, "Number of updates T.", 1, 2**31 - 1)
_float("x0", 1.0, "Start, the same in every coordinate; feasible and not the minimiser.")
_float("step_size", 0.1, "eta0, above 0.", 0.0)
_string("schedule", "inverse_sqrt", "Step sizes: constant, inverse_sqrt or inverse_sqrt_epoch.")
_string("initialization", "zero", "Initial moments: zero, first_gradient or bias_correction.")
_float("epsilon", 0.0, "epsilon of Adam, outside the square root; 0 or more.", 0.0)
flags.DEFINE_enum(
    "dtype", "float32", ["float32", "float64"], "Precision of the simulation.", flag_values=FLAGS
)
flags.DEFINE_boolean(
    "common_random_numbers",
    True,
    "Cells of one n share an index stream; --nocommon_random_numbers draws one per cell (slow).",
    flag_values=FLAGS,
)
_string("backend", "auto", "xla, blocks (for CPUs), pallas (for GPUs) or auto.")
_list("trajectories", "", "Points beta1/beta2 whose trajectories are drawn.")
_integer(
    "chunk_cells",
    0,
    "Cells written at once, the most that an interruption loses; 0: the default.",
    0,
)


_MOST_TRAJECTORIES = 100
_BYTES_PER_CELL = 100.0
"""Results, drift, and the arrays derived from them for claims and figures."""


def main(values: dict[str, Any]) -> None:
    """Flags → sweep → data set, figures, claims."""
    study = parse(values)
    own = _flags.sources(study.diagram.optimizers)
    identity = {"simulation_backend": study.diagram.backend, **own}
    _outputs.run_study(values, study, identity=identity)


def parse(values: dict[str, Any]) -> "PhaseStudy":
    """The study that the flags describe.

    Raises:
      ValueError: naming the flag, its value and what is allowed.
    """
    from adam_transition.studies.phase.diagram import PhaseDiagram
    from adam_transition.studies.phase.study import PhaseStudy

    _check_settings(values)
    n = _components(values)
    a = _slopes(values)
    optimizers = _optimizers(values)
    planes = len(n) * max(1, len(a)) * len(values["sampling"]) * len(optimizers)
    swept = ("n", "a", "sampling", "optimizer")
    _flags.check_work(values, swept, "planes", planes, _MOST_PLANES)
    beta1, beta2 = _cells(values, n, planes)
    parameters = _parameters(values)
    for one_n in n:
        for one_a in a or (None,):
            _check_start(values, _problem(values, one_n, one_a, parameters))
    points = _points(values)
    spec = PhaseDiagram(
        problem=values["problem"],
        num_components=n,
        samplings=tuple(values["sampling"]),
        beta1=beta1,
        beta2=beta2,
        a=a,
        num_steps=values["steps"],
        parameters=parameters,
        optimizers=optimizers,
        **{key: values[key] for key in _SAME_NAME},
    )
    diagram = _with_backend(spec, values["backend"])
    return PhaseStudy(diagram, points, values["chunk_cells"])


def _check_settings(values: dict[str, Any]) -> None:
    import numpy as np

    from adam_transition import adam, checks, problems, sampling

    _flags.check_choices("problem", [values["problem"]], problems.PROBLEMS)
    _flags.check_choices("sampling", values["sampling"], sampling.SAMPLINGS)
    _flags.check_choices("schedule", [values["schedule"]], adam.SCHEDULES)
    _flags.check_choices("initialization", [values["initialization"]], adam.INITIALIZATIONS)
    for flag in ("x0", "step_size", "epsilon"):
        if not np.isfinite(values[flag]):
            raise ValueError(f"--{flag}={values[flag]}: must be a finite number")
        checks.check_representable(f"--{flag}", values[flag], values["dtype"])
    if values["step_size"] == 0:
        raise ValueError("--step_size=0: must be above 0")


def _optimizers(values: dict[str, Any]) -> "tuple[Optimizer, ...]":
    found = _flags.parse_optimizers(values["optimizer"])
    ignored = {one.name: one.ignored(values["epsilon"], values["initialization"]) for one in found}
    for flag in ("epsilon", "initialization"):
        without = [name for name, setting in ignored.items() if setting == flag]
        if without:
            raise ValueError(
                f"--{flag}={values[flag]}: has no effect on --optimizer={','.join(without)}"
            )
    return found


def _components(values: dict[str, Any]) -> tuple[int, ...]:
    from adam_transition import problems

    default = map(str, problems.default_n(values["problem"]))
    n = tuple(_flags.parse_integers("n", values["n"] or default))
    for one_n in n:
        if one_n > _MOST_COMPONENTS:
            raise ValueError(f"--n={one_n}: at most {_MOST_COMPONENTS} are allowed")
    return n


def _slopes(values: dict[str, Any]) -> tuple[Fraction, ...]:
    for text in values["a"]:
        _number("a", text, values["dtype"])
    return tuple(_flags.parse_list("a", values["a"], Fraction)) if values["a"] else ()


def _cells(
    values: dict[str, Any], n: tuple[int, ...], planes: int
) -> tuple["np.ndarray", "np.ndarray"]:
    """The grids of β1 and β2, or pairs of random values of shape (N, W)."""
    import numpy as np

    beta1, beta2 = (_flags.parse_grid(name, values[name]) for name in ("beta1", "beta2"))
    cells = planes * (values["random_cells"] or len(beta1) * len(beta2))
    asked = f"--beta1={values['beta1']} --beta2={values['beta2']}"
    if values["random_cells"]:
        asked = f"--random_cells={values['random_cells']}"
    _flags.check_memory(
        f"{asked}: {cells} cells over all n and sampling schemes", _BYTES_PER_CELL * cells
    )
    if not values["random_cells"]:
        return beta1, beta2
    random = np.random.default_rng(values["seed"]).random((2, len(n), values["random_cells"]))
    beta1, beta2 = (
        beta.min() + u * (beta.max() - beta.min()) for beta, u in zip((beta1, beta2), random)
    )
    return beta1, beta2


def _parameters(values: dict[str, Any]) -> dict[str, Any]:
    """Those of the problem, by their names in the library."""
    parameters: dict[str, Any] = {
        name: _number(flag, values[flag], values["dtype"])
        for flag, name in _PARAMETERS.items()
        if values[flag]
    }
    if "dimension" in parameters:
        parameters["dimension"] = _dimension(values["dimension"])
    return parameters


def _problem(
    values: dict[str, Any], n: int, a: Fraction | None, parameters: dict[str, Any]
) -> "problems.BuiltIn":
    from adam_transition import problems

    try:
        return problems.built_in(values["problem"], n, a, **parameters)
    except ValueError as error:
        message = str(error)
        for flag, name in _PARAMETERS.items():
            if message.startswith(f"{name}="):
                message = flag + message.removeprefix(name)
        raise ValueError(f"--problem={values['problem']} --{message}") from None


def _points(values: dict[str, Any]) -> tuple[tuple[float, float], ...]:
    """The (β1, β2) of the trajectories."""
    given = values["trajectories"]
    if len(given) > _MOST_TRAJECTORIES:
        raise ValueError(
            f"--trajectories: {len(given)} points; at most {_MOST_TRAJECTORIES} can be drawn"
        )
    points = tuple(_flags.parse_point("trajectories", text) for text in given)
    if len(set(points)) < len(points) or len(points) > _MOST_POINTS:
        raise ValueError(
            f"--trajectories={','.join(given)[:60]}: needs different points, at most {_MOST_POINTS}"
        )
    return points


def _number(flag: str, text: str, dtype: str) -> Fraction:
    """An exact number or fraction that the dtype can represent.

    Raises:
      ValueError: naming the flag, its value and what is allowed.
    """
    from adam_transition import checks

    try:
        # as a double first: as an exact number 1e99999999 has a hundred million digits
        if "/" not in text and not 0 < abs(float(text)) < float("inf"):
            value: Fraction | float = float(text)
            if value == 0 and _flags.is_zero(text):
                return Fraction(0)
            raise ValueError(f"--{flag}={text}: {dtype} holds no number of this size")
        value = Fraction(text)
    except ZeroDivisionError:
        raise ValueError(f"--{flag}: {text!r} is not a number") from None
    except ValueError as error:
        if str(error).startswith("--"):
            raise
        raise ValueError(f"--{flag}: {text!r} is not a number") from None
    if not checks.is_representable(value, dtype):
        raise ValueError(f"--{flag}={text}: {dtype} holds no number of this size")
    return value


def _dimension(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MOST_DIMENSIONS:
        raise ValueError(f"--dimension={text}: must be an integer in [1, {_MOST_DIMENSIONS}]")
    return int(text)


def _check_start(values: dict[str, Any], member: "problems.BuiltIn") -> None:
    """Raises ValueError if the start, in the dtype, is infeasible or the minimiser."""
    import jax.numpy as jnp
    import numpy as np

    x0 = values["x0"]
    start = np.full(member.shape, x0, values["dtype"])
    if not np.array_equal(np.asarray(member.project(jnp.asarray(start))), start):
        raise ValueError(f"--x0={x0}: outside the feasible set of {values['problem']}")
    if np.array_equal(start, np.asarray(member.minimiser, values["dtype"])):
        raise ValueError(f"--x0={x0}: must not be the minimiser of {values['problem']}")


def _with_backend(spec: "PhaseDiagram", wanted: str) -> "PhaseDiagram":
    """The diagram with the backend of that name, or the fastest for auto.

    Raises:
      ValueError: naming the flag, its value and what is allowed.
    """
    from adam_transition.studies.phase import backends, diagram

    choices: tuple[Backend, ...] = get_args(diagram.Backend)
    _flags.check_choices("backend", [wanted], ("auto", *choices))
    if wanted == "auto":
        return dataclasses.replace(spec, backend=backends.fastest_backend(spec))
    backend = cast("Backend", wanted)
    if reason := backends.reason_against(backend, spec):
        allowed = [one for one in choices if not backends.reason_against(one, spec)]
        raise ValueError(f"--backend={wanted}: {reason}; allowed are auto, {', '.join(allowed)}")
    return dataclasses.replace(spec, backend=backend)


_MOST_COMPONENTS = 10_000_000
_MOST_DIMENSIONS = 1000
_MOST_PLANES = 10_000  # each has a drift, and problems that are tried before
_MOST_POINTS = 21
_PARAMETERS = {"C": "large", "small": "small", "dimension": "dimension"}
"""Flags of a problem's parameters and their names in the library."""

_SAME_NAME = (
    "x0",
    "step_size",
    "epsilon",
    "schedule",
    "initialization",
    "dtype",
    "seed",
    "common_random_numbers",
)


COMMAND = _runner.Command("phase", __doc__, FLAGS, main, shares_work=True)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
