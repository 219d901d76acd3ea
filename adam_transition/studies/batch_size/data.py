"""The data of the batch-size study: which β2 a batch size needs, and which β2 is too large.

Four budgets: equal epochs; equal steps, also without bias correction (the paper's Algorithm 1 with
m = v = 0, where a large β2 has a transient); and a quarter of the samples for as many steps as
with equal epochs, which separates the effect of the batch size B from that of the number of
mini-batches n = N/B.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import xarray as xr

from adam_transition import advise
from adam_transition.networks import outcomes, panels
from adam_transition.networks.panels import Conditions, Panel, Task
from adam_transition.networks.training import Grid, Recipe
from adam_transition.sweeps import store
from adam_transition.sweeps.study import Filled, variable

LEADING = ("budget", "batch_size")
BUDGETS = (
    "equal epochs",
    "equal steps",
    "equal steps, no bias correction",
    "a quarter of the samples",
)
EQUAL_STEPS, QUARTER = BUDGETS[1:3], BUDGETS[3]
TUNINGS = ("per cell", "per batch size", "for all batch sizes")
"""How the learning rate is chosen: the best for each (B, β2), the best for each B, or the best
single one for all B. The axis `tuning` also holds each fixed learning rate."""
RULES = ("half-life", "SDE", "clipped")
LAW = ("B", "η0")


@dataclass(frozen=True)
class BatchSizeSpec:
    """What to compute. The grid has a single β1."""

    task: Task
    num_samples: int
    batch_sizes: tuple[int, ...]
    num_epochs: int
    num_steps: int  # of the budget "equal steps"
    grid: Grid
    conditions: Conditions

    def recipe(self, budget: str, batch_size: int) -> Recipe | None:
        """How the networks of a panel are trained; None where the samples do not fill a batch.

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
          ValueError: a batch size that does not divide the samples, or an impossible run.
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


def coordinates(spec: BatchSizeSpec) -> xr.Dataset:
    """The labelled axes."""
    tunings = (*TUNINGS, *(f"η0 = {rate:g}" for rate in spec.grid.learning_rate))
    names = {"budget": BUDGETS, "tuning": tunings, "rules": RULES, "law": LAW}
    sizes = np.array(spec.batch_sizes)
    shares = np.arange(1, spec.num_epochs + 1) / spec.num_epochs
    return panels.coordinates(
        spec.grid,
        {
            **{name: (name, np.array(values, dtype=object)) for name, values in names.items()},
            "batch_size": ("batch_size", sizes, {"long_name": "B", "units": "samples"}),
            "record": ("record", shares, {"long_name": "share of the run", "units": "1"}),
        },
    )


def training(spec: BatchSizeSpec) -> Filled:
    """`loss`, `accuracy`; NaN where a budget's samples do not fill a batch.

    Dims: (budget, batch_size, learning_rate, seed, beta1, beta2, record).
    """
    return panels.filled(LEADING, partial(_train, spec))


def _train(spec: BatchSizeSpec, results: store.Store) -> None:
    quarter = Task(
        spec.task.data, spec.task.model, spec.task.width, spec.task.data_dir,
        spec.num_samples // 4,
    )  # fmt: skip
    wanted = []
    for i, budget in enumerate(BUDGETS):
        for j, size in enumerate(spec.batch_sizes):
            region = {"budget": slice(i, i + 1), "batch_size": slice(j, j + 1)}
            recipe = spec.recipe(budget, size)
            if recipe is None:
                shape = (1, 1, *spec.grid.shape, spec.num_epochs)
                missing = np.full(shape, np.nan, np.float32)
                results.write(region, dict.fromkeys(panels.CURVES, missing))
            else:
                task = quarter if budget == QUARTER else spec.task
                wanted.append(Panel(region, task, recipe))
    panels.train_panels(wanted, spec.grid, spec.conditions.dtype, results)


def outcomes_of_training(spec: BatchSizeSpec, dataset: xr.Dataset) -> Mapping[str, xr.Variable]:
    """Late losses, and the best over learning rates for each (B, β2).

    `late_loss` over (budget, batch_size, learning_rate, seed, beta2); at the best learning rate,
    `tuned_loss` over (budget, batch_size, seed, beta2) and `tuned_learning_rate` over (budget,
    batch_size, beta2).
    """
    loss = dataset["loss"].values[:, :, :, :, 0]
    late = outcomes.late_loss(loss)  # (budget, batch, rate, seed, β2)
    best = outcomes.log_mean(late.swapaxes(3, 4)).argmin(axis=2)  # (budget, batch, β2)
    chosen = np.take_along_axis(late, best[:, :, None, None], axis=2)[:, :, 0]
    every, seeds = (*LEADING, "learning_rate", "seed", "beta2"), (*LEADING, "seed", "beta2")
    rates = np.array(spec.grid.learning_rate)[best]
    at_best = "late training loss at the best η0"
    return {
        "late_loss": variable(every, late, "late training loss", "nats", dtype=np.float64),
        "tuned_learning_rate": variable((*LEADING, "beta2"), rates, "best η0"),
        "tuned_loss": variable(seeds, chosen, at_best, "nats", dtype=np.float64),
    }


def _tuned(dataset: xr.Dataset, guess: float) -> np.ndarray:
    """Late losses (budget, tuning, batch, seed, β2)."""
    late = dataset["late_loss"].values
    # (budget, batch, rate), capped at the loss of guessing, lest one overflow decide a sum over B
    height = outcomes.log_mean(late.swapaxes(3, 4)).min(axis=3).clip(max=math.log(guess))
    per_batch, for_all = height.argmin(axis=2), height.sum(axis=1).argmin(axis=1)
    chosen = (
        np.take_along_axis(late, best[:, :, None, None, None], axis=2)[:, :, 0]
        for best in (per_batch, np.broadcast_to(for_all[:, None], per_batch.shape))
    )
    tuned = np.stack([dataset["tuned_loss"].values, *chosen], axis=1)
    return np.concatenate([tuned, late.swapaxes(1, 2)], axis=1)


def windows(spec: BatchSizeSpec, dataset: xr.Dataset) -> Mapping[str, xr.Variable]:
    """The good β2 at each batch size, and how their lower edge moves with the batch size.

    - `low`, `high` over (budget, tuning, batch_size, seed): 1 − β2 at the edges of the good β2.
    - `interior` over (budget, tuning, batch_size): whether the network learns at the best β2 and
      every seed has a low edge at β1 < √β2.
    - `widest` over (tuning): the fixed learning rate with the most interior batch sizes.
    - `trend` over (budget, tuning, seed): Kendall's τ of 1 − β2* with B, over all batch sizes.
    - `exponent` over (budget, law, seed): of 1 − β2* ∝ B^b η0^e, fitted to the interior batch sizes
      at all fixed learning rates.
    """
    q = 1 - np.array(spec.grid.beta2)
    guess = math.log(spec.task.load()[1].num_classes)
    losses = _tuned(dataset, guess)
    shape = losses.shape[:4]
    edges = np.full((2, *shape), np.nan)
    for i, t, j in np.ndindex(shape[:3]):
        if spec.recipe(BUDGETS[i], spec.batch_sizes[j]) is not None:
            edges[:, i, t, j] = outcomes.window(q, losses[i, t, j], guess)
    low = edges[0]
    wall = 1 - spec.grid.beta1[0] ** 2  # beyond β1 = √β2 the threshold is not due to noise
    height = outcomes.log_mean(losses.swapaxes(3, 4)).min(axis=-1)  # (budget, tuning, batch)
    learns = height < (height.min(axis=1, keepdims=True) + math.log(guess)) / 2
    interior = learns & (outcomes.geometric_mean(low) < wall)
    fixed = np.arange(shape[1]) >= len(TUNINGS)
    counts = np.where(fixed, interior[0].sum(axis=-1), -1)
    widest = np.arange(shape[1]) == shape[1] - 1 - int(np.argmax(counts[::-1]))
    sizes = np.array(spec.batch_sizes, float)
    rates = np.array(spec.grid.learning_rate)
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
    seeds, inside = (*dims, "seed"), "the low edge is within the grid, at β1 < √β2"
    tau = "Kendall's τ of 1 − β2* with B"
    return {
        "low": variable(seeds, edges[0], "1 − β2 at the smallest good β2"),
        "high": variable(seeds, edges[1], "1 − β2 at the largest good β2"),
        "interior": variable(dims, interior, inside),
        "widest": variable("tuning", widest, "the rate with the most interior batch sizes"),
        "trend": variable(("budget", "tuning", "seed"), trends, tau),
        "exponent": variable(("budget", "law", "seed"), exponents, "exponent of 1 − β2*"),
    }


def rules(spec: BatchSizeSpec, dataset: xr.Dataset) -> Mapping[str, xr.Variable]:
    """`rule` over (budget, tuning, rules, batch_size): 1 − β2 that a rule predicts.

    Rules start from β2* at the largest interior batch size.
    """
    q = outcomes.geometric_mean(dataset["low"].values)
    interior = dataset["interior"].values
    found = np.full((*q.shape[:2], len(RULES), q.shape[2]), np.nan)
    for i, t in np.ndindex(q.shape[:2]):
        if interior[i, t].any():
            anchor = int(np.flatnonzero(interior[i, t])[-1])
            known = advise.Setting(
                spec.batch_sizes[anchor], spec.grid.beta1[0], 1 - q[i, t, anchor]
            )
            for j, size in enumerate(spec.batch_sizes):
                found[i, t, :, j] = [1 - one.setting.beta2 for one in advise.advise(known, size)]
    dims = ("budget", "tuning", "rules", "batch_size")
    return {"rule": variable(dims, found, "1 − β2 that the rule predicts")}
