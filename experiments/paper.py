"""`python -m experiments.paper`; see `adam_transition.commands.paper`."""

import sys

from adam_transition.commands.paper import COMMAND

if __name__ == "__main__":
    sys.exit(COMMAND.run())
