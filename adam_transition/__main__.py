"""`python -m adam_transition NAME`: see `adam_transition.commands`."""

import sys

from adam_transition.commands import main

if __name__ == "__main__":
    sys.exit(main())
