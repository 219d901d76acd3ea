"""What to set β2 and β1 to for a batch size: rules, a probe of a user's own loss, a monitor."""

from adam_transition.advise.monitor import (
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
from adam_transition.advise.probe import (
    GradientTable,
    Needed,
    Probe,
    gradient_table,
    needed_beta2,
    probe,
)
from adam_transition.advise.rules import (
    Advice,
    Setting,
    advise,
    beta2_of_half_life,
    clipped_rule,
    half_life,
    half_life_rule,
    sde_rule,
)

__all__ = [
    "ANSWERS",
    "Advice",
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
    "monitor",
    "needed_beta2",
    "probe",
    "sde_rule",
    "verdict",
]
