"""Settings of all tests."""

import gc
import inspect
import os
import tempfile
from importlib.metadata import version

# Arrays here are small and tests run side by side: threads of OpenBLAS would only wait for each
# other, on the cores that the other tests need. Read when NumPy and SciPy are imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Experiments are run many times, here and in processes of their own, with the same programs. The
# cache is of this session only, so that nothing is left by an earlier one, and without a limit:
# with one, JAX locks it and looks at every file before it adds one, 0.1 s when there are thousands.
# JAX reads these when it is imported.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _FOLDER = tempfile.TemporaryDirectory(prefix="jax-cache-", ignore_cleanup_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _FOLDER.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] = "-1"

# XLA's older code generator compiles thousands of small programs in little more than half the time.
# What users run is tested too, in `test_processes` and with `XLA_FLAGS= make test`. Jaxlib 0.11 has
# lost it, and aborts over flags that it does not know.
if version("jaxlib").startswith("0.10."):
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")

# Arrays of different ranks must not broadcast by accident; where they may, the code says so.
os.environ.setdefault("JAX_NUMPY_RANK_PROMOTION", "raise")

# Runs that several tests look at are made once; see tests/smoke.py.
if "ADAM_TRANSITION_SMOKE_RUNS" not in os.environ:
    _SMOKE = tempfile.TemporaryDirectory(prefix="smoke-runs-", ignore_cleanup_errors=True)
    os.environ["ADAM_TRANSITION_SMOKE_RUNS"] = _SMOKE.name

import jaxtyping
import pytest
from hypothesis import settings

_LONGEST = (
    "phase", "paper", "theorems", "notebooks", "processes", "networks", "batch_size", "verdict",
    "terminal", "monitor", "models", "explorer", "docs", "members", "divergence_experiment",
    "compilation_cache", "kernels", "boundary", "boundary_experiment", "benchmarks", "damage",
)  # fmt: skip


def pytest_collection_modifyitems(items):
    """The longest files first, or one process is left with them while the other waits."""
    place = {f"test_{name}": i for i, name in enumerate(_LONGEST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


# a first example may wait for a compilation, and machines may be busy: nothing here is timed
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


@pytest.fixture(autouse=True, scope="module")
def _forget():
    """What JAX keeps of a module's programs fills gigabytes, and slows every later test down."""
    yield
    import jax

    jax.clear_caches()
    gc.collect()


@pytest.fixture(autouse=True)
def _types(request):
    """Types are not checked in tests of our own errors, which pass wrong ones on purpose."""
    function = getattr(request.node, "function", None)
    expects_error = function is not None and "pytest.raises" in inspect.getsource(function)
    jaxtyping.config.update("jaxtyping_disable", expects_error)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
