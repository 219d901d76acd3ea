"""The plane of a user's own network: training at every (β1, β2), learning rate, batch size, seed.

The counterpart of `simulate_plane` for training. The programs are those of `experiments.networks`.
"""

import dataclasses
import math
import os
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import xarray as xr
from jaxtyping import Array, ArrayLike, Float, Key, PyTree, Shaped, UInt32

from adam_transition import checks, sampling
from adam_transition.networks import objectives, outcomes, panels, training, workloads
from adam_transition.networks.objectives import Objective
from adam_transition.networks.panels import Panel
from adam_transition.networks.training import GRID_DIMS, RUNNING, Grid, Recipe
from adam_transition.networks.workloads import Workload
from adam_transition.simulate import Method
from adam_transition.sweeps import store, study
from adam_transition.sweeps.study import Filled, Part, variable

_LEADING = ("batch_size",)
_OUTCOMES = ("late_loss", "good", "low", "high", "guess")
_TIMED = 64  # steps of the run that the estimate of the cost measures


class PlaneCost(NamedTuple):
    """What a plane will take on this machine."""

    networks: int
    network_steps: int  # updates of one network each
    seconds: float  # without compilation; from a short run of the first batch size
    bytes: int  # of the results


@dataclass(frozen=True, eq=False)
class TrainingPlane:
    """A study of a user's network; made by `training_plane`."""

    workload: Workload
    grid: Grid
    recipes: tuple[Recipe, ...]  # one for each batch size
    keys: Key[Array, " S"]
    starting: Float[np.ndarray, " S"]  # losses at the start
    guess: float
    progress: bool | None

    name = "training_plane"

    def training(self, dtype: str) -> tuple[Objective, PyTree]:
        """What is trained, for `panels`."""
        del dtype
        return self.workload

    @property
    def dtype(self) -> str:
        """Of hyperparameters: that of JAX's floating-point numbers."""
        return str(jnp.result_type(float))

    def curves(self) -> dict[str, str]:
        """Names and labels of the curves: the running loss, and the metrics of the user."""
        key = jax.eval_shape(lambda: jax.random.key(0))

        def names(key: Key[Array, ""]) -> dict[str, Array]:
            hyper = (1.0, 1.0, 0.0, 0.0)
            recipe = self.recipes[0]
            found = training.train(
                self.workload.objective, self.workload.samples,
                training.adam.Hyperparameters(*hyper), 1.0, key, recipe,
            )  # fmt: skip
            return found[1]

        found = jax.eval_shape(names, key)
        return {
            name: "mean training loss since the last record" if name == RUNNING else name
            for name in found
        }

    def coordinates(self) -> xr.Dataset:
        """The labelled axes."""
        sizes = np.array([recipe.batch_size for recipe in self.recipes])
        records = self.recipes[0].num_records
        share = np.arange(1, records + 1) / records
        return panels.coordinates(
            self.grid,
            {
                "batch_size": ("batch_size", sizes, {"long_name": "B", "units": "samples"}),
                "record": ("record", share, {"long_name": "share of the run", "units": "1"}),
            },
        )

    def parts(self) -> Mapping[str, Part | Filled]:
        """Training, and its outcomes."""
        curves = self.curves()
        return {
            "training": panels.filled(_LEADING, partial(self._train, tuple(curves)), curves),
            "outcomes": lambda dataset, _: self._outcomes(dataset),
        }

    def _train(self, names: Sequence[str], results: store.Store) -> None:
        wanted = [
            Panel({"batch_size": slice(i, i + 1)}, self, recipe)
            for i, recipe in enumerate(self.recipes)
        ]
        hidden = None if self.progress is None else not self.progress
        panels.train_panels(
            wanted, self.grid, self.dtype, results, names=names, keys=self.keys, hidden=hidden
        )

    def _outcomes(self, dataset: xr.Dataset) -> dict[str, xr.Variable]:
        dims = ("batch_size", *GRID_DIMS)
        late = outcomes.late_loss(dataset[RUNNING].transpose(*dims, "record").values)
        height = outcomes.log_mean(np.moveaxis(late, 2, -1))  # (batch, rate, β1, β2)
        planes = height.reshape(-1, *height.shape[-2:])
        good = np.array([outcomes.is_good(one, self.guess) for one in planes])
        capped = np.minimum(height, math.log(self.guess)).reshape(-1, height.shape[-1])
        q = 1 - np.array(self.grid.beta2)
        edges = [outcomes.window(q, np.exp(one)[None], self.guess) for one in capped]
        low, high = (np.concatenate(ends).reshape(height.shape[:-1]) for ends in zip(*edges))
        cell = ("batch_size", "learning_rate", "beta1", "beta2")
        return {
            "late_loss": variable(dims, late, "late training loss", dtype=np.float64),
            "good": variable(cell, good.reshape(height.shape), "good"),
            "low": variable(cell[:-1], low, "1 − β2 at the smallest good β2"),
            "high": variable(cell[:-1], high, "1 − β2 at the largest good β2"),
            "guess": variable((), self.guess, "loss of guessing"),
        }

    def identity(self) -> dict[str, object]:
        """What decides the results, for resuming; functions count by what they return at first."""
        recipe = self.recipes[0]
        data = [np.asarray(leaf) for leaf in jax.tree.leaves(self.workload.samples)]
        numbers = (recipe.epsilon, recipe.weight_decay, self.guess, *self.starting.tolist())
        return {
            "sizes": [(one.batch_size, one.num_steps, one.num_records) for one in self.recipes],
            "method": [recipe.method.sampling, recipe.method.initialization],
            "grid": [list(values) for values in dataclasses.astuple(self.grid)],
            "numbers": [float(number).hex() for number in numbers],
            "curves": sorted(self.curves()),
            "first_steps": [_digest(self._first_steps(recipe)) for recipe in self.recipes],
            "data": [zlib.crc32(np.ascontiguousarray(leaf).tobytes()) for leaf in data],
            "keys": jax.random.key_data(self.keys).tolist(),
            "dtype": self.dtype,
        }

    def _first_steps(self, recipe: Recipe) -> PyTree:
        """A network after 64 steps or fewer, which tells losses, schedules and optimisers apart."""
        hyper = training.adam.Hyperparameters(0.5, 0.5, recipe.epsilon)
        short = dataclasses.replace(
            recipe, num_steps=min(recipe.num_steps, _TIMED), num_records=1, evaluated=0
        )
        objective, samples = self.workload
        train = jax.jit(partial(training.train, objective, recipe=short))
        network, _ = train(samples, hyper, max(self.grid.learning_rate), key=self.keys[0])
        return network.params


def train_plane(
    loss: Callable,
    init: Callable,
    data: PyTree,
    *,
    beta1: Shaped[ArrayLike, " B1"] | Sequence[float],
    beta2: Shaped[ArrayLike, " B2"] | Sequence[float],
    learning_rate: Sequence[float] | float,
    batch_size: Sequence[int] | int,
    epochs: float,
    key: Key[Array, ""] | UInt32[Array, "2"],
    path: str | Path | None = None,
    resume: bool = True,
    **settings: object,
) -> xr.Dataset:
    """Trains a network at every combination of β1, β2, learning rate, batch size and seed.

    The networks train side by side in compiled programs, as many at once as memory allows, so a
    network that is too large for that trains one after the other. All networks of a seed start
    from the same parameters, and see the same batches if their batch size is the same.

    Args:
      loss: (params, batch) → loss; see `objectives.of_loss`.
      init: key → params.
      data: a pytree of arrays whose leading axis is that of the samples, or a finite iterator over
        batches of that form, which is read to its end.
      beta1: a grid in [0, 1).
      beta2: a grid in [0, 1).
      learning_rate: values of η0.
      batch_size: values of B.
      epochs: length of every run; its steps are rounded to whole records.
      key: of the seeds; consumed.
      path: a zarr store to write to, and to resume from; default: the results stay in memory, and
        an interrupted call keeps nothing. A store is that of another network if anything differs
        that shows in the arguments, the names of the curves, or the first 64 steps: if you change a
        function later in training only, choose another path.
      resume: go on with a store that exists; otherwise it is replaced.
      **settings: further settings of `training_plane`.

    Returns:
      A data set with the curves `running_loss` and those of the user's metrics over (batch_size,
      learning_rate, seed, beta1, beta2, record), and `late_loss`, `good`, `low`, `high` as in
      `experiments.networks`: a cell is good if its late loss, the geometric mean over seeds, lies
      within 15 % of the way, in the logarithm, from the best of its plane to `guess`; `low` and
      `high` are the edges of the good β2 as 1 − β2 (+inf and 0 where the grid has none).

    Raises:
      ValueError: naming the argument, its value and what is allowed.
      StoreError: the store belongs to other arguments, or cannot be written.
    """
    plane = training_plane(
        loss, init, data, beta1=beta1, beta2=beta2, learning_rate=learning_rate,
        batch_size=batch_size, epochs=epochs, key=key, **settings,  # type: ignore[arg-type]
    )  # fmt: skip
    if path is None:
        return study.compute(plane)
    try:
        results = study.run(plane, Path(path), identity=plane.identity(), resume=resume)
    except store.StoreError as error:
        said = str(error).replace("another --out", "another path")
        raise store.StoreError(said.replace("pass --noresume", "pass resume=False")) from error
    found = results.load()
    results.close()
    return found


def training_plane(
    loss: Callable,
    init: Callable,
    data: PyTree,
    *,
    beta1: Shaped[ArrayLike, " B1"] | Sequence[float],
    beta2: Shaped[ArrayLike, " B2"] | Sequence[float],
    learning_rate: Sequence[float] | float,
    batch_size: Sequence[int] | int,
    epochs: float,
    key: Key[Array, ""] | UInt32[Array, "2"],
    seeds: int = 3,
    records: int = 16,
    guess: float | None = None,
    sampling: sampling.Sampling = "random_shuffling",
    schedule: Callable[[Array], ArrayLike] | None = None,
    initialization: training.adam.Initialization = "bias_correction",
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
    wrap: Callable[[optax.GradientTransformation], optax.GradientTransformation] | None = None,
    has_state: bool = False,
    has_key: bool = False,
    measure: Callable | None = None,
    evaluated: int = 2048,
    progress: bool | None = None,
) -> TrainingPlane:
    """What `train_plane` trains, before it trains it; for `plane_cost`.

    Args:
      loss: see `train_plane`.
      init: see `train_plane`.
      data: see `train_plane`.
      beta1: see `train_plane`.
      beta2: see `train_plane`.
      learning_rate: see `train_plane`.
      batch_size: see `train_plane`.
      epochs: see `train_plane`.
      key: see `train_plane`.
      seeds: S.
      records: R, how often each curve is recorded.
      guess: the loss of a network that has learnt nothing; default: the mean loss at the start.
      sampling: how batches are drawn, one of `sampling.SAMPLINGS`.
      schedule: epochs so far, a fraction → factor of the learning rate; default: 1.
      initialization: of the moments, one of `adam.INITIALIZATIONS`.
      epsilon: ε of Adam.
      weight_decay: decoupled, as in AdamW.
      wrap: puts the optimiser into a chain, for example
        `lambda adam: optax.chain(optax.clip_by_global_norm(1.0), adam)`.
      has_state: the loss has a state, see `objectives.of_loss`.
      has_key: the loss takes a key, see `objectives.of_loss`.
      measure: (params, batch) → mapping of scalars, measured at every record on the first
        `evaluated` samples; see `objectives.of_loss`.
      evaluated: largest number of samples to measure on.
      progress: show a bar on stderr; default: on a terminal.

    Raises:
      ValueError: naming the argument, its value and what is allowed.
    """
    workloads.check_call(key, data, weight_decay, wrap, schedule=schedule)
    given = workloads.workload(
        loss, init, data, has_state=has_state, has_key=has_key, measure=measure
    )
    checks.check_integer("seeds", seeds, 1, 2**16)
    checks.check_integer("records", records, 1, 2**16)
    betas = [_values(name, grid, 1.0, least=0.0) for name, grid in
             (("beta1", beta1), ("beta2", beta2))]  # fmt: skip
    rates = _values("learning_rate", learning_rate, math.inf)
    _values("epochs", [epochs], math.inf)
    sizes = _sizes(batch_size, given.num_samples, epochs, records)
    if measure is not None:
        checks.check_integer("evaluated", evaluated, 1, 2**31)
    method = Method(sampling, "constant", initialization)

    def recipe(size: int) -> Recipe:
        steps = records * max(1, round(epochs * given.num_samples / size / records))
        more = {} if wrap is None else {"wrap": wrap}
        return Recipe(
            size, steps, records, 1, method, epsilon, evaluated if measure else 0,
            schedule and partial(_by_epoch, schedule, given.num_samples, size), weight_decay,
            **more,
        )  # fmt: skip

    keys = workloads.keys_of_seeds(key, seeds)
    starting = workloads.starting_losses(given, keys, sizes[0])
    guess = float(starting.mean()) if guess is None else guess
    if not 0 < guess < math.inf:
        raise ValueError(f"guess={guess:g}: must be positive: add a constant to the loss")
    grid = Grid(rates, tuple(range(seeds)), *betas)
    plane = TrainingPlane(given, grid, tuple(map(recipe, sizes)), keys, starting, guess, progress)
    _check_names(plane)
    return plane


def _sizes(
    batch_size: Sequence[int] | int, num_samples: int, epochs: float, records: int
) -> list[int]:
    """The batch sizes, each of which must leave as many steps as records."""
    sizes = list(np.atleast_1d(np.asarray(batch_size, object)))
    for size in sizes:
        workloads.check_batch_size(size, num_samples)
    if not sizes:
        raise ValueError("batch_size: needs one or more values")
    fewest = epochs * num_samples / max(sizes)
    if records > fewest:
        raise ValueError(
            f"records={records}: more than the {fewest:.3g} steps of a run at batch size "
            f"{max(sizes)}"
        )
    return sizes


def _check_names(plane: TrainingPlane) -> None:
    """Raises ValueError if a metric has the name of something else, or none for a file."""
    taken = {*_OUTCOMES, *plane.coordinates().coords}
    for name in plane.curves():
        if name in taken or "/" in name or not name.strip("."):
            raise ValueError(
                f"metric {name!r}: choose another name, without / and not one of "
                f"{', '.join(sorted(map(str, taken)))}"
            )


def plane_cost(plane: TrainingPlane) -> PlaneCost:
    """Measures a few steps, and says what the whole plane will take.

    Networks of other batch sizes are assumed to cost as much per sample.
    """
    first, size = plane.recipes[0], math.prod(plane.grid.shape)
    steps = sum(recipe.num_steps for recipe in plane.recipes)
    samples = sum(recipe.num_steps * recipe.batch_size for recipe in plane.recipes)
    at_once = min(size, training.cells_at_once(*plane.workload, first.batch_size))
    count = min(first.num_steps, _TIMED)
    short = dataclasses.replace(first, num_steps=count, num_records=1, evaluated=0)
    objective, data = plane.workload

    @jax.jit
    def train(rates: Float[Array, " C"], initial: PyTree, data: PyTree, key: PyTree) -> Array:
        def one(rate: Array) -> Array:
            hyper = training.adam.Hyperparameters(0.1, 0.01, first.epsilon)
            return training.train(objective, data, hyper, rate, key, short, initial)[1][RUNNING]

        return jax.vmap(one)(rates)

    key = plane.keys[0]
    inputs = (
        jnp.full(at_once, plane.grid.learning_rate[0]), objectives.initial(objective)(key), data,
        key,
    )  # fmt: skip
    jax.block_until_ready(train(*inputs))
    started = time.perf_counter()
    jax.block_until_ready(train(*inputs))
    per_sample = (time.perf_counter() - started) / count / first.batch_size / at_once
    results = 4 * size * len(plane.recipes) * first.num_records * len(plane.curves())
    return PlaneCost(
        size * len(plane.recipes), size * steps, per_sample * samples * size / _workers(), results
    )


def _workers() -> int:
    """Tiles that run at once."""
    on_cpu = jax.default_backend() == "cpu"
    return max(jax.local_device_count(), len(os.sched_getaffinity(0)) if on_cpu else 1)


def _by_epoch(
    schedule: Callable[[Array], ArrayLike], num_samples: int, batch_size: int, step: Array
) -> ArrayLike:
    """The schedule at a step, whose epoch is exact at the start of every epoch."""
    each, rest = divmod(num_samples, batch_size)
    if rest:
        return schedule(step * (batch_size / num_samples))
    return schedule(step // each + (step % each) / each)


def _values(
    name: str, values: Shaped[ArrayLike, "..."] | Sequence[float], below: float, *,
    least: float | None = None,
) -> tuple[float, ...]:  # fmt: skip
    """Different numbers in [least, below), or (0, below) without `least`."""
    found = np.atleast_1d(checks.numbers(name, values))
    inside = (found < below) & (found >= least if least is not None else found > 0)
    if found.ndim != 1 or not found.size or not inside.all() or len(np.unique(found)) < found.size:
        start = "(0" if least is None else f"[{least:g}"
        raise ValueError(
            f"{name}={values}: needs one or more different numbers in {start}, {below:g})"
        )
    return tuple(found.tolist())


def _digest(tree: PyTree) -> int:
    """A checksum of arrays; 0 of None."""
    total = 0
    for leaf in jax.tree.leaves(tree):
        total = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), total)
    return total
