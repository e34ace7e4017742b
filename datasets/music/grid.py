"""Grids of steps: their checks, their rounding, and the choice of one for some music.

A grid is a number of steps in a quarter note, whole or a fraction.
"""

from collections.abc import Sequence
from fractions import Fraction
from numbers import Rational, Real
from typing import NamedTuple

import numpy as np

from .. import checks

AUTO = "auto"
FINEST = 32
RATIOS = tuple(map(Fraction, ("1", "2/3", "3/4", "4/5", "5/6", "6/5", "5/4")))
WHOLE = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32)
GRIDS = tuple(
    sorted({r * steps for r in RATIOS for steps in WHOLE if 1 <= r * steps <= FINEST})
)
"""The grids of which one is chosen, from coarse to fine: 1 to 32 steps in a quarter
note (down to 128th notes, and triplets down to those of thirty-second notes), and the
same for music of which the quarter note is another one than that of its file."""
ENOUGH = 0.99
"""The share of the notes that a grid has to keep."""
PLACE = Fraction(1, 192)
"""By how much of a quarter note a kept note may move: what other grids tell apart, such
as a triplet and a sixteenth, lies farther apart."""
SHORTER = 0.1, 0.2
"""By how much a kept note may become longer, as played notes end a little early: parts
of a quarter note, and of its new length."""
CHUNK = 4096
"""How many notes are looked at together, to limit the memory."""


def rate(
    value: int | Rational | float | str, name: str = "steps_per_quarter"
) -> int | Fraction:
    """Checks a grid.

    Args:
        value: A positive number, or a fraction as text, such as `"4/3"`.
        name: The name of the argument. Default: `"steps_per_quarter"`.

    Returns:
        An integer, or a fraction that is none.

    Raises:
        ValueError: It is something else.
    """
    grid = None
    if isinstance(value, Rational | Real | str) and not isinstance(value, bool):
        try:  # 0.1 stands for a tenth, which a float is not
            exact = isinstance(value, Rational | str)
            grid = Fraction(value if exact else repr(float(value)))
        except (ValueError, ZeroDivisionError):
            pass
    if grid is None or grid <= 0:
        raise checks.error(name, value, "a positive number or a fraction like '4/3'")
    return int(grid) if grid.denominator == 1 else grid


def round_to_grid(times: np.ndarray, step: Fraction) -> np.ndarray:
    """The nearest lines of a grid, halves upward: `floor(x / step + 1/2)`.

    Args:
        times: Integers, not negative.
        step: The length of a step, positive.

    Returns:
        Integers of the same shape.
    """
    twice, ticks = 2 * step.denominator, step.numerator
    return (twice * times + ticks) // (2 * ticks)


class Fit(NamedTuple):
    """How many notes keep their places and lengths."""

    notes: int
    """The number of notes."""
    kept: tuple[int, ...]
    """How many of them each of `GRIDS` keeps."""


def fit(notes: np.ndarray, ticks_per_quarter: int) -> Fit:
    """Counts the notes that each grid keeps.

    A note is kept if the grid moves its start by at most `PLACE` (or half a tick), and
    its length is, to within twice that, the length of its steps, or shorter than this
    by at most `SHORTER`.

    Args:
        notes: Integers `[notes, 2 or more]`: start and end, in ticks.
        ticks_per_quarter: The resolution.
    """
    quarter = ticks_per_quarter
    over, under = (
        np.array([[getattr(grid, part)] for grid in GRIDS], np.int64)
        for part in ("numerator", "denominator")
    )
    step = under * quarter  # all in ticks times `over`, so that it is exact
    near = float(max(PLACE * quarter, Fraction(1, 2))) * over
    kept = np.zeros(len(GRIDS), np.int64)
    for begin in range(0, len(notes), CHUNK):
        start, end = over * notes[begin : begin + CHUNK, :2].T[:, None].astype(np.int64)
        first, last = ((2 * times + step) // (2 * step) for times in (start, end))
        length = (last - first) * step
        longer = length - (end - start)
        by_quarter, by_length = SHORTER
        early = np.minimum(float(by_quarter * quarter) * over, by_length * length)
        kept += (
            (last > first)
            & (np.abs(first * step - start) <= near)
            & (longer >= -2 * near)  # both ends are rounded
            & (longer <= np.maximum(2 * near, early))
        ).sum(axis=1)
    return Fit(len(notes), tuple(kept.tolist()))


def total(fits: Sequence[Fit]) -> Fit:
    """The fit of all notes of several pieces.

    Args:
        fits: Those of the pieces.
    """
    columns = zip(*(fit.kept for fit in fits), strict=True)
    return Fit(sum(fit.notes for fit in fits), tuple(map(sum, columns)))


class Choice(NamedTuple):
    """A grid that was chosen."""

    steps_per_quarter: int | Fraction
    """The grid."""
    notes: int
    """The number of notes."""
    kept: int
    """How many of them keep their places and lengths."""

    def __str__(self) -> str:
        lost = self.notes - self.kept
        share = self.kept / max(1, self.notes)
        return (
            f"steps_per_quarter={self.steps_per_quarter} keeps the places and lengths "
            f"of {share:.1%} of {self.notes:,} notes"
            + (f"; {lost:,} change" if lost else "")
            + (" (step_seconds= follows music played freely)" * (share < ENOUGH))
        )

    @property
    def enough(self) -> bool:
        """Whether the share is the one that was wanted."""
        return self.kept >= ENOUGH * self.notes


def choose(found: Fit) -> Choice:
    """Chooses the coarsest grid that keeps 99 % of the notes.

    Where none does, as in music that was played freely, it is the coarsest of whole
    numbers that keeps 99 % of what the best of them keeps.

    Args:
        found: How many notes each grid keeps.
    """
    kept = dict(zip(GRIDS, found.kept, strict=True))
    needed = ENOUGH * found.notes
    if max(found.kept) < needed:
        kept = {grid: kept[grid] for grid in WHOLE}
        needed = ENOUGH * max(kept.values())
    grid = next(grid for grid in kept if kept[grid] >= needed)
    return Choice(rate(grid), found.notes, kept[grid])
