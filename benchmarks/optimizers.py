"""Every named update rule in blocks, beside Adam's and beside `vmap` and `scan` over optax.

  blocks   the kernel of this machine's CPU or GPU
  optax    the usual idiom: `jax.vmap` over cells of a `jax.lax.scan` over steps of optax's update

Rates are updates per second on the counterexample (n = 20, cyclic, η_k = 0.1/√k, no bias
correction), the best of the repetitions, without compilation. Writes optimizers.json to `--out`.

    python -m benchmarks.optimizers
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from adam_transition import kernels, problems, simulate
from adam_transition.optimizers import OPTIMIZERS
from benchmarks import kernel

_OPTAX: dict[str, Callable[[Any, Any], Any]] = {
    "adam": optax.scale_by_adam,
    "amsgrad": optax.scale_by_amsgrad,
    "adopt": optax.contrib.scale_by_adopt,
    "adopt_unclipped": partial(optax.contrib.scale_by_adopt, use_clipping=False),
    "adabelief": optax.scale_by_belief,
    "nadam": partial(optax.scale_by_adam, nesterov=True),
    "radam": optax.scale_by_radam,
    "adamax": optax.scale_by_adamax,
    "yogi": optax.scale_by_yogi,
    "rmsprop": lambda momentum, decay: optax.chain(
        optax.scale_by_rms(decay, eps_in_sqrt=False), optax.trace(momentum)
    ),
    "ademamix": optax.contrib.scale_by_ademamix,
    "adan": lambda beta1, beta3: optax.scale_by_adan(beta1, 0.92, beta3),
    "lion": optax.scale_by_lion,
    "signum": lambda beta, _: optax.chain(optax.ema(beta, debias=False), optax.scale_by_sign()),
    "sgd": lambda beta, _: optax.ema(beta, debias=False),
}


def run_blocks(name: str, num_cells: int, num_steps: int) -> Callable[[], Any]:
    """Runs a rule's cells in the kernel."""
    static = kernel.static("cyclic", num_steps)
    static["method"] = simulate.Method("cyclic", rule=OPTIMIZERS[name].rule)
    arguments = jax.device_put(kernel.setting(num_cells))
    function = partial(kernels.simulate_table, kernel=kernel.kernel_here(), **static)
    return partial(kernel.compiled(function, arguments), *arguments)


def run_optax(name: str, num_cells: int, num_steps: int) -> Callable[[], Any]:
    """Runs a rule's cells as one writes it with optax."""
    _, hyper, *_ = kernel.setting(num_cells)
    table = jnp.asarray(problems.counterexample_table(kernel.N)[:, 0], jnp.float32)

    def one(p: Any, q: Any) -> Any:
        transformation = _OPTAX[name](1 - p, 1 - q)

        def step(carry: Any, k: Any) -> tuple[Any, None]:
            x, state = carry
            gradient = table[k % kernel.N] * jnp.where(x > -1, 1, x + 2)
            update, state = transformation.update(gradient, state)
            return (x - kernel.STEP_SIZE * jax.lax.rsqrt(k + 1.0) * update, state), None

        start = jnp.float32(kernel.X0)
        (x, _), _ = jax.lax.scan(step, (start, transformation.init(start)), jnp.arange(num_steps))
        return x

    arguments = tuple(jnp.asarray(value[0]) for value in hyper[:2])
    return partial(kernel.compiled(jax.vmap(one), arguments), *arguments)


def main() -> None:
    parser = argparse.ArgumentParser(description="Update rules beside Adam and beside optax.")
    parser.add_argument("--cells", type=int, default=100_000)
    parser.add_argument("--steps", type=int, default=8192)
    parser.add_argument("--optax_steps", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("out/bench"))
    arguments = parser.parse_args()
    cells, repeats = arguments.cells, arguments.repeats
    device = jax.devices()[0].device_kind
    print(f"JAX {jax.__version__} on {device}; updates per second, {cells} cells")
    print("                   blocks  of Adam's     optax  blocks/optax  numbers of state")
    found: dict[str, dict[str, float]] = {}
    for name, optimizer in OPTIMIZERS.items():
        blocks = cells * arguments.steps
        blocks /= kernel.best(run_blocks(name, cells, arguments.steps), repeats)
        rate: dict[str, float] = {"blocks": blocks}
        if name in _OPTAX:
            steps = arguments.optax_steps
            rate["optax"] = cells * steps / kernel.best(run_optax(name, cells, steps), repeats)
        state: Any = optimizer.rule.init(np.float32(0))
        rate["numbers"] = len(jax.tree.leaves(state)) - 1
        found[name] = rate
        share = blocks / found["adam"]["blocks"]
        optax_rate = rate.get("optax", float("nan"))
        print(
            f"{name:16} {blocks:.2e}  {share:9.2f}  {optax_rate:.2e}  {blocks / optax_rate:12.1f}"
            f"  {rate['numbers']:16.0f}",
            flush=True,
        )
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / "optimizers.json"
    path.write_text(json.dumps({"device": device, "updates_per_s": found}, indent=2) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
