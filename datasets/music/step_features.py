"""What a score says about each step: where it lies in its bar, and the key.

They follow from the time and key signatures alone, so that those of steps which do not
exist yet, as of a continuation, are made in the same way.
"""

import zlib
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from .. import checks
from .grid import rate

OCTAVE = 12
SIZES = {"meter": 6, "key": OCTAVE + 1}
"""The kinds of features, and their numbers of columns."""


class Beats(NamedTuple):
    """Where steps lie in the bars of a score."""

    bar: np.ndarray
    """The number of the bar, from 0, `int64 [T]`."""
    position: np.ndarray
    """Quarter notes since the beginning of the bar, `float64 [T]`."""
    length: np.ndarray
    """Quarter notes in the bar, `float64 [T]`."""


def beats(
    meters: np.ndarray,
    ticks_per_quarter: int,
    steps_per_quarter: int | Fraction,
    steps: int,
) -> Beats:
    """The positions of steps in their bars; a time signature begins a new bar.

    Args:
        meters: `int64 [n, 3]`: tick, numerator and denominator, from tick 0 on.
        ticks_per_quarter: The resolution.
        steps_per_quarter: Steps in a quarter note.
        steps: The number of steps.
    """
    step = Fraction(ticks_per_quarter) / steps_per_quarter
    # In parts of a tick, so that all are whole.
    tick, quarter = step.denominator, step.denominator * ticks_per_quarter
    times = np.arange(steps, dtype=np.int64) * step.numerator
    change, over, under = (meters * [tick, 1, 1]).T
    length = quarter * 4 * over / under
    since = np.diff(change) / length[:-1]
    first_bar = np.concatenate([[0], np.cumsum(np.ceil(since))])
    last = np.searchsorted(change, times, side="right") - 1
    elapsed, length = times - change[last], length[last]
    bar = np.floor(elapsed / length)
    return Beats(
        (first_bar[last] + bar).astype(np.int64),
        (elapsed - bar * length) / quarter,
        length / quarter,
    )


def check_kinds(name: str, kinds: Sequence[str]) -> tuple[str, ...]:
    """Checks kinds of features.

    Args:
        name: The name of the argument.
        kinds: Some of `"meter"` and `"key"`, each once at most.

    Returns:
        The kinds.

    Raises:
        ValueError: They are something else.
    """
    listed = not isinstance(kinds, str) and isinstance(kinds, Sequence)
    if not listed or len({*kinds} & {*SIZES}) < len(kinds):
        raise checks.error(name, kinds, "a list of 'meter' and 'key', each once")
    return tuple(kinds)


def feature_columns(kinds: Sequence[str]) -> dict[str, slice]:
    """The columns of each kind of features.

    Args:
        kinds: Some of `"meter"` and `"key"`, in their order.

    Returns:
        A slice for each; the first twelve columns of the key are the tonic.

    Raises:
        ValueError: They are something else.

    Example:

    >>> from keras_gated.datasets import midi
    >>> midi.feature_columns(["meter", "key"])["key"].start
    6
    """
    columns, begin = {}, 0
    for kind in check_kinds("kinds", kinds):
        columns[kind] = slice(begin, begin + SIZES[kind])
        begin += SIZES[kind]
    return columns


def step_features(
    kinds: Sequence[str],
    steps: int,
    steps_per_quarter: int | Fraction = 2,
    meters: Sequence[tuple[int, int, int]] = ((0, 4, 4),),
    keys: Sequence[tuple[int, int]] = (),
    ticks_per_quarter: int = 1,
    semitones: int = 0,
) -> np.ndarray:
    r"""What time and key signatures say about each step.

    The columns of `"meter"` are: the cosine and the sine of 2π times the part of the
    bar that has passed; the same of the quarter note; 1 in the first step of a bar; and
    the quarter notes in the bar, divided by 4. Those of `"key"` are: twelve, of which
    that of the tonic is 1, C to B; and 1 in minor. They are zero before the first key.

    Args:
        kinds: Some of `"meter"` and `"key"`, in the order of their columns.
        steps: The number of steps, T.
        steps_per_quarter: Steps in a quarter note. Default: 2.
        meters: Rows of a tick, and the numerator and the denominator from there on;
            the first is at 0. Default: 4/4 time.
        keys: Rows of a tick, and the key from there on: the tonic's pitch class, plus
            12 in minor. Default: none.
        ticks_per_quarter: The resolution. Default: 1, ticks are quarter notes.
        semitones: How far up the music is transposed. Default: 0.

    Returns:
        `float32 [T, F]`: F is 6 for the meter, plus 13 for the key.

    Raises:
        ValueError: An argument is out of its range.

    Example:

    >>> from keras_gated.datasets import midi
    >>> features = midi.step_features(
    ...     ["meter", "key"], steps=4, steps_per_quarter=1, meters=[(0, 3, 4)],
    ...     keys=[(0, 2)]
    ... )
    >>> features.shape
    (4, 19)
    >>> features[:, 4].tolist(), features[0, 6:18].argmax()  # bars; D is the tonic
    ([1.0, 0.0, 0.0, 1.0], np.int64(2))
    """
    kinds, steps = check_kinds("kinds", kinds), checks.whole("steps", steps, 0)
    grid = rate(steps_per_quarter)
    parts = [np.empty((steps, 0))]
    for kind in kinds:
        if kind == "meter":
            table = _table("meters", meters, 3)
            parts.append(_meter(beats(table, ticks_per_quarter, grid, steps)))
        else:
            table = _table("keys", keys, 2)
            step = Fraction(ticks_per_quarter) / grid
            parts.append(_key(table, step, steps, semitones))
    return np.concatenate(parts, axis=1, dtype=np.float32)


def _table(name: str, rows: Sequence, columns: int) -> np.ndarray:
    """Time or key signatures as an array, if they are some."""
    table = np.asarray(rows)
    table = table if table.size else np.empty((0, columns), np.int64)
    whole = table.ndim == 2 and table.shape[1] == columns and table.dtype.kind in "iu"
    if whole:
        ticks, values = table[:, 0], table[:, 1:]
        in_order = (ticks >= 0).all() and (np.diff(ticks) > 0).all()
        if columns == 3:
            known = ticks[:1].tolist() == [0] and (values >= 1).all()
        else:
            known = ((values >= 0) & (values < 2 * OCTAVE)).all()
        whole = in_order and known
    if whole:
        return table.astype(np.int64)
    raise checks.error(
        name,
        rows,
        "rows of a tick, numerator and denominator, the first at 0"
        if columns == 3
        else "rows of a tick and a key from 0 to 23",
    )


def _meter(where: Beats) -> np.ndarray:
    phases = 2 * np.pi * np.stack([where.position / where.length, where.position % 1])
    of_bar, of_quarter = np.stack([np.cos(phases), np.sin(phases)], axis=-1)
    first = np.diff(where.bar, prepend=-1) > 0
    return np.column_stack([of_bar, of_quarter, first, where.length / 4])


def _key(table: np.ndarray, step: Fraction, steps: int, semitones: int) -> np.ndarray:
    times = np.arange(steps, dtype=np.int64) * step.numerator
    last = np.searchsorted(table[:, 0] * step.denominator, times, side="right") - 1
    columns = np.zeros((steps, SIZES["key"]))
    (known,) = np.nonzero(last >= 0)
    key = table[last[known], 1]
    columns[known, (key + semitones) % OCTAVE] = 1
    columns[known, OCTAVE] = key >= OCTAVE
    return columns


class PackedFeatures(Sequence):
    """Features of the steps of pieces, each unpacked when it is accessed.

    Args:
        packed: Those of each piece, as `pack_features` returns them.
        kinds: Their kinds.
    """

    def __init__(self, packed: Iterable[bytes], kinds: Sequence[str]) -> None:
        self.packed = list(packed)
        self.kinds = tuple(kinds)

    def take(self, members: Iterable[int]) -> "PackedFeatures":
        """Selects those of some of the pieces.

        Args:
            members: The numbers of the pieces.
        """
        return PackedFeatures((self.packed[i] for i in members), self.kinds)

    def __len__(self) -> int:
        return len(self.packed)

    def __getitem__(self, index: int) -> np.ndarray:
        data = np.frombuffer(zlib.decompress(self.packed[index]), "<f4")
        return data.reshape(-1, sum(SIZES[kind] for kind in self.kinds))


def pack_features(features: Any) -> bytes:
    """Compresses features: bars are alike, so that few bytes are left.

    Args:
        features: `float32 [T, F]`.

    Returns:
        The bytes; `PackedFeatures` unpacks them.
    """
    return zlib.compress(np.asarray(features, "<f4").tobytes(), 1)
