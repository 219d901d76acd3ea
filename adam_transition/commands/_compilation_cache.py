"""JAX's persistent compilation cache, on by default: a second run of a job does not recompile.

`JAX_COMPILATION_CACHE_DIR` and the other settings in JAX's documentation take precedence over the
defaults here; `JAX_ENABLE_COMPILATION_CACHE=false` turns the cache off.
"""

import hashlib
import os
import platform
import sys
import warnings
from pathlib import Path
from typing import Any

import filelock
import jax
import jaxlib
import platformdirs
from jax.experimental.compilation_cache import compilation_cache as jax_cache

MAX_BYTES = 1 << 30
"""Size limit of the cache; beyond it the least recently used programs are evicted. With a limit JAX
also locks the cache, so experiments may run concurrently."""

MIN_COMPILE_S = 0.1
"""Programs that compile faster than this are not cached."""

IN_USE = "another process holds the lock of the compilation cache: continuing without the cache"

_LOCK_S = 2.0
_NAMES = ("jax_compilation_cache_max_size", "jax_persistent_cache_min_compile_time_secs")


def enable() -> bool:
    """Turns the cache on in the user's cache folder; does nothing if that is not writable.

    Returns:
      False if another process, for example a suspended one, holds the cache's lock for two seconds
      or longer; the cache is then off. Else True.
    """
    folder = jax.config.values["jax_compilation_cache_dir"]
    if folder is None:
        folder = str(Path(platformdirs.user_cache_dir("adam_transition")) / f"jax-{_machine()}")
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            if not os.access(folder, os.W_OK):
                return True
        except OSError:
            return True
        jax.config.update("jax_compilation_cache_dir", folder)
        for name, value in zip(_NAMES, (MAX_BYTES, MIN_COMPILE_S), strict=True):
            if name.upper() not in os.environ:
                jax.config.update(name, value)
    if not jax.config.values["jax_enable_compilation_cache"] or _can_lock(folder):
        return True
    jax.config.update("jax_enable_compilation_cache", False)
    return False


def give_up_when_locked(name: str) -> None:
    """Turns the cache off, with a line on stderr, once JAX has timed out waiting for its lock.

    This covers a lock that is taken and held while this process runs: JAX waits ten seconds for it,
    then warns, and would wait again for every program.
    """
    show = warnings.showwarning

    def showwarning(message: Warning | str, *rest: Any, **more: Any) -> None:
        if not ("persistent compilation cache" in str(message) and "Timeout" in str(message)):
            show(message, *rest, **more)
        elif jax.config.values["jax_enable_compilation_cache"]:
            jax.config.update("jax_enable_compilation_cache", False)
            jax_cache.reset_cache()  # else JAX keeps using it
            print(f"{name}: {IN_USE}", file=sys.stderr)

    warnings.showwarning = showwarning


def _can_lock(folder: str) -> bool:
    if "://" in folder or jax.config.values[_NAMES[0]] == -1:  # JAX takes no lock on local files
        return True
    try:
        with filelock.FileLock(Path(folder) / ".lockfile", timeout=_LOCK_S):
            return True
    except (OSError, filelock.Timeout):
        return False


def _machine() -> str:
    """A hash of JAX's version and the CPU: machines that differ may share a home folder."""
    parts = [jaxlib.__version__, platform.machine(), platform.processor()]
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        parts += [next((line for line in lines if line.startswith(("flags", "Features"))), "")]
    except OSError:
        pass
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
