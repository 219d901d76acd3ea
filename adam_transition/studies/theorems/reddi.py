"""Figure 2: Adam on both sides of the boundary of Reddi et al.'s example (arXiv:1904.09237)."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr

from adam_transition import adam, problems
from adam_transition.problems import Member
from adam_transition.sampling import Sampling
from adam_transition.studies.runs import run_members
from adam_transition.studies.theorems.spec import TheoremSpec
from adam_transition.sweeps.study import variable
from adam_transition.theory.boundary import divergence_intervals

BEYOND = 3
"""The factor by which 1 − β2 lies above and below that of the boundary."""

_N = 10

NAMES: Mapping[str, Sequence[str]] = {"panel": ("cyclic", "random", "diminishing steps")}
"""Axes of names."""


def iterates(spec: TheoremSpec) -> Mapping[str, xr.Variable]:
    """`reddi` over (panel, reddi_beta2, reddi_step): iterates at β1 = 0.

    `reddi_beta2` runs over 1 − β2 = `BEYOND` times 1 − β2* and 1/`BEYOND` of it.
    """
    problem = problems.reddi(_N)
    table = problem.constant_gradients()[:, None]
    member = Member(problem, problem.problem_class(), exact=True)
    settings: dict[str, tuple[Sampling, adam.Schedule]] = {
        "cyclic": ("cyclic", "constant"),
        "random": (spec.sampling, "constant"),
        "diminishing steps": (spec.sampling, "inverse_sqrt"),
    }
    beta2, found = [], []
    for sampling, schedule in settings.values():
        [intervals] = divergence_intervals(table, [0.0], sampling)
        star = intervals[-1].high.one_minus_beta2
        q = np.array([min(0.999, BEYOND * star), star / BEYOND])
        runs = run_members(
            [member],
            adam.Hyperparameters(np.ones(2), q),
            sampling,
            num_steps=spec.num_steps,
            step_size=0.002 if schedule == "constant" else spec.step_size,
            num_seeds=1,
            seed=spec.seed,
            starts=[np.array(0.0)],
            schedule=schedule,
        )
        beta2.append(1 - q)
        found.append(runs.iterates[0, 0])
    sides, dims = ("panel", "reddi_beta2"), ("panel", "reddi_beta2", "reddi_step")
    return {
        "reddi_step": variable("reddi_step", runs.steps, "step k", dtype=np.int64),
        "reddi_beta2_value": variable(sides, beta2, "β2 below and above the boundary"),
        "reddi": variable(dims, np.stack(found), "iterate", dtype=np.float64),
    }
