"""Every flagfile is a job that its experiment accepts."""

from pathlib import Path

import pytest

from experiments import (
    boundary,
    concentration,
    divergence,
    phase,
    theorem_3_1,
    theorem_3_3,
    theorems,
)

PARSERS = {
    "boundary": (boundary.FLAGS, boundary.parse),
    "concentration": (concentration.FLAGS, concentration.parse),
    "divergence": (divergence.FLAGS, divergence.parse),
    "phase": (phase.FLAGS, phase.parse),
    "theorem_3_1": (theorem_3_1.FLAGS, lambda values: theorems.parse("with_replacement", values)),
    "theorem_3_3": (theorem_3_3.FLAGS, lambda values: theorems.parse("random_shuffling", values)),
}


@pytest.mark.parametrize("path", sorted(Path("experiments/flagfiles").glob("*.flags")), ids=str)
def test_flagfiles_parse(path):
    [name] = [name for name in PARSERS if path.stem.startswith(name)]
    flags, parse = PARSERS[name]
    flags.unparse_flags()
    for flag in flags:
        flags[flag].unparse()
    flags([name, f"--flagfile={path}"])
    assert parse(flags.flag_values_dict()) is not None
