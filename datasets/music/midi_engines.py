"""The notes of MIDI files, parsed by pretty_midi or symusic.

Both give the same notes. The messages of each track and channel are paired by these
rules: a note ends when its key is released or struck again; a release at the tick of a
stroke ends the note that sounded before; notes without length, and notes that never
end, are left out.
"""

import contextlib
import functools
import importlib.util
import io
import os
import struct
import warnings
from collections.abc import Collection
from typing import Any, NamedTuple

import numpy as np

from .. import checks
from ..files import FileError, open_binary, require
from . import midi_repair

ENGINES = ("auto", "pretty_midi", "symusic")
"""The parsers; `"auto"` is symusic if it is installed."""
LARGEST_FILE = 4 * 2**20
"""Larger files, in bytes, are refused: they would take minutes and gigabytes."""
DEFAULT_TEMPO = 500_000
"""Microseconds in a quarter note, unless a file says otherwise."""
SUSTAIN_PEDAL = 64
"""The number of the MIDI control."""


class MIDIError(FileError):
    """A MIDI file cannot be read; the message names it and says why."""


class Part(NamedTuple):
    """The notes of one instrument in one track."""

    program: int
    """General MIDI instrument, 0 to 127."""
    is_drum: bool
    """Whether it is on the drum channel."""
    name: str
    """The name of the track."""


class Score(NamedTuple):
    """What a MIDI file holds, as far as rolls need it."""

    ticks_per_quarter: int
    """The resolution."""
    notes: np.ndarray
    """Integers `(notes, 5)`: start, end (ticks), pitch, velocity, number of part."""
    parts: list[Part]
    """The parts."""
    pedals: np.ndarray
    """Integers `(n, 3)`: number of part, tick, value of the sustain pedal."""
    tempi: np.ndarray
    """Integers `(n, 2)`: tick, and microseconds in a quarter note from there on."""
    key: int | None
    """The first key signature: the tonic's pitch class, plus 12 in minor."""
    problems: tuple[str, ...] = ()
    """What was wrong with the file and repaired."""


def parse(
    path: str | os.PathLike,
    engine: str = "auto",
    tracks: Collection[int] | None = None,
    content: bytes | None = None,
    strict: bool = False,
) -> Score:
    """Reads a MIDI file.

    Args:
        path: The file; with `content`, its name in messages.
        engine: `"pretty_midi"`, `"symusic"` (several times faster), or `"auto"`,
            symusic if it is installed. Files in which notes of one key overlap are
            read by pretty_midi in any case. Default: `"auto"`.
        tracks: The numbers, from 0, of the file's tracks to read (by
            pretty_midi). Default: all.
        content: The bytes of the file. Default: they are read from `path`.
        strict: Whether to refuse files that have to be repaired. Default: `False`.

    Returns:
        The score. With `engine="auto"`, what symusic cannot read is read by
        pretty_midi if it is installed.

    Raises:
        MIDIError: (a `ValueError`) The file is not a readable MIDI file.
        FileNotFoundError: There is no such file.
        OSError: The file cannot be read.
        ImportError: The parser is not installed.
        ValueError: There is no such engine.
    """
    name = engine_name(engine, by_number=tracks is not None)
    path = os.fspath(path)
    content = read_bytes(path) if content is None else content
    _check_size(content, path)
    problems: list[str] = []
    if not midi_repair.looks_whole(content):
        content, problems = midi_repair.repair(content)
    _check_header(content, path)
    try:
        if problems and strict:
            raise ValueError("; ".join(problems))
        score = _read(name, content, tracks)
    except MIDIError:
        raise
    except Exception as error:  # a bad byte makes the parsers raise anything
        score = None
        if not strict:
            if not problems:
                content, problems = midi_repair.repair(content)
            others = ["pretty_midi"] if engine == "auto" and _has_pretty_midi() else []
            score = _first_that_reads([name, *others], content, tracks)
        if score is None:
            reason = str(error) or type(error).__name__
            message = f"{path!r} is not a readable MIDI file: {reason}"
            raise MIDIError(message) from error
    return score._replace(problems=tuple(problems))


def _read(name: str, content: bytes, tracks: Collection[int] | None) -> Score:
    if name == "symusic":
        return _read_with_symusic(content)
    return _read_with_pretty_midi(content, tracks)


def _first_that_reads(
    names: list[str], content: bytes, tracks: Collection[int] | None
) -> Score | None:
    """The score by the first parser that reads the file."""
    for name in names:
        with contextlib.suppress(Exception):
            return _read(name, content, tracks)
    return None


def read_bytes(path: str | os.PathLike) -> bytes:
    """Reads a file, up to one byte more than is accepted.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The file cannot be read.
    """
    with open_binary(path) as file:
        return file.read(LARGEST_FILE + 1)


def _check_size(content: bytes, path: str) -> None:
    if len(content) > LARGEST_FILE:
        raise MIDIError(
            f"{path!r} has more than {LARGEST_FILE:,} bytes; larger files are not read."
        )


def _check_header(content: bytes, path: str) -> None:
    """Refuses files that need not be parsed."""
    if len(content) < 14 or content[:4] != b"MThd":
        what = "does not begin with a MIDI header" if content else "is empty"
        raise MIDIError(f"{path!r} is not a MIDI file: it {what}.")
    kind, _, division = struct.unpack(">HHH", content[8:14])
    if kind == 2:
        raise MIDIError(
            f"{path!r} is a MIDI file of format 2: its tracks are pieces of their own, "
            "not parts of one."
        )
    if division & 0x8000:
        raise MIDIError(
            f"{path!r} counts time in film frames (SMPTE), not in quarter notes."
        )
    if division == 0:
        raise MIDIError(f"{path!r} has a resolution of 0 ticks a quarter note.")


def engine_name(engine: str, by_number: bool = False) -> str:
    """The name of the parser that will be used.

    Args:
        engine: As in `parse`.
        by_number: Whether tracks are chosen by their numbers. Default: `False`.

    Returns:
        `"pretty_midi"` or `"symusic"`.

    Raises:
        ImportError: It is not installed.
        ValueError: There is no such engine.
    """
    checks.one_of("engine", engine, ENGINES)
    if engine == "symusic":
        require("symusic", extra="fast-midi")
    if engine == "pretty_midi" or by_number or not _has_symusic():
        require("pretty_midi", extra="examples")
        return "pretty_midi"
    return "symusic"


@functools.cache
def _has_symusic() -> bool:
    return importlib.util.find_spec("symusic") is not None


@functools.cache
def _has_pretty_midi() -> bool:
    return importlib.util.find_spec("pretty_midi") is not None


def _read_with_pretty_midi(content: bytes, tracks: Collection[int] | None) -> Score:
    import mido
    import pretty_midi

    midi = mido.MidiFile(file=io.BytesIO(content))
    if tracks is not None:
        for number, track in enumerate(midi.tracks):
            if number not in tracks:
                midi.tracks[number] = _of_meta_messages(track)
    midi.tracks = [track for track in midi.tracks if track]  # pretty_midi needs some
    if not midi.tracks:
        raise ValueError("it has no tracks, or they are empty")
    tempi, keys = [], []
    for track in midi.tracks:
        tick = 0
        for message in track:
            tick += message.time
            if not message.is_meta:
                continue
            if message.type == "set_tempo":
                tempi.append((tick, message.tempo))
                # With one tempo throughout, seconds are proportional to ticks.
                message.tempo = DEFAULT_TEMPO
            elif message.type == "key_signature":
                keys.append((tick, pretty_midi.key_name_to_key_number(message.key)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tempi outside the first track are read
        parsed = pretty_midi.PrettyMIDI(mido_object=midi)
    ticks_per_second = 1e6 * midi.ticks_per_beat / DEFAULT_TEMPO
    notes = [
        (note.start, note.end, note.pitch, note.velocity, part)
        for part, instrument in enumerate(parsed.instruments)
        for note in instrument.notes
    ]
    pedals = [
        (part, control.time, control.value)
        for part, instrument in enumerate(parsed.instruments)
        for control in instrument.control_changes
        if control.number == SUSTAIN_PEDAL
    ]
    scale = [ticks_per_second, ticks_per_second, 1, 1, 1]
    return Score(
        midi.ticks_per_beat,
        _paired(np.rint(_table(notes, 5) * scale).astype(np.int64)),
        [Part(i.program, i.is_drum, i.name) for i in parsed.instruments],
        np.rint(_table(pedals, 3) * [1, ticks_per_second, 1]).astype(np.int64),
        _in_order(tempi),
        min(keys)[1] if keys else None,
    )


def _of_meta_messages(track: Any) -> Any:
    """The track without notes; its tempi and keys keep their times."""
    kept, time = type(track)(), 0
    for message in track:
        time += message.time
        if message.is_meta:
            message.time, time = time, 0
            kept.append(message)
    return kept


def _read_with_symusic(content: bytes) -> Score:
    import symusic

    midi = symusic.Score.from_midi(content)
    notes = [np.empty((0, 5), np.int64)]
    for part, track in enumerate(midi.tracks):
        columns = track.notes.numpy()
        time, duration = columns["time"].astype(np.int64), columns["duration"]
        some = [time, time + duration, columns["pitch"], columns["velocity"]]
        notes.append(np.stack([*some, np.full_like(time, part)], axis=1))
    notes = _in_key_order(np.concatenate(notes))
    before, after = notes[:-1], notes[1:]
    overlap = (before[:, 1] > after[:, 0]) | (before[:, 0] == after[:, 0])
    if (overlap & _of_one_key(notes)).any():
        # symusic pairs strokes and releases first in, first out, and does not say
        # which strokes have no release: where notes overlap, their ends are uncertain.
        require("pretty_midi", extra="examples")
        return _read_with_pretty_midi(content, None)
    pedals = [
        (part, control.time, control.value)
        for part, track in enumerate(midi.tracks)
        for control in track.controls
        if control.number == SUSTAIN_PEDAL
    ]
    keys = [
        (
            key.time,
            7 * key.key % 12 if not key.tonality else (7 * key.key + 9) % 12 + 12,
        )
        for key in midi.key_signatures
    ]
    return Score(
        midi.ticks_per_quarter,
        _paired(notes),
        [Part(track.program, track.is_drum, track.name) for track in midi.tracks],
        _table(pedals, 3).astype(np.int64),
        _in_order([(tempo.time, tempo.mspq) for tempo in midi.tempos]),
        min(keys)[1] if keys else None,
    )


def _table(rows: list, columns: int) -> np.ndarray:
    return np.array(rows, np.float64).reshape(-1, columns)


def _in_order(tempi: list[tuple[int, int]]) -> np.ndarray:
    """Tempi from tick 0 on; the last one, if several are at one tick."""
    table = dict(sorted([(0, DEFAULT_TEMPO), *tempi], key=lambda tempo: tempo[0]))
    return np.array(list(table.items()), np.int64)


def _in_key_order(notes: np.ndarray) -> np.ndarray:
    start, end, pitch, _, part = notes.T
    return notes[np.lexsort((end, start, pitch, part))]


def _of_one_key(notes: np.ndarray) -> np.ndarray:
    """Whether each note has the part and the pitch of the next one."""
    return (notes[1:, [2, 4]] == notes[:-1, [2, 4]]).all(axis=1)


def _paired(notes: np.ndarray) -> np.ndarray:
    """Ends notes where their key is struck again; drops those without length."""
    notes = _in_key_order(notes)
    struck = np.minimum(notes[:-1, 1], notes[1:, 0])
    notes[:-1, 1] = np.where(_of_one_key(notes), struck, notes[:-1, 1])
    return notes[notes[:, 0] < notes[:, 1]]
