"""Claims of a phase diagram: the paper's statements, and that verdicts keep their stated error."""

import dataclasses
import itertools
from typing import Any

import numpy as np
import xarray as xr

from adam_transition import problems
from adam_transition.optimizers import ADAM, Optimizer
from adam_transition.studies.phase.diagram import (
    PANEL_DIMS,
    PhaseDiagram,
    diverged_fraction,
    share_of_cells,
    start_distance,
)
from adam_transition.studies.phase.drift import boundary_distance, compare, why_no_drift
from adam_transition.sweeps.claims import Claim, assess

_BEYOND = 0.01  # distance in β2 from the boundary within which claims ignore cells: a convention
_COMPARED_BEYOND = (0.0, 0.01, 0.05)
_STEPS_AWAY = 10  # in units of η0: a start closer to x* may be trapped there although D > 0
_RIGHT = 0.95  # share of right verdicts: `simulate.judge` decides at 95 % confidence


def claims(spec: PhaseDiagram, dataset: xr.Dataset) -> list[Claim]:
    """Compares the paper's statements about such a diagram with what this diagram shows.

    With several optimisers the statements are judged for Adam, if it is one of them, and for each
    whether its verdicts have the sign of its drift.
    """
    if spec.paired:
        return []
    if spec.has_optimizers:
        return list(
            itertools.chain.from_iterable(
                _of_optimizer(spec, dataset.sel(optimizer=one.name, drop=True), one)
                for one in spec.optimizers
            )
        )
    found = []
    beta1, beta2, diverged = (dataset[name] for name in ("beta1", "beta2", "diverged"))
    has_drift = dataset.sizes["beta2"] > 1 and bool((dataset["drift"].fillna(0) != 0).any())
    if not spec.a and has_drift:
        found.append(large_beta2_converges(dataset, margin=_BEYOND))
    if spec.problem == "counterexample" and not spec.a and beta1[0] == beta2[0] == 0:
        found.append(
            assess(
                "sign_sgd_diverges",
                "Sign-SGD, β1 = β2 = 0, diverges for every n and sampling scheme (share of the "
                "runs)",
                "Divergence theorem",
                measured=float(diverged.isel(beta1=0, beta2=0).mean()),
                at_least=1.0,
            )
        )
    if has_drift and not _may_be_trapped(spec):
        found += verdicts_keep_their_error(dataset, start=_start(spec))
    if spec.problem == "counterexample" and not spec.a and dataset.sizes["n"] > 1:
        growth = diverged_fraction(dataset).sortby("n").diff("n").min()
        found.append(
            assess(
                "region_grows_with_n",
                "The region of divergence grows with n (smallest growth of its area from one n to "
                "the next)",
                "Divergence theorem",
                measured=float(growth),
                uncertainty=1 / beta1.size + 1 / beta2.size,
                at_least=0.0,
            )
        )
    return found


def _of_optimizer(spec: PhaseDiagram, dataset: xr.Dataset, optimizer: Optimizer) -> list[Claim]:
    if optimizer is ADAM:
        return claims(dataclasses.replace(spec, optimizers=(ADAM,)), dataset)
    has_drift = bool((dataset["drift"].fillna(0) != 0).any())
    if not has_drift or _may_be_trapped(spec):
        return []
    bounded = optimizer.bounds_steps
    found = verdicts_keep_their_error(dataset, start=_start(spec), bounds_steps=bounded)
    name = optimizer.name
    return [
        dataclasses.replace(one, id=f"{name}_{one.id}", statement=f"{name}: {one.statement}")
        for one in found
    ]


def _start(spec: PhaseDiagram) -> str:
    return f"from x0 = {spec.x0:g} with η0 = {spec.step_size:g}"


def shares(spec: PhaseDiagram, dataset: xr.Dataset) -> list[dict[str, Any]]:
    """Shares of the cells by sampling scheme, n and a: diverged, undecided, in agreement with D."""
    found = {
        name: share_of_cells(dataset[name]) for name in ("diverged", "undecided", "underflowed")
    }
    if not spec.paired and dataset.sizes["beta2"] > 1:
        distance = boundary_distance(dataset)
        for beyond in _COMPARED_BEYOND:
            compared = compare(dataset, beyond, distance)
            found[f"agreement_beyond_{beyond:g}"] = compared["agree"]
            found[f"disagreement_beyond_{beyond:g}"] = compared["disagree"]
    table = xr.Dataset(found).to_dataframe().reset_index()
    return table.replace(np.nan, None).to_dict("records")


def notes(spec: PhaseDiagram, dataset: xr.Dataset) -> list[str]:
    """Remarks on the diagram that its claims do not make, one line each."""
    lines = []
    if spec.paired:
        lines.append("no claims: they are about a grid, but these cells are a list")
    elif spec.a:
        lines.append("the paper's claims are about a = 1/(n-1)^2; with --a only our own are judged")
    if not spec.paired:
        why = why_no_drift(spec.problem_at(spec.num_components[0], _first(spec.a)))
        if why:
            lines.append(f"no drift to compare verdicts with: {why}")
        elif dataset["drift"].isnull().all():
            lines.append("no drift to compare verdicts with: it is not computed so close to 1")
        elif dataset.sizes["beta2"] < 2:
            lines.append("no claim about the drift's sign: a single beta2 has no boundary")
        elif _may_be_trapped(spec):
            lines.append(
                f"no claim about the drift's sign: --x0={spec.x0:g} is within {_STEPS_AWAY} steps "
                "of the minimiser, where runs may be trapped although the drift points away"
            )
    undecided = float(dataset["undecided"].mean())
    if undecided:
        lines.append(f"{undecided:.2%} of the runs are undecided after {spec.num_steps} steps")
    underflowed = float(dataset["underflowed"].mean())
    if underflowed:
        lines.append(
            f"{underflowed:.2%} of the runs leave the range of {spec.dtype}: v was 0 after a "
            "nonzero gradient, or overflowed; try --dtype=float64"
        )
    if spec.a[1:] and "trajectory" in dataset:
        lines.append(f"trajectories are shown for a={float(spec.a[0]):g}, the first, only")
    return lines


def _first(slopes: tuple) -> Any:
    return slopes[0] if slopes else None


def _may_be_trapped(spec: PhaseDiagram) -> bool:
    """Whether the start is so close to x* that runs may stay there although the drift points away.

    On a bounded problem gradients are constant up to the wall, so no run is trapped.
    """
    member = spec.problem_at(spec.num_components[0], _first(spec.a))
    distance = start_distance(spec)
    is_bounded = isinstance(member, problems.BoundedLinear)
    return not is_bounded and distance is not None and distance < _STEPS_AWAY * spec.step_size


def large_beta2_converges(dataset: xr.Dataset, *, margin: float = 0.01) -> Claim:
    """Judges whether all cells with β1 < √β2 converge once β2 is past the exact threshold.

    β2 counts as past the threshold if the drift is negative, by four standard errors (a
    convention), at every β1 < √β2 of this row of the diagram and of all rows above it. In rows at
    least `margin` in β2 above the first such row no cell may diverge. A diagram without such rows
    leaves the claim undecided.

    Args:
      dataset: `diverged`, `drift`, `drift_stderr` over (sampling, n, beta1, beta2); the optional
        variable `undecided` marks cells without a verdict.
      margin: distance in β2 from the boundary within which a run may be too short to show its side.
    """
    dims = ("sampling", "n", "beta1", "beta2")
    beta1, beta2 = dataset["beta1"].values[:, None], dataset["beta2"].values
    counted = beta1 < np.sqrt(beta2)
    attracts = (dataset["drift"] < -4 * dataset["drift_stderr"]).transpose(*dims).values
    good = (attracts | ~counted).all(axis=2)  # (sampling, n, β2)
    above = np.logical_and.accumulate(good[..., ::-1], axis=-1)[..., ::-1]
    first = np.where(above.any(axis=-1), beta2[above.argmax(axis=-1)], np.inf)
    rows = above & (beta2 >= first[..., None] + margin)
    cells = rows[:, :, None] & counted
    diverged = dataset["diverged"].transpose(*dims).values.astype(bool)
    undecided = (
        dataset["undecided"].transpose(*dims).values.astype(bool)
        if "undecided" in dataset
        else np.zeros_like(diverged)
    )
    number = cells.sum()
    return assess(
        "large_beta2_converges",
        "With β1 < √β2 no cell diverges once β2 is past the exact threshold (share of "
        f"{number} cells at least {margin:g} above it in β2, in {int(rows.sum())} rows)",
        "Theorems 3.1 and 3.3",
        # half of the undecided cells, give or take as many
        measured=float((diverged | undecided)[cells].mean() - undecided[cells].mean() / 2)
        if number
        else np.nan,
        uncertainty=float(undecided[cells].mean() / 2) if number else 0.0,
        at_most=0.0,
    )


def verdicts_keep_their_error(
    dataset: xr.Dataset, *, start: str, bounds_steps: bool = True
) -> list[Claim]:
    """Judges whether verdicts err as rarely as `simulate.judge` states: at most 5 %, at D = 0.

    A verdict is wrong if the speed of the run lies beyond its 95 % error on the wrong side of 0.
    That happens in 5 % of the runs where D = 0 and in fewer elsewhere. Where |D/n| is at least
    twice the error, 95 % of the runs get a verdict, the right one. Cells of one n share their draws
    and err together, so these are bounds on the shares, not their mean.

    Beyond β1 = √β2 steps are unbounded: a run that the drift brings to x* is thrown out of its
    neighbourhood again and again, and may stay undecided. Such cells count, and the second claim
    also says what the share is without them.

    Args:
      dataset: with `diverged`, `undecided`, `speed_error`, `drift`, `drift_stderr`.
      start: where the runs start and with which step size, in words.
      bounds_steps: whether steps are bounded for β1 < √β2 only.
    """
    n = dataset["n"]
    over = [dim for dim in dataset["drift"].dims if dim not in PANEL_DIMS]
    size = abs(dataset["drift"])
    known = size > 4 * dataset["drift_stderr"]
    undecided = dataset["undecided"].astype(bool)
    right = (dataset["drift"] > 0) == dataset["diverged"].astype(bool)
    clear = known & (size / n >= 2 * dataset["speed_error"])
    decided, where = right & ~undecided, ""
    bounded = clear & (dataset["beta1"] < np.sqrt(dataset["beta2"]))
    if bounds_steps and bounded.any():
        share = float(decided.where(bounded).mean(over).min())
        where = f"; {share:.5g} with β1 < √β2, where steps are bounded"
    shares = {
        "sign_of_drift": right.where(known & ~undecided),
        "verdicts_decided": decided.where(clear),
    }
    statements = {
        "sign_of_drift": "The simulated verdict has the sign of the stationary drift, up to its "
        f"error of {1 - _RIGHT:.0%} (share of the decided cells, smallest over n and sampling; "
        f"{start})",
        "verdicts_decided": "A run whose drift is at least twice the error of its speed gets a "
        f"verdict, the right one, up to an error of {1 - _RIGHT:.0%} (share of such runs, smallest "
        f"over n and sampling{where})",
    }
    return [
        assess(
            name,
            statements[name],
            "none: the paper bounds the boundary from both sides",
            measured=float(share.mean(over).min()),
            at_least=_RIGHT,
            ours=True,
        )
        for name, share in shares.items()
    ]
