"""Which voice of a piece plays a new note, and how: as it has played so far."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from ..files import require
from . import piano_roll
from .grid import round_to_grid

MOST_AT_ONCE = 90
"""The percentile of the number of notes at a time that is taken for the most: a voice
that plays a few double stops is still a melody."""
ONE_TOO_MANY = 24
"""How many semitones away the next voice may lie before a melody becomes two notes at a
time; for a voice of chords it is less, by the number of their notes."""


class Manner(NamedTuple):
    """How a voice plays."""

    register: float
    """The median of its pitches."""
    at_once: int
    """How many notes it plays at a time."""
    velocity: int
    """The median of its velocities."""
    accents: dict[int, int]
    """The medians by the step in the bar, where there are several notes."""
    early: int
    """How many ticks its notes end before the line of the grid."""


def manner(
    notes: np.ndarray, step: Fraction, place: Callable[[int], int] = lambda step: 0
) -> Manner:
    """Finds how a voice plays.

    Args:
        notes: Its notes, `int64 [notes, 4]`: start, end (ticks), pitch, velocity.
        step: Ticks in a step.
        place: The number of a step within its bar. Default: all are alike.
    """
    start, end, pitch, velocity = notes.T
    roll = piano_roll.from_notes(notes[:, :3], step)
    counts = roll.sum(axis=1)
    most = np.percentile(counts[counts > 0], MOST_AT_ONCE) if counts.any() else 1
    at: dict[int, list[int]] = {}
    for first, loud in zip(round_to_grid(start, step), velocity.tolist(), strict=True):
        at.setdefault(place(int(first)), []).append(loud)
    lines = np.array([round(line * step) for line in round_to_grid(end, step).tolist()])
    # Less than half a step, so that the grid has it where it is.
    early = min(max(0, int(np.median(lines - end))), max(0, int(step / 2) - 1))
    return Manner(
        float(np.median(pitch)),
        max(1, round(float(most))),
        int(np.median(velocity)),
        {where: int(np.median(loud)) for where, loud in at.items() if len(loud) > 1},
        early,
    )


def assign(notes: np.ndarray, manners: Sequence[Manner]) -> np.ndarray:
    """Gives notes to the voices whose registers and textures they fit.

    Notes that begin together are given out together, at the least sum of squared
    distances, so that voices of one note at a time do not cross (Kuhn's and Munkres's
    algorithm). The distance is that from the register of the voice and its last note.

    Args:
        notes: `int64 [notes, 3]`: first step, step after the last, pitch; ordered by
            start, as `piano_roll.to_notes` gives them.
        manners: How each voice plays.

    Returns:
        The number of a voice for each note, `int64 [notes]`.

    Raises:
        ImportError: SciPy is not installed.
    """
    solve = require("scipy.optimize", extra="examples").linear_sum_assignment
    voices = np.empty(len(notes), np.int64)
    center = np.array([manner.register for manner in manners])
    register = center.copy()
    held: list[list[int]] = [[] for _ in manners]  # the ends of what sounds
    for start in np.unique(notes[:, 0]):
        together = np.flatnonzero(notes[:, 0] == start)
        pitch = notes[together, 2]
        slots, penalties = [], []
        for number, some in enumerate(manners):
            held[number] = [end for end in held[number] if end > start]
            free = max(0, some.at_once - len(held[number]))
            slots += [number] * (free + len(together))
            too_many = (ONE_TOO_MANY / some.at_once) ** 2
            penalties += [0.0] * free + [too_many] * len(together)
        cost = np.subtract.outer(pitch, center[slots]) ** 2 + np.array(penalties)
        rows, columns = solve(cost)
        for row, column in zip(rows, columns, strict=True):
            voice, note = slots[column], together[row]
            voices[note] = voice
            held[voice].append(int(notes[note, 1]))
            if manners[voice].at_once == 1:
                center[voice] = (register[voice] + notes[note, 2]) / 2
    return voices
