"""`python -m experiments.boundary`; see `adam_transition.commands.boundary`."""

import sys

from adam_transition.commands.boundary import COMMAND

if __name__ == "__main__":
    sys.exit(COMMAND.run())
