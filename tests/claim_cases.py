"""Every claim can come out in each of its three verdicts, through its own function."""

from collections.abc import Callable, Mapping, Sequence

import xarray as xr

from adam_transition.sweeps.claims import VERDICTS, Claim

Doctor = Callable[[xr.Dataset], xr.Dataset]
Case = tuple[Doctor, Doctor, Doctor]
"""What makes of a data set one that bears the claim out, one that does not, one that cannot."""


def same(dataset: xr.Dataset) -> xr.Dataset:
    return dataset


def scaled(**factors) -> Doctor:
    """Variables times factors: numbers, arrays or functions of the data set."""
    return lambda dataset: dataset.assign(
        {
            name: dataset[name] * (by(dataset) if callable(by) else by)
            for name, by in factors.items()
        }
    )


def missing(*names: str) -> Doctor:
    return scaled(**dict.fromkeys(names, float("nan")))


def verdicts(claims: Callable[[xr.Dataset], Sequence[Claim]], dataset: xr.Dataset) -> dict:
    return {claim.id: claim.verdict for claim in claims(dataset)}


def assert_three_verdicts(
    claims: Callable[[xr.Dataset], Sequence[Claim]],
    dataset: xr.Dataset,
    cases: Mapping[str, Case],
) -> None:
    """Each claim of the data set has a case, and each case has its verdict."""
    unchanged = verdicts(claims, dataset)
    assert set(unchanged) == set(cases)
    wrong = {}
    for id_, doctors in cases.items():
        found = [
            (unchanged if doctor is same else verdicts(claims, doctor(dataset)))[id_]
            for doctor in doctors
        ]
        if tuple(found) not in VERDICTS:
            wrong[id_] = found
    assert wrong == {}
