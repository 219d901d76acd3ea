"""Networks as pure functions of their parameters."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adam_transition.networks import data, models


def _some(name, **shape):
    rng = np.random.default_rng(0)
    if name == "tokens":
        tokens = rng.integers(0, 11, (4, 9)).astype(np.int32)
        return data.DataSet("tokens", tokens[:, :-1], tokens[:, 1:], 11)
    size = shape.get("size", (8, 8, 1))
    return data.DataSet(name, rng.random((4, *size)).astype(np.float32), np.zeros(4, np.int32), 10)


def _drawn(init, key):
    """Initial parameters; a program that runs once is not worth LLVM's last optimisations."""
    return jax.jit(init, compiler_options={"xla_backend_optimization_level": 1})(key)


def _size(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize(
    ("name", "samples", "count"),
    [
        ("mlp", _some("image"), 64 * 16 + 16 + 16 * 10 + 10),
        ("convnet", _some("image"), 9 * 8 + 8 + 9 * 8 * 16 + 16 + 16 * 10 + 10),
        ("convnet", _some("signal", size=(40, 1)), 3 * 8 + 8 + 3 * 8 * 16 + 16 + 16 * 10 + 10),
        # the number that He et al.'s network has on CIFAR-10
        ("resnet18", _some("image", size=(32, 32, 3)), 11_173_962),
    ],
)
def test_shapes_and_numbers_of_parameters(name, samples, count):
    model = models.build(name, samples)
    params = jax.eval_shape(model.init, jax.random.key(0))
    assert _size(params) == count
    logits = jax.eval_shape(model.apply, params, jnp.asarray(samples.inputs))
    assert logits.shape == (4, 10)


@pytest.mark.parametrize("name", ["mlp", "convnet", "resnet18", "decoder"])
def test_many_networks_in_one_program_are_the_single_ones(name):
    samples = _some("tokens" if name == "decoder" else "image")
    model = models.build(name, samples, width=4)
    inputs = jnp.asarray(samples.inputs)
    keys = jax.random.split(jax.random.key(1), 3)
    params = _drawn(jax.vmap(model.init), keys)
    together = jax.jit(jax.vmap(model.apply, in_axes=(0, None)))(params, inputs)

    @partial(jax.grad, has_aux=True)
    def alone(params):
        logits = model.apply(params, inputs)
        return (logits**2).sum(), logits

    for i, one in enumerate(together):
        gradient, logits = jax.jit(alone)(jax.tree.map(lambda leaf, i=i: leaf[i], params))
        np.testing.assert_allclose(logits, one, rtol=1e-4, atol=1e-5)
    assert np.abs(np.diff(together, axis=0)).max() > 1e-3
    reached = [bool((leaf != 0).any()) for leaf in jax.tree.leaves(gradient)]
    # the attention does not depend on the bias of its keys
    assert sum(reached) >= len(reached) - (2 if name == "decoder" else 0)


def test_the_decoder_does_not_look_ahead():
    samples = _some("tokens")
    model = models.build("decoder", samples, width=8)
    params, tokens = _drawn(model.init, jax.random.key(0)), jnp.asarray(samples.inputs)
    changed = tokens.at[:, 5].set((tokens[:, 5] + 1) % 11)
    logits = jax.jit(model.apply)
    before, after = logits(params, tokens), logits(params, changed)
    np.testing.assert_array_equal(before[:, :5], after[:, :5])
    assert (before[:, 5:] != after[:, 5:]).any(axis=-1).all()


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("places", [(9, 8), (11,)])
def test_convolution_by_taps_is_a_convolution(stride, padding, places):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, *places, 3))
    kernel = rng.standard_normal((3,) * len(places) + (3, 5))
    strides = (stride,) * len(places)
    layout = ("NHWC", "HWIO", "NHWC") if len(places) == 2 else ("NHC", "HIO", "NHC")
    with jax.enable_x64(True):
        found = models.convolution_by_taps(jnp.asarray(x), jnp.asarray(kernel), strides, padding)
        wanted = jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=layout)
        np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "samples", "width", "match"),
    [
        ("vit", _some("image"), None, "model=vit: allowed are mlp, convnet, resnet18, decoder"),
        ("decoder", _some("image"), None, "for data=image allowed are mlp, convnet, resnet18"),
        ("mlp", _some("tokens"), None, "for data=tokens allowed are decoder"),
        ("resnet18", _some("signal", size=(40, 1)), None, "allowed are mlp, convnet$"),
        ("mlp", _some("image"), 0, "width=0"),
        ("decoder", _some("tokens"), 6, "width=6"),
    ],
)
def test_networks_that_do_not_fit(name, samples, width, match):
    with pytest.raises(ValueError, match=match):
        models.build(name, samples, width=width)
