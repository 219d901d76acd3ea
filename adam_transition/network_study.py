"""The data set behind `experiments.networks`: training loss over the (β1, β2) plane."""

import math
from dataclasses import dataclass
from functools import cached_property, partial, reduce

import numpy as np

from adam_transition import store
from adam_transition.networks import outcomes, panels
from adam_transition.networks.panels import Conditions, Panel, Task
from adam_transition.networks.training import GRID_DIMS, Grid, Recipe
from adam_transition.store import Variable
from adam_transition.studies import Plan

LEADING = ("task", "batch_size")


@dataclass(frozen=True)
class NetworkStudy:
    """What to compute; see `plan`."""

    tasks: tuple[Task, ...]
    batch_sizes: tuple[int, ...]
    num_epochs: int
    grid: Grid
    conditions: Conditions

    def check(self) -> None:
        """Loads every task once and tries every recipe.

        Raises:
          ValueError: a task that cannot be loaded, a batch size that does not divide its samples,
            or a run that cannot be.
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
        """As many as divide every epoch, up to four."""
        steps = [len(task.load()[1]) // size for task in self.tasks for size in self.batch_sizes]
        return reduce(math.gcd, steps, 4)


def plan(study: NetworkStudy) -> Plan:
    """The parts of the data set.

    - Training: `loss`, `accuracy` over (task, batch_size, learning_rate, seed, beta1, beta2,
      record), on the training set; what overflows stays as it is.
    - Outcomes: `late_loss`, `spikes` over (…, seed, beta1, beta2); `tuned_learning_rate`,
      `tuned_loss` over (task, batch_size, beta1, beta2): at the learning rate that is best for
      the cell; `good_by_seed`, `good_fixed` (each learning rate) and `good`.
    """
    parts = {"accuracy": partial(_train, study), "good": partial(_outcomes, study)}
    records = np.arange(1, study.num_epochs * study.records_per_epoch + 1)
    epochs = records / study.records_per_epoch
    more = {
        "task": ("task", np.array([task.name for task in study.tasks], dtype=object)),
        "batch_size": (
            "batch_size", np.array(study.batch_sizes), {"long_name": "B", "units": "samples"},
        ),
        "record": ("record", epochs, {"long_name": "epoch", "units": "1"}),
    }  # fmt: skip
    return Plan(
        panels.coordinates(study.grid, more),
        parts,
        panels.variables(LEADING),
        panels.chunks(LEADING),
    )


def _train(study: NetworkStudy, results: store.Store) -> None:
    wanted = []
    for i, task in enumerate(study.tasks):
        samples = len(task.load()[1])
        for j, size in enumerate(study.batch_sizes):
            region = {"task": slice(i, i + 1), "batch_size": slice(j, j + 1)}
            wanted.append(Panel(region, task, study.recipe(samples, size)))
    panels.train_panels(wanted, study.grid, study.conditions, results)


def _outcomes(study: NetworkStudy, results: store.Store) -> None:
    loss = results.load()["loss"].values
    late = outcomes.late_loss(loss)
    # (task, batch, rate, β1, β2), the geometric mean over seeds
    height = outcomes.log_mean(np.moveaxis(late, 3, -1))
    best = height.argmin(axis=2)
    chosen = np.take_along_axis(late, best[:, :, None, None], axis=2)[:, :, 0]
    guess = np.array([math.log(task.load()[1].num_classes) for task in study.tasks])
    cell = ("task", "batch_size", "beta1", "beta2")
    every = (*LEADING, *GRID_DIMS)
    seeds = ("task", "batch_size", "seed", "beta1", "beta2")
    fixed = ("task", "batch_size", "learning_rate", "beta1", "beta2")

    def good(log_loss: np.ndarray) -> np.ndarray:
        return np.stack(
            [outcomes.is_good(one, one_guess) for one, one_guess in zip(log_loss, guess)]
        )

    tuned = height.min(axis=2)
    results.add("guess", Variable(("task",), np.float64, "loss of guessing", "nats"), guess)
    results.add("late_loss", Variable(every, np.float64, "late training loss", "nats"), late)
    results.add("spikes", Variable(every, np.int64, "loss spikes"), outcomes.spikes(loss))
    rates = np.array(study.grid.learning_rate)[best]
    results.add("tuned_learning_rate", Variable(cell, np.float64, "best η0"), rates)
    variable = Variable(cell, np.float64, "late training loss at the best η0", "nats")
    results.add("tuned_loss", variable, np.exp(tuned))
    variable = Variable(seeds, bool, "good, each seed by itself")
    results.add("good_by_seed", variable, good(outcomes.log(chosen)))
    variable = Variable(fixed, bool, "good, at one learning rate")
    results.add("good_fixed", variable, good(height))
    results.add("good", Variable(cell, bool, "good, at the best learning rate"), good(tuned))
