"""The benchmarks compare what is the same, and leave a data set."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from benchmarks import dimensions, scale, simulation, startup


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
@pytest.mark.parametrize("num_cells", [5, 64, 1000])
def test_the_c_loop_is_the_librarys_arithmetic(num_cells):
    generator = np.random.default_rng(1)
    # β1 < √β2, where steps are bounded and rounding errors do not grow
    beta2 = generator.uniform(0.3, 0.999, num_cells).astype(np.float32)
    beta1 = (generator.uniform(0, 0.95, num_cells) * np.sqrt(beta2)).astype(np.float32)
    gaps = [make(beta1, beta2, 500)() for make in (simulation.c, simulation.library)]
    np.testing.assert_allclose(*gaps, rtol=3e-5)


@pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")
def test_in_several_coordinates_blocks_are_the_c_loop():
    found = dimensions.measure(3, 70, 250, repeats=1)
    assert found.keys() == {"blocks", "xla", "c"}
    for rate, difference in found.values():
        assert rate > 0
        assert difference < 1e-3  # after 200 steps, where x0 = 1


def test_it_measures_every_contestant_and_keeps_the_rates(tmp_path, monkeypatch, capsys):
    argv = ["simulation", "--cells=10,100", "--seconds=0.01", "--repeats=1", f"--out={tmp_path}"]
    monkeypatch.setattr(sys, "argv", argv)
    simulation.main()
    dataset = xr.open_zarr(tmp_path / "simulation.zarr", consolidated=False)
    assert set(dataset["contestant"].values) == set(simulation.contestants())
    assert (dataset["rate"] > 0).all()
    assert dataset.attrs["device"] in capsys.readouterr().out
    assert (tmp_path / "simulation.png").stat().st_size > 10_000


_ON_A_BARE_MACHINE = """
import importlib.metadata, runpy, sys
allowed = {"adam_transition", "benchmarks", "jax", "jaxlib", "jaxtyping", "numpy"}
allowed |= {"ml_dtypes", "opt_einsum", "scipy", "wadler_lindig"}  # which these need
absent = importlib.metadata.packages_distributions().keys() - allowed
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in absent:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
runpy.run_module("benchmarks.kernel", run_name="__main__")
"""


def test_the_kernels_benchmark_needs_little(tmp_path):
    sizes = ["--cells=50,200", "--steps=400", "--xla_steps=100", "--repeats=1", f"--out={tmp_path}"]
    subprocess.run(
        [sys.executable, "-c", _ON_A_BARE_MACHINE, *sizes],
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    found = json.loads((tmp_path / "kernel.json").read_text())
    for rate in found["updates_per_s"].values():
        assert set(rate) == {"cyclic", "replacement", "own_streams", "xla", "roots"}
        assert all(value > 0 for value in rate.values())
    assert found["linear"].keys() == {"cells", "steps"}
    assert found["agreement"]["most"] < 1e-3
    assert found["agreement"]["same_side"] > 0.95
    assert found["devices"]["count"] == 1
    records = 4 * 58  # 400 steps, one record every 7
    assert all(records < size < 20 * records for size in found["bytes_per_cell"].values())


def test_the_wait_for_the_first_progress_line_is_seen(tmp_path):
    flags = ["--n=5", "--sampling=cyclic", "--beta1=0:0.9:4", "--beta2=0:0.9:4", "--steps=100"]
    line, cells, end = startup.seconds(tmp_path / "out", tmp_path / "cache", flags)
    assert 0 < line <= cells < end


def test_the_page_on_scale_has_the_table_of_the_model():
    page = Path("docs/scale.md").read_text(encoding="utf-8")
    assert "\n".join(scale.table()) in page


def test_the_model_of_scale_is_linear_and_devices_share_the_updates():
    costs = scale.Costs(start=3.0, rate=1e9, host=1e-6)
    one, many = (scale.seconds(costs, 1e6, 10_000, devices) for devices in (1, 10))
    assert one == pytest.approx(3 + 10 + 1)
    assert many == pytest.approx(3 + 1 + 1)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.05, "50 ms"), (90, "1.5 min"), (7200, "2 h"), (1.3e7, "150 days")]
)
def test_durations_are_read_in_their_unit(seconds, text):
    assert scale.duration(seconds) == text
