"""`python -m experiments.phase`; see `adam_transition.commands.phase`."""

import sys

from adam_transition.commands.phase import COMMAND

if __name__ == "__main__":
    sys.exit(COMMAND.run())
