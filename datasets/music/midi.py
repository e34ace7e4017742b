"""MIDI files to piano rolls and back."""

import functools
import logging
import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from ..files import Finding
from . import packed_rolls, piano_roll
from .grid import AUTO, Choice, choose, fit
from .midi_continuation import Seam, continue_piece, find_seam
from .midi_engines import MIDIError, parse
from .midi_harmony import fixed_roll, replace_voices
from .midi_options import Options, programs
from .midi_piece import Piece, Voice, read_piece
from .midi_sound import synthesize
from .midi_writing import write, write_wav
from .notation import read_score
from .notation_writing import write_musicxml
from .score import MICROSECONDS, PEDAL_DOWN, Beats, Part, Score, plain_name
from .step_features import feature_columns, pack_features, step_features

__all__ = [
    "Beats",
    "MIDIError",
    "Options",
    "Part",
    "Piece",
    "Reading",
    "Score",
    "Seam",
    "Voice",
    "continue_piece",
    "estimate_key",
    "feature_columns",
    "find_seam",
    "fit_reader",
    "fixed_roll",
    "packed_reader",
    "read",
    "read_all",
    "read_packed",
    "read_piece",
    "read_score",
    "replace_voices",
    "step_features",
    "synthesize",
    "write",
    "write_musicxml",
    "write_wav",
]

OCTAVE = 12
# Krumhansl and Kessler (1982), from C: how well each pitch class fits a key.
MAJOR = (6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88)
MINOR = (6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17)


class Reading(NamedTuple):
    """What `read_all` returns."""

    roll: np.ndarray
    """The roll, `uint8 [T, 88]`; `[T, 176]` with `onsets` in the options."""
    onsets: np.ndarray
    """Where notes begin, `uint8 [T, 88]`."""
    dropped_notes: int
    """How many notes lie outside the 88 keys and were left out."""
    semitones: int
    """How far up the music was transposed."""
    rounded_notes: int
    """How many notes the grid rounds to nothing; they were left out."""
    unreleased_notes: int
    """How many notes are never released; they were left out."""
    problems: tuple[str, ...]
    """What was wrong with the file and repaired."""
    reader: str
    """The parser: `"pretty_midi"` or `"symusic"`."""
    grid: Choice | None = None
    """What `steps_per_quarter="auto"` chose."""
    features: np.ndarray | None = None
    """What the score says about each step, `float32 [T, F]`, if the options ask."""
    stated: tuple[str, ...] = ()
    """The kinds of features that the file states."""

    @property
    def findings(self) -> list[Finding]:
        """What was repaired and left out, in words."""
        lost = self.dropped_notes, self.rounded_notes, self.unreleased_notes
        return findings(*lost, self.problems)


def findings(
    dropped: int, rounded: int, unreleased: int, problems: Sequence[str]
) -> list[Finding]:
    """What was repaired and left out, in words.

    Args:
        dropped: How many notes outside the 88 keys were left out.
        rounded: How many that the grid rounds to nothing.
        unreleased: How many that are never released.
        problems: What was wrong with the file and repaired.
    """
    found = []
    if problems:
        found.append(Finding(f"It was repaired: {'; '.join(problems)}.", "repaired"))
    for count, what, way_out in (
        (dropped, "outside the 88 keys", "outside_notes='keep' moves them by octaves"),
        (
            rounded,
            "rounded to nothing",
            "a finer grid, as of steps_per_quarter='auto', or short_notes='keep' "
            "keeps them",
        ),
        (
            unreleased,
            "never released",
            "unreleased_notes='keep' holds them to the end of their track",
        ),
    ):
        if count:
            were = "notes were" if count > 1 else "note was"
            text = f"{count:,} {were} left out, {what} ({way_out})."
            found.append(Finding(text, f"notes {what}"))
    return found


def read(
    path: str | os.PathLike,
    steps_per_quarter: int | Fraction | str = 2,
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
        steps_per_quarter: Steps in a quarter note, a positive number or a `Fraction`;
            or `"auto"`, the coarsest grid that keeps 99 % of the notes. Default: 2.
        onsets: Whether to return the onsets, too. Default: `False`.
        **options: Those of `Options` but `features`: steps in seconds, short notes,
            transposition, the choice of instruments and tracks, drums, pedal,
            velocities, notes that are not released or outside the keys, the parser,
            limits.

    Returns:
        The roll, `uint8 [T, 88]`; with `onsets=True` also the onsets, `uint8 [T,
        88]`, ones where notes begin (`piano_roll.with_onsets` makes one roll of both,
        as `read_all` does). What was repaired or left out (notes outside the
        88 keys, rounded to nothing, never released), and the grid that was chosen, is
        in the log (logger `keras_gated`); `read_all` returns it, too.

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
    settings = Options(steps_per_quarter, **options)
    if settings.features:
        raise ValueError("Features of steps are read with `midi.read_all`.")
    reading = read_all(path, settings)
    log = logging.getLogger("keras_gated")
    for finding in reading.findings:
        log.warning("%r: %s", str(path), finding)
    if (grid := reading.grid) is not None:
        level = logging.INFO if grid.enough else logging.WARNING
        log.log(level, "%r: %s.", str(path), grid)
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
        The roll, the onsets, the transposition, and what was repaired or left out.

    Raises:
        MIDIError: As `read` does.
        OSError: The file cannot be read.
        ImportError: The parser is not installed.
    """
    score = parse(path, options.engine, content, options.strict)
    try:
        return _to_reading(score, options)
    except _NothingToReadError as error:
        raise MIDIError(f"{os.fspath(path)!r} {error}", error.kind) from error
    except ValueError as error:
        raise MIDIError(f"{os.fspath(path)!r}: {error}") from error


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
        The roll as `piano_roll.pack` gives it, and a list: the reader, and the
        arguments of `findings`. If features are asked for, they follow the roll as
        `pack_features` gives them; and the list has two members more: the bytes of the
        roll, and the kinds that the file states.

    Raises:
        MIDIError: As `read` does.
        ImportError: The parser is not installed.
    """
    reading = read_all(path, options, content)
    lost = reading.dropped_notes, reading.rounded_notes, reading.unreleased_notes
    about = [reading.reader, *lost, list(reading.problems)]
    packed = packed_rolls.pack(reading.roll)
    if reading.features is None:
        return packed, about
    return packed + pack_features(reading.features), [
        *about,
        len(packed),
        [*reading.stated],
    ]


def fit_reader(**options: Any) -> Callable[[str, bytes], tuple[bytes, list]]:
    """Makes a function that finds how well grids fit files.

    Args:
        **options: Those of `Options`.

    Returns:
        A function of a path and the bytes of that file, which returns no bytes, and
        how many notes each of `grid.GRIDS` keeps, after the number of all.
    """
    return functools.partial(_fit, options=Options(**options))


def _fit(
    path: str | os.PathLike, content: bytes, options: Options
) -> tuple[bytes, list]:
    score = parse(path, options.engine, content, options.strict)
    notes, _ = _notes(score, _chosen(score.parts, options), options)
    found = fit(notes, score.ticks_per_quarter)
    return b"", [found.notes, *found.kept]


class _NothingToReadError(ValueError):
    """A score makes no roll; the message is the predicate of a sentence."""

    def __init__(self, message: str, kind: str = "no notes") -> None:
        super().__init__(message)
        self.kind = kind


def _to_reading(score: Score, options: Options) -> Reading:
    """The roll of a score."""
    notes, unreleased = _notes(score, _chosen(score.parts, options), options)
    if not len(notes):
        raise _NothingToReadError(_why_no_notes(score, options, unreleased))
    chosen = None
    on_clock = options.step_seconds is not None
    if options.steps_per_quarter == AUTO and not on_clock:
        chosen = choose(fit(notes, score.ticks_per_quarter))
    if on_clock if options.pedal is None else options.pedal:
        notes = _sustained(notes, score.pedals)
    grid = options.steps_per_quarter if chosen is None else chosen.steps_per_quarter
    times, step = _times(score, notes[:, :2], grid, options)
    semitones = _semitones(score, notes, options)
    pitch, outside = _in_keys(notes[:, 2] + semitones, options)
    columns = [times, pitch[:, None], *([notes[:, 3:4]] if options.velocity else [])]
    placed = piano_roll.on_grid(np.concatenate(columns, axis=1), step)
    keep_short = options.short_notes == "keep"
    roll, onsets = piano_roll.draw(placed, keep_short)
    if not len(placed.key):
        raise _NothingToReadError("holds no note of a piano's 88 keys.")
    if not len(roll):
        raise _NothingToReadError(
            "holds no note of half a step or longer (short_notes='keep' reads them)."
        )
    if options.onsets:
        roll = packed_rolls.with_onsets(roll, onsets)
    features, stated = None, ()
    if options.features:
        states = {"meter": score.states_meter, "key": len(score.key_signatures) > 0}
        stated = tuple(kind for kind in options.features if states[kind])
        features = score.features(options.features, grid, len(roll), semitones)
    if options.start == "first_note":
        first = int(placed.first[keep_short | (placed.first < placed.last)].min())
        roll, onsets = roll[first:], onsets[first:]
        features = None if features is None else features[first:]
    rounded = 0 if keep_short else placed.rounded
    lost = outside, rounded, unreleased
    said = score.problems, score.reader
    about = chosen, features, stated
    return Reading(roll, onsets, lost[0], semitones, *lost[1:], *said, *about)


def _notes(
    score: Score, parts: Sequence[int], options: Options
) -> tuple[np.ndarray, int]:
    """The notes of some parts, and how many were left out as they never end."""
    notes, unreleased = (
        table if len(parts) == len(score.parts) else table[np.isin(table[:, 4], parts)]
        for table in (score.notes, score.unreleased)
    )
    if options.unreleased_notes == "drop" or not len(unreleased):
        return notes, len(unreleased)
    both = np.concatenate([notes, unreleased])
    return both[np.lexsort((both[:, 0], both[:, 2], both[:, 4]))], 0


def _in_keys(pitch: np.ndarray, options: Options) -> tuple[np.ndarray, int]:
    """The pitches, within the 88 keys if asked for, and how many are left outside."""
    below = np.maximum(packed_rolls.LOWEST_PITCH - pitch, 0)
    highest = packed_rolls.LOWEST_PITCH + packed_rolls.KEYS - 1
    above = np.maximum(pitch - highest, 0)
    if options.outside_notes == "drop":
        return pitch, int(((below > 0) | (above > 0)).sum())
    octaves = -(-below // OCTAVE) + -above // OCTAVE
    return pitch + OCTAVE * octaves, 0


def _times(
    score: Score, ticks: np.ndarray, grid: int | Fraction, options: Options
) -> tuple[np.ndarray, Fraction]:
    """The times of ticks, and the length of a step, exact, in the same unit."""
    second = MICROSECONDS * score.ticks_per_quarter
    moments = None
    if options.max_seconds is not None or options.step_seconds is not None:
        moments = score.moments(ticks)
        seconds = int(moments.max()) / second
    if options.max_seconds is not None and seconds >= options.max_seconds:
        raise _NothingToReadError(
            f"lasts {seconds:,.0f} seconds; music of {options.max_seconds:,.0f} "
            "seconds or more is not read (max_seconds).",
            "too long",
        )
    if options.step_seconds is not None:
        times, step = moments, Fraction(str(options.step_seconds)) * second
    else:
        times, step = ticks, Fraction(score.ticks_per_quarter) / grid
    steps = int(times.max() / step)
    if options.max_steps is not None and steps >= options.max_steps:
        raise _NothingToReadError(
            f"makes {steps:,} steps; rolls of {options.max_steps:,} or more are "
            "not read (max_steps).",
            "too long",
        )
    return times, step


def _chosen(parts: Sequence[Part], options: Options) -> list[int]:
    """The numbers of the parts that are to be read."""
    instruments, tracks = options.instruments, options.tracks
    chosen = None if instruments is None else programs(instruments)
    wanted = {
        plain_name(track) if isinstance(track, str) else track for track in tracks or ()
    }
    return [
        number
        for number, part in enumerate(parts)
        if (options.drums or not part.is_drum)
        # The program number of a drum part does not name an instrument.
        and (chosen is None or part.is_drum or part.program in chosen)
        and (not wanted or part.track in wanted or plain_name(part.name) in wanted)
    ]


def _why_no_notes(score: Score, options: Options, unreleased: int) -> str:
    if unreleased:
        return (
            f"holds no note but {unreleased:,} that are never released "
            "(unreleased_notes='keep' reads them)."
        )
    if options.instruments is not None or options.tracks is not None:
        there = sorted(
            {
                f"{part.name!r} (track {part.track}, program {part.program})"
                for part in score.parts
            }
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


def _semitones(score: Score, notes: np.ndarray, options: Options) -> int:
    asked = options.transpose
    if asked == "random":
        return int(np.random.default_rng(options.seed).integers(-5, 7))
    if asked != "C":
        return asked
    if len(score.key_signatures):
        key = int(score.key_signatures[0, 1])
    else:
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
