"""TFRecord shards of a corpus: written, and streamed to a model.

What shards of rolls and shards of sound share. `corpora.py` prepares them.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from . import checks
from .batching import lengths_with_least_padding
from .files import require
from .resuming import Place, resumable

if TYPE_CHECKING:
    import tensorflow as tf

MANIFEST = "manifest.json"
"""The file beside the shards that says what they hold."""


def example(features: Mapping[str, bytes | int]) -> bytes:
    """Makes a record; the same features give the same bytes.

    Args:
        features: The features, by their names.

    Returns:
        A `tf.train.Example`.
    """
    tf = require("tensorflow")

    def feature(value: bytes | int) -> tf.train.Feature:
        if isinstance(value, int):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))

    features = {name: feature(value) for name, value in features.items()}
    record = tf.train.Example(features=tf.train.Features(feature=features))
    return record.SerializeToString(deterministic=True)


def read_manifest(
    directory: str | os.PathLike,
    script: str,
    check: Callable[[dict[str, Any]], bool] = lambda manifest: True,
) -> dict[str, Any]:
    """Reads what the shards of a folder hold.

    Args:
        directory: The folder; any that TensorFlow can read (`gs://...`).
        script: The script that prepares such shards.
        check: Whether a manifest is possible, besides what all have; it may raise
            anything. Default: all are.

    Returns:
        The manifest.

    Raises:
        ValueError: There is no manifest, or it is damaged, or shards are missing: the
            preparation did not end.
    """
    tf = require("tensorflow")

    directory = os.fspath(directory)
    path = os.path.join(directory, MANIFEST)
    if not tf.io.gfile.exists(path):
        raise ValueError(
            f"{directory!r} has no {MANIFEST}. Run examples/{script} to "
            "its end; when it is run again, it continues."
        )
    with tf.io.gfile.GFile(path, "rb") as file:
        content = file.read()
    try:
        manifest = json.loads(content)
        shards, lengths = manifest["shards"], manifest["lengths"]
        possible = [
            isinstance(manifest.get("settings", {}), dict),
            *(isinstance(name, str) for name in shards),
            *(
                0 < int(length) < 2**31 and count > 0
                for length, count in lengths.items()
            ),
        ]
        if not all(possible) or not check(manifest):
            raise ValueError("settings, shards or numbers are impossible")
    except Exception as error:
        raise ValueError(
            f"{path!r} is no manifest ({error!r}). Run examples/{script} "
            "again; shards that are whole stay."
        ) from error
    there = set(tf.io.gfile.listdir(directory))
    missing = [name for name in manifest["shards"] if name not in there]
    if missing:
        raise ValueError(f"{directory!r} lacks {len(missing)} shards: {missing[:3]}")
    return manifest


def stream(
    directory: str | os.PathLike,
    manifest: Mapping[str, Any],
    seed: "tf.Tensor | None",
    num_workers: int,
    worker: int,
) -> "tf.data.Dataset":
    """The records of a worker's shards, eight shards at a time.

    Args:
        directory: The folder of the shards.
        manifest: As `read_manifest` returns it.
        seed: Of the order of the shards; `None` for that of their names.
        num_workers: How many processes share the shards.
        worker: The number of this process, from 0.

    Returns:
        A `tf.data.Dataset` of strings.

    Raises:
        ValueError: There are fewer shards than workers, or a number is out of its
            range.
    """
    num_workers = checks.whole("num_workers", num_workers)
    worker = checks.whole("worker", worker, 0, num_workers - 1)
    tf = require("tensorflow")

    directory, shards = os.fspath(directory), manifest["shards"]
    if len(shards) < num_workers:
        raise ValueError(
            f"{directory!r} has {len(shards)} shards, fewer "
            f"than the {num_workers} workers; prepare it with more (--shards)."
        )
    shards = shards[worker::num_workers]
    files = tf.data.Dataset.from_tensor_slices(
        [os.path.join(directory, shard) for shard in shards]
    )
    if seed is not None:
        files = files.shuffle(len(shards), seed=seed)
    return files.interleave(
        tf.data.TFRecordDataset,
        cycle_length=8,
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )


def passes(
    make: "Callable[[tf.Tensor | None], tf.data.Dataset]",
    shuffle: bool,
    seed: int | None,
    num_workers: int,
    batches: int,
    identity: Mapping[str, Any],
) -> "tf.data.Dataset":
    """Passes over shards, each in an order of its own.

    One process can go on in the middle of a pass, as `resumable` says. One of several
    begins its shards anew: only their contents say how many batches they have.

    Args:
        make: Makes a pass in the order of a seed, or in that of the shards.
        shuffle: Whether it gets a seed.
        seed: Makes the orders repeatable.
        num_workers: How many processes share the shards.
        batches: Of a pass, where one process reads them all.
        identity: What distinguishes the data.
    """
    tf = require("tensorflow")
    first = secrets.randbits(62) if seed is None else seed

    @tf.autograph.experimental.do_not_convert
    def one(number: tf.Tensor) -> tf.data.Dataset:
        return make(number + first if shuffle else None)

    if num_workers == 1:
        return resumable(one, batches, {**identity, "shuffle": shuffle, "seed": seed})
    place = Place(1)
    return tf.data.Dataset.from_tensors(0).flat_map(lambda _: one(place.move_on()[0]))


def sequence_lengths(
    lengths: Mapping[int, int], longest: int | None, shortest: int = 1
) -> dict[int, int]:
    """How many sequences of which length are cut from a corpus.

    Args:
        lengths: How many pieces of which length it has.
        longest: The length that pieces are cut to; the last of a piece may be shorter.
            `None` for whole pieces.
        shortest: The smallest length of a sequence. Default: 1.

    Returns:
        The numbers of sequences, by their lengths.
    """
    counts: dict[int, int] = {}
    for length, count in lengths.items():
        whole, rest = divmod(length, longest) if longest else (0, length)
        if whole:
            counts[longest] = counts.get(longest, 0) + whole * count
        if rest >= shortest:
            counts[rest] = counts.get(rest, 0) + count
    return counts


def count_batches(lengths: Mapping[int, int], batch_size: int, max_shapes: int) -> int:
    """How many batches `padded_batches` makes.

    Args:
        lengths: How many sequences of which length there are.
        batch_size: Sequences in a batch.
        max_shapes: The largest number of different lengths.
    """
    counts = dict.fromkeys(lengths_with_least_padding(dict(lengths), max_shapes), 0)
    for length, count in lengths.items():
        counts[min(b for b in counts if b >= length)] += count
    return sum(-(-count // batch_size) for count in counts.values())


def digest(manifest: Mapping[str, Any]) -> str:
    """What distinguishes the shards of a manifest from others.

    Args:
        manifest: As `read_manifest` returns it; it holds their SHA-256 sums.
    """
    return hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()


def padded_batches(
    sequences: "tf.data.Dataset",
    lengths: Mapping[int, int],
    batch_size: int,
    max_shapes: int,
) -> "tf.data.Dataset":
    """Batches of at most `max_shapes` lengths, filled up with zeros.

    Args:
        sequences: Tuples of tensors `[length, ...]` with one length, or scalars after
            them.
        lengths: How many sequences of which length come, as far as is known before.
        batch_size: Sequences in a batch; zeros fill the last batch of each length.
        max_shapes: The largest number of different lengths.

    Returns:
        A `tf.data.Dataset` of the tuples.
    """
    tf = require("tensorflow")

    def fill(*batch: tf.Tensor) -> tuple[tf.Tensor, ...]:
        lacking = batch_size - tf.shape(batch[0])[0]
        return tuple(
            tf.pad(part, [[0, lacking]] + [[0, 0]] * (part.shape.rank - 1))
            for part in batch
        )

    boundaries = lengths_with_least_padding(dict(lengths), max_shapes)
    batches = sequences.bucket_by_sequence_length(
        lambda first, *_: tf.shape(first)[0],
        # A sequence is below its boundary; the last bucket, above all, is empty.
        [length + 1 for length in boundaries],
        [batch_size] * (len(boundaries) + 1),
        pad_to_bucket_boundary=True,
    )
    return batches.map(fill)
