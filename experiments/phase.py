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

    from adam_transition.claims import Claim
    from adam_transition.phase_diagram import Backend, PhaseDiagram

FLAGS = common.common_flags("phase")
_string = partial(flags.DEFINE_string, flag_values=FLAGS)
_list = partial(flags.DEFINE_list, flag_values=FLAGS)
_integer = partial(flags.DEFINE_integer, flag_values=FLAGS)
_float = partial(flags.DEFINE_float, flag_values=FLAGS)

_string("problem", "counterexample", "A built-in problem: adam_transition.problems.PROBLEMS.")
_list(
    "n",
    "",
    "Numbers of components, a list or lo:hi:count; default 5,10,20,50 or what the problem fixes.",
)
_list("a", "", "Parameters a > 0 of the counterexample; default 1/(n-1)^2 for each n.")
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

    if values["dtype"] == "float64":
        jax.config.update("jax_enable_x64", True)
    from adam_transition import figures, phase_diagram, phase_drift, processes

    spec, points = parse(values)
    started, out, backend = time.time(), Path(values["out"]), {"simulation_backend": spec.backend}
    store = phase_diagram.run(
        spec,
        out / "phase.zarr",
        identity={**common.identity("phase", values), **backend},
        attrs={**common.provenance("phase", values), **backend},
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

    paths = [store.path, *common.save_figure(figures.phase_diagram(dataset), out, "phase")]
    if points:
        paths += common.save_figure(figures.trajectories(dataset), out, "trajectories")
    fractions = phase_diagram.diverged_fraction(dataset).to_dataset()
    if not spec.paired and dataset.sizes["beta2"] > 1:
        for distance in (0.0, 0.01, 0.05):
            share = phase_drift.agreement(dataset, distance)
            fractions[f"agreement_beyond_{distance:g}"] = share
    common.write_summary(
        "phase",
        values,
        claims(spec, dataset),
        paths,
        shares=fractions.to_dataframe().reset_index().replace(np.nan, None).to_dict("records"),
        wall_time_s=store.attrs["wall_time_s"],
    )


def parse(values: dict[str, Any]) -> tuple["PhaseDiagram", list[tuple[float, float]]]:
    """The diagram that the flags describe, and the points whose trajectories are wanted.

    Raises:
      ValueError: naming the flag, its value and what is allowed.
    """
    import jax.numpy as jnp
    import numpy as np

    from adam_transition import adam, problems, sampling
    from adam_transition.phase_diagram import PhaseDiagram

    common.check_choices("problem", [values["problem"]], problems.PROBLEMS)
    common.check_choices("sampling", values["sampling"], sampling.SAMPLINGS)
    common.check_choices("schedule", [values["schedule"]], adam.SCHEDULES)
    common.check_choices("initialization", [values["initialization"]], adam.INITIALIZATIONS)
    for flag in ("x0", "step_size", "epsilon"):
        if not np.isfinite(values[flag]):
            raise ValueError(f"--{flag}={values[flag]}: must be a finite number")
    if values["step_size"] == 0:
        raise ValueError("--step_size=0: must be above 0")
    problem = values["problem"]
    n = tuple(common.parse_integers("n", values["n"] or map(str, problems.default_n(problem))))
    a = tuple(common.parse_list("a", values["a"], Fraction)) if values["a"] else ()
    for one_n in n:
        for one_a in a or (None,):
            try:
                member = problems.built_in(problem, one_n, one_a)
            except ValueError as error:
                raise ValueError(f"--problem={problem} --{error}") from None
            x0 = jnp.full(member.shape, values["x0"])
            if not jnp.array_equal(member.project(x0), x0):
                raise ValueError(f"--x0={values['x0']}: outside the feasible set of {problem}")
    beta1 = common.parse_grid("beta1", values["beta1"])
    beta2 = common.parse_grid("beta2", values["beta2"])
    cells = values["random_cells"] or len(beta1) * len(beta2)
    cells *= len(n) * max(1, len(a)) * len(values["sampling"])
    asked = f"--beta1={values['beta1']} --beta2={values['beta2']}"
    if values["random_cells"]:
        asked = f"--random_cells={values['random_cells']}"
    common.check_memory(
        f"{asked}: {cells} cells over all n and sampling schemes", _BYTES_PER_CELL * cells
    )
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
    spec = PhaseDiagram(
        problem=problem,
        num_components=n,
        samplings=tuple(values["sampling"]),
        beta1=beta1,
        beta2=beta2,
        a=a,
        num_steps=values["steps"],
        **{key: values[key] for key in _SAME_NAME},
    )
    return _with_backend(spec, values["backend"]), points


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


def claims(spec: "PhaseDiagram", dataset: "xr.Dataset") -> list["Claim"]:
    """What the paper says of such a diagram, beside what this one shows."""
    from adam_transition.claims import assess
    from adam_transition.phase_diagram import diverged_fraction
    from adam_transition.phase_drift import agreement, hidden_by_noise

    if spec.paired or spec.a:
        return []
    beta1, beta2, diverged = (dataset[name] for name in ("beta1", "beta2", "diverged"))
    # one diverging β1 below the line of bounded steps is enough
    diverging_rows = (diverged & (beta1**2 < beta2)).any(("sampling", "n", "beta1"))
    threshold = float(beta2.where(diverging_rows).max().fillna(0))
    found = [
        assess(
            "large_beta2_converges",
            "With β1 < √β2 no cell diverges once β2 is large enough (the largest β2 that diverges)",
            "Theorems 3.1 and 3.3",
            # a cell that diverges at the end of the grid says nothing about larger β2
            measured=float("nan") if bool(diverging_rows[-1]) else threshold,
            at_most=float(beta2[-1]),
        )
    ]
    if spec.problem != "counterexample":
        return found
    if beta1[0] == beta2[0] == 0:
        found.append(
            assess(
                "sign_sgd_diverges",
                "Sign-SGD, β1 = β2 = 0, diverges for every n and sampling scheme (share)",
                "Divergence theorem",
                measured=float(diverged.isel(beta1=0, beta2=0).mean()),
                at_least=1.0,
            )
        )
    if beta2.size > 1 and dataset["drift"].notnull().any():
        hidden = hidden_by_noise(dataset, spec.num_steps)
        cells = "cells farther than 0.01 in β2 from the boundary"
        for name, counted, least in (
            ("sign_of_drift", cells, 0.0),
            ("sign_of_clear_drift", f"{cells} whose drift noise cannot hide", hidden),
        ):
            found.append(
                assess(
                    name,
                    "The simulated verdict has the sign of the stationary drift (least share over "
                    f"n and sampling, of {counted})",
                    "none: the paper bounds the boundary from both sides",
                    measured=float(agreement(dataset, 0.01, least).min()),
                    at_least=0.998,
                    beyond_the_paper=True,
                )
            )
    if dataset.sizes["n"] > 1:
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
