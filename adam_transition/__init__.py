"""For which (β1, β2) does plain Adam converge? The phase transition, simulated and exact.

The modules below are the public face; they are imported when they are first used.
"""

import importlib
from types import ModuleType

__all__ = [
    "adam",
    "advise",
    "boundary",
    "bounds",
    "claims",
    "drift",
    "figures",
    "kernels",
    "least_d1",
    "limit_points",
    "networks",
    "phase_diagram",
    "plane",
    "problems",
    "random_drift",
    "sampling",
    "scaling",
    "simulate",
    "store",
    "sweep",
    "worst_case",
]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
