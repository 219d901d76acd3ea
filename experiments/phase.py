"""The phase diagram: for which (β1, β2) does Adam converge, for each n and sampling scheme?

Simulates every cell of a grid (or of random cells), judges it, and writes a labelled data set,
figures and a summary. Example:

    python -m experiments.phase --flagfile=experiments/flagfiles/phase.flags
"""

import dataclasses
import sys
import time
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from absl import flags

from experiments import common

if TYPE_CHECKING:
    import xarray as xr

    from adam_transition import problems
    from adam_transition.claims import Claim
    from adam_transition.phase_diagram import Backend, PhaseDiagram

FLAGS = common.common_flags("phase")
_string = partial(flags.DEFINE_string, flag_values=FLAGS)
_list = partial(flags.DEFINE_list, flag_values=FLAGS)
_integer = partial(flags.DEFINE_integer, flag_values=FLAGS)
_float = partial(common.define_float, flag_values=FLAGS)

_string("problem", "counterexample", "A built-in problem: adam_transition.problems.PROBLEMS.")
_list(
    "n",
    "",
    "Numbers of components, a list or lo:hi:count; default 5,10,20,50 or what the problem fixes.",
)
_list("a", "", "Parameters a > 0 of the counterexample; default 1/(n-1)^2 for each n.")
_string("C", "", "Large slope of Reddi et al.'s examples; default n, 3 (mod3) or 1010.")
_string("small", "", "Minus the small slope of reddi_online and reddi_stochastic; default 10.")
_string("dimension", "", "Of the quadratics; default 1.")
_list("sampling", "cyclic,random_shuffling,with_replacement", "Sampling schemes.")
_string("beta1", "0:0.99609375:256", "Grid: lo:hi:count, lo:hi:count:logit or a list, in [0, 1).")
_string("beta2", "0:0.99609375:256", "Grid, as for --beta1.")
_integer("random_cells", 0, "If > 0: that many random (beta1, beta2) for each n, no grid.", 0)
_integer("steps", 50_000, "Number of updates T.", 1, 2**31 - 1)
_float("x0", 1.0, "Start, the same for every coordinate.")
_float("step_size", 0.1, "eta_0.", 0.0)
_string("schedule", "inverse_sqrt", "constant, inverse_sqrt or inverse_sqrt_epoch.")
_string("initialization", "zero", "Moments: zero, first_gradient or bias_correction.")
_float("epsilon", 0.0, "Added to the root; may be 0.", 0.0)
flags.DEFINE_enum("dtype", "float32", ["float32", "float64"], "Precision.", flag_values=FLAGS)
flags.DEFINE_boolean(
    "common_random_numbers",
    True,
    "Cells of one n share an index stream; --nocommon_random_numbers draws one for each (slow).",
    flag_values=FLAGS,
)
_string("backend", "auto", "xla, blocks (for CPUs), pallas (for GPUs) or auto.")
_list("trajectories", "", "Points beta1/beta2 whose trajectories are drawn.")
_integer("chunk_cells", 0, "Cells written at once, which a kill may lose; 0 chooses.", 0)


_MOST_TRAJECTORIES = 100
_BYTES_PER_CELL = 100.0
"""Results, drift and what is computed from them and drawn."""


def main(values: dict[str, Any]) -> None:
    """Flags → sweep → data set, figures, claims."""
    import jax
    import numpy as np
    import xarray as xr

    if values["dtype"] == "float64":
        jax.config.update("jax_enable_x64", True)
    from adam_transition import phase_diagram, phase_drift, processes

    spec, points = parse(values)
    started, out, backend = time.time(), Path(values["out"]), {"simulation_backend": spec.backend}
    start = phase_diagram.start_distance(spec)
    store = phase_diagram.run(
        spec,
        out / "phase.zarr",
        identity={**common.identity("phase", values), **backend},
        attrs={
            **common.provenance("phase", values),
            **backend,
            **({} if start is None else {"start_distance": start}),
        },
        resume=values["resume"],
        cells_per_chunk=values["chunk_cells"],
    )
    if not processes.is_first():
        return
    store.complete("drift", partial(phase_drift.add_drift, spec))
    if points:
        add = phase_diagram.add_trajectories
        store.complete("trajectories", lambda results: add(spec, points, results, num_records=400))
    spent = store.attrs.get("wall_time_s", 0.0) + time.time() - started
    store.finish(wall_time_s=round(spent, 2))
    dataset = store.load()
    store.close()

    paths = [store.path]
    if values["figures"]:
        from adam_transition import figures

        paths += common.save_figure(figures.phase_diagram(dataset), out, "phase")
        if points:
            paths += common.save_figure(figures.trajectories(dataset), out, "trajectories")
    shares = {
        name: phase_diagram.share_of_cells(dataset[name])
        for name in ("diverged", "undecided", "underflowed")
    }
    if not spec.paired and dataset.sizes["beta2"] > 1:
        distance = phase_drift.boundary_distance(dataset)
        for beyond in (0.0, 0.01, 0.05):
            compared = phase_drift.compare(dataset, beyond, distance)
            shares[f"agreement_beyond_{beyond:g}"] = compared["agree"]
            shares[f"disagreement_beyond_{beyond:g}"] = compared["disagree"]
    found, notes = claims(spec, dataset), remarks(spec, dataset)
    if values["json"] != "-":
        for line in notes:
            print(line)
    table = xr.Dataset(shares).to_dataframe().reset_index()
    common.write_summary(
        "phase",
        values,
        found,
        paths,
        shares=table.replace(np.nan, None).to_dict("records"),
        notes=notes,
        wall_time_s=store.attrs["wall_time_s"],
    )


def parse(values: dict[str, Any]) -> tuple["PhaseDiagram", list[tuple[float, float]]]:
    """The diagram that the flags describe, and the points whose trajectories are wanted.

    Raises:
      ValueError: naming the flag, its value and what is allowed.
    """
    import numpy as np

    from adam_transition import adam, checks, problems, sampling
    from adam_transition.phase_diagram import PhaseDiagram

    common.check_choices("problem", [values["problem"]], problems.PROBLEMS)
    common.check_choices("sampling", values["sampling"], sampling.SAMPLINGS)
    common.check_choices("schedule", [values["schedule"]], adam.SCHEDULES)
    common.check_choices("initialization", [values["initialization"]], adam.INITIALIZATIONS)
    for flag in ("x0", "step_size", "epsilon"):
        if not np.isfinite(values[flag]):
            raise ValueError(f"--{flag}={values[flag]}: must be a finite number")
        checks.check_representable(f"--{flag}", values[flag], values["dtype"])
    if values["step_size"] == 0:
        raise ValueError("--step_size=0: must be above 0")
    beta1 = common.parse_grid("beta1", values["beta1"])
    beta2 = common.parse_grid("beta2", values["beta2"])
    problem = values["problem"]
    n = tuple(common.parse_integers("n", values["n"] or map(str, problems.default_n(problem))))
    for one_n in n:
        if one_n > _MOST_COMPONENTS:
            raise ValueError(f"--n={one_n}: at most {_MOST_COMPONENTS} are allowed")
    for text in values["a"]:
        _number("a", text, values["dtype"])
    a = tuple(common.parse_list("a", values["a"], Fraction)) if values["a"] else ()
    planes = len(n) * max(1, len(a)) * len(values["sampling"])
    common.check_work(values, ("n", "a", "sampling"), "planes", planes, _MOST_PLANES)
    cells = values["random_cells"] or len(beta1) * len(beta2)
    cells *= planes
    asked = f"--beta1={values['beta1']} --beta2={values['beta2']}"
    if values["random_cells"]:
        asked = f"--random_cells={values['random_cells']}"
    common.check_memory(
        f"{asked}: {cells} cells over all n and sampling schemes", _BYTES_PER_CELL * cells
    )
    parameters: dict[str, Any] = {
        name: _number(flag, values[flag], values["dtype"])
        for flag, name in _PARAMETERS.items()
        if values[flag]
    }
    if "dimension" in parameters:
        parameters["dimension"] = _dimension(values["dimension"])
    for one_n in n:
        for one_a in a or (None,):
            try:
                member = problems.built_in(problem, one_n, one_a, **parameters)
            except ValueError as error:
                message = str(error)
                for flag, name in _PARAMETERS.items():
                    if message.startswith(f"{name}="):
                        message = flag + message.removeprefix(name)
                raise ValueError(f"--problem={problem} --{message}") from None
            _check_start(values["x0"], member, values)
    if values["random_cells"]:
        random = np.random.default_rng(values["seed"]).random((2, len(n), values["random_cells"]))
        beta1, beta2 = (
            beta.min() + u * (beta.max() - beta.min()) for beta, u in zip((beta1, beta2), random)
        )
    if len(values["trajectories"]) > _MOST_TRAJECTORIES:
        raise ValueError(
            f"--trajectories: {len(values['trajectories'])} points; at most {_MOST_TRAJECTORIES} "
            "can be drawn"
        )
    points = [common.parse_point("trajectories", text) for text in values["trajectories"]]
    if len(set(points)) < len(points) or len(points) > _MOST_POINTS:
        raise ValueError(
            f"--trajectories={','.join(values['trajectories'])[:60]}: needs different points, at "
            f"most {_MOST_POINTS}"
        )
    spec = PhaseDiagram(
        problem=problem,
        num_components=n,
        samplings=tuple(values["sampling"]),
        beta1=beta1,
        beta2=beta2,
        a=a,
        num_steps=values["steps"],
        parameters=parameters,
        **{key: values[key] for key in _SAME_NAME},
    )
    return _with_backend(spec, values["backend"]), points


def _number(flag: str, text: str, dtype: str) -> Fraction:
    """A number or a fraction, exact, that the dtype holds.

    Raises:
      ValueError: naming the flag, its value and what is allowed.
    """
    from adam_transition import checks

    try:
        # as a double first: exact, 1e99999999 has a hundred million digits
        if "/" not in text and not 0 < abs(float(text)) < float("inf"):
            value: Fraction | float = float(text)
            if value == 0 and common.is_zero(text):
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


def _check_start(x0: float, member: "problems.BuiltIn", values: dict[str, Any]) -> None:
    """Raises ValueError for a start that is not feasible or is the minimiser, in the dtype."""
    import jax.numpy as jnp
    import numpy as np

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
    from adam_transition import phase_diagram

    choices: tuple[Backend, ...] = get_args(phase_diagram.Backend)
    common.check_choices("backend", [wanted], ("auto", *choices))
    backend = cast("Backend", wanted)
    if wanted == "auto":
        backend = phase_diagram.fastest_backend(spec)
    if reason := phase_diagram.reason_against(backend, spec):
        allowed = [one for one in choices if not phase_diagram.reason_against(one, spec)]
        raise ValueError(f"--backend={wanted}: {reason}; allowed are auto, {', '.join(allowed)}")
    return dataclasses.replace(spec, backend=backend)


_MOST_COMPONENTS = 10_000_000
_MOST_DIMENSIONS = 1000
_MOST_PLANES = 10_000  # each has a drift, and problems that are tried before
_MOST_POINTS = 21
_BEYOND = 0.01  # of the boundary, in β2: cells nearer to it are not counted in a claim
_STEPS_AWAY = 10  # a start that is nearer to x* may be trapped there although D > 0
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


def remarks(spec: "PhaseDiagram", dataset: "xr.Dataset") -> list[str]:
    """What a reader should know of the diagram beside its claims, a line each."""
    from adam_transition import phase_drift

    lines = []
    if spec.paired:
        lines.append("no claims: they are about a grid, and these cells are a list")
    elif spec.a:
        lines.append("the paper's claims are about a = 1/(n-1)^2; with --a only our own are judged")
    if not spec.paired:
        why = phase_drift.why_no_drift(spec.problem_at(spec.num_components[0], _first(spec.a)))
        if why:
            lines.append(f"verdicts have no drift beside them: {why}")
        elif dataset["drift"].isnull().all():
            lines.append("verdicts have no drift beside them: it is not computed so near to 1")
        elif dataset.sizes["beta2"] < 2:
            lines.append("no claim of the drift's sign: one beta2 has no boundary beside it")
        elif _may_be_trapped(spec):
            lines.append(
                f"no claim of the drift's sign: --x0={spec.x0:g} is within {_STEPS_AWAY} steps of "
                "the minimiser, where runs may be trapped although the drift leads away"
            )
    undecided = float(dataset["undecided"].mean())
    if undecided:
        lines.append(f"{undecided:.2%} of the runs are undecided after {spec.num_steps} steps")
    underflowed = float(dataset["underflowed"].mean())
    if underflowed:
        lines.append(
            f"{underflowed:.2%} of the runs leave {spec.dtype}: v was 0 although a gradient was "
            "seen, or overflowed; try --dtype=float64"
        )
    if spec.a[1:] and "trajectory" in dataset:
        lines.append(f"trajectories are those of a={float(spec.a[0]):g}, the first")
    return lines


def _first(slopes: tuple) -> Any:
    return slopes[0] if slopes else None


def _may_be_trapped(spec: "PhaseDiagram") -> bool:
    """Whether the start is so near to x* that its fate may be another than that of far ones.

    On a bounded problem gradients are the same up to the wall, and there is no such place.
    """
    from adam_transition import phase_diagram, problems

    member = spec.problem_at(spec.num_components[0], _first(spec.a))
    distance = phase_diagram.start_distance(spec)
    is_bounded = isinstance(member, problems.BoundedLinear)
    return not is_bounded and distance is not None and distance < _STEPS_AWAY * spec.step_size


def claims(spec: "PhaseDiagram", dataset: "xr.Dataset") -> list["Claim"]:
    """What the paper says of such a diagram, beside what this one shows."""
    from adam_transition import phase_claims
    from adam_transition.claims import assess
    from adam_transition.phase_diagram import diverged_fraction

    if spec.paired:
        return []
    found = []
    beta1, beta2, diverged = (dataset[name] for name in ("beta1", "beta2", "diverged"))
    has_drift = dataset.sizes["beta2"] > 1 and bool((dataset["drift"].fillna(0) != 0).any())
    if not spec.a and has_drift:
        found.append(phase_claims.large_beta2_converges(dataset, margin=_BEYOND))
    if spec.problem == "counterexample" and not spec.a and beta1[0] == beta2[0] == 0:
        found.append(
            assess(
                "sign_sgd_diverges",
                "Sign-SGD, β1 = β2 = 0, diverges for every n and sampling scheme (share)",
                "Divergence theorem",
                measured=float(diverged.isel(beta1=0, beta2=0).mean()),
                at_least=1.0,
            )
        )
    if has_drift and not _may_be_trapped(spec):
        start = f"from x0 = {spec.x0:g} with η0 = {spec.step_size:g}"
        found += phase_claims.verdicts_keep_their_error(dataset, start=start)
    if spec.problem == "counterexample" and not spec.a and dataset.sizes["n"] > 1:
        growth = diverged_fraction(dataset).sortby("n").diff("n").min()
        found.append(
            assess(
                "region_grows_with_n",
                "The region of divergence grows with n (least growth of its area between one n "
                "and the next)",
                "Divergence theorem",
                measured=float(growth),
                uncertainty=1 / beta1.size + 1 / beta2.size,
                at_least=0.0,
            )
        )
    return found


if __name__ == "__main__":
    sys.exit(common.run("phase", __doc__, FLAGS, main, shares_work=True))
