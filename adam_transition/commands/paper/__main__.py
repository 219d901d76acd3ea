"""`python -m experiments.paper`."""

import sys

from adam_transition.commands.paper import COMMAND

if __name__ == "__main__":
    sys.exit(COMMAND.run())
