"""How long a user waits: from the command to the first line of progress, and to the first cells.

Runs `experiments.phase` on a terminal of its own twice, with an empty compilation cache and with
the one that the first run has left, and reads its progress bar; then stops it.

    python -m benchmarks.startup
"""

import argparse
import os
import pty
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_BAR = re.compile(rb"\| *([\d.]+)[kM]?/")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time to the first progress, cache cold and warm.")
    parser.add_argument("--flagfile", default="experiments/flagfiles/phase.flags")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    print(f"{'cache':6}  first line (s)  first cells (s)")
    waits: dict[str, list[tuple[float, float]]] = {"empty": [], "warm": []}
    for _ in range(arguments.repeats):
        with tempfile.TemporaryDirectory() as folder:
            for cache, found in waits.items():
                found.append(_wait(arguments.flagfile, Path(folder), cache))
    for cache, found in waits.items():
        line, cells = (min(part) for part in zip(*found, strict=True))
        print(f"{cache:6}  {line:14.1f}  {cells:15.1f}")


def _wait(flagfile: str, folder: Path, name: str) -> tuple[float, float]:
    """Seconds to the first line of the bar, and to the first finished cells."""
    env = {
        **{key: value for key, value in os.environ.items() if not key.startswith("JAX_")},
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "COLUMNS": "120",
    }
    command = [sys.executable, "-m", "experiments.phase", f"--flagfile={flagfile}"]
    ours, theirs = pty.openpty()
    started = time.perf_counter()
    process = subprocess.Popen(
        [*command, f"--out={folder / name}"], env=env, stdout=subprocess.DEVNULL, stderr=theirs
    )
    os.close(theirs)
    text, first_line = b"", 0.0
    try:
        while True:
            text += os.read(ours, 4096)
            counts = [float(count) for count in _BAR.findall(text)]
            if counts and not first_line:
                first_line = time.perf_counter() - started
            if any(counts):
                return first_line, time.perf_counter() - started
    except OSError:
        raise RuntimeError(text.decode(errors="replace")) from None
    finally:
        process.kill()
        process.wait()
        os.close(ours)


if __name__ == "__main__":
    main()
