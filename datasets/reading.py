"""The reading of many files, some at a time."""

import collections
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from .files import FileError, Finding

ERRORS = ("skip", "raise")
"""What to do about files that cannot be read."""

T = TypeVar("T")


def read_many(
    paths: Sequence[Path],
    start: Callable[[Path], Callable[[], T]],
    skipped: dict[Path, Finding],
    errors: str = "skip",
    ahead: int = 1,
    verbose: bool = True,
) -> Iterator[tuple[Path, T]]:
    """Reads files, in their order, with a progress bar.

    Args:
        paths: The files.
        start: Begins to read a file, and returns what waits for the result. Both may
            raise a `FileError`.
        skipped: Takes the files that cannot be read, and why.
        errors: `"skip"` files that cannot be read, or `"raise"`. Default: `"skip"`.
        ahead: How many files are begun before the first of them is waited for.
            Default: 1.
        verbose: Whether to show a progress bar. Default: `True`.

    Yields:
        The files that could be read, each with its result.

    Raises:
        FileError: With `errors="raise"`: a file cannot be read.
    """
    from keras.utils import Progbar

    bar = Progbar(len(paths), verbose=int(verbose), unit_name="file")
    todo = iter(paths)
    begun: collections.deque[tuple[Path, Callable[[], T]]] = collections.deque()
    while True:
        for path in itertools.islice(todo, ahead - len(begun)):
            begun.append((path, _begin(start, path)))
        if not begun:
            return
        path, wait = begun.popleft()
        try:
            result = wait()
        except FileError as error:
            if errors == "raise":
                raise
            skipped[path] = error.finding
            bar.add(1)
        else:
            bar.add(1)
            yield path, result


def _begin(start: Callable[[Path], Callable[[], T]], path: Path) -> Callable[[], T]:
    try:
        return start(path)
    except FileError as error:
        problem = error

    def fail() -> T:
        raise problem

    return fail
