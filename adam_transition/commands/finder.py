"""How good find_beta2 is: its answers on several tasks against training every beta2 to the end.

Every beta2 is trained with all seeds. The finder is replayed on groups of three seeds, and compared
with the others. The last tasks (--kept_back) played no part in its design.

Example:
    python -m experiments.finder --flagfile=experiments/flagfiles/finder.flags
"""

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from absl import flags

from adam_transition.commands import _flags, _networks, _outputs, _runner

if TYPE_CHECKING:
    from adam_transition.networks.panels import Task
    from adam_transition.studies.finder.study import FinderStudy

FLAGS = _networks.training_flags("finder", seeds=6)
_list = partial(flags.DEFINE_list, flag_values=FLAGS)
_string = partial(flags.DEFINE_string, flag_values=FLAGS)
_integer = partial(flags.DEFINE_integer, flag_values=FLAGS)

_list(
    "tasks",
    "mlp/digits,mlp/mnist1d",
    "Tasks model/data, or model-width/data@samples, in the order of their use.",
)
_integer("kept_back", 0, "How many of the last tasks played no part in the finder's design.", 0)
flags.DEFINE_bool(
    "skip_missing", False, "Leave out tasks whose data are not there.", flag_values=FLAGS
)
_list("batch_size", "1,4,16", "Batch sizes, each a divisor of the number of samples.")
_integer("epochs", 16, "Epochs of each run.", 1)
_list("learning_rate", "0.003,0.01,0.03", "Values of eta0 > 0.")
_string("beta1", "0.9", "beta1, a single value in [0, 1).")
_string("beta2", "0.4:1-1e-5:16:logit", "Grid of beta2 in [0, 1), four or more values.")
_integer("group", 3, "Seeds of one search.", 2)
_flags.define_float(
    "budget", 0.25, "Share of the cost of a full sweep, in (0, 1].", 0, flag_values=FLAGS
)


def main(values: dict[str, Any]) -> None:
    """Flags → training → searches → data set, figures, claims."""
    _outputs.run_study(values, parse(values))


def parse(values: dict[str, Any]) -> "FinderStudy":
    """The study that the flags describe; loads its data sets once, so that errors come early.

    Raises:
      ValueError: naming the flag, its value and what is allowed.
    """
    from adam_transition.studies.finder.study import FinderStudy

    tasks, missing = _tasks(values)
    beta1, beta2 = (_flags.parse_grid(name, values[name]) for name in ("beta1", "beta2"))
    if len(beta1) > 1:
        raise ValueError(f"--beta1={values['beta1']}: needs one value")
    if not 0 < values["budget"] <= 1:
        raise ValueError(f"--budget={values['budget']}: must be in (0, 1]")
    if len(beta2) < 4:
        raise ValueError(f"--beta2={values['beta2']}: needs four or more values")
    kept = [task for task in tasks if task in _last(values)]
    study = FinderStudy(
        tuple(tasks),
        len(kept),
        tuple(sorted(_flags.parse_integers("batch_size", values["batch_size"]))),
        values["epochs"],
        _networks.parse_grid(values, beta1, beta2),
        values["group"],
        values["budget"],
        _networks.parse_conditions(values),
        tuple(missing),
    )
    with _networks.naming_flags("tasks", values):
        study.check()
    return study


def _last(values: dict[str, Any]) -> "list[Task]":
    names = values["tasks"][len(values["tasks"]) - values["kept_back"] :]
    return [_networks.parse_task(values, name, "tasks") for name in names]


def _tasks(values: dict[str, Any]) -> "tuple[list[Task], list[str]]":
    """The tasks, and the names of those that are left out because their data are missing."""
    given = values["tasks"]
    if not given or len(set(given)) < len(given):
        raise ValueError(f"--tasks={','.join(given)}: needs one or more different tasks")
    if values["kept_back"] > len(given):
        raise ValueError(f"--kept_back={values['kept_back']}: there are {len(given)} tasks")
    tasks = [_networks.parse_task(values, name, "tasks") for name in given]
    _networks.check_data_dir(values, tasks)
    missing = [task for task in tasks if values["skip_missing"] and not _networks.is_there(task)]
    there = [task for task in tasks if task not in missing]
    if not there:
        raise ValueError(f"--tasks={','.join(given)}: the data of none are there")
    return there, [task.name for task in missing]


COMMAND = _runner.Command("finder", __doc__, FLAGS, main, needs=_networks.PACKAGES)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
