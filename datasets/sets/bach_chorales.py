"""Bach's chorales, from the corpus inside music21's package.

Source: the chorales of the Riemenschneider collection in music21's corpus
(https://www.music21.org, encoded by Margaret Greentree and others; the music
is in the public domain). Nothing is downloaded.
"""

import contextlib
import hashlib
import os
import re
from fractions import Fraction
from pathlib import Path

import keras
import numpy as np

from .. import checks
from ..files import atomic_path, cache_directory, require
from ..music import piano_roll

TICKS_PER_QUARTER = 480
ARRAYS = "names", "counts", "notes"
"""Of the file."""

Splits = tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]


def load_data(
    steps_per_quarter: int = 2,
    cache_dir: str | os.PathLike | None = None,
    verbose: int = 1,
    onsets: bool = False,
) -> Splits:
    """The chorales as piano rolls, in training, validation and test set.

    The first call reads the scores, which takes about half a minute, and keeps their
    notes in a file that later calls read. Scores are read as written, without
    repeats, and all parts are merged. A chorale that is in the collection twice, in
    the same key or in another, is used once. See `piano_roll.from_notes` for the
    rounding.

    The split is by work and fixed: of each five works, in the order of the BWV
    numbers, the first three are for training, the fourth for validation and the fifth
    for testing.

    Args:
        steps_per_quarter: Steps in a quarter note, positive. Default: 2.
        cache_dir: The folder of the file. Default: `datasets/keras_gated` in
            Keras's folder (`$KERAS_HOME`, or `~/.keras`).
        verbose: 1 shows a progress bar on first use, 0 is silent. Default: 1.
        onsets: Whether rolls tell repeated notes, which are a fifth of all, from held
            ones: they are `[T, 176]` then, as `piano_roll` describes. Default: `False`.

    Returns:
        `(train, valid, test)`, lists of rolls `uint8 [T, 88]`.

    Raises:
        ImportError: music21 is not installed and there is no file yet; the
            message names the extra that installs it.
        ValueError: `steps_per_quarter` is not a positive integer.

    Example:

    >>> from keras_gated.datasets import bach_chorales
    >>> train, valid, test = bach_chorales.load_data(verbose=0)
    >>> len(train), len(valid), len(test)
    (210, 69, 69)
    """
    steps_per_quarter = checks.whole("steps_per_quarter", steps_per_quarter)
    works = load_notes(cache_dir, verbose)
    step = Fraction(TICKS_PER_QUARTER, steps_per_quarter)
    if onsets:
        rolls = [
            piano_roll.with_onsets(*piano_roll.from_notes(notes, step, onsets=True))
            for notes in works.values()
        ]
    else:
        rolls = [piano_roll.from_notes(notes, step) for notes in works.values()]
    train = [roll for i, roll in enumerate(rolls) if i % 5 < 3]
    return train, rolls[3::5], rolls[4::5]


def load_notes(
    cache_dir: str | os.PathLike | None = None, verbose: int = 1
) -> dict[str, np.ndarray]:
    """The exact notes of the chorales.

    Args:
        cache_dir: As in `load_data`.
        verbose: As in `load_data`.

    Returns:
        By BWV number, in order: integers `(notes, 3)`, start and end in ticks (480
        per quarter note) and MIDI pitch.

    Raises:
        ImportError: music21 is not installed and there is no file yet.
    """
    path = cache_directory(cache_dir) / "bach_chorales_v4.npz"
    # If there is no file, or anything is wrong with it, the scores are read.
    with contextlib.suppress(Exception):
        return _read(path)
    works = _parse(verbose)
    try:
        _write(path, works)
    except OSError as error:
        print(
            f"The chorales could not be kept at {path} and will be read again next "
            f"time: {error}"
        )
    return works


def _read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        names, counts, notes = (file[name] for name in ARRAYS)
        if file["digest"].tobytes() != _digest(names, counts, notes):
            raise ValueError(f"{path} is damaged.")
    return dict(
        zip(names.tolist(), np.split(notes, np.cumsum(counts)[:-1]), strict=True)
    )


def _write(path: Path, works: dict[str, np.ndarray]) -> None:
    names = np.array(list(works))
    counts = np.array([len(notes) for notes in works.values()])
    arrays = names, counts, np.concatenate(list(works.values()))
    digest = np.frombuffer(_digest(*arrays), np.uint8)
    with atomic_path(path) as file:
        np.savez_compressed(
            file, digest=digest, **dict(zip(ARRAYS, arrays, strict=True))
        )


def _digest(*arrays: np.ndarray) -> bytes:
    """Of what the file holds, to see that nobody has changed it."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.digest()


def _parse(verbose: int) -> dict[str, np.ndarray]:
    music21 = require("music21", extra="examples")
    chorales = music21.corpus.chorales.ChoraleListRKBWV().byRiemenschneider
    numbers = sorted({str(c["bwv"]) for c in chorales.values()}, key=_by_number)
    if verbose:
        print(f"Reading {len(numbers)} chorales from music21's corpus, once:")
    bar = keras.utils.Progbar(len(numbers), verbose=verbose, unit_name="chorale")
    works, seen = {}, set()
    for number in numbers:
        notes = _score_notes(music21, _score_path(music21, number))
        music = _heard(notes)
        if music not in seen:
            seen.add(music)
            works[number] = notes
        bar.add(1)
    return works


def _heard(notes: np.ndarray) -> bytes:
    """The music in fine steps, independent of notation and key."""
    lowest = notes[:, 2].min() - piano_roll.LOWEST_PITCH
    return piano_roll.from_notes(notes - [0, 0, lowest], ticks_per_step=10).tobytes()


def _by_number(bwv: str) -> tuple[list[int], str]:
    """Sorts "28.6" before "245.3", and "248.12-2" before "248.23-2"."""
    return [int(digits) for digits in re.findall(r"\d+", bwv)], bwv


def _score_path(music21: object, bwv: str) -> Path:
    """The score whose name is exactly the number; the corpus matches prefixes."""
    found = music21.corpus.getWork(f"bach/bwv{bwv}")
    paths = found if isinstance(found, list) else [found]
    exact = [p for p in paths if p.stem == f"bwv{bwv}" and p.suffix != ".krn"]
    return (exact or paths)[0]


def _score_notes(music21: object, path: Path) -> np.ndarray:
    # `forceSource` keeps music21 from loading or writing pickles.
    score = music21.converter.parse(path, forceSource=True)
    notes = []
    for part in score.parts:
        last = {}  # of each pitch
        for element in part.flatten().notes:
            start, end = _ticks(element)
            for note in element.notes if element.isChord else [element]:
                pitch = note.pitch.midi
                tied = note.tie is not None and note.tie.type in ("continue", "stop")
                if tied and pitch in last and last[pitch][1] == start:
                    last[pitch][1] = end
                else:
                    last[pitch] = [start, end, pitch]
                    notes.append(last[pitch])
    return np.unique(np.array(notes, dtype=np.int32), axis=0)


def _ticks(element: object) -> tuple[int, int]:
    start = Fraction(element.offset) * TICKS_PER_QUARTER
    end = start + Fraction(element.quarterLength) * TICKS_PER_QUARTER
    if start.denominator != 1 or end.denominator != 1:
        raise ValueError(f"{element!r} lies between ticks: {start} to {end}")
    return int(start), int(end)
