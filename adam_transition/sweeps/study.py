"""A study: a data set made of parts, and what the data say. Knows nothing of Adam.

The parts of a study are pure: a part takes what was computed before it and returns new variables,
and `run` commits each as a whole to a store. So a run that is stopped resumes with the first part
that the store lacks, and a study can be computed from a notebook as well (`compute`). A part that
takes long keeps arrays on its way (`Pieces`), or is `Filled` chunk by chunk.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
import xarray as xr
from jaxtyping import Shaped
from tqdm import tqdm

from adam_transition.sweeps import processes, store
from adam_transition.sweeps.claims import Claim
from adam_transition.sweeps.pieces import Pieces

if TYPE_CHECKING:  # figures are drawn last, and matplotlib is slow to import
    from matplotlib.figure import Figure

Part: TypeAlias = Callable[[xr.Dataset, Pieces], Mapping[str, xr.Variable]]
"""(data computed so far, where to keep arrays on the way) → new variables by name."""


class Filled(NamedTuple):
    """A part whose variables are filled chunk by chunk, and which is resumed within."""

    variables: Mapping[str, store.Variable]
    chunks: Mapping[str, int]  # length of a chunk for each dimension
    fill: Callable[
        [store.Store], None
    ]  # writes what the store lacks; all processes of a job call it


@runtime_checkable
class Study(Protocol):
    """One experiment of the library: data in parts that can be resumed, and what the data say."""

    @property
    def name(self) -> str:
        """Of the data set, without spaces."""
        ...

    def coordinates(self) -> xr.Dataset:
        """The labelled axes; attributes of this data set become those of the results."""
        ...

    def parts(self) -> Mapping[str, Part | Filled]:
        """What is computed, by name, in order."""
        ...

    def claims(self, data: xr.Dataset) -> Sequence[Claim]:
        """Statements beside what was measured."""
        ...

    def summary(self, data: xr.Dataset) -> Mapping[str, Any]:
        """What else is said of the data, JSON-able; lines under `notes` are printed."""
        ...

    def figures(self) -> Mapping[str, "Callable[[xr.Dataset], Figure]"]:
        """Functions that draw the data, by the name of the file."""
        ...


def variable(
    dims: str | Sequence[str],
    values: Shaped[np.ndarray, "..."] | Sequence[Any],
    long_name: str,
    units: str = "1",
    *,
    dtype: np.dtype | type | None = None,
) -> xr.Variable:
    """A variable of a data set, with its label and units."""
    attrs = {"long_name": long_name, "units": units}
    return xr.Variable(dims, np.asarray(values, dtype), attrs)


def run(
    study: Study,
    path: Path,
    *,
    identity: Mapping[str, Any],
    attrs: Mapping[str, Any] | None = None,
    resume: bool = True,
) -> store.Store:
    """Computes the parts of a study that a store lacks; progress goes to stderr, on a terminal.

    The processes of a job (`jax.distributed`) share the parts that are `Filled`; all must call this
    alike. The first computes the others, and the rest return before.

    Args:
      study: what to compute.
      path: the store.
      identity: see `store.open_or_create`.
      attrs: see `store.open_or_create`.
      resume: see `store.open_or_create`.

    Raises:
      ValueError: something in the study that cannot be computed.
      StoreError: see `store`.
      ProcessError: another process of the job has ended.
    """
    parts = study.parts()
    filled = [part for part in parts.values() if isinstance(part, Filled)]
    if not processes.is_first():  # the first process makes the store
        processes.gather(0)
    results = store.open_or_create(
        path,
        coords=study.coordinates(),
        variables={name: one for part in filled for name, one in part.variables.items()},
        chunks={dim: size for part in filled for dim, size in part.chunks.items()},
        identity=identity,
        attrs=attrs or {},
        resume=resume,
        shared=not processes.is_first(),
    )
    if processes.is_first():
        processes.gather(0)
    bar = tqdm(parts.items(), unit="part", disable=None if processes.is_first() else True)
    with results.closed_on_error():
        for name, part in bar:
            bar.set_description(name)
            if isinstance(part, Filled):
                results.fill(
                    name,
                    part.fill,
                    owner=processes.is_first(),
                    shared=processes.count() > 1,
                )
            elif processes.is_first():
                results.complete(name, part)
    return results


def compute(study: Study) -> xr.Dataset:
    """The whole data set of a study, in memory: nothing is kept of a run that is stopped.

    Raises:
      ValueError: something in the study that cannot be computed.
    """
    with tempfile.TemporaryDirectory() as folder:
        results = run(study, Path(folder) / f"{study.name}.zarr", identity={})
        data = results.load()
        results.close()
        return data
