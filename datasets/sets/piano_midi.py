"""Piano-midi.de: classical piano music; a step is an eighth note.

See `published.py` for the source.
"""

import os

from . import published


def load_data(data_dir: str | os.PathLike | None = None) -> published.Splits:
    """The set as piano rolls, with its authors' split.

    Args:
        data_dir: As in `published.load`: a folder that holds the file
            `Piano_midi.mat`. Default: it is downloaded once.

    Returns:
        `(train, valid, test)`, lists of 87, 12 and 25 rolls `uint8 [T, 88]`.

    Raises:
        FileNotFoundError, ValueError, OSError, ImportError: As `published.load`
            does.

    Example:

    >>> from keras_gated.datasets import piano_midi
    >>> train, valid, test = piano_midi.load_data()  # doctest: +SKIP
    """
    return published.load("Piano_midi.mat", data_dir)
