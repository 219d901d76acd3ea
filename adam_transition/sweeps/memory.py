"""Available memory, so that a run that does not fit can be refused before it starts."""

import contextlib
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


def available() -> float:
    """Bytes that this process may still allocate; infinite if the system does not report them.

    On Linux, the minimum of the kernel's estimate and the rest of the control group's limit.
    """
    limits = [float("inf")]
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        [kilobytes] = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
        limits.append(1024.0 * kilobytes)
    except (OSError, ValueError):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            limits.append(float(os.sysconf("SC_PHYS_PAGES")) * os.sysconf("SC_PAGE_SIZE"))
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            most, current = (
                int((_CGROUP / name).read_text(encoding="ascii")) for name in (limit, used)
            )
            limits.append(float(max(0, most - current)))
        except (OSError, ValueError):  # "max", or no such group
            pass
    return min(limits)


def text(num_bytes: float) -> str:
    """A number of bytes as text with a unit.

    >>> text(2.5e9), text(800)
    ('2.5 GB', '800 bytes')
    """
    unit = 0
    while num_bytes >= 1000 and unit < len(_UNITS) - 1:
        num_bytes, unit = num_bytes / 1000, unit + 1
    return f"{num_bytes:.3g} {_UNITS[unit]}"
