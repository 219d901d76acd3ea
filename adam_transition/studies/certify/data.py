"""The data of the certificate study: where which sign of the drift is proved."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import xarray as xr

from adam_transition import adam
from adam_transition.sampling import Sampling
from adam_transition.sweeps.pieces import Pieces
from adam_transition.sweeps.study import variable
from adam_transition.theory import balls, certificates
from adam_transition.theory.boundary import divergence_intervals
from adam_transition.theory.stationary_drift import stationary_drift

POINTS = tuple(Fraction(k, 16) for k in range(1, 16))
"""Values of β2 at which the random orders are tested for further sign changes."""

_MOST_EDGES = 8


@dataclass(frozen=True)
class CertifySpec:
    """What to prove: the counterexample with n components and slope a, an exact number."""

    n: int
    a: Fraction
    samplings: tuple[Sampling, ...]
    beta1: tuple[Fraction, ...]
    depth: int  # the smallest rectangles are 2^−depth wide

    def slopes(self) -> tuple[Fraction, ...]:
        """The slopes in units of a, to which the drift is invariant."""
        return (1 / self.a + self.n - 1, *[Fraction(-1)] * (self.n - 1))


def coordinates(spec: CertifySpec) -> xr.Dataset:
    """The labelled axes; β1 is exact in the attributes."""
    beta1 = np.array([float(value) for value in spec.beta1])
    return xr.Dataset(
        coords={
            "sampling": ("sampling", np.array(spec.samplings, dtype=object)),
            "beta1": ("beta1", beta1, {"long_name": "β1", "units": "1"}),
        },
        attrs={
            "n": spec.n,
            "a": str(spec.a),
            "slopes": " ".join(map(str, spec.slopes())),
            "exact_beta1": " ".join(map(str, spec.beta1)),
        },
    )


def area(spec: CertifySpec) -> Mapping[str, xr.Variable]:
    """`tree` over (node), characters in preorder; and `agrees`, the share of its rectangles.

    `agrees` is the share of rectangles with a proved sign at whose centre double precision finds
    the same sign.
    """
    tree = certificates.tree_of_area(balls.exact(spec.slopes()), spec.depth)
    boxes = [box for box in certificates.boxes(tree) if box.sign != certificates.OPEN]
    level, i, j = np.array([box[:3] for box in boxes]).T
    size = np.ldexp(1.0, -level)
    hyper = adam.Hyperparameters(1 - (i + 0.5) * size, 1 - (j + 0.5) * size)
    slopes = np.array([float(slope) for slope in spec.slopes()])
    drift = stationary_drift(slopes[:, None], hyper).drift[:, 0]
    away = np.array([box.sign == certificates.AWAY for box in boxes])
    return {
        "tree": variable("node", np.frombuffer(tree.encode(), np.uint8), "node of a quadtree"),
        "agrees": variable((), float(((drift > 0) == away).mean()), "share with the same sign"),
    }


def edges(spec: CertifySpec, pieces: Pieces) -> Mapping[str, xr.Variable]:
    """`edge` over (sampling, beta1, edge, end): enclosures of all sign changes in β2, NaN if none.

    Also `starts_away`, whether D > 0 below the first; `cover` over (sampling, beta1, cover_node),
    characters; `point_sign` over (sampling, beta1, point), the code of a sign at `point`.
    """
    jobs = {
        (sampling, str(beta1).replace("/", "_")): partial(_edges, spec, sampling, beta1)
        for sampling in spec.samplings
        for beta1 in spec.beta1
    }
    # one after another: flint's precision belongs to the whole process
    kept = [pieces.keep(" ".join(name), job) for name, job in jobs.items()]
    shape = len(spec.samplings), len(spec.beta1)
    longest = max(len(cover) for _, _, cover, _ in kept)
    covers = [np.pad(cover, (0, longest - len(cover))) for _, _, cover, _ in kept]
    values = (
        np.reshape([one for one, *_ in kept], (*shape, _MOST_EDGES, 2)),
        np.reshape([starts for _, starts, *_ in kept], shape),
        np.reshape(covers, (*shape, longest)),
        np.reshape([signs for *_, signs in kept], (*shape, len(POINTS))),
    )
    dims = "sampling", "beta1"
    return {
        "edge": variable((*dims, "edge", "end"), values[0], "end of an interval with D = 0 in it"),
        "starts_away": variable(dims, values[1], "whether D > 0 below the first sign change"),
        "cover": variable((*dims, "cover_node"), values[2], "node of a tree of [0, 1]"),
        "point": variable("point", [float(point) for point in POINTS], "β2"),
        "point_sign": variable((*dims, "point"), values[3], "code of the sign of D; 0: not tried"),
    }


def _edges(spec: CertifySpec, sampling: Sampling, beta1: Fraction) -> list[np.ndarray]:
    slopes = np.array([float(slope) for slope in spec.slopes()])
    [intervals] = divergence_intervals(slopes[:, None], [float(beta1)], sampling)
    ends = [end.beta2 for interval in intervals for end in interval if 0 < end.beta2 < 1]
    found = certificates.edges(balls.exact(spec.slopes()), beta1, sampling, ends, POINTS)
    enclosures = np.full((_MOST_EDGES, 2), np.nan)
    enclosures[: len(ends)] = [[float(end) for end in pair] for pair in found.intervals] or np.nan
    signs = np.zeros(len(POINTS), np.uint8)
    signs[: len(found.points)] = [ord(sign) for _, sign in found.points]
    return [
        enclosures,
        np.array(found.starts_away),
        np.frombuffer(found.cover.encode(), np.uint8),
        signs,
    ]


def tree(dataset: xr.Dataset) -> str:
    """The tree of rectangles."""
    return _text(dataset["tree"].values)


def found_edges(dataset: xr.Dataset) -> list[certificates.Edges]:
    """The sign changes, exact: all numbers are floats, and hence fractions."""
    found = []
    exact_beta1 = [Fraction(text) for text in dataset.attrs["exact_beta1"].split()]
    for i, sampling in enumerate(dataset["sampling"].values):
        for j, beta1 in enumerate(exact_beta1):
            one = dataset.isel(sampling=i, beta1=j)
            pairs = one["edge"].values[np.isfinite(one["edge"].values[:, 0])]
            signs = one["point_sign"].values
            points = [(Fraction(x), chr(c)) for x, c in zip(one["point"].values, signs) if c]
            found.append(
                certificates.Edges(
                    sampling=sampling,
                    beta1=beta1,
                    starts_away=bool(one["starts_away"]),
                    intervals=tuple((Fraction(low), Fraction(high)) for low, high in pairs),
                    cover=_text(one["cover"].values),
                    points=tuple(points),
                )
            )
    return found


def certificate(dataset: xr.Dataset) -> dict[str, Any]:
    """The certificate of the data set; see `certificates.as_json`."""
    slopes = [Fraction(text) for text in dataset.attrs["slopes"].split()]
    return certificates.as_json(slopes, tree(dataset), found_edges(dataset))


def _text(codes: np.ndarray | Sequence[int]) -> str:
    return bytes(np.asarray(codes, np.uint8)).rstrip(b"\0").decode()
