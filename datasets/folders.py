"""Folders of files, and how they are split.

The arguments are those of `keras.utils.audio_dataset_from_directory`.
"""

import collections
import os
from collections.abc import Callable, Collection, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from . import checks
from .files import Finding

SUBSETS = ("training", "validation", "both")


def find_files(
    directory: str | os.PathLike,
    suffixes: Collection[str],
    kind: str,
    follow_links: bool = False,
) -> tuple[list[Path], dict[Path, Finding], dict[str, int]]:
    """Finds the files of a folder and its subfolders.

    Args:
        directory: The folder.
        suffixes: The endings to look for, in lower case; they are found in any. An
            empty one stands for names without an ending.
        kind: What a file is, for messages: `"MIDI file"`.
        follow_links: Whether to go into folders that are links; a folder is read
            once, also where links go in circles. Default: `False`.

    Returns:
        The files in the order of their paths; the folders that cannot be listed, and
        what has such a name and is no file, with the reasons; and the number of the
        other files, by their endings.

    Raises:
        ValueError: The folder does not exist, cannot be read, or holds no such
            file.
    """
    directory = Path(directory)
    paths: list[Path] = []
    skipped: dict[Path, Finding] = {}
    others: collections.Counter[str] = collections.Counter()
    entered: set[str] = set()

    def unreadable(error: OSError) -> None:
        folder = Path(error.filename)
        if folder == directory:
            what = "is not a folder"
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                what = "cannot be read"
            raise ValueError(f"{str(directory)!r} {what}: {error.strerror}.") from error
        reason = f"The folder {str(folder)!r} cannot be read: {error.strerror}"
        skipped[folder] = Finding(reason, "a folder that cannot be read")

    for folder, below, names in os.walk(
        directory, onerror=unreadable, followlinks=follow_links
    ):
        real = os.path.realpath(folder)
        if real in entered:
            below.clear()
            continue
        entered.add(real)
        # Hidden files are half-written files or macOS's notes, never music.
        for name in names:
            path = Path(folder, name)
            if name.startswith(".") or path.suffix.lower() not in suffixes:
                others[path.suffix] += 1
            elif path.is_file():
                paths.append(path)
            else:
                what = "is a link to nothing" if path.is_symlink() else "is no file"
                skipped[path] = Finding(f"{str(path)!r} {what}.", "not a file")
    if not paths:
        raise ValueError(
            f"The folder {str(directory)!r} holds no {kind} "
            f"({', '.join(filter(None, suffixes))})."
        )
    return sorted(paths), skipped, dict(others)


def check_no_labels(labels: None, label_mode: None, class_names: None) -> None:
    """Refuses Keras's arguments about classes: the next step is the target.

    Args:
        labels: As in Keras, but only `None` is accepted.
        label_mode: As in Keras, but only `None` is accepted.
        class_names: As in Keras, but only `None` is accepted.

    Raises:
        ValueError: One is not `None`.
    """
    for name, value in (
        ("labels", labels),
        ("label_mode", label_mode),
        ("class_names", class_names),
    ):
        if value is not None:
            accepted = "None: the targets are the next steps, and no classes are read"
            raise checks.error(name, value, accepted)


def check_split(
    validation_split: float | None, subset: str | None, shuffle: bool, seed: int | None
) -> None:
    """Refuses arguments that do not say how to split a folder.

    Args:
        validation_split: The fraction that is set aside, between 0 and 1, or `None`.
        subset: `"training"`, `"validation"`, `"both"`, or `None`.
        shuffle: Whether the files are put in a random order first.
        seed: The seed of that order.

    Raises:
        ValueError: They do not go together.
    """
    checks.number("validation_split", validation_split, above=0, below=1, optional=True)
    checks.one_of("subset", subset, (*SUBSETS, None))
    checks.whole("seed", seed, 0, optional=True)
    if (validation_split is None) != (subset is None):
        raise ValueError(
            "Arguments `validation_split` and `subset` go together. Received: "
            f"validation_split={validation_split!r}, subset={subset!r}"
        )
    if subset in ("training", "validation") and shuffle and seed is None:
        raise ValueError(
            f"With subset={subset!r} and shuffle=True give a `seed`: without one the "
            "two parts would overlap."
        )


def wanted(subset: str | None) -> tuple[str, ...]:
    """The parts that `subset` asks for.

    Args:
        subset: `"training"`, `"validation"`, `"both"`, or `None` for training.
    """
    return SUBSETS[:2] if subset == "both" else (subset or SUBSETS[0],)


def split(
    paths: Sequence[Path],
    fraction: float,
    shuffle: bool = True,
    seed: int | None = None,
    groups: Callable[[Path], Any] | None = None,
) -> tuple[list[int], list[int]]:
    """Sets a fraction of files aside, in whole groups.

    Args:
        paths: The files.
        fraction: The fraction of their number, between 0 and 1.
        shuffle: Whether to put the groups in a random order first; else the last
            are set aside. Default: `True`.
        seed: Makes the order repeatable. Default: `None`.
        groups: Maps a path to the group of the file, such as its speaker; files of
            one group stay together. Default: `None`, each file is its own group.

    Returns:
        The numbers of the files that stay, and of those set aside: one group at
        least, and as many as come nearest to the fraction (of two numbers that are
        as near, the smaller).

    Raises:
        ValueError: There is only one group.
    """
    members: dict[Any, list[int]] = {}
    for number, path in enumerate(paths):
        members.setdefault(groups(path) if groups else number, []).append(number)
    order = list(members.values())
    if len(order) < 2:
        raise ValueError(
            f"There is {len(order)} {'group' if groups else 'file'}, and each of two "
            "parts needs one."
        )
    if shuffle:
        random = np.random.default_rng(seed)
        order = [order[i] for i in random.permutation(len(order))]
    held_out = np.cumsum([0, *(len(group) for group in reversed(order))])
    count = int(np.argmin(np.abs(held_out - fraction * len(paths))))
    cut = len(order) - min(max(1, count), len(order) - 1)
    return [*chain(*order[:cut])], [*chain(*order[cut:])]
