"""Piano rolls to batches in which a model predicts every next frame."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from .. import checks
from ..batching import batches
from ..files import require
from .packed_rolls import KEYS, PACKED, check_roll, pack, unpack_bits

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
    >>> from keras_gated.datasets import piano_roll
    >>> rolls = [np.ones((4, 88)), np.ones((6, 88))]
    >>> data = piano_roll.next_step_dataset(rolls, batch_size=2, max_shapes=1)
    >>> for inputs, targets, weights in data:
    ...     print(inputs.shape, weights.numpy().tolist())
    (2, 5, 88) [[1.0, 1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0, 0.0]]
    """
    batch_size = checks.whole("batch_size", batch_size)
    max_shapes = checks.whole("max_shapes", max_shapes)
    checks.whole("sequence_length", sequence_length, optional=True)
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
