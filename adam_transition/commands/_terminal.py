"""Streams and signals of a program: any encoding, closed pipes, requests to stop."""

import codecs
import contextlib
import os
import signal
import sys
import threading
import unicodedata
from collections.abc import Iterator
from typing import TextIO

BROKEN_PIPE = 128 + 13
"""Exit status if the reader of the output has gone: that of a program ended by SIGPIPE."""

KEPT = "finished chunks are kept, run again to continue"
_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
if hasattr(signal, "SIGHUP"):
    _WORDS[signal.SIGHUP] = "its terminal hung up"

STOP_WITH_STDIN = "ADAM_TRANSITION_STOP_WITH_STDIN"
"""Environment variable: if set, the program ends when its standard input, a pipe from its parent,
closes. A parent that is killed cannot signal its children."""

_PLAIN = {
    "α": "alpha", "β": "beta", "δ": "delta", "ε": "epsilon", "η": "eta", "τ": "tau", "ρ": "rho",
    "σ": "sigma", "Σ": "sum", "κ": "kappa", "∇": "grad ", "√": "sqrt ", "∞": "inf", "∝": "~",
    "±": "+-", "×": "x", "·": "*", "−": "-", "–": "-", "—": "-", "≤": "<=", "≥": ">=", "≈": "~",
    "≠": "!=", "→": "->", "‖": "||", "…": "...", "∈": "in", "½": "1/2", "¼": "1/4", "°": " deg",
}  # fmt: skip


def make_streams_usable() -> None:
    """Redirects closed streams to the null device; writes unencodable text in ASCII."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # else the next file opened would get this descriptor
            os.open(os.devnull, os.O_RDWR)
    codecs.register_error("plain", _plain)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="plain")


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Replaces symbols by words, superscripts by powers, and other characters by their number."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    found = "".join(map(_in_ascii, error.object[error.start : error.end]))
    return found, error.end


def _in_ascii(character: str) -> str:
    if character in _PLAIN:
        return _PLAIN[character]
    base = unicodedata.normalize("NFKD", character).replace("−", "-")
    base = "".join(part for part in base if not unicodedata.combining(part))
    if not base or not base.isascii():
        return character.encode("ascii", "backslashreplace").decode()
    raised = unicodedata.decomposition(character).startswith("<super>")
    return f"^{base}" if raised else base


def flush(status: int) -> int:
    """Flushes stdout; returns the exit status."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        status = status or BROKEN_PIPE
    except OSError as error:
        with contextlib.suppress(OSError):
            print(f"cannot write to stdout: {error.strerror}", file=sys.stderr)
        status = status or 1
    else:
        if status != BROKEN_PIPE:
            return status
    discard(sys.stdout)
    return status


def discard(stream: TextIO) -> None:
    """Redirects a stream to the null device, so that closing it at exit raises nothing."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


@contextlib.contextmanager
def stoppable(name: str) -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP end the program at once, with one line and status 130, 143 or 129.

    They raise no exception: that would wait until a compiled program has finished, and would be
    lost if raised in a callback. No clean-up is needed: files are written atomically, and the
    kernel releases locks.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in _WORDS}
    before = {k: old for k, old in handlers.items() if old != signal.SIG_IGN}  # as nohup sets it
    receiver, sender = os.pipe()
    os.set_blocking(sender, False)
    wakeup = signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
    for number in before:
        signal.signal(number, _left_to_the_thread)
    threading.Thread(target=_end_by_signal, args=(name, receiver), daemon=True).start()
    if os.environ.pop(STOP_WITH_STDIN, None):  # popped, as our own children must not inherit it
        threading.Thread(target=_end_with_stdin, args=(name,), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(sender)


def catch_again() -> None:
    """Reinstalls the handlers after a library has replaced them outside of Python."""
    for number in _WORDS:
        if signal.getsignal(number) is _left_to_the_thread:
            signal.signal(number, _left_to_the_thread)


def _left_to_the_thread(signum: int, frame: object) -> None:
    del signum, frame


def _end_by_signal(name: str, receiver: int) -> None:
    while received := os.read(receiver, 1):
        if received[0] in map(int, _WORDS):
            _end(name, _WORDS[signal.Signals(received[0])], 128 + received[0])
    os.close(receiver)


def _end_with_stdin(name: str) -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 1024):
            pass
    _end(name, "the program that started it has ended", 129)


def _end(name: str, words: str, status: int) -> None:
    with contextlib.suppress(OSError):
        bar = "\n" if os.isatty(2) else ""  # a progress bar may occupy the line
        os.write(2, f"{bar}{name}: {words}; {KEPT}\n".encode())
    os._exit(status)
