"""Piano rolls to batches in which a model predicts every next frame."""

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import checks
from ..batching import batches
from ..files import require
from .packed_rolls import KEYS, check_roll, pack, unpack_bits
from .step_features import OCTAVE

if TYPE_CHECKING:
    import tensorflow as tf


def next_step_dataset(
    rolls: Sequence[np.ndarray],
    batch_size: int = 16,
    shuffle: bool = False,
    seed: int | None = None,
    max_shapes: int = 12,
    sequence_length: int | None = None,
    random_transpose: bool = False,
    teacher_forcing: bool = False,
    features: Sequence[np.ndarray] | None = None,
    tonic: int | None = None,
) -> "tf.data.Dataset":
    """Batches for a model that predicts every next frame.

    A sequence `x` gives the inputs `x[:-1]`, the targets `x[1:]`, and a weight of 1
    for each of their steps. Sequences of similar length share a batch. Padding stands
    on the right, where no step of a causal model sees it, and has weight 0; rests have
    weight 1.

    A model is compiled once for each shape of a batch, which takes a second or two. The
    sequences are therefore put into at most `max_shapes` groups, each with batches of
    one shape; the groups are those with little padding in few batches. A batch holds
    `batch_size` sequences or a few less, so that a group fills its batches; rows of
    weight 0 fill the rest.

    Args:
        rolls: Piano rolls, `[T, 88]`, or all `[T, 176]` with onsets, each of two
            steps or more.
        batch_size: The largest number of sequences in a batch. Default: 16.
        shuffle: Whether each pass puts the sequences of similar length and the
            batches in a new order. Without it, the longest come first.
            Default: `False`.
        seed: Makes the order repeatable: the first passes over two data sets with
            the same seed are the same, and so are the second. Default: `None`.
        max_shapes: The largest number of different shapes. Default: 12.
        sequence_length: Cuts the rolls into sequences of so many predicted
            steps; the last of a roll may be shorter. Every step except the first of
            a roll is predicted once. Default: `None`, whole rolls.
        random_transpose: Whether each pass transposes each sequence by its own
            number of semitones, drawn from -5 to 6, with its tonic. Default: `False`.
        teacher_forcing: Whether the targets are an input, too, as a model that ends in
            `keras_gated.NADE` needs them. Default: `False`.
        features: What is known of each step of each roll, `[T, F]`, such as
            `midi.step_features` gives it: an input more, which tells of a step when
            that step is predicted. Default: `None`, nothing.
        tonic: The first of the twelve columns of `features` that are the tonic, C to
            B, which `random_transpose` moves with the keys
            (`midi.feature_columns(kinds)["key"].start`). Default: `None`, none are.

    Returns:
        A `tf.data.Dataset` of `(inputs [batch, time, 88], targets [batch, time,
        88], weights [batch, time])`, all `float32`, of known cardinality; with
        `teacher_forcing` of `((inputs, targets), targets, weights)`; with `features`
        of `((inputs, features), targets, weights)`, or of `((inputs, targets,
        features), targets, weights)`, features `[batch, time, F]`. Metrics
        use the weights if they are given as `compile(weighted_metrics=[...])`. The
        start of a pass takes some 30 ms: on small sets `fit(data.repeat(),
        steps_per_epoch=len(data))`, which starts once, is faster.

    Raises:
        ValueError: There are no rolls, one is not a roll or is shorter than two
            steps, some have onsets and some have not, features do not match the rolls,
            or a number is not positive.

    Example:

    >>> import numpy as np
    >>> from keras_gated.datasets import piano_roll
    >>> rolls = [np.ones((4, 88)), np.ones((6, 88))]
    >>> data = piano_roll.next_step_dataset(rolls, batch_size=2, max_shapes=1)
    >>> for inputs, targets, weights in data:
    ...     print(inputs.shape, weights.numpy().tolist())
    (2, 5, 88) [[1.0, 1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0, 0.0]]
    """
    batch_size = checks.whole("batch_size", batch_size)
    max_shapes = checks.whole("max_shapes", max_shapes)
    sequence_length = checks.whole("sequence_length", sequence_length, optional=True)
    packed, width, starts, steps = _sequences(rolls, sequence_length)
    known = None if features is None else _features(features, rolls, tonic)
    tf = require("tensorflow")

    # All steps of all rolls, packed, one after the other, whatever the batches.
    octets = tf.reshape(tf.io.decode_raw(packed, tf.uint8), (-1, width // 8))
    known = None if known is None else tf.constant(known)
    starts, ends = tf.constant(starts), tf.constant(starts + steps)

    def batch(
        rows: tf.Tensor, length: tf.Tensor, seed: tf.Tensor
    ) -> tuple[Any, tf.Tensor, tf.Tensor]:
        semitones = _semitones(rows, seed) if random_transpose else None
        none, rows = rows < 0, tf.maximum(rows, 0)
        where = tf.gather(starts, rows)[:, None] + tf.range(length + 1)
        there = (where <= tf.gather(ends, rows)[:, None]) & ~none[:, None]
        frames = tf.gather(octets, tf.where(there, where, 0))
        frames = unpack_bits(frames * tf.cast(there, tf.uint8)[..., None])
        frames = tf.ensure_shape(frames, (None, None, width))
        if random_transpose:
            frames = _transposed(frames, semitones)
        predicted = there[:, 1:]
        inputs = frames[:, :-1] * tf.cast(predicted, tf.uint8)[..., None]
        parts = (inputs, frames[:, 1:], predicted)
        inputs, targets, weights = (tf.cast(part, tf.float32) for part in parts)
        given = (inputs, targets) if teacher_forcing else (inputs,)
        if known is not None:
            about = tf.gather(known, tf.where(predicted, where[:, 1:], 0))
            if random_transpose and tonic is not None:
                about = _rotated(about, tonic, semitones)
            given += (about * weights[..., None],)
        return given if len(given) > 1 else inputs, targets, weights

    content = hashlib.sha256(packed).hexdigest()
    return batches(steps, batch, batch_size, shuffle, seed, max_shapes, content)


def _sequences(
    rolls: Sequence[np.ndarray], sequence_length: int | None
) -> tuple[bytes, int, np.ndarray, np.ndarray]:
    """All rolls packed; their columns; where sequences start; what each predicts."""
    if not len(rolls):
        raise ValueError("Argument `rolls` must hold at least one roll; it is empty.")
    packed, sequences, place, width = [], [], 0, None
    for i, roll in enumerate(rolls):
        steps = len(roll := check_roll(roll, f"rolls[{i}]")) - 1
        if steps < 1:
            raise ValueError(
                "A sequence needs two steps or more: one to see and one to predict. "
                f"Received: rolls[{i}] with {len(roll)}"
            )
        width = width or roll.shape[1]
        if roll.shape[1] != width:
            raise ValueError(
                "Either all rolls have onsets or none has. Received: rolls[0] with "
                f"{width} columns and rolls[{i}] with {roll.shape[1]}"
            )
        packed.append(pack(roll))
        length = sequence_length or steps
        sequences += [
            (place + first, min(length, steps - first))
            for first in range(0, steps, length)
        ]
        place += len(roll)
    starts, steps = np.array(sequences, np.int64).T
    return b"".join(packed), width, starts, steps


def _features(
    features: Sequence[np.ndarray], rolls: Sequence[np.ndarray], tonic: int | None
) -> np.ndarray:
    """The features of all steps of all rolls, `float32`."""
    lengths = getattr(rolls, "lengths", None) or [len(roll) for roll in rolls]
    arrays = [np.asarray(array, np.float32) for array in features]
    size = arrays[0].shape[-1] if arrays and arrays[0].ndim else 0
    wanted = [(length, size) for length in lengths]
    found = [array.shape for array in arrays]
    if found != wanted:
        raise ValueError(
            "Argument `features` must hold an array (T, F) for each of the rolls, with "
            f"T = {_some(lengths)}. Received: shapes {_some(found)}"
        )
    checks.whole("tonic", tonic, 0, size - OCTAVE, optional=True)
    known = np.concatenate(arrays)
    if not np.isfinite(known).all():
        raise ValueError("Argument `features` must hold finite numbers only.")
    return known


def _some(values: Sequence) -> str:
    """The first of them."""
    return ", ".join(map(str, values[:3])) + ", …" * (len(values) > 3)


def _semitones(rows: "tf.Tensor", seed: "tf.Tensor") -> "tf.Tensor":
    """How far each row is transposed."""
    # Not by `require`, about which AutoGraph would warn.
    import tensorflow as tf

    limits = {"minval": -5, "maxval": 7, "dtype": tf.int64}
    return tf.random.stateless_uniform(tf.shape(rows), seed, **limits)


def _transposed(frames: "tf.Tensor", semitones: "tf.Tensor") -> "tf.Tensor":
    """Each row moved by a number of keys, both halves of it if it has onsets."""
    import tensorflow as tf

    key = tf.range(KEYS, dtype=tf.int64) - semitones[:, None]
    there = tf.cast((key >= 0) & (key < KEYS), tf.uint8)[:, None]
    halves = tf.split(frames, frames.shape[-1] // KEYS, axis=-1)
    moved = [tf.gather(half, key % KEYS, axis=2, batch_dims=1) for half in halves]
    return tf.concat([half * there for half in moved], axis=-1)


def _rotated(features: "tf.Tensor", tonic: int, semitones: "tf.Tensor") -> "tf.Tensor":
    """The twelve columns of the tonic moved with the keys."""
    import tensorflow as tf

    keys = features[..., tonic : tonic + OCTAVE]
    place = (tf.range(OCTAVE, dtype=tf.int64) - semitones[:, None]) % OCTAVE
    keys = tf.gather(keys, place, axis=2, batch_dims=1)
    return tf.concat(
        [features[..., :tonic], keys, features[..., tonic + OCTAVE :]], axis=-1
    )
