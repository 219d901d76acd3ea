"""Training many small networks at once, against one at a time.

    python -m benchmarks.networks

Compares, on handwritten digits and in network-steps per second: the library's grid (tiles of
networks under vmap, tiles on threads); the library's compiled run of one network after another; and
a Python loop around a compiled optax step, as in most training scripts. Then compares gradient
steps of many convolutional networks with the library's convolution and with XLA's.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adam_transition import adam, sampling
from adam_transition.networks import data, models, objectives, training
from adam_transition.networks.training import Grid, Recipe

NETWORKS = 96
STEPS = 1792


def _seconds(function: Callable[[], Any], repeats: int = 3) -> float:
    """Minimum time of a few calls, after one to compile."""
    function()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - started)
    return min(times)


def training_rates(batch_size: int) -> dict[str, float]:
    """Network-steps per second of the three ways."""
    samples = data.load("digits")
    model = models.build("mlp", samples)
    objective = objectives.of_model(model)
    recipe = Recipe(batch_size, STEPS, 1, 1)
    arrays = (jnp.asarray(samples.inputs), jnp.asarray(samples.targets))
    beta2 = tuple(1 - np.geomspace(0.1, 1e-4, NETWORKS // 4))
    grid = Grid((1e-3,), (0,), (0.0, 0.5, 0.8, 0.9), beta2)

    def together(steps: int) -> float:
        one = Recipe(batch_size, steps, 1, 1)
        started = time.perf_counter()
        training.train_grid(
            objective, samples.arrays, grid, one, names=("loss", "accuracy"), write=lambda *_: None
        )
        return time.perf_counter() - started

    # every call compiles, so take the difference of a long and a short run
    spent = min(together(5 * STEPS) - together(STEPS) for _ in range(3)) / (4 * STEPS)

    single = jax.jit(partial(training.train, objective, recipe=recipe))
    alone = _seconds(
        lambda: single(
            arrays, adam.Hyperparameters(0.1, 0.01, 1e-8), 1e-3, key=sampling.stream_key(0)
        )
    )

    optimiser = optax.adam(1e-3, b2=0.99)

    @jax.jit
    def step(params: Any, state: Any, batch: Any) -> tuple[Any, Any]:
        gradient = jax.grad(partial(objectives.cross_entropy, model))(params, batch)
        updates, state = optimiser.update(gradient, state)
        return optax.apply_updates(params, updates), state

    batches = [
        tuple(leaf[i * batch_size % 1024 : i * batch_size % 1024 + batch_size] for leaf in arrays)
        for i in range(300)
    ]
    params = model.init(sampling.stream_key(0))

    def loop() -> Any:
        one, state = params, optimiser.init(params)
        for batch in batches:
            one, state = step(one, state, batch)
        return one

    return {
        "library": NETWORKS / spent,
        "one after the other": STEPS / alone,
        "optax in a Python loop": len(batches) / _seconds(loop),
    }


def objective_rates(batch_size: int) -> dict[str, float]:
    """Network-steps per second of our MLP, and of a user's in plain arrays, on the same grid."""
    samples = data.load("digits")
    model = models.build("mlp", samples)

    def init(key: jax.Array) -> dict[str, jax.Array]:
        one, two = jax.random.split(key)
        return {
            "in": jax.random.normal(one, (64, 16)) / 8, "a": jnp.zeros(16),
            "out": jax.random.normal(two, (16, 10)) / 4, "b": jnp.zeros(10),
        }  # fmt: skip

    def loss(params: dict[str, jax.Array], batch: tuple[jax.Array, jax.Array]) -> jax.Array:
        hidden = jax.nn.relu(batch[0].reshape(-1, 64) @ params["in"] + params["a"])
        logits = hidden @ params["out"] + params["b"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()

    objective = {"library": objectives.of_model(model), "user": objectives.of_loss(loss, init)}
    beta2 = tuple(1 - np.geomspace(0.1, 1e-4, NETWORKS // 4))
    grid = Grid((1e-3,), (0,), (0.0, 0.5, 0.8, 0.9), beta2)

    def seconds(name: str, steps: int) -> float:
        one = Recipe(batch_size, steps, 1, 1, evaluated=0)
        started = time.perf_counter()
        training.train_grid(
            objective[name], samples.arrays, grid, one, names=[training.RUNNING],
            write=lambda *_: None,
        )  # fmt: skip
        return time.perf_counter() - started

    # in turns, as every call compiles and the machine may be busy
    spent: dict[str, list[float]] = {name: [] for name in objective}
    for _ in range(5):
        for name in objective:
            spent[name].append(seconds(name, 9 * STEPS) - seconds(name, STEPS))
    return {name: 8 * STEPS * NETWORKS / min(times) for name, times in spent.items()}


def convolution_rates(batch_size: int, networks: int = 32) -> dict[str, float]:
    """Gradient steps per second of vmapped 3 × 3 convolutions on 28 × 28 images."""
    keys = jax.random.split(jax.random.key(0), networks)
    kernels = jax.vmap(lambda key: jax.random.normal(key, (3, 3, 1, 8)))(keys)
    wider = jax.vmap(lambda key: jax.random.normal(key, (3, 3, 8, 16)))(keys)
    images = jax.random.normal(jax.random.key(1), (batch_size, 28, 28, 1))
    layout = ("NHWC", "HWIO", "NHWC")
    rates = {}
    for name, convolve in (
        ("library", models.convolution_by_taps),
        ("XLA", partial(jax.lax.conv_general_dilated, dimension_numbers=layout)),
    ):

        def loss(pair: Any, convolve: Callable = convolve) -> jax.Array:
            hidden = jax.nn.relu(convolve(images, pair[0], (2, 2), "SAME"))
            return (convolve(hidden, pair[1], (2, 2), "SAME") ** 2).mean()

        descend = jax.jit(partial(_descend, jax.vmap(jax.grad(loss))))
        rates[name] = 20 * networks / _seconds(partial(descend, (kernels, wider)))
    return rates


def _descend(gradient: Callable, params: Any) -> Any:
    """20 steps in one program, as in training: XLA chooses other convolutions in a loop."""

    def step(_: int, params: Any) -> Any:
        return jax.tree.map(lambda p, g: p - 1e-6 * g, params, gradient(params))

    return jax.lax.fori_loop(0, 20, step, params)


def _print(title: str, rates: dict[str, float]) -> None:
    print(title)
    for name, rate in rates.items():
        print(f"  {name:24} {rate:10.3g} /s   library/it {rates['library'] / rate:6.1f}")


def main() -> None:
    for batch_size in (1, 16):
        rates = training_rates(batch_size)
        _print(f"{NETWORKS} MLPs of width 16 on digits, batch size {batch_size}", rates)
    for batch_size in (1, 16):
        rates = objective_rates(batch_size)
        _print(f"{NETWORKS} MLPs, ours and a user's, batch size {batch_size}", rates)
    for batch_size in (1, 16):
        _print(f"32 vmapped convolutions, batch size {batch_size}", convolution_rates(batch_size))


if __name__ == "__main__":
    main()
