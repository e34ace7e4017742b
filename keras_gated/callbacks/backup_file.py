"""The file of a backup: text and arrays, written whole or not at all."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

from keras_gated.datasets.files import atomic_path

PLAIN = (bool, int, float, str, type(None), np.generic, np.ndarray)
"""What it holds; and lists and dictionaries of these."""
COMPARISONS = {
    f"{title}.{name}": getattr(library, name)
    for title, library in (("keras.ops", ops), ("numpy", np))
    for name in ("less", "greater")
}
"""And functions by which Keras's callbacks compare, once they have begun."""
ARRAY, FUNCTION = "the array", "the function"
"""The keys of the number of an array and of the name of a function, in their place."""


class BackupError(RuntimeError):
    """A backup is damaged, or is that of another training; the message says which.

    Args:
        message: The message.
        differing: What differs in the other training, by name; nothing in a damaged
            backup. Default: nothing.
    """

    def __init__(self, message: str, differing: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.differing = list(differing)


def write(path: Path, about: dict[str, Any], arrays: list[np.ndarray]) -> None:
    """Writes a backup, in the place of the one before.

    Args:
        path: The file.
        about: What JSON can hold.
        arrays: Arrays of any numbers.

    Raises:
        OSError: It cannot be written; the one before is still there.
    """
    dtypes = [str(array.dtype) for array in arrays]
    text = json.dumps({**about, "dtypes": dtypes}).encode()
    parts = [np.frombuffer(text, np.uint8), *map(_octets, arrays)]
    with atomic_path(path) as whole, open(whole, "wb") as file:
        np.savez(file, *parts, digest=_digest(parts))
        file.flush()
        os.fsync(file.fileno())  # before it takes the place of the other


def read(path: Path) -> tuple[dict[str, Any], list[np.ndarray]] | None:
    """Reads a backup.

    Args:
        path: The file.

    Returns:
        As `write` had them; `None` if there is no file.

    Raises:
        BackupError: It is not what was written.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            parts = [file[f"arr_{number}"] for number in range(len(file.files) - 1)]
            if not np.array_equal(file["digest"], _digest(parts)):
                raise ValueError("it is not what was written")
        text, *octets = parts
        about = json.loads(text.tobytes())
        arrays = [
            array.view(np.dtype(dtype))[..., 0]
            for array, dtype in zip(octets, about.pop("dtypes"), strict=True)
        ]
    except (FileNotFoundError, NotADirectoryError):
        return None
    except Exception as error:  # NumPy raises anything
        reason = " ".join(str(error).split())
        raise BackupError(
            f"The backup {str(path)!r} cannot be read ({reason}). Remove it to train "
            "anew."
        ) from error
    return about, arrays


def _octets(array: np.ndarray) -> np.ndarray:
    """The bytes of each number: NumPy's format does not know all dtypes of Keras."""
    octets = np.frombuffer(array.tobytes(), np.uint8)
    return octets.reshape(*array.shape, array.itemsize)


def _digest(parts: Iterable[np.ndarray]) -> np.ndarray:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(str(part.shape).encode())
        digest.update(part)
    return np.frombuffer(digest.digest(), np.uint8)


def is_plain(value: Any) -> bool:
    """Whether a backup can hold a value.

    Args:
        value: Anything.
    """
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(k, str) and is_plain(v) for k, v in value.items())
    return isinstance(value, PLAIN) or _name_of(value) is not None


def _name_of(function: Any) -> str | None:
    names = (name for name, known in COMPARISONS.items() if known is function)
    return next(names, None)


def packed(value: Any, arrays: list[np.ndarray]) -> Any:
    """A value as JSON holds it.

    Args:
        value: One that is plain.
        arrays: To which its arrays are appended.
    """
    if isinstance(value, dict):
        return {key: packed(part, arrays) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [packed(part, arrays) for part in value]
    if isinstance(value, (np.ndarray, np.generic)):
        arrays.append(np.asarray(value))
        return {ARRAY: len(arrays) - 1}
    name = _name_of(value)
    return value if name is None else {FUNCTION: name}


def unpacked(value: Any, arrays: list[np.ndarray]) -> Any:
    """The value that `packed` was given, tuples as lists.

    Args:
        value: What it returned.
        arrays: All arrays.
    """
    if isinstance(value, dict):
        if value.keys() == {ARRAY}:
            return arrays[value[ARRAY]]
        if value.keys() == {FUNCTION}:
            return COMPARISONS[value[FUNCTION]]
        return {key: unpacked(part, arrays) for key, part in value.items()}
    if isinstance(value, list):
        return [unpacked(part, arrays) for part in value]
    return value


def same(first: Any, second: Any) -> bool:
    """Whether plain values are equal; NaN is equal to itself.

    Args:
        first: One.
        second: The other.
    """
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(
            same(first[key], second[key]) for key in first
        )
    if isinstance(first, (list, tuple)) and isinstance(second, (list, tuple)):
        return len(first) == len(second) and all(map(same, first, second))
    if isinstance(first, np.ndarray) or isinstance(second, np.ndarray):
        return np.array_equal(first, second)
    return first == second or (first != first and second != second)
