"""Other voices for some that are kept, in a MIDI file whose other messages stand."""

import itertools
import os
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from . import piano_roll
from .midi_engines import MIDIError
from .midi_messages import (
    OF_NOTES,
    events_of,
    merged,
    place_in_bar,
    save,
    step_of,
)
from .midi_piece import Event, Piece, Voice
from .midi_voices import manner
from .score import DRUMS

BEYOND, BELOW = 7, 24
"""How many semitones new voices go beyond the range of those that they replace; and
below all others, if they replace none."""


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
    step = step_of(piece, steps_per_quarter)
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
    # Above the highest key that sounds, and below the lowest.
    above = given[:, ::-1].cumsum(axis=1, dtype=np.uint8)[:, ::-1] == 0
    below = given.cumsum(axis=1, dtype=np.uint8) == 0
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
    step = step_of(piece, steps_per_quarter)
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
    place = place_in_bar(lines, step)
    manners = [manner(voice.notes, step, place) for voice in voices]
    added = events_of(notes, voices, manners, step, place, tracks)
    save(piece, [*map(merged, tracks, added)], ends, path)


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
