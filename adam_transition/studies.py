"""A study: a data set made of parts, each computed once and kept. Knows nothing of Adam."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr
from tqdm import tqdm

from adam_transition import store


@dataclass(frozen=True)
class Plan:
    """What a study computes: its axes, and its parts by name.

    A part counts when all that it adds is there (`Store.complete`). One that takes long may fill
    some of `variables` chunk by chunk instead, and so be resumed within.
    """

    coords: xr.Dataset
    parts: Mapping[str, Callable[[store.Store], None]]
    variables: Mapping[str, store.Variable] = field(default_factory=dict)
    chunks: Mapping[str, int] = field(default_factory=dict)


def run(
    plan: Plan,
    path: Path,
    *,
    identity: Mapping[str, Any],
    attrs: Mapping[str, Any],
    resume: bool,
) -> store.Store:
    """Computes the parts that the store lacks; progress goes to stderr, if that is a terminal.

    Raises:
      StoreError: see `store`.
    """
    results = store.open_or_create(
        path,
        coords=plan.coords,
        variables=plan.variables,
        chunks=plan.chunks,
        identity=identity,
        attrs=attrs,
        resume=resume,
    )
    bar = tqdm(plan.parts.items(), unit="part", disable=None)
    with results.closed_on_error():
        for name, compute in bar:
            bar.set_description(name)
            results.complete(name, compute)
    return results
