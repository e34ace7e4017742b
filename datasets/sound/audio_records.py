"""Sound in TFRecord shards, for collections that are prepared once.

`examples/prepare_audio_corpus.py` writes them. A record is a `tf.train.Example` with
the features `path` (bytes, relative to the folder of the collection), `samples` (bytes,
of one channel) and `bits` (int64): 16, and the samples are integers, to be divided by
32,768, or 32, and they are floating-point numbers; in both cases the lowest byte comes
first. The file `manifest.json` beside the shards holds settings, counts, lengths, the
mean and the standard deviation of all samples, and what was skipped and why.
"""

import math
import os
from typing import TYPE_CHECKING, Any

from .. import checks, records
from ..files import require
from . import packed_sound
from .frames import Step
from .recordings import Standardization

if TYPE_CHECKING:
    import tensorflow as tf

SCRIPT = "prepare_audio_corpus.py"
"""What prepares the shards, in `examples/`."""


def read_manifest(directory: str | os.PathLike) -> dict[str, Any]:
    """Reads what the shards of a folder hold.

    Args:
        directory: The folder; any that TensorFlow can read (`gs://...`).

    Returns:
        The manifest: among others `"recordings"`, `"samples"` and `"seconds"` (how many
        there are), `"mean"` and `"std"` (of the samples), `"lengths"` (how many
        recordings have how many samples), `"skipped"` and `"repaired"` (reasons by
        names), and in `"settings"` the `"sampling_rate"`, in samples per second.

    Raises:
        ValueError: There is no manifest, or it is damaged, or it is of shards of
            something else, or shards are missing: the preparation did not end.
    """

    def check(manifest: dict[str, Any]) -> bool:
        finite = math.isfinite(manifest["mean"]) and math.isfinite(manifest["std"])
        counts = manifest["samples"], manifest["recordings"]
        return finite and manifest["std"] >= 0 and min(counts) >= 0

    return records.read_manifest(directory, SCRIPT, check)


def features(name: str, packed: bytes, bits: int) -> dict[str, bytes | int]:
    """What a record holds.

    Args:
        name: The name of the file.
        packed: Its samples, as `packed_sound` packs them.
        bits: The bits of a sample.
    """
    path = name.encode("utf-8", "surrogateescape")
    return {"path": path, "samples": packed, "bits": bits}


def audio_dataset_from_records(
    directory: str | os.PathLike,
    batch_size: int = 16,
    sequence_length: int | None = None,
    shuffle: bool = True,
    seed: int | None = None,
    max_shapes: int = 12,
    num_workers: int = 1,
    worker: int = 0,
    buffer_size: int = 10_000,
    *,
    frame_length: int = 20,
    target_length: int = 10,
    hop: int | None = None,
    remainder: str = "drop",
    standardize: bool | Standardization = True,
) -> "tf.data.Dataset":
    """Batches for a model that predicts waveforms, streamed from shards.

    The sequences are those of `audio_dataset_from_directory` for the same files, but
    for the last digit of standardized samples; `audio.frames_dataset` says what a step
    sees and predicts. Recordings are not joined.

    Args:
        directory: The folder of the shards.
        batch_size: Sequences in a batch. If all have the same length, the last batch
            may be smaller; else rows of weight 0 fill the last batch of each length.
            Default: 16.
        sequence_length: Cuts the recordings into sequences of so many samples. Default:
            `None`, whole recordings.
        shuffle: Whether each pass takes the shards in a new order and shuffles
            `buffer_size` sequences at a time. Default: `True`.
        seed: Makes the order repeatable. Default: `None`.
        max_shapes: The largest number of lengths to pad to, if lengths differ.
            Default: 12.
        num_workers: How many processes train together; each gets every
            `num_workers`-th shard. With 1, the data set can start anywhere, as
            `datasets.resumable` says. Default: 1.
        worker: The number of this process, from 0. Default: 0.
        buffer_size: The number of sequences to shuffle at a time, which wait in memory
            (4 bytes a sample). Default: 10,000.
        frame_length: Samples that a step sees. Default: 20.
        target_length: Samples that it predicts. Default: 10.
        hop: Samples from one step to the next. Default: `target_length`.
        remainder: What becomes of the end of a recording that is shorter than a
            sequence: `"drop"`, or `"pad"` to fill it up with steps of weight 0.
            Default: `"drop"`.
        standardize: Whether to bring the samples to mean 0 and standard deviation 1, by
            those in the manifest; or a pair of a mean and a standard deviation to use
            instead, such as those of other shards. Default: `True`.

    Returns:
        A `tf.data.Dataset` of `(inputs [batch, steps, frame_length], targets [batch,
        steps, target_length], weights [batch, steps])`, all `float32`; the weights are
        1, and 0 for padding. Its attribute `standardization` is the mean and the
        standard deviation, for `keras_gated.GaussianMixture`. Processes may have
        different numbers of batches: train together with `.repeat()` and
        `steps_per_epoch`.

    Raises:
        ValueError: There is no manifest, or it is damaged, shards are missing, there
            are fewer shards than workers, no recording is long enough for a sequence,
            all samples are equal, so that they cannot be standardized, or an argument
            is out of its range.
        tf.errors.DataLossError: (in iteration) A shard is damaged. Which one, the
            SHA-256 sums in the manifest tell.
        tf.errors.FailedPreconditionError: (in iteration, in one process) The shards
            have fewer sequences than the manifest says.

    Example:

    >>> data = audio_dataset_from_records(
    ...     "corpus", 64, sequence_length=8000
    ... )  # doctest: +SKIP
    >>> model.fit(data, epochs=10)  # doctest: +SKIP
    """
    batch_size = checks.whole("batch_size", batch_size)
    max_shapes = checks.whole("max_shapes", max_shapes)
    buffer_size = checks.whole("buffer_size", buffer_size)
    step = Step.checked(frame_length, target_length, hop)
    longest = checks.whole(
        "sequence_length", sequence_length, step.samples, optional=True
    )
    checks.one_of("remainder", remainder, ("drop", "pad"))
    padded = longest is None or remainder == "pad"
    manifest = read_manifest(directory)
    measured = Standardization(manifest["mean"], manifest["std"])
    standardization = Standardization.asked_for(
        standardize,
        lambda: measured.check(manifest["samples"], manifest["recordings"]),
    )
    shortest = step.samples if padded else longest
    lengths = {int(length): count for length, count in manifest["lengths"].items()}
    lengths = records.sequence_lengths(lengths, longest, shortest)
    if not lengths:
        raise ValueError(
            f"No sequence of {shortest:,} samples can be cut from the recordings in "
            f"{os.fspath(directory)!r}. (remainder='pad' takes shorter sequences.)"
        )
    tf = require("tensorflow")
    several = {"num_parallel_calls": tf.data.AUTOTUNE}
    used: dict[int, int] = {}  # lengths, without the samples that no step predicts
    for length, count in lengths.items():
        length = step.length(step.count(length))
        used[length] = used.get(length, 0) + count

    def framed(samples: tf.Tensor, steps: tf.Tensor) -> tuple[tf.Tensor, ...]:
        mean, std = (tf.constant(x, tf.float32) for x in standardization)
        samples = (samples - mean) / std
        windows = tf.signal.frame(samples, step.samples, step.hop)
        weights = tf.sequence_mask(steps, tf.shape(windows)[1], tf.float32)
        if padded:
            windows *= weights[..., None]
        return windows[..., : step.frame], windows[..., step.frame :], weights

    def trimmed(samples: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        steps = step.count(tf.size(samples))
        # Without the samples at the end that no step predicts.
        return samples[: step.length(steps)], steps

    def one_pass(order: tf.Tensor | None) -> tf.data.Dataset:
        shards = records.stream(directory, manifest, order, num_workers, worker)
        recordings = shards.map(_samples, **several)
        if longest is None:
            sequences = recordings.filter(lambda samples: tf.size(samples) >= shortest)
        else:
            sequences = recordings.flat_map(lambda x: _cut(x, longest, shortest))
        if order is not None:
            sequences = sequences.shuffle(buffer_size, seed=order)
        sequences = sequences.map(trimmed, **several)
        batches = (
            records.padded_batches(sequences, used, batch_size, max_shapes)
            if padded
            else sequences.batch(batch_size)
        )
        return batches.map(framed, **several).prefetch(tf.data.AUTOTUNE)

    batches = records.passes(
        one_pass,
        shuffle,
        seed,
        num_workers,
        records.count_batches(used, batch_size, max_shapes),
        {
            "shards": records.digest(manifest),
            "batch_size": batch_size,
            "sequence_length": longest,
            "max_shapes": max_shapes,
            "buffer_size": buffer_size,
            "step": list(step),
            "remainder": remainder,
            "standardization": list(standardization),
        },
    )
    batches.standardization = standardization
    return batches


def _samples(record: "tf.Tensor") -> "tf.Tensor":
    """`float32 [samples]` of a record."""
    import tensorflow as tf

    features = {
        "samples": tf.io.FixedLenFeature([], tf.string),
        "bits": tf.io.FixedLenFeature([], tf.int64),
    }
    return packed_sound.unpack(**tf.io.parse_single_example(record, features))


def _cut(samples: "tf.Tensor", longest: int, shortest: int) -> "tf.data.Dataset":
    """The sequences of a recording."""
    import tensorflow as tf

    starts = tf.range(0, tf.maximum(tf.size(samples) - shortest + 1, 0), longest)
    return tf.data.Dataset.from_tensor_slices(starts).map(
        lambda first: samples[first : first + longest]
    )
