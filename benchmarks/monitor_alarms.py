"""How often the monitor is wrong: its answers compared with the outcome of training.

Networks: one hidden layer of 32 ReLU units on digits and MNIST-1D, trained with optax.adam at
β1 = 0.9, over batch sizes, learning rates, β2 and seeds. A run is *bad* if its final training loss
is more than `BAD` times that of the best β2 at the same batch size and learning rate. The
counterexample: n = 20 frozen slopes, which each of 256 coordinates draws independently, with
replacement; a run is bad if x goes uphill overall.

A run raises an alarm if any of its readings, one every 500 steps, says "too small".

    python -m benchmarks.monitor_alarms
"""

import argparse
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adam_transition.advise import ANSWERS, answer, diagnostics, monitor
from adam_transition.networks.data import load
from adam_transition.problems.constructions import counterexample_table

BETA2 = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99, 0.999, 0.9999)
GOOD = (0.99, 0.999, 0.9999)
BAD = 1.5
READING = 500


class Runs(NamedTuple):
    """Results of runs over β2 (the first axis) and seeds, with T readings."""

    answers: np.ndarray  # [beta2, seed, T]
    loss: np.ndarray  # [beta2, seed] at the end, over the training set
    progress: np.ndarray  # [beta2, seed, T]
    step_size: np.ndarray  # [beta2, seed, T]


def networks(
    name: str, batch_size: int, learning_rate: float, *, seeds: int, steps: int, level: float
) -> Runs:
    data = load(name)
    x = jnp.asarray(data.inputs.reshape(len(data), -1))
    y = jnp.asarray(data.targets)

    def loss(params: Any, rows: jax.Array) -> jax.Array:
        hidden = jax.nn.relu(x[rows] @ params["hidden"] + params["bias"])
        logits = hidden @ params["head"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, y[rows]).mean()

    def train(beta2: jax.Array, key: jax.Array) -> tuple[jax.Array, ...]:
        optimiser = monitor(optax.adam(learning_rate, b1=0.9, b2=beta2))
        width = x.shape[1]
        keys = jax.random.split(key, 3)
        params = {
            "hidden": jax.random.normal(keys[0], (width, 32)) * np.sqrt(2 / width),
            "bias": jnp.zeros(32),
            "head": jax.random.normal(keys[1], (32, 10)) / np.sqrt(32),
        }
        order = jnp.concatenate(
            [
                jax.random.permutation(k, len(x))
                for k in jax.random.split(keys[2], -(-steps * batch_size // len(x)))
            ]
        )

        def step(carry: Any, k: jax.Array) -> tuple[Any, None]:
            params, state = carry
            rows = jax.lax.dynamic_slice(order, (k * batch_size,), (batch_size,))
            updates, state = optimiser.update(jax.grad(loss)(params, rows), state, params)
            return (optax.apply_updates(params, updates), state), None

        def reading(carry: Any, block: jax.Array) -> tuple[Any, Any]:
            carry, _ = jax.lax.scan(step, carry, block * READING + jnp.arange(READING))
            found = diagnostics(carry[1])
            whole = loss(carry[0], jnp.arange(len(x)))
            return carry, (answer(found, progress=level), whole, found.progress, found.step_size)

        _, found = jax.lax.scan(
            reading, (params, optimiser.init(params)), jnp.arange(steps // READING)
        )
        return found

    over_seeds = jax.vmap(train, (None, 0))
    keys = jax.random.split(jax.random.key(0), seeds)
    found = jax.jit(jax.vmap(over_seeds, (0, None)))(jnp.asarray(BETA2), keys)
    answers, losses, progress, step_size = (np.asarray(part) for part in found)
    return Runs(answers, losses[..., -2:].mean(-1), progress, step_size)


def frozen(beta1: float, a: float, *, seeds: int, steps: int, level: float) -> Runs:
    table = jnp.asarray(counterexample_table(20, a)[:, 0], jnp.float32)

    def train(beta2: jax.Array, key: jax.Array) -> tuple[jax.Array, ...]:
        optimiser = monitor(optax.adam(1.0, b1=beta1, b2=beta2))

        def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
            x, state = carry
            gradient = table[jax.random.randint(key, (256,), 0, 20)]
            update, state = optimiser.update(gradient, state, x)
            return (x + update, state), None

        def reading(carry: Any, key: jax.Array) -> tuple[Any, Any]:
            carry, _ = jax.lax.scan(step, carry, jax.random.split(key, READING))
            found = diagnostics(carry[1])
            said = answer(found, progress=level)
            return carry, (said, carry[0].mean(), found.progress, found.step_size)

        start = jnp.zeros(256), optimiser.init(jnp.zeros(256))
        return jax.lax.scan(reading, start, jax.random.split(key, steps // READING))[1]

    keys = jax.random.split(jax.random.key(1), seeds)
    found = jax.jit(jax.vmap(jax.vmap(train, (None, 0)), (0, None)))(jnp.asarray(BETA2), keys)
    answers, place, progress, step_size = (np.asarray(part) for part in found)
    return Runs(answers, place[..., -1], progress, step_size)


def main() -> None:
    parser = argparse.ArgumentParser(description="False and missed alarms of the monitor.")
    parser.add_argument("--data", default="digits,mnist1d")
    parser.add_argument("--batch_sizes", default="1,4,16")
    parser.add_argument("--learning_rates", default="1e-3,3e-3,1e-2")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--level", type=float, default=0.5)
    parser.add_argument("--save", default="", help="an .npz file for the readings")
    arguments = parser.parse_args()
    sizes = [int(one) for one in arguments.batch_sizes.split(",")]
    rates = [float(one) for one in arguments.learning_rates.split(",")]
    common = {"seeds": arguments.seeds, "steps": arguments.steps, "level": arguments.level}
    names = [one for one in arguments.data.split(",") if one]
    saved: dict[str, np.ndarray] = {}
    bad: list[np.ndarray] = []
    alarms: list[np.ndarray] = []
    told: list[np.ndarray] = []
    print(f"{'':24} share of runs with an alarm (share of bad runs) at β2 =")
    print(f"{'':24} " + " ".join(f"{beta2:>12g}" for beta2 in BETA2))
    for name, size, rate in itertools.product(names, sizes, rates):
        runs = networks(name, size, rate, **common)
        best = np.exp(np.log(runs.loss).mean(axis=1)).min()
        is_bad = ~(runs.loss <= BAD * best)
        _row(f"{name} B={size} lr={rate:g}", runs, is_bad)
        bad.append(is_bad)
        alarms.append((runs.answers == 0).any(axis=-1))
        told.append(runs.answers)
        saved |= {f"{name}/{size}/{rate}/{key}": value for key, value in runs._asdict().items()}
        if arguments.save:
            np.savez(arguments.save, allow_pickle=False, **saved)
    if bad:
        _summary("networks", np.stack(bad), np.stack(alarms), np.stack(told))
    bad, alarms, told = [], [], []
    for beta1, a in itertools.product((0.0, 0.9), (1.0, 1 / 361)):
        runs = frozen(beta1, a, **common)
        is_bad = runs.loss > 0
        _row(f"frozen β1={beta1} a={a:.3g}", runs, is_bad)
        bad.append(is_bad)
        alarms.append((runs.answers == 0).any(axis=-1))
        told.append(runs.answers)
    _summary("counterexample", np.stack(bad), np.stack(alarms), np.stack(told))


def _row(name: str, runs: Runs, bad: np.ndarray) -> None:
    alarm = (runs.answers == 0).any(axis=-1).mean(axis=1)
    cells = (f"{a:6.2f} ({b:4.2f})" for a, b in zip(alarm, bad.mean(axis=1), strict=True))
    print(f"{name:24} " + " ".join(f"{cell:>12}" for cell in cells), flush=True)


def _summary(name: str, bad: np.ndarray, alarms: np.ndarray, told: np.ndarray) -> None:
    """Prints error rates over (setting, β2, seed)."""
    good = np.isin(BETA2, GOOD)[None, :, None] & ~bad
    shares = np.bincount(told.ravel(), minlength=3) / told.size
    print(
        f"{name}: false alarms {alarms[good].mean():.3f} of {good.sum()} good runs from β2 = 0.99; "
        f"{alarms[~bad].mean():.3f} of all {(~bad).sum()} good runs; "
        f"found {alarms[bad].mean():.3f} of {bad.sum()} bad runs; readings: "
        + ", ".join(f"{word} {share:.2f}" for word, share in zip(ANSWERS, shares, strict=True)),
        flush=True,
    )


if __name__ == "__main__":
    main()
