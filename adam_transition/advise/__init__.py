"""What to set β2 and β1 to for a batch size: rules from a setting that works."""

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
    "Setting",
    "advise",
    "beta2_of_half_life",
    "clipped_rule",
    "half_life",
    "half_life_rule",
    "sde_rule",
]
