"""Piano rolls in TFRecord shards, for collections that do not fit in memory.

`examples/prepare_midi_corpus.py` writes them. A record is a `tf.train.Example` with
the features `path` (bytes, relative to the folder of the collection), `roll` (bytes,
as `piano_roll.pack` returns it) and `steps` (int64). The file `manifest.json` beside
the shards holds settings, counts, lengths, and what was skipped and why.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import checks, records
from ..files import require
from . import packed_rolls

if TYPE_CHECKING:
    import tensorflow as tf

SCRIPT = "prepare_midi_corpus.py"
"""What prepares the shards, in `examples/`."""


def read_manifest(directory: str | os.PathLike) -> dict[str, Any]:
    """Reads what the shards of a folder hold.

    Args:
        directory: The folder; any that TensorFlow can read (`gs://...`).

    Returns:
        The manifest.

    Raises:
        ValueError: There is no manifest, or it is damaged, or shards are missing: the
            preparation did not end.
    """
    return records.read_manifest(directory, SCRIPT)


def midi_dataset_from_records(
    directory: str | os.PathLike,
    batch_size: int = 16,
    sequence_length: int | None = None,
    shuffle: bool = True,
    seed: int | None = None,
    max_shapes: int = 12,
    num_workers: int = 1,
    worker: int = 0,
    buffer_size: int = 10_000,
) -> "tf.data.Dataset":
    """Batches of next-step prediction, streamed from shards.

    A sequence `x` gives the inputs `x[:-1]`, the targets `x[1:]`, and a weight of
    1 for each of their steps, as in `piano_roll.next_step_dataset`. Lengths are
    rounded up to at most `max_shapes` lengths, which are chosen from the manifest.

    Args:
        directory: The folder of the shards.
        batch_size: Sequences in a batch; rows of weight 0 fill the last batch of
            each length. Default: 16.
        sequence_length: Cuts the rolls into sequences of so many predicted
            steps; the last of a roll may be shorter. Default: `None`, whole rolls.
        shuffle: Whether each pass takes the shards in a new order and shuffles
            `buffer_size` sequences at a time. Default: `True`.
        seed: Makes the order repeatable. Default: `None`.
        max_shapes: The largest number of different lengths. Default: 12.
        num_workers: How many processes train together; each gets every
            `num_workers`-th shard. With 1, the data set can start anywhere, as
            `datasets.resumable` says. Default: 1.
        worker: The number of this process, from 0. Default: 0.
        buffer_size: The number of sequences to shuffle at a time. Default: 10,000.

    Returns:
        A `tf.data.Dataset` of `(inputs [batch, time, 88], targets [batch, time,
        88], weights [batch, time])`, all `float32`; 176 columns where the shards were
        prepared with onsets. Processes may have different
        numbers of batches: train together with `.repeat()` and `steps_per_epoch`.

    Raises:
        ValueError: There is no manifest, or it is damaged, shards are missing, there
            are fewer shards than workers, or a number is out of its range.
        tf.errors.DataLossError: (in iteration) A shard is damaged. Which one, the
            SHA-256 sums in the manifest tell.
        tf.errors.FailedPreconditionError: (in iteration, in one process) The shards
            have fewer sequences than the manifest says.

    Example:

    >>> data = midi_dataset_from_records("corpus")  # doctest: +SKIP
    >>> model.fit(data, epochs=10)  # doctest: +SKIP
    """
    batch_size = checks.whole("batch_size", batch_size)
    sequence_length = checks.whole("sequence_length", sequence_length, optional=True)
    max_shapes = checks.whole("max_shapes", max_shapes)
    buffer_size = checks.whole("buffer_size", buffer_size)
    tf = require("tensorflow")

    manifest = read_manifest(directory)
    # A sequence of n steps predicts n - 1.
    steps = {int(length) - 1: n for length, n in manifest["lengths"].items()}
    lengths = records.sequence_lengths(steps, sequence_length)
    if not lengths:
        raise ValueError("No roll has two steps or more.")
    onsets = manifest.get("settings", {}).get("onsets", False)

    def example(roll: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        roll = tf.cast(roll, tf.float32)
        return roll[:-1], roll[1:], tf.ones(tf.shape(roll)[0] - 1)

    def one_pass(order: tf.Tensor | None) -> tf.data.Dataset:
        shards = records.stream(directory, manifest, order, num_workers, worker)
        rolls = shards.map(
            lambda record: _roll(record, onsets), num_parallel_calls=tf.data.AUTOTUNE
        )
        rolls = rolls.filter(lambda roll: tf.shape(roll)[0] > 1)
        if sequence_length is not None:
            rolls = rolls.flat_map(lambda roll: _windows(roll, sequence_length))
        if order is not None:
            rolls = rolls.shuffle(buffer_size, seed=order)
        sequences = rolls.map(example, num_parallel_calls=tf.data.AUTOTUNE)
        batches = records.padded_batches(sequences, lengths, batch_size, max_shapes)
        return batches.prefetch(tf.data.AUTOTUNE)

    return records.passes(
        one_pass,
        shuffle,
        seed,
        num_workers,
        records.count_batches(lengths, batch_size, max_shapes),
        {
            "shards": records.digest(manifest),
            "batch_size": batch_size,
            "sequence_length": sequence_length,
            "max_shapes": max_shapes,
            "buffer_size": buffer_size,
        },
    )


def _roll(record: "tf.Tensor", onsets: bool) -> "tf.Tensor":
    """`uint8 [T, 88]` of a record, or `[T, 176]`."""
    import tensorflow as tf

    features = {"roll": tf.io.FixedLenFeature([], tf.string)}
    packed = tf.io.parse_single_example(record, features)["roll"]
    width = packed_rolls.octets(onsets)
    octets = tf.reshape(tf.io.decode_raw(packed, tf.uint8), (-1, width))
    return packed_rolls.unpack_bits(octets)


def _windows(roll: "tf.Tensor", sequence_length: int) -> "tf.data.Dataset":
    import tensorflow as tf

    starts = tf.range(0, tf.shape(roll)[0] - 1, sequence_length)
    return tf.data.Dataset.from_tensor_slices(starts).map(
        lambda first: roll[first : first + sequence_length + 1]
    )


def features(name: str, packed: bytes, onsets: bool = False) -> dict[str, bytes | int]:
    """What a record holds.

    Args:
        name: The name of the file.
        packed: Its packed roll.
        onsets: Whether it has onsets. Default: `False`.
    """
    return {
        "path": name.encode("utf-8", "surrogateescape"),
        "roll": packed,
        "steps": len(packed) // packed_rolls.octets(onsets),
    }


def write_shard(
    path: str | os.PathLike, rolls: list[tuple[str, bytes]], onsets: bool = False
) -> None:
    """Writes one shard; the same rolls give the same bytes.

    Args:
        path: The file.
        rolls: Names and packed rolls.
        onsets: Whether they have onsets. Default: `False`.
    """
    tf = require("tensorflow")

    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(os.fspath(path)) as writer:
        for name, packed in rolls:
            writer.write(records.example(features(name, packed, onsets)))
