"""Flags of networks, shared by `experiments.networks` and `experiments.batch_size`."""

import contextlib
import math
from collections.abc import Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from absl import flags

from adam_transition.commands import _flags

if TYPE_CHECKING:
    from adam_transition.networks.panels import Conditions, Task
    from adam_transition.networks.training import Grid


PACKAGES = ("flax",)
"""Packages of the extra `networks` that all networks need; some data sets need others."""

_BYTES_PER_NETWORK = 200.0
"""Per epoch: loss and accuracy in single and double precision, at four records or more."""


def training_flags(name: str, *, seeds: int = 3) -> flags.FlagValues:
    """The flags that both experiments share."""
    values = _flags.common_flags(name)
    string = partial(flags.DEFINE_string, flag_values=values)
    integer = partial(flags.DEFINE_integer, flag_values=values)
    string(
        "data_dir",
        None,
        "Folder with the files of an image data set, or the file for text; some have a default.",
    )
    integer("samples", None, "Use only the first training samples; default: nearly all.", 1)
    integer(
        "width",
        None,
        "Hidden units, or channels of the first layer; default: that of the model.",
        1,
        2**16,
    )
    string(
        "sampling",
        "random_shuffling",
        "Sampling scheme: cyclic, shuffle_once, random_shuffling or with_replacement.",
    )
    string(
        "schedule", "inverse_sqrt_epoch", "Step sizes: constant or inverse_sqrt_epoch (per epoch)."
    )
    string(
        "initialization",
        "bias_correction",
        "Initial moments: zero, first_gradient or bias_correction.",
    )
    _flags.define_float("epsilon", 1e-8, "epsilon of Adam, 0 or more.", 0, flag_values=values)
    flags.DEFINE_enum(
        "dtype", "float32", ("float32", "float64"), "Precision of training.", flag_values=values
    )
    integer("seeds", seeds, "Number of seeds, for initial parameters and sample order.", 1)
    integer("evaluated", 2048, "Largest number of training samples to measure the loss on.", 1)
    return values


def parse_conditions(values: dict[str, Any]) -> "Conditions":
    """The conditions that all networks share.

    Raises:
      ValueError: naming the flag, its value and what is allowed.
    """
    from adam_transition import adam, sampling
    from adam_transition.networks.panels import Conditions
    from adam_transition.simulate import Method

    schedules = ("constant", "inverse_sqrt_epoch")
    _flags.check_choices("sampling", [values["sampling"]], sampling.SAMPLINGS)
    _flags.check_choices("schedule", [values["schedule"]], schedules)
    _flags.check_choices("initialization", [values["initialization"]], adam.INITIALIZATIONS)
    _flags.check_number("epsilon", values["epsilon"], dtype=values["dtype"], least=0)
    method = Method(values["sampling"], values["schedule"], values["initialization"])
    return Conditions(method, values["epsilon"], values["evaluated"], values["dtype"])


def parse_task(values: dict[str, Any], text: str, flag: str) -> "Task":
    """A task from `model/data`, or with its width and samples `model-width/data@samples`.

    Raises:
      ValueError: naming the flag, its value and what is allowed.
    """
    from adam_transition.networks import data, models
    from adam_transition.networks.panels import Task

    model, slash, samples = text.partition("/")
    if not slash:
        raise ValueError(f"--{flag}={text}: write model/data, for example mlp/digits")
    (model, width), (samples, count) = (
        _with_number(flag, text, part, sign) for part, sign in ((model, "-"), (samples, "@"))
    )
    _flags.check_choices(f"{flag}={text}: model", [model], models.MODELS)
    _flags.check_choices(f"{flag}={text}: data", [samples], data.DATA_SETS)
    folder = values["data_dir"] if samples in data.FROM_FILES else None
    return Task(
        samples, model, values["width"] if width is None else width, folder,
        values["samples"] if count is None else count,
    )  # fmt: skip


def _with_number(flag: str, text: str, part: str, sign: str) -> tuple[str, int | None]:
    """A name, and the positive integer after the sign, if there is one."""
    name, given, number = part.partition(sign)
    if not given:
        return name, None
    if not number.isdecimal() or int(number) < 1:
        raise ValueError(f"--{flag}={text}: {number!r} after {sign} is not a positive integer")
    return name, int(number)


def is_there(task: "Task") -> bool:
    """Whether the data of a task are there."""
    from adam_transition.networks import data

    return task.data_dir is not None or data.is_there(task.data)


@contextlib.contextmanager
def naming_flags(flag: str, values: dict[str, Any]) -> Iterator[None]:
    """Makes errors of the library about a task name the flag of the task."""
    try:
        yield
    except ValueError as error:
        message = str(error).removeprefix("--")
        if message.startswith(("model=", "data=")):
            given = values[flag] if isinstance(values[flag], str) else ",".join(values[flag])
            raise ValueError(f"--{flag}={given}: {message}") from None
        raise ValueError(f"--{message}") from None


def check_data_dir(values: dict[str, Any], tasks: Iterable["Task"]) -> None:
    """Raises ValueError if --data_dir is given but no task reads files."""
    from adam_transition.networks import data

    if values["data_dir"] is not None and not any(task.data in data.FROM_FILES for task in tasks):
        raise ValueError(
            f"--data_dir={values['data_dir']}: only {', '.join(data.FROM_FILES)} need files"
        )


def parse_grid(values: dict[str, Any], beta1: Iterable[float], beta2: Iterable[float]) -> "Grid":
    """The grid of hyperparameters and seeds.

    Raises:
      ValueError: naming the flag, its value and what is allowed.
    """
    from adam_transition.networks.training import Grid

    rates = _flags.parse_list("learning_rate", values["learning_rate"], float)
    for rate in rates:
        _flags.check_number("learning_rate", rate, dtype=values["dtype"], above=0)
    if values["seed"] + values["seeds"] > 2**31:
        raise ValueError(f"--seeds={values['seeds']}: --seed={values['seed']} leaves no room")
    seeds = range(values["seed"], values["seed"] + values["seeds"])
    axes = {"learning_rate": rates, "beta1": list(beta1), "beta2": list(beta2)}
    size = len(seeds) * math.prod(map(len, axes.values()))
    _flags.check_memory(
        f"--epochs={values['epochs']}, --seeds={values['seeds']} and the grids of "
        f"{', '.join(axes)}: {size} networks",
        _BYTES_PER_NETWORK * size * values["epochs"],
    )
    beta1, beta2 = axes["beta1"], axes["beta2"]
    return Grid(tuple(rates), tuple(seeds), tuple(map(float, beta1)), tuple(map(float, beta2)))
