"""Theorem 3.1, sampling with replacement: rate, neighbourhood, threshold, violated hypotheses.

Example:
    python -m experiments.theorem_3_1 --flagfile=experiments/flagfiles/theorem_3_1.flags
"""

import sys
from functools import partial

from adam_transition.commands import _runner, _theorems

FLAGS = _theorems.theorem_flags("theorem_3_1")
main = partial(_theorems.main, "with_replacement")


COMMAND = _runner.Command("theorem_3_1", __doc__, FLAGS, main)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
