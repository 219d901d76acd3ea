"""Cost of the monitor: time of a training step with optax.adam wrapped, over that without.

Two models in plain JAX: an MLP (784–256–10, batch 64) and a decoder block (width 128, 4 heads,
64 tokens, batch 8). Steps of both contestants alternate; the ratio is that of the median times.
Each is run with the state donated to the step, as in training loops, and without, when XLA copies
it.

    python -m benchmarks.monitor
"""

import argparse
import itertools
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adam_transition.advise import monitor


def mlp(key: jax.Array) -> tuple[Any, Callable, Any]:
    keys = jax.random.split(key, 3)
    params = {
        "w1": jax.random.normal(keys[0], (784, 256)) / 28,
        "w2": jax.random.normal(keys[1], (256, 10)) / 16,
    }
    x = jax.random.normal(keys[2], (64, 784))
    y = jnp.arange(64) % 10

    def loss(params: Any, batch: Any) -> jax.Array:
        logits = jax.nn.relu(batch[0] @ params["w1"]) @ params["w2"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch[1]).mean()

    return params, loss, (x, y)


def decoder(key: jax.Array) -> tuple[Any, Callable, Any]:
    width, heads, length, vocabulary = 128, 4, 64, 256
    shapes = {
        "embed": (vocabulary, width), "qkv": (width, 3 * width), "out": (width, width),
        "up": (width, 4 * width), "down": (4 * width, width),
    }  # fmt: skip
    keys = jax.random.split(key, len(shapes) + 1)
    params = {
        name: jax.random.normal(k, shape) / np.sqrt(shape[0])
        for k, (name, shape) in zip(keys, shapes.items(), strict=False)
    }
    tokens = jax.random.randint(keys[-1], (8, length), 0, vocabulary)

    def loss(params: Any, tokens: jax.Array) -> jax.Array:
        x = params["embed"][tokens]
        q, k, v = jnp.split((x @ params["qkv"]).reshape(8, length, heads, -1), 3, axis=-1)
        x = (
            x
            + jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(x.shape) @ params["out"]
        )
        x = x + jax.nn.gelu(x @ params["up"]) @ params["down"]
        logits = x @ params["embed"].T
        return optax.softmax_cross_entropy_with_integer_labels(logits[:, :-1], tokens[:, 1:]).mean()

    return params, loss, tokens


def main() -> None:
    parser = argparse.ArgumentParser(description="A training step with the monitor and without.")
    parser.add_argument("--steps", type=int, default=300)
    arguments = parser.parse_args()
    print(f"{'':8}  state    plain (ms)  monitored (ms)  ratio")
    models = (("mlp", mlp), ("decoder", decoder))
    for (name, make), donated in itertools.product(models, (True, False)):
        params, loss, batch = make(jax.random.key(0))
        plain = optax.adam(1e-3)
        contestants = [plain, monitor(plain, beta1=0.9, beta2=0.999)]
        runs = [_step(loss, optimiser, params, batch, donated) for optimiser in contestants]
        times: list[list[float]] = [[], []]
        for _ in range(arguments.steps):
            for run, spent in zip(runs, times, strict=True):
                started = time.perf_counter()
                run()
                spent.append(time.perf_counter() - started)
        without, watched = (1e3 * float(np.median(spent[10:])) for spent in times)
        kind = "donated" if donated else "kept"
        print(f"{name:8}  {kind:7}  {without:10.3f}  {watched:14.3f}  {watched / without:5.3f}")


def _step(
    loss: Callable,
    optimiser: optax.GradientTransformation,
    params: Any,
    batch: Any,
    donated: bool,
) -> Callable[[], None]:
    @partial(jax.jit, donate_argnums=(0, 1) if donated else ())
    def step(params: Any, state: Any) -> tuple[Any, Any]:
        updates, state = optimiser.update(jax.grad(loss)(params, batch), state, params)
        return optax.apply_updates(params, updates), state

    held = jax.tree.map(jnp.copy, [params, optimiser.init(params)])

    def run() -> None:
        held[:] = jax.block_until_ready(step(*held))

    return run


if __name__ == "__main__":
    main()
