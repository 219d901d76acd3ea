"""The flagfiles of the commands, by name; each stores the flags of one figure."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

_FLAGS = ("--flagfile", "-flagfile")


def folder() -> Path:
    """The folder of the flagfiles: `experiments/flagfiles` in a checkout, else in the package."""
    package = Path(__file__).parent.parent
    checkout = package.parent / "experiments" / "flagfiles"
    return checkout if checkout.is_dir() else package / "flagfiles"


def names() -> list[str]:
    """Names that `--flagfile=NAME` accepts besides paths, such as phase and smoke/phase."""
    paths = sorted(folder().rglob("*.flags"))
    return [path.relative_to(folder()).with_suffix("").as_posix() for path in paths]


def path(name: str) -> Path:
    """The path of the flagfile of that name."""
    return folder() / f"{name}.flags"


def with_paths(argv: Sequence[str]) -> list[str]:
    """The arguments, with names of flagfiles that are not existing files replaced by paths."""
    found = list(argv)
    for i, flag, name in _given(argv):
        stem = name.removesuffix(".flags")
        if name and not Path(name).exists() and stem in names():
            if "=" in argv[i]:
                found[i] = f"{flag}={path(stem)}"
            else:
                found[i + 1] = str(path(stem))
    return found


def _given(arguments: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """Position, flag and value of each --flagfile."""
    for i, argument in enumerate(arguments):
        flag, equals, name = argument.strip().partition("=")
        if flag in _FLAGS:
            value = name if equals else next(iter(arguments[i + 1 : i + 2]), "")
            yield i, flag, value.strip()


def check(argv: Sequence[str], within: tuple[Path, ...] = ()) -> None:
    """Raises ValueError for a --flagfile without a name, or one that includes itself."""
    for _, _, name in _given(argv):
        if not name:
            raise ValueError("--flagfile=: must name a file")
        place = Path(name).expanduser()
        if place.resolve() in within:
            raise ValueError(f"--flagfile={name}: includes itself")
        try:
            lines = place.read_text(encoding="utf-8").splitlines()
        except OSError as error:
            raise ValueError(f"--flagfile={name}: cannot read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError(f"--flagfile={name}: not a text of flags in UTF-8") from None
        check(lines, (*within, place.resolve()))


class Header(NamedTuple):
    """What a flagfile says of itself in its first comment lines."""

    shows: str
    runs: str
    time: str
    result: str


def header(name: str) -> Header:
    """The header of a flagfile.

    Raises:
      ValueError: a flagfile whose header lacks a part.
    """
    comments = []
    for line in path(name).read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        comments.append(line.removeprefix("#").strip())
    text = " ".join(comments)
    parts = re.fullmatch(r"(.*?) Runs: (.*?) Time: (.*?) Result: (.*)", text)
    if parts is None:
        raise ValueError(f"{path(name)}: its header needs what it shows, Runs:, Time: and Result:")
    return Header(*parts.groups())


def command_of(name: str) -> str:
    """The command that a flagfile is for: the longest whose name it begins with."""
    from adam_transition.commands import NAMES

    stem = name.rpartition("/")[2]
    return max((command for command in NAMES if stem.startswith(command)), key=len)
