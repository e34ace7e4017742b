"""Piano rolls: from notes, to notes, in batches for training, as a picture.

A roll is `uint8 [T, 88]`: `roll[t, j]` is 1 while the MIDI pitch `21 + j`
sounds in step `t`. A row of zeros is a rest, which is data like any other.

A roll with onsets is `uint8 [T, 176]`: `roll[t, 88 + j]` is 1 where the key sounds in
step `t` and in the step before, and is struck again in between. A note after silence is
plain from the first half, so that off, held and struck are each written in one way.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from .. import checks
from ..files import require
from .grid import round_to_grid
from .next_step import next_step_dataset
from .packed_rolls import (
    KEYS,
    LOWEST_PITCH,
    PACKED,
    PackedRolls,
    check_roll,
    check_shape,
    halves,
    pack,
    with_onsets,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "KEYS",
    "LOWEST_PITCH",
    "PACKED",
    "PackedRolls",
    "check_roll",
    "count_rounded",
    "from_notes",
    "halves",
    "next_step_dataset",
    "pack",
    "plot",
    "to_notes",
    "transpose",
    "with_onsets",
]

CELLS = 2**22
"""How many cells of a roll are written together, to limit the memory."""


def from_notes(
    notes: Sequence,
    ticks_per_step: int | Fraction,
    short_notes: str = "drop",
    onsets: bool = False,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Makes a roll from notes.

    A time of `x` ticks is rounded to the nearest line of the grid of steps, halves
    upward: `q(x) = floor(x / ticks_per_step + 1/2)`. A note is on in the steps
    `q(start) ... q(end) - 1`. Notes that overlap or touch at one pitch merge. Notes
    outside the 88 keys are left out.

    Args:
        notes: Integers `(notes, 3)`: start and end in ticks, MIDI pitch; or
            `(notes, 4)`: also the velocity, 1 to 127, which the roll then holds
            instead of ones; the largest one, where notes overlap.
        ticks_per_step: Ticks in a step, positive.
        short_notes: What becomes of a note that is rounded to nothing:
            `"drop"`, or `"keep"` for one step. Default: `"drop"`.
        onsets: Whether to return the onsets, too. Default: `False`.

    Returns:
        The roll, `uint8 [T, 88]`, where T is the largest `q(end)`; with
        `onsets=True` also the onsets, `uint8 [T, 88]`, ones where notes begin.

    Raises:
        ValueError: `notes` has another shape, negative times, an end before its
            start, or velocities out of their range; or `ticks_per_step` is not
            positive; or the numbers are too large to be exact; or `short_notes`
            is something else.

    Example:

    >>> from keras_gated.datasets import piano_roll
    >>> roll = piano_roll.from_notes([(0, 480, 60), (240, 960, 64)], 240)
    >>> roll.shape
    (4, 88)
    >>> roll[:, [60 - 21, 64 - 21]].T.tolist()
    [[1, 1, 0, 0], [0, 1, 1, 1]]
    """
    checks.one_of("short_notes", short_notes, ("drop", "keep"))
    roll, begins = draw(on_grid(notes, ticks_per_step), short_notes == "keep")
    return (roll, begins) if onsets else roll


def draw(notes: "OnGrid", keep_short: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Makes a roll, and the onsets, from notes on its grid.

    Args:
        notes: The notes.
        keep_short: Whether notes without length get one step. Default: `False`.

    Returns:
        The roll and the onsets, as `from_notes` does.
    """
    first, last, key, velocity = notes
    if keep_short:
        last = np.maximum(last, first + 1)
    steps = last.max(initial=0)
    sounding = first < last
    first, last, key, velocity = (
        column[sounding] for column in (first, last, key, velocity)
    )
    roll = np.zeros((steps, KEYS), np.uint8)
    order = np.argsort(velocity, kind="stable")  # the loudest is written last
    begun = np.cumsum((last - first)[order])
    cuts = np.searchsorted(begun, range(CELLS, int(begun[-1:].sum()), CELLS))
    for some in np.split(order, cuts):
        length = last[some] - first[some]
        which = np.repeat(some, length)
        within = np.arange(len(which)) - np.repeat(np.cumsum(length) - length, length)
        roll[first[which] + within, key[which]] = velocity[which]
    begins = np.zeros_like(roll)
    begins[first, key] = 1
    return roll, begins


def count_rounded(notes: Sequence, ticks_per_step: int | Fraction) -> int:
    """Counts the notes that a grid rounds to nothing.

    Args:
        notes: As in `from_notes`.
        ticks_per_step: As in `from_notes`.

    Returns:
        The number of notes within the 88 keys that begin and end in one step.

    Raises:
        ValueError: As `from_notes` does.

    Example:

    >>> from keras_gated.datasets import piano_roll
    >>> piano_roll.count_rounded([(0, 120, 60), (120, 240, 62), (240, 360, 64)], 240)
    1
    """
    return on_grid(notes, ticks_per_step).rounded


class OnGrid(NamedTuple):
    """Notes on a grid of steps, without those outside the 88 keys."""

    first: np.ndarray
    """Their first steps, `int64 [notes]`."""
    last: np.ndarray
    """The steps after their last."""
    key: np.ndarray
    """Their keys, 0 to 87."""
    velocity: np.ndarray
    """Their velocities; ones if there are none."""

    @property
    def rounded(self) -> int:
        """How many are rounded to nothing."""
        return int((self.first == self.last).sum())


def on_grid(notes: Sequence, ticks_per_step: int | Fraction) -> OnGrid:
    """Places notes on a grid.

    Args:
        notes: As in `from_notes`.
        ticks_per_step: As in `from_notes`.

    Returns:
        The notes within the 88 keys.

    Raises:
        ValueError: As `from_notes` does.
    """
    notes = np.asarray(notes)
    if not notes.size:
        notes = np.empty((0, 3), np.int64)
    if notes.ndim != 2 or notes.shape[1] not in (3, 4) or notes.dtype.kind not in "iu":
        raise ValueError(
            "Argument `notes` must hold integers (start, end, pitch) or (start, end, "
            f"pitch, velocity). Received: shape {notes.shape} and dtype {notes.dtype}"
        )
    notes = notes.astype(np.int64)
    step = Fraction(ticks_per_step)
    if step <= 0:
        raise checks.error("ticks_per_step", ticks_per_step, "positive")
    start, end, pitch = notes[:, :3].T
    velocity = notes[:, 3] if notes.shape[1] == 4 else np.ones_like(start)
    if (start < 0).any() or (end < start).any():
        raise ValueError(
            "Argument `notes` must hold rows (start, end, pitch) with 0 <= start <= "
            f"end. Received: {notes[(start < 0) | (end < start)][0, :3].tolist()}"
        )
    if ((velocity < 1) | (velocity > 127)).any():
        raise ValueError("Velocities of `notes` must be from 1 to 127.")
    twice, ticks = 2 * step.denominator, step.numerator
    if twice * int(end.max(initial=0)) + 2 * ticks >= 2**63:
        raise ValueError(
            "Times of `notes` and `ticks_per_step` must fit 64 bits together. "
            f"Received: ticks_per_step={step} and notes up to {end.max(initial=0)}"
        )
    key = pitch - LOWEST_PITCH
    piano = (key >= 0) & (key < KEYS)
    first, last = (round_to_grid(x[piano], step) for x in (start, end))
    return OnGrid(first, last, key[piano], velocity[piano])


def to_notes(roll: np.ndarray, onsets: np.ndarray | None = None) -> np.ndarray:
    """Finds the notes of a roll; consecutive steps of a pitch are one note.

    Args:
        roll: `[T, 88]`, or `[T, 176]` with onsets, zeros and ones.
        onsets: `[T, 88]`, ones where notes begin: consecutive steps are parted
            there. Default: `None`, where `roll` has onsets.

    Returns:
        Integers `(notes, 3)`: the first step, the step after the last, the MIDI
        pitch; ordered by start, then pitch.

    Raises:
        ValueError: `roll` is not a roll, or `onsets` is not one of the same shape.

    Example:

    >>> from keras_gated.datasets import piano_roll
    >>> roll = piano_roll.from_notes([(0, 2, 60), (1, 4, 64)], 1)
    >>> piano_roll.to_notes(roll).tolist()
    [[0, 2, 60], [1, 4, 64]]
    """
    roll, again = halves(check_roll(roll, "roll"))
    before, after = np.pad(roll, ((1, 0), (0, 0))), np.pad(roll, ((0, 1), (0, 0)))
    begins, ends = after > before, before > after  # at the T + 1 lines of the grid
    if onsets is not None:
        again = check_roll(onsets, "onsets")
        if again.shape != roll.shape:
            raise ValueError(
                "Argument `onsets` must have the shape of `roll`. Received: "
                f"{list(again.shape)} and {list(roll.shape)}"
            )
    if again is not None:
        parted = np.pad(again, ((0, 1), (0, 0))) & before & after
        begins, ends = begins | (parted > 0), ends | (parted > 0)
    key, start = np.nonzero(begins.T)
    _, end = np.nonzero(ends.T)
    notes = np.stack([start, end, key + LOWEST_PITCH], axis=1)
    return notes[np.lexsort((key, start))]


def transpose(roll: np.ndarray, semitones: int) -> np.ndarray:
    """Transposes a roll; notes that leave the 88 keys are lost.

    Args:
        roll: `[T, 88]`, or `[T, 176]` with onsets.
        semitones: How far up; negative is down.

    Returns:
        A new array of the shape and dtype of `roll`.

    Example:

    >>> from keras_gated.datasets import piano_roll
    >>> roll = piano_roll.from_notes([(0, 1, 60)], 1)
    >>> piano_roll.to_notes(piano_roll.transpose(roll, -12)).tolist()
    [[0, 1, 48]]
    """
    roll = np.asarray(roll)
    check_shape(roll.shape)
    moved = np.zeros_like(roll)
    low, high = max(semitones, 0), KEYS + min(semitones, 0)
    for first in range(0, roll.shape[1], KEYS) if low < high else ():
        keys = roll[:, first + low - semitones : first + high - semitones]
        moved[:, first + low : first + high] = keys
    return moved


def plot(
    roll: np.ndarray,
    axes: "Axes | None" = None,
    title: str | None = None,
    **imshow_arguments: Any,
) -> "Axes":
    """Draws a roll: time to the right, pitch upward.

    Args:
        roll: `[T, 88]`, values from 0 (white) to 1 (black), such as probabilities; or
            `[T, 176]` with onsets: thin white lines part notes where those are 0.5 or
            more.
        axes: Where to draw. Default: `None`, a new figure that fits the roll; save it
            with `axes.figure.savefig(path)`.
        title: The title. Default: `None`, no title.
        **imshow_arguments: Passed on to `matplotlib.axes.Axes.imshow`.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: `roll` has another shape.

    Example:

    >>> import numpy as np
    >>> from keras_gated.datasets import piano_roll
    >>> axes = piano_roll.plot(np.eye(88), title="a chromatic scale")
    >>> axes.get_ylabel()
    'pitch'
    """
    figure = require("matplotlib.figure", extra="examples")
    roll = np.asarray(roll)
    check_shape(roll.shape)
    roll, again = halves(roll)
    if axes is None:
        width = min(max(4.0, len(roll) / 16), 24.0)
        axes = figure.Figure((width, 4), layout="constrained").subplots()
    axes.imshow(
        roll.T,
        **{
            "origin": "lower",
            "aspect": "auto",
            "interpolation": "nearest",
            "cmap": "Greys",
            "vmin": 0,
            "vmax": 1,
            "extent": (-0.5, len(roll) - 0.5, LOWEST_PITCH - 0.5, 108.5),
            **imshow_arguments,
        },
    )
    if again is not None:
        step, key = np.nonzero(again >= 0.5)
        lowest = key + LOWEST_PITCH - 0.5
        axes.vlines(step - 0.5, lowest, lowest + 1, colors="white", linewidth=1)
    octaves = range(1, 9)
    axes.set_yticks(
        [12 * (octave + 1) for octave in octaves], [f"C{o}" for o in octaves]
    )
    axes.grid(axis="y", linewidth=0.3)
    axes.set(xlabel="step", ylabel="pitch", title=title)
    return axes
