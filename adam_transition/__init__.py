"""For which (β1, β2) does plain Adam converge? The phase transition, simulated and exact.

The public face is the functions and the modules of `__all__`; they are imported when first used.
"""

import importlib
from typing import Any

_FUNCTIONS = {
    "Hyperparameters": "adam",
    "Method": "simulate",
    "ProblemClass": "problems",
    "boundary_curve": "theory.boundary",
    "compute": "sweeps.study",
    "counterexample": "problems",
    "counterexample_table": "problems",
    "diagnostics": "advise",
    "divergence_intervals": "theory.boundary",
    "draw_phase_diagram": "studies.phase.figures",
    "draw_search": "studies.networks.user_figures",
    "draw_training_plane": "studies.networks.user_figures",
    "find_beta2": "advise",
    "from_loss": "problems",
    "gradient_table": "advise",
    "hyperparameters": "adam",
    "least_d1": "theory.least_d1",
    "limit_points": "theory.limit_points",
    "monitor": "advise",
    "needed_beta2": "advise",
    "probe": "advise",
    "rule_intervals": "theory.rule_boundary",
    "scale_by_adam": "adam",
    "simulate_plane": "studies.phase.plane",
    "stationary_drift": "theory.stationary_drift",
    "stream_key": "sampling",
    "train_plane": "networks.plane",
    "worst_case_drift": "theory.divergence",
}
_MODULES = (
    "adam",
    "advise",
    "kernels",
    "networks",
    "optimizers",
    "problems",
    "sampling",
    "simulate",
    "studies",
    "sweeps",
    "theory",
)

__all__ = sorted([*_FUNCTIONS, *_MODULES])


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(f"{__name__}.{_FUNCTIONS[name]}"), name)
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name == "__version__":
        from importlib.metadata import version

        return version("adam-transition")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
