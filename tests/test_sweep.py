"""The sweep: every cell once, whatever the chunks and devices."""

import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adam_transition.sweeps import sweep
from adam_transition.sweeps.small_loop import small_loop


def _function(row, cell):
    x = cell["x"]
    for _ in range(5):
        x = jnp.sqrt(jnp.abs(jnp.sin(x) + row["shift"])) / (1 + x * x)
    return {"y": x, "both": jnp.stack([x, row["shift"]])}


def _table(num_rows, num_columns):
    rng = np.random.default_rng(0)
    rows = {"shift": rng.random(num_rows, dtype=np.float32)}
    return rows, {"x": rng.random((num_rows, num_columns), dtype=np.float32)}


def _collect(chunk, rows, cells, **kwargs):
    shape = cells["x"].shape
    results = {"y": np.full(shape, np.nan, np.float32), "both": np.zeros((*shape, 2), np.float32)}
    calls = []

    def write(block, values):
        calls.append(block)
        for name, value in values.items():
            assert np.isnan(results["y"][block]).all() or name != "y", "a cell was written twice"
            results[name][block] = value

    kwargs.setdefault("tile", (2, 8))
    sweep.run(sweep.Program(_function), rows, cells, chunk=chunk, write=write, **kwargs)
    return results, calls


@pytest.mark.parametrize("size", [100, 1 << 18])
def test_a_small_loop_is_a_loop_of_any_size(size):
    """XLA fails if it splits an operation of a small loop between cores."""

    def step(k, x):
        return jnp.pad(x[1:] * 0.5, (0, 1)) + jnp.where(x > k, 0.25, x)

    def run(loop, x):
        return loop(jnp.asarray(5), step, x)

    x = jnp.linspace(0, 8, size)
    small = jax.jit(partial(run, small_loop))(x)
    plain = jax.jit(partial(run, partial(jax.lax.fori_loop, 0)))(x)
    np.testing.assert_allclose(small, plain, rtol=1e-6)


@pytest.mark.parametrize("chunk", [(1, 1), (1, 7), (2, 23), (3, 5), (5, 23)])
def test_results_do_not_depend_on_the_chunks(chunk):
    rows, cells = _table(5, 23)
    whole, _ = _collect((5, 23), rows, cells)
    pieces, _ = _collect(chunk, rows, cells)
    for name in whole:
        np.testing.assert_array_equal(whole[name], pieces[name])
    assert np.isfinite(whole["y"]).all()


@given(st.integers(1, 9), st.integers(1, 50), st.integers(1, 70), st.sampled_from([1, 2, 5]))
def test_blocks_cover_the_table_once(num_rows, groups, cells_per_chunk, multiple):
    table = num_rows, groups * multiple
    chunk = sweep.block_shape(table, cells_per_chunk, columns_multiple=multiple)
    seen = np.zeros(table, int)
    for block in sweep.blocks(sweep.Block(slice(0, table[0]), slice(0, table[1])), chunk):
        seen[block] += 1
    assert (seen == 1).all()
    assert chunk[1] % multiple == 0
    assert chunk[0] * chunk[1] <= max(cells_per_chunk, multiple) + multiple


def test_done_chunks_are_not_computed_again():
    rows, cells = _table(4, 6)
    _, calls = _collect((1, 6), rows, cells, is_done=lambda block: block.rows.start % 2 == 0)
    assert [block.rows.start for block in calls] == [1, 3]


def test_rows_and_cells_must_fit():
    rows, cells = _table(4, 6)
    with pytest.raises(ValueError, match="do not match"):
        _collect((1, 6), {"shift": rows["shift"][:3]}, cells)


_ON_EIGHT_DEVICES = """
import numpy as np, jax
from tests.test_sweep import _collect, _table
assert jax.device_count() == 8
results, _ = _collect((2, 10), *_table(5, 23))
np.save({path!r}, results["y"])
"""


def test_results_do_not_depend_on_the_number_of_devices(tmp_path):
    path = str(tmp_path / "y.npy")
    subprocess.run(
        [sys.executable, "-c", _ON_EIGHT_DEVICES.format(path=path)],
        check=True,
        env={**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"},
    )
    whole, _ = _collect((5, 23), *_table(5, 23))
    np.testing.assert_array_equal(np.load(path), whole["y"])
