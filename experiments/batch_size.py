"""`python -m experiments.batch_size`; see `adam_transition.commands.batch_size`."""

import sys

from adam_transition.commands.batch_size import COMMAND

if __name__ == "__main__":
    sys.exit(COMMAND.run())
