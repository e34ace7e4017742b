"""Optional packages, and files: opened, and written whole or not at all."""

import contextlib
import errno
import importlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import BinaryIO


class Finding(str):
    """A sentence about a file, and of what kind it is.

    Args:
        text: The sentence.
        kind: A few words, the same for all files of which this is true.
    """

    kind: str

    def __new__(cls, text: str, kind: str) -> "Finding":
        finding = super().__new__(cls, text)
        finding.kind = kind
        return finding

    def __getnewargs__(self) -> tuple[str, str]:
        return str(self), self.kind


class FileError(ValueError):
    """A file cannot be used; the message names it and says why.

    Args:
        message: The message.
        kind: What is wrong, in a few words, for reports. Default: `"unreadable"`.
    """

    def __init__(self, message: str, kind: str = "unreadable") -> None:
        super().__init__(message)
        self.kind = kind

    @property
    def finding(self) -> Finding:
        """The message and its kind."""
        return Finding(str(self), self.kind)


def require(package: str, extra: str | None = None) -> ModuleType:
    """Imports a package that may not be installed.

    Args:
        package: The name to import.
        extra: The extra of keras_gated that installs it. Default: `None`, it has the
            name of the package.

    Returns:
        The module.

    Raises:
        ImportError: It is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        if error.name != package.partition(".")[0]:
            raise
        what = f"'keras-gated[{extra}]'" if extra else error.name
        raise ImportError(
            f"This needs the package {error.name!r}, which is not installed. "
            f"Install it with: pip install {what}",
            name=error.name,
        ) from error


def cache_directory(directory: str | os.PathLike | None = None) -> Path:
    """Where downloaded and prepared data is kept.

    Args:
        directory: Overrides the default, `datasets/keras_gated` in Keras's own
            folder (`$KERAS_HOME`, or `~/.keras`).

    Returns:
        The path, which need not exist yet.
    """
    if directory is not None:
        return Path(directory).expanduser()
    home = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
    return Path(home) / "datasets" / "keras_gated"


def open_binary(path: str | os.PathLike) -> BinaryIO:
    """Opens a file to read bytes from it.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: There is no such file; the message names it.
        OSError: The file cannot be read.
    """
    try:
        # To open a pipe would wait for somebody who writes to it.
        if stat.S_ISREG(os.stat(path).st_mode) or os.path.isdir(path):
            return open(path, "rb")
    except FileNotFoundError as error:
        raise FileNotFoundError(
            error.errno, f"There is no file {os.fspath(path)!r}"
        ) from error
    raise OSError(errno.EINVAL, "It is a pipe or a device, not a file", path)


@contextlib.contextmanager
def os_errors_as(kind: type[FileError], path: str | os.PathLike) -> Iterator[None]:
    """Turns an `OSError` into an error that names the file.

    Args:
        kind: What to raise.
        path: The file.
    """
    try:
        yield
    except OSError as error:
        message = f"{os.fspath(path)!r} cannot be read: {error.strerror or error}"
        raise kind(message, "cannot be opened") from error


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike) -> Iterator[Path]:
    """Lets a file appear at `path` only once it is whole.

    Whatever ends the block early (an error, Ctrl-C, a kill) leaves what was at
    `path` before.

    Args:
        path: Where the file is to be; missing folders are made.

    Yields:
        A path beside it, with the same ending, to write to.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(path.suffix, f".{path.stem}-", path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp makes files for the owner alone; give what `open` would give.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def discard_unfinished(folder: str | os.PathLike) -> None:
    """Removes what `atomic_path` was writing when its process was killed.

    Args:
        folder: Which no other process writes into, with its subfolders.
    """
    for path in Path(folder).rglob(".*-????????*"):
        path.unlink()
