"""Claims of the study of the authors' heat map, and the rivals of the best setting."""

from typing import Any

import numpy as np
import xarray as xr

from adam_transition.studies.published.data import Score, Setting, crossing
from adam_transition.studies.published.digitised import counterexample_2022
from adam_transition.sweeps.claims import Claim, assess

_REFERENCE = "Figure 1 (a) of arXiv:2208.09632, digitised"

CHOICES = {
    "sampling": ("sampling",),
    "n": ("n",),
    "a": ("slope",),
    "step_sizes": ("schedule", "step_size"),
    "initialization": ("initialization",),
    "x0": ("x0",),
}
"""What rivals of the nearest setting differ in, by the fields of `Setting`."""

_TOLD = {
    "sampling": "No other order gives the picture",
    "n": "No other n of those tried gives the picture",
    "a": "No other slope of those tried gives the picture",
    "step_sizes": "No other step sizes of those tried give the picture",
}


def claims(dataset: xr.Dataset) -> list[Claim]:
    """That one setting gives the picture, and that others do not."""
    reading = counterexample_2022().reading_error
    chosen = best(dataset)
    found = [
        assess(
            "published_map",
            "The authors' heat map of the counterexample is that of Adam at the setting nearest to "
            "it (root mean square difference over the cells that are not clipped, over the scale)",
            _REFERENCE,
            measured=chosen["rms"],
            uncertainty=reading,  # if no reading is farther off, neither is their root mean square
            at_most=0.02,
        ),
        assess(
            "published_clipped",
            "It reaches the end of the scale where the authors' map does (share of those cells in "
            "which it does not)",
            _REFERENCE,
            measured=chosen["wrongly_clipped"],
            at_most=0.01,
        ),
        assess(
            "published_contour",
            "The contours at half of the scale coincide (mean distance in β2, of which the grid's "
            "steps are 0.02)",
            _REFERENCE,
            measured=chosen["contour_distance"],
            uncertainty=_contour_error(),
            at_most=0.01,
        ),
    ]
    return found + [
        assess(
            f"published_{name}",
            f"{statement} (root mean square difference over the scale of the nearest map of "
            f"{', '.join(dict.fromkeys(_value(one, name) for one in of_choice))}; a reading is "
            f"good to {reading:g})",
            _REFERENCE,
            measured=float(np.min([record["rms"] for record in of_choice])),
            at_least=reading,
            ours=True,
        )
        for name, statement in _TOLD.items()
        if (of_choice := [record for record in rivals(dataset) if record["choice"] == name])
    ]


def _value(record: dict[str, Any], choice: str) -> str:
    """A rival's choice in words."""
    name = {"n": "n = ", "a": "a = "}.get(choice, "")
    return name + " ".join(str(record[field]) for field in CHOICES[choice])


def _contour_error() -> float:
    """What a wrong reading moves the published contour by, in the mean over β1."""
    picture = counterexample_2022()
    off = [
        crossing(picture.beta2, picture.values, picture.middle + side * picture.resolution)
        for side in (-1, 1)
    ]
    return float(np.nanmean(np.abs(off[1] - off[0])) / 2)


def best(dataset: xr.Dataset) -> dict[str, Any]:
    """The setting whose map is nearest to the picture, with its scores."""
    return _record(nearest(dataset))


def nearest(dataset: xr.Dataset) -> xr.Dataset:
    """The map with the least root mean square difference from the picture."""
    return dataset.isel(setting=int(np.argmin(dataset["rms"].values)))


def rivals(dataset: xr.Dataset) -> list[dict[str, Any]]:
    """For each alternative value of a choice: its nearest map, whatever the other choices are.

    `excluded` if it is farther from the picture than a reading of the picture can be wrong.
    """
    chosen = best(dataset)
    limit = counterexample_2022().reading_error
    found = []
    for choice, fields in CHOICES.items():
        values = list(zip(*(dataset[field].values.tolist() for field in fields), strict=True))
        for value in dict.fromkeys(values):
            if value == tuple(chosen[field] for field in fields):
                continue
            same = [i for i, other in enumerate(values) if other == value]
            record = _record(nearest(dataset.isel(setting=same)))
            found.append({"choice": choice, **record, "excluded": record["rms"] > limit})
    return found


def _record(one: xr.Dataset) -> dict[str, Any]:
    names = (*Setting._fields, *Score._fields)
    return {name: one[name].item() for name in names}
