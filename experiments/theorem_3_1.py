"""`python -m experiments.theorem_3_1`; see `adam_transition.commands.theorem_3_1`."""

import sys

from adam_transition.commands.theorem_3_1 import COMMAND

if __name__ == "__main__":
    sys.exit(COMMAND.run())
