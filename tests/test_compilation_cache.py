"""The persistent compilation cache: on by default, out of the way where a user has their own."""

import os
import subprocess
import sys

import pytest
import xarray as xr

RUN = ["--n=5", "--sampling=cyclic", "--beta1=0,0.5", "--beta2=0:0.9:5", "--nofigures"]


def _phase(cache_home, out, **env):
    """Runs an experiment with this folder for users' caches; returns its data set."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    subprocess.run(
        [sys.executable, "-m", "experiments.phase", *RUN, "--steps=2000", f"--out={out}"],
        env={**kept, "JAX_PLATFORMS": "cpu", "XDG_CACHE_HOME": str(cache_home), **env},
        capture_output=True,
        check=True,
    )
    return xr.open_zarr(out / "phase.zarr", consolidated=False).load()


def _programs(folder):
    return {path: path.read_bytes() for path in folder.rglob("*-cache")}


@pytest.mark.skipif(sys.platform != "linux", reason="the folder is that of Linux")
def test_a_second_run_compiles_nothing_again_and_has_the_same_bits(tmp_path):
    cache = tmp_path / "cache"
    one = _phase(cache, tmp_path / "1")
    kept = _programs(cache / "adam_transition")
    assert kept
    other = _phase(cache, tmp_path / "2", JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="1000")
    xr.testing.assert_identical(one.drop_attrs(), other.drop_attrs())
    assert _programs(cache / "adam_transition") == kept
    used = [p for p in cache.rglob("*-atime") if p.stat().st_mtime > max(_times(kept))]
    assert used  # the second run read programs of the first


def _times(paths):
    return [path.stat().st_mtime for path in paths]


@pytest.mark.skipif(sys.platform != "linux", reason="the folder is that of Linux")
def test_a_users_own_settings_win(tmp_path):
    cache, own = tmp_path / "cache", tmp_path / "own"
    env = {
        "JAX_COMPILATION_CACHE_DIR": str(own),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    _phase(cache, tmp_path / "1", **env)
    assert _programs(own)
    assert not _programs(cache)
    _phase(cache, tmp_path / "2", JAX_ENABLE_COMPILATION_CACHE="false")
    assert not _programs(cache)


@pytest.mark.skipif(sys.platform != "linux", reason="the folder is that of Linux")
def test_an_unwritable_home_is_no_obstacle(tmp_path):
    (tmp_path / "file").touch()
    assert _phase(tmp_path / "file", tmp_path / "1").sizes["n"] == 1
