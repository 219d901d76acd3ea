"""The data of the network study: training loss over the (β1, β2) plane, and its outcomes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial, reduce

import numpy as np
import xarray as xr

from adam_transition.networks import outcomes, panels
from adam_transition.networks.panels import Conditions, Panel, Task
from adam_transition.networks.training import GRID_DIMS, Grid, Recipe
from adam_transition.sweeps import store
from adam_transition.sweeps.study import Filled, variable

LEADING = ("task", "batch_size")


@dataclass(frozen=True)
class NetworkSpec:
    """What to compute."""

    tasks: tuple[Task, ...]
    batch_sizes: tuple[int, ...]
    num_epochs: int
    grid: Grid
    conditions: Conditions

    def check(self) -> None:
        """Loads every task once and tries every recipe.

        Raises:
          ValueError: a task that cannot be loaded, a batch size that does not divide its samples,
            or an impossible run.
        """
        for task in self.tasks:
            _, samples = task.load()
            for size in self.batch_sizes:
                if not 1 <= size <= len(samples) or len(samples) % size:
                    raise ValueError(
                        f"batch_size={size}: must divide the {len(samples)} samples of {task.name}"
                    )
                try:
                    self.recipe(len(samples), size)
                except ValueError as error:
                    raise ValueError(f"epochs={self.num_epochs}: {error}") from None

    def recipe(self, num_samples: int, batch_size: int) -> Recipe:
        """How the networks of a panel are trained.

        Raises:
          ValueError: see `training.Recipe`.
        """
        steps = self.num_epochs * num_samples // batch_size
        records = self.num_epochs * self.records_per_epoch
        return self.conditions.recipe(batch_size, steps, records, self.num_epochs)

    @cached_property
    def records_per_epoch(self) -> int:
        """The largest number, up to four, that divides the steps of every epoch."""
        steps = [len(task.load()[1]) // size for task in self.tasks for size in self.batch_sizes]
        return reduce(math.gcd, steps, 4)


def coordinates(spec: NetworkSpec) -> xr.Dataset:
    """The labelled axes."""
    records = np.arange(1, spec.num_epochs * spec.records_per_epoch + 1)
    epochs = records / spec.records_per_epoch
    sizes = np.array(spec.batch_sizes)
    return panels.coordinates(
        spec.grid,
        {
            "task": ("task", np.array([task.name for task in spec.tasks], dtype=object)),
            "batch_size": ("batch_size", sizes, {"long_name": "B", "units": "samples"}),
            "record": ("record", epochs, {"long_name": "epoch", "units": "1"}),
        },
    )


def training(spec: NetworkSpec) -> Filled:
    """`loss`, `accuracy` on the training set; values that overflow are kept.

    Dims: (task, batch_size, learning_rate, seed, beta1, beta2, record).
    """
    return panels.filled(LEADING, partial(_train, spec))


def _train(spec: NetworkSpec, results: store.Store) -> None:
    wanted = []
    for i, task in enumerate(spec.tasks):
        samples = len(task.load()[1])
        for j, size in enumerate(spec.batch_sizes):
            region = {"task": slice(i, i + 1), "batch_size": slice(j, j + 1)}
            wanted.append(Panel(region, task, spec.recipe(samples, size)))
    panels.train_panels(wanted, spec.grid, spec.conditions.dtype, results)


def outcomes_of_training(spec: NetworkSpec, dataset: xr.Dataset) -> Mapping[str, xr.Variable]:
    """Outcomes of the loss curves.

    - `guess` over (task): the loss of guessing.
    - `late_loss`, `spikes` over (task, batch_size, learning_rate, seed, beta1, beta2).
    - `tuned_learning_rate`, `tuned_loss` over (task, batch_size, beta1, beta2): the best learning
      rate of each cell, and the loss at it.
    - `good`, `good_by_seed`: whether a cell is good at its best learning rate, for the mean over
      seeds and for each seed; `good_fixed`: the same as `good` at each learning rate.
    """
    loss = dataset["loss"].values
    late = outcomes.late_loss(loss)
    # (task, batch, rate, β1, β2), the geometric mean over seeds
    height = outcomes.log_mean(np.moveaxis(late, 3, -1))
    best = height.argmin(axis=2)
    chosen = np.take_along_axis(late, best[:, :, None, None], axis=2)[:, :, 0]
    guess = np.array([math.log(task.load()[1].num_classes) for task in spec.tasks])
    cell = ("task", "batch_size", "beta1", "beta2")
    every = (*LEADING, *GRID_DIMS)
    seeds = ("task", "batch_size", "seed", "beta1", "beta2")
    fixed = ("task", "batch_size", "learning_rate", "beta1", "beta2")

    def good(log_loss: np.ndarray) -> np.ndarray:
        return np.stack(
            [outcomes.is_good(one, one_guess) for one, one_guess in zip(log_loss, guess)]
        )

    tuned = height.min(axis=2)
    rates = np.array(spec.grid.learning_rate)[best]
    at_best = "late training loss at the best η0"
    return {
        "guess": variable("task", guess, "loss of guessing", "nats"),
        "late_loss": variable(every, late, "late training loss", "nats", dtype=np.float64),
        "spikes": variable(every, outcomes.spikes(loss), "loss spikes", dtype=np.int64),
        "tuned_learning_rate": variable(cell, rates, "best η0"),
        "tuned_loss": variable(cell, np.exp(tuned), at_best, "nats", dtype=np.float64),
        "good_by_seed": variable(seeds, good(outcomes.log(chosen)), "good, for each seed"),
        "good_fixed": variable(fixed, good(height), "good, at one learning rate"),
        "good": variable(cell, good(tuned), "good, at the best learning rate"),
    }
