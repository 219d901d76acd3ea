"""`python -m experiments.advise`; see `adam_transition.commands.advise`."""

import sys

from adam_transition.commands.advise import COMMAND

if __name__ == "__main__":
    sys.exit(COMMAND.run())
