"""Claims of the certificate study, and its rows."""

from typing import Any

import numpy as np
import xarray as xr

from adam_transition.studies.certify import data
from adam_transition.sweeps.claims import Claim, assess
from adam_transition.theory import certificates

_REFERENCE = "docs/mathematics/certificates.md"


def claims(dataset: xr.Dataset) -> list[Claim]:
    """How much is proved, how sharply, and whether double precision was right."""
    n = dataset.attrs["n"]
    decided = 0.999 if n <= 20 else 0.995
    undecided = float(certificates.shares(data.tree(dataset)).undecided)
    edge = dataset["edge"]
    width = edge.isel(end=1) - edge.isel(end=0)
    found = [
        assess(
            "area_is_decided",
            f"At least {decided:.1%} of the (β1, β2) square has a proved sign of the drift in "
            f"cyclic order (share at n = {n})",
            _REFERENCE,
            measured=1 - undecided,
            at_least=decided,
            ours=True,
        ),
        assess(
            "edges_are_enclosed",
            "All sign changes of the drift in β2 that double precision finds are enclosed to 1e-12 "
            "(widest enclosure)",
            _REFERENCE,
            measured=float(width.max()),
            at_most=1e-12,
            ours=True,
        ),
        assess(
            "double_precision_is_right",
            "Double precision finds the proved sign at the centres of all rectangles (share)",
            _REFERENCE,
            measured=float(dataset["agrees"]),
            at_least=1.0,
            ours=True,
        ),
    ]
    return [*found, *_no_others(dataset)]


def _no_others(dataset: xr.Dataset) -> list[Claim]:
    if "cyclic" not in dataset["sampling"].values:
        return []
    complete = [_is_complete(one) for one in data.found_edges(dataset) if one.sampling == "cyclic"]
    return [
        assess(
            "no_other_sign_changes",
            "In cyclic order it is proved that β2 in [0, 1] has no other sign changes (share of "
            "the values of β1)",
            _REFERENCE,
            measured=float(np.mean([np.nan if one is None else one for one in complete])),
            at_least=1.0,
            ours=True,
        )
    ]


def _is_complete(one: certificates.Edges) -> bool | None:
    """Whether all sign changes are known; None if the cover leaves that open."""
    changes = certificates.proved_changes(one.cover)
    return None if changes is None else changes == len(one.intervals)


def summary(dataset: xr.Dataset) -> dict[str, Any]:
    """`area`, an interval that holds the area of D > 0; `decided`, `iterates`, and the `rows`.

    `iterates` is the share of the square in which β1 < √β2 besides, so that Theorem 1 says what
    iterates do. Ends of the area are rounded outwards.
    """
    shares = certificates.shares(data.tree(dataset))
    low, high = float(shares.away), float(1 - shares.back)
    rows = [
        {
            "n": dataset.attrs["n"],
            "sampling": one.sampling,
            "beta1": float(one.beta1),
            "starts_away": one.starts_away,
            "edges": [[float(low), float(high)] for low, high in one.intervals],
            "complete": _is_complete(one) if one.sampling == "cyclic" else None,
        }
        for one in data.found_edges(dataset)
    ]
    return {
        "area": [np.nextafter(low, 0), np.nextafter(high, 1)],
        "decided": float(1 - shares.undecided),
        "iterates": float(shares.iterates),
        "rows": rows,
    }
