"""In a checkout, `python -m experiments.NAME` runs `adam_transition.commands.NAME`."""

from adam_transition import commands

__path__ = [*__path__, *commands.__path__]
