"""Piano rolls: from notes, to notes, in batches for training, as a picture.

A roll is `uint8 [T, 88]`: `roll[t, j]` is 1 while the MIDI pitch `21 + j`
sounds in step `t`. A row of zeros is a rest, which is data like any other.
"""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_gated.datasets.batching import batches, check_positive
from keras_gated.datasets.files import require

if TYPE_CHECKING:
    import tensorflow as tf
    from matplotlib.axes import Axes

LOWEST_PITCH = 21
"""The MIDI pitch of a piano's lowest key, A0."""
KEYS = 88
"""The number of a piano's keys."""


def from_notes(
    notes: Sequence,
    ticks_per_step: int | Fraction,
    short_notes: str = "drop",
    onsets: bool = False,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """A roll from notes on a grid of ticks.

    A moment of `x` ticks falls to the nearest line of the grid of steps, halves
    upward: `q(x) = floor(x / ticks_per_step + 1/2)`. A note is on in the steps
    `q(start) ... q(end) - 1`. Notes that overlap or touch at one pitch merge.
    Notes beyond the 88 keys are left out.

    Args:
        notes: Integers `(notes, 3)`: start and end in ticks, MIDI pitch; or
            `(notes, 4)`: also the velocity, 1 to 127, which the roll then holds
            in place of ones, that of the loudest where notes overlap.
        ticks_per_step: Ticks in a step, positive.
        short_notes: What becomes of a note that is rounded to nothing:
            `"drop"`, or `"keep"` for one step. Default: `"drop"`.
        onsets: Whether to give the first steps of the notes, too. Default:
            `False`.

    Returns:
        The roll, `uint8 [T, 88]`, where T is the largest `q(end)`; with `onsets`
        also `uint8 [T, 88]`, ones where notes begin.

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
    if short_notes not in ("drop", "keep"):
        raise ValueError(
            "Argument `short_notes` must be 'drop' or 'keep'. "
            f"Received: short_notes={short_notes!r}"
        )
    first, last, key, velocity = _on_grid(notes, ticks_per_step)
    if short_notes == "keep":
        last = np.maximum(last, first + 1)
    steps = last.max(initial=0)
    sounding = first < last
    first, last, key, velocity = (
        column[sounding] for column in (first, last, key, velocity)
    )
    roll = np.zeros((steps, KEYS), np.uint8)
    order = np.argsort(velocity, kind="stable")  # the loudest last, over the others
    columns = (column[order].tolist() for column in (first, last, key, velocity))
    for begin, end, j, loudness in zip(*columns, strict=True):
        roll[begin:end, j] = loudness
    if not onsets:
        return roll
    begins = np.zeros_like(roll)
    begins[first, key] = 1
    return roll, begins


def _on_grid(
    notes: Sequence, ticks_per_step: int | Fraction
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """First step, step after the last, key and velocity of notes of the 88 keys."""
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
        raise ValueError(
            f"Argument `ticks_per_step` must be positive. Received: {ticks_per_step!r}"
        )
    if notes.shape[1] == 3:
        notes = np.insert(notes, 3, 1, axis=1)
    start, end, pitch, velocity = notes.T
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
    # floor(x / step + 1/2) in whole numbers
    first, last = ((twice * x[piano] + ticks) // (2 * ticks) for x in (start, end))
    return first, last, key[piano], velocity[piano]


def to_notes(roll: np.ndarray, onsets: np.ndarray | None = None) -> np.ndarray:
    """The notes of a roll; consecutive steps of a pitch are one note.

    Args:
        roll: `[T, 88]`, zeros and ones.
        onsets: `[T, 88]`, ones where notes begin: there, consecutive steps are
            parted. Default: nowhere.

    Returns:
        Integers `(notes, 3)`: first step, the step after the last, MIDI pitch;
        ordered by start, then pitch.

    Raises:
        ValueError: `roll` is no roll, or `onsets` is none of its shape.

    Example:

    >>> from keras_gated.datasets import piano_roll
    >>> roll = piano_roll.from_notes([(0, 2, 60), (1, 4, 64)], 1)
    >>> piano_roll.to_notes(roll).tolist()
    [[0, 2, 60], [1, 4, 64]]
    """
    roll = check_roll(roll, "roll")
    before, after = np.pad(roll, ((1, 0), (0, 0))), np.pad(roll, ((0, 1), (0, 0)))
    begins, ends = after > before, before > after  # at the T + 1 lines of the grid
    if onsets is not None:
        onsets = check_roll(onsets, "onsets")
        if onsets.shape != roll.shape:
            raise ValueError(
                "Argument `onsets` must have the shape of `roll`. Received: "
                f"{list(onsets.shape)} and {list(roll.shape)}"
            )
        parted = np.pad(onsets, ((0, 1), (0, 0))) & before & after
        begins, ends = begins | (parted > 0), ends | (parted > 0)
    key, start = np.nonzero(begins.T)
    _, end = np.nonzero(ends.T)
    notes = np.stack([start, end, key + LOWEST_PITCH], axis=1)
    return notes[np.lexsort((key, start))]


def transpose(roll: np.ndarray, semitones: int) -> np.ndarray:
    """A roll moved up or down; what leaves the 88 keys is lost.

    Args:
        roll: `[T, 88]`.
        semitones: How far up; negative is down.

    Returns:
        A new array of the shape and dtype of `roll`.

    Example:

    >>> from keras_gated.datasets import piano_roll
    >>> roll = piano_roll.from_notes([(0, 1, 60)], 1)
    >>> piano_roll.to_notes(piano_roll.transpose(roll, -12)).tolist()
    [[0, 1, 48]]
    """
    moved = np.zeros_like(roll)
    low, high = max(semitones, 0), KEYS + min(semitones, 0)
    if low < high:
        moved[:, low:high] = roll[:, low - semitones : high - semitones]
    return moved


def check_roll(roll: Any, name: str) -> np.ndarray:
    """The roll as `uint8`, if it is one.

    Args:
        roll: What should be an array `[T, 88]` of zeros and ones.
        name: What the error calls it.

    Returns:
        `uint8 [T, 88]`.

    Raises:
        ValueError: It is not; the message says what it is.
    """
    array = np.asarray(roll)
    if array.ndim != 2 or array.shape[1] != KEYS:
        raise ValueError(
            f"A piano roll has the shape [T, {KEYS}]. Received: {name} of shape "
            f"{list(array.shape)}"
        )
    if array.dtype != bool and not np.isin(array, (0, 1)).all():
        strange = array[~np.isin(array, (0, 1))].flat[0]
        raise ValueError(
            "A piano roll holds zeros and ones alone (binarise velocities first). "
            f"Received: {name} with the value {strange!r}"
        )
    return array.astype(np.uint8)


PACKED = KEYS // 8
"""Bytes of a packed step."""


def pack(roll: np.ndarray) -> bytes:
    """A roll in eleven bytes a step, a bit a key.

    Args:
        roll: `[T, 88]`, zeros and ones.

    Returns:
        The bytes; `PackedRolls` unpacks them.
    """
    return np.packbits(np.asarray(roll, bool), axis=1).tobytes()


class PackedRolls(Sequence):
    """Rolls that take an eighth of their memory, unpacked when asked for.

    Args:
        packed: What `pack` gave for each.

    Example:

    >>> import numpy as np
    >>> from keras_gated.datasets import piano_roll
    >>> rolls = piano_roll.PackedRolls([piano_roll.pack(np.eye(88))])
    >>> len(rolls), rolls.lengths, rolls[0].shape
    (1, [88], (88, 88))
    """

    def __init__(self, packed: Iterable[bytes]) -> None:
        self.packed = list(packed)

    @property
    def lengths(self) -> list[int]:
        """The number of steps of each."""
        return [len(data) // PACKED for data in self.packed]

    def take(self, members: Iterable[int]) -> "PackedRolls":
        """Some of the rolls.

        Args:
            members: Their numbers.
        """
        return PackedRolls(self.packed[i] for i in members)

    def __len__(self) -> int:
        return len(self.packed)

    def __getitem__(self, index: int) -> np.ndarray:
        data = np.frombuffer(self.packed[index], np.uint8).reshape(-1, PACKED)
        return np.unpackbits(data, axis=1)


def next_step_dataset(
    rolls: Sequence[np.ndarray],
    batch_size: int = 16,
    shuffle: bool = False,
    seed: int | None = None,
    max_shapes: int = 12,
    sequence_length: int | None = None,
    random_transpose: bool = False,
) -> "tf.data.Dataset":
    """Batches for a model that predicts every next frame.

    A sequence `x` gives the inputs `x[:-1]`, the targets `x[1:]`, and a weight
    of 1 for each of their steps. Sequences of like length share a batch, filled
    up on the right with steps of weight 0 that no step of a causal model sees.
    Rests keep their weight of 1.

    A model is compiled once for each shape of a batch, a second or two each.
    The sequences are therefore put into at most `max_shapes` groups, each of
    batches of one shape, and which groups leave little padding in few batches is
    computed. A batch holds `batch_size` sequences or a few less, so that those of
    a group fill its batches; where they cannot, rows of weight 0 do.

    Args:
        rolls: Piano rolls, `[T, 88]`, each of two steps or more.
        batch_size: The largest number of sequences in a batch. Default: 16.
        shuffle: Whether each pass puts the sequences of like length and the
            batches in a new order. Without it, the longest come first.
            Default: `False`.
        seed: Makes the order repeatable: the first pass over two data sets of
            the same seed is the same, and so is the second. Default: `None`.
        max_shapes: The largest number of different shapes. Default: 12.
        sequence_length: Cuts the rolls into sequences of so many predicted
            steps; the last of a roll may be shorter. Every step but a roll's
            first is predicted once. Default: `None`, whole rolls.
        random_transpose: Whether each pass moves each sequence by a number of
            semitones of its own, drawn from -5 to 6. Default: `False`.

    Returns:
        A `tf.data.Dataset` of `(inputs [batch, time, 88], targets [batch, time,
        88], weights [batch, time])`, all `float32`, of known cardinality. Give
        the weights to metrics through `compile(weighted_metrics=[...])`. To begin a
        pass takes some 30 ms: small sets are trained on faster with
        `fit(data.repeat(), steps_per_epoch=len(data))`, which begins once.

    Raises:
        ValueError: There are no rolls, one is no roll or shorter than two
            steps, or a number is not positive.

    Example:

    >>> import numpy as np
    >>> from keras_gated.datasets.piano_roll import next_step_dataset
    >>> rolls = [np.ones((4, 88)), np.ones((6, 88))]
    >>> data = next_step_dataset(rolls, batch_size=2, max_shapes=1)
    >>> for inputs, targets, weights in data:
    ...     print(inputs.shape, weights.numpy().tolist())
    (2, 5, 88) [[1.0, 1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0, 0.0]]
    """
    check_positive(batch_size=batch_size, max_shapes=max_shapes)
    if sequence_length is not None:
        check_positive(sequence_length=sequence_length)
    if not len(rolls):
        raise ValueError("Argument `rolls` must hold at least one roll; it is empty.")
    packed, sequences, place = [], [], 0  # sequences: first step of all, and how many
    for i, roll in enumerate(rolls):
        steps = len(roll := check_roll(roll, f"rolls[{i}]")) - 1
        if steps < 1:
            raise ValueError(
                "A sequence needs two steps or more: one to see and one to predict. "
                f"Received: rolls[{i}] with {len(roll)}"
            )
        packed.append(pack(roll))
        length = sequence_length or steps
        sequences += [
            (place + first, min(length, steps - first))
            for first in range(0, steps, length)
        ]
        place += len(roll)
    tf = require("tensorflow")

    # All steps, packed, one after the other; held once, whatever the batches.
    octets = tf.reshape(tf.io.decode_raw(b"".join(packed), tf.uint8), (-1, PACKED))
    first, steps = np.array(sequences, np.int64).T
    starts, ends = tf.constant(first), tf.constant(first + steps)

    def batch(
        rows: tf.Tensor, length: tf.Tensor, draw: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        none, rows = rows < 0, tf.maximum(rows, 0)
        where = tf.gather(starts, rows)[:, None] + tf.range(length + 1)
        there = (where <= tf.gather(ends, rows)[:, None]) & ~none[:, None]
        frames = tf.gather(octets, tf.where(there, where, 0))
        frames = unpack_bits(frames * tf.cast(there, tf.uint8)[..., None])
        if random_transpose:
            use = {"minval": -5, "maxval": 7, "dtype": tf.int64}
            semitones = tf.random.stateless_uniform(tf.shape(rows), draw, **use)
            key = tf.range(KEYS, dtype=tf.int64) - semitones[:, None]
            moved = tf.gather(frames, key % KEYS, axis=2, batch_dims=1)
            frames = moved * tf.cast((key >= 0) & (key < KEYS), tf.uint8)[:, None]
        frames = tf.ensure_shape(frames, (None, None, KEYS))
        predicted = there[:, 1:]
        inputs = frames[:, :-1] * tf.cast(predicted, tf.uint8)[..., None]
        parts = (inputs, frames[:, 1:], predicted)
        return tuple(tf.cast(part, tf.float32) for part in parts)

    return batches(steps, batch, batch_size, shuffle, seed, max_shapes)


def unpack_bits(octets: "tf.Tensor") -> "tf.Tensor":
    """Keys of packed steps, in TensorFlow.

    Args:
        octets: `uint8 (..., 11)`, as `pack` has them.

    Returns:
        `uint8 (..., 88)`.
    """
    import tensorflow as tf

    places = tf.constant([*range(7, -1, -1)], tf.uint8)
    bits = tf.bitwise.right_shift(octets[..., None], places) & 1
    return tf.reshape(bits, tf.concat([tf.shape(octets)[:-1], [KEYS]], axis=0))


def plot(
    roll: np.ndarray,
    axes: "Axes | None" = None,
    title: str | None = None,
    **imshow_arguments: Any,
) -> "Axes":
    """Draws a roll: time to the right, pitch upward.

    Args:
        roll: `[T, 88]`, values from 0 (white) to 1 (black); probabilities are
            welcome.
        axes: Where to draw; by default a new figure, sized to the roll. Save it
            with `axes.figure.savefig(path)`.
        title: The title. Default: none.
        **imshow_arguments: Passed on to `matplotlib.axes.Axes.imshow`.

    Returns:
        The axes.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: `roll` is not `[T, 88]`.

    Example:

    >>> import numpy as np
    >>> from keras_gated.datasets import piano_roll
    >>> axes = piano_roll.plot(np.eye(88), title="a chromatic scale")
    >>> axes.get_ylabel()
    'pitch'
    """
    figure = require("matplotlib.figure", extra="examples")
    roll = np.asarray(roll)
    if roll.ndim != 2 or roll.shape[1] != KEYS:
        raise ValueError(
            f"A piano roll has the shape [T, {KEYS}]. Received: {list(roll.shape)}"
        )
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
    octaves = range(1, 9)
    axes.set_yticks(
        [12 * (octave + 1) for octave in octaves], [f"C{o}" for o in octaves]
    )
    axes.grid(axis="y", linewidth=0.3)
    axes.set(xlabel="step", ylabel="pitch", title=title)
    return axes
