"""JSB Chorales: 382 chorales by Bach; a step is a quarter note.

See `published.py` for the source.
"""

import os

from . import published


def load_data(data_dir: str | os.PathLike | None = None) -> published.Splits:
    """The set as piano rolls, with its authors' split.

    Args:
        data_dir: As in `published.load`: a folder that holds the file
            `JSB_Chorales.mat`. Default: it is downloaded once.

    Returns:
        `(train, valid, test)`, lists of 229, 76 and 77 rolls `uint8 [T, 88]`.

    Raises:
        FileNotFoundError, ValueError, OSError, ImportError: As `published.load`
            does.

    Example:

    >>> from keras_gated.datasets import jsb_chorales
    >>> train, valid, test = jsb_chorales.load_data()  # doctest: +SKIP
    """
    return published.load("JSB_Chorales.mat", data_dir)
