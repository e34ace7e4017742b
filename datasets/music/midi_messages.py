"""The messages of new notes, and how they join those that stand."""

import bisect
import os
import sys
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

from ..files import atomic_path
from .grid import rate
from .midi_engines import MIDIError
from .midi_piece import Event, Piece, Voice, to_midi_file
from .midi_voices import Manner, assign

OF_NOTES = ("note_on", "note_off", "polytouch", "aftertouch", "pitchwheel")
"""The messages that go with notes."""
Time = tuple[int, int, int]
"""The ticks at which a note begins and ends, and the number of its track."""


def step_of(piece: Piece, steps_per_quarter: int | Fraction | str) -> Fraction:
    """The length of a step in ticks."""
    step = piece.ticks_per_quarter / Fraction(rate(steps_per_quarter))
    if step < 1:
        raise MIDIError(
            f"{piece.path!r} has {piece.ticks_per_quarter} ticks a quarter note, too "
            f"few for {steps_per_quarter} steps; save it with a finer resolution."
        )
    return step


def place_in_bar(lines: Sequence[Fraction], step: Fraction) -> Callable[[int], int]:
    """A function that gives the number of a step in its bar."""

    def place(number: int) -> int:
        line = lines[bisect.bisect_right(lines, number * step) - 1]
        return round((number * step - line) / step)

    return place


def events_of(
    notes: np.ndarray,
    voices: Sequence[Voice],
    manners: Sequence[Manner],
    step: Fraction,
    place: Callable[[int], int],
    standing: Sequence[Sequence[Event]],
) -> list[list[Event]]:
    """The messages of new notes, by track.

    Args:
        notes: First step, step after the last, pitch; ordered by start.
        voices: Those that may play them.
        manners: How each of them plays.
        step: Ticks in a step.
        place: The number of a step in its bar.
        standing: The messages of each track that stand.
    """
    added: list[list[Event]] = [[] for _ in standing]
    times = _times(standing)
    for (first, last, pitch), number in zip(
        notes.tolist(), assign(notes, manners).tolist(), strict=True
    ):
        voice, how = voices[number], manners[number]
        start, end = round(first * step), round(last * step) - how.early
        of_key = times.setdefault((voice.channel, pitch), [])
        start, end = _what_is_free(start, end, voice.track, of_key)
        if start < end:
            loud = how.accents.get(place(first), how.velocity)
            added[voice.track] += note_events(voice.channel, start, end, pitch, loud)
            bisect.insort(of_key, (start, end, voice.track))
    return added


def _times(tracks: Sequence[Sequence[Event]]) -> dict[tuple[int, int], list[Time]]:
    """When each key of each channel sounds, in order."""
    times: dict[tuple[int, int], list[Time]] = {}
    for number, track in enumerate(tracks):
        since: dict[tuple[int, int], int] = {}
        for tick, message in track:
            if message.type not in ("note_on", "note_off"):
                continue
            key = message.channel, message.note
            # A release of what does not sound in its track ends what another plays.
            start = since.pop(key, tick if is_release(message) else None)
            if start is not None:
                times.setdefault(key, []).append((start, tick, number))
            if not is_release(message):
                since[key] = tick
        for key, start in since.items():  # for ever
            times.setdefault(key, []).append((start, sys.maxsize, number))
    for of_key in times.values():
        of_key.sort()
    return times


def _what_is_free(
    start: int, end: int, track: int, others: Sequence[Time]
) -> tuple[int, int]:
    """The part of a note in which no other holds its key; empty if there is none.

    Synthesizers know channels and no tracks: a release in one track ends what another
    has struck. At one tick the tracks come in any order, so there a tick lies between.
    """
    for from_tick, to_tick, its_track in others:
        gap = int(its_track != track)
        if from_tick <= start:
            if start < to_tick + gap:
                start = to_tick + gap
        elif from_tick < end + gap:
            end = from_tick - gap
            break
    return start, end


def note_events(
    channel: int, start: int, end: int, pitch: int, velocity: int
) -> list[Event]:
    """The stroke of a key and its release."""
    import mido

    about = {"channel": channel, "note": pitch}
    return [
        (start, mido.Message("note_on", velocity=velocity, **about)),
        (end, mido.Message("note_off", velocity=0, **about)),
    ]


def is_release(message: object) -> bool:
    """Whether a message releases a key."""
    return message.type == "note_off" or (
        message.type == "note_on" and message.velocity == 0
    )


def merged(track: Sequence[Event], new: Sequence[Event]) -> list[Event]:
    """Both in the order of time: at a tick what was there first, then releases."""

    def in_order(event: Event) -> tuple[int, bool]:
        return event[0], not is_release(event[1])

    return sorted([*track, *sorted(new, key=in_order)], key=lambda event: event[0])


def save(
    piece: Piece,
    tracks: Sequence[Sequence[Event]],
    ends: Sequence[int],
    path: str | os.PathLike,
) -> None:
    """Writes tracks of a piece as a file; arguments as of `to_midi_file`."""
    with atomic_path(path) as file:
        to_midi_file(piece, tracks, ends).save(str(file))
