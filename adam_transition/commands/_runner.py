"""Runs a command: flags, compilation cache, distributed jobs, one-line errors, exit status."""

import errno
import importlib.util
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags

from adam_transition.commands import _distributed, _flagfiles, _terminal

_LONGEST_WORD = 400  # characters of a word in an error line


class Command(NamedTuple):
    """A command: its flags, and the function that receives their values."""

    name: str
    description: str
    flags: flags.FlagValues
    main: Callable[[dict[str, Any]], None]
    shares_work: bool = False  # whether all processes of a job may run `main`
    needs: tuple[str, ...] = ()  # packages of an extra
    extra: str = "networks"

    def run(self, argv: Sequence[str] | None = None) -> int:
        """Parses the flags and calls `main`; returns the exit status. Errors take one line.

        Args:
          argv: flags; default: those of this program, which then handles streams and signals too.
        """
        if argv is None:
            _terminal.make_streams_usable()
            with _terminal.stoppable(self.name):
                status = _run(self, sys.argv[1:])
        else:
            status = _run(self, argv)
        return _distributed.leave(_terminal.flush(status))


def check_installed(packages: Sequence[str], extra: str = "networks") -> None:
    """Raises ValueError, with the command that installs it, if we or packages are not installed."""
    try:  # a source tree that is only on the path has no version, which names results
        metadata.version("adam-transition")
    except metadata.PackageNotFoundError:
        raise ValueError("adam-transition is not installed: pip install -e .") from None
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise ValueError(
            f"needs {' and '.join(missing)}, which {'are' if missing[1:] else 'is'} not installed: "
            f"pip install 'adam-transition[{extra}]'"
        )


def _run(command: Command, argv: Sequence[str]) -> int:
    name = command.name
    try:
        if any(argument in ("--help", "-h", "-help") for argument in argv):
            print(f"{command.description}\n{command.flags.get_help()}")
            return 0
        try:
            argv = _flagfiles.with_paths(argv)
            _flagfiles.check(argv)
            rest = command.flags([name, *argv])[1:]
            if rest:
                raise ValueError(f"unexpected argument {rest[0]!r}: every flag starts with --")
        except (flags.Error, OSError, ValueError) as error:
            return _fail(name, error)
        _check_json(command.flags)
        check_installed(command.needs, command.extra)
        from adam_transition.commands import _compilation_cache

        if not _compilation_cache.enable():
            print(f"{name}: {_compilation_cache.IN_USE}", file=sys.stderr)
        _compilation_cache.give_up_when_locked(name)
        values = command.flags.flag_values_dict()
        _distributed.initialize(values, shares_work=command.shares_work)
        _terminal.catch_again()
        command.main(values)
    except BrokenPipeError:
        return _terminal.BROKEN_PIPE
    except KeyboardInterrupt:
        return _fail(name, f"interrupted; {_terminal.KEPT}", 130)
    except MemoryError as error:
        return _fail(name, f"not enough memory: {error}")
    except Exception as error:
        if isinstance(error, OSError) and error.errno == errno.ENOSPC and not error.filename:
            return _fail(name, f"cannot write to stdout: {error.strerror}")  # as files name theirs
        if _is_expected(error):
            return _fail(name, error)
        if not _distributed.is_joined():
            raise
        traceback.print_exc()
        return 1
    return 0


def _is_expected(error: Exception) -> bool:
    """Whether an error is due to the user or the machine, so that one line suffices."""
    from adam_transition.sweeps.processes import ProcessError
    from adam_transition.sweeps.store import StoreError

    return isinstance(error, (OSError, ProcessError, StoreError, ValueError))


def _check_json(values: flags.FlagValues) -> None:
    """Raises ValueError if --json cannot be written, before a long run rather than after it."""
    if values.json in (None, "-"):
        return
    path = Path(values.json)
    if not values.json or path.is_dir():
        raise ValueError(f"--json={values.json}: must name a file, or be -")
    folder = next((parent for parent in path.absolute().parents if parent.exists()), None)
    if folder is None or not folder.is_dir() or not os.access(folder, os.W_OK):
        raise ValueError(f"--json={values.json}: cannot write to {folder}")


def _fail(name: str, error: object, status: int = 2) -> int:
    try:
        words = (_shortened(word) for word in str(error).split())
        print(f"{name}: {' '.join(words)}", file=sys.stderr, flush=True)
    except OSError:  # stderr is closed
        _terminal.discard(sys.stderr)
    return status


def _shortened(word: str) -> str:
    """Shortens a word that is longer than any path, such as a huge value of a flag."""
    if len(word) <= _LONGEST_WORD:
        return word
    return f"{word[:60]}…({len(word)} characters)…{word[-20:]}"
