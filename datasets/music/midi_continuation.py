"""New notes in a MIDI file whose own messages stand as they were."""

import bisect
import itertools
import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from .. import checks
from ..files import atomic_path
from . import piano_roll
from .grid import rate
from .midi_engines import MIDIError
from .midi_piece import Event, Piece, Voice, to_midi_file
from .midi_voices import Manner, assign, manner
from .score import DRUMS, PEDAL, PEDAL_DOWN

NEAR = 8
"""From so many bars before the new notes it is learned how voices play."""
BEYOND, BELOW = 7, 24
"""How many semitones new voices go beyond the range of those that they replace; and
below all others, if they replace none."""
OVERHANG = Fraction(1, 8)
"""How much of a quarter note the last notes may sound on into the next bar."""
OF_NOTES = ("note_on", "note_off", "polytouch", "aftertouch", "pitchwheel")
"""The messages that go with notes."""
OF_MOMENTS = ("text", "lyrics", "marker", "cue_marker")
"""Those that say something about the tick at which they are."""


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
    step = _step(piece, steps_per_quarter)
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
    steps = max(1, -int(-last // step) - first)
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
    step = _step(piece, steps_per_quarter)
    voices, begin = _near(piece, seam)
    lines = piece.bar_lines(seam.tick if seam.cuts else None)
    lines = list(itertools.takewhile(lambda line: line <= seam.end, lines))
    repeated = _repeated(piece, seam, lines, repeat_drums)
    place = _place(lines, step)
    manners = [manner(_within(v, begin, seam.tick), step, place) for v in voices]
    notes = piano_roll.to_notes(roll)
    notes[:, :2] += seam.step
    added = _events(piece, notes, voices, manners, step, place, seam.tick)
    for track, events in repeated:
        added[track] += events
    tracks, ends = [], []
    for number, track in enumerate(piece.tracks):
        new, end = added[number], piece.ends[number]
        if seam.cuts:
            track, end = [e for e in track if _stands(e, seam.tick)], 0
        track = _merged(track, _closing(track, seam.tick))
        end = max(end, seam.end) if new else end
        if only_new:
            track, end = _setup(track, seam.tick), max(0, end - seam.tick)
            new = [(tick - seam.tick, message) for tick, message in new]
        tracks.append(_merged(track, new))
        ends.append(end)
    _save(piece, tracks, ends, path)


def fixed_roll(
    piece: Piece,
    kept: Sequence[Voice],
    steps_per_quarter: int | Fraction | str,
    semitones: int = 0,
    onsets: bool = False,
) -> np.ndarray:
    """What a model must keep to, to find other voices for some that are given.

    The keys of the given voices are on. Off are keys beyond the range of the others, to
    a fifth, and, where the given voices are the highest of the piece, the keys above
    them, so that they stay so; likewise below the lowest. All others are free. If all
    voices are given, the new one lies below the highest, down to two octaves.

    Args:
        piece: The piece.
        kept: The voices that are given.
        steps_per_quarter: Steps in a quarter note.
        semitones: How far up to transpose. Default: 0.
        onsets: Whether to say, too, where keys are struck again. Default: `False`.

    Returns:
        `int8 [T, 88]`: 1 where a key is on, 0 where it is off, -1 where it is free; as
        `generation.generate` takes it. With `onsets` `[T, 176]`: the strokes of the
        given voices are fixed, those of free keys are free.
    """
    step = _step(piece, steps_per_quarter)
    steps = max(len(_roll([voice], step)) for voice in piece.pitched)
    fixed = -np.ones((steps, piano_roll.KEYS), np.int8)
    given, again = piano_roll.halves(_roll(kept, step, onsets))
    places = {voice.place for voice in kept}
    others = [voice for voice in piece.pitched if voice.place not in places]
    mine, theirs = (
        [float(np.median(voice.notes[:, 2])) for voice in voices]
        for voices in (kept, others)
    )
    low = min(int(voice.notes[:, 2].min()) for voice in others or kept)
    high = max(int(voice.notes[:, 2].max()) for voice in others or kept)
    low, high = low - (BEYOND if others else BELOW), high + BEYOND
    pitch = np.arange(piano_roll.KEYS) + piano_roll.LOWEST_PITCH
    fixed[:, (pitch < low) | (pitch > high)] = 0
    above = given[:, ::-1].cumsum(axis=1)[:, ::-1] == 0  # above the highest key
    below = given.cumsum(axis=1) == 0
    sounding, fixed_part = given.any(axis=1)[:, None], fixed[: len(given)]
    if not others or max(mine) > max(theirs):
        fixed_part[above & sounding] = 0
    if others and min(mine) < min(theirs):
        fixed_part[below & sounding] = 0
    fixed_part[given > 0] = 1
    if again is not None:
        fixed = np.concatenate([fixed, _fixed_strokes(fixed, given, again)], axis=1)
    return piano_roll.transpose(fixed + 1, semitones) - 1


def replace_voices(
    piece: Piece,
    roll: np.ndarray,
    replaced: Sequence[Voice],
    path: str | os.PathLike,
    steps_per_quarter: int | Fraction | str,
) -> None:
    """Writes a piece as a MIDI file in which some voices play the notes of a roll.

    All messages of the other voices stand as they were, and of the replaced ones those
    that are no notes. Each note goes to the replaced voice that it fits, as in
    `continue_piece`.

    Args:
        piece: The piece.
        roll: `[T, 88]`, or `[T, 176]` with onsets, zeros and ones: what the replaced
            voices play.
        replaced: The voices. If there is none, the notes get a track of their own.
        path: The file to write; missing folders are made.
        steps_per_quarter: Steps in a quarter note.

    Raises:
        MIDIError: There is no channel left for a new track.
        ImportError: pretty_midi, which brings mido, or SciPy is not installed.
        ValueError: An argument is out of its range.
    """
    step = _step(piece, steps_per_quarter)
    places = {voice.place for voice in replaced}
    tracks = [
        [
            (tick, message)
            for tick, message in track
            if not (message.type in OF_NOTES and (number, message.channel) in places)
        ]
        for number, track in enumerate(piece.tracks)
    ]
    ends, voices = [*piece.ends], list(replaced)
    if not voices:
        voices = [_new_voice(piece)]
        tracks.append(_opening(voices[0]))
        ends.append(0)
    notes = piano_roll.to_notes(roll)
    last = round(len(roll) * step)
    lines = list(itertools.takewhile(lambda line: line <= last, piece.bar_lines()))
    place = _place(lines, step)
    manners = [manner(voice.notes, step, place) for voice in voices]
    added = _events(piece, notes, voices, manners, step, place)
    tracks = [_merged(*both) for both in zip(tracks, added, strict=True)]
    _save(piece, tracks, ends, path)


def _step(piece: Piece, steps_per_quarter: int | Fraction | str) -> Fraction:
    """The length of a step in ticks."""
    step = piece.ticks_per_quarter / Fraction(rate(steps_per_quarter))
    if step < 1:
        raise MIDIError(
            f"{piece.path!r} has {piece.ticks_per_quarter} ticks a quarter note, too "
            f"few for {steps_per_quarter} steps; save it with a finer resolution."
        )
    return step


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


def _roll(voices: Sequence[Voice], step: Fraction, onsets: bool = False) -> np.ndarray:
    notes = np.concatenate([voice.notes[:, :3] for voice in voices])
    if not onsets:
        return piano_roll.from_notes(notes, step)
    return piano_roll.with_onsets(*piano_roll.from_notes(notes, step, onsets=True))


def _fixed_strokes(
    fixed: np.ndarray, given: np.ndarray, again: np.ndarray
) -> np.ndarray:
    """Which keys are struck again, 1 or 0, or free, -1.

    Args:
        fixed: Which keys are on, off or free, `int8 [T, 88]`.
        given: Where the given voices sound, `[at most T, 88]`.
        again: Where these strike keys again that they held.
    """
    before = np.pad(fixed, ((1, 0), (0, 0)))[:-1]  # it begins after silence
    strokes = -np.ones_like(fixed)
    known = (given > 0) & (np.pad(given, ((1, 0), (0, 0)))[:-1] > 0)
    strokes[: len(given)][known] = again[known]
    # What is off is not struck, nor struck again what was off before.
    strokes[(fixed == 0) | (before == 0)] = 0
    return strokes


def _place(lines: Sequence[Fraction], step: Fraction) -> Callable[[int], int]:
    """A function that gives the number of a step in its bar."""

    def place(number: int) -> int:
        line = lines[bisect.bisect_right(lines, number * step) - 1]
        return round((number * step - line) / step)

    return place


def _events(
    piece: Piece,
    notes: np.ndarray,
    voices: Sequence[Voice],
    manners: Sequence[Manner],
    step: Fraction,
    place: Callable[[int], int],
    after: int = 0,
) -> list[list[Event]]:
    """The messages of new notes, by track.

    Args:
        piece: The piece.
        notes: First step, step after the last, pitch.
        voices: Those that may play them.
        manners: How each of them plays.
        step: Ticks in a step.
        place: The number of a step in its bar.
        after: The tick from which on there are new notes. Default: 0.
    """
    added: list[list[Event]] = [[] for _ in piece.tracks]
    added += [[] for voice in voices if voice.track == len(added)]
    # A note of the piece may sound on for a part of a step.
    busy = {
        (voice.channel, pitch): end
        for voice in piece.voices
        for _, end, pitch, _ in voice.notes.tolist()
        if after and end > after
    }
    for (first, last, pitch), number in zip(
        notes.tolist(), assign(notes, manners).tolist(), strict=True
    ):
        voice, how = voices[number], manners[number]
        start = max(round(first * step), busy.get((voice.channel, pitch), 0))
        end = round(last * step) - how.early
        loud = how.accents.get(place(first), how.velocity)
        added[voice.track] += _note(voice.channel, start, end, pitch, loud)
    return added


def _note(channel: int, start: int, end: int, pitch: int, velocity: int) -> list[Event]:
    import mido

    about = {"channel": channel, "note": pitch}
    return [
        (start, mido.Message("note_on", velocity=velocity, **about)),
        (end, mido.Message("note_off", velocity=0, **about)),
    ]


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
                    events += _note(voice.channel, start + late, end, *how)
        repeated.append((voice.track, events))
    return repeated


def _is_release(message: object) -> bool:
    return message.type == "note_off" or (
        message.type == "note_on" and message.velocity == 0
    )


def _stands(event: Event, seam: int) -> bool:
    """Whether a message belongs to what is before the seam."""
    tick, message = event
    return tick < seam or (tick == seam and _is_release(message))


def _closing(track: Sequence[Event], seam: int) -> list[Event]:
    """Releases of the keys that sound on for ever, and of pedals that are down."""
    import mido

    closing = {}
    for tick, message in track:
        at = max(seam, tick)
        if message.type in ("note_on", "note_off"):
            about = {"channel": message.channel, "note": message.note}
            off = mido.Message("note_off", velocity=0, **about)
            key, needed = (message.channel, message.note), not _is_release(message)
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


def _merged(track: Sequence[Event], new: Sequence[Event]) -> list[Event]:
    """Both in the order of time: at a tick what was there first, then releases."""

    def in_order(event: Event) -> tuple[int, bool]:
        return event[0], not _is_release(event[1])

    return sorted([*track, *sorted(new, key=in_order)], key=lambda event: event[0])


def _new_voice(piece: Piece) -> Voice:
    """A voice in a track of its own, on a channel that is free, with all notes."""
    used = {voice.channel for voice in piece.voices} | {DRUMS}
    free = [channel for channel in range(16) if channel not in used]
    if not free:
        raise MIDIError(
            f"{piece.path!r} has no channel left for a new track; name a track to "
            "replace."
        )
    notes = np.concatenate([voice.notes for voice in piece.pitched])
    program = piece.pitched[0].program
    return Voice(len(piece.tracks), free[0], "new", program, notes)


def _opening(voice: Voice) -> list[Event]:
    import mido

    about = {"channel": voice.channel, "program": voice.program}
    return [
        (0, mido.MetaMessage("track_name", name=voice.name)),
        (0, mido.Message("program_change", **about)),
    ]


def _save(
    piece: Piece,
    tracks: Sequence[Sequence[Event]],
    ends: Sequence[int],
    path: str | os.PathLike,
) -> None:
    with atomic_path(path) as file:
        to_midi_file(piece, tracks, ends).save(str(file))
