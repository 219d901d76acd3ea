"""`python -m experiments.concentration`; see `adam_transition.commands.concentration`."""

import sys

from adam_transition.commands.concentration import COMMAND

if __name__ == "__main__":
    sys.exit(COMMAND.run())
