"""The Free Spoken Digit Dataset: digits by six speakers, 8,000 samples per second.

Jackson, Souza, Flaks, Pan, Nicolas, Thite: https://github.com/Jakobovski/free-
spoken-digit-dataset, CC BY-SA 4.0. Its files are not downloaded: clone the
repository, whose folder `recordings` holds them.
"""

import os
import re
from pathlib import Path
from typing import Any

from .. import checks
from ..sound.reader import read_files
from ..sound.recordings import Recordings

ORIGIN = "https://github.com/Jakobovski/free-spoken-digit-dataset"
DATA_DIR = "KERAS_GATED_FSDD_DIR"
"""The environment variable that names the folder."""
NAME = re.compile(r"(?P<digit>\d)_(?P<speaker>[^_]+)_(?P<index>\d+)\.wav")
TEST, VALIDATION = range(5), range(5, 10)


def load_data(
    data_dir: str | os.PathLike | None = None,
    split: str = "recording",
    **arguments: Any,
) -> tuple[Recordings, Recordings, Recordings]:
    """The recordings, in three parts.

    Args:
        data_dir: The folder of the files `{digit}_{speaker}_{index}.wav`. Default:
            the one named by the environment variable `KERAS_GATED_FSDD_DIR`.
        split: `"recording"`: recordings 0 to 4 of each digit and speaker are for
            test, as the authors define it, and 5 to 9 for validation; or
            `"speaker"`: the last speaker by name is for test, the one before for
            validation. Default: `"recording"`.
        **arguments: Those of `audio.read_files`.

    Returns:
        `(train, valid, test)`, in the order of the files' names.

    Raises:
        FileNotFoundError: No folder is named, or it holds no such files.
        ValueError: `split` is something else; or as `read_files` does.

    Example:

    >>> from keras_gated.datasets import fsdd
    >>> train, valid, test = fsdd.load_data("recordings")  # doctest: +SKIP
    """
    checks.one_of("split", split, ("recording", "speaker"))
    folder = data_dir or os.environ.get(DATA_DIR)
    names = {}
    if folder is not None and Path(folder).is_dir():
        for path in sorted(Path(folder).iterdir()):
            if match := NAME.fullmatch(path.name):
                names[path] = match
    if not names:
        raise FileNotFoundError(
            "The Free Spoken Digit Dataset is not in "
            f"{'any folder named' if folder is None else repr(str(folder))} "
            f"(`data_dir`, or {DATA_DIR}). Get it: git clone {ORIGIN}; the folder is "
            "its `recordings`."
        )
    speakers = sorted({match["speaker"] for match in names.values()})
    recordings = read_files(list(names), **arguments)
    parts: tuple[list, list, list] = ([], [], [])
    for number, path in enumerate(recordings.paths):
        index, speaker = int(names[path]["index"]), names[path]["speaker"]
        if split == "recording":
            part = 2 if index in TEST else 1 if index in VALIDATION else 0
        else:
            part = max(0, speakers.index(speaker) - len(speakers) + 3)
        parts[part].append(number)
    for name, part in zip(("training", "validation", "test"), parts, strict=True):
        if not part:
            raise ValueError(f"{str(folder)!r} holds no recordings for {name}.")
    return tuple(recordings.take(part) for part in parts)
