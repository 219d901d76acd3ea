"""The authors' map of training loss on MNIST, beside networks of ours.

The picture says neither network, batch size, learning rate nor epochs; so shapes are compared and
not losses. Trains a network at every (beta1, beta2) of a part of the picture's grid, for several
batch sizes and learning rates, and says which come nearest and whether they have the published
edges. Without mnist10k at hand take --tasks=mlp/fashion_mnist or mlp/digits. Example:

    python -m experiments.mnist_plane --tasks=mlp/digits --epochs=5
"""

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from absl import flags

from adam_transition.commands import _flags, _networks, _outputs, _runner

if TYPE_CHECKING:
    from adam_transition.studies.mnist_plane.study import MnistPlaneStudy

FLAGS = _networks.training_flags("mnist_plane")
_list = partial(flags.DEFINE_list, flag_values=FLAGS)
_string = partial(flags.DEFINE_string, flag_values=FLAGS)

_list("tasks", "mlp/mnist10k", "One network and its images: mlp/mnist10k, mlp/mnist, mlp/digits, …")
_list("batch_size", "1,4,16", "Batch sizes, each a divisor of the number of samples.")
flags.DEFINE_integer("epochs", 1, "Epochs of each run.", 1, flag_values=FLAGS)
_list("learning_rate", "0.0001,0.0003,0.001,0.003", "Values of eta0 > 0.")
_string("beta1", "0:0.96:13", "Grid of beta1, multiples of 0.02 from 0 to 0.98, with 0.")
_string("beta2", "0:0.96:13", "Grid of beta2, likewise.")


def main(values: dict[str, Any]) -> None:
    """Flags → training, comparison → data set, figure, claims."""
    _outputs.run_study(values, parse(values))


def parse(values: dict[str, Any]) -> "MnistPlaneStudy":
    """The study that the flags describe; loads its data set once, so that errors come early.

    Raises:
      ValueError: naming the flag, its value and what is allowed.
    """
    import numpy as np

    from adam_transition.studies.mnist_plane.claims import HARD, SOFT
    from adam_transition.studies.mnist_plane.data import LEVEL, on_grid
    from adam_transition.studies.mnist_plane.study import MnistPlaneStudy
    from adam_transition.studies.published.data import crossing
    from adam_transition.studies.published.digitised import mnist_2022

    if len(values["tasks"]) != 1:
        raise ValueError(f"--tasks={','.join(values['tasks'])}: must be one task")
    beta1, beta2 = (_flags.parse_grid(name, values[name]) for name in ("beta1", "beta2"))
    if beta1.min() > 0 or min(np.sum(beta1 <= SOFT), np.sum(beta1 >= HARD)) < 2:
        raise ValueError(
            f"--beta1={values['beta1']}: must have 0, another value to {SOFT} and two "
            f"from {HARD} on"
        )
    try:
        published = on_grid(mnist_2022(), beta1, beta2)
    except ValueError as error:
        raise ValueError(f"--{error}") from None
    edge = crossing(beta2, published, LEVEL)
    if not np.isfinite(edge[beta1 <= SOFT]).all() or not np.isfinite(edge[beta1 >= HARD]).all():
        raise ValueError(
            f"--beta2={values['beta2']}: must have values on both sides of the picture's edge, "
            "from 0.2 to 0.96 or so"
        )
    if not edge[beta1 <= SOFT][-1] < edge[0]:
        raise ValueError(
            f"--beta1={values['beta1']}: the last value to {SOFT} must be where the picture's edge "
            "has fallen below that at 0, from 0.4 on"
        )
    task = _networks.parse_task(values, values["tasks"][0], "tasks")
    _networks.check_data_dir(values, (task,))
    study = MnistPlaneStudy(
        (task,),
        tuple(_flags.parse_integers("batch_size", values["batch_size"])),
        values["epochs"],
        _networks.parse_grid(values, beta1, beta2),
        _networks.parse_conditions(values),
    )
    with _networks.naming_flags("tasks", values):
        study.check()
    return study


COMMAND = _runner.Command("mnist_plane", __doc__, FLAGS, main, needs=_networks.PACKAGES)

if __name__ == "__main__":
    sys.exit(COMMAND.run())
