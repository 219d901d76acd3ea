"""Networks as pure functions: init(key) → parameters, apply(parameters, inputs) → logits.

Models are written with flax's NNX and split at once into a static graph and a pytree of parameters,
so that thousands of networks train under one `vmap`. They have no state besides their parameters:
ResNet-18 uses GroupNorm instead of the original's BatchNorm, which is meaningless at batch size 1.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, DTypeLike, Float, Key, PyTree

from adam_transition.networks.data import DataSet
from adam_transition.networks.objectives import Model


class MLP(nnx.Module):
    """One hidden layer, as in the paper's MNIST experiment."""

    def __init__(self, data: DataSet, width: int, rngs: nnx.Rngs):
        self.hidden = nnx.Linear(math.prod(data.inputs.shape[1:]), width, rngs=rngs)
        self.head = nnx.Linear(width, data.num_classes, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return self.head(nnx.relu(self.hidden(x.reshape(len(x), -1))))


class ConvNet(nnx.Module):
    """Two convolutions of stride 2 and a mean over positions; for images and signals."""

    def __init__(self, data: DataSet, width: int, rngs: nnx.Rngs):
        self.first = _conv(data, data.inputs.shape[-1], width, rngs, stride=2, use_bias=True)
        self.second = _conv(data, width, 2 * width, rngs, stride=2, use_bias=True)
        self.head = nnx.Linear(2 * width, data.num_classes, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = nnx.relu(self.second(nnx.relu(self.first(x))))
        return self.head(x.mean(axis=tuple(range(1, x.ndim - 1))))


class ResNet18(nnx.Module):
    """He et al. (2016) for 32 × 32 images: a 3 × 3 stem, 4 stages of 2 blocks, with GroupNorm."""

    def __init__(self, data: DataSet, width: int, rngs: nnx.Rngs):
        self.stem = _conv(data, data.inputs.shape[-1], width, rngs)
        self.norm = _norm(width, rngs)
        blocks, channels = [], width
        for stage, block in itertools.product(range(4), range(2)):
            stride = 2 if stage > 0 and block == 0 else 1
            blocks.append(_Block(data, channels, width * 2**stage, stride, rngs))
            channels = width * 2**stage
        self.blocks = nnx.Sequential(*blocks)
        self.head = nnx.Linear(channels, data.num_classes, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = self.blocks(nnx.relu(self.norm(self.stem(x))))
        return self.head(x.mean(axis=tuple(range(1, x.ndim - 1))))


class _Block(nnx.Module):
    def __init__(self, data: DataSet, before: int, after: int, stride: int, rngs: nnx.Rngs):
        self.first = _conv(data, before, after, rngs, stride=stride)
        self.first_norm = _norm(after, rngs)
        self.second = _conv(data, after, after, rngs)
        self.second_norm = _norm(after, rngs)
        if before == after and stride == 1:
            self.shortcut = nnx.Sequential()
        else:
            projection = _conv(data, before, after, rngs, stride=stride, size=1)
            self.shortcut = nnx.Sequential(projection, _norm(after, rngs))

    def __call__(self, x: Array) -> Array:
        y = nnx.relu(self.first_norm(self.first(x)))
        return nnx.relu(self.second_norm(self.second(y)) + self.shortcut(x))


class Decoder(nnx.Module):
    """A decoder-only transformer with pre-normalisation: two layers, four heads."""

    def __init__(self, data: DataSet, width: int, rngs: nnx.Rngs, *, layers: int = 2):
        length = data.inputs.shape[1]
        self.tokens = nnx.Embed(data.num_classes, width, rngs=rngs)
        self.places = nnx.Embed(length, width, rngs=rngs)
        self.layers = nnx.Sequential(*(_DecoderLayer(width, rngs) for _ in range(layers)))
        self.norm = nnx.LayerNorm(width, rngs=rngs)
        self.head = nnx.Linear(width, data.num_classes, rngs=rngs)

    def __call__(self, tokens: Array) -> Array:
        x = self.tokens(tokens) + self.places(jnp.arange(tokens.shape[1]))[None]
        return self.head(self.norm(self.layers(x)))


class _DecoderLayer(nnx.Module):
    def __init__(self, width: int, rngs: nnx.Rngs):
        self.attention_norm = nnx.LayerNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(4, width, decode=False, rngs=rngs)
        self.mlp_norm = nnx.LayerNorm(width, rngs=rngs)
        self.up = nnx.Linear(width, 4 * width, rngs=rngs)
        self.down = nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        mask = nnx.make_causal_mask(x[..., 0])
        x = x + self.attention(self.attention_norm(x), mask=mask)
        return x + self.down(nnx.gelu(self.up(self.mlp_norm(x))))


_MODELS: dict[str, tuple[Callable[..., nnx.Module], int]] = {
    "mlp": (MLP, 16),
    "convnet": (ConvNet, 8),
    "resnet18": (ResNet18, 64),
    "decoder": (Decoder, 32),
}

MODELS: tuple[str, ...] = tuple(_MODELS)


def build(
    name: str, data: DataSet, *, width: int | None = None, dtype: DTypeLike = "float32"
) -> Model:
    """Builds a network by name for a data set.

    Args:
      name: one of `MODELS`.
      data: sets the shapes of inputs and logits.
      width: hidden units, or channels of the first layer; by default 16 (mlp), 8 (convnet), 64
        (resnet18), 32 (decoder).
      dtype: of the parameters.

    Raises:
      ValueError: an unknown name, an invalid width, or a network for other kinds of samples.
    """
    if name not in _MODELS:
        raise ValueError(f"model={name}: allowed are {', '.join(MODELS)}")
    fits = [one for one in MODELS if (one == "decoder") == data.has_tokens]
    if data.inputs.ndim != 4 and "resnet18" in fits:
        fits.remove("resnet18")
    if name not in fits:
        raise ValueError(f"model={name}: for data={data.name} allowed are {', '.join(fits)}")
    make, default = _MODELS[name]
    width = default if width is None else width
    if width < 1 or (name == "decoder" and width % 4):
        raise ValueError(f"width={width}: must be positive, and a multiple of 4 for the decoder")

    def model(key: Key[Array, ""]) -> nnx.Module:
        return make(data, width, nnx.Rngs(key))

    graph, _ = nnx.split(nnx.eval_shape(lambda: model(jax.random.key(0))))

    def init(key: Key[Array, ""]) -> PyTree:
        return jax.tree.map(lambda leaf: leaf.astype(dtype), nnx.state(model(key), nnx.Param))

    def apply(params: PyTree, inputs: Array) -> Array:
        return nnx.merge(graph, params)(inputs)

    return Model(init, apply)


def _conv(
    data: DataSet,
    before: int,
    after: int,
    rngs: nnx.Rngs,
    *,
    stride: int = 1,
    size: int = 3,
    use_bias: bool = False,
) -> nnx.Conv:
    """A convolution over the positions of the data's samples."""
    return nnx.Conv(
        before, after, (size,) * (data.inputs.ndim - 2), strides=stride, use_bias=use_bias,
        rngs=rngs, conv_general_dilated=convolution_by_taps,
    )  # fmt: skip


def _norm(channels: int, rngs: nnx.Rngs) -> nnx.GroupNorm:
    """Groups of four channels or more: one channel at one position would be normalised to zero."""
    groups = max(1, math.gcd(32, channels // 4))
    return nnx.GroupNorm(channels, num_groups=groups, rngs=rngs)


def convolution_by_taps(
    x: Float[Array, "B ..."],
    kernel: Float[Array, "..."],
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **_: Any,
) -> Array:
    """`jax.lax.conv_general_dilated` for channels last, as one matrix product over shifted inputs.

    Under `vmap` over kernels JAX's own convolution becomes a grouped one, which on CPUs is 3 to 5
    times slower than this (`benchmarks/networks.py`).

    Args:
      x: inputs [B, ..., channels].
      kernel: [..., channels in, channels out].
      window_strides: one per position axis.
      padding: as for `jax.lax.conv_general_dilated`.
    """
    sizes, channels = kernel.shape[:-2], kernel.shape[-1]
    if isinstance(padding, str):
        padding = jax.lax.padtype_to_pads(x.shape[1:-1], sizes, window_strides, padding)
    x = jnp.pad(x, [(0, 0), *padding, (0, 0)])
    taps = []
    for tap in itertools.product(*map(range, sizes)):
        window = [
            slice(first, first + length - size + 1, stride)
            for first, length, size, stride in zip(
                tap, x.shape[1:-1], sizes, window_strides, strict=True
            )
        ]
        taps.append(x[(slice(None), *window)])
    return jnp.concatenate(taps, axis=-1) @ kernel.reshape(-1, channels)
