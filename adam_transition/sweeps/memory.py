"""How much memory there is, so that what does not fit can be refused before it is begun."""

import contextlib
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


def available() -> float:
    """Bytes that a process may still take; infinite where the system does not say.

    On Linux what the kernel holds available, and what the process's control group leaves.
    """
    found = [float("inf")]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        [kilobytes] = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
        found.append(1024.0 * kilobytes)
    except (OSError, ValueError):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            found.append(float(os.sysconf("SC_PHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE"))
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            most, now = (
                int((_CGROUP / name).read_text(encoding="ascii")) for name in (limit, used)
            )
            found.append(float(max(0, most - now)))
        except (OSError, ValueError):  # "max", or no such group
            pass
    return min(found)


def text(num_bytes: float) -> str:
    """A number of bytes to be read.

    >>> text(2.5e9), text(800)
    ('2.5 GB', '800 bytes')
    """
    unit = 0
    while num_bytes >= 1000 and unit < len(_UNITS) - 1:
        num_bytes, unit = num_bytes / 1000, unit + 1
    return f"{num_bytes:.3g} {_UNITS[unit]}"
