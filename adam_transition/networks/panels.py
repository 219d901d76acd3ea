"""Shared by the studies of networks: tasks, and training the networks of many panels."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import xarray as xr
from jaxtyping import Array, Key, PyTree
from tqdm import tqdm

from adam_transition.networks import data, models, objectives, training
from adam_transition.networks.objectives import Objective
from adam_transition.networks.training import GRID_DIMS, Grid, Recipe
from adam_transition.simulate import Method
from adam_transition.sweeps import store
from adam_transition.sweeps.study import Filled

CURVES = {"loss": "training loss", "accuracy": "share of training targets predicted"}


@functools.lru_cache(maxsize=4)  # a study asks for the same samples again and again
def _load(name: str, data_dir: str | None, num_samples: int | None) -> data.DataSet:
    folder = None if data_dir is None else Path(data_dir)
    return data.load(name, data_dir=folder, num_samples=num_samples)


@dataclass(frozen=True)
class Task:
    """A network and its data set, by name."""

    data: str
    model: str
    width: int | None = None
    data_dir: str | None = None
    num_samples: int | None = None

    @property
    def name(self) -> str:
        """The name model/data, as in figures and coordinates."""
        return f"{self.model}/{self.data}"

    def training(self, dtype: str = "float32") -> tuple[Objective, PyTree]:
        """What is trained, and the samples.

        Raises:
          ValueError: see `load`.
        """
        model, samples = self.load(dtype)
        return objectives.of_model(model), samples.arrays

    def load(self, dtype: str = "float32") -> tuple[models.Model, data.DataSet]:
        """The network and its samples.

        Raises:
          ValueError: see `data.load` and `models.build`.
        """
        samples = _load(self.data, self.data_dir, self.num_samples)
        return models.build(self.model, samples, width=self.width, dtype=dtype), samples


class Conditions(NamedTuple):
    """The conditions that all networks of a study share; see `training.Recipe`."""

    method: Method
    epsilon: float = 1e-8
    evaluated: int = 2048
    dtype: str = "float32"

    def recipe(self, batch_size: int, num_steps: int, num_records: int, decays: int) -> Recipe:
        """The recipe at a batch size and a number of steps.

        Args:
          batch_size: B.
          num_steps: T.
          num_records: R, which divides T.
          decays: number of periods of the step-size schedule, which divides T.

        Raises:
          ValueError: see `training.Recipe`.
        """
        return Recipe(
            batch_size, num_steps, num_records, decays, self.method, self.epsilon, self.evaluated
        )


class Trainable(Protocol):
    """What the networks of a panel are trained on."""

    @property
    def name(self) -> str:
        """For the progress bar."""
        ...

    def training(self, dtype: str) -> tuple[Objective, PyTree]:
        """What is trained, and the samples."""
        ...


class Panel(NamedTuple):
    """The networks of one task and recipe, with the region of the leading dimensions they fill."""

    region: Mapping[str, slice]
    task: Trainable
    recipe: Recipe


def filled(
    leading: Sequence[str],
    train: Callable[[store.Store], None],
    curves: Mapping[str, str] = CURVES,
) -> Filled:
    """Curves as a part of a study, over the leading dimensions, those of the grid, and records.

    Chunks are small enough that no two regions share one.
    """
    dims = (*leading, *GRID_DIMS, "record")
    variables = {name: store.Variable(dims, np.float32, label) for name, label in curves.items()}
    chunks = dict.fromkeys((*leading, "learning_rate", "seed", "beta1"), 1)
    return Filled(variables, chunks, train)


def coordinates(grid: Grid, more: Mapping[str, Any]) -> xr.Dataset:
    """The axes of the grid, and the others given."""
    symbols = {"learning_rate": "η0", "seed": "seed", "beta1": "β1", "beta2": "β2"}
    axes = {
        name: (name, np.array(getattr(grid, attribute)), {"long_name": symbols[name], "units": "1"})
        for name, attribute in zip(
            GRID_DIMS, ("learning_rate", "seeds", "beta1", "beta2"), strict=True
        )
    }
    return xr.Dataset(coords={**more, **axes})


def train_panels(
    panels: Sequence[Panel],
    grid: Grid,
    dtype: str,
    results: store.Store,
    *,
    names: Sequence[str] = tuple(CURVES),
    keys: Key[Array, " S"] | None = None,
    hidden: bool | None = None,
) -> None:
    """Trains the networks that the store lacks, panel by panel, with a progress bar on a terminal.

    Args:
      panels: the panels.
      grid: hyperparameters and seeds.
      dtype: of the training.
      results: the store.
      names: the curves to keep.
      keys: of the seeds; default: the stream keys of their numbers.
      hidden: show no progress bar; default: unless on a terminal.
    """
    size = int(np.prod(grid.shape))
    with tqdm(total=size * len(panels), unit="network", disable=hidden, leave=False) as bar:
        for panel in panels:
            bar.set_description(f"{panel.task.name}, batch size {panel.recipe.batch_size}")
            train = partial(
                training.train_grid, grid=grid, recipe=panel.recipe, names=names, dtype=dtype,
                keys=keys, progress=bar,
            )  # fmt: skip
            _train(panel, train, results, names, dtype)


def _train(
    panel: Panel,
    train: Callable[..., None],
    results: store.Store,
    names: Sequence[str],
    dtype: str,
) -> None:
    def is_done(region: Mapping[str, slice]) -> bool:
        return results.is_complete({**panel.region, **region}, list(names))

    def write(region: Mapping[str, slice], values: Mapping[str, np.ndarray]) -> None:
        leading = (1,) * len(panel.region)
        shaped = {name: value.reshape(*leading, *value.shape) for name, value in values.items()}
        results.write({**panel.region, **region}, shaped)

    objective, samples = panel.task.training(dtype)
    train(objective, samples, write=write, is_done=is_done)
