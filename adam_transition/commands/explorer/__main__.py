"""`python -m experiments.explorer`."""

import sys

from adam_transition.commands.explorer import COMMAND

if __name__ == "__main__":
    sys.exit(COMMAND.run())
