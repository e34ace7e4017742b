"""What a piece of music holds, in ticks: more than a piano roll shows."""

import unicodedata
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from .. import checks
from .grid import rate, round_to_grid
from .step_features import Beats, beats, step_features

DEFAULT_TEMPO = 500_000
"""Microseconds in a quarter note, unless a file says otherwise."""
DEFAULT_METER = (4, 4)
"""The time signature, unless a file says otherwise."""
MICROSECONDS = 1_000_000
DRUMS = 9
"""The channel of the drums, from 0."""
PEDAL = 64
"""The number of the MIDI control of the sustain pedal."""
PEDAL_DOWN = 64
"""From this value on, of 0 to 127, the sustain pedal is down."""


class Part(NamedTuple):
    """One instrument in one track; its notes name it by its number."""

    program: int
    """General MIDI instrument, 0 to 127."""
    is_drum: bool
    """Whether it is on the drum channel."""
    name: str
    """The name of the track."""
    track: int = 0
    """The number of the track, from 0."""


class Changes(NamedTuple):
    """What changes in a file, in the order of its tracks, each with its tick."""

    tempi: list[tuple[int, int]]
    meters: list[tuple[int, int, int]]
    keys: list[tuple[int, int]]


class Voice(NamedTuple):
    """A part with its notes and moves of the pedal, as in `Score`."""

    part: Part
    notes: np.ndarray
    """`int64 [notes, 4]`, without the number of the part."""
    pedal: np.ndarray
    """`int64 [n, 2]`, without the number of the part."""


class Score(NamedTuple):
    """A piece of music, in ticks.

    A note ends when its key is released or struck again, in its track and channel.
    Of two events of a kind at one tick the later one counts, of key signatures the
    first (tracks of transposing instruments have others).
    """

    ticks_per_quarter: int
    """The resolution."""
    notes: np.ndarray
    """`int64 [notes, 5]`: start, end (ticks), pitch, velocity, number of the part; in
    the order of part, pitch and start."""
    parts: list[Part]
    """The parts that have notes, in the order of the tracks."""
    tempi: np.ndarray
    """`int64 [n, 2]`: tick, and microseconds in a quarter note from there on."""
    time_signatures: np.ndarray
    """`int64 [n, 3]`: tick, and numerator and denominator from there on."""
    key_signatures: np.ndarray
    """`int64 [n, 2]`: tick, and the key from there on: the tonic's pitch class, plus 12
    in minor. Empty if there is none."""
    pedals: np.ndarray
    """`int64 [n, 3]`: number of the part, tick, value of the sustain pedal, 0 to
    127."""
    unreleased: np.ndarray
    """Notes that are never released, as `notes`; they end with their track, or where
    their key is struck again."""
    reader: str
    """The parser."""
    problems: tuple[str, ...] = ()
    """What was wrong with the file and repaired."""
    states_meter: bool = True
    """Whether the file has a time signature; without any it is 4/4."""

    def seconds(self, ticks: np.ndarray) -> np.ndarray:
        """The times of ticks, by the tempi.

        Args:
            ticks: Ticks, of any shape.

        Returns:
            Seconds, `float64`, of the same shape.
        """
        return self.moments(ticks) / (MICROSECONDS * self.ticks_per_quarter)

    def moments(self, ticks: np.ndarray) -> np.ndarray:
        """The times of ticks, exact: microseconds times ticks per quarter note.

        Args:
            ticks: Ticks, of any shape.
        """
        change, tempo = self.tempi.T
        elapsed = np.concatenate([[0], np.cumsum(np.diff(change) * tempo[:-1])])
        last = np.searchsorted(change, ticks, side="right") - 1
        return elapsed[last] + (ticks - change[last]) * tempo[last]

    def beats(
        self, steps_per_quarter: int | Fraction = 2, steps: int | None = None
    ) -> Beats:
        """The positions of steps in their bars.

        A time signature begins a new bar, also in the middle of one.

        Args:
            steps_per_quarter: Steps in a quarter note, positive. Default: 2.
            steps: The number of steps, T. Default: those of the roll of the score.

        Returns:
            The bar, the position in it and its length, for each step.

        Raises:
            ValueError: An argument is out of its range.

        Example:

        >>> from keras_gated.datasets import midi, piano_roll
        >>> midi.write(piano_roll.from_notes([(0, 5, 60)], 1), "long.mid", 1)
        >>> midi.read_score("long.mid").beats(1).position
        array([0., 1., 2., 3., 0.])
        """
        steps_per_quarter = rate(steps_per_quarter)
        steps = checks.whole("steps", steps, 0, optional=True)
        if steps is None:
            step = Fraction(self.ticks_per_quarter) / steps_per_quarter
            ends = round_to_grid(self.notes[:, 1], step)
            steps = int(ends.max(initial=0))
        meters = self.time_signatures
        return beats(meters, self.ticks_per_quarter, steps_per_quarter, steps)

    def features(
        self,
        kinds: Sequence[str],
        steps_per_quarter: int | Fraction = 2,
        steps: int | None = None,
        semitones: int = 0,
        before: int | None = None,
    ) -> np.ndarray:
        """What the time and key signatures say about each step.

        Steps after the end of the music go on in its last meter and key.

        Args:
            kinds: Some of `"meter"` and `"key"`, as in `step_features`.
            steps_per_quarter: Steps in a quarter note, positive. Default: 2.
            steps: The number of steps, T. Default: those of the roll of the score.
            semitones: How far up the music is transposed. Default: 0.
            before: Only signatures before this tick count. Default: `None`, all do.

        Returns:
            `float32 [T, F]`, as `step_features` gives them.

        Raises:
            ValueError: An argument is out of its range.

        Example:

        >>> from keras_gated.datasets import midi, piano_roll
        >>> midi.write(piano_roll.from_notes([(0, 5, 60)], 1), "long.mid", 1)
        >>> score = midi.read_score("long.mid")
        >>> score.features(["meter"], 1, steps=9)[:, 4]  # also beyond the end
        array([1., 0., 0., 0., 1., 0., 0., 0., 1.], dtype=float32)
        """
        if steps is None:
            steps = len(self.beats(steps_per_quarter).bar)
        end = np.inf if before is None else max(before, 1)
        meters, keys = (
            table[table[:, 0] < end]
            for table in (self.time_signatures, self.key_signatures)
        )
        resolution = self.ticks_per_quarter
        where = steps, steps_per_quarter, meters, keys, resolution, semitones
        return step_features(kinds, *where)


def in_order(voices: list[Voice]) -> list[Voice]:
    """Orders voices in a way that does not depend on the parser.

    Args:
        voices: The voices, in the order of their tracks.

    Returns:
        Those with notes.
    """
    voices = [voice for voice in voices if len(voice.notes)]
    if len({voice.part.track for voice in voices}) < len(voices):
        # Within a track each parser has an order of its own.
        voices.sort(
            key=lambda voice: (
                voice.part.track,
                voice.notes[:, 0].min(),
                *voice.part[:2],
                sorted(voice.notes.tolist()),
            )
        )
    return voices


def in_key_order(voices: list[Voice]) -> np.ndarray:
    """The notes of all voices, in the order of part, pitch and start.

    Args:
        voices: The voices.

    Returns:
        `int64 [notes, 5]`, as in `Score`.
    """
    notes = _joined([voice.notes for voice in voices], 4)
    start, end, pitch, _, part = notes.T
    return notes[np.lexsort((end, start, pitch, part))]


def _joined(tables: list[np.ndarray], columns: int) -> np.ndarray:
    """Tables below each other, with their number in a column of its own, the last."""
    rows = np.concatenate([np.empty((0, columns), np.int64), *tables])
    numbers = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
    return np.column_stack([rows, numbers])


def of_one_key(notes: np.ndarray) -> np.ndarray:
    """Whether each note has the part and the pitch of the next one.

    Args:
        notes: `int64 [notes, 5]`, in the order of their keys.
    """
    same = notes[1:, 2] == notes[:-1, 2]
    return same & (notes[1:, 4] == notes[:-1, 4])


def compose(
    reader: str,
    ticks_per_quarter: int,
    voices: list[Voice],
    notes: np.ndarray,
    changed: Changes,
    ends: list[int],
) -> Score:
    """Makes a score: ends notes where their key is struck again.

    Args:
        reader: The name of the parser.
        ticks_per_quarter: The resolution.
        voices: The voices, in their order.
        notes: Their notes, in the order of their keys; those that end a tick after
            their track were never released.
        changed: The changes of tempo, meter and key.
        ends: The last tick of each track.
    """
    parts = [voice.part for voice in voices]
    late = np.array([ends[part.track] + 1 for part in parts], np.int64)
    released = notes[:, 1] < late[notes[:, 4]]
    notes[~released, 1] -= 1
    struck = np.minimum(notes[:-1, 1], notes[1:, 0])
    notes[:-1, 1] = np.where(of_one_key(notes), struck, notes[:-1, 1])
    some = notes[:, 0] < notes[:, 1]
    pedals = _joined([voice.pedal for voice in voices], 2)
    return Score(
        ticks_per_quarter,
        notes[some & released],
        parts,
        _changes(changed.tempi, DEFAULT_TEMPO),
        _changes(changed.meters, DEFAULT_METER),
        _keys(changed.keys),
        pedals[:, [2, 0, 1]],
        notes[~released],
        reader,
        states_meter=bool(changed.meters),
    )


def _keys(events: list[tuple[int, int]]) -> np.ndarray:
    """Key signatures: the first, where several tracks have one at one tick."""
    first: dict[int, int] = {}
    for tick, key in events:
        first.setdefault(tick, key)
    return np.array(sorted(first.items()), np.int64).reshape(-1, 2)


def plain_name(name: str) -> str:
    """The name of a track as it is compared.

    Some are padded, and letters can be written in several ways.

    Args:
        name: The name, of a file or a person.
    """
    return unicodedata.normalize("NFC", name).strip("\0 \t\r\n").casefold()


def _changes(events: list[tuple], default: int | tuple) -> np.ndarray:
    """Orders changes of tempo or meter, the later one at a tick counting.

    Args:
        events: Tuples of a tick and what begins there.
        default: What holds from tick 0 on if nothing begins there.

    Returns:
        `int64 [n, columns]`, from tick 0 on.
    """
    first = (0, *(default if isinstance(default, tuple) else (default,)))
    at = {event[0]: event for event in sorted([first, *events], key=lambda e: e[0])}
    return np.array(list(at.values()), np.int64)
