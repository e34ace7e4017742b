"""The files that other callbacks append to, and what of them is taken back."""

import os
import socket
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras

EVENTS = "events.out.tfevents."
"""How the names of TensorBoard's files begin. Time, host and process follow."""


class Writer:
    """This process, as the files of TensorBoard name who writes them."""

    def __init__(self) -> None:
        self._since = int(time.time())
        self._who = f".{socket.gethostname()}.{os.getpid()}."

    def note(
        self, callbacks: Sequence[keras.callbacks.Callback], base: Path
    ) -> dict[str, Any]:
        """What `take_back` needs; whatever is in memory is written first.

        Args:
            callbacks: Those that may write.
            base: The folder from which files are named, so that all may move.
        """
        _flush(callbacks)
        folders = [_relative(x, base) for c in callbacks for x in _folders(c)]
        sizes = {
            _relative(file, base): file.stat().st_size
            for callback in callbacks
            for file in _files(callback)
        }
        return {
            "since": self._since,
            "who": self._who,
            "folders": folders,
            "sizes": sizes,
        }


def take_back(noted: dict[str, Any], base: Path) -> None:
    """Removes what was written after a note.

    Files of others in the same folders stay.

    Args:
        noted: The note.
        base: As it was.
    """
    for name, size in noted["sizes"].items():
        file = base / name
        if file.exists() and file.stat().st_size > size:
            os.truncate(file, size)
    for folder in noted["folders"]:
        for file in (base / folder).glob(f"{EVENTS}*{noted['who']}*"):
            seconds = file.name.removeprefix(EVENTS).partition(".")[0]
            mine = seconds.isdigit() and int(seconds) >= noted["since"]
            if mine and _relative(file, base) not in noted["sizes"]:
                file.unlink()


def _folders(callback: keras.callbacks.Callback) -> list[Path]:
    """Where a callback writes for TensorBoard, as Keras's does."""
    log_dir = getattr(callback, "log_dir", None)
    if not isinstance(log_dir, (str, os.PathLike)):
        return []
    return [Path(log_dir, part) for part in ("", "train", "validation")]


def _files(callback: keras.callbacks.Callback) -> Iterator[Path]:
    for folder in _folders(callback):
        yield from folder.glob(f"{EVENTS}*")
    if isinstance(callback, keras.callbacks.CSVLogger):
        file = Path(callback.filename)
        if file.exists():
            yield file


def _flush(callbacks: Sequence[keras.callbacks.Callback]) -> None:
    """Has everything written that callbacks hold open."""
    for callback in callbacks:
        for value in vars(callback).values():
            for writer in value.values() if isinstance(value, dict) else [value]:
                if callable(getattr(writer, "flush", None)):
                    try:
                        writer.flush()
                    except Exception as error:  # TensorFlow has its own
                        raise OSError(f"{type(writer).__name__}: {error}") from error


def _relative(path: Path, base: Path) -> str:
    return os.path.relpath(path, base)
