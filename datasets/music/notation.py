"""Scores from files: MIDI, and by music21 MusicXML and ABC."""

import contextlib
import math
import os
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from .. import checks
from ..files import open_binary, require
from .midi_engines import MIDIError, parse
from .score import (
    DRUMS,
    MICROSECONDS,
    Changes,
    Part,
    Score,
    Voice,
    compose,
    in_key_order,
    in_order,
)

if TYPE_CHECKING:
    import music21

NOTATION = (".abc", ".krn", ".mei", ".musicxml", ".mxl", ".xml")
"""The endings of files that music21 reads, in any case."""
RESOLUTION = 480
"""Ticks in a quarter note, at least."""
FINEST = 2**20
"""Ticks in a quarter note, at most; finer times are rounded."""
LARGEST_FILE = 64 * 2**20
"""Larger scores, in bytes of text, are refused; a small archive may hold much."""


def read_score(
    path: str | os.PathLike,
    engine: str = "auto",
    strict: bool = False,
    number: int | None = None,
) -> Score:
    """Reads what a file holds, exactly, in ticks: more than a piano roll shows.

    MIDI files are read by pretty_midi or symusic, and repaired if need be. MusicXML,
    ABC, Humdrum and MEI (`.musicxml`, `.mxl`, `.xml`, `.abc`, `.krn`, `.mei`) are read
    by music21: as they sound, with repeats, tied notes as one, and bars of other
    lengths than their time signature says (upbeats) with time signatures of their own.

    Args:
        path: The file.
        engine: The parser of MIDI files: `"pretty_midi"`, `"symusic"`, which gives the
            same, or `"auto"`, symusic where it is installed. Default: `"auto"`.
        strict: Whether to refuse MIDI files that have to be repaired. Default:
            `False`.
        number: The number of the tune (`X:`) in an ABC file of several. Default:
            `None`, the file holds one tune.

    Returns:
        The notes with their velocities and parts, tempi, time and key signatures.

    Raises:
        MIDIError: (a `ValueError`) The file cannot be read; the message names it.
        FileNotFoundError: There is no such file.
        OSError: The file cannot be read.
        ImportError: The parser is not installed.
        ValueError: An argument is out of its range.

    Example:

    >>> from keras_gated.datasets import midi, piano_roll
    >>> midi.write(piano_roll.from_notes([(0, 2, 60), (2, 3, 64)], 1), "tune.mid")
    >>> score = midi.read_score("tune.mid")
    >>> score.notes[:, :3].tolist(), score.ticks_per_quarter
    ([[0, 240, 60], [240, 360, 64]], 240)
    """
    number = checks.whole("number", number, 0, optional=True)
    if Path(path).suffix.lower() not in NOTATION:
        return parse(path, engine, strict=strict)
    with open_binary(path) as file:  # music21's own errors name no file
        _check_size(file, path)
    music21 = require("music21", extra="examples")
    try:
        piece = music21.converter.parse(path, number=number, forceSource=True)
        if isinstance(piece, music21.stream.Opus):
            tunes = [tune.metadata and tune.metadata.number for tune in piece.scores]
            raise ValueError(
                f"it holds {len(tunes)} tunes; number= chooses one, such as "
                f"{', '.join(map(str, tunes[:3]))}"
            )
        score = _to_score(piece)
    except Exception as error:  # music21 raises anything
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise MIDIError(
            f"{os.fspath(path)!r} cannot be read by music21: {reason}"
        ) from error
    if not len(score.notes):
        raise MIDIError(f"{os.fspath(path)!r} holds no note.", "no notes")
    return score


def _check_size(file: BinaryIO, path: str | os.PathLike) -> None:
    """Refuses what is too large, unpacked, before anything is."""
    size = os.fstat(file.fileno()).st_size
    if zipfile.is_zipfile(file):
        with contextlib.suppress(zipfile.BadZipFile), zipfile.ZipFile(file) as archive:
            size = sum(member.file_size for member in archive.infolist())
    if size > LARGEST_FILE:
        raise MIDIError(
            f"{os.fspath(path)!r} holds {size:,} bytes; up to {LARGEST_FILE:,} are "
            "read.",
            "too large",
        )


def _to_score(piece: "music21.stream.Stream") -> Score:
    """The score of a piece of music21, as it sounds."""
    import music21

    piece, problems = piece.toSoundingPitch(), []
    if piece["Measure"]:
        try:
            piece = piece.expandRepeats()
        except music21.repeat.ExpanderException as error:
            problems.append(f"its repeats are played once: {error}")
    staves = list(getattr(piece, "parts", ())) or [piece]
    found = [_of_staff(staff) for staff in staves]
    bars = _bars(staves[0])
    events = [event for notes, _, _ in found for event in notes]
    tempi = [
        (start, Fraction(mark.getQuarterBPM()))
        for start, _, mark in piece.metronomeMarkBoundaries()
        if mark.getQuarterBPM()
    ]
    keys = [key for _, keys, _ in found for key in keys]
    times = [time for event in events for time in event[:2]]
    times += [event[0] for event in (*bars, *tempi, *keys)]
    needed = math.lcm(RESOLUTION, *(Fraction(time).denominator for time in times))
    resolution = min(needed, FINEST)

    def tick(time: float | Fraction) -> int:
        return round(Fraction(time) * resolution)

    changed = Changes(
        [(tick(at), round(60 * MICROSECONDS / bpm)) for at, bpm in tempi],
        [(tick(at), *meter) for at, *meter in bars],
        [(tick(at), key) for at, key in keys],
    )
    voices = []
    nothing = np.empty((0, 2), np.int64)
    for number, (staff, (notes, _, grace)) in enumerate(
        zip(staves, found, strict=True)
    ):
        table = [(tick(start), tick(end), *rest) for start, end, *rest in notes]
        table = np.array(table, np.int64).reshape(-1, 4)
        voices.append(Voice(_part(staff, number), table, nothing))
        if grace:
            problems.append(f"{grace} grace notes of track {number} have no length")
    voices = in_order(voices)
    notes = in_key_order(voices)
    end = int(notes[:, 1].max(initial=0))
    ends = [end] * len(staves)
    score = compose("music21", resolution, voices, notes, changed, ends)
    return score._replace(problems=tuple(problems))


def _of_staff(staff: "music21.stream.Stream") -> tuple[list[tuple], list[tuple], int]:
    """The notes, the keys, and the number of grace notes of a staff.

    Times are in quarter notes: (start, end, pitch, velocity) and (start, key).
    """
    import music21

    notes, grace = [], 0
    flat = staff.stripTies().flatten()
    for sound in flat.notes:
        if isinstance(sound, music21.harmony.Harmony):
            continue  # a chord symbol
        start, length = Fraction(sound.offset), Fraction(sound.quarterLength)
        for note in getattr(sound, "notes", [sound]):  # of a chord
            if length:
                velocity = min(max(1, round(127 * sound.volume.realized)), 127)
                notes.append((start, start + length, _pitch(note, sound), velocity))
            else:
                grace += 1
    keys = [(key.offset, _key(key)) for key in flat[music21.key.KeySignature]]
    return notes, keys, grace


def _pitch(
    note: "music21.note.Note | music21.note.Unpitched", sound: "music21.note.NotRest"
) -> int:
    """The MIDI pitch of a note, or of an instrument of the drums."""
    if hasattr(note, "pitch"):
        return note.pitch.midi
    import music21

    kind = music21.instrument.UnpitchedPercussion
    instrument = note.storedInstrument
    if not isinstance(instrument, kind):
        instrument = sound.getContextByClass(kind)  # that of its chord
    mapped = getattr(instrument, "percMapPitch", None)
    return note.displayPitch().midi if mapped is None else mapped


def _key(key: "music21.key.KeySignature") -> int:
    """The number of a key; that of a church mode is the major key of its signature."""
    import music21

    if getattr(key, "mode", None) not in ("major", "minor"):
        key = music21.key.KeySignature(key.sharps).asKey("major")
    return key.tonic.pitchClass + 12 * (key.mode == "minor")


def _part(staff: "music21.stream.Stream", number: int) -> Part:
    instrument: Any = staff.getInstrument(returnDefault=True)
    is_drum = instrument.midiChannel == DRUMS or "Percussion" in instrument.classes
    name = instrument.partName or instrument.instrumentName or ""
    program = instrument.midiProgram or 0
    return Part(0 if is_drum else program, bool(is_drum), name, number)


def _bars(staff: "music21.stream.Stream") -> list[tuple]:
    """Where time signatures begin, and where bars have other lengths than they say."""
    import music21

    signatures = {
        Fraction(signature.getOffsetInHierarchy(staff)): signature
        for signature in staff[music21.meter.TimeSignature]
    }
    at, bars, meter = 0, [], None
    measures = list(staff.getElementsByClass(music21.stream.Measure))
    if not measures:
        return [
            (at, signature.numerator, signature.denominator)
            for at, signature in sorted(signatures.items())
        ]
    last = None
    for measure, following in zip(measures, [*measures[1:], None], strict=True):
        at = Fraction(measure.offset)
        signature = signatures.get(at)
        if signature is not None:
            meter = signature.numerator, signature.denominator
        if meter is None:
            continue
        length = Fraction(meter[0] * 4, meter[1])
        real = length if following is None else Fraction(following.offset) - at
        this = meter
        whole = real / 4
        if real != length and real > 0 and whole.denominator.bit_count() == 1:
            this = whole.numerator, whole.denominator
        if this != last:
            bars.append((at, *this))
        last = this
    return bars
