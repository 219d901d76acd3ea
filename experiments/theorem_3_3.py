"""Theorem 3.3 at work: rate, neighbourhood, threshold, and what breaks when a hypothesis does.

Example:
    python -m experiments.theorem_3_3 --flagfile=experiments/flagfiles/theorem_3_3.flags
"""

import sys
from functools import partial

from experiments import common, theorems

FLAGS = theorems.theorem_flags("theorem_3_3")
main = partial(theorems.main, "theorem_3_3", "random_shuffling")

if __name__ == "__main__":
    sys.exit(common.run("theorem_3_3", __doc__, FLAGS, main))
