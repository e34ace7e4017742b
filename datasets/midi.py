"""MIDI files to piano rolls and back."""

import dataclasses
import functools
import logging
import math
import os
from collections.abc import Collection, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_gated.datasets import piano_roll
from keras_gated.datasets.files import atomic_path, require
from keras_gated.datasets.midi_engines import (
    ENGINES,
    MIDIError,
    Part,
    Score,
    parse,
)

__all__ = [
    "MIDIError",
    "Options",
    "Reading",
    "estimate_key",
    "read",
    "read_all",
    "write",
    "write_wav",
]

MICROSECONDS = 1_000_000
PEDAL_DOWN = 64
"""From this value on, of 0 to 127, the sustain pedal is down."""
OCTAVE = 12
SHORT_NOTES = ("drop", "keep")
STARTS = ("zero", "first_note")
# Krumhansl and Kessler (1982), from C: how well each pitch class fits a key.
MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)


class Reading(NamedTuple):
    """What `read_all` gives."""

    roll: np.ndarray
    """The roll, `uint8 [T, 88]`."""
    onsets: np.ndarray
    """Where notes begin, `uint8 [T, 88]`."""
    dropped_notes: int
    """How many notes lie outside the 88 keys and were left out."""
    semitones: int
    """How far up the music was transposed."""


def read(
    path: str | os.PathLike,
    steps_per_quarter: int = 2,
    *,
    onsets: bool = False,
    **options: Any,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Reads a MIDI file as a piano roll.

    By default on the grid of the score, as the published sets were made: times
    are counted in ticks, so that tempo changes, velocity and pedal play no part;
    a moment falls to the nearest line of the grid of steps, halves upward, and a
    note is on from its first line to the step before its last (see
    `piano_roll.from_notes`). All tracks and channels are merged but the drums. A
    note that is struck again while it sounds ends and begins anew.

    Args:
        path: The file.
        steps_per_quarter: Steps in a quarter note, positive. Default: 2.
        onsets: Whether to return the onsets, too. Default: `False`.
        **options: Of `Options`: another clock (`step_seconds`), short notes,
            transposition, the choice of instruments and tracks, drums, pedal,
            velocities, the parser, limits.

    Returns:
        The roll, `uint8 [T, 88]`; with `onsets` the pair of it and of the
        onsets, `uint8 [T, 88]`, ones where notes begin. If notes lie outside the
        88 keys they are left out, and the log (logger `keras_gated`) says how
        many; `read_all` returns their number.

    Raises:
        MIDIError: (a `ValueError`) The file is no readable MIDI file, exceeds a
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
    if reading.dropped_notes:
        logging.getLogger("keras_gated").warning(
            "%d notes of %r lie outside the 88 keys and were left out.",
            reading.dropped_notes,
            str(path),
        )
    return (reading.roll, reading.onsets) if onsets else reading.roll


@dataclasses.dataclass(frozen=True)
class Options:
    """How a MIDI file is read.

    Args:
        steps_per_quarter: Steps in a quarter note, positive. Default: 2.
        step_seconds: The length of a step in seconds, positive: puts the music on
            the clock instead, with its tempo changes and the sustain pedal.
            Default: `None`, the score's grid.
        short_notes: What becomes of a note that is rounded to nothing: `"drop"`,
            as in the published sets, or `"keep"` for one step. Default: `"drop"`.
        start: `"zero"`, or `"first_note"` to leave out the silent steps before
            the first note. Default: `"zero"`.
        transpose: Semitones up; or `"C"`: to C major or C minor, by at most six
            semitones, from the file's first key signature or, if there is none,
            from `estimate_key`; or `"random"`: by -5 to 6 semitones. Default: 0.
        seed: Makes `transpose="random"` repeatable. Default: `None`.
        instruments: Which to read: General MIDI programs (0 to 127), names
            (`"Violin"`) or families (`"Strings"`), case aside. Default: all.
        tracks: Which to read: their numbers in the file (from 0) or names, case
            aside. Default: all.
        drums: Whether to read the drums, too, as pitches. Default: `False`.
        pedal: Whether notes sound on while the sustain pedal is down. Default:
            `None`, on the clock alone.
        velocity: Whether the roll holds the notes' velocities, 1 to 127, instead
            of ones. Default: `False`.
        engine: `"pretty_midi"`, the faster `"symusic"`, which gives the same, or
            `"auto"`, symusic where it is installed. Default: `"auto"`.
        max_steps: Rolls of so many steps or more are refused, `None` for no
            limit. Default: 1,000,000.
        max_seconds: Music that lasts so long or longer is refused, `None` for no
            limit. Default: 3,600.

    Raises:
        ValueError: One is out of its range; the message names it.
    """

    steps_per_quarter: int = 2
    step_seconds: float | None = None
    short_notes: str = "drop"
    start: str = "zero"
    transpose: int | str = 0
    seed: int | None = None
    instruments: Collection[int | str] | None = None
    tracks: Collection[int | str] | None = None
    drums: bool = False
    pedal: bool | None = None
    velocity: bool = False
    engine: str = "auto"
    max_steps: int | None = 1_000_000
    max_seconds: float | None = 3600.0

    def __post_init__(self) -> None:
        whole, text = (int, np.integer), "a list of numbers and names"
        limit = float("inf")
        positive = "a positive number of seconds"
        steps, seconds = self.max_steps, self.max_seconds
        for name, fits, accepted in (
            (
                "steps_per_quarter",
                isinstance(self.steps_per_quarter, whole)
                and self.steps_per_quarter >= 1,
                "a positive integer",
            ),
            (
                "step_seconds",
                self.step_seconds is None or 0 < self.step_seconds < limit,
                positive,
            ),
            ("max_seconds", seconds is None or seconds > 0, positive),
            ("max_steps", steps is None or steps > 0, "a positive integer"),
            ("short_notes", self.short_notes in SHORT_NOTES, f"one of {SHORT_NOTES}"),
            ("start", self.start in STARTS, f"one of {STARTS}"),
            ("engine", self.engine in ENGINES, f"one of {ENGINES}"),
            (
                "transpose",
                isinstance(self.transpose, whole) or self.transpose in ("C", "random"),
                "a number of semitones, 'C' or 'random'",
            ),
            ("instruments", not isinstance(self.instruments, str | int), text),
            ("tracks", not isinstance(self.tracks, str | int), text),
        ):
            if not fits:
                raise ValueError(
                    f"Argument `{name}` must be {accepted}. "
                    f"Received: {name}={getattr(self, name)!r}"
                )
        if self.instruments is not None:
            _programs(tuple(self.instruments))


def read_all(
    path: str | os.PathLike, options: Options, content: bytes | None = None
) -> Reading:
    """Reads a MIDI file, and says what `read` leaves out.

    Args:
        path: The file; with `content`, its name in messages.
        options: How to read it.
        content: The bytes of the file. Default: they are read from `path`.

    Returns:
        The roll, the onsets, and what was done to the notes.

    Raises:
        MIDIError: As `read` does.
        OSError: The file cannot be read.
        ImportError: The parser is not installed.
    """
    numbers = [track for track in options.tracks or () if not isinstance(track, str)]
    score = parse(path, options.engine, numbers or None, content)
    try:
        return _to_reading(score, options)
    except ValueError as error:
        raise MIDIError(f"{os.fspath(path)!r} {error}") from error


def _to_reading(score: Score, options: Options) -> Reading:
    """The roll of a score. Raises `ValueError` with the predicate of a sentence."""
    parts = _chosen(score.parts, options)
    notes = score.notes[np.isin(score.notes[:, 4], parts)]
    if not len(notes):
        raise ValueError(_why_no_notes(score, options))
    on_clock = options.step_seconds is not None
    if on_clock if options.pedal is None else options.pedal:
        notes = _sustained(notes, score.pedals)
    moments = _moments(score, notes[:, :2])
    seconds = int(moments.max()) / (MICROSECONDS * score.ticks_per_quarter)
    if options.max_seconds is not None and seconds >= options.max_seconds:
        raise ValueError(
            f"lasts {seconds:,.0f} seconds; music of {options.max_seconds:,.0f} "
            "seconds or more is not read (max_seconds)."
        )
    if on_clock:
        step = Fraction(str(options.step_seconds)) * MICROSECONDS
        step *= score.ticks_per_quarter
        times = moments
    else:
        step = Fraction(score.ticks_per_quarter, int(options.steps_per_quarter))
        times = notes[:, :2]
    steps = int(times.max() / step)
    if options.max_steps is not None and steps >= options.max_steps:
        raise ValueError(
            f"makes {steps:,} steps; rolls of {options.max_steps:,} or more are "
            "not read (max_steps)."
        )
    semitones = _semitones(score, notes, options)
    pitch = notes[:, 2] + semitones
    dropped = (pitch < piano_roll.LOWEST_PITCH) | (
        pitch >= piano_roll.LOWEST_PITCH + piano_roll.KEYS
    )
    columns = [*times.T, pitch, *([notes[:, 3]] if options.velocity else [])]
    roll, onsets = piano_roll.from_notes(
        np.stack(columns, axis=1), step, options.short_notes, onsets=True
    )
    if not roll.any():
        if dropped.all():
            raise ValueError("holds no note of a piano's 88 keys.")
        raise ValueError(
            "holds no note of half a step or longer (short_notes='keep' reads them)."
        )
    if options.start == "first_note":
        first = int(roll.any(axis=1).argmax())
        roll, onsets = roll[first:], onsets[first:]
    return Reading(roll, onsets, int(dropped.sum()), semitones)


def _chosen(parts: Sequence[Part], options: Options) -> list[int]:
    """The numbers of the parts to read."""
    instruments, tracks = options.instruments, options.tracks
    programs = None if instruments is None else _programs(tuple(instruments))
    names = {name.casefold() for name in tracks or () if isinstance(name, str)}
    by_name = bool(names)
    return [
        number
        for number, part in enumerate(parts)
        if (options.drums or not part.is_drum)
        # A drum's program is no instrument.
        and (programs is None or part.is_drum or part.program in programs)
        and (not by_name or part.name.strip().casefold() in names)
    ]


@functools.cache
def _programs(instruments: tuple[int | str, ...]) -> set[int]:
    """The General MIDI programs of these numbers, names and families."""
    pretty_midi = require("pretty_midi", extra="examples")
    wanted = set()
    for instrument in instruments:
        if isinstance(instrument, str):
            asked = instrument.casefold()
            found = {
                program
                for program in range(128)
                if asked
                in (
                    pretty_midi.program_to_instrument_name(program).casefold(),
                    pretty_midi.program_to_instrument_class(program).casefold(),
                )
            }
        else:
            found = {instrument} & set(range(128))
        if not found:
            raise ValueError(
                "Argument `instruments` must hold General MIDI programs (0 to 127), "
                "their names or the names of families, such as 0, 'Violin', "
                f"'Strings'. Received: {instrument!r}"
            )
        wanted |= found
    return wanted


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
    """Notes that end while the pedal is down end when it rises, or are cut off.

    A pedal that never rises holds its notes to the end of the last of all.
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
    # In the order of the notes (part, pitch, start), the next cuts the last off.
    again = (notes[1:, 4] == notes[:-1, 4]) & (notes[1:, 2] == notes[:-1, 2])
    notes[:-1, 1][again] = np.minimum(notes[:-1, 1], notes[1:, 0])[again]
    return notes


def _moments(score: Score, ticks: np.ndarray) -> np.ndarray:
    """When ticks come, exactly: in microseconds times ticks a quarter note."""
    change, tempo = score.tempi.T
    elapsed = np.concatenate([[0], np.cumsum(np.diff(change) * tempo[:-1])])
    last = np.searchsorted(change, ticks, side="right") - 1
    return elapsed[last] + (ticks - change[last]) * tempo[last]


def _semitones(score: Score, notes: np.ndarray, options: Options) -> int:
    asked = options.transpose
    if asked == "random":
        return int(np.random.default_rng(options.seed).integers(-5, 7))
    if asked != "C":
        return int(asked)
    key = score.key
    if key is None:
        key = estimate_key(notes[:, 2], notes[:, 1] - notes[:, 0])
    tonic = key % OCTAVE
    return -tonic if tonic <= OCTAVE // 2 else OCTAVE - tonic


def estimate_key(pitches: Sequence[int], durations: Sequence[float]) -> int:
    """The key whose profile is most like the durations of the pitch classes.

    The algorithm of Krumhansl and Schmuckler: Pearson's correlation with the
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
    if np.ptp(heard) == 0:  # all pitch classes alike: no key is likelier
        return 0
    return int(np.argmax([np.corrcoef(heard, key)[0, 1] for key in keys]))


def write(
    roll: np.ndarray,
    path: str | os.PathLike,
    steps_per_quarter: int = 2,
    tempo: float = 90.0,
    program: int = 0,
    onsets: np.ndarray | None = None,
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
        onsets: `[T, 88]`, ones where notes begin: keeps repeated notes apart.
            Default: none.

    Raises:
        ImportError: pretty_midi is not installed.
        ValueError: `roll` is no roll, or a number is out of its range.
    """
    midi = _to_pretty_midi(roll, steps_per_quarter, tempo, program, onsets)
    with atomic_path(path) as file:
        midi.write(str(file))


def write_wav(
    roll: np.ndarray,
    path: str | os.PathLike,
    steps_per_quarter: int = 2,
    tempo: float = 90.0,
    program: int = 0,
    onsets: np.ndarray | None = None,
    sample_rate: int = 44_100,
    sound_font: str | os.PathLike | None = None,
) -> None:
    """Writes a piano roll as sound: a WAV file, 16 bit, mono.

    Args:
        roll: As in `write`.
        path: The file to write; missing folders are made.
        steps_per_quarter: As in `write`.
        tempo: As in `write`.
        program: As in `write`; heard with a sound font only.
        onsets: As in `write`.
        sample_rate: Samples a second, positive. Default: 44,100.
        sound_font: An `.sf2` file, played by FluidSynth (which needs the package
            pyfluidsynth and the program). Default: `None`, the sine tones of
            pretty_midi.

    Raises:
        ImportError: pretty_midi is not installed; or, with a sound font,
            pyfluidsynth is not.
        FileNotFoundError: There is no such sound font.
        ValueError: `roll` is no roll, or a number is out of its range.
    """
    if not isinstance(sample_rate, (int, np.integer)) or sample_rate < 1:
        raise ValueError(
            "Argument `sample_rate` must be a positive integer. "
            f"Received: sample_rate={sample_rate!r}"
        )
    midi = _to_pretty_midi(roll, steps_per_quarter, tempo, program, onsets)
    if sound_font is None:
        # It adds a second of silence.
        seconds = len(roll) * 60 / tempo / steps_per_quarter
        sound = midi.synthesize(fs=sample_rate)[: math.ceil(seconds * sample_rate)]
    else:
        if not Path(sound_font).is_file():
            raise FileNotFoundError(
                f"There is no sound font {os.fspath(sound_font)!r}."
            )
        require("fluidsynth", extra="fluidsynth")
        sound = midi.fluidsynth(fs=sample_rate, sf2_path=os.fspath(sound_font))
    wavfile = require("scipy.io.wavfile", extra="examples")
    peak = max(float(np.abs(sound).max(initial=0)), 1e-9)
    samples = np.int16(0.9 * np.iinfo(np.int16).max * sound / peak)
    with atomic_path(path) as file:
        wavfile.write(file, int(sample_rate), samples)


def _to_pretty_midi(
    roll: np.ndarray,
    steps_per_quarter: int,
    tempo: float,
    program: int,
    onsets: np.ndarray | None,
) -> Any:
    Options(steps_per_quarter)
    if not 0 < tempo < float("inf"):
        raise ValueError(f"Argument `tempo` must be positive. Received: {tempo!r}")
    notes = piano_roll.to_notes(roll, onsets)
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
    return midi
