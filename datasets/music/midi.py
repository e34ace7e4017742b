"""MIDI files to piano rolls and back."""

import functools
import logging
import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from . import packed_rolls, piano_roll
from .midi_engines import MIDIError, Part, Score, parse
from .midi_options import Options, programs
from .midi_writing import write, write_wav

__all__ = [
    "MIDIError",
    "Options",
    "Reading",
    "estimate_key",
    "packed_reader",
    "read",
    "read_all",
    "read_packed",
    "write",
    "write_wav",
]

MICROSECONDS = 1_000_000
PEDAL_DOWN = 64
"""From this value on, of 0 to 127, the sustain pedal is down."""
OCTAVE = 12
# Krumhansl and Kessler (1982), from C: how well each pitch class fits a key.
MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)


class Reading(NamedTuple):
    """What `read_all` returns."""

    roll: np.ndarray
    """The roll, `uint8 [T, 88]`."""
    onsets: np.ndarray
    """Where notes begin, `uint8 [T, 88]`."""
    dropped_notes: int
    """How many notes lie outside the 88 keys and were left out."""
    semitones: int
    """How far up the music was transposed."""
    rounded_notes: int = 0
    """How many notes the grid rounds to nothing; they were left out."""
    problems: tuple[str, ...] = ()
    """What was wrong with the file and repaired."""


def read(
    path: str | os.PathLike,
    steps_per_quarter: int = 2,
    *,
    onsets: bool = False,
    **options: Any,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Reads a MIDI file as a piano roll.

    By default steps follow the score, as in the published sets: times are counted
    in ticks, so that tempo changes, velocity and pedal do not matter; they are
    rounded to the nearest line of the grid of steps, halves upward, and a note is on
    from its first line to the step before its last (see `piano_roll.from_notes`). All
    tracks and channels are merged, except the drums. A note that is struck again
    while it sounds ends and begins anew.

    Args:
        path: The file.
        steps_per_quarter: Steps in a quarter note, positive. Default: 2.
        onsets: Whether to return the onsets, too. Default: `False`.
        **options: Those of `Options`: steps in seconds, short notes, transposition,
            the choice of instruments and tracks, drums, pedal, velocities, the
            parser, limits.

    Returns:
        The roll, `uint8 [T, 88]`; with `onsets=True` also the onsets, `uint8 [T,
        88]`, ones where notes begin. Notes outside the 88 keys are left out, and the
        log (logger `keras_gated`) says how many; `read_all` returns their number.

    Raises:
        MIDIError: (a `ValueError`) The file is not a readable MIDI file, exceeds a
            limit, or holds no note to read; the message names it.
        FileNotFoundError: There is no such file.
        OSError: The file cannot be read.
        ImportError: The parser is not installed.
        ValueError: An argument is out of its range.
        TypeError: There is no such argument.

    Example:

    >>> from keras_gated.datasets import midi, piano_roll
    >>> midi.write(piano_roll.from_notes([(0, 2, 60), (2, 3, 64)], 1), "tune.mid")
    >>> midi.read("tune.mid").shape
    (3, 88)
    >>> midi.read("tune.mid", step_seconds=0.05).shape  # at 90 quarters a minute
    (20, 88)
    """
    reading = read_all(path, Options(steps_per_quarter, **options))
    log = logging.getLogger("keras_gated")
    if reading.problems:
        log.warning("%r was repaired: %s.", str(path), "; ".join(reading.problems))
    if reading.dropped_notes:
        log.warning(
            "%d notes of %r lie outside the 88 keys and were left out.",
            reading.dropped_notes,
            str(path),
        )
    if reading.rounded_notes:
        log.warning(
            "%d notes of %r are rounded to nothing and were left out; a finer grid or "
            "short_notes='keep' keeps them.",
            reading.rounded_notes,
            str(path),
        )
    return (reading.roll, reading.onsets) if onsets else reading.roll


def read_all(
    path: str | os.PathLike, options: Options, content: bytes | None = None
) -> Reading:
    """Reads a MIDI file, and also returns what was done to the notes.

    Args:
        path: The file; with `content`, its name in messages.
        options: How to read it.
        content: The bytes of the file. Default: they are read from `path`.

    Returns:
        The roll, the onsets, the number of dropped notes, and the transposition.

    Raises:
        MIDIError: As `read` does.
        OSError: The file cannot be read.
        ImportError: The parser is not installed.
    """
    numbers = [track for track in options.tracks or () if not isinstance(track, str)]
    score = parse(path, options.engine, numbers or None, content, options.strict)
    try:
        return _to_reading(score, options)._replace(problems=score.problems)
    except ValueError as error:
        raise MIDIError(f"{os.fspath(path)!r} {error}") from error


def packed_reader(**options: Any) -> Callable[[str, bytes], tuple[bytes, list]]:
    """Makes a function that reads files with the same options.

    Args:
        **options: Those of `Options`.

    Returns:
        `read_packed`, as a function of a path and the bytes of that file.
    """
    return functools.partial(read_packed, options=Options(**options))


def read_packed(
    path: str | os.PathLike, content: bytes, options: Options
) -> tuple[bytes, list]:
    """Reads a MIDI file as a packed roll.

    Args:
        path: The name of the file, for messages.
        content: The bytes of the file.
        options: How to read it.

    Returns:
        The roll as `piano_roll.pack` gives it, and a list of the numbers of dropped
        and of rounded notes, and of what was repaired.

    Raises:
        MIDIError: As `read` does.
        ImportError: The parser is not installed.
    """
    reading = read_all(path, options, content)
    counts = reading.dropped_notes, reading.rounded_notes
    return packed_rolls.pack(reading.roll), [*counts, list(reading.problems)]


def _to_reading(score: Score, options: Options) -> Reading:
    """The roll of a score; a `ValueError` holds the predicate of a sentence."""
    parts = _chosen(score.parts, options)
    notes = score.notes[np.isin(score.notes[:, 4], parts)]
    if not len(notes):
        raise ValueError(_why_no_notes(score, options))
    on_clock = options.step_seconds is not None
    if on_clock if options.pedal is None else options.pedal:
        notes = _sustained(notes, score.pedals)
    times, step = _times(score, notes[:, :2], options)
    semitones = _semitones(score, notes, options)
    pitch = notes[:, 2] + semitones
    dropped = (pitch < packed_rolls.LOWEST_PITCH) | (
        pitch >= packed_rolls.LOWEST_PITCH + packed_rolls.KEYS
    )
    columns = [*times.T, pitch, *([notes[:, 3]] if options.velocity else [])]
    table = np.stack(columns, axis=1)
    roll, onsets = piano_roll.from_notes(table, step, options.short_notes, onsets=True)
    drop = options.short_notes == "drop"
    rounded = piano_roll.count_rounded(table, step) if drop else 0
    if not roll.any():
        if dropped.all():
            raise ValueError("holds no note of a piano's 88 keys.")
        raise ValueError(
            "holds no note of half a step or longer (short_notes='keep' reads them)."
        )
    if options.start == "first_note":
        first = int(roll.any(axis=1).argmax())
        roll, onsets = roll[first:], onsets[first:]
    return Reading(roll, onsets, int(dropped.sum()), semitones, rounded)


def _times(
    score: Score, ticks: np.ndarray, options: Options
) -> tuple[np.ndarray, Fraction]:
    """The times of ticks, and the length of a step, exact, in the same unit."""
    moments = _moments(score, ticks)
    second = MICROSECONDS * score.ticks_per_quarter
    seconds = int(moments.max()) / second
    if options.max_seconds is not None and seconds >= options.max_seconds:
        raise ValueError(
            f"lasts {seconds:,.0f} seconds; music of {options.max_seconds:,.0f} "
            "seconds or more is not read (max_seconds)."
        )
    if options.step_seconds is not None:
        times, step = moments, Fraction(str(options.step_seconds)) * second
    else:
        times = ticks
        step = Fraction(score.ticks_per_quarter, options.steps_per_quarter)
    steps = int(times.max() / step)
    if options.max_steps is not None and steps >= options.max_steps:
        raise ValueError(
            f"makes {steps:,} steps; rolls of {options.max_steps:,} or more are "
            "not read (max_steps)."
        )
    return times, step


def _chosen(parts: Sequence[Part], options: Options) -> list[int]:
    """The numbers of the parts that are to be read."""
    instruments, tracks = options.instruments, options.tracks
    chosen = None if instruments is None else programs(instruments)
    names = {name.casefold() for name in tracks or () if isinstance(name, str)}
    by_name = bool(names)
    return [
        number
        for number, part in enumerate(parts)
        if (options.drums or not part.is_drum)
        # The program number of a drum part does not name an instrument.
        and (chosen is None or part.is_drum or part.program in chosen)
        and (not by_name or part.name.strip().casefold() in names)
    ]


def _why_no_notes(score: Score, options: Options) -> str:
    if options.instruments is not None or options.tracks is not None:
        there = sorted(
            {f"{part.name!r} (program {part.program})" for part in score.parts}
        )
        return (
            "holds no note of the instruments and tracks asked for; it has "
            f"{', '.join(there) or 'none'}."
        )
    if len(score.notes) and not options.drums:
        return "holds no note but drums (drums=True reads them)."
    return "holds no note."


def _sustained(notes: np.ndarray, pedals: np.ndarray) -> np.ndarray:
    """Lengthens notes that end while the pedal is down, until it rises.

    The next note of the same key ends them sooner. A pedal that never rises holds its
    notes until the last note of all ends.
    """
    notes = notes.copy()
    end_of_all = notes[:, 1].max()
    for part in np.unique(pedals[:, 0]):
        _, ticks, values = pedals[pedals[:, 0] == part].T
        order = np.argsort(ticks, kind="stable")
        ticks, down = ticks[order], values[order] >= PEDAL_DOWN
        # The tick at which the pedal is next up, from each of its moves on.
        up = np.where(down, np.iinfo(np.int64).max, ticks)
        up = np.minimum.accumulate(up[::-1])[::-1]
        mine = np.flatnonzero(notes[:, 4] == part)
        last_move = np.searchsorted(ticks, notes[mine, 1], side="right") - 1
        held = (last_move >= 0) & down[last_move]
        mine, release = mine[held], up[last_move[held]]
        notes[mine, 1] = np.maximum(notes[mine, 1], np.minimum(release, end_of_all))
    # The notes are in the order of part, pitch and start.
    again = (notes[1:, 4] == notes[:-1, 4]) & (notes[1:, 2] == notes[:-1, 2])
    notes[:-1, 1][again] = np.minimum(notes[:-1, 1], notes[1:, 0])[again]
    return notes


def _moments(score: Score, ticks: np.ndarray) -> np.ndarray:
    """The times of ticks, exact: microseconds times ticks per quarter note."""
    change, tempo = score.tempi.T
    elapsed = np.concatenate([[0], np.cumsum(np.diff(change) * tempo[:-1])])
    last = np.searchsorted(change, ticks, side="right") - 1
    return elapsed[last] + (ticks - change[last]) * tempo[last]


def _semitones(score: Score, notes: np.ndarray, options: Options) -> int:
    asked = options.transpose
    if asked == "random":
        return int(np.random.default_rng(options.seed).integers(-5, 7))
    if asked != "C":
        return asked
    key = score.key
    if key is None:
        key = estimate_key(notes[:, 2], notes[:, 1] - notes[:, 0])
    tonic = key % OCTAVE
    return -tonic if tonic <= OCTAVE // 2 else OCTAVE - tonic


def estimate_key(pitches: Sequence[int], durations: Sequence[float]) -> int:
    """Estimates the key of music from the durations of its pitch classes.

    The algorithm of Krumhansl and Schmuckler: the largest Pearson correlation with the
    profiles of Krumhansl and Kessler (1982), in 24 keys (Krumhansl, Cognitive
    Foundations of Musical Pitch, 1990, chapter 4).

    Args:
        pitches: MIDI pitches of the notes.
        durations: Their durations, in any unit.

    Returns:
        0 to 11 for C major to B major, 12 to 23 for C minor to B minor.

    Raises:
        ValueError: There are no notes.

    Example:

    >>> from keras_gated.datasets import midi
    >>> midi.estimate_key([62, 64, 66, 67, 69, 71, 73, 74], [1] * 8)  # D major
    2
    """
    if not len(pitches):
        raise ValueError("There are no notes to estimate a key from.")
    heard = np.bincount(np.asarray(pitches) % OCTAVE, durations, OCTAVE)
    keys = [np.roll(mode, tonic) for mode in (MAJOR, MINOR) for tonic in range(OCTAVE)]
    if np.ptp(heard) == 0:  # all pitch classes are equal: no key is likelier
        return 0
    return int(np.argmax([np.corrcoef(heard, key)[0, 1] for key in keys]))
