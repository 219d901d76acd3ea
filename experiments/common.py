"""What all experiments share: flags, grids, one-line errors, provenance, the summary."""

import contextlib
import errno
import io
import json
import math
import os
import platform
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from experiments import distributed, terminal

if TYPE_CHECKING:  # heavy imports wait until an experiment runs, so that --help is quick
    import numpy as np
    from matplotlib.figure import Figure
    from xarray import Dataset

    from adam_transition.claims import Claim
    from adam_transition.store import Store
    from adam_transition.studies import Plan

NOT_IDENTITY = (
    "chunk_cells",
    "coordinator_address",
    "distributed",
    "figures",
    "join_timeout",
    "json",
    "num_processes",
    "out",
    "process_id",
    "resume",
)
"""Flags on which the numbers do not depend."""

_GREATEST_INTEGER = 2**31 - 1
_GREATEST_EXPONENT = 400
_MOST_VALUES = 10**6  # of one axis
_LONGEST_WORD = 400  # of an error line


def common_flags(name: str, *, figures: bool = True) -> flags.FlagValues:
    """A set of flags with those that every experiment has; `figures`: may do without them."""
    values = flags.FlagValues()
    flags.DEFINE_string("out", f"out/{name}", "Folder for results; created.", flag_values=values)
    flags.DEFINE_integer(
        "seed", 0, "Seed of all randomness.", 0, 2**31 - 1, flag_values=values, short_name=None
    )
    flags.DEFINE_boolean(
        "resume", True, "Continue an unfinished run; --noresume replaces it.", flag_values=values
    )
    if figures:
        flags.DEFINE_boolean(
            "figures", True, "Draw figures; --nofigures: data and summary only.", flag_values=values
        )
    flags.DEFINE_string(
        "json", None, "File for the machine-readable summary, or - for stdout.", flag_values=values
    )
    distributed.define_flags(values)
    return values


def define_float(
    name: str,
    default: float,
    help_text: str,
    lower_bound: float | None = None,
    *,
    flag_values: flags.FlagValues,
) -> None:
    """As `flags.DEFINE_float`; a number that a double holds as 0 is refused and not taken for 0."""
    parser = _FloatParser(lower_bound)
    serializer: flags.ArgumentSerializer = flags.ArgumentSerializer()
    flags.DEFINE(parser, name, default, help_text, flag_values=flag_values, serializer=serializer)


class _FloatParser(flags.FloatParser):
    def convert(self, argument: Any) -> float:
        value = super().convert(argument)
        if value == 0 and isinstance(argument, str) and not is_zero(argument):
            raise ValueError("a double cannot hold it: it would be 0")
        return value


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
    if argv is None:  # a program, and not called from one
        terminal.make_streams_usable()
        with terminal.stoppable(name):
            status = _run(name, description, values, main, sys.argv[1:], shares_work)
    else:
        status = _run(name, description, values, main, argv, shares_work)
    return distributed.leave(terminal.flush(status))


def _run(
    name: str,
    description: str,
    values: flags.FlagValues,
    main: Callable[[dict[str, Any]], None],
    argv: Sequence[str],
    shares_work: bool,
) -> int:
    try:
        if any(argument in ("--help", "-h", "-help") for argument in argv):
            print(f"{description}\n{values.get_help()}")
            return 0
        try:
            _check_flagfiles(argv)
            rest = values([name, *argv])[1:]
            if rest:
                raise ValueError(f"unexpected argument {rest[0]!r}: every flag starts with --")
        except (flags.Error, OSError, ValueError) as error:
            return _fail(name, error)
        _check_json(values)
        from experiments import compilation_cache

        if not compilation_cache.enable():
            print(f"{name}: {compilation_cache.IN_USE}", file=sys.stderr)
        compilation_cache.give_up_when_locked(name)
        distributed.initialize(values.flag_values_dict(), shares_work=shares_work)
        terminal.catch_again()
        main(values.flag_values_dict())
    except BrokenPipeError:
        return terminal.BROKEN_PIPE
    except KeyboardInterrupt:
        return _fail(name, f"interrupted; {terminal.KEPT}", 130)
    except MemoryError as error:
        return _fail(name, f"not enough memory: {error}")
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and not error.filename:
            return _fail(name, f"cannot write to stdout: {error.strerror}")  # as files name theirs
        if _is_expected(error):
            return _fail(name, error)
        if not distributed.is_joined():
            raise
        traceback.print_exc()
        return 1
    return 0


def _is_expected(error: Exception) -> bool:
    """Whether an error is the user's or the machine's, and says so in one line."""
    from adam_transition.processes import ProcessError
    from adam_transition.store import StoreError

    return isinstance(error, (OSError, ProcessError, StoreError, ValueError))


def _check_flagfiles(argv: Sequence[str], within: tuple[Path, ...] = ()) -> None:
    """Raises ValueError for a --flagfile without a name, or one that includes itself."""
    for i, argument in enumerate(argv):
        flag, equals, name = argument.strip().partition("=")
        if flag not in ("--flagfile", "-flagfile"):
            continue
        name = name if equals else next(iter(argv[i + 1 : i + 2]), "")
        if not name.strip():
            raise ValueError("--flagfile=: must name a file")
        path = Path(name.strip()).expanduser()
        if path.resolve() in within:
            raise ValueError(f"--flagfile={name}: includes itself")
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise ValueError(f"--flagfile={name}: cannot read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError(f"--flagfile={name}: not a text of flags in UTF-8") from None
        _check_flagfiles(lines, (*within, path.resolve()))


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
            _check_count(flag, text, int(count))
            if spacing:
                if not (0 < first < 1 and 0 < last < 1):
                    raise ValueError
                u = np.linspace(np.log(first / (1 - first)), np.log(last / (1 - last)), int(count))
                grid = 1 - 1 / (1 + np.exp(u))
            else:
                grid = np.linspace(first, last, int(count))
        else:
            grid = np.array([_number(entry) for entry in text.split(",")])
    except _TooManyError:
        raise
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
        if kind is Fraction:
            _check_exponent(flag, entry)
        try:
            parsed.append(kind(entry))
        except (ValueError, ZeroDivisionError, OverflowError):
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
            if not max(abs(lo), abs(hi)) <= _GREATEST_INTEGER or count < 1:
                raise ValueError
        except ValueError:
            expanded.append(entry)
            continue
        _check_count(flag, entry, count)
        grid = np.unique(np.rint(np.linspace(lo, hi, count)).astype(int))
        expanded.extend(str(value) for value in grid)
    parsed = parse_list(flag, expanded, int)
    for value in parsed:
        if abs(value) > _GREATEST_INTEGER:
            raise ValueError(f"--{flag}={value}: must be below 2^31 in size")
    return parsed


def check_number(
    flag: str,
    value: float,
    *,
    dtype: str = "float64",
    above: float | None = None,
    least: float | None = None,
) -> None:
    """Checks a number that is computed with in some precision.

    Args:
      flag: its flag.
      value: what was given.
      dtype: the precision, which must hold it: neither infinity nor 0 (or subnormal) in its place.
      above: what it must exceed.
      least: the least that is allowed.

    Raises:
      ValueError: naming the flag, its value and what is allowed.
    """
    import numpy as np

    info = np.finfo(dtype)
    if not math.isfinite(value):
        raise ValueError(f"--{flag}={value}: must be a finite number")
    if above is not None and not value > above:
        raise ValueError(f"--{flag}={value:g}: must be above {above:g}")
    if least is not None and not value >= least:
        raise ValueError(f"--{flag}={value:g}: must be {least:g} or more")
    if value and not float(info.tiny) <= abs(value) <= float(info.max):
        raise ValueError(
            f"--{flag}={value:g}: {dtype} cannot hold it, from {info.tiny:.3g} to {info.max:.3g} "
            "in size"
        )


def check_slopes(n: Sequence[int], a: Sequence[Fraction], dtype: str = "float64") -> None:
    """Checks that the slopes of the counterexample, −a and 1 + (n−1)a, can be told apart.

    Raises:
      ValueError: naming --a, its value and what is allowed.
    """
    import numpy as np

    # the hit exceeds the others' sum by 1, which must be left after rounding; squares must be too
    info = np.finfo(dtype)
    for one in a:
        most = Fraction(float(0.1 / info.eps)) / max(n)
        least = Fraction(float(info.tiny)) * 10**8
        if one > 0 and not least <= one <= most:
            raise ValueError(
                f"--a={_short(one)}: in {dtype}, with --n={max(n)}, a must lie in "
                f"[{float(least):.2g}, {float(most):.2g}]"
            )


def _short(value: Fraction) -> str:
    """A number that a float may not hold."""
    try:
        if value == 0 or float(value) != 0:
            return f"{float(value):g}"
    except OverflowError:
        pass
    return f"1e{len(str(value.numerator)) - len(str(value.denominator))}"


def check_memory(what: str, num_bytes: float) -> None:
    """Refuses what does not fit in the memory of this machine, before anything is written.

    Args:
      what: the flags that ask for it, and how much of what.
      num_bytes: an estimate of what it takes.

    Raises:
      ValueError: with what it would take.
    """
    from adam_transition import memory

    available = memory.available()
    if num_bytes > available:
        raise ValueError(
            f"{what}: needs about {memory.text(num_bytes)} of memory, and "
            f"{memory.text(available)} are available"
        )


def check_work(
    values: Mapping[str, Any], asked: Sequence[str], what: str, count: int, most: int
) -> None:
    """Refuses what would hardly end, before anything is written.

    Args:
      values: all flags.
      asked: the names of those that ask for it, grids or lists.
      what: they ask for, in the plural.
      count: of it.
      most: what is allowed.

    Raises:
      ValueError: with how much it is and how much is allowed.
    """
    if count > most:
        given = ((name, values[name]) for name in asked if values[name])
        texts = (f"--{name}={','.join([v] if isinstance(v, str) else v)}" for name, v in given)
        raise ValueError(f"{' '.join(texts)}: {count} {what}; at most {most} are allowed")


class _TooManyError(ValueError):
    """More values than any grid here can have."""


def _check_count(flag: str, text: str, count: int) -> None:
    if count > _MOST_VALUES:
        raise _TooManyError(f"--{flag}={text}: {count} values; at most {_MOST_VALUES} are allowed")


def _check_exponent(flag: str, text: str) -> None:
    """Before a number is made exact: 1e99999999 has a hundred million digits."""
    for exponent in re.findall(r"[eE]([-+]?\d+)", text):
        if len(exponent) > 6 or abs(int(exponent)) > _GREATEST_EXPONENT:
            raise ValueError(f"--{flag}={text}: exponents reach from -400 to 400")


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
    with contextlib.closing(store):
        _write_study(name, values, store, started, figures, claims, more)


def _write_study(
    name: str,
    values: Mapping[str, Any],
    store: "Store",
    started: float,
    figures: Mapping[str, "Callable[[Dataset], Figure]"],
    claims: "Callable[[Dataset], Sequence[Claim]]",
    more: "Callable[[Dataset], Mapping[str, Any]]",
) -> None:
    out = Path(values["out"])
    spent = store.attrs.get("wall_time_s", 0.0) + time.time() - started
    store.finish(wall_time_s=round(spent, 2))
    dataset = store.load()
    paths = [store.path]
    for figure, draw in figures.items() if values["figures"] else ():
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


def _check_json(values: flags.FlagValues) -> None:
    """Raises ValueError for a --json that could not be written at the end of a long run."""
    if values.json in (None, "-"):
        return
    path = Path(values.json)
    if not values.json or path.is_dir():
        raise ValueError(f"--json={values.json}: must name a file, or be -")
    folder = next((one for one in path.absolute().parents if one.exists()), None)
    if folder is None or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(f"--json={values.json}: cannot write to {folder}")


def write_text(path: Path, text: str) -> None:
    """Writes a file whole, or leaves the one that is there; its folder is made."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file whole, or leaves the one that is there; its folder is made.

    Raises:
      StoreError: it cannot be written.
    """
    from adam_transition.store import StoreError

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
    from adam_transition.figures import style

    paths = [folder / f"{name}.png", folder / f"{name}.pdf"]
    with style():  # resolution and fonts are read when a figure is saved
        for path in paths:
            content = io.BytesIO()  # a disk that is full must not leave half a file
            figure.savefig(content, format=path.suffix[1:])
            write_bytes(path, content.getvalue())
            figure.set_layout_engine("none")  # it has its layout, which takes half of the time
    return paths


def _number(text: str) -> float:
    first, dash, rest = text.strip().partition("1-")
    if dash and not first:
        return 1 - float(rest)
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    if value == 0 and not is_zero(text):
        raise ValueError(text)
    return value


def is_zero(text: str) -> bool:
    """Whether a number that a double holds as 0 is 0, and not too small for a double."""
    return not any(digit in "123456789" for digit in text.lower().partition("e")[0])


def _git_revision() -> str:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.stdout.strip()


def _fail(name: str, error: object, status: int = 2) -> int:
    try:
        words = (_shortened(word) for word in str(error).split())
        print(f"{name}: {' '.join(words)}", file=sys.stderr, flush=True)
    except OSError:  # nobody reads it
        terminal.discard(sys.stderr)
    return status


def _shortened(word: str) -> str:
    """A value of thousands of characters is no help in a line, and no path is so long."""
    if len(word) <= _LONGEST_WORD:
        return word
    return f"{word[:60]}…({len(word)} characters)…{word[-20:]}"
