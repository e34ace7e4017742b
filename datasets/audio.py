"""Sound files, and batches of frames for models that predict a waveform."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from keras_gated.datasets.audio_decoders import (
    SUFFIXES,
    AudioError,
    decode,
    decode_in_graph,
)
from keras_gated.datasets.audio_recordings import (
    Recordings,
    Standardization,
    read_files,
)
from keras_gated.datasets.batching import batches, check_positive
from keras_gated.datasets.files import atomic_path, require
from keras_gated.datasets.folders import check_split, find_files

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = [
    "AudioError",
    "Recordings",
    "Standardization",
    "audio_dataset_from_directory",
    "decode_in_graph",
    "frames_dataset",
    "read",
    "read_files",
    "write",
]


def read(
    path: str | os.PathLike,
    sample_rate: int | None = None,
    *,
    mono: bool = False,
    decoder: str = "auto",
    max_seconds: float | None = 86_400.0,
) -> tuple[np.ndarray, int]:
    """Reads a sound file: WAV, FLAC, OGG, MP3.

    Args:
        path: The file.
        sample_rate: Samples a second to resample to (by soxr, in high quality).
            Default: `None`, those of the file.
        mono: Whether to give the mean of the channels. Default: `False`.
        decoder: `"soundfile"`, `"tensorflow-io"` (which loads with TensorFlow 2.16
            and 2.17), or `"auto"`, tensorflow-io where it loads and reads the file.
            Both give the same samples of PCM and FLAC. Default: `"auto"`.
        max_seconds: Longer files are refused, `None` for no limit. Default:
            86,400, a day.

    Returns:
        The samples, `float32 [samples, channels]`, integers of n bits divided by
        2 ** (n - 1); and how many of them make a second.

    Raises:
        AudioError: (a `ValueError`) The file holds no sound that can be read, is
            cut off, holds NaN or infinity, or exceeds the limit; the message names
            it.
        FileNotFoundError: There is no such file.
        OSError: The file cannot be read.
        ImportError: The decoder is not installed.
        ValueError: An argument is out of its range.

    Example:

    >>> import numpy as np
    >>> from keras_gated.datasets import audio
    >>> audio.write(0.5 * np.sin(np.arange(8000)), "tone.wav", 8000)
    >>> samples, sample_rate = audio.read("tone.wav", sample_rate=4000)
    >>> samples.shape, sample_rate
    ((4000, 1), 4000)
    """
    sound = decode(path, sample_rate, mono, decoder, max_seconds)
    return np.concatenate(list(sound.blocks)), sound.sample_rate


def write(
    samples: np.ndarray, path: str | os.PathLike, sample_rate: int, bits: int = 16
) -> None:
    """Writes a sound file, of integers.

    Args:
        samples: `[samples]` or `[samples, channels]`, from -1 to 1; what is beyond
            is cut to that.
        path: The file to write, by its ending WAV, FLAC, OGG or MP3; missing folders
            are made.
        sample_rate: Samples a second, positive.
        bits: Of a sample, 16 or 24 (WAV and FLAC). Default: 16.

    Raises:
        ImportError: soundfile is not installed.
        ValueError: An argument is out of its range.
    """
    check_positive(sample_rate=sample_rate)
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES or bits not in (16, 24):
        raise ValueError(
            f"Sound is written to files that end in {', '.join(SUFFIXES)}, with 16 or "
            f"24 bits. Received: path={os.fspath(path)!r}, bits={bits!r}"
        )
    samples = np.asarray(samples)
    if samples.ndim not in (1, 2) or not np.isfinite(samples).all():
        raise ValueError(
            "Argument `samples` must hold finite numbers [samples] or [samples, "
            f"channels]. Received: shape {samples.shape}"
        )
    soundfile = require("soundfile", extra="audio")
    subtype = f"PCM_{bits}" if suffix in (".wav", ".flac") else None
    with atomic_path(path) as file:
        soundfile.write(file, samples.clip(-1, 1), int(sample_rate), subtype)


def frames_dataset(
    recordings: Recordings,
    frame_length: int = 20,
    target_length: int = 10,
    hop: int | None = None,
    sequence_length: int | None = None,
    batch_size: int = 16,
    shuffle: bool = False,
    seed: int | None = None,
    join: bool = False,
    remainder: str = "drop",
    standardization: Standardization | None = None,
    max_shapes: int = 12,
) -> "tf.data.Dataset":
    """Batches for a model that predicts a waveform, a few samples at a time.

    Step t of a sequence `x` sees `x[t*hop : t*hop + frame_length]` and predicts the
    `target_length` samples that follow (Chung et al., 2014, section 4.1). With
    the default hop the targets lie side by side: the sum of the steps' negative
    log-likelihoods is that of the waveform after its first frame (but for the
    last samples, fewer than a target).

    Args:
        recordings: Of `read_files`. They stay on disk.
        frame_length: Samples that a step sees. Default: 20.
        target_length: Samples that it predicts. Default: 10.
        hop: Samples from one step to the next. Default: `target_length`.
        sequence_length: Cuts the recordings into sequences of so many samples.
            Default: `None`, whole recordings.
        batch_size: The largest number of sequences in a batch. Default: 16.
        shuffle: Whether each pass takes the sequences in a new order. Without it
            they keep theirs; of many lengths, the longest come first. Default:
            `False`.
        seed: Makes the order repeatable. Default: `None`.
        join: Whether the recordings are joined, in their order, before they are
            cut, as for sequences longer than they are. Default: `False`.
        remainder: What becomes of the end of a recording that makes no whole
            sequence: `"drop"`, or `"pad"` to fill it up with steps of weight 0.
            Default: `"drop"`.
        standardization: What to subtract from the samples and to divide them by,
            a pair. Default: `None`, nothing.
        max_shapes: The largest number of lengths to pad to, where there are many.
            Default: 12.

    Returns:
        A `tf.data.Dataset`, all `float32`, of `(inputs [batch, steps,
        frame_length], targets [batch, steps, target_length])` if all sequences are
        `sequence_length` long; else with `weights [batch, steps]` as the third,
        0 for padding.

    Raises:
        ValueError: No recording is long enough for a sequence, or an argument is
            out of its range.

    Example:

    >>> import numpy as np
    >>> from keras_gated.datasets import audio
    >>> audio.write(np.sin(np.arange(1200)), "tone.wav", 8000)
    >>> recordings = audio.read_files(["tone.wav"], verbose=0)
    >>> data = audio.frames_dataset(recordings, sequence_length=500)
    >>> for inputs, targets in data:
    ...     print(inputs.shape, targets.shape)
    (2, 48, 20) (2, 48, 10)
    """
    hop = target_length if hop is None else hop
    check_positive(
        frame_length=frame_length,
        target_length=target_length,
        hop=hop,
        batch_size=batch_size,
        max_shapes=max_shapes,
    )
    if remainder not in ("drop", "pad"):
        raise ValueError(
            "Argument `remainder` must be 'drop' or 'pad'. "
            f"Received: remainder={remainder!r}"
        )
    shortest = frame_length + target_length
    if sequence_length is not None:
        check_positive(sequence_length=sequence_length)
        if sequence_length < shortest:
            raise ValueError(
                f"Argument `sequence_length` must be {shortest} at least, a frame and "
                f"a target. Received: sequence_length={sequence_length}"
            )
    lengths = recordings.lengths
    if join:
        lengths = lengths.sum(keepdims=True)
    weighted = sequence_length is None or remainder == "pad"
    length = sequence_length or max(lengths.max(initial=0), shortest)
    least = shortest if weighted else length
    # Numbers of each recording and of all before it; no table of sequences is kept.
    ends = np.cumsum(lengths)
    pieces = (lengths - least) // length + 1
    last = np.cumsum(pieces)
    if not pieces.sum():
        raise ValueError(
            f"No sequence of {least:,} samples can be cut from {len(recordings)} "
            f"recordings, the longest of {recordings.lengths.max(initial=0):,}. "
            "(join=True joins them; remainder='pad' takes shorter sequences.)"
        )

    def cut(numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where sequences begin, and of how many samples they are."""
        of = np.searchsorted(last, numbers, "right")
        within = numbers - (last - pieces)[of]
        begins = (ends - lengths)[of] + length * within
        return begins, np.minimum(length, ends[of] - begins)

    def steps(counts: np.ndarray) -> np.ndarray:
        return (counts - shortest) // hop + 1

    if weighted:
        steps_of_all = steps(cut(np.arange(last[-1]))[1])
    else:
        steps_of_all = np.broadcast_to(steps(length), int(last[-1]))
    mean, deviation = standardization or Standardization(0.0, 1.0)

    def frames(rows: np.ndarray, most: np.ndarray) -> tuple[np.ndarray, ...]:
        begins, counts = cut(rows[rows >= 0])  # those of no sequence come last
        size = len(rows) if weighted else len(begins)
        block = np.zeros((size, (most - 1) * hop + shortest), np.float32)
        places = [row[:count] for row, count in zip(block, counts, strict=False)]
        recordings.copy(begins, places)
        block -= mean
        block /= deviation
        windows = sliding_window_view(block, shortest, axis=1)[:, ::hop]
        weights = np.zeros((size, most), np.float32)
        weights[: len(counts)] = np.arange(most) < steps(counts)[:, None]
        if weighted:
            windows = windows * weights[..., None]
        return (
            np.ascontiguousarray(windows[..., :frame_length]),
            np.ascontiguousarray(windows[..., frame_length:]),
            weights,
        )

    tf = require("tensorflow")

    sizes = [frame_length, target_length]

    def batch(rows: tf.Tensor, length: tf.Tensor, _: tf.Tensor) -> tuple:
        *parts, weights = tf.numpy_function(frames, [rows, length], [tf.float32] * 3)
        parts = [
            tf.ensure_shape(part, (None, None, size))
            for part, size in zip(parts, sizes, strict=True)
        ]
        weights = tf.ensure_shape(weights, (None, None))
        return (*parts, weights) if weighted else tuple(parts)

    return batches(steps_of_all, batch, batch_size, shuffle, seed, max_shapes)


def audio_dataset_from_directory(
    directory: str | os.PathLike,
    sample_rate: int | None = None,
    frame_length: int = 20,
    target_length: int = 10,
    hop: int | None = None,
    sequence_length: int | None = None,
    batch_size: int = 16,
    shuffle: bool = True,
    seed: int | None = None,
    validation_split: float | None = None,
    subset: str | None = None,
    groups: Callable[[Path], Any] | None = None,
    join: bool = False,
    remainder: str = "drop",
    standardize: bool | Standardization = True,
    max_shapes: int = 12,
    follow_links: bool = False,
    verbose: int = 1,
    **arguments: Any,
) -> "tf.data.Dataset | tuple[tf.data.Dataset, tf.data.Dataset]":
    """Batches for a model that predicts waveforms, from a folder of sound files.

    In the manner of `keras.utils.audio_dataset_from_directory`; the batches are
    those of `frames_dataset`. Files are mixed to one channel.

    Args:
        directory: The folder; its subfolders are read, too. WAV, FLAC, OGG, MP3.
        sample_rate: Samples a second to resample to. Default: `None`, those of the
            first file; files of another rate are then skipped.
        frame_length: Samples that a step sees. Default: 20.
        target_length: Samples that it predicts. Default: 10.
        hop: Samples from one step to the next. Default: `target_length`.
        sequence_length: Cuts the recordings into sequences of so many samples.
            Default: `None`, whole recordings.
        batch_size: The largest number of sequences in a batch. Default: 16.
        shuffle: Whether to put the files in a random order before they are split,
            and the sequences before each pass. Without it, validation has the last
            files in the order of their paths. Default: `True`.
        seed: Of all that is random. Needed where `subset` is one of two parts of
            what is shuffled. Default: `None`.
        validation_split: The share of the files, between 0 and 1, that is set
            aside for validation. Default: `None`.
        subset: Which to return: `"training"`, `"validation"` or `"both"`.
            Needed with `validation_split`. Default: `None`.
        groups: Tells from a file's path what may not be split, as its speaker:
            `lambda path: path.parent.name`. Files of a group stay together.
            Default: `None`, each file is by itself.
        join: Whether recordings are joined before they are cut. Default: `False`.
        remainder: `"drop"` or `"pad"` ends that make no whole sequence. Default:
            `"drop"`.
        standardize: Whether to bring the samples to mean 0 and standard deviation
            1, by those of the training part; or a pair of a mean and a deviation to
            use instead. Default: `True`.
        max_shapes: The largest number of lengths to pad to, where there are many.
            Default: 12.
        follow_links: Whether to go into folders that are links. Default: `False`.
        verbose: 1 shows a progress bar and a report, 0 is silent. Default: 1.
        **arguments: Of `read_files`: decoder, limits, threads, cache.

    Returns:
        A `tf.data.Dataset` as of `frames_dataset`; with `subset="both"` that of
        training and that of validation. Each has the attributes `file_paths` (its
        files), `recordings` (with what was skipped) and `standardization` (the
        mean and the deviation, for `keras_gated.GaussianMixture`, which keeps them
        with the model; `(0, 1)` if none).

    Raises:
        ValueError: The folder holds no sound file that can be read, a part none
            long enough for a sequence, or the arguments do not go together; or
            all samples of training are alike, so that nothing can be divided by
            their deviation.
        AudioError: With `errors="raise"`: a file cannot be read.
        ImportError: The decoder is not installed.

    Example:

    >>> import numpy as np
    >>> from keras_gated.datasets import audio, audio_dataset_from_directory
    >>> for k in range(4):
    ...     audio.write(np.sin(np.arange(900.0 + k)), f"four/tone{k}.wav", 8000)
    >>> train, valid = audio_dataset_from_directory(
    ...     "four", sequence_length=300, validation_split=0.25, subset="both", seed=1,
    ...     verbose=0,
    ... )
    >>> len(train.file_paths), len(valid.file_paths)
    (3, 1)
    """
    check_split(validation_split, subset, shuffle, seed)
    paths, unlisted = find_files(directory, SUFFIXES, "sound file", follow_links)
    recordings = read_files(paths, sample_rate, verbose=verbose, **arguments)
    recordings.skipped.update(unlisted)
    if verbose:
        print(recordings)
    parts = {"training": recordings}
    if validation_split is not None:
        both = recordings.split(validation_split, shuffle, seed, groups)
        parts = dict(zip(("training", "validation"), both, strict=True))
    if standardize is True:
        standardize = parts["training"].standardization()
    standardization = Standardization(*(standardize or (0.0, 1.0)))
    wanted = list(parts) if subset == "both" else [subset or "training"]
    datasets = []
    for name in wanted:
        dataset = frames_dataset(
            parts[name],
            frame_length,
            target_length,
            hop,
            sequence_length,
            batch_size,
            shuffle,
            seed,
            join,
            remainder,
            standardization,
            max_shapes,
        )
        dataset.file_paths = parts[name].paths
        dataset.recordings = parts[name]
        dataset.standardization = standardization
        datasets.append(dataset)
    return tuple(datasets) if len(datasets) > 1 else datasets[0]
