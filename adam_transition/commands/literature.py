"""A scoreboard of the literature: what others published about Adam's betas, measured and judged.

Each row is a statement in our words with its source, the number that the instrument measures, its
error, and a verdict. Writes them as a page too (literature.md). Example:

    python -m experiments.literature --only=shi_stated,shi_two_large
"""

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from adam_transition.commands import _flags, _outputs, _runner

if TYPE_CHECKING:
    from adam_transition.studies.literature.study import LiteratureStudy

FLAGS = _flags.common_flags("literature")
_list = partial(flags.DEFINE_list, flag_values=FLAGS)

_list("only", "", "Ids of the rows to measure; default: all.")


def main(values: dict[str, Any]) -> None:
    """Flags → measurements → claims, figure, page."""
    from adam_transition.studies.literature.page import page

    study = parse(values)
    path = Path(values["out"]) / "literature.md"
    _outputs.run_study(values, study, texts=lambda data: {path: page(study.claims(data))})


def parse(values: dict[str, Any]) -> "LiteratureStudy":
    """The study that the flags describe.

    Raises:
      ValueError: naming the flag, its value and what is allowed.
    """
    from adam_transition.studies.literature.entries import ENTRIES
    from adam_transition.studies.literature.study import LiteratureStudy

    ids = tuple(entry.id for entry in ENTRIES)
    if values["only"]:
        _flags.check_choices("only", values["only"], ids)
    return LiteratureStudy(tuple(i for i in ids if i in (values["only"] or ids)))


COMMAND = _runner.Command("literature", __doc__, FLAGS, main)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
