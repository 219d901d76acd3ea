"""Theorem 3.3, random shuffling: rate, neighbourhood, threshold, violated hypotheses.

Example:
    python -m experiments.theorem_3_3 --flagfile=experiments/flagfiles/theorem_3_3.flags
"""

import sys
from functools import partial

from adam_transition.commands import _runner, _theorems

FLAGS = _theorems.theorem_flags("theorem_3_3")
main = partial(_theorems.main, "random_shuffling")


COMMAND = _runner.Command("theorem_3_3", __doc__, FLAGS, main)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
