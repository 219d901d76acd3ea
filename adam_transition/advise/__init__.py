"""Choosing β2 and β1 for a batch size: rules, a probe of the user's own loss, and a monitor."""

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
    "GradientTable",
    "MonitorState",
    "Needed",
    "Probe",
    "Setting",
    "advise",
    "answer",
    "beta2_of_half_life",
    "beta2_too_small",
    "clipped_rule",
    "diagnostics",
    "diagnostics_by_path",
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
]
