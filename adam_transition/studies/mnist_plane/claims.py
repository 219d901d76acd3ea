"""Claims about the shape of the authors' map of training loss on MNIST."""

from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from adam_transition.networks import outcomes
from adam_transition.studies.mnist_plane.data import LEVEL
from adam_transition.sweeps.claims import Claim, assess

_REFERENCE = "Figure 1 (b) of arXiv:2208.09632, digitised"

SOFT = 0.6
"""β1 up to which the published edge falls."""

HARD = 0.8
"""β1 from which on it rises steeply."""


def nearest(dataset: xr.Dataset) -> dict[str, Any]:
    """Batch size and learning rate of the trainings whose map is nearest to the published one."""
    return _nearest(dataset["rank_correlation"])


def _nearest(rank: xr.DataArray) -> dict[str, Any]:
    mean = rank.mean("seed")
    at = np.unravel_index(int(np.argmax(mean.fillna(-2).values)), mean.shape)
    return {str(dim): mean[dim].values[i].item() for dim, i in zip(mean.dims, at, strict=True)}


def claims(dataset: xr.Dataset) -> list[Claim]:
    """Judges the shape at the nearest batch size and learning rate; errors are over seeds."""
    chosen = nearest(dataset)
    one = dataset.sel(chosen)
    task = str(dataset["task"].values[0])
    where = f"{task}, B = {chosen['batch_size']}, η0 = {chosen['learning_rate']:g}"
    alone = float(dataset["rank_correlation_of_beta2"])
    beta1 = dataset["beta1"].values
    edge = one["edge"].transpose("seed", "beta1").values
    soft, hard = beta1 <= SOFT, beta1 >= HARD
    return [
        _over_seeds(
            "mnist_shape",
            "The authors' map of training loss over (β1, β2) has the shape of ours (lead of its "
            f"rank correlation over that of a map that depends on β2 alone, {alone:.3f}; {where})",
            one["rank_correlation"].values - alone,
            at_least=0.0,
        ),
        _move(dataset, edge, soft, "mnist_soft_edge", "falls", where),
        _move(dataset, edge, hard, "mnist_hard_edge", "rises", where),
        _over_seeds(
            "mnist_hard_edge_bounded",
            f"From β1 = {beta1[hard][0]:.2g} on that edge stays below β1 = √β2 (its β2 minus β1², "
            f"the largest; {where})",
            np.max(edge[:, hard] - beta1[hard] ** 2, axis=1),
            at_most=0.0,
        ),
        *_beyond(dataset, one, where),
        *_batch(dataset, task),
    ]


def _over_seeds(name: str, statement: str, values: Float[np.ndarray, " S"], **bounds: Any) -> Claim:
    """A claim about the mean over seeds."""
    mean = outcomes.mean(values)
    return assess(
        name, statement, _REFERENCE, measured=mean.value, uncertainty=mean.half_width, **bounds
    )


def _move(
    dataset: xr.Dataset, edge: np.ndarray, part: np.ndarray, name: str, moves: str, where: str
) -> Claim:
    """The edge moves at least half as far as the published one does over a part of the β1."""
    beta1 = dataset["beta1"].values[part]
    published = dataset["published_edge"].values[part]
    theirs = float(published[-1] - published[0])
    return _over_seeds(
        name,
        f"The edge of the bad region {moves} from β1 = {beta1[0]:.2g} to {beta1[-1]:.2g} (change "
        f"of its β2 over that of the published edge, {theirs:.2f}; half of it counts; {where})",
        (edge[:, part][:, -1] - edge[:, part][:, 0]) / theirs,
        at_least=0.5,
    )


def _beyond(dataset: xr.Dataset, one: xr.Dataset, where: str) -> list[Claim]:
    """β1 < √β2 is not what separates good from bad cells of a network."""
    late = one["late_loss"].isel(task=0).transpose("seed", "beta1", "beta2").values
    beta1, beta2 = dataset["beta1"].values[:, None], dataset["beta2"].values
    # cells beyond the condition whose β2 are good for β1 = 0
    beyond = (beta1 > np.sqrt(beta2)) & (beta2 >= dataset["published_edge"].values[0])
    if not beyond.any():
        return []
    level = one["level"].values
    good = np.mean(late[:, beyond] <= level[:, None], axis=1)
    theirs = float(np.mean(dataset["published"].values[beyond] <= LEVEL))
    return [
        _over_seeds(
            "mnist_beyond_condition",
            "Networks do not need β1 < √β2: beyond it some cells train as well as at the edge for "
            f"β1 = 0 (share of the {beyond.sum()} whose β2 is large enough there; of the published "
            f"map's: {theirs:.2f}; {where})",
            np.where(np.isfinite(level), good, np.nan),
            at_least=0.1,
            ours=True,
        )
    ]


def _batch(dataset: xr.Dataset, task: str) -> list[Claim]:
    sizes = dataset["batch_size"].values
    if len(sizes) < 2:
        return []
    rank = dataset["rank_correlation"]
    of_size = {int(size): _best(rank.sel(batch_size=size)) for size in sizes}
    small = min(of_size)
    rival = max((size for size in of_size if size != small), key=lambda size: of_size[size].mean())
    return [
        _over_seeds(
            "mnist_batch_size",
            f"B = {small} comes nearer to the picture than any larger batch size in as many epochs "
            f"(lead in rank correlation over B = {rival}, each at its best of these learning "
            f"rates; the error leaves out that choice; {task})",
            of_size[small] - of_size[rival],
            at_least=0.0,
            ours=True,
        )
    ]


def _best(rank: xr.DataArray) -> np.ndarray:
    """The rank correlations of the seeds at the best learning rate."""
    return rank.sel(_nearest(rank)).values


def rows(dataset: xr.Dataset) -> list[dict[str, Any]]:
    """The rank correlation of every batch size and learning rate, the mean over seeds."""
    rank = dataset["rank_correlation"].mean("seed")
    return [
        {
            "batch_size": int(size),
            "learning_rate": float(rate),
            "rank_correlation": float(rank.sel(batch_size=size, learning_rate=rate)),
        }
        for size in dataset["batch_size"].values
        for rate in dataset["learning_rate"].values
    ]
