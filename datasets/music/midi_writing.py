"""Piano rolls to MIDI files and to sound."""

import math
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from .. import checks
from ..files import atomic_path, require
from . import piano_roll
from .grid import rate

LARGEST_RESOLUTION = 2**15 - 1
"""Ticks in a quarter note that a MIDI file can have."""


def write(
    roll: np.ndarray,
    path: str | os.PathLike,
    steps_per_quarter: int | Fraction = 2,
    tempo: float = 90.0,
    program: int = 0,
    onsets: np.ndarray | None = None,
) -> None:
    """Writes a piano roll as a MIDI file that `read` reads back as the same roll.

    Consecutive steps of a pitch become one note, unless the roll has onsets. Silence at
    the end is lost, because there is no note in it.

    Args:
        roll: `[T, 88]`, or `[T, 176]` with onsets, zeros and ones.
        path: The file to write; missing folders are made.
        steps_per_quarter: Steps in a quarter note, a positive number or a `Fraction`.
            Default: 2.
        tempo: Quarter notes per minute, positive. Default: 90.
        program: General MIDI instrument, 0 to 127. Default: 0, a grand piano.
        onsets: `[T, 88]`, ones where notes begin: keeps repeated notes apart.
            Default: none, or those of the roll.

    Raises:
        ImportError: pretty_midi is not installed.
        ValueError: `roll` is not a roll, or a number is out of its range.
    """
    midi = _to_pretty_midi(roll, steps_per_quarter, tempo, program, onsets)
    with atomic_path(path) as file:
        midi.write(str(file))


def write_wav(
    roll: np.ndarray,
    path: str | os.PathLike,
    steps_per_quarter: int | Fraction = 2,
    tempo: float = 90.0,
    program: int = 0,
    onsets: np.ndarray | None = None,
    sampling_rate: int = 44_100,
    sound_font: str | os.PathLike | None = None,
) -> None:
    """Writes a piano roll as sound: a WAV file, 16 bit, mono.

    Args:
        roll: As in `write`.
        path: The file to write; missing folders are made.
        steps_per_quarter: As in `write`.
        tempo: As in `write`.
        program: As in `write`; audible only with a sound font.
        onsets: As in `write`.
        sampling_rate: Samples per second, positive. Default: 44,100.
        sound_font: An `.sf2` file, played by FluidSynth (which needs the package
            pyfluidsynth and the program). Default: `None`, the sine tones of
            pretty_midi.

    Raises:
        ImportError: pretty_midi is not installed; or, with a sound font,
            pyfluidsynth is not.
        FileNotFoundError: There is no such sound font.
        ValueError: `roll` is not a roll, or a number is out of its range.
    """
    sampling_rate = checks.whole("sampling_rate", sampling_rate)
    midi = _to_pretty_midi(roll, steps_per_quarter, tempo, program, onsets)
    if sound_font is None:
        # pretty_midi adds a second of silence.
        seconds = len(roll) * 60 / tempo / rate(steps_per_quarter)
        sound = midi.synthesize(fs=sampling_rate)[: math.ceil(seconds * sampling_rate)]
    else:
        if not Path(sound_font).is_file():
            raise FileNotFoundError(
                f"There is no sound font {os.fspath(sound_font)!r}."
            )
        require("fluidsynth", extra="fluidsynth")
        sound = midi.fluidsynth(fs=sampling_rate, sf2_path=os.fspath(sound_font))
    wavfile = require("scipy.io.wavfile", extra="examples")
    peak = max(float(np.abs(sound).max(initial=0)), 1e-9)
    samples = np.int16(0.9 * np.iinfo(np.int16).max * sound / peak)
    with atomic_path(path) as file:
        wavfile.write(file, sampling_rate, samples)


def _to_pretty_midi(
    roll: np.ndarray,
    steps_per_quarter: int | Fraction,
    tempo: float,
    program: int,
    onsets: np.ndarray | None,
) -> Any:
    steps, quarters = Fraction(rate(steps_per_quarter)).as_integer_ratio()
    if steps > LARGEST_RESOLUTION:
        accepted = f"a fraction with a numerator of at most {LARGEST_RESOLUTION:,}"
        raise checks.error("steps_per_quarter", steps_per_quarter, accepted)
    tempo = checks.number("tempo", tempo, above=0)
    program = checks.whole("program", program, 0, 127)
    notes = piano_roll.to_notes(roll, onsets)
    pretty_midi = require("pretty_midi", extra="examples")
    # A resolution that the steps divide puts every note on a whole tick.
    unit = min(120, LARGEST_RESOLUTION // steps)
    midi = pretty_midi.PrettyMIDI(resolution=unit * steps, initial_tempo=tempo)
    instrument = pretty_midi.Instrument(program=program)
    notes[:, :2] *= unit * quarters
    for start, end, pitch in notes.tolist():
        times = midi.tick_to_time(start), midi.tick_to_time(end)
        instrument.notes.append(pretty_midi.Note(80, pitch, *times))
    midi.instruments.append(instrument)
    return midi
