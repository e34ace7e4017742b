"""New notes after those of a MIDI file, whose own messages stand as they were."""

import itertools
import os
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from .. import checks
from . import piano_roll
from .midi_engines import MIDIError
from .midi_messages import (
    OF_NOTES,
    events_of,
    is_release,
    merged,
    note_events,
    place_in_bar,
    save,
    step_of,
)
from .midi_piece import Event, Piece, Voice
from .midi_voices import manner
from .score import PEDAL, PEDAL_DOWN

NEAR = 8
"""From so many bars before the new notes it is learned how voices play."""
OVERHANG = Fraction(1, 8)
"""How much of a quarter note the last notes may sound on into the next bar."""
OF_MOMENTS = ("text", "lyrics", "marker", "cue_marker")
"""Those messages that say something about the tick at which they are."""


class Seam(NamedTuple):
    """Where a piece ends and its continuation begins: on a bar line."""

    tick: int
    """The tick of the bar line."""
    end: int
    """The tick of the bar line where the continuation ends."""
    bar: int
    """How many bars there are before it."""
    step: int
    """The first step of the continuation, on the grid of the piece."""
    steps: int
    """How many steps the continuation has."""
    meter: tuple[int, int]
    """The time signature of the continuation, where it begins."""
    cuts: bool = False
    """Whether there is music after it, which is left out."""
    left_out: int = 0
    """How many notes begin after it and are left out."""
    meter_left_out: tuple[int, int] | None = None
    """A time signature that begins at the seam, and is left out."""


def find_seam(
    piece: Piece,
    steps_per_quarter: int | Fraction | str,
    bars: int,
    primer_bars: int | None = None,
) -> Seam:
    """Finds where a continuation begins, and how long it is.

    Args:
        piece: The piece.
        steps_per_quarter: Steps in a quarter note, as of the roll.
        bars: How many bars the continuation has, of the meter of the piece.
        primer_bars: After how many bars of the piece it begins; what follows is left
            out. Default: `None`, at the first bar line at or after the end of the
            music.

    Returns:
        The seam.

    Raises:
        MIDIError: The piece has fewer bars, or a resolution coarser than the grid.
        ValueError: An argument is out of its range.
    """
    step = step_of(piece, steps_per_quarter)
    bars = checks.whole("bars", bars)
    primer_bars = checks.whole("primer_bars", primer_bars, optional=True)
    # A played note may end a little after the bar.
    end = piece.end - min(step / 2, OVERHANG * piece.ticks_per_quarter)
    there = sum(1 for _ in itertools.takewhile(lambda x: x < end, piece.bar_lines()))
    bar = there if primer_bars is None else primer_bars
    if bar > there:
        raise MIDIError(
            f"{piece.path!r} has {there} bar{'s' * (there != 1)} of music, so there is "
            f"no bar {bar + 1} to begin at; primer_bars must be from 1 to {there}."
        )
    seam = next(itertools.islice(piece.bar_lines(), bar, None))
    tick, cuts = round(seam), bar < there
    # What begins at the seam is left out if it cuts.
    lines = piece.bar_lines(tick if cuts else None)
    last = next(itertools.islice(lines, bar + bars, None))
    first = -int(-seam // step)
    steps = max(1, int(last // step) - first)  # whole ones within the bars
    meters = {row[0]: (row[1], row[2]) for row in piece.score.time_signatures.tolist()}
    before = meters[max(at for at in meters if at < max(tick, 1))]
    at_seam = meters.get(tick, before)
    if not cuts:
        return Seam(tick, round(last), bar, first, steps, at_seam)
    left_out = sum(int((voice.notes[:, 0] >= tick).sum()) for voice in piece.voices)
    meter = at_seam if at_seam != before else None
    return Seam(tick, round(last), bar, first, steps, before, True, left_out, meter)


def continue_piece(
    piece: Piece,
    roll: np.ndarray,
    seam: Seam,
    path: str | os.PathLike,
    steps_per_quarter: int | Fraction | str,
    *,
    only_new: bool = False,
    repeat_drums: int = 0,
) -> None:
    """Writes a piece as a MIDI file that goes on with the notes of a roll.

    Every message before the seam stands as it was, and those after it, too, unless the
    seam cuts the piece. Tempo, meter, key, instruments and controls go on, as nothing
    ends them; keys that are never released, and a pedal that is down, are released.
    Each note goes to the voice whose register and texture it fits, of those that play
    in the last eight bars, and is as loud and as long as the notes of that voice.

    Args:
        piece: The piece.
        roll: `[T, 88]`, or `[T, 176]` with onsets, zeros and ones: the continuation,
            from the step `seam.step` on.
        seam: Where it begins.
        path: The file to write; missing folders are made.
        steps_per_quarter: Steps in a quarter note.
        only_new: Whether to leave out the notes of the piece; then the continuation
            begins at tick 0. Default: `False`.
        repeat_drums: How many bars before the seam the drums repeat. Default: 0, they
            are silent.

    Raises:
        MIDIError: There are no notes before the seam but drums, or fewer bars than are
            to be repeated.
        ImportError: pretty_midi, which brings mido, or SciPy is not installed.
        ValueError: An argument is out of its range.

    Example:

    >>> import numpy as np
    >>> from keras_gated.datasets import midi, piano_roll
    >>> tune = piano_roll.from_notes([(0, 4, 60)], 1)
    >>> midi.write(tune, "bar.mid", 1)
    >>> piece = midi.read_piece("bar.mid")
    >>> seam = midi.find_seam(piece, 1, bars=1)
    >>> midi.continue_piece(piece, np.roll(tune, 2, axis=1), seam, "two.mid", 1)
    >>> piano_roll.to_notes(midi.read("two.mid", 1)).tolist()
    [[0, 4, 60], [4, 8, 62]]
    """
    step = step_of(piece, steps_per_quarter)
    voices, begin = _near(piece, seam)
    lines = piece.bar_lines(seam.tick if seam.cuts else None)
    lines = list(itertools.takewhile(lambda line: line <= seam.end, lines))
    repeated = _repeated(piece, seam, lines, repeat_drums)
    place = place_in_bar(lines, step)
    manners = [manner(_within(v, begin, seam.tick), step, place) for v in voices]
    tracks, ends = piece.tracks, piece.ends
    if seam.cuts:
        tracks = [[e for e in track if _stands(e, seam.tick)] for track in tracks]
        ends = [0] * len(tracks)
    tracks = [merged(track, _closing(track, seam.tick)) for track in tracks]
    notes = piano_roll.to_notes(roll)
    notes[:, :2] += seam.step
    added = events_of(notes, voices, manners, step, place, tracks)
    for track, events in repeated:
        added[track] += events
    ends = [max(e, seam.end) if new else e for e, new in zip(ends, added, strict=True)]
    if only_new:
        tracks = [_setup(track, seam.tick) for track in tracks]
        ends = [max(0, end - seam.tick) for end in ends]
        added = [[(tick - seam.tick, m) for tick, m in new] for new in added]
    save(piece, [*map(merged, tracks, added)], ends, path)


def _near(piece: Piece, seam: Seam) -> tuple[list[Voice], int]:
    """The voices that play in the last bars before the seam, and their first tick."""
    lines = piece.bar_lines(seam.tick if seam.cuts else None)
    first = round(next(itertools.islice(lines, max(0, seam.bar - NEAR), None)))
    for begin in (first, 0):
        voices = [v for v in piece.pitched if len(_within(v, begin, seam.tick))]
        if voices:
            return voices, begin
    raise MIDIError(
        f"{piece.path!r} holds no note before bar {seam.bar + 1} but drums, which the "
        "model does not play; choose a piece with a pitched track."
    )


def _within(voice: Voice, begin: int, end: int) -> np.ndarray:
    start = voice.notes[:, 0]
    return voice.notes[(begin <= start) & (start < end)]


def _repeated(
    piece: Piece, seam: Seam, lines: Sequence[Fraction], bars: int
) -> list[tuple[int, list[Event]]]:
    """The track of each voice of drums, and its last bars over and over."""
    bars = checks.whole("repeat_drums", bars, 0)
    if bars > seam.bar:
        raise MIDIError(
            f"{piece.path!r} has {seam.bar} bar{'s' * (seam.bar != 1)} before the "
            f"continuation, and its drums cannot repeat {bars}; choose fewer."
        )
    begin = round(lines[seam.bar - bars])
    repeated = []
    for voice in piece.voices if bars else ():
        if not voice.is_drum:
            continue
        events = []
        for late in range(seam.tick - begin, seam.end - begin, seam.tick - begin):
            for start, end, *how in _within(voice, begin, seam.tick).tolist():
                if start + late < seam.end:
                    end = min(end, seam.tick) + late
                    events += note_events(voice.channel, start + late, end, *how)
        repeated.append((voice.track, events))
    return repeated


def _stands(event: Event, seam: int) -> bool:
    """Whether a message belongs to what is before the seam."""
    tick, message = event
    return tick < seam or (tick == seam and is_release(message))


def _closing(track: Sequence[Event], seam: int) -> list[Event]:
    """Releases of the keys that sound on for ever, and of pedals that are down."""
    import mido

    closing = {}
    for tick, message in track:
        at = max(seam, tick)
        if message.type in ("note_on", "note_off"):
            about = {"channel": message.channel, "note": message.note}
            off = mido.Message("note_off", velocity=0, **about)
            key, needed = (message.channel, message.note), not is_release(message)
        elif message.type == "control_change" and message.control == PEDAL:
            off, key = message.copy(value=0), message.channel
            needed = message.value >= PEDAL_DOWN
        else:
            continue
        closing.pop(key, None)
        if needed:
            closing[key] = at, off.copy(time=0)
    return list(closing.values())


def _setup(track: Sequence[Event], seam: int) -> list[Event]:
    """What is in force at the seam, at tick 0, and what follows, without notes."""
    first: dict[tuple, Event] = {}
    later = []
    for number, (tick, message) in enumerate(track):
        if message.type in OF_NOTES:
            continue
        if tick > seam:
            later.append((tick - seam, message))
        elif message.type not in OF_MOMENTS:
            about = (getattr(message, name, None) for name in ("channel", "control"))
            every = number if message.type == "sysex" else None
            key = (message.type, *about, every)
            first.pop(key, None)  # the last of a kind, in its place
            first[key] = 0, message
    return [*first.values(), *later]
