"""Folders of files, and how they are split."""

import os
from collections.abc import Collection
from pathlib import Path

SUBSETS = ("training", "validation", "both")


def find_files(
    directory: str | os.PathLike,
    suffixes: Collection[str],
    kind: str,
    follow_links: bool = False,
) -> tuple[list[Path], dict[Path, str]]:
    """The files of a folder and its subfolders.

    Args:
        directory: The folder.
        suffixes: The endings to look for, in lower case; they are found in any.
        kind: What a file is, for messages: `"MIDI file"`.
        follow_links: Whether to go into folders that are links. Default: `False`.

    Returns:
        The files in the order of their paths; and the folders that cannot be
        listed, with the reasons.

    Raises:
        ValueError: The folder does not exist, cannot be read, or holds no such
            file.
    """
    directory = Path(directory)
    paths, skipped = [], {}

    def unreadable(error: OSError) -> None:
        folder = Path(error.filename)
        if folder == directory:
            what = "is not a folder"
            if not isinstance(error, FileNotFoundError | NotADirectoryError):
                what = "cannot be read"
            raise ValueError(f"{str(directory)!r} {what}: {error.strerror}.") from error
        skipped[folder] = f"The folder {str(folder)!r} cannot be read: {error.strerror}"

    for folder, _, names in os.walk(
        directory, onerror=unreadable, followlinks=follow_links
    ):
        # Hidden files are no one's music: half-written ones, macOS's notes.
        files = (Path(folder, name) for name in names if not name.startswith("."))
        paths += [path for path in files if path.suffix.lower() in suffixes]
    if not paths:
        raise ValueError(
            f"The folder {str(directory)!r} holds no {kind} ({', '.join(suffixes)})."
        )
    return sorted(paths), skipped


def check_split(
    validation_split: float | None, subset: str | None, shuffle: bool, seed: int | None
) -> None:
    """Refuses arguments that do not tell how to split a folder.

    Args:
        validation_split: The share that is set aside, between 0 and 1, or `None`.
        subset: `"training"`, `"validation"`, `"both"`, or `None`.
        shuffle: Whether the files are put in a random order first.
        seed: Of the order.

    Raises:
        ValueError: They do not go together.
    """
    if (validation_split is None) != (subset is None):
        raise ValueError(
            "Arguments `validation_split` and `subset` go together. Received: "
            f"validation_split={validation_split!r}, subset={subset!r}"
        )
    if subset is not None and subset not in SUBSETS:
        raise ValueError(
            f"Argument `subset` must be one of {SUBSETS}. Received: subset={subset!r}"
        )
    if validation_split is not None and not 0 < validation_split < 1:
        raise ValueError(
            "Argument `validation_split` must be between 0 and 1. "
            f"Received: validation_split={validation_split!r}"
        )
    if subset in ("training", "validation") and shuffle and seed is None:
        raise ValueError(
            f"With subset={subset!r} and shuffle=True give a `seed`: without one the "
            "two parts would overlap."
        )
