"""Small files of the formats of the real data sets."""

from pathlib import Path

import numpy as np

from adam_transition.networks import _image_files


def mnist(folder: Path) -> Path:
    """64 images of 8 × 8 pixels, as MNIST's training files."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (64, 8, 8)), rng.integers(0, 10, 64)
    for name, values in zip(_image_files._MNIST_FILES, (images, labels), strict=True):
        header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">i4").tobytes()
        (folder / name).write_bytes(header + values.astype(np.uint8).tobytes())
    return folder


def cifar10(folder: Path) -> Path:
    """40 images, as CIFAR-10's binary files."""
    rng = np.random.default_rng(0)
    for name in _image_files._CIFAR_FILES:
        records = rng.integers(0, 256, (8, 3073)).astype(np.uint8)
        records[:, 0] %= 10
        (folder / name).write_bytes(records.tobytes())
    return folder


def text(folder: Path) -> Path:
    """A text of 1 800 bytes."""
    path = folder / "text.txt"
    path.write_text("the quick brown fox jumps over the lazy dog. " * 40, encoding="utf-8")
    return path
