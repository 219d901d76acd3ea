"""Training: equal to optax on each network alone, to the bit independent of the company."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from adam_transition import adam, sampling
from adam_transition.networks import data, models, objectives, training
from adam_transition.networks.training import GRID_DIMS, Grid, Recipe
from adam_transition.simulate import Method

SAMPLES = data.load("digits", num_samples=64)
GRID = Grid((1e-3, 1e-2), (0, 3), (0.0, 0.9), (0.5, 0.99, 0.999999))
RECIPE = Recipe(batch_size=4, num_steps=32, num_records=4, decays=2)


def _curves(grid, recipe, *, dtype="float32", samples=SAMPLES, name="mlp", **kwargs):
    model = models.build(name, samples, dtype=dtype)
    shape = (*grid.shape, recipe.num_records)
    found = {key: np.full(shape, np.nan) for key in ("loss", "accuracy")}

    def write(region, values):
        for key, value in values.items():
            where = tuple(region.get(dim, slice(None)) for dim in GRID_DIMS)
            assert np.isnan(found[key][where]).all()
            found[key][where] = value

    training.train_grid(
        objectives.of_model(model), samples.arrays, grid, recipe, names=tuple(found), write=write,
        dtype=dtype, **kwargs,
    )  # fmt: skip
    return found


@pytest.mark.parametrize("scheme", ["random_shuffling", "with_replacement"])
def test_vmapped_training_is_training_each_network_alone_with_optax(scheme):
    """float64, 1e-8: a Python loop with optax.adam over batches drawn by the stream."""
    method = Method(scheme, "inverse_sqrt_epoch", "bias_correction")
    recipe = dataclasses.replace(RECIPE, method=method)
    found = _curves(GRID, recipe, dtype="float64")
    with jax.enable_x64(True):
        model = models.build("mlp", SAMPLES, dtype="float64")
        x, y = jnp.asarray(SAMPLES.inputs, jnp.float64), jnp.asarray(SAMPLES.targets)

        @jax.jit
        def loss(params, inputs, targets):
            logits = model.apply(params, inputs)
            return -jax.nn.log_softmax(logits)[jnp.arange(len(targets)), targets].mean()

        def adam_of(rate, beta1, beta2):
            def schedule(count):  # jnp.sqrt of an int32 would be a float32
                return rate / jnp.sqrt(1 + (count // 16).astype(jnp.float64))

            return optax.adam(schedule, beta1, beta2, eps=1e-8)

        @jax.jit
        def descend(params, state, rows, *hyper):
            gradient = jax.grad(loss)(params, x[rows], y[rows])
            updates, state = adam_of(*hyper).update(gradient, state)
            return optax.apply_updates(params, updates), state

        draw = jax.jit(model.init)
        for (i, rate), (j, seed), (k, beta1), (m, beta2) in itertools.product(
            *map(enumerate, (GRID.learning_rate, GRID.seeds, GRID.beta1, GRID.beta2))
        ):
            key = sampling.stream_key(seed)
            params = draw(jax.random.fold_in(key, 0))
            order = sampling.indices(
                scheme, jax.random.fold_in(key, 1), 0, 128, 64, max_components=64
            ).reshape(32, 4)

            state = adam_of(rate, beta1, beta2).init(params)
            for step in range(32):
                params, state = descend(params, state, order[step], rate, beta1, beta2)
                if step % 8 == 7:
                    alone = float(loss(params, x, y))
                    assert found["loss"][i, j, k, m, step // 8] == pytest.approx(alone, rel=1e-8)
            share = float((model.apply(params, x).argmax(-1) == y).mean())
            assert found["accuracy"][i, j, k, m, -1] == pytest.approx(share)


@pytest.mark.parametrize("batch", [1, 4, 16, 64])
def test_an_epoch_sees_each_sample_once_whatever_the_batch_size(batch):
    """With β1 → 1 and steps too small to move, m is the mean gradient of the epoch: the whole's."""
    model = models.Model(
        init=lambda key: jnp.zeros(64),
        apply=lambda params, x: jnp.stack([x @ params, 0 * x[:, 0]], -1),
    )
    samples = (jnp.eye(64), jnp.zeros(64, jnp.int32))
    recipe = Recipe(batch, 64 // batch, 1, 1, Method("random_shuffling", "constant", "zero"))
    hyper = adam.Hyperparameters(1e-3, 0.9999, 1e9)  # ε so large that steps are those of m
    objective = objectives.of_model(model)
    network, _ = training.train(objective, samples, hyper, 1e3, sampling.stream_key(0), recipe)
    moved = network.params
    # the gradient of a sample is −1/2 in its own coordinate: all coordinates have moved, alike
    assert (moved > 0).all()
    assert float(moved.max() / moved.min()) < 64 if batch == 1 else 1.1 * 64 / batch


def test_no_network_can_reach_another():
    """A run that overflows stays a labelled result; its neighbours keep every bit."""
    calm = _curves(GRID, RECIPE)
    wild = _curves(dataclasses.replace(GRID, learning_rate=(1e-3, 1e30)), RECIPE)
    assert not np.isfinite(wild["loss"][1]).any()
    np.testing.assert_array_equal(wild["loss"][0], calm["loss"][0])
    np.testing.assert_array_equal(wild["accuracy"][0], calm["accuracy"][0])


def test_networks_of_one_seed_share_start_and_samples():
    twice = Grid((1e-3, 1.0000001e-3), (5,), (0.9,), (0.99, 0.99))
    found = _curves(twice, RECIPE)["loss"]
    np.testing.assert_array_equal(found[:, :, :, 0], found[:, :, :, 1])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)


@pytest.mark.parametrize("at_once", [1, 3, 32])
def test_regions_cover_the_grid_once(at_once, monkeypatch):
    monkeypatch.setattr(training, "_CPU_CELLS", at_once)
    found = _curves(GRID, RECIPE)
    assert np.isfinite(found["loss"]).all()


def test_done_regions_are_not_trained_again(monkeypatch):
    monkeypatch.setattr(training, "_CPU_CELLS", 3)
    whole = _curves(GRID, RECIPE)["loss"]
    done = lambda region: region["seed"].start == 0  # noqa: E731
    rest = _curves(GRID, RECIPE, is_done=done)["loss"]
    assert np.isnan(rest[:, 0]).all()
    np.testing.assert_array_equal(rest[:, 1], whole[:, 1])


def test_evaluation_in_pieces_is_the_evaluation():
    samples = data.load("digits", num_samples=768)
    model = models.build("mlp", samples)
    params = model.init(jax.random.key(0))
    batch = (jnp.asarray(samples.inputs), jnp.asarray(samples.targets))
    found = training.evaluate(objectives.of_model(model), params, (), batch)
    whole = float(objectives.cross_entropy(model, params, batch))
    assert float(found["loss"]) == pytest.approx(whole, rel=1e-5)
    share = (model.apply(params, batch[0]).argmax(-1) == batch[1]).mean()
    assert float(found["accuracy"]) == pytest.approx(float(share), abs=1e-6)


def test_memory_bounds_how_many_train_at_once():
    samples = data.DataSet("big", np.zeros((4, 32, 32, 3), np.float32), np.zeros(4, np.int32), 10)
    small, large = (
        objectives.of_model(models.build(name, samples)) for name in ("mlp", "resnet18")
    )
    assert training.cells_at_once(small, samples.arrays, 16) == 32
    assert training.cells_at_once(large, samples.arrays, 16) == 1
    few, many = (training.bytes_per_network(small, samples.arrays, size) for size in (256, 1024))
    assert 2 * few < many < 5 * few


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((4, 30, 4, 2), "steps=30: not a multiple of 4 records and 2 decays"),
        ((2**20, 2**12, 4, 4), "more than 2\\^31 samples"),
    ],
)
def test_recipes_that_cannot_be(arguments, match):
    with pytest.raises(ValueError, match=match):
        Recipe(*arguments)
