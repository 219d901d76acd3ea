"""The processes of one job (`jax.distributed`): what each does, and waiting for the others."""

from collections.abc import Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

T = TypeVar("T")


class ProcessError(Exception):
    """The processes of a job cannot go on together; the message is one line."""


def is_first() -> bool:
    """Whether this process is the one that does what is done once."""
    return jax.process_index() == 0


def count() -> int:
    """Number of processes of the job."""
    return jax.process_count()


def share(items: Sequence[T]) -> Sequence[T]:
    """This process's items, dealt out in turn."""
    return items[jax.process_index() :: count()]


def gather(value: int) -> np.ndarray:
    """A number below 2³¹ of every process, of shape (processes,); waits for all of them.

    Raises:
      ProcessError: a process is gone.
    """
    if count() == 1:
        return np.array([value])
    try:
        return np.asarray(multihost_utils.process_allgather(np.int32(value)))
    except (RuntimeError, ValueError) as error:
        # what the others wrote is safe: see `store`
        raise ProcessError(
            "another process of this job has ended, see what it printed; finished chunks are kept, "
            "run again to continue"
        ) from error
