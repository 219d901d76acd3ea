"""The outputs of a benchmark: a labelled data set, and a figure of rates."""

import datetime
import json
from importlib import metadata
from pathlib import Path

import jax
import xarray as xr

from adam_transition.studies.plotting import COLOURS, style, subplots


def device() -> str:
    """The devices that JAX uses, in words."""
    return f"{jax.device_count()} × {jax.devices()[0].device_kind}"


def write(dataset: xr.Dataset, folder: Path, name: str) -> None:
    """Writes folder/NAME.zarr, with the device, the versions and the date as attributes."""
    packages = ("adam-transition", "jax", "jaxlib", "numpy", "optax")
    dataset.assign_attrs(
        benchmark=name,
        device=device(),
        versions=json.dumps({package: metadata.version(package) for package in packages}),
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    ).to_zarr(folder / f"{name}.zarr", mode="w", consolidated=False)
    print(f"wrote {folder / name}.zarr")


def draw_rates(dataset: xr.Dataset, path: Path) -> None:
    """Draws `rate` (contestant, cells) against the number of cells."""
    with style():
        figure, axes = subplots(1, 1, figsize=(3.4, 2.6))
        for i, name in enumerate(dataset["contestant"].values):
            rate = dataset["rate"].sel(contestant=name)
            axes.loglog(
                rate["cells"], rate, color=COLOURS[i], marker="osv^Dx"[i], ms=3.5, label=str(name)
            )
        axes.set(xlabel="cells", ylabel="Adam updates per second")
        axes.legend(frameon=False)
        figure.savefig(path)
    print(f"wrote {path}")
