"""Training networks with Adam, many at once: over (β1, β2), learning rates and seeds.

The training loss is a finite sum with one component per mini-batch, n = N/B of them. A batch is B
consecutive entries of the sample stream of `sampling`. So under random shuffling an epoch visits
each sample once, whatever B, and all networks of one seed see the same samples in the same order
(common random numbers).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, ArrayLike, Float, Int, Key, PyTree

from adam_transition import adam, sampling
from adam_transition.networks.data import DataSet
from adam_transition.networks.models import Model
from adam_transition.simulate import Method
from adam_transition.sweeps import sweep

_EVALUATED = 256
_CPU_CELLS = 32  # networks that one core trains at once; more gain nothing in measurements
_CPU_BYTES = 2**30
_ACCELERATOR_CELLS = 4096  # beyond this, memory traffic of parameters and moments is the limit
_ACCELERATOR_SHARE = 0.5  # of a device's memory, as XLA keeps copies of a loop's state

GRID_DIMS = ("learning_rate", "seed", "beta1", "beta2")

_METHOD = Method("random_shuffling", "inverse_sqrt_epoch", "bias_correction")

Batch = tuple[Array, Array]


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
    evaluated: int = 2048  # largest number of training samples to measure loss and accuracy on

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


class Curves(NamedTuple):
    """Training loss and accuracy at R records; values that are not finite are kept."""

    loss: Float[Array, " R"]  # mean over the evaluated samples
    accuracy: Float[Array, " R"]  # share of targets that are the most likely class


def loss(model: Model, params: PyTree, batch: Batch) -> Float[Array, ""]:
    """Cross entropy in nats, the mean over samples (and tokens)."""
    inputs, targets = batch
    logits = model.apply(params, inputs)
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets).mean()


def initial_params(model: Model, key: Key[Array, ""]) -> PyTree:
    """The parameters that `train` starts from; the key is read, not consumed."""
    return model.init(jax.random.fold_in(key, 0))


def train(
    model: Model,
    samples: Batch,
    hyper: adam.Hyperparameters,
    learning_rate: ArrayLike,
    key: Key[Array, ""],
    recipe: Recipe,
    params: PyTree | None = None,
) -> tuple[PyTree, Curves]:
    """Trains one network; a pure function, for use under `vmap`.

    Args:
      model: the network.
      samples: inputs and targets of all N training samples.
      hyper: 1 − β1, 1 − β2, ε; traced.
      learning_rate: η0 of the schedule; traced.
      key: of the initial parameters and of the stream of samples; consumed.
      recipe: batch size, steps, records, sampling; static.
      params: `initial_params(model, key)`, if already computed: a program that does not draw them
        compiles faster.

    Returns:
      The trained parameters, and the curves.

    Raises:
      AssertionError: inputs and targets differ in number.
    """
    chex.assert_equal_shape_prefix(jax.tree.leaves(samples), 1)
    num_samples = len(samples[0])
    every = recipe.num_steps // recipe.num_records
    batch = recipe.batch_size
    schedule = partial(
        adam.step_size,
        recipe.method.schedule,
        learning_rate,
        num_components=recipe.num_steps // recipe.decays,
    )
    optimiser = adam.adam(schedule, hyper, initialization=recipe.method.initialization)
    stream = jax.random.fold_in(key, 1)

    def step(carry: tuple[PyTree, PyTree], index: Int[Array, " B"]) -> tuple[Any, None]:
        params, state = carry
        gradient = jax.grad(partial(loss, model))(params, _take(samples, index))
        updates, state = optimiser.update(gradient, state, params)
        return (optax.apply_updates(params, updates), state), None

    def until_record(carry: tuple[PyTree, PyTree], record: Int[Array, ""]) -> tuple[Any, Curves]:
        index = sampling.indices(
            recipe.method.sampling, stream, record * every * batch, every * batch, num_samples,
            max_components=num_samples,
        )  # fmt: skip
        carry, _ = jax.lax.scan(step, carry, index.reshape(every, batch))
        return carry, evaluate(model, carry[0], _take(samples, slice(recipe.evaluated)))

    params = initial_params(model, key) if params is None else params
    carry = (params, optimiser.init(params))
    (params, _), curves = jax.lax.scan(until_record, carry, jnp.arange(recipe.num_records))
    return params, curves


def evaluate(model: Model, params: PyTree, samples: Batch) -> Curves:
    """Loss and accuracy on samples, in pieces of 256 or fewer so that memory is bounded."""
    size = len(samples[0])
    pieces = jax.tree.map(
        lambda leaf: leaf.reshape(-1, math.gcd(size, _EVALUATED), *leaf.shape[1:]), samples
    )

    def one(piece: Batch) -> Curves:
        logits = model.apply(params, piece[0])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, piece[1])
        return Curves(losses.mean(), (logits.argmax(axis=-1) == piece[1]).mean(dtype=losses.dtype))

    return jax.tree.map(lambda values: values.mean(axis=0), jax.lax.map(one, pieces))


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
    model: Model,
    data: DataSet,
    grid: Grid,
    recipe: Recipe,
    *,
    write: Callable[[Mapping[str, slice], dict[str, np.ndarray]], None],
    is_done: Callable[[Mapping[str, slice]], bool] = lambda _: False,
    dtype: str = "float32",
    progress: Any = None,
) -> None:
    """Trains all networks of a grid in one compiled program; results come region by region.

    Args:
      model: the network, with parameters of `dtype`.
      data: the training set.
      grid: hyperparameters and seeds.
      recipe: how each is trained.
      write: receives a region of `GRID_DIMS` and `loss`, `accuracy` of that shape and R.
      is_done: whether the results of a region already exist.
      dtype: of the training.
      progress: a progress bar that counts networks.
    """
    axes = (np.array(grid.learning_rate), 1 - np.array(grid.beta1), 1 - np.array(grid.beta2))
    columns = np.meshgrid(*axes, indexing="ij")
    with jax.enable_x64(dtype == "float64"):
        keys = jnp.stack([sampling.stream_key(seed) for seed in grid.seeds])
        params = jax.tree.map(lambda *leaves: np.stack(leaves), *map(initial(model), keys))
        rows = {"key": keys, "params": params}
        cells = {
            name: np.broadcast_to(values.ravel().astype(dtype), grid.table)
            for name, values in zip(("learning_rate", "p", "q"), columns, strict=True)
        }
        inputs = data.inputs if data.has_tokens else data.inputs.astype(dtype)
        samples = (jnp.asarray(inputs), jnp.asarray(data.targets))
        at_once = min(grid.table[1], cells_at_once(model, data, recipe.batch_size))
        chunk = grid.chunk(at_once)

        def write_block(block: sweep.Block, values: dict[str, np.ndarray]) -> None:
            region = grid.region(block)
            lengths = [region[dim].stop - region[dim].start for dim in GRID_DIMS[:3]]
            shape = (*lengths, len(grid.beta2), recipe.num_records)
            # a chunk has one row, so the order (seed, rate, …) is that of (rate, seed, …)
            write(region, {name: value.reshape(shape) for name, value in values.items()})

        sweep.run(
            sweep.Program(partial(_train_cell, model=model, recipe=recipe), (samples,)),
            rows, cells, tile=(1, at_once), chunk=(1, chunk), write=write_block,
            is_done=lambda block: is_done(grid.region(block)), progress=progress,
        )  # fmt: skip


def initial(model: Model) -> Callable[[Key[Array, ""]], PyTree]:
    """`initial_params` as a separate program: key → parameters.

    It runs once per seed, so its cost is compilation. On CPUs this takes a third of the time
    without LLVM's last optimisations, with bit-for-bit the same result.
    """
    options = {"xla_backend_optimization_level": 1} if jax.default_backend() == "cpu" else {}
    return jax.jit(partial(initial_params, model), compiler_options=options)


def _train_cell(
    row: Mapping[str, Array],
    cell: Mapping[str, Array],
    samples: Batch,
    *,
    model: Model,
    recipe: Recipe,
) -> dict[str, Array]:
    hyper = adam.Hyperparameters(cell["p"], cell["q"], recipe.epsilon)
    _, curves = train(
        model, samples, hyper, cell["learning_rate"], row["key"], recipe, row["params"]
    )
    return curves._asdict()


def cells_at_once(model: Model, data: DataSet, batch_size: int) -> int:
    """Number of networks that one device trains at once, such that their memory is bounded."""
    device = jax.local_devices()[0]
    most, budget = _CPU_CELLS, _CPU_BYTES
    if device.platform != "cpu":
        limit = (device.memory_stats() or {}).get("bytes_limit", 2**34)
        most, budget = _ACCELERATOR_CELLS, int(_ACCELERATOR_SHARE * limit)
    return max(1, min(most, budget // bytes_per_network(model, data, batch_size)))


def bytes_per_network(model: Model, data: DataSet, batch_size: int) -> int:
    """Memory of parameters, moments, gradient, and the residuals of a batch's backward pass."""

    def residuals(params: PyTree, batch: Batch) -> PyTree:
        return jax.vjp(partial(loss, model), params, batch)[1]

    def size(tree: PyTree) -> int:
        return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))

    params = jax.eval_shape(model.init, jax.random.key(0))
    batch = tuple(
        jax.ShapeDtypeStruct((max(batch_size, _EVALUATED), *values.shape[1:]), values.dtype)
        for values in (data.inputs, data.targets)
    )
    return 4 * size(params) + size(jax.eval_shape(residuals, params, batch))


def _take(samples: Batch, index: Array | slice) -> Batch:
    return samples[0][index], samples[1][index]
