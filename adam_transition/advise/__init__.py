"""Choosing β2 for a batch size: rules, a probe and a monitor of your loss, and short trainings.

`find_beta2` and `FoundBeta2` are imported when first used, as training takes more libraries.
"""

import importlib
from typing import Any

from adam_transition.advise._monitor import (
    ANSWERS,
    Diagnostics,
    MonitorState,
    answer,
    beta2_too_small,
    diagnostics,
    diagnostics_by_path,
    monitor,
    verdict,
)
from adam_transition.advise._probe import Answer, Probe, is_large_enough, probe
from adam_transition.advise.every_problem import WholeClass, whole_class
from adam_transition.advise.needed import Needed, needed_beta2
from adam_transition.advise.rules import (
    Advice,
    Setting,
    advise,
    beta2_of_half_life,
    clipped_rule,
    half_life,
    half_life_rule,
    recommendation,
    recommended,
    sde_rule,
)
from adam_transition.advise.sampling_error import ConfidenceInterval
from adam_transition.advise.tables import GradientTable, gradient_table

__all__ = [
    "ANSWERS",
    "Advice",
    "Answer",
    "ConfidenceInterval",
    "Diagnostics",
    "FoundBeta2",
    "GradientTable",
    "MonitorState",
    "Needed",
    "Probe",
    "Setting",
    "WholeClass",
    "advise",
    "answer",
    "beta2_of_half_life",
    "beta2_too_small",
    "clipped_rule",
    "diagnostics",
    "diagnostics_by_path",
    "find_beta2",
    "gradient_table",
    "half_life",
    "half_life_rule",
    "is_large_enough",
    "monitor",
    "needed_beta2",
    "probe",
    "recommendation",
    "recommended",
    "sde_rule",
    "verdict",
    "whole_class",
]


def __getattr__(name: str) -> Any:
    if name in ("find_beta2", "FoundBeta2"):
        return getattr(importlib.import_module(f"{__name__}.finder"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
