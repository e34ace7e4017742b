"""Nottingham: folk tunes with chords; a step is an eighth note.

See `published.py` for the source.
"""

import os

from . import published


def load_data(data_dir: str | os.PathLike | None = None) -> published.Splits:
    """The set as piano rolls, with its authors' split.

    Args:
        data_dir: As in `published.load`: a folder that holds the file
            `Nottingham.mat`. Default: it is downloaded once.

    Returns:
        `(train, valid, test)`, lists of 694, 173 and 170 rolls `uint8 [T, 88]`.

    Raises:
        FileNotFoundError, ValueError, OSError, ImportError: As `published.load`
            does.

    Example:

    >>> from keras_gated.datasets import nottingham
    >>> train, valid, test = nottingham.load_data()  # doctest: +SKIP
    """
    return published.load("Nottingham.mat", data_dir)
