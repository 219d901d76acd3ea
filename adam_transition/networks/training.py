"""Training networks with Adam, many at once: over (β1, β2), learning rates and seeds.

The training loss is a finite sum with one component per mini-batch, n = N/B of them. A batch is B
consecutive entries of the sample stream of `sampling`. So under random shuffling an epoch visits
each sample once, whatever B, and all networks of one seed see the same samples in the same order
(common random numbers).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Int, Key, PyTree, Shaped

from adam_transition import adam, sampling
from adam_transition.networks import objectives
from adam_transition.networks.objectives import RUNNING, Objective
from adam_transition.simulate import Method
from adam_transition.sweeps import sweep

_EVALUATED = 256
_CPU_CELLS = 32  # networks that one core trains at once; more gain nothing in measurements
_CPU_BYTES = 2**30
_ACCELERATOR_CELLS = 4096  # beyond this, memory traffic of parameters and moments is the limit
_ACCELERATOR_SHARE = 0.5  # of a device's memory, as XLA keeps copies of a loop's state

GRID_DIMS = ("learning_rate", "seed", "beta1", "beta2")

_METHOD = Method("random_shuffling", "inverse_sqrt_epoch", "bias_correction")


def _unchanged(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    return optimizer


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; static.

    Raises:
      ValueError: a number of steps that records or decays do not divide, or 2^31 samples or more.
    """

    batch_size: int  # B
    num_steps: int  # T
    num_records: int  # R, divides T
    decays: int  # periods ("epochs") of the step-size schedule in T steps; divides T
    method: Method = _METHOD
    epsilon: float = 1e-8
    evaluated: int = 2048  # largest number of training samples to measure on; 0: do not measure
    schedule: Callable[[Array], ArrayLike] | None = None
    """Steps so far → factor of the learning rate; None: the schedule of `method`."""
    weight_decay: float = 0.0  # decoupled, as in AdamW
    wrap: Callable[[optax.GradientTransformation], optax.GradientTransformation] = _unchanged
    """What surrounds the optimiser, for example a chain with clipping before it."""

    def __post_init__(self) -> None:
        if self.num_steps % self.num_records or self.num_steps % self.decays:
            raise ValueError(
                f"steps={self.num_steps}: not a multiple of {self.num_records} records and "
                f"{self.decays} decays"
            )
        if self.num_steps * self.batch_size >= 2**31:
            raise ValueError(
                f"steps={self.num_steps}: at batch size {self.batch_size} more than 2^31 samples"
            )

    @property
    def every(self) -> int:
        """Steps between records."""
        return self.num_steps // self.num_records

    def optimizer(
        self, hyper: adam.Hyperparameters, learning_rate: ArrayLike
    ) -> optax.GradientTransformation:
        """Adam with this recipe's schedule, weight decay and surroundings."""
        scheduled = self.schedule

        def schedule(step: ArrayLike) -> Array:
            if scheduled is not None:
                return jnp.asarray(learning_rate) * scheduled(jnp.asarray(step))
            return adam.step_size(
                self.method.schedule, learning_rate, step,
                num_components=self.num_steps // self.decays,
            )  # fmt: skip

        parts = [adam.scale_by_adam(hyper, initialization=self.method.initialization)]
        if self.weight_decay:
            parts.append(optax.add_decayed_weights(self.weight_decay))
        return self.wrap(optax.chain(*parts, optax.scale_by_learning_rate(schedule)))


class Running(NamedTuple):
    """A network in training."""

    params: PyTree
    state: PyTree  # of the network, () if it has none
    moments: PyTree  # the optimiser's state


def start(recipe: Recipe, initial: tuple[PyTree, PyTree]) -> Running:
    """A network before its first step, from its parameters and state (`objectives.initial`)."""
    params, state = initial
    # no state of Adam depends on its hyperparameters
    optimizer = recipe.optimizer(adam.Hyperparameters(1.0, 1.0), 1.0)
    return Running(params, state, optimizer.init(params))


def train(
    objective: Objective,
    samples: PyTree,
    hyper: adam.Hyperparameters,
    learning_rate: ArrayLike,
    key: Key[Array, ""],
    recipe: Recipe,
    initial: tuple[PyTree, PyTree] | None = None,
) -> tuple[Running, dict[str, Array]]:
    """Trains one network; a pure function, for use under `vmap`.

    Args:
      objective: what is trained.
      samples: a pytree of arrays whose leading axis is that of all N training samples.
      hyper: 1 − β1, 1 − β2, ε; traced.
      learning_rate: η0 of the schedule; traced.
      key: of the initial parameters, of the stream of samples and of the loss; consumed.
      recipe: batch size, steps, records, sampling; static.
      initial: `objectives.initial(objective)(key)`, if already computed: a program that does not
        draw the parameters compiles faster.

    Returns:
      The trained network, and its curves, each of shape [R]. These are `RUNNING`, the metrics of
      the loss, averaged likewise, and the measures of the objective on the first samples. Values
      that are not finite are kept.

    Raises:
      AssertionError: the leaves of `samples` differ in length.
    """
    if initial is None:
        initial = objective.init(jax.random.fold_in(key, 0))
    network = start(recipe, initial)
    return advance(
        objective, samples, hyper, learning_rate, key, recipe, network, 0, recipe.num_records
    )


def advance(
    objective: Objective,
    samples: PyTree,
    hyper: adam.Hyperparameters,
    learning_rate: ArrayLike,
    key: Key[Array, ""],
    recipe: Recipe,
    network: Running,
    first: ArrayLike,
    count: int,
) -> tuple[Running, dict[str, Array]]:
    """Trains on for `count` records after the first `first`, which may be traced; see `train`."""
    chex.assert_equal_shape_prefix(jax.tree.leaves(samples), 1)
    num_samples = len(jax.tree.leaves(samples)[0])
    every, batch = recipe.every, recipe.batch_size
    optimizer = recipe.optimizer(hyper, learning_rate)
    stream, draws = jax.random.fold_in(key, 1), jax.random.fold_in(key, 2)
    gradient = jax.value_and_grad(objective.loss, has_aux=True)

    def step(network: Running, at: tuple[Array, Array]) -> tuple[Running, Any]:
        index, number = at
        draw = jax.random.fold_in(draws, number)
        (value, (state, metrics)), slope = gradient(
            network.params, network.state, _take(samples, index), draw
        )
        updates, moments = optimizer.update(slope, network.moments, network.params)
        params = optax.apply_updates(network.params, updates)
        return Running(params, state, moments), {**metrics, RUNNING: value}

    def until_record(network: Running, record: Int[Array, ""]) -> tuple[Running, dict[str, Array]]:
        index = sampling.indices(
            recipe.method.sampling, stream, record * every * batch, every * batch, num_samples,
            max_components=num_samples,
        )  # fmt: skip
        numbers = record * every + jnp.arange(every, dtype=jnp.int32)
        network, values = jax.lax.scan(step, network, (index.reshape(every, batch), numbers))
        means = jax.tree.map(lambda value: value.mean(axis=0), values)
        measured = _measured(objective, network, samples, recipe)
        if twice := set(means) & set(measured):
            raise ValueError(f"measure: {min(twice)} is a metric of the loss as well")
        return network, {**means, **measured}

    records = jnp.asarray(first, jnp.int32) + jnp.arange(count, dtype=jnp.int32)
    return jax.lax.scan(until_record, network, records)


def _measured(
    objective: Objective, network: Running, samples: PyTree, recipe: Recipe
) -> dict[str, Array]:
    if not recipe.evaluated:
        return {}
    some = _take(samples, slice(recipe.evaluated))
    return evaluate(objective, network.params, network.state, some)


def evaluate(
    objective: Objective, params: PyTree, state: PyTree, samples: PyTree
) -> dict[str, Array]:
    """The measures on samples, in pieces of 256 or fewer so that memory is bounded."""
    size = len(jax.tree.leaves(samples)[0])
    pieces = jax.tree.map(
        lambda leaf: leaf.reshape(-1, math.gcd(size, _EVALUATED), *leaf.shape[1:]), samples
    )
    measured = jax.lax.map(partial(objective.measure, params, state), pieces)
    return {name: values.mean(axis=0) for name, values in measured.items()}


@dataclass(frozen=True)
class Grid:
    """The networks to train: every combination of these values."""

    learning_rate: tuple[float, ...]
    seeds: tuple[int, ...]
    beta1: tuple[float, ...]
    beta2: tuple[float, ...]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Lengths along `GRID_DIMS`."""
        return len(self.learning_rate), len(self.seeds), len(self.beta1), len(self.beta2)

    @property
    def table(self) -> tuple[int, int]:
        """Rows (seeds) and columns (learning rate, β1, β2) of the sweep."""
        rate, seed, beta1, beta2 = self.shape
        return seed, rate * beta1 * beta2

    def chunk(self, at_least: int) -> int:
        """Columns of a chunk of `at_least` cells or more: whole values of β1, or of the rate."""
        rate, _, beta1, beta2 = self.shape
        rows = [k for k in range(1, beta1 + 1) if beta1 % k == 0 and k * beta2 >= at_least]
        if rows:
            return rows[0] * beta2
        return min(rate, -(-at_least // (beta1 * beta2))) * beta1 * beta2

    def region(self, block: sweep.Block) -> dict[str, slice]:
        """The region of `GRID_DIMS` that a chunk covers."""
        _, _, beta1, beta2 = self.shape
        first, last = block.columns.start // beta2, block.columns.stop // beta2
        whole = last - first >= beta1
        return {
            "learning_rate": slice(first // beta1, (last - 1) // beta1 + 1),
            "seed": block.rows,
            "beta1": slice(0, beta1) if whole else slice(first % beta1, (last - 1) % beta1 + 1),
        }


def train_grid(
    objective: Objective,
    samples: PyTree,
    grid: Grid,
    recipe: Recipe,
    *,
    names: Sequence[str],
    write: Callable[[Mapping[str, slice], dict[str, np.ndarray]], None],
    is_done: Callable[[Mapping[str, slice]], bool] = lambda _: False,
    dtype: str = "float32",
    keys: Key[Array, " S"] | None = None,
    progress: Any = None,
) -> None:
    """Trains all networks of a grid in one compiled program; results come region by region.

    Args:
      objective: what is trained, with parameters of `dtype`.
      samples: a pytree of arrays with the same leading axis; floating-point leaves are cast to
        `dtype`.
      grid: hyperparameters and seeds.
      recipe: how each is trained.
      names: the curves to keep, of those that `train` returns.
      write: receives a region of `GRID_DIMS` and the curves of that shape and R.
      is_done: whether the results of a region already exist.
      dtype: of the training.
      keys: of the seeds; default: the stream keys of their numbers.
      progress: a progress bar that counts networks.
    """
    axes = (np.array(grid.learning_rate), 1 - np.array(grid.beta1), 1 - np.array(grid.beta2))
    columns = np.meshgrid(*axes, indexing="ij")
    with jax.enable_x64(dtype == "float64"):
        if keys is None:
            keys = jnp.stack([sampling.stream_key(seed) for seed in grid.seeds])
        drawn = map(objectives.initial(objective), keys)
        initial = jax.tree.map(lambda *leaves: np.stack(leaves), *drawn)
        rows = {"key": keys, "initial": initial}
        cells = {
            name: np.broadcast_to(values.ravel().astype(dtype), grid.table)
            for name, values in zip(("learning_rate", "p", "q"), columns, strict=True)
        }
        samples = jax.tree.map(partial(_cast, dtype=dtype), samples)
        at_once = min(grid.table[1], cells_at_once(objective, samples, recipe.batch_size))
        chunk = grid.chunk(at_once)

        def write_block(block: sweep.Block, values: dict[str, np.ndarray]) -> None:
            region = grid.region(block)
            lengths = [region[dim].stop - region[dim].start for dim in GRID_DIMS[:3]]
            shape = (*lengths, len(grid.beta2), recipe.num_records)
            # a chunk has one row, so the order (seed, rate, …) is that of (rate, seed, …)
            write(region, {name: value.reshape(shape) for name, value in values.items()})

        cell = partial(_train_cell, objective=objective, recipe=recipe, names=tuple(names))
        sweep.run(
            sweep.Program(cell, (samples,)), rows, cells, tile=(1, at_once), chunk=(1, chunk),
            write=write_block, is_done=lambda block: is_done(grid.region(block)),
            progress=progress,
        )  # fmt: skip


def _cast(leaf: Shaped[ArrayLike, "..."], dtype: str) -> Array:
    """The leaf as an array of JAX, in `dtype` if it holds floating-point numbers."""
    is_float = jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
    return jnp.asarray(leaf, dtype if is_float else None)


def _train_cell(
    row: Mapping[str, Any],
    cell: Mapping[str, Array],
    samples: PyTree,
    *,
    objective: Objective,
    recipe: Recipe,
    names: Sequence[str],
) -> dict[str, Array]:
    hyper = adam.Hyperparameters(cell["p"], cell["q"], recipe.epsilon)
    _, curves = train(
        objective, samples, hyper, cell["learning_rate"], row["key"], recipe, row["initial"]
    )
    return {name: curves[name] for name in names}


def cells_at_once(objective: Objective, samples: PyTree, batch_size: int) -> int:
    """Number of networks that one device trains at once, such that their memory is bounded."""
    device = jax.local_devices()[0]
    most, budget = _CPU_CELLS, _CPU_BYTES
    if device.platform != "cpu":
        limit = (device.memory_stats() or {}).get("bytes_limit", 2**34)
        most, budget = _ACCELERATOR_CELLS, int(_ACCELERATOR_SHARE * limit)
    return max(1, min(most, budget // bytes_per_network(objective, samples, batch_size)))


def bytes_per_network(objective: Objective, samples: PyTree, batch_size: int) -> int:
    """Memory of parameters, moments, gradient, and the residuals of a batch's backward pass."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    params, state = jax.eval_shape(objective.init, key)

    def residuals(params: PyTree, state: PyTree, batch: PyTree) -> PyTree:
        one = objectives.one_loss(objective)
        return jax.vjp(lambda params: one(params, state, batch, jax.random.key(0)), params)[1]

    def size(tree: PyTree) -> int:
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))

    batch = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            (max(batch_size, _EVALUATED), *leaf.shape[1:]), leaf.dtype
        ),
        samples,
    )
    return 4 * size(params) + size(jax.eval_shape(residuals, params, state, batch))


def _take(samples: PyTree, index: Array | slice) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[index], samples)
