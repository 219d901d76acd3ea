"""Loss over batch size and beta2: the threshold beta2*(B), the rules, and the upper edge.

Example:
    python -m experiments.batch_size --flagfile=experiments/flagfiles/batch_size.flags
"""

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from absl import flags

from adam_transition.commands import _flags, _networks, _outputs, _runner

if TYPE_CHECKING:
    from adam_transition.studies.batch_size.study import BatchSizeStudy

FLAGS = _networks.training_flags("batch_size", seeds=5)
_list = partial(flags.DEFINE_list, flag_values=FLAGS)
_string = partial(flags.DEFINE_string, flag_values=FLAGS)
_integer = partial(flags.DEFINE_integer, flag_values=FLAGS)

_string("task", "mlp/mnist1d", "Model and data, written model/data.")
_list(
    "batch_size",
    "1,2,4,8,16,64,full",
    "Batch sizes, each a divisor of the number of samples; full: all samples.",
)
_integer("epochs", 16, "Epochs of each run with equal epochs.", 2)
_integer("steps", 480, "Steps of each run with equal steps; a multiple of --epochs.", 2)
_list("learning_rate", "0.003,0.01,0.03,0.1", "Values of eta0 > 0; results of all are kept.")
_string("beta1", "0.9", "beta1, a single value in [0, 1).")
_string("beta2", "0.4:1-1e-5:16:logit", "Grid of beta2 in [0, 1), three or more values.")


def main(values: dict[str, Any]) -> None:
    """Flags → training → windows → data set, figures, claims."""
    _outputs.run_study(values, parse(values))


def parse(values: dict[str, Any]) -> "BatchSizeStudy":
    """The study that the flags describe; loads its data set once, so that errors come early.

    Raises:
      ValueError: naming the flag, its value and what is allowed.
    """
    from adam_transition.studies.batch_size.study import BatchSizeStudy

    task = _networks.parse_task(values, values["task"], "task")
    _networks.check_data_dir(values, [task])
    beta1, beta2 = (_flags.parse_grid(name, values[name]) for name in ("beta1", "beta2"))
    if len(beta1) > 1:
        raise ValueError(f"--beta1={values['beta1']}: needs one value")
    if len(beta2) < 3:
        raise ValueError(f"--beta2={values['beta2']}: a threshold needs three or more values")
    with _networks.naming_flags("task", values):
        _, samples = task.load()
        given = _flags.parse_list("batch_size", values["batch_size"], str)
        sizes = [str(len(samples)) if one == "full" else one for one in given]
        if "full" in given and str(len(samples)) in given:
            raise ValueError(
                f"batch_size={','.join(given)}: full is {len(samples)} here, which is given too"
            )
        study = BatchSizeStudy(
            task,
            len(samples),
            tuple(sorted(_flags.parse_list("batch_size", sizes, int))),
            values["epochs"],
            values["steps"],
            _networks.parse_grid(values, beta1, beta2),
            _networks.parse_conditions(values),
        )
        study.check()
    return study


COMMAND = _runner.Command("batch_size", __doc__, FLAGS, main, needs=_networks.PACKAGES)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
