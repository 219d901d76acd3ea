"""The commands: from flags to a study.

Run `adam-transition NAME`, or in a checkout `python -m experiments.NAME`.
"""

import importlib
import pkgutil
import sys
from collections.abc import Sequence

NAMES = tuple(
    module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")
)
"""Every module here that is not private is a command."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command named by the first argument; returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    name = arguments[0] if arguments else "--help"
    if name not in NAMES:
        if name not in ("--help", "-h", "help"):
            print(f"adam-transition: {name!r} is not one of {', '.join(NAMES)}", file=sys.stderr)
            return 2
        print("adam-transition NAME --flagfile=NAME …; --help after a name lists its flags\n")
        for one in NAMES:
            command = importlib.import_module(f"{__name__}.{one}").COMMAND
            print(f"  {one:14} {command.description.strip().splitlines()[0]}")
        return 0
    command = importlib.import_module(f"{__name__}.{name}").COMMAND
    if argv is not None:
        return command.run(arguments[1:])
    del sys.argv[1]
    return command.run()
