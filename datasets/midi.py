"""MIDI files to piano rolls and back."""

import os
from fractions import Fraction
from pathlib import Path

import keras
import numpy as np

from keras_gated.datasets import piano_roll
from keras_gated.files import atomic_path, require

SUFFIXES = (".mid", ".midi")
"""The endings by which a folder's MIDI files are known, in any case."""


class MIDIError(ValueError):
    """A file is no MIDI file that can be read; the message names it and says why."""


def read(path: str | os.PathLike, steps_per_quarter: int = 2) -> np.ndarray:
    """Reads a MIDI file as a piano roll on the grid of the score.

    Times are counted in ticks, so that tempo changes play no part, nor do
    velocity and pedal. All tracks and channels are merged but the drums. See
    `piano_roll.from_notes` for the rounding.

    Args:
        path: The file.
        steps_per_quarter: Steps in a quarter note, positive. Default: 2.

    Returns:
        The roll, `uint8 [T, 88]`.

    Raises:
        MIDIError: (a `ValueError`) The file is no readable MIDI file, or holds
            no note of the 88 keys.
        FileNotFoundError: There is no such file.
        ImportError: pretty_midi is not installed.
        ValueError: `steps_per_quarter` is not a positive integer.
    """
    check_steps_per_quarter(steps_per_quarter)
    pretty_midi = require("pretty_midi", extra="examples")
    if not Path(path).exists():
        raise FileNotFoundError(f"There is no file {str(path)!r}.")
    try:
        midi = pretty_midi.PrettyMIDI(os.fspath(path))
        notes = [
            (midi.time_to_tick(note.start), midi.time_to_tick(note.end), note.pitch)
            for instrument in midi.instruments
            if not instrument.is_drum
            for note in instrument.notes
        ]
        roll = piano_roll.from_notes(
            notes, Fraction(int(midi.resolution), int(steps_per_quarter))
        )
    except Exception as error:  # the parsers raise whatever a bad byte leads to
        reason = str(error) or type(error).__name__
        raise MIDIError(f"{str(path)!r} is no readable MIDI file: {reason}") from error
    if not roll.any():
        raise MIDIError(f"{str(path)!r} holds no note of a piano's 88 keys.")
    return roll


def read_directory(
    directory: str | os.PathLike, steps_per_quarter: int = 2, verbose: int = 1
) -> tuple[dict[Path, np.ndarray], dict[Path, str]]:
    """Reads all MIDI files (`.mid`, `.midi`) of a folder and its subfolders.

    Args:
        directory: The folder.
        steps_per_quarter: Steps in a quarter note, positive. Default: 2.
        verbose: 1 shows a progress bar, 0 is silent. Default: 1.

    Returns:
        The rolls by path, in the order of the paths, and the reasons, by path,
        why files (and folders that cannot be read) were skipped.

    Raises:
        ValueError: The folder does not exist, cannot be read, or holds no MIDI
            file that can be.
        ImportError: pretty_midi is not installed.
    """
    check_steps_per_quarter(steps_per_quarter)
    require("pretty_midi", extra="examples")
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

    for folder, _, names in os.walk(directory, onerror=unreadable):
        files = (Path(folder, name) for name in names)
        paths += [path for path in files if path.suffix.lower() in SUFFIXES]
    paths.sort()
    if not paths:
        raise ValueError(
            f"The folder {str(directory)!r} holds no MIDI file ({', '.join(SUFFIXES)})."
        )
    rolls = {}
    bar = keras.utils.Progbar(len(paths), verbose=verbose, unit_name="file")
    for path in paths:
        try:
            rolls[path] = read(path, steps_per_quarter)
        except (MIDIError, OSError) as error:
            skipped[path] = str(error)
        bar.add(1)
    if not rolls:
        path, reason = next(iter(skipped.items()))
        raise ValueError(
            f"None of the {len(skipped)} MIDI files of {str(directory)!r} can be "
            f"read; the first: {reason}"
        )
    return rolls, skipped


def write(
    roll: np.ndarray,
    path: str | os.PathLike,
    steps_per_quarter: int = 2,
    tempo: float = 90.0,
    program: int = 0,
) -> None:
    """Writes a piano roll as a MIDI file that `read` reads back as it was.

    Consecutive steps of a pitch become one note. Silence at the end is not
    kept, for MIDI has no note there.

    Args:
        roll: `[T, 88]`, zeros and ones.
        path: The file to write; missing folders are made.
        steps_per_quarter: Steps in a quarter note, positive. Default: 2.
        tempo: Quarter notes a minute, positive. Default: 90.
        program: General MIDI instrument, 0 to 127. Default: 0, a grand piano.

    Raises:
        ImportError: pretty_midi is not installed.
        ValueError: `roll` is no roll, or a number is out of its range.
    """
    check_steps_per_quarter(steps_per_quarter)
    if not 0 < tempo < float("inf"):
        raise ValueError(f"Argument `tempo` must be positive. Received: {tempo!r}")
    notes = piano_roll.to_notes(roll)
    pretty_midi = require("pretty_midi", extra="examples")
    # A resolution that the steps divide puts every note on a whole tick.
    midi = pretty_midi.PrettyMIDI(
        resolution=120 * int(steps_per_quarter), initial_tempo=tempo
    )
    instrument = pretty_midi.Instrument(program=program)
    for start, end, pitch in notes.tolist():
        begin, finish = (midi.tick_to_time(120 * step) for step in (start, end))
        instrument.notes.append(pretty_midi.Note(80, pitch, begin, finish))
    midi.instruments.append(instrument)
    with atomic_path(path) as file:
        midi.write(str(file))


def check_steps_per_quarter(steps_per_quarter: int) -> None:
    """Refuses what cannot be a number of steps in a quarter note.

    Args:
        steps_per_quarter: What should be a positive integer.

    Raises:
        ValueError: It is not.
    """
    if not isinstance(steps_per_quarter, (int, np.integer)) or steps_per_quarter < 1:
        raise ValueError(
            "Argument `steps_per_quarter` must be a positive integer. "
            f"Received: steps_per_quarter={steps_per_quarter!r}"
        )
