"""`python -m experiments.theorem_3_3`; see `adam_transition.commands.theorem_3_3`."""

import sys

from adam_transition.commands.theorem_3_3 import COMMAND

if __name__ == "__main__":
    sys.exit(COMMAND.run())
