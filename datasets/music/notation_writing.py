"""MIDI files as sheet music."""

import os
import warnings

from .. import checks
from ..files import atomic_path, require


def write_musicxml(
    source: str | os.PathLike, path: str | os.PathLike, steps_per_quarter: int = 4
) -> None:
    """Writes a MIDI file as MusicXML, by music21.

    Args:
        source: The MIDI file.
        path: The file to write, which ends in `.musicxml`; missing folders are made.
        steps_per_quarter: Steps in a quarter note, a whole number; notes are moved to
            the nearest of these, of sixteenths, and of triplets. Default: 4.

    Raises:
        ImportError: music21 is not installed.
        ValueError: `steps_per_quarter` is no whole number, or `path` ends otherwise.

    Example:

    >>> from keras_gated.datasets import midi, piano_roll
    >>> midi.write(piano_roll.from_notes([(0, 2, 60), (2, 3, 64)], 1), "tune.mid")
    >>> midi.write_musicxml("tune.mid", "tune.musicxml")
    >>> midi.read_score("tune.musicxml").notes[:, :3].tolist()
    [[0, 480, 60], [480, 720, 64]]
    """
    steps = checks.whole("steps_per_quarter", steps_per_quarter)
    if not os.fspath(path).endswith(".musicxml"):
        raise checks.error("path", path, "a name that ends in .musicxml")
    music21 = require("music21", extra="examples")
    divisors = sorted({3, 4, steps})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        piece = music21.converter.parse(
            os.fspath(source), format="midi", quarterLengthDivisors=divisors
        )
        with atomic_path(path) as file:
            piece.write("musicxml", fp=file)
