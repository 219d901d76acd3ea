"""The processes of one job (`jax.distributed`): sharing work and waiting for each other."""

from collections.abc import Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

T = TypeVar("T")


class ProcessError(Exception):
    """The processes of a job cannot continue together; the message is one line."""


def is_first() -> bool:
    """Whether this is the first process, which does the work that is done once."""
    return jax.process_index() == 0


def count() -> int:
    """The number of processes of the job."""
    return jax.process_count()


def share(items: Sequence[T]) -> Sequence[T]:
    """This process's share of the items, which are dealt out in turn."""
    return items[jax.process_index() :: count()]


def gather(value: int) -> np.ndarray:
    """Gathers a number below 2³¹ from every process; waits for all of them.

    Returns:
      The numbers, of shape (processes,).

    Raises:
      ProcessError: another process has ended.
    """
    if count() == 1:
        return np.array([value])
    try:
        return np.asarray(multihost_utils.process_allgather(np.int32(value)))
    except (RuntimeError, ValueError) as error:
        # results that other processes wrote are safe: see `store`
        raise ProcessError(
            "another process of this job has ended (see its output); finished chunks are kept, "
            "run again to continue"
        ) from error
