"""How long a user waits: seconds from the command to its first progress line and its first chunk.

Runs `experiments.phase` on a small diagram in its own terminal, without and with JAX's persistent
compilation cache, in separate processes.

    python -m benchmarks.startup
"""

import argparse
import os
import pty
import re
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Sequence
from pathlib import Path

FLAGS = ("--n=5,10,20,50", "--steps=2000", "--beta1=0:0.99:64", "--beta2=0:0.99:64")
_COUNT = re.compile(rb"\| *([0-9.]+)k?/")


def seconds(out: Path, cache: Path, flags: Sequence[str] = FLAGS) -> tuple[float, float, float]:
    """Seconds until the first progress line, the first finished cells, and the end."""
    screen, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 100))  # a bar is as wide as its terminal
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.phase", "--noresume", f"--out={out}", *flags],
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)},
        stdin=terminal,
        stdout=subprocess.DEVNULL,
        stderr=terminal,
    )
    os.close(terminal)
    line = cells = 0.0
    seen = b""
    while True:
        try:
            text = os.read(screen, 1 << 12)
        except OSError:  # the terminal closes when the process ends
            break
        seen += text
        counts = [float(count) for count in _COUNT.findall(seen)]
        if counts:
            line = line or time.perf_counter() - started
        if any(counts):
            cells = cells or time.perf_counter() - started
    os.close(screen)
    if process.wait():
        raise SystemExit(seen.decode())
    return line, cells, time.perf_counter() - started


def main() -> None:
    argparse.ArgumentParser(description="Time to the first progress line.").parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out, cache = Path(folder) / "out", Path(folder) / "cache"
        print("compilation cache  first line  first cells   end (seconds)")
        for name in ("empty", "filled", "filled"):
            line, cells, end = seconds(out, cache)
            print(f"{name:17}  {line:10.1f}  {cells:11.1f}  {end:4.1f}")


if __name__ == "__main__":
    main()
