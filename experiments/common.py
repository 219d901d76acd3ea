"""What all experiments share: flags, grids, one-line errors, provenance, the summary."""

import json
import math
import os
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from experiments import distributed

if TYPE_CHECKING:  # heavy imports wait until an experiment runs, so that --help is quick
    import numpy as np
    from matplotlib.figure import Figure
    from xarray import Dataset

    from adam_transition.claims import Claim
    from adam_transition.studies import Plan

NOT_IDENTITY = (
    "chunk_cells",
    "coordinator_address",
    "distributed",
    "json",
    "num_processes",
    "out",
    "process_id",
    "resume",
)
"""Flags on which the numbers do not depend."""


def common_flags(name: str) -> flags.FlagValues:
    """A set of flags with those that every experiment has."""
    values = flags.FlagValues()
    flags.DEFINE_string("out", f"out/{name}", "Folder for results; created.", flag_values=values)
    flags.DEFINE_integer(
        "seed", 0, "Seed of all randomness.", 0, 2**31 - 1, flag_values=values, short_name=None
    )
    flags.DEFINE_boolean(
        "resume", True, "Continue an unfinished run; --noresume replaces it.", flag_values=values
    )
    flags.DEFINE_string(
        "json", None, "File for the machine-readable summary, or - for stdout.", flag_values=values
    )
    distributed.define_flags(values)
    return values


def run(
    name: str,
    description: str,
    values: flags.FlagValues,
    main: Callable[[dict[str, Any]], None],
    argv: Sequence[str] | None = None,
    *,
    shares_work: bool = False,
) -> int:
    """Parses the flags and calls `main(flags)`; returns the exit status. Errors are one line.

    With `shares_work`, `main` may be run by all processes of a job.
    """
    argv = sys.argv[1:] if argv is None else argv
    if any(argument in ("--help", "-h", "-help") for argument in argv):
        print(f"{description}\n{values.get_help()}")
        return 0
    try:
        rest = values([name, *argv])[1:]
        if rest:
            raise ValueError(f"unexpected argument {rest[0]!r}: every flag starts with --")
    except (flags.Error, OSError, ValueError) as error:
        return _fail(name, error)
    from adam_transition.processes import ProcessError
    from adam_transition.store import StoreError
    from experiments import compilation_cache

    compilation_cache.enable()
    status = 0
    try:
        distributed.initialize(values.flag_values_dict(), shares_work=shares_work)
        main(values.flag_values_dict())
    except (OSError, ProcessError, StoreError, ValueError) as error:
        status = _fail(name, error)
    except KeyboardInterrupt:
        status = _fail(name, "interrupted; finished chunks are kept, run again to continue", 130)
    except Exception:
        if not distributed.is_joined():
            raise
        traceback.print_exc()
        status = 1
    return distributed.leave(status)


def parse_grid(flag: str, text: str, low: float = 0.0, high: float = 1.0) -> "np.ndarray":
    """An ascending grid in [low, high) from `lo:hi:count`, `lo:hi:count:logit`, or a list.

    `logit` spaces evenly in log(β/(1−β)): equal ratios of β near 0 and of 1 − β near 1. An entry
    may be written 1-1e-6.

    Raises:
      ValueError: naming the flag, what was given and what is allowed.
    """
    import numpy as np

    try:
        if ":" in text:
            lo, hi, count, *spacing = text.split(":")
            first, last = _number(lo), _number(hi)
            if int(count) < 1 or spacing not in ([], ["logit"]):
                raise ValueError
            if spacing:
                if not (0 < first < 1 and 0 < last < 1):
                    raise ValueError
                u = np.linspace(np.log(first / (1 - first)), np.log(last / (1 - last)), int(count))
                grid = 1 - 1 / (1 + np.exp(u))
            else:
                grid = np.linspace(first, last, int(count))
        else:
            grid = np.array([_number(entry) for entry in text.split(",")])
    except ValueError:
        raise ValueError(
            f"--{flag}={text}: not a grid; write lo:hi:count, lo:hi:count:logit (with 0 < lo, hi < "
            f"1) or a list like 0,0.9,1-1e-4"
        ) from None
    if not np.all((grid >= low) & (grid < high)):
        raise ValueError(f"--{flag}={text}: values must lie in [{low:g}, {high:g})")
    if len(np.unique(grid)) < len(grid):
        raise ValueError(f"--{flag}={text}: values must differ")
    return np.sort(grid)


def parse_point(flag: str, text: str) -> tuple[float, float]:
    """A pair (β1, β2) from `beta1/beta2`, both in [0, 1).

    Raises:
      ValueError: naming the flag, what was given and what is allowed.
    """
    try:
        beta1, beta2 = (_number(entry) for entry in text.split("/"))
    except ValueError:
        raise ValueError(f"--{flag}={text}: not a point; write beta1/beta2") from None
    if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
        raise ValueError(f"--{flag}={text}: values must lie in [0, 1)")
    return beta1, beta2


def parse_list(flag: str, entries: Sequence[str], kind: Callable[[str], Any]) -> list[Any]:
    """The entries of a list flag as numbers.

    Raises:
      ValueError: naming the flag and the entry, or an empty list, or an entry given twice.
    """
    parsed = []
    for entry in entries:
        try:
            parsed.append(kind(entry))
        except (ValueError, ZeroDivisionError):
            raise ValueError(f"--{flag}: {entry!r} is not a number") from None
    if not parsed or len(set(parsed)) < len(parsed):
        raise ValueError(f"--{flag}={','.join(entries)}: needs one or more different entries")
    return parsed


def parse_integers(flag: str, entries: Iterable[str]) -> list[int]:
    """The entries of a list flag as integers; an entry lo:hi:count stands for a rounded grid."""
    import numpy as np

    expanded: list[str] = []
    for entry in entries:
        try:
            lo, hi, count = (int(part) for part in entry.split(":"))
            grid = np.unique(np.rint(np.linspace(lo, hi, count)).astype(int))
            expanded.extend(str(value) for value in grid)
        except ValueError:
            expanded.append(entry)
    return parse_list(flag, expanded, int)


def check_choices(flag: str, entries: Sequence[str], allowed: Sequence[str]) -> None:
    """Raises ValueError unless the entries are different and all allowed."""
    for entry in entries:
        if entry not in allowed:
            raise ValueError(f"--{flag}={entry}: allowed are {', '.join(allowed)}")
    if not entries or len(set(entries)) < len(entries):
        raise ValueError(f"--{flag}={','.join(entries)}: needs one or more different entries")


def identity(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """All that the numbers depend on: the flags, the program's version, the backend."""
    import jax

    kept = {key: value for key, value in values.items() if key not in NOT_IDENTITY}
    return {
        "experiment": name,
        "version": metadata.version("adam-transition"),
        "backend": jax.default_backend(),
        **{f"--{key}": value for key, value in kept.items()},
    }


def provenance(name: str, values: Mapping[str, Any]) -> dict[str, str]:
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
    name: str,
    values: Mapping[str, Any],
    plan: "Plan",
    *,
    figures: Mapping[str, "Callable[[Dataset], Figure]"],
    claims: "Callable[[Dataset], Sequence[Claim]]",
    more: "Callable[[Dataset], Mapping[str, Any]]" = lambda _: {},
    attrs: Mapping[str, Any] | None = None,
) -> None:
    """Computes a study into NAME.zarr, then writes its figures by name, its claims and summary."""
    from adam_transition import studies

    started, out = time.time(), Path(values["out"])
    store = studies.run(
        plan,
        out / f"{name}.zarr",
        identity=identity(name, values),
        attrs={**provenance(name, values), **(attrs or {})},
        resume=values["resume"],
    )
    spent = store.attrs.get("wall_time_s", 0.0) + time.time() - started
    store.finish(wall_time_s=round(spent, 2))
    dataset = store.load()
    paths = [store.path]
    for figure, draw in figures.items():
        paths += save_figure(draw(dataset), out, figure)
    write_summary(
        name,
        values,
        claims(dataset),
        paths,
        **more(dataset),
        wall_time_s=store.attrs["wall_time_s"],
    )


def write_summary(
    name: str,
    values: Mapping[str, Any],
    claims: Sequence["Claim"],
    paths: Sequence[Path],
    **more: Any,
) -> None:
    """Writes NAME.json (and the --json file), then prints the claims and the paths written."""
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
    """Writes the summary to NAME.json and to the --json file; returns the path of the first."""
    summary = {
        "experiment": name,
        "version": metadata.version("adam-transition"),
        "flags": dict(values),
        "claims": list(claims),
        **more,
    }
    text = json.dumps(summary, indent=2, allow_nan=False) + "\n"
    target = Path(values["out"]) / f"{name}.json"
    write_text(target, text)
    if values["json"] == "-":
        print(text, end="")
    elif values["json"]:
        write_text(Path(values["json"]), text)
    return target


def write_text(path: Path, text: str) -> None:
    """Writes a file whole, or leaves the one that is there; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def save_figure(figure: "Figure", folder: Path, name: str) -> list[Path]:
    """Saves a figure as .png and .pdf; returns the paths."""
    from adam_transition.figures import style

    paths = [folder / f"{name}.png", folder / f"{name}.pdf"]
    with style():  # resolution and fonts are read when a figure is saved
        for path in paths:
            figure.savefig(path)
    return paths


def _number(text: str) -> float:
    first, dash, rest = text.strip().partition("1-")
    if dash and not first:
        return 1 - float(rest)
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _git_revision() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip()


def _fail(name: str, error: object, status: int = 2) -> int:
    print(f"{name}: {' '.join(str(error).split())}", file=sys.stderr)
    return status
