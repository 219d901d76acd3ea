"""Index streams: restartable, shared, and of the right law."""

import itertools

import jax
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from adam_transition import sampling

# Fixed seeds make these tests deterministic; a right sampler fails one in 10 000 seeds.
P_VALUE = 1e-4


def _stream(scheme, n, count, *, seed=0, start=0, max_components=None):
    key = sampling.stream_key(seed)
    return np.asarray(_indices(scheme, key, start, count, n, max_components=max_components or n))


_indices = jax.jit(sampling.indices, static_argnames=("sampling", "count", "max_components"))


@pytest.mark.parametrize("scheme", sampling.SAMPLINGS)
@given(n=st.integers(1, 9), start=st.integers(0, 60), count=st.sampled_from([1, 5, 30]))
@settings(max_examples=100)
def test_a_stream_can_be_entered_at_any_step(scheme, n, start, count):
    whole = _stream(scheme, n, 90, max_components=9)
    part = _stream(scheme, n, count, start=start, max_components=11)
    np.testing.assert_array_equal(part, whole[start : start + count])
    assert whole.min() >= 0
    assert whole.max() < n


@pytest.mark.parametrize("scheme", sampling.SAMPLINGS)
def test_one_program_serves_all_n(scheme):
    ns = np.array([3, 5, 20, 64])
    draw = lambda n: sampling.indices(scheme, sampling.stream_key(3), 17, 200, n, max_components=64)  # noqa: E731
    together = np.asarray(jax.jit(jax.vmap(draw))(ns))
    for row, n in zip(together, ns, strict=True):
        np.testing.assert_array_equal(row, _stream(scheme, int(n), 200, seed=3, start=17))


@pytest.mark.parametrize("scheme", ["random_shuffling", "shuffle_once", "cyclic"])
@pytest.mark.parametrize("n", [1, 2, 7, 50])
def test_every_epoch_is_a_permutation(scheme, n):
    epochs = _stream(scheme, n, 40 * n).reshape(40, n)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(n), (40, 1)))
    if scheme != "random_shuffling":
        assert (epochs == epochs[0]).all()


def test_permutations_are_uniform():
    epochs = _stream("random_shuffling", 4, 4 * 24_000).reshape(-1, 4)
    order = {p: i for i, p in enumerate(itertools.permutations(range(4)))}
    counts = np.bincount([order[tuple(epoch)] for epoch in epochs.tolist()], minlength=24)
    assert scipy.stats.chisquare(counts).pvalue > P_VALUE


def test_one_shuffle_is_uniform_over_keys():
    draw = lambda key: sampling.indices("shuffle_once", key, 0, 4, 4, max_components=4)  # noqa: E731
    keys = jax.random.split(sampling.stream_key(1), 24_000)
    order = {p: i for i, p in enumerate(itertools.permutations(range(4)))}
    found = np.asarray(jax.vmap(draw)(keys)).tolist()
    counts = np.bincount([order[tuple(epoch)] for epoch in found], minlength=24)
    assert scipy.stats.chisquare(counts).pvalue > P_VALUE


def test_a_component_is_uniform_over_the_positions_of_a_long_epoch():
    epochs = _stream("random_shuffling", 50, 50 * 20_000).reshape(-1, 50)
    positions = np.argmax(epochs == 0, axis=1)
    assert scipy.stats.chisquare(np.bincount(positions, minlength=50)).pvalue > P_VALUE


def test_consecutive_epochs_are_independent():
    epochs = _stream("random_shuffling", 5, 5 * 50_000).reshape(-1, 5)
    positions = np.argmax(epochs == 0, axis=1)
    table = np.zeros((5, 5))
    np.add.at(table, (positions[:-1:2], positions[1::2]), 1)
    assert scipy.stats.chi2_contingency(table).pvalue > P_VALUE


@pytest.mark.parametrize("n", [3, 20, 97])
def test_draws_with_replacement_are_uniform_and_independent(n):
    draws = _stream("with_replacement", n, 200_000)
    assert scipy.stats.chisquare(np.bincount(draws, minlength=n)).pvalue > P_VALUE
    hits = draws == 0
    table = np.histogram2d(hits[:-1:2], hits[1::2], bins=2)[0]
    assert scipy.stats.chi2_contingency(table).pvalue > P_VALUE


@pytest.mark.parametrize("scheme", ["random_shuffling", "shuffle_once", "with_replacement"])
def test_seeds_give_different_streams(scheme):
    assert (_stream(scheme, 50, 100, seed=1) != _stream(scheme, 50, 100, seed=2)).any()


def test_an_unknown_scheme_is_named():
    with pytest.raises(ValueError, match="sampling='sorted' is not one of cyclic"):
        _stream("sorted", 3, 3)
