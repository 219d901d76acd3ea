"""The outputs of a command: data set, figures and summary, with their provenance."""

import contextlib
import io
import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # heavy imports wait until a command runs, so that --help is quick
    import xarray as xr
    from matplotlib.figure import Figure

    from adam_transition.sweeps.claims import Claim
    from adam_transition.sweeps.store import Store
    from adam_transition.sweeps.study import Study


NOT_IDENTITY = (
    "chunk_cells",
    "coordinator_address",
    "distributed",
    "figure_width",
    "figures",
    "join_timeout",
    "json",
    "num_processes",
    "out",
    "process_id",
    "resume",
)
"""Flags that do not affect the numbers."""


def _identity(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that affects the numbers: the flags, the program's version, the backend."""
    import jax

    kept = {key: value for key, value in values.items() if key not in NOT_IDENTITY}
    if kept.get("optimizer") == ["adam"]:
        del kept["optimizer"]  # stores of Adam are those of before there were others
    return {
        "experiment": name,
        "version": metadata.version("adam-transition"),
        "backend": jax.default_backend(),
        **{f"--{key}": value for key, value in kept.items()},
    }


def _provenance(name: str, values: Mapping[str, Any]) -> dict[str, str]:
    """Attributes of a data set: flags, versions, git revision, device."""
    import jax

    packages = ("adam-transition", "jax", "jaxlib", "numpy", "optax", "xarray", "zarr")
    return {
        "experiment": name,
        "flags": json.dumps(dict(values)),
        "versions": json.dumps({package: metadata.version(package) for package in packages}),
        "python": platform.python_version(),
        "git_revision": _git_revision(),
        "device": f"{jax.device_count()} × {jax.devices()[0].device_kind}",
    }


def run_study(
    values: Mapping[str, Any],
    study: "Study",
    *,
    identity: Mapping[str, Any] | None = None,
    summary: Mapping[str, Any] | None = None,
    texts: "Callable[[xr.Dataset], Mapping[Path, str]]" = lambda _: {},
) -> None:
    """Computes a study into NAME.zarr, then writes its figures by name, its claims and summary.

    Args:
      values: the flags.
      study: what to compute.
      identity: what the numbers depend on besides the flags.
      summary: entries of NAME.json in addition to the study's own.
      texts: text files to be written besides, by path.
    """
    from adam_transition.sweeps import processes
    from adam_transition.sweeps import study as studies

    name, started, out = study.name, time.time(), Path(values["out"])
    store = studies.run(
        study,
        out / f"{name}.zarr",
        identity={**_identity(name, values), **(identity or {})},
        attrs=_provenance(name, values),
        resume=values["resume"],
    )
    if processes.is_first():
        with contextlib.closing(store):
            _write_study(values, study, store, started, summary or {}, texts)


def _write_study(
    values: Mapping[str, Any],
    study: "Study",
    store: "Store",
    started: float,
    summary: Mapping[str, Any],
    texts: "Callable[[xr.Dataset], Mapping[Path, str]]",
) -> None:
    out = Path(values["out"])
    spent = store.attrs.get("wall_time_s", 0.0) + time.time() - started
    store.finish(wall_time_s=round(spent, 2))
    dataset = store.load()
    paths = [store.path]
    if values["figures"]:
        from adam_transition.studies import plotting

        with plotting.style(values["figure_width"]):
            for name, draw in study.figures().items():
                paths += save_figure(draw(dataset), out, name)
    for path, text in texts(dataset).items():
        write_text(path, text)
        paths.append(path)
    claims, more = study.claims(dataset), {**summary, **study.summary(dataset)}
    if values["json"] != "-":
        for line in more.get("notes", ()):
            print(line)
    seconds = store.attrs["wall_time_s"]
    write_summary(study.name, values, claims, paths, **more, wall_time_s=seconds)


def write_summary(
    name: str,
    values: Mapping[str, Any],
    claims: Sequence["Claim"],
    paths: Sequence[Path],
    **more: Any,
) -> None:
    """Writes NAME.json (and the --json file), then prints the claims and the paths written.

    Args:
      name: of the experiment.
      values: the flags.
      claims: its claims.
      paths: files already written, to be printed.
      **more: further entries of the summary.
    """
    target = write_json(name, values, [claim.as_json() for claim in claims], **more)
    if values["json"] == "-":
        return
    for claim in claims:
        print(f"{claim.verdict:>16}  {claim.statement}")
        error = f" ± {claim.uncertainty:.2g}" if claim.uncertainty else ""
        print(f"{'':>16}  measured {claim.measured:.6g}{error}, expected {claim.expected}")
    for path in (*paths, target):
        print(f"wrote {path}")


def write_json(
    name: str, values: Mapping[str, Any], claims: Sequence[Mapping[str, Any]], **more: Any
) -> Path:
    """Writes the summary to NAME.json and to the --json file; returns the path of NAME.json."""
    summary = {
        "experiment": name,
        "version": metadata.version("adam-transition"),
        "flags": dict(values),
        "claims": list(claims),
        **more,
    }
    text = json.dumps(_finite(summary), indent=2, allow_nan=False) + "\n"
    target = Path(values["out"]) / f"{name}.json"
    write_text(target, text)
    if values["json"] == "-":
        print(text, end="")
    elif values["json"]:
        write_text(Path(values["json"]), text)
    return target


def _finite(value: Any) -> Any:
    """Plain data with None for numbers that are not finite, which JSON does not have."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: _finite(one) for key, one in value.items()}
        case list() | tuple():
            return [_finite(one) for one in value]
        case _:
            return value


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically; creates its folder."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically; creates its folder.

    Raises:
      StoreError: it cannot be written.
    """
    from adam_transition.sweeps.store import StoreError

    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft.write_bytes(content)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as error:
        raise StoreError(f"{path}: cannot write: {error.strerror or error}") from error


def save_figure(figure: "Figure", folder: Path, name: str) -> list[Path]:
    """Saves a figure as .png and .pdf; returns the paths."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_pdf import FigureCanvasPdf

    from adam_transition.studies.plotting import style

    with style():  # which has the resolution and fonts
        # laid out once; `savefig` would do so before each file
        figure.dpi = matplotlib.rcParams["savefig.dpi"]
        if (engine := figure.get_layout_engine()) is not None:
            engine.execute(figure)
        figure.set_layout_engine("none")
        png, pdf = io.BytesIO(), io.BytesIO()  # a full disk must not leave half a file
        FigureCanvasAgg(figure).print_png(png)
        FigureCanvasPdf(figure).print_pdf(pdf)
    paths = [folder / f"{name}.png", folder / f"{name}.pdf"]
    for path, content in zip(paths, (png, pdf), strict=True):
        write_bytes(path, content.getvalue())
    return paths


def _git_revision() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip()
