"""Settings of all tests."""

import os
import tempfile

# Experiments are run many times, here and in processes of their own, with the same programs. The
# cache is of this session only, so that nothing is left by an earlier one. JAX reads these when it
# is imported.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _FOLDER = tempfile.TemporaryDirectory(prefix="jax-cache-", ignore_cleanup_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _FOLDER.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_COMPILATION_CACHE_MAX_SIZE"] = str(1 << 30)

from hypothesis import settings

# a first example may wait for a compilation, and machines may be busy: nothing here is timed
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
