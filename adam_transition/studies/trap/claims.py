"""Claims of the trap study, and its rows."""

from typing import Any

import numpy as np
import xarray as xr

from adam_transition.sweeps.claims import Claim, assess, share_error
from adam_transition.theory.trap import FAR

_REFERENCE = "docs/mathematics/trap.md"


def claims(dataset: xr.Dataset) -> list[Claim]:
    """That there is a trap, where there is none, and that Adam itself falls into it."""
    schemes = dataset["sampling"].values
    found = [_far_starts(dataset), _no_trap(dataset)]
    if "cyclic" in schemes:
        one = dataset.sel(sampling="cyclic")
        share = _share(one["basin"] > 0, one["basin"].notnull())
        found += [
            assess(
                "cyclic_order_has_a_trap",
                "In cyclic order a part of the region D > 0 has starts near x* that stay (share "
                "of the cells, at the n where it is largest)",
                _REFERENCE,
                measured=float(share.max()),
                at_least=0.01,
                ours=True,
            ),
            _falls_in(one),
        ]
    if "with_replacement" in schemes:
        one = dataset.sel(sampling="with_replacement")
        share = _share(one["basin"] > 0, one["basin"].notnull())
        found.append(
            assess(
                "no_trap_with_replacement",
                "With replacement no start stays near x* where D > 0 (share of the cells in which "
                "one does, at the n where it is largest)",
                _REFERENCE,
                measured=float(share.max()),
                at_most=0.0,
                ours=True,
            )
        )
    return found


def _share(where: xr.DataArray, of: xr.DataArray) -> xr.DataArray:
    count = of.sum(("beta1", "beta2"))
    return (where & of).sum(("beta1", "beta2")) / count.where(count > 0)


def _leaves(distance: xr.DataArray, known: xr.DataArray) -> dict[str, float]:
    """The share of the known runs that end far from x*, with its error."""
    left = distance.values[known.values] > FAR
    return {
        "measured": float(left.mean()) if left.size else np.nan,
        "uncertainty": share_error(left),
    }


def _far_starts(dataset: xr.Dataset) -> Claim:
    return assess(
        "far_starts_leave",
        "Adam leaves from x* + 3 wherever D > 0, trap or not (share of the runs)",
        "docs/mathematics/transition.md, Theorems 1 and 2",
        **_leaves(dataset["far"], dataset["far"].notnull()),
        at_least=0.99,
        ours=True,
    )


def _no_trap(dataset: xr.Dataset) -> Claim:
    known = dataset["near"].notnull() & (dataset["basin_of_run"] == 0)
    return assess(
        "no_trap_no_stay",
        "Where the map has no trap, Adam leaves from one step off x* too (share of the runs)",
        _REFERENCE,
        **_leaves(dataset["near"], known),
        at_least=0.99,
        ours=True,
    )


def _falls_in(one: xr.Dataset) -> Claim:
    known = one["near"].notnull() & (one["basin_of_run"] >= 4)
    return assess(
        "adam_falls_into_the_trap",
        "In cyclic order, where the trap reaches 4 steps or more, runs of Adam with η0/√k from one "
        "step off x* stay near it (share, at the n where it is largest)",
        _REFERENCE,
        measured=float((one["near"] < FAR).where(known).mean("run").max()),
        at_least=0.25,
        ours=True,
    )


def rows(dataset: xr.Dataset) -> list[dict[str, Any]]:
    """For each (sampling, n): cells with D > 0, and the share of them with a trap."""
    found = []
    for i, j in np.ndindex(dataset["basin"].shape[:2]):
        basin = dataset["basin"].values[i, j]
        known = np.isfinite(basin)
        found.append(
            {
                "n": int(dataset["n"][j]),
                "a": float(dataset["a"][j]),
                "sampling": str(dataset["sampling"].values[i]),
                "cells": int(known.sum()),
                "trapped": float((basin[known] > 0).mean()) if known.any() else None,
                "largest_basin": float(basin[known].max()) if known.any() else None,
            }
        )
    return found
