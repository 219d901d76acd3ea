"""`python -m experiments.networks`; see `adam_transition.commands.networks`."""

import sys

from adam_transition.commands.networks import COMMAND

if __name__ == "__main__":
    sys.exit(COMMAND.run())
