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


def verdicts_keep_their_error(dataset: xr.Dataset, *, start: str) -> list[Claim]:
    """Whether the verdicts err as `simulate.judge` says that they do: 5 % at the most, at D = 0.

    A cell is wrong where the speed of its run is above its 95 % error on the other side of 0. That
    happens in 5 % of the runs where D = 0 and in fewer elsewhere. Where |D/n| is at least twice the
    error, 95 % of the runs are decided, and rightly. Cells of one n share their draws and err
    together, so that these are limits of the shares and not their mean.

    Args:
      dataset: with `diverged`, `undecided`, `speed_error`, `drift`, `drift_stderr`.
      start: where the runs start and with which step size, in words.
    """
    n = dataset["n"]
    over = [dim for dim in dataset["drift"].dims if dim not in ("sampling", "n", "a")]
    size = abs(dataset["drift"])
    known = size > 4 * dataset["drift_stderr"]
    undecided = dataset["undecided"].astype(bool)
    right = (dataset["drift"] > 0) == dataset["diverged"].astype(bool)
    clear = known & (size / n >= 2 * dataset["speed_error"])
    shares = {
        "sign_of_drift": right.where(known & ~undecided),
        "verdicts_decided": (right & ~undecided).where(clear),
    }
    statements = {
        "sign_of_drift": "The simulated verdict has the sign of the stationary drift, up to its "
        f"error of 5 % (least share over n and sampling, of the decided cells, {start})",
        "verdicts_decided": "A run whose drift is at least twice the error of its speed decides, "
        "and rightly, up to that error (least share over n and sampling)",
    }
    return [
        assess(
            name,
            statements[name],
            "none: the paper bounds the boundary from both sides",
            measured=float(share.mean(over).min()),
            at_least=0.95,
            ours=True,
        )
        for name, share in shares.items()
    ]
