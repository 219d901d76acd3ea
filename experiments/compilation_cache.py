"""JAX's persistent compilation cache, on by default: a second run of a job does not compile again.

`JAX_COMPILATION_CACHE_DIR` and the other settings of JAX's documentation win over the defaults
here; `JAX_ENABLE_COMPILATION_CACHE=false` turns it off.
"""

import hashlib
import os
import platform
from pathlib import Path

import jax
import jaxlib
import platformdirs

MAX_BYTES = 1 << 30
"""Size of the cache; beyond it, what was not used for longest goes. With a limit, JAX locks it too,
so that experiments may run side by side."""

MIN_COMPILE_S = 0.1
"""What compiles faster is not kept."""

_NAMES = ("jax_compilation_cache_max_size", "jax_persistent_cache_min_compile_time_secs")


def enable() -> None:
    """Turns the cache on in the user's cache folder; does nothing where it cannot be written."""
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    folder = Path(platformdirs.user_cache_dir("adam_transition")) / f"jax-{_machine()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            return
    except OSError:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    for name, value in zip(_NAMES, (MAX_BYTES, MIN_COMPILE_S), strict=True):
        if name.upper() not in os.environ:
            jax.config.update(name, value)


def _machine() -> str:
    """Programs for a CPU use its instructions: a home folder may serve machines that differ."""
    parts = [jaxlib.__version__, platform.machine(), platform.processor()]
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        parts += [next((line for line in lines if line.startswith(("flags", "Features"))), "")]
    except OSError:
        pass
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
