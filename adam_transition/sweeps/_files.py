"""Files that are written whole or not at all, and errors of the file system in one line."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path


class StoreError(Exception):
    """A store that cannot be created, opened, written or read; the message is one line."""


def remove(path: Path) -> None:
    """Whatever it is, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def make_way(file: Path, root: Path) -> None:
    """Removes a folder that lies where a file belongs, and a file where one of its folders does."""
    if file.is_dir() and not file.is_symlink():
        shutil.rmtree(file)
    for folder in file.parents:
        if folder == root:
            break
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            folder.unlink()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Failures of the file system as one line."""
    try:
        yield
    except OSError as error:
        raise StoreError(f"{path}: cannot write: {error.strerror or error}") from error


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file whole, or leaves the one that is there; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.partial")
    draft.write_bytes(content)
    draft.replace(path)


def read(path: Path) -> bytes | None:
    """What a file holds; None if it is not there, or is none.

    Raises:
      StoreError: it is there and may not be read, which is no damage.
    """
    try:
        return path.read_bytes() if path.is_file() else None  # to open a FIFO is to wait
    except PermissionError as error:
        raise StoreError(f"{path}: cannot read: {error.strerror}") from error
    except OSError:
        return None


def read_text(path: Path) -> str | None:
    content = read(path)
    try:
        return None if content is None else content.decode("utf-8")
    except UnicodeDecodeError:
        return None


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())
