"""Atomic writes of files, and file system errors in one line."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path


class StoreError(Exception):
    """A store that cannot be created, opened, written or read; the message is one line."""


def remove(path: Path) -> None:
    """Removes a file, symbolic link or folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def make_way(file: Path, root: Path) -> None:
    """Removes a folder in the place of a file, and files in the place of the file's folders."""
    if file.is_dir() and not file.is_symlink():
        shutil.rmtree(file)
    for folder in file.parents:
        if folder == root:
            break
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            folder.unlink()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns file system errors into a `StoreError` with a one-line message."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path}: cannot write: {error.strerror or error}") from error


def write_text(path: Path, text: str) -> None:
    """Writes a text file atomically; creates its folder."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file atomically; creates its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.partial")
    draft.write_bytes(content)
    draft.replace(path)


def read(path: Path) -> bytes | None:
    """The content of a file; None if it does not exist, is not a regular file or cannot be read.

    Raises:
      StoreError: permission is denied; this does not count as damage.
    """
    try:
        return path.read_bytes() if path.is_file() else None  # opening a FIFO would block
    except PermissionError as error:
        raise StoreError(f"{path}: cannot read: {error.strerror}") from error
    except OSError:
        return None


def read_text(path: Path) -> str | None:
    """The content of a UTF-8 file; None as for `read`, or if it cannot be decoded."""
    content = read(path)
    try:
        return None if content is None else content.decode("utf-8")
    except UnicodeDecodeError:
        return None


def one_line(error: Exception) -> str:
    """The message of an error in one line."""
    return " ".join(str(error).split())
