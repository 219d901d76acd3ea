"""Claims of the optimiser study, and its rows."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from adam_transition.optimizers import Optimizer
from adam_transition.studies.optimizers import direct
from adam_transition.sweeps.claims import Claim, assess
from adam_transition.theory.laws import sign_momentum_threshold
from adam_transition.theory.rule_boundary import LEAST, flat, hyperparameter

_PROPOSITION = "proposition in docs/mathematics/other_rules.md"


def claims(dataset: xr.Dataset) -> list[Claim]:
    """What is said of these optimisers, beside what the drift shows, for those in the data set."""
    names = set(dataset["optimizer"].values)
    found = []
    if "amsgrad" in names:
        found.append(
            _never(dataset, "amsgrad", "AMSGrad has D < 0 at every β1 and β2", "arXiv:1904.09237")
        )
    if "adopt_unclipped" in names:
        statement = "ADOPT without its clip has D < 0 at every β1 and β2"
        found.append(_never(dataset, "adopt_unclipped", statement, "arXiv:2411.02853"))
    if "muon" in names:
        found.append(_muon(dataset))
        found += [_nesterov(dataset), _matrices(dataset), _noise(dataset), _matrix_runs(dataset)]
    if "adopt" in names:
        found.append(_climb(dataset))
    if "lion" in names:
        found.append(_lion(dataset))
    if "signum" in names and "cyclic" in dataset["sampling"].values:
        found.append(_sign_momentum(dataset))
    if {"adam", "radam"} <= names:
        found.append(_radam(dataset))
    return found


def _never(dataset: xr.Dataset, name: str, statement: str, reference: str) -> Claim:
    drift = dataset["drift"].sel(optimizer=name)
    return assess(
        f"{name}_never_diverges",
        f"{statement}, in cyclic order (share of the cells with D > 0, over n and a)",
        reference,
        measured=float((drift > 0).where(drift.notnull()).mean()),
        at_most=0.0,
    )


def _muon(dataset: xr.Dataset) -> Claim:
    one = dataset.sel(optimizer="muon")
    from_zero = one["beta_low"].isel(interval=0) == 0
    ends = one["beta_high"].max("interval") < 1
    is_known = one["drift"].notnull().any(["first", "second"]).broadcast_like(ends)
    return assess(
        "muon_has_a_transition",
        "Muon on 1 × 1 matrices diverges from momentum 0 up to a threshold, and not above it "
        "(share of the settings of n, a and sampling)",
        "conjectured in the paper's Remark 5",
        measured=float((from_zero & ends).where(is_known).mean()),
        at_least=1.0,
        ours=True,
    )


def _lion(dataset: xr.Dataset) -> Claim:
    drift = dataset["default_drift"].sel(optimizer="lion").isel(default_a=1)
    drift = drift.where(dataset["default_n"] >= 20)
    return assess(
        "lion_diverges_at_its_defaults",
        "At a = 1 and n ≥ 20 Lion diverges at its defaults, in cyclic order (share of these n)",
        "none: our computation",
        measured=float((drift > 0).where(drift.notnull()).mean()),
        at_least=1.0,
        ours=True,
    )


def _sign_momentum(dataset: xr.Dataset) -> Claim:
    return assess(
        "sign_momentum_has_its_closed_form",
        "In cyclic order sign momentum diverges up to the β* of its closed form (largest deviation "
        "over n and a)",
        _PROPOSITION,
        measured=_miss(dataset, "signum", nesterov=False),
        at_most=1e-6,
        ours=True,
    )


def _nesterov(dataset: xr.Dataset) -> Claim:
    return assess(
        "muon_has_the_closed_form_of_nesterov",
        "In cyclic order Muon on 1 × 1 matrices diverges up to the β* of sign momentum with "
        "Nesterov's step (largest deviation over n and a)",
        _PROPOSITION,
        measured=_miss(dataset, "muon", nesterov=True),
        at_most=1e-4,
        ours=True,
    )


def _miss(dataset: xr.Dataset, name: str, *, nesterov: bool) -> float:
    """The largest deviation of a threshold in cyclic order from the closed form; NaN without."""
    if "cyclic" not in dataset["sampling"].values:
        return np.nan
    high = dataset["beta_high"].sel(optimizer=name, sampling="cyclic").max("interval")
    a = dataset["a_value"]
    law = a.copy(
        data=[
            [sign_momentum_threshold(int(n), float(one), nesterov=nesterov) for one in row]
            for n, row in zip(dataset["n"], a.values, strict=True)
        ]
    )
    return float(abs(high - law).where(law < 1 - LEAST["cyclic"]).max())


def _matrices(dataset: xr.Dataset) -> Claim:
    law = [
        sign_momentum_threshold(direct.MATRIX_N, a, nesterov=True)
        for a in ((direct.MATRIX_N - 1.0) ** -2, 1.0)
    ]
    return assess(
        "muon_on_a_matrix_is_muon_on_numbers",
        "If all gradients are multiples of one matrix (the identity, orthogonal, of rank one, "
        "generic), Muon has its threshold of 1 × 1 matrices (largest deviation)",
        _PROPOSITION,
        measured=float(abs(dataset["fixed_threshold"] - xr.DataArray(law, dims="law")).max()),
        at_most=1e-4,
        ours=True,
    )


def _noise(dataset: xr.Dataset) -> Claim:
    greatest = dataset["noisy_threshold"]
    return assess(
        "noise_does_not_cure_muon",
        "With noise across the direction, up to ten times its size, some momentum still diverges "
        "on matrices (share of the settings of size, noise and a)",
        "conjectured in the paper's Remark 5",
        measured=float((greatest > 0).where(greatest.notnull()).mean()),
        at_least=1.0,
        ours=True,
    )


def _matrix_runs(dataset: xr.Dataset) -> Claim:
    change, drift = dataset["height_change"], dataset["matrix_drift"]
    is_far = abs(drift) > 0.02 * direct.MATRIX_N  # a smaller drift moves a run less than an epoch
    return assess(
        "muons_runs_follow_its_drift",
        "Runs of Muon on matrices with noise move away from the minimisers if and only if "
        "the drift does (share of the momenta and a at which it is at least 0.02 a step)",
        "none: our computation",
        measured=float(((change > 0) == (drift > 0)).where((change * drift != 0) & is_far).mean()),
        at_least=1.0,
        ours=True,
    )


def _climb(dataset: xr.Dataset) -> Claim:
    """A run's turn is known to an epoch on either side, and v must have settled before it."""
    n, law = dataset["climb_n"], dataset["climb_law"]
    settled = law > 10 * n
    miss = (abs(dataset["climb"] - law) / n).where(settled)
    return assess(
        "adopt_climbs_for_its_s4",
        "With its clip ADOPT moves away from x* for S⁴ steps in cyclic order, S = Σ a/√v over the "
        "small slopes, not R⁴ (largest deviation in epochs, over n, a and β2 with S⁴ > 10 n)",
        _PROPOSITION,
        measured=float(miss.max()),
        at_most=3.0,
        ours=True,
    )


def _radam(dataset: xr.Dataset) -> Claim:
    adam, radam = (dataset.sel(optimizer=name) for name in ("adam", "radam"))
    # RAdam is momentum below β2 = 2/3, so only thresholds above that are shared
    high = adam["beta_high"].max("interval").where(lambda beta: beta > 2 / 3)
    miss = abs(radam["beta_high"].max("interval") - high)
    error = radam["stderr"].max("interval") + adam["stderr"].max("interval")
    worst = float((miss - 4 * error).max())
    return assess(
        "radam_shares_adams_threshold",
        "RAdam's threshold is Adam's where that is above 2/3 (largest deviation beyond four "
        "standard errors, over n, a and sampling; at the default β1)",
        "arXiv:1908.03265: RAdam tends to Adam",
        measured=worst,
        at_most=1e-6,
        ours=True,
    )


def rows(
    dataset: xr.Dataset, optimizers: Mapping[str, Optimizer], first: Mapping[str, float]
) -> list[dict[str, Any]]:
    """The intervals of divergence as plain rows, one for each (optimizer, sampling, n, a).

    `stderr` is null where an interval reaches the end of the scan or βs of unknown drift, which the
    ranges `unknown` contain. `diverges_at_default` is null for an optimiser without defaults, and
    if its default lies beyond the end of the scan or in such a range.
    """
    found = []
    names = "beta_low", "beta_high", "stderr", "unknown_low", "unknown_high"
    values = np.stack([dataset[name].values for name in names])
    for where in np.ndindex(values.shape[1:5]):
        o, s, j, k = where
        optimizer = optimizers[str(dataset["optimizer"].values[o])]
        name, here = hyperparameter(optimizer), values[(slice(None), *where)]
        ends, unknown = (pair[:, np.isfinite(pair[0])].T for pair in (here[:2], here[3:]))
        errors = [None if np.isnan(one) else float(one) for one in here[2][: len(ends)]]
        default = optimizer.defaults.get(name)
        found.append(
            {
                "optimizer": optimizer.name,
                "n": int(dataset["n"][j]),
                "a": float(dataset["a_value"][j, k]),
                "sampling": str(dataset["sampling"].values[s]),
                "hyperparameter": name,
                "fixed": {optimizer.axes[0]: first[optimizer.name]} if optimizer.axes[1] else {},
                "diverges": ends.tolist(),
                "stderr": errors,
                "unknown": unknown.tolist(),
                "diverges_at_default": _contains(ends, errors, unknown, default),
            }
        )
    return found


def _contains(
    ends: np.ndarray, errors: list[float | None], unknown: np.ndarray, default: float | None
) -> bool | None:
    """Whether β lies in one of the intervals; None if it is unknown, or beyond a scan's end."""
    if default is None or _is_in(default, unknown):
        return None
    inside = _is_in(default, ends)
    reaches_the_end = bool(errors) and errors[-1] is None and ends[-1, 1] == 1
    return None if inside and reaches_the_end and default > 1 - max(LEAST.values()) else inside


def _is_in(beta: float, ranges: np.ndarray) -> bool:
    return bool(((ranges[:, 0] <= beta) & (beta < ranges[:, 1])).any())


def defaults(dataset: xr.Dataset, optimizers: Mapping[str, Optimizer]) -> list[dict[str, Any]]:
    """Whether each optimiser diverges at its library's defaults, by a and sampling scheme.

    `n` are the numbers of components at which that is known, `diverges` those at which it does. In
    random orders it is known where the drift is four standard errors from 0. `cured_by`, in cyclic
    order, is for each n in `diverges` the least value of `hyperparameter` above the default at
    which the optimiser returns, null if none up to the end of the scan.
    """
    found = []
    for name in dataset["optimizer"].values:
        optimizer, one = optimizers[str(name)], dataset.sel(optimizer=name)
        for law, a in enumerate(("1/(n-1)^2", "1")):
            both = one.sel(default_a=law)
            drift, n = both["default_drift"].values, dataset["default_n"].values
            diverges = drift > flat(optimizer, 1) * n
            cures = [None if beta == 1 else float(beta) for beta in both["cure"].values[diverges]]
            row = {"optimizer": str(name), "a": a, "hyperparameter": hyperparameter(optimizer)}
            found.append(
                {
                    **row,
                    "sampling": "cyclic",
                    "n": n[np.isfinite(drift)].tolist(),
                    "diverges": n[diverges].tolist(),
                    "cured_by": cures,
                }
            )
            for scheme in dataset["random_sampling"].values:
                of_scheme = both.sel(random_sampling=scheme)
                n = dataset["random_default_n"].values
                drift, error = (
                    of_scheme[f"random_default_{kind}"].values for kind in ("drift", "stderr")
                )
                # where only the sign is known the error is NaN
                known = np.isfinite(drift) & ~(np.abs(drift) < 4 * error)
                found.append(
                    {
                        **row,
                        "sampling": str(scheme),
                        "n": n[known].tolist(),
                        "diverges": n[known & (drift > 0)].tolist(),
                    }
                )
    return found
