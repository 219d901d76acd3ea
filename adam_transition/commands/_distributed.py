"""Several processes for one experiment: `jax.distributed`, on request or on a cluster."""

import contextlib
import itertools
import os
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from absl import flags

_SHUTDOWN_S = 24 * 3600
"""How long the other processes wait for the first, which draws the figures."""

_SILENT_S = float(os.environ.get("ADAM_TRANSITION_SILENT_S", "60"))
_BEAT_S = min(5.0, _SILENT_S / 4)
_LEAVING, _LEFT = threading.Event(), threading.Event()
_WATCHERS: list[threading.Thread] = []
_BEATS, _DONE = "adam_transition/beats/", "done"
_LONGER_S = 600  # JAX's timeout minus ours, so that ours fires first

_TASKS = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")


def define_flags(values: flags.FlagValues) -> None:
    """Adds the flags that describe a job of several processes."""
    text = partial(flags.DEFINE_string, flag_values=values)
    flags.DEFINE_enum(
        "distributed",
        "auto",
        ["auto", "off"],
        "auto: share the work with the other tasks of a SLURM, MPI, GKE or TPU job.",
        flag_values=values,
    )
    text("coordinator_address", None, "host:port of process 0, if no cluster provides it.")
    number = partial(flags.DEFINE_integer, lower_bound=0, flag_values=values)
    number("num_processes", None, "Number of processes; requires --coordinator_address.")
    number(
        "process_id",
        None,
        "Index of this process, in [0, num_processes); requires --coordinator_address.",
    )
    flags.DEFINE_integer(
        "join_timeout",
        120,
        "Seconds to wait for the other processes when a job starts.",
        1,
        86_400,
        flag_values=values,
    )


def initialize(values: Mapping[str, Any], *, shares_work: bool) -> None:
    """Joins the job described by the flags or the cluster; does nothing if there is none.

    Args:
      values: the flags.
      shares_work: whether the experiment can run in several processes.

    Raises:
      ValueError: inconsistent flags, a job that cannot be joined, or an experiment that does not
        share its work.
    """
    import jax

    named = ("coordinator_address", "num_processes", "process_id")
    given = {name: values[name] for name in named if values[name] is not None}
    if given and (len(given) < len(named) or values["distributed"] == "off"):
        raise ValueError(
            f"--{next(iter(given))}={next(iter(given.values()))}: goes with "
            f"{', '.join(f'--{name}' for name in named if name not in given)} and "
            "--distributed=auto"
        )
    if given and not given["process_id"] < given["num_processes"]:
        raise ValueError(
            f"--process_id={given['process_id']}: must be below --num_processes="
            f"{given['num_processes']}"
        )
    if given:
        _check_address(given["coordinator_address"])
    alone = any(os.environ.get(name) == "1" for name in _TASKS)
    if values["distributed"] == "off" or (alone and not given):
        return
    detection: dict[str, Any] = {"cluster_detection_method": "deactivate"} if given else {}
    where = f"--coordinator_address={given['coordinator_address']}" if given else "the cluster"
    try:
        with warnings.catch_warnings(), _ending_after(values["join_timeout"], where):
            warnings.simplefilter("ignore")  # JAX asks for a package in every pod of Kubernetes
            jax.distributed.initialize(
                **given,
                **detection,
                initialization_timeout=values["join_timeout"] + _LONGER_S,
                shutdown_timeout_seconds=_SHUTDOWN_S,
            )
    except ValueError:
        if given:
            raise
        return  # JAX has detected no cluster
    except RuntimeError as error:
        if not given and "must be called before" in str(error):
            return  # JAX is in use already: called from another program, not as a task of a job
        raise ValueError(
            f"{where}: cannot join the job ({error}); --distributed=off runs alone"
        ) from error
    if jax.process_count() > 1:
        _watch_the_others()
    if jax.process_count() > 1 and not shares_work:
        raise ValueError(
            f"this job has {jax.process_count()} processes, but the experiment runs in one: start "
            "one task, or each with its own --out and --distributed=off"
        )


def _watch_the_others() -> None:
    """Ends this process, with one line, when another has been silent for a minute.

    The other may be suspended or disconnected; a process that dies is noticed at once
    (`processes.gather`). JAX notices silence too, but later, and ends with a stack trace. Every
    process increments a counter in the job's key-value store.
    """
    import jax
    from jax._src.distributed import global_state  # JAX has no public interface to its store

    client: Any = global_state.client
    me, count = jax.process_index(), jax.process_count()
    heard = dict.fromkeys(range(count), time.monotonic())
    last: dict[int, str] = {}

    def talk() -> None:
        for beat in itertools.count():
            try:
                value = _DONE if _LEAVING.is_set() else str(beat)
                client.key_value_set(f"{_BEATS}{me}", value, allow_overwrite=True)
                for key, value in client.key_value_dir_get(_BEATS):
                    process = int(key.rpartition("/")[2])
                    if last.get(process) != value:
                        last[process], heard[process] = value, time.monotonic()
            except Exception:  # the job is over, or JAX is about to report an error
                return
            if _LEFT.wait(_BEAT_S):
                return

    def listen() -> None:
        before = time.monotonic()
        while not _LEFT.wait(1):
            now = time.monotonic()
            if now - before > _BEAT_S:  # this process itself was suspended
                heard.update(dict.fromkeys(heard, now))
            before = now
            silent = [
                process
                for process, when in heard.items()
                if now - when > _SILENT_S and process != me and last.get(process) != _DONE
            ]
            if silent and talker.is_alive():
                text = (
                    f"process {silent[0]} of this job has not answered for {_SILENT_S:.0f} s; "
                    "finished chunks are kept, run again to continue\n"
                )
                os.write(2, text.encode())
                os._exit(2)

    _LEAVING.clear()
    _LEFT.clear()
    talker = threading.Thread(target=talk, daemon=True)
    _WATCHERS[:] = [talker, threading.Thread(target=listen, daemon=True)]
    for thread in _WATCHERS:
        thread.start()


def _check_address(address: str) -> None:
    host, colon, port = address.rpartition(":")
    if not (host and colon and port.isdecimal() and port.isascii() and 0 < int(port[:6]) < 2**16):
        raise ValueError(f"--coordinator_address={address}: write host:port, with a port to 65535")
    try:
        socket.getaddrinfo(host.strip("[]"), int(port))
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"--coordinator_address={address}: {reason}") from None


@contextlib.contextmanager
def _ending_after(seconds: float, where: str) -> Iterator[None]:
    """Ends the process with one line, where JAX would wait longer and end with a stack trace."""

    def end() -> None:
        text = f"{where}: not all processes of the job have come within {seconds} s"
        os.write(2, f"{text} (--join_timeout); --distributed=off runs alone\n".encode())
        os._exit(2)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def leave(status: int) -> int:
    """Waits for the other processes; after an error, ends at once so that they notice."""
    if is_joined():
        import jax

        if status:  # the usual end would wait for the others
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        if jax.process_count() > 1:  # the first may still be drawing figures for a long time
            from jax._src.distributed import global_state

            _LEAVING.set()
            client: Any = global_state.client
            with contextlib.suppress(Exception):
                client.key_value_set(f"{_BEATS}{jax.process_index()}", _DONE, allow_overwrite=True)
        jax.distributed.shutdown()
        _LEFT.set()
        for thread in _WATCHERS:  # Python's exit aborts if a thread is in JAX's client
            thread.join(_BEAT_S)
    return status


def is_joined() -> bool:
    """Whether this process belongs to a job of `jax.distributed`."""
    if "jax" not in sys.modules:  # avoids the import: --help is quick
        return False
    import jax

    return jax.distributed.is_initialized()
