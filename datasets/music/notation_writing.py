"""MIDI files as sheet music."""

import itertools
import os
import warnings
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

from .. import checks
from ..files import atomic_path, require
from .midi_engines import MIDIError
from .midi_piece import Piece, Voice, read_piece

if TYPE_CHECKING:
    import music21

FINEST = Fraction(1, 32)
"""The length of notes that are rounded to nothing, in quarter notes."""
MOST_BARS = 5_000
"""Longer pieces are not written: music21 would take minutes, and gigabytes."""
TONICS = {
    "major": ["C", "D-", "D", "E-", "E", "F", "G-", "G", "A-", "A", "B-", "B"],
    "minor": ["C", "C#", "D", "E-", "E", "F", "F#", "G", "G#", "A", "B-", "B"],
}
"""As music21 spells them, by pitch class."""
Sounds = list[tuple[Fraction, Fraction, tuple[int, ...]]]
"""Start and end in quarter notes, and pitches, in the order of time."""


def write_musicxml(
    source: str | os.PathLike, path: str | os.PathLike, steps_per_quarter: int = 4
) -> None:
    """Writes a MIDI file as MusicXML, by music21.

    Each voice but the drums gets a staff; notes that overlap are in voices of their own
    on it.

    Args:
        source: The MIDI file.
        path: The file to write, which ends in `.musicxml`; missing folders are made.
        steps_per_quarter: Steps in a quarter note, a whole number; times are moved to
            the nearest of these, of sixteenths, and of triplets. Default: 4.

    Raises:
        MIDIError: (a `ValueError`) The file cannot be read, holds no notes but drums,
            has more than 5,000 bars, or what notation cannot show.
        FileNotFoundError: There is no such file.
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
    piece, score = read_piece(source), music21.stream.Score()
    if not piece.pitched:
        raise MIDIError(f"{piece.path!r} holds no notes but drums.", "no notes")
    if next(itertools.islice(piece.bar_lines(), MOST_BARS, None)) < piece.end:
        raise MIDIError(
            f"{piece.path!r} has more than {MOST_BARS:,} bars, too many to write.",
            "too long",
        )
    grids = sorted({3, 4, steps}, reverse=True)
    for voice in piece.pitched:
        score.insert(0, _staff(piece, voice, grids))
    for tick, tempo in piece.score.tempi.tolist():
        mark = music21.tempo.MetronomeMark(number=round(6e7 / tempo, 2))
        score.parts[0].insert(Fraction(tick, piece.ticks_per_quarter), mark)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            score = music21.stream.Score(
                [part.makeNotation(inPlace=False) for part in score.parts]
            )
            # Lengths that one sign cannot show become tied notes.
            score.splitAtDurations(recurse=True)
            score.metadata = music21.metadata.Metadata(title=Path(source).stem)
            with atomic_path(path) as file:
                score.write("musicxml", fp=file, makeNotation=False)
        except music21.exceptions21.Music21Exception as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise MIDIError(
                f"{piece.path!r} cannot be written by music21: {reason}"
            ) from error


def _staff(piece: Piece, voice: Voice, grids: Sequence[int]) -> "music21.stream.Part":
    import music21

    quarter = piece.ticks_per_quarter
    part = music21.stream.Part()
    instrument = music21.instrument.instrumentFromMidiProgram(voice.program)
    instrument.partName = voice.name or instrument.instrumentName
    part.insert(0, instrument)
    meters = {}
    for tick, over, under in piece.score.time_signatures.tolist():
        meters[_sixteenth(Fraction(tick, quarter))] = over, under
    for at, (over, under) in meters.items():
        part.insert(at, music21.meter.TimeSignature(f"{over}/{under}"))
    for tick, key in piece.score.key_signatures.tolist():
        mode = "minor" if key >= 12 else "major"
        tonic = TONICS[mode][key % 12]
        part.insert(Fraction(tick, quarter), music21.key.Key(tonic, mode))
    end = piece.end - FINEST * quarter
    last = next(line for line in piece.bar_lines() if line >= end) / quarter
    last = _sixteenth(last)
    lines = _lines(_sounds(voice, quarter, grids))
    last = max([last, *(line[-1][1] for line in lines)])
    for line in lines:
        stream = part if len(lines) == 1 else music21.stream.Voice()
        now = Fraction(0)
        for start, end, pitches in [*line, (last, last, ())]:
            if start > now:  # a measure without its rests would be shorter
                stream.insert(now, music21.note.Rest(quarterLength=start - now))
            if len(pitches) == 1:
                sound = music21.note.Note(pitches[0], quarterLength=end - start)
            else:
                sound = music21.chord.Chord(pitches, quarterLength=end - start)
            if pitches:
                stream.insert(start, sound)
            now = end
        if stream is not part:
            part.insert(0, stream)
    return part


def _sixteenth(time: Fraction) -> Fraction:
    """The nearest of the places for bar lines: no sign shows a bar of a few ticks."""
    return Fraction(round(4 * time), 4)


def _sounds(voice: Voice, quarter: int, grids: Sequence[int]) -> Sounds:
    """The notes of a voice on a grid; those that begin and end together are chords."""

    def nearest(tick: int) -> Fraction:
        time = Fraction(tick, quarter)
        lines = [Fraction(round(time * grid), grid) for grid in grids]
        return min(lines, key=lambda line: abs(line - time))

    chords: dict[tuple[Fraction, Fraction], set[int]] = {}
    for start, end, pitch, _ in voice.notes.tolist():
        begin = nearest(start)
        last = max(nearest(end), begin + FINEST)
        chords.setdefault((begin, last), set()).add(pitch)
    return [(*times, tuple(sorted(chords[times]))) for times in sorted(chords)]


def _lines(sounds: Sounds) -> list[Sounds]:
    """Sounds in lines in which none overlaps the next: the first line that is free."""
    lines: list[Sounds] = []
    for sound in sounds:
        for line in lines:
            if line[-1][1] <= sound[0]:
                line.append(sound)
                break
        else:
            lines.append([sound])
    return lines
