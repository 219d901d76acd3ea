"""The plane of a user's network: optax alone, the built-in study, resuming, flax's modules."""

import dataclasses
import itertools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adam_transition import sampling
from adam_transition.networks import data, models, objectives, plane, training, workloads
from adam_transition.networks.training import Grid, Recipe
from adam_transition.simulate import Method
from adam_transition.sweeps.store import StoreError

X = jax.random.normal(jax.random.key(3), (64, 8))
Y = (X[:, 0] > 0).astype(jnp.int32) + (X[:, 1] > 0)


def init(key):
    one, two = jax.random.split(key)
    return {"in": jax.random.normal(one, (8, 6)) / 3, "out": jax.random.normal(two, (6, 3)) / 2}


def loss(params, batch):
    x, y = batch
    logits = jnp.tanh(x @ params["in"]) @ params["out"]
    value = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
    return value, {"norm": jnp.abs(params["out"]).sum(), "ignored": logits}


ARGUMENTS = {
    "beta1": (0.0, 0.9), "beta2": (0.5, 0.9, 0.99), "learning_rate": (0.003, 0.03),
    "batch_size": (4, 16), "epochs": 4, "key": jax.random.key(0), "seeds": 2, "records": 4,
}  # fmt: skip


@pytest.fixture(scope="module")
def found():
    return plane.train_plane(loss, init, (X, Y), **ARGUMENTS)


def test_every_network_is_that_of_optax(found):
    assert found["running_loss"].dims == (
        "batch_size", "learning_rate", "seed", "beta1", "beta2", "record",
    )  # fmt: skip
    keys = workloads.keys_of_seeds(ARGUMENTS["key"], 2)

    def descend(size, rate, beta1, beta2, key):
        optimiser = optax.adam(rate, beta1, beta2, eps=1e-8)
        params = jax.jit(init)(jax.random.fold_in(key, 0))
        order = sampling.indices(
            "random_shuffling", jax.random.fold_in(key, 1), 0, 256, 64, max_components=64
        ).reshape(-1, size)

        def step(carry, rows):
            params, state = carry
            (value, aux), gradient = jax.value_and_grad(loss, has_aux=True)(
                params, (X[rows], Y[rows])
            )
            updates, state = optimiser.update(gradient, state)
            return (optax.apply_updates(params, updates), state), (value, aux["norm"])

        return jax.lax.scan(step, (params, optimiser.init(params)), order)[1]

    for size, rate, beta1, beta2, seed in itertools.product(
        (4, 16), (0.003, 0.03), (0.0, 0.9), (0.5, 0.99), (0, 1)
    ):
        one = found.sel(batch_size=size, learning_rate=rate, beta1=beta1, beta2=beta2, seed=seed)
        values, norms = jax.jit(descend, static_argnums=0)(size, rate, beta1, beta2, keys[seed])
        np.testing.assert_allclose(one["running_loss"], values.reshape(4, -1).mean(1), rtol=2e-3)
        np.testing.assert_allclose(one["norm"], norms.reshape(4, -1).mean(1), rtol=2e-3)
        assert float(one["late_loss"]) == pytest.approx(float(one["running_loss"][-1]), rel=1e-6)


def test_our_own_networks_are_users_of_the_same_program():
    """The bits of `experiments.networks` for one of its models."""
    samples = data.load("digits", num_samples=64)
    model = models.build("mlp", samples)
    objective = objectives.of_model(model)
    made = plane.training_plane(
        lambda params, batch: objectives.cross_entropy(model, params, batch),
        model.init, samples.arrays, **{**ARGUMENTS, "batch_size": (4,)},
    )  # fmt: skip
    grid = Grid((0.003, 0.03), (0, 1), (0.0, 0.9), (0.5, 0.9, 0.99))
    recipe = Recipe(4, 64, 4, 1, Method("random_shuffling", "constant", "bias_correction"))
    curves = np.full((*grid.shape, 4), np.nan, np.float32)

    def write(region, values):
        index = tuple(region.get(dim, slice(None)) for dim in training.GRID_DIMS)
        curves[index] = values[training.RUNNING]

    training.train_grid(
        objective, samples.arrays, grid, recipe, names=[training.RUNNING], write=write,
        keys=made.keys,
    )  # fmt: skip
    users = plane.study.compute(made)["running_loss"].isel(batch_size=0)
    np.testing.assert_array_equal(users, curves)


def test_it_resumes_and_refuses_another_network(found, tmp_path, monkeypatch):
    path = tmp_path / "plane.zarr"

    class Stop(BaseException):
        pass

    written = []
    real = plane.store.Store.write

    def stop(self, region, values):
        if len(written) == 3:
            raise Stop
        written.append(region)
        real(self, region, values)

    with monkeypatch.context() as patch:
        patch.setattr(training, "_CPU_CELLS", 3)
        patch.setattr(plane.store.Store, "write", stop)
        with pytest.raises(Stop):
            plane.train_plane(loss, init, (X, Y), **ARGUMENTS, path=path)
    monkeypatch.setattr(training, "_CPU_CELLS", 3)
    again = plane.train_plane(loss, init, (X, Y), **ARGUMENTS, path=path)
    assert len(written) == 3
    np.testing.assert_allclose(again["running_loss"], found["running_loss"], rtol=1e-4)

    def other(params, batch):
        value, aux = loss(params, batch)
        return value + 1e-3 * (params["in"] ** 2).sum(), aux

    with pytest.raises(StoreError, match="made with"):
        plane.train_plane(other, init, (X, Y), **ARGUMENTS, path=path)
    with pytest.raises(StoreError, match="made with data="):
        plane.train_plane(loss, init, (X + 1e-6, Y), **ARGUMENTS, path=path)


def test_a_chain_that_acts_later_is_another_network(tmp_path):
    """Clipping that the first step does not meet, and a metric more."""
    some = {**ARGUMENTS, "beta1": (0.9,), "batch_size": 4, "learning_rate": 0.03}
    late = jnp.where(jnp.arange(64)[:, None] == 40, 50.0, X)
    path = tmp_path / "plane.zarr"
    clip = lambda size: lambda adam: optax.chain(optax.clip(size), adam)  # noqa: E731
    plane.train_plane(loss, init, (late, Y), **some, path=path, wrap=clip(0.5))
    with pytest.raises(StoreError, match="choose another path, or pass resume=False"):
        plane.train_plane(loss, init, (late, Y), **some, path=path, wrap=clip(0.6))
    with pytest.raises(StoreError, match="made with curves="):
        plane.train_plane(
            loss, init, (late, Y), **some, path=path, wrap=clip(0.5),
            measure=lambda params, batch: {"more": batch[0].mean()},
        )  # fmt: skip


def test_any_optax_schedule_can_be_resumed(tmp_path):
    some = {**ARGUMENTS, "beta1": (0.9,), "batch_size": 16, "learning_rate": 0.03}
    schedule = optax.cosine_onecycle_schedule(4, 1.0)
    one = plane.train_plane(
        loss, init, (X, Y), **some, path=tmp_path / "plane.zarr", schedule=schedule
    )
    two = plane.train_plane(
        loss, init, (X, Y), **some, path=tmp_path / "plane.zarr", schedule=schedule
    )
    np.testing.assert_array_equal(one["running_loss"], two["running_loss"])


def test_outcomes_are_those_of_the_mean_over_seeds(found):
    late = found["running_loss"].values[..., -1].astype(float)
    np.testing.assert_allclose(found["late_loss"], late, rtol=1e-6)
    guess = float(found["guess"])
    height = np.minimum(np.log(late).mean(axis=2), math.log(guess))
    for place in np.ndindex(2, 2):
        best = np.quantile(height[place], 0.1)
        good = height[place] <= best + 0.15 * (math.log(guess) - best)
        np.testing.assert_array_equal(found["good"].values[place], good)


def test_schedules_count_epochs():
    """A schedule that stops after one epoch, at two batch sizes, one of which does not divide N."""
    stops = lambda epoch: jnp.where(epoch < 1, 1.0, 0.0)  # noqa: E731
    made = plane.train_plane(
        loss, init, (X, Y), **{**ARGUMENTS, "batch_size": (4, 16)}, schedule=stops
    )
    norm = made["norm"].transpose("record", ...)
    np.testing.assert_allclose(norm[2], norm[3], rtol=1e-5)
    assert (np.abs(norm[0] - norm[2]) > 1e-6).any()


def test_measures_are_means_over_the_first_samples():
    def measure(params, batch):
        return {"absolute": jnp.abs(batch[0]).mean()}

    some = {**ARGUMENTS, "beta1": (0.9,), "batch_size": (4,), "learning_rate": (0.01,)}
    made = plane.train_plane(loss, init, (X, Y), **some, measure=measure, evaluated=32)
    np.testing.assert_allclose(made["absolute"], float(jnp.abs(X[:32]).mean()), rtol=1e-5)


def test_the_cost_is_told_before():
    made = plane.training_plane(loss, init, (X, Y), **ARGUMENTS)
    cost = plane.plane_cost(made)
    assert cost.networks == 2 * 2 * 2 * 2 * 3
    assert cost.network_steps == 24 * (64 + 16)
    assert cost.bytes == 4 * 48 * 4 * 2
    assert 0 <= cost.seconds < 60


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta1": (1.0,)}, "beta1=(1.0,): needs one or more different numbers in [0, 1)"),
        ({"beta2": ()}, "beta2=(): needs one or more"),
        ({"beta2": (0.9, 0.9)}, "beta2=(0.9, 0.9): needs one or more different"),
        ({"learning_rate": (0.0,)}, "learning_rate=(0.0,): needs one or more"),
        ({"batch_size": (4, 65)}, "batch_size=65: must be an integer from 1 to the 64 samples"),
        ({"batch_size": ()}, "batch_size: needs one or more values"),
        ({"epochs": 0}, "epochs=[0]: needs one or more"),
        ({"seeds": 0}, "seeds=0: must be an integer"),
        ({"records": 0}, "records=0: must be an integer"),
        ({"guess": -1.0}, "guess=-1: must be positive"),
        ({"records": 1000}, "records=1000: more than the 16 steps of a run at batch size 16"),
        ({"measure": lambda p, b: {"x": 1.0}, "evaluated": 0}, "evaluated=0: must be an integer"),
        (
            {"measure": lambda p, b: 1.0},
            "measure: fails when it is traced: ValueError: returns float",
        ),
        ({"measure": lambda p, b: {"x": b[1] * 1.0}}, "measure: x has shape (1,)"),
        ({"measure": lambda p, b: {"seed": 1.0}}, "metric 'seed': choose another name"),
        ({"measure": lambda p, b: {"late_loss": 1.0}}, "metric 'late_loss': choose another name"),
        ({"measure": lambda p, b: {"train/acc": 1.0}}, "metric 'train/acc': choose another name"),
        ({"measure": lambda p, b: {"norm": 1.0}}, "norm is a metric of the loss as well"),
        ({"schedule": 0.5}, "schedule=0.5: must be a function"),
    ],
)
def test_bad_input_is_one_line(change, message, tmp_path):
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        plane.train_plane(loss, init, (X, Y), **{**ARGUMENTS, **change}, path=tmp_path / "p.zarr")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_a_grid_may_have_one_network_at_a_time(monkeypatch, found):
    """As for models that do not fit many times."""
    monkeypatch.setattr(training, "_CPU_CELLS", 1)
    alone = plane.train_plane(loss, init, (X, Y), **ARGUMENTS)
    np.testing.assert_allclose(alone["running_loss"], found["running_loss"], rtol=1e-3)
    assert dataclasses.is_dataclass(plane.TrainingPlane)
