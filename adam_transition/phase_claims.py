"""Claims of a phase diagram that need more than its verdicts; see `experiments.phase`."""

import numpy as np
import xarray as xr

from adam_transition.claims import Claim, assess


def large_beta2_converges(dataset: xr.Dataset, *, margin: float = 0.01) -> Claim:
    """Whether all cells converge, with β1 < √β2, once β2 is past the exact threshold.

    That β2 is large enough is read off the drift: it is negative, by four standard errors, at every
    β1 < √β2 of this row of the diagram and of all rows above it. Of the rows that lie at least
    `margin` in β2 above the first such row no cell may diverge. A diagram without such rows does
    not tell.

    Args:
      dataset: `diverged`, `drift`, `drift_stderr` over (sampling, n, beta1, beta2); a variable
        `undecided`, where there is one, marks cells without a verdict.
      margin: distance in β2 within which a run of finite length may not know its side.
    """
    dims = ("sampling", "n", "beta1", "beta2")
    beta1, beta2 = dataset["beta1"].values[:, None], dataset["beta2"].values
    counted = beta1 < np.sqrt(beta2)
    attracts = (dataset["drift"] < -4 * dataset["drift_stderr"]).transpose(*dims).values
    good = (attracts | ~counted).all(axis=2)  # (sampling, n, β2)
    above = np.logical_and.accumulate(good[..., ::-1], axis=-1)[..., ::-1]
    first = np.where(above.any(axis=-1), beta2[above.argmax(axis=-1)], np.inf)
    rows = above & (beta2 >= first[..., None] + margin)
    cells = rows[:, :, None] & counted
    diverged = dataset["diverged"].transpose(*dims).values.astype(bool)
    undecided = (
        dataset["undecided"].transpose(*dims).values.astype(bool)
        if "undecided" in dataset
        else np.zeros_like(diverged)
    )
    number = cells.sum()
    return assess(
        "large_beta2_converges",
        "With β1 < √β2 no cell diverges once β2 is past the exact threshold (share of "
        f"{number} cells at least {margin:g} above it in β2, in {int(rows.sum())} rows)",
        "Theorems 3.1 and 3.3",
        # half of the undecided ones, give or take as many
        measured=float((diverged | undecided)[cells].mean() - undecided[cells].mean() / 2)
        if number
        else np.nan,
        uncertainty=float(undecided[cells].mean() / 2) if number else 0.0,
        at_most=0.0,
    )
