"""Training loss of networks over the (beta1, beta2) plane, loss curves, and loss spikes.

Example:
    python -m experiments.networks --flagfile=experiments/flagfiles/networks.flags
"""

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from absl import flags

from adam_transition.commands import _flags, _networks, _outputs, _runner

if TYPE_CHECKING:
    from adam_transition.studies.networks.study import NetworkStudy

FLAGS = _networks.training_flags("networks")
_list = partial(flags.DEFINE_list, flag_values=FLAGS)
_string = partial(flags.DEFINE_string, flag_values=FLAGS)

_list("tasks", "mlp/digits", "model/data: mlp, convnet, resnet18, decoder on digits, mnist1d, …")
_list("batch_size", "1,16", "Batch sizes, each a divisor of the number of samples.")
flags.DEFINE_integer("epochs", 10, "Epochs of each run.", 1, flag_values=FLAGS)
_list("learning_rate", "0.001,0.003,0.01", "Values of eta0 > 0; each cell uses its best.")
_string("beta1", "0:0.99:16", "Grid of beta1 in [0, 1), two or more values.")
_string("beta2", "0.05:1-1e-5:16:logit", "Grid of beta2 in [0, 1), two or more values.")


def main(values: dict[str, Any]) -> None:
    """Flags → training → data set, figures, claims."""
    _outputs.run_study(values, parse(values))


def parse(values: dict[str, Any]) -> "NetworkStudy":
    """The study that the flags describe; loads its data sets once, so that errors come early.

    Raises:
      ValueError: naming the flag, its value and what is allowed.
    """
    from adam_transition.studies.networks.study import NetworkStudy

    if not values["tasks"] or len(set(values["tasks"])) < len(values["tasks"]):
        raise ValueError(f"--tasks={','.join(values['tasks'])}: needs one or more different tasks")
    grids = [_flags.parse_grid(name, values[name]) for name in ("beta1", "beta2")]
    for name, grid in zip(("beta1", "beta2"), grids, strict=True):
        if len(grid) < 2:
            raise ValueError(f"--{name}={values[name]}: a plane needs two or more values")
    tasks = tuple(_networks.parse_task(values, task, "tasks") for task in values["tasks"])
    _networks.check_data_dir(values, tasks)
    study = NetworkStudy(
        tasks,
        tuple(_flags.parse_integers("batch_size", values["batch_size"])),
        values["epochs"],
        _networks.parse_grid(values, *grids),
        _networks.parse_conditions(values),
    )
    with _networks.naming_flags("tasks", values):
        study.check()
    return study


COMMAND = _runner.Command("networks", __doc__, FLAGS, main, needs=_networks.PACKAGES)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
