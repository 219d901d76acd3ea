"""`python -m experiments.divergence`; see `adam_transition.commands.divergence`."""

import sys

from adam_transition.commands.divergence import COMMAND

if __name__ == "__main__":
    sys.exit(COMMAND.run())
