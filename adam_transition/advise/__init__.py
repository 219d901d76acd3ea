"""What to set β2 and β1 to for a batch size: rules, and the probe of a user's own loss."""

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
    "Advice",
    "GradientTable",
    "Needed",
    "Probe",
    "Setting",
    "advise",
    "beta2_of_half_life",
    "clipped_rule",
    "gradient_table",
    "half_life",
    "half_life_rule",
    "needed_beta2",
    "probe",
    "sde_rule",
]
