"""Networks on the grid of the authors' map, and how near each training comes to its shape."""

from collections.abc import Mapping

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.stats import spearmanr

from adam_transition.studies.published.data import crossing
from adam_transition.studies.published.digitised import PublishedMap, mnist_2022
from adam_transition.sweeps.study import variable

LEVEL = 0.52
"""Loss at the edge of the published map's bad region, as its digitisers drew it."""

PANEL = "batch_size", "learning_rate", "seed"
"""Dimensions of the trainings that are compared."""


def on_grid(
    picture: PublishedMap, beta1: np.ndarray, beta2: np.ndarray
) -> Float[np.ndarray, "K W"]:
    """The published map at some of its grid points.

    Raises:
      ValueError: a β is not on its grid.
    """
    indices = []
    for name, wanted, axis in (("beta1", beta1, picture.beta1), ("beta2", beta2, picture.beta2)):
        nearest = np.abs(axis[:, None] - wanted).argmin(axis=0)
        off = np.abs(axis[nearest] - wanted) > 1e-9
        if off.any():
            raise ValueError(
                f"{name}={wanted[off][0]:g}: must be on the picture's grid, multiples of 0.02 from "
                f"0 to {axis[-1]:g}"
            )
        indices.append(nearest)
    return picture.values[np.ix_(*indices)]


def shapes(dataset: xr.Dataset) -> Mapping[str, xr.Variable]:
    """How the maps of the trainings compare with the published one.

    - `published` over (beta1, beta2), in nats.
    - `rank_correlation` over `PANEL`: Spearman's, with the cells that the picture clips as ties. It
      does not depend on the scale of the loss, which other networks do not share.
    - `rank_correlation_of_beta2`: that of a map which falls with β2 and ignores β1.
    - `level` over `PANEL`: our loss where the published map crosses `LEVEL` at the smallest β1.
    - `edge` over `PANEL` and beta1: the largest β2 at which our loss crosses that level; and
      `published_edge` over (beta1) with `LEVEL` itself.
    """
    picture = mnist_2022()
    beta1, beta2 = dataset["beta1"].values, dataset["beta2"].values
    published = on_grid(picture, beta1, beta2)
    published_edge = crossing(beta2, published, LEVEL)
    late = dataset["late_loss"].isel(task=0).transpose(*PANEL, "beta1", "beta2").values
    lead = late.shape[:3]
    rank, level, edge = np.empty(lead), np.empty(lead), np.empty((*lead, len(beta1)))
    for at in np.ndindex(*lead):
        ours = late[at]
        rank[at] = spearmanr(published.ravel(), ours.ravel()).statistic
        level[at] = np.interp(published_edge[0], beta2, ours[0])
        edge[at] = crossing(beta2, np.minimum(ours, 10 * level[at]), float(level[at]))
    beta2_alone = np.broadcast_to(-beta2, published.shape)
    baseline = spearmanr(published.ravel(), beta2_alone.ravel()).statistic
    return {
        "rank_correlation_of_beta2": variable((), baseline, "rank correlation of −β2 with it"),
        "published": variable(
            ("beta1", "beta2"), published, "published training loss, clipped at 0.55", "nats"
        ),
        "published_edge": variable("beta1", published_edge, f"its edge at {LEVEL}"),
        "rank_correlation": variable(PANEL, rank, "rank correlation with the published map"),
        "level": variable(PANEL, level, "our loss at its edge for the smallest β1", "nats"),
        "edge": variable((*PANEL, "beta1"), edge, "largest β2 at which the loss crosses the level"),
    }
