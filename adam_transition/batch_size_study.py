"""The data set behind `experiments.batch_size`: which β2 a batch size needs, and which is too much.

Four budgets: equal epochs; equal steps, also without bias correction (the paper's Algorithm 1 with
m = v = 0, where the transient of a large β2 is felt); and a quarter of the samples for as many
steps as with equal epochs, which tells the batch size B from the number of mini-batches n = N/B.
"""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from adam_transition import advise, store
from adam_transition.networks import outcomes, panels
from adam_transition.networks.panels import Conditions, Panel, Task
from adam_transition.networks.training import Grid, Recipe
from adam_transition.store import Variable
from adam_transition.studies import Plan

LEADING = ("budget", "batch_size")
BUDGETS = (
    "equal epochs",
    "equal steps",
    "equal steps, no bias correction",
    "a quarter of the samples",
)
EQUAL_STEPS, QUARTER = BUDGETS[1:3], BUDGETS[3]
TUNINGS = ("per cell", "per batch size", "for all batch sizes")
"""The learning rate is the best for each (B, β2), for each B, or one for all B; or fixed."""
RULES = ("half-life", "SDE", "clipped")
LAW = ("B", "η0")


@dataclass(frozen=True)
class BatchSizeStudy:
    """What to compute; see `plan`. Its grid has one β1."""

    task: Task
    num_samples: int
    batch_sizes: tuple[int, ...]
    num_epochs: int
    num_steps: int  # of the budget "equal steps"
    grid: Grid
    conditions: Conditions

    def recipe(self, budget: str, batch_size: int) -> Recipe | None:
        """How networks of a panel are trained; None where the samples do not fill a batch.

        Raises:
          ValueError: see `training.Recipe`.
        """
        conditions, steps = self.conditions, self.num_epochs * self.num_samples // batch_size
        if budget in EQUAL_STEPS:
            steps = self.num_steps
        if budget == EQUAL_STEPS[1]:
            method = conditions.method._replace(initialization="zero")
            conditions = conditions._replace(method=method)
        if budget == QUARTER and self.num_samples // 4 % batch_size:
            return None
        return conditions.recipe(batch_size, steps, self.num_epochs, self.num_epochs)

    def check(self) -> None:
        """Tries every recipe.

        Raises:
          ValueError: a batch size that does not divide the samples, or a run that cannot be.
        """
        for size in self.batch_sizes:
            if not 1 <= size <= self.num_samples or self.num_samples % size:
                raise ValueError(
                    f"batch_size={size}: must divide the {self.num_samples} samples of "
                    f"{self.task.name}"
                )
            self.recipe("equal steps", size)
            try:
                self.recipe("equal epochs", size)
            except ValueError as error:
                raise ValueError(f"epochs={self.num_epochs}: {error}") from None


def plan(study: BatchSizeStudy) -> Plan:
    """The parts of the data set.

    - Training: `loss`, `accuracy` over (budget, batch_size, learning_rate, seed, beta1, beta2,
      record); NaN where a budget's samples do not fill a batch.
    - Outcomes: `late_loss` over (budget, batch_size, learning_rate, seed, beta2); the best for the
      cell: `tuned_loss` over (budget, batch_size, seed, beta2), `tuned_learning_rate` over
      (budget, batch_size, beta2).
    - Windows: `low`, `high` over (budget, tuning, batch_size, seed), 1 − β2 at the edges of the
      good β2. `interior` over (budget, tuning, batch_size): at the best β2 the network learns, and
      every seed has a low edge at β1 < √β2; `widest` over (tuning): the fixed learning rate with
      most of them. `trend` over (budget, tuning, seed): Kendall's τ of 1 − β2* with B, over all
      batch sizes. `exponent` over (budget, law, seed): 1 − β2* ∝ B^b η0^e over the interior of
      fixed rates.
    - Rules: `rule` over (budget, tuning, rules, batch_size), 1 − β2 that a rule predicts from β2*
      at the largest interior batch.
    """
    parts = {
        "accuracy": partial(_train, study),
        "tuned_loss": partial(_outcomes, study),
        "exponent": partial(_windows, study),
        "rule": partial(_rules, study),
    }
    tunings = (*TUNINGS, *(f"η0 = {rate:g}" for rate in study.grid.learning_rate))
    more = {
        **{
            name: (name, np.array(values, dtype=object))
            for name, values in (
                ("budget", BUDGETS), ("tuning", tunings), ("rules", RULES), ("law", LAW),
            )
        },
        "batch_size": (
            "batch_size", np.array(study.batch_sizes), {"long_name": "B", "units": "samples"},
        ),
        "record": (
            "record", np.arange(1, study.num_epochs + 1) / study.num_epochs,
            {"long_name": "share of the run", "units": "1"},
        ),
    }  # fmt: skip
    return Plan(
        panels.coordinates(study.grid, more),
        parts,
        panels.variables(LEADING),
        panels.chunks(LEADING),
    )


def _train(study: BatchSizeStudy, results: store.Store) -> None:
    quarter = Task(
        study.task.data, study.task.model, study.task.width, study.task.data_dir,
        study.num_samples // 4,
    )  # fmt: skip
    wanted = []
    for i, budget in enumerate(BUDGETS):
        for j, size in enumerate(study.batch_sizes):
            region = {"budget": slice(i, i + 1), "batch_size": slice(j, j + 1)}
            recipe = study.recipe(budget, size)
            if recipe is None:
                shape = (1, 1, *study.grid.shape, study.num_epochs)
                missing = np.full(shape, np.nan, np.float32)
                results.write(region, dict.fromkeys(panels.CURVES, missing))
            else:
                task = quarter if budget == QUARTER else study.task
                wanted.append(Panel(region, task, recipe))
    panels.train_panels(wanted, study.grid, study.conditions, results)


def _outcomes(study: BatchSizeStudy, results: store.Store) -> None:
    loss = results.load()["loss"].values[:, :, :, :, 0]
    late = outcomes.late_loss(loss)  # (budget, batch, rate, seed, β2)
    best = outcomes.log_mean(late.swapaxes(3, 4)).argmin(axis=2)  # (budget, batch, β2)
    every = (*LEADING, "learning_rate", "seed", "beta2")
    results.add("late_loss", Variable(every, np.float64, "late training loss", "nats"), late)
    rates = np.array(study.grid.learning_rate)[best]
    variable = Variable((*LEADING, "beta2"), np.float64, "best η0")
    results.add("tuned_learning_rate", variable, rates)
    chosen = np.take_along_axis(late, best[:, :, None, None], axis=2)[:, :, 0]
    variable = Variable(
        (*LEADING, "seed", "beta2"), np.float64, "late training loss at the best η0", "nats"
    )
    results.add("tuned_loss", variable, chosen)


def _tuned(results: store.Store, guess: float) -> np.ndarray:
    """Late losses (budget, tuning, batch, seed, β2)."""
    dataset = results.load()
    late = dataset["late_loss"].values
    # (budget, batch, rate), where guessing is the worst: one cell that overflows settles nothing
    height = outcomes.log_mean(late.swapaxes(3, 4)).min(axis=3).clip(max=math.log(guess))
    per_batch, for_all = height.argmin(axis=2), height.sum(axis=1).argmin(axis=1)
    chosen = (
        np.take_along_axis(late, best[:, :, None, None, None], axis=2)[:, :, 0]
        for best in (per_batch, np.broadcast_to(for_all[:, None], per_batch.shape))
    )
    tuned = np.stack([dataset["tuned_loss"].values, *chosen], axis=1)
    return np.concatenate([tuned, late.swapaxes(1, 2)], axis=1)


def _windows(study: BatchSizeStudy, results: store.Store) -> None:
    q = 1 - np.array(study.grid.beta2)
    guess = math.log(study.task.load()[1].num_classes)
    losses = _tuned(results, guess)
    shape = losses.shape[:4]
    edges = np.full((2, *shape), np.nan)
    for i, t, j in np.ndindex(shape[:3]):
        if study.recipe(BUDGETS[i], study.batch_sizes[j]) is not None:
            edges[:, i, t, j] = outcomes.window(q, losses[i, t, j], guess)
    low = edges[0]
    wall = 1 - study.grid.beta1[0] ** 2  # beyond β1 = √β2 it is not noise that decides
    height = outcomes.log_mean(losses.swapaxes(3, 4)).min(axis=-1)  # (budget, tuning, batch)
    learns = height < (height.min(axis=1, keepdims=True) + math.log(guess)) / 2
    interior = learns & (outcomes.geometric_mean(low) < wall)
    fixed = np.arange(shape[1]) >= len(TUNINGS)
    counts = np.where(fixed, interior[0].sum(axis=-1), -1)
    widest = np.arange(shape[1]) == shape[1] - 1 - int(np.argmax(counts[::-1]))
    sizes = np.array(study.batch_sizes, float)
    rates = np.array(study.grid.learning_rate)
    trends = np.full((*shape[:2], shape[3]), np.nan)
    for i, t in np.ndindex(shape[:2]):
        trends[i, t] = outcomes.trend(sizes, low[i, t].T)
    variables = np.stack(np.broadcast_arrays(sizes, rates[:, None]), axis=-1)  # (rate, batch, 2)
    exponents = np.stack(
        [
            outcomes.exponents(variables[used], one[used].T)
            for used, one in zip(interior[:, fixed], low[:, fixed], strict=True)
        ]
    )
    dims = ("budget", "tuning", "batch_size")
    for name, long, values in zip(("low", "high"), ("least", "greatest"), edges, strict=True):
        variable = Variable((*dims, "seed"), np.float64, f"1 − β2 at the {long} good β2")
        results.add(name, variable, values)
    variable = Variable(dims, bool, "the low edge is within the grid and below the wall")
    results.add("interior", variable, interior)
    results.add("widest", Variable(("tuning",), bool, "most batch sizes in the interior"), widest)
    variable = Variable(("budget", "tuning", "seed"), np.float64, "Kendall's τ of 1 − β2* with B")
    results.add("trend", variable, trends)
    variable = Variable(("budget", "law", "seed"), np.float64, "exponent of 1 − β2*")
    results.add("exponent", variable, exponents)


def _rules(study: BatchSizeStudy, results: store.Store) -> None:
    dataset = results.load()
    q = outcomes.geometric_mean(dataset["low"].values)
    interior = dataset["interior"].values
    found = np.full((*q.shape[:2], len(RULES), q.shape[2]), np.nan)
    for i, t in np.ndindex(q.shape[:2]):
        if interior[i, t].any():
            anchor = int(np.flatnonzero(interior[i, t])[-1])
            known = advise.Setting(
                study.batch_sizes[anchor], study.grid.beta1[0], 1 - q[i, t, anchor]
            )
            for j, size in enumerate(study.batch_sizes):
                found[i, t, :, j] = [1 - one.setting.beta2 for one in advise.advise(known, size)]
    dims = ("budget", "tuning", "rules", "batch_size")
    results.add("rule", Variable(dims, np.float64, "1 − β2 that the rule predicts"), found)
