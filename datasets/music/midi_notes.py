"""The notes of MIDI files, parsed by pretty_midi or symusic.

Both give the same score. The messages of each track and channel are paired by these
rules: a note ends when its key is released or struck again; a release at the tick of a
stroke ends the note that sounded before; notes without length are left out.

Neither parser tells of strokes that are never released. So each is given releases a
tick after the end of the track: what ends there was not released.
"""

import io
import re
import struct
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from ..files import require
from .midi_repair import END_OF_TRACK, bodies, events, names_in_utf8, text_of
from .score import (
    DEFAULT_TEMPO,
    PEDAL,
    Changes,
    Part,
    Score,
    Voice,
    compose,
    in_key_order,
    in_order,
    of_one_key,
)

if TYPE_CHECKING:
    import mido

ONE_TRACK = b"MThd\0\0\0\6\0\1\0\1"
"""The header of a file with one track, but for the resolution."""
MANY_TICKS = 10**6
MARKER = b"\xff\6\1."
"""An event that tells where a track ends."""
RELEASES = [
    # Twice, as symusic ends the first of two strokes of a key with the first release:
    # then the two overlap, which is found out.
    bytes([0x80 | channel])
    + b"\0".join(bytes([key, 0]) for key in range(128) for _ in range(2))
    for channel in range(16)
]
"""The releases of all keys of each channel."""
STROKE, PROGRAM = re.compile(rb"[\x90-\x9f]"), re.compile(rb"[\xc0-\xcf]")
"""What strokes and changes of programs begin with."""


def read_with_mido(content: bytes) -> "mido.MidiFile":
    """The messages of a file that is whole.

    Args:
        content: The bytes of the file.

    Raises:
        Exception: mido cannot read it; it raises anything.
    """
    import mido

    midi = mido.MidiFile(file=io.BytesIO(content))
    for track, body in zip(midi.tracks, bodies(content), strict=True):
        # mido forgets the ticks before meta events that it does not know.
        if any(message.type == "unknown_meta" for message in track):
            for message, (wait, _) in zip(track, events(body), strict=True):
                message.time = wait
    return midi


def read_with_pretty_midi(content: bytes) -> Score:
    """Reads a file that is whole.

    Args:
        content: The bytes of the file.

    Raises:
        Exception: pretty_midi or mido cannot read it; they raise anything.
    """
    import mido
    import pretty_midi

    midi = read_with_mido(content)
    if not midi.tracks:
        raise ValueError("it has no tracks")
    changed, names, ends, programs = Changes([], [], []), [], [], []
    for number, track in enumerate(midi.tracks):
        name, end, sounding, program = _scan(track, number, changed)
        programs.append(program)
        # pretty_midi names instruments by their tracks, but does not number them; nor
        # does it tell their channels.
        track.insert(0, mido.MetaMessage("track_name", name=str(number)))
        for channel in range(16):
            about = {"channel": channel, "program": channel}
            track.insert(0, mido.Message("program_change", **about))
        for i, (channel, note) in enumerate(sorted(sounding)):
            release = {"channel": channel, "note": note, "time": int(i == 0)}
            track.append(mido.Message("note_off", **release))
        names.append(name)
        ends.append(end)
    moments = _renumbered(midi.tracks) if max(ends) > MANY_TICKS else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tempi outside the first track are read
        parsed = pretty_midi.PrettyMIDI(mido_object=midi)
    scale = 1e6 * midi.ticks_per_beat / DEFAULT_TEMPO
    voices = []
    for instrument in parsed.instruments:
        track, channel = int(instrument.name), int(instrument.program)
        notes = [(n.start, n.end, n.pitch, n.velocity) for n in instrument.notes]
        notes = _rounded(notes, [scale, scale, 1, 1])
        controls = instrument.control_changes
        pedal = [(c.time, c.value) for c in controls if c.number == PEDAL]
        pedal = _rounded(pedal, [scale, 1])
        if moments is not None:
            notes[:, :2], pedal[:, 0] = moments[notes[:, :2]], moments[pedal[:, 0]]
        _end_where_struck_again(notes, ends[track])
        strokes = notes[:, [0, 2]].tolist()
        of_notes = np.array([programs[track][channel, *stroke] for stroke in strokes])
        for program in np.unique(of_notes).tolist():
            part = Part(program, instrument.is_drum, names[track], track)
            voices.append(Voice(part, notes[of_notes == program], pedal))
    voices = in_order(voices)
    notes = in_key_order(voices)
    return compose("pretty_midi", midi.ticks_per_beat, voices, notes, changed, ends)


def _end_where_struck_again(notes: np.ndarray, end: int) -> None:
    """Ends released notes of a channel where their key is struck again.

    pretty_midi ends them all with the release. `compose` knows parts, and a channel
    that changes its program is several.
    """
    notes[:] = notes[np.lexsort((notes[:, 1], notes[:, 0], notes[:, 2]))]
    before, after = notes[:-1], notes[1:]
    again = (before[:, 2] == after[:, 2]) & (before[:, 1] <= end)
    before[:, 1] = np.where(again, np.minimum(before[:, 1], after[:, 0]), before[:, 1])


def _scan(track: Any, number: int, changed: Changes) -> tuple[str, int, set, dict]:
    """The name of a track of mido, its last tick, and which keys sound on at its end.

    And the program of each stroke, by channel, tick and key: pretty_midi goes by that
    of the release. Tempi are made one, with which seconds are proportional to ticks,
    names numbers, and programs channels.
    """
    import pretty_midi

    tick, name, sounding, programs, program = 0, "", set(), {}, [0] * 16
    for message in track:
        tick += message.time
        kind = message.type
        if kind == "note_on" or kind == "note_off":  # by far the most
            key = message.channel, message.note
            if kind == "note_on" and message.velocity:
                sounding.add(key)
                channel, note = key
                programs[channel, tick, note] = program[channel]
            else:
                sounding.discard(key)
        elif kind == "program_change":
            program[message.channel] = message.program
            message.program = message.channel
        elif kind == "set_tempo":
            changed.tempi.append((tick, message.tempo))
            message.tempo = DEFAULT_TEMPO
        elif kind == "time_signature":
            changed.meters.append((tick, message.numerator, message.denominator))
        elif kind == "key_signature":
            key = pretty_midi.key_name_to_key_number(message.key)
            changed.keys.append((tick, key))
        elif kind == "track_name":
            name = text_of(message.name.encode("latin-1"))
            message.name = str(number)
    return name, tick, sounding, programs


def _renumbered(tracks: list) -> np.ndarray:
    """Puts the numbers of ticks at which there is something in the place of ticks.

    pretty_midi takes memory for every tick, and refuses files of more than ten million.

    Args:
        tracks: The tracks of mido.

    Returns:
        The ticks by their numbers.
    """
    times = [np.cumsum([message.time for message in track]) for track in tracks]
    ticks = np.unique(np.concatenate(times))
    for track, now in zip(tracks, times, strict=True):
        waits = np.diff(np.searchsorted(ticks, now), prepend=0).tolist()
        for message, wait in zip(track, waits, strict=True):
            message.time = wait
    return ticks


def read_with_symusic(content: bytes) -> Score:
    """Reads a file that is whole; pretty_midi does where symusic is not to be trusted.

    That is where notes of a key overlap, and where a channel that has a pedal changes
    its program: for symusic pedals and notes belong to the program.

    Args:
        content: The bytes of the file.

    Raises:
        Exception: symusic cannot read it; it raises anything.
        ImportError: It is not to be trusted, and pretty_midi is not installed.
    """
    import symusic

    changed, ends, voices, changing = Changes([], [], []), [], [], []
    # Track by track, as symusic does not number them.
    for number, body in enumerate(bodies(content)):
        midi = symusic.Score.from_midi(_as_file(body, content[12:14]))
        if any("\ufffd" in track.name for track in midi.tracks):
            body = names_in_utf8(body)
            midi = symusic.Score.from_midi(_as_file(body, content[12:14]))
        if (first := STROKE.search(body)) and PROGRAM.search(body, first.end()):
            if any(c.number == PEDAL for track in midi.tracks for c in track.controls):
                require("pretty_midi", extra="examples")
                return read_with_pretty_midi(content)
            changing.append(number)
        ends.append(max(marker.time for marker in midi.markers))
        changed.tempi.extend((tempo.time, tempo.mspq) for tempo in midi.tempos)
        changed.meters.extend(
            (meter.time, meter.numerator, meter.denominator)
            for meter in midi.time_signatures
        )
        changed.keys.extend((key.time, _key_number(key)) for key in midi.key_signatures)
        for track in midi.tracks:
            columns = track.notes.numpy()
            start, duration = columns["time"].astype(np.int64), columns["duration"]
            notes = [start, start + duration, columns["pitch"], columns["velocity"]]
            pedal = [(c.time, c.value) for c in track.controls if c.number == PEDAL]
            part = Part(track.program, track.is_drum, track.name, number)
            ticks = np.stack(notes, axis=1), _rounded(pedal, [1, 1])
            voices.append(Voice(part, *ticks))
    voices = in_order(voices)
    notes = in_key_order(voices)
    overlap = _overlap(notes)
    if changing:  # the parts of a track may be of one channel
        tracks = np.array([voice.part.track for voice in voices], np.int64)
        some = np.column_stack([notes[:, :4], tracks[notes[:, 4]]])
        some = some[np.isin(some[:, 4], changing)]
        overlap |= _overlap(some[np.lexsort(some.T[[1, 0, 2, 4]])])
    if overlap:
        # symusic pairs strokes and releases first in, first out: where notes overlap,
        # their ends are uncertain.
        require("pretty_midi", extra="examples")
        return read_with_pretty_midi(content)
    resolution = int.from_bytes(content[12:14])
    return compose("symusic", resolution, voices, notes, changed, ends)


def _overlap(notes: np.ndarray) -> bool:
    """Whether notes of one key overlap, which are in the order of their keys."""
    before, after = notes[:-1], notes[1:]
    overlap = (before[:, 1] > after[:, 0]) | (before[:, 0] == after[:, 0])
    return bool((overlap & of_one_key(notes)).any())


def _as_file(body: bytes, resolution: bytes) -> bytes:
    """A track as a file, with releases a tick after its end."""
    releases = [RELEASES[c] for c in range(16) if bytes([0x90 | c]) in body]
    late = b"\1" + b"\0".join(releases) if releases else b""
    body += MARKER + late + b"\0" + END_OF_TRACK
    return b"".join(
        [ONE_TRACK, resolution, b"MTrk", struct.pack(">I", len(body)), body]
    )


def _key_number(key: Any) -> int:
    """The key of a key signature of symusic: 0 to 11 in major, 12 to 23 in minor."""
    return (7 * key.key + 9) % 12 + 12 if key.tonality else 7 * key.key % 12


def _rounded(rows: list[tuple], scale: list[float]) -> np.ndarray:
    table = np.array(rows, np.float64).reshape(-1, len(scale)) * scale
    return np.rint(table).astype(np.int64)
