"""A study: a data set in parts, with its claims and figures. Independent of Adam.

The parts of a study are pure functions: each takes the data computed so far and returns new
variables, which `run` commits to a store as a whole. An interrupted run therefore resumes with the
first part that the store lacks, and a study can also be computed in a notebook (`compute`). A slow
part keeps intermediate arrays (`Pieces`), or is `Filled` chunk by chunk.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
import xarray as xr
from jaxtyping import ArrayLike, Shaped
from tqdm import tqdm

from adam_transition.sweeps import processes, store
from adam_transition.sweeps.claims import Claim
from adam_transition.sweeps.pieces import Pieces

if TYPE_CHECKING:  # matplotlib is slow to import, and figures are drawn last
    from matplotlib.figure import Figure

Part: TypeAlias = Callable[[xr.Dataset, Pieces], Mapping[str, xr.Variable]]
"""(data computed so far, storage for intermediate arrays) → new variables by name."""


class Filled(NamedTuple):
    """A part whose variables are filled chunk by chunk, so that it can resume in the middle."""

    variables: Mapping[str, store.Variable]
    chunks: Mapping[str, int]  # length of a chunk for each dimension
    # writes the chunks that the store lacks; all processes of a job call it
    fill: Callable[[store.Store], None]


@runtime_checkable
class DataStudy(Protocol):
    """What computes a data set in parts, and resumes after the last finished one."""

    @property
    def name(self) -> str:
        """The name of the data set, without spaces."""
        ...

    def coordinates(self) -> xr.Dataset:
        """The labelled axes; the attributes of this data set become those of the results."""
        ...

    def parts(self) -> Mapping[str, Part | Filled]:
        """The parts by name, in the order of computation."""
        ...


@runtime_checkable
class Study(DataStudy, Protocol):
    """One experiment: resumable parts of a data set, and its claims, summary and figures."""

    def claims(self, data: xr.Dataset) -> Sequence[Claim]:
        """Statements and their measurements."""
        ...

    def summary(self, data: xr.Dataset) -> Mapping[str, Any]:
        """Further results, JSON-serialisable; the lines under `notes` are printed."""
        ...

    def figures(self) -> Mapping[str, "Callable[[xr.Dataset], Figure]"]:
        """Functions that draw the data, by file name."""
        ...


def variable(
    dims: str | Sequence[str],
    values: Shaped[ArrayLike, "..."] | Sequence[Any],
    long_name: str,
    units: str = "1",
    *,
    dtype: np.dtype | type | str | None = None,
) -> xr.Variable:
    """A variable of a data set with its label and units.

    Args:
      dims: names of the dimensions.
      values: values with one axis for each dimension.
      long_name: label, for figures.
      units: units, "1" if dimensionless.
      dtype: dtype of the values; default: that of `np.asarray`.
    """
    attrs = {"long_name": long_name, "units": units}
    return xr.Variable(dims, np.asarray(values, dtype), attrs)


def run(
    study: DataStudy,
    path: Path,
    *,
    identity: Mapping[str, Any],
    attrs: Mapping[str, Any] | None = None,
    resume: bool = True,
) -> store.Store:
    """Computes the parts of a study that a store lacks; shows progress on stderr in a terminal.

    The processes of a job (`jax.distributed`) share the `Filled` parts, and all must call this
    function with the same arguments. The first process computes the other parts, while the others
    skip them.

    Args:
      study: the study.
      path: path of the store.
      identity: see `store.open_or_create`.
      attrs: see `store.open_or_create`.
      resume: see `store.open_or_create`.

    Returns:
      The store, still open.

    Raises:
      ValueError: the study cannot be computed.
      StoreError: the store cannot be opened or written.
      ProcessError: another process of the job has ended.
    """
    parts = study.parts()
    filled = [part for part in parts.values() if isinstance(part, Filled)]
    if not processes.is_first():  # the first process makes the store
        processes.gather(0)
    results = store.open_or_create(
        path,
        coords=study.coordinates(),
        variables={name: kind for part in filled for name, kind in part.variables.items()},
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


def compute(study: DataStudy) -> xr.Dataset:
    """Computes the whole data set of a study in memory; an interrupted call keeps nothing.

    Raises:
      ValueError: the study cannot be computed.
    """
    with tempfile.TemporaryDirectory() as folder:
        results = run(study, Path(folder) / f"{study.name}.zarr", identity={})
        data = results.load()
        results.close()
        return data
