"""A MIDI file as its messages, so that it can be written again with more in it."""

import itertools
import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .midi_engines import MIDIError, parse_messages
from .score import DRUMS, Score, plain_name

if TYPE_CHECKING:
    import mido

LONGEST = 50_000
"""Longer pieces, in quarter notes, are refused: damage makes millions of bars."""
Event = tuple[int, "mido.Message | mido.MetaMessage"]
"""A tick since the beginning, and a message."""


class Voice(NamedTuple):
    """The notes of one channel in one track."""

    track: int
    """The number of the track, from 0."""
    channel: int
    """The channel, 0 to 15."""
    name: str
    """The name of the track."""
    program: int
    """The last General MIDI instrument, 0 to 127."""
    notes: np.ndarray
    """`int64 [notes, 4]`: start, end (ticks), pitch, velocity; ordered by start."""

    @property
    def place(self) -> tuple[int, int]:
        """The numbers of its track and its channel."""
        return self.track, self.channel

    @property
    def is_drum(self) -> bool:
        """Whether it is on the drum channel."""
        return self.channel == DRUMS

    def __str__(self) -> str:
        return f"{self.track}:{self.channel + 1}" + f" {self.name!r}" * bool(self.name)


class Piece(NamedTuple):
    """A MIDI file: every message, and what they mean."""

    path: str
    """The file."""
    content: bytes
    """Its bytes, repaired if need be."""
    ticks_per_quarter: int
    """The resolution."""
    tracks: list[list[Event]]
    """The messages of each track, without the ends of the tracks."""
    ends: list[int]
    """The tick at which each track ends."""
    voices: list[Voice]
    """Those with notes, by track and channel."""
    score: Score
    """The same as `read_score` gives."""

    @property
    def pitched(self) -> list[Voice]:
        """The voices that are no drums."""
        return [voice for voice in self.voices if not voice.is_drum]

    @property
    def end(self) -> int:
        """The tick at which the last note ends.

        One that is never released has half a quarter.
        """
        ends = [voice.notes[:, 1] for voice in self.voices]
        ends.append(self.score.unreleased[:, 0] + self.ticks_per_quarter // 2)
        return int(np.concatenate(ends).max(initial=0))

    def bar_lines(self, before: int | None = None) -> Iterator[Fraction]:
        """The ticks of the bar lines, from 0 on, without end.

        Args:
            before: Only time signatures before this tick count. Default: `None`, all
                do.

        Yields:
            Ticks. A time signature begins a new bar, also in the middle of one.
        """
        signatures = [
            row
            for row in self.score.time_signatures.tolist()
            if before is None or row[0] < max(before, 1)
        ]
        for row, following in itertools.zip_longest(signatures, signatures[1:]):
            line, over, under = row
            length = Fraction(4 * self.ticks_per_quarter * over, under)
            line = Fraction(line)
            while following is None or line < following[0]:
                yield line
                line += length

    def choose(self, names: Sequence[str]) -> list[Voice]:
        """Finds voices by what a person calls them.

        Args:
            names: Numbers of tracks, from 0; numbers of a track and a channel, such as
                `"0:10"`, channels from 1; or names of tracks, in any case.

        Returns:
            The voices without drums, in their order.

        Raises:
            MIDIError: One of the names has no notes; the message says what has.
        """
        chosen: set[int] = set()
        for name in names:
            plain = plain_name(name)
            found = {
                number
                for number, voice in enumerate(self.voices)
                if plain
                in (str(voice.track), str(voice).split()[0], plain_name(voice.name))
                and not voice.is_drum
            }
            if not found:
                there = ", ".join(map(str, self.pitched)) or "none"
                raise MIDIError(
                    f"{self.path!r} has no pitched notes in a track {name!r}; choose "
                    f"from those that have: {there}."
                )
            chosen |= found
        return [self.voices[number] for number in sorted(chosen)]


def read_piece(path: str | os.PathLike) -> Piece:
    """Reads a MIDI file with all of its messages.

    Args:
        path: The file.

    Returns:
        The messages with their ticks, and the notes by track and channel. What was
        wrong with the file and repaired is in `score.problems`: then `content` is no
        longer what the file holds.

    Raises:
        MIDIError: (a `ValueError`) The file is not a readable MIDI file, or longer than
            50,000 quarter notes.
        FileNotFoundError: There is no such file.
        OSError: The file cannot be read.
        ImportError: pretty_midi, which brings mido, is not installed.

    Example:

    >>> from keras_gated.datasets import midi, piano_roll
    >>> midi.write(piano_roll.from_notes([(0, 2, 60), (2, 3, 64)], 1), "tune.mid")
    >>> piece = midi.read_piece("tune.mid")
    >>> piece.voices[0].notes.tolist(), piece.end
    ([[0, 240, 60, 80], [240, 360, 64, 80]], 360)
    """
    path = os.fspath(path)
    score, content, parsed = parse_messages(path)
    tracks, ends = [], []
    for track in parsed.tracks:
        ticks = np.cumsum([message.time for message in track], dtype=np.int64).tolist()
        events = zip(ticks, track, strict=True)
        tracks.append([event for event in events if event[1].type != "end_of_track"])
        ends.append(ticks[-1] if ticks else 0)
    voices = _voices(tracks, score)
    resolution = parsed.ticks_per_beat
    piece = Piece(path, content, resolution, tracks, ends, voices, score)
    last = max([piece.end, *score.time_signatures[:, 0].tolist()])
    if last > LONGEST * resolution:
        raise MIDIError(
            f"{path!r} has {last // resolution:,} quarter notes; pieces of more than "
            f"{LONGEST:,} are not read.",
            "too long",
        )
    return piece


def to_midi_file(
    piece: Piece, tracks: Sequence[Sequence[Event]], ends: Sequence[int]
) -> "mido.MidiFile":
    """Makes a file of messages with absolute ticks.

    Args:
        piece: Where the format and the resolution are from.
        tracks: The messages of each track, in their order.
        ends: The ticks at which tracks end, at least; none ends before its messages.
    """
    import mido

    kind = int.from_bytes(piece.content[8:10])
    made = mido.MidiFile(type=1 if len(tracks) > 1 else kind)
    made.ticks_per_beat = piece.ticks_per_quarter
    for events, end in zip(tracks, ends, strict=True):
        now, track = 0, mido.MidiTrack()
        for tick, message in events:
            track.append(message.copy(time=tick - now))
            now = tick
        wait = max(0, end - now)
        track.append(mido.MetaMessage("end_of_track", time=wait))
        made.tracks.append(track)
    return made


def _voices(tracks: Sequence[Sequence[Event]], score: Score) -> list[Voice]:
    """The notes of the score by track and channel; the score knows parts, not channels.

    A note has the channel of its stroke.
    """
    strokes: dict[tuple[int, int, int, bool], list[tuple[int, int]]] = {}
    programs: dict[tuple[int, int], int] = {}
    for number, track in enumerate(tracks):
        for tick, message in track:
            if message.type == "program_change":
                programs[number, message.channel] = message.program
            elif message.type == "note_on" and message.velocity:
                channel = message.channel
                key = number, tick, message.note, channel == DRUMS
                stroke = programs.get((number, channel), 0), channel
                strokes.setdefault(key, []).append(stroke)
    names: dict[tuple[int, int], str] = {}
    notes: dict[tuple[int, int], list] = {}
    for start, end, pitch, velocity, number in score.notes.tolist():
        part = score.parts[number]
        some = strokes[part.track, start, pitch, part.is_drum]
        # In one track several channels may play in unison.
        stroke = max(some, key=lambda stroke: stroke[0] == part.program)
        if len(some) > 1:
            some.remove(stroke)
        place = part.track, stroke[1]
        names[place] = part.name
        notes.setdefault(place, []).append((start, end, pitch, velocity))
    return [
        Voice(*place, names[place], programs.get(place, 0), np.array(sorted(rows)))
        for place, rows in sorted(notes.items())
    ]
