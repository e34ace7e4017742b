"""What music is like, in numbers that tell whether two pieces are alike."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from keras_gated.datasets import piano_roll

DISSONANT = (1, 2, 6)
"""Seconds and tritones, in semitones; sevenths are seconds of pitch classes."""
LONGEST, MOST = 16, 12
"""Longer notes count as notes of this length, and more notes as so many."""


class Shape(NamedTuple):
    """Statistics of some music."""

    notes_at_a_time: float
    """The mean over all steps."""
    rests: float
    """The share of steps without a note."""
    crowded: float
    """The share of steps with more than twice the usual number of notes."""
    dissonance: float
    """See `dissonance`."""
    note_length: float
    """The mean, in steps."""
    pitch_classes: np.ndarray
    """The share of each of the notes, from C on, `[12]`."""
    note_lengths: np.ndarray
    """The share of notes of 1, 2, ... steps, `[LONGEST]`."""
    numbers: np.ndarray
    """The share of steps with 0, 1, ... notes, `[MOST + 1]`."""


def shape_of(
    rolls: Sequence[np.ndarray], usual: float, begin: int = 0, end: int | None = None
) -> Shape:
    """The statistics of some music, or of a window of each piece.

    Args:
        rolls: The pieces, `[T, 88]` each.
        usual: The usual number of notes at a time, as `usual_number` gives it.
        begin: The first step of the window. Default: 0.
        end: The step after its last. Default: `None`, the end of the piece.

    Returns:
        The statistics. Notes count where they begin, with their whole length.
    """
    last = np.inf if end is None else end
    notes = np.concatenate([piano_roll.to_notes(roll) for roll in rolls])
    notes = notes[(notes[:, 0] >= begin) & (notes[:, 0] < last)]
    lengths = notes[:, 1] - notes[:, 0]
    windows = [np.asarray(roll)[begin:end] for roll in rolls]
    each = _notes_at_a_time(windows)
    return Shape(
        float(each.mean()),
        float((each == 0).mean()),
        float((each > 2 * usual).mean()),
        dissonance(windows),
        float(lengths.mean()) if len(lengths) else 0.0,
        _shares(notes[:, 2] % 12, 12),
        _shares(np.minimum(lengths, LONGEST) - 1, LONGEST),
        _shares(np.minimum(each, MOST), MOST + 1),
    )


def usual_number(rolls: Sequence[np.ndarray]) -> float:
    """The mean number of notes at a time."""
    return float(_notes_at_a_time(rolls).mean())


def dissonance(rolls: Sequence[np.ndarray]) -> float:
    """How much of what sounds together is dissonant.

    Returns:
        Of the pairs of different pitch classes that sound at the same step, the share
        that form a second, a tritone or a seventh; 0 if there is none.
    """
    frames = np.concatenate([np.asarray(roll) for roll in rolls]) > 0
    classes = np.arange(piano_roll.KEYS) + piano_roll.LOWEST_PITCH
    heard = np.stack(
        [frames[:, classes % 12 == number].any(axis=1) for number in range(12)], axis=1
    )
    pairs = {
        semitones: int((heard & np.roll(heard, -semitones, axis=1)).sum())
        for semitones in range(1, 7)
    }
    pairs[6] //= 2  # a tritone is the same from either side
    return sum(pairs[n] for n in DISSONANT) / max(1, sum(pairs.values()))


def distance(some: np.ndarray, others: np.ndarray) -> float:
    """The total variation distance of two distributions: 0 to 1."""
    return float(np.abs(some - others).sum() / 2)


def distance_of_halves(
    rolls: Sequence[np.ndarray], field: str, halvings: int = 20, seed: int = 0
) -> float:
    """How far two halves of a set are from each other: what chance makes of distances.

    Args:
        rolls: The pieces.
        field: The histogram, such as `"pitch_classes"`.
        halvings: How often the pieces are halved at random. Default: 20.
        seed: Of the random numbers. Default: 0.

    Returns:
        The mean total variation distance.
    """
    random, distances = np.random.default_rng(seed), []
    for _ in range(halvings):
        order = random.permutation(len(rolls))
        halves = order[: len(rolls) // 2], order[len(rolls) // 2 :]
        one, other = (
            getattr(shape_of([rolls[i] for i in half], np.inf), field)
            for half in halves
        )
        distances.append(distance(one, other))
    return float(np.mean(distances))


def _notes_at_a_time(rolls: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.asarray(roll).sum(axis=1, dtype=int) for roll in rolls])


def _shares(numbers: np.ndarray, size: int) -> np.ndarray:
    return np.bincount(numbers, minlength=size) / max(1, len(numbers))
