"""The data of the finder study: `find_beta2` replayed on full training, task by task.

Every β2 is trained to the end with every seed. The finder sees a group of seeds, and of those only
the parts of the runs that it asks for; the other seeds, trained to the end, are the truth.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import get_args

import numpy as np
import xarray as xr
from jaxtyping import Float

from adam_transition.advise import halving
from adam_transition.networks import outcomes, panels
from adam_transition.networks.panels import Conditions, Panel, Task
from adam_transition.networks.training import RUNNING, Grid, Recipe
from adam_transition.sweeps import store
from adam_transition.sweeps.study import Filled, variable

LEADING = ("task", "batch_size")
SETTING = (*LEADING, "learning_rate")
RECORDS = 64
VERDICTS: tuple[halving.Verdict, ...] = get_args(halving.Verdict)
LAW = ("B", "η0")


@dataclass(frozen=True)
class FinderSpec:
    """What to compute. The grid has a single β1."""

    tasks: tuple[Task, ...]
    num_kept_back: int  # the last tasks, which played no part in the design of the finder
    batch_sizes: tuple[int, ...]
    num_epochs: int
    grid: Grid
    group_size: int  # seeds of one search
    budget: float
    conditions: Conditions
    missing: tuple[str, ...] = ()  # names of tasks that are left out for want of their data

    def check(self) -> None:
        """Loads every task once and tries every recipe.

        Raises:
          ValueError: a task that cannot be loaded, an impossible run, or too few seeds.
        """
        halving.sizes(len(self.grid.beta2), self.budget)
        if len(self.grid.seeds) < 2 * self.group_size:
            raise ValueError(
                f"seeds={len(self.grid.seeds)}: needs {2 * self.group_size} or more, to search "
                f"with {self.group_size} and compare with others"
            )
        for task in self.tasks:
            _, samples = task.load()
            for size in self.batch_sizes:
                if len(samples) % size:
                    raise ValueError(
                        f"batch_size={size}: must divide the {len(samples)} samples of {task.name}"
                    )
                try:
                    self.recipe(len(samples), size)
                except ValueError as error:
                    raise ValueError(f"epochs={self.num_epochs}: {error}") from None

    @property
    def groups(self) -> tuple[tuple[int, ...], ...]:
        """Indices of the seeds of each search."""
        size = self.group_size
        return tuple(
            tuple(range(i * size, (i + 1) * size)) for i in range(len(self.grid.seeds) // size)
        )

    def recipe(self, num_samples: int, batch_size: int) -> Recipe:
        """How the networks of a panel are trained; only the running loss is recorded.

        Raises:
          ValueError: see `training.Recipe`.
        """
        steps = self.num_epochs * num_samples // batch_size
        conditions = self.conditions._replace(evaluated=0)
        return conditions.recipe(batch_size, steps, RECORDS, self.num_epochs)


def coordinates(spec: FinderSpec) -> xr.Dataset:
    """The labelled axes."""
    names = [task.name for task in spec.tasks]
    kept = np.arange(len(names)) >= len(names) - spec.num_kept_back
    share = np.arange(1, RECORDS + 1) / RECORDS
    groups = np.arange(len(spec.groups))
    return panels.coordinates(
        spec.grid,
        {
            "task": ("task", np.array(names, dtype=object)),
            "kept_back": ("task", kept),
            "law": ("law", np.array(LAW, dtype=object)),
            "group": ("group", groups, {"long_name": "group of seeds", "units": "1"}),
            "batch_size": (
                "batch_size", np.array(spec.batch_sizes), {"long_name": "B", "units": "samples"},
            ),
            "record": ("record", share, {"long_name": "share of the run", "units": "1"}),
        },
    )  # fmt: skip


def training(spec: FinderSpec) -> Filled:
    """`running_loss` over (task, batch_size, learning_rate, seed, beta1, beta2, record)."""
    label = {RUNNING: "mean training loss since the last record"}
    return panels.filled(LEADING, partial(_train, spec), label)


def _train(spec: FinderSpec, results: store.Store) -> None:
    wanted = [
        Panel(
            {"task": slice(i, i + 1), "batch_size": slice(j, j + 1)},
            task,
            spec.recipe(len(task.load()[1]), size),
        )
        for i, task in enumerate(spec.tasks)
        for j, size in enumerate(spec.batch_sizes)
    ]
    panels.train_panels(wanted, spec.grid, spec.conditions.dtype, results, names=[RUNNING])


def searches(spec: FinderSpec, dataset: xr.Dataset) -> Mapping[str, xr.Variable]:
    """The finder's answers, and the truth.

    Over (task, batch_size, learning_rate, group): `found`, `found_low`, `found_high` as 1 − β2,
    `cost`, `verdict` (its place in `halving.Verdict`), and `truth` from the other seeds, +inf if
    no β2 is bad, NaN if nothing is learnt. `without` over (task, batch_size, learning_rate, seed)
    is the edge from all seeds but one.
    """
    order = np.argsort(-dataset["beta2"].values)
    q = 1 - dataset["beta2"].values[order]
    loss = dataset[RUNNING].transpose(*SETTING, "beta1", "seed", "beta2", "record").values
    loss = loss[:, :, :, 0][..., order, :].astype(np.float64)
    shape = loss.shape[:3]
    names = ("found", "found_low", "found_high", "cost", "verdict", "truth")
    found = {name: np.full((*shape, len(spec.groups)), np.nan) for name in names}
    without = np.full((*shape, loss.shape[3]), np.nan)
    guesses = [math.log(task.load()[1].num_classes) for task in spec.tasks]
    for place in np.ndindex(shape):
        guess = guesses[place[0]]
        for group, seeds in enumerate(spec.groups):
            others = np.delete(loss[place], seeds, axis=0)
            answer = [
                *_search(q, loss[place][list(seeds)], guess, spec.budget),
                _edge(q, others, guess),
            ]
            for name, value in zip(names, answer, strict=True):
                found[name][(*place, group)] = value
        for seed in range(loss.shape[3]):
            without[(*place, seed)] = _edge(q, np.delete(loss[place], seed, axis=0), guess)
    labels = (
        "1 − β2 found", "lower end of its interval", "upper end of its interval",
        "share of the cost of a full sweep", "verdict", "1 − β2 of the other seeds",
    )  # fmt: skip
    dims = (*SETTING, "group")
    answers = {
        name: variable(dims, found[name], label) for name, label in zip(names, labels, strict=True)
    }
    label = "1 − β2 at the smallest good β2, without one seed"
    return {**answers, "without": variable((*SETTING, "seed"), without, label)}


def _search(
    q: Float[np.ndarray, " K"], loss: Float[np.ndarray, "S K R"], guess: float, budget: float
) -> Sequence[float]:
    """The finder's answer, from the parts of these curves that it asks for."""
    hidden = np.full_like(loss, np.nan)

    def extend(seen: halving.Seen, records: np.ndarray) -> halving.Seen:
        for index, count in enumerate(records):
            seen.loss[:, index, :count] = loss[:, index, :count]
        return seen._replace(records=records)

    start = halving.Seen(q, hidden, np.zeros(len(q), int))
    seen = halving.search(start, guess, budget, extend)
    edge, (verdict, _) = halving.edge(seen, guess), halving.judge(seen, guess)
    cost = float(seen.records.sum()) / seen.loss[0].size
    return edge.value, edge.low, edge.high, cost, float(VERDICTS.index(verdict))


def _edge(q: Float[np.ndarray, " K"], loss: Float[np.ndarray, "S K R"], guess: float) -> float:
    """The edge of whole runs; +inf if no β2 is bad."""
    late = np.minimum(outcomes.log(outcomes.late_loss(loss)), math.log(guess)).mean(axis=0)
    return float(outcomes.window(q, np.exp(late)[None], guess).low[0])


def laws(spec: FinderSpec, dataset: xr.Dataset) -> Mapping[str, xr.Variable]:
    """`exponent` over (task, law, seed): of 1 − β2* ∝ B^b η0^e, without each of the seeds.

    Fitted to the settings of a task whose edge is on the grid and at β1 < √β2, where it is due to
    noise; NaN with too few. `threshold` over (task, batch_size, learning_rate) is 1 − β2*, NaN if
    not on the grid, and `threshold_error` the jackknife's standard error of its logarithm.
    """
    edges = dataset["without"].transpose(*SETTING, "seed").values
    wall = 1 - spec.grid.beta1[0] ** 2
    inside = (np.isfinite(edges) & (edges < wall)).all(axis=-1)  # (task, batch, rate)
    sizes, rates = np.array(spec.batch_sizes, float), np.array(spec.grid.learning_rate)
    at = np.stack(np.broadcast_arrays(sizes[:, None], rates), axis=-1)
    found = np.stack(
        [outcomes.exponents(at[used], one[used].T) for used, one in zip(inside, edges, strict=True)]
    )
    name = "exponent of 1 − β2*, without one seed"
    logs = np.log(np.where(np.isfinite(edges), edges, np.nan))
    error = logs.std(axis=-1) * math.sqrt(edges.shape[-1] - 1)
    return {
        "threshold": variable(SETTING, np.exp(logs.mean(axis=-1)), "1 − β2*"),
        "threshold_error": variable(SETTING, error, "standard error of log(1 − β2*)"),
        "inside": variable(SETTING, inside, "the edge is on the grid, at β1 < √β2"),
        "exponent": variable(("task", "law", "seed"), found, name),
    }
