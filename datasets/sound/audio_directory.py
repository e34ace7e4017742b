"""Folders of sound files: recordings of all of them, and batches for training."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import checks
from ..files import open_binary
from ..folders import check_no_labels, check_split, find_files, wanted
from .frames import frames_dataset
from .headers import looks_like_sound
from .reader import Listing, read_files
from .recordings import Recordings, Standardization, check_standardize

if TYPE_CHECKING:
    import tensorflow as tf

SUFFIXES = (
    *(".wav", ".flac", ".ogg", ".mp3", ".opus", ".m4a", ".aac", ".wma", ".aif"),
    *(".aiff", ".aifc", ".3g2", ".3gp", ".ac3", ".alac", ".amr", ".ape", ".asf"),
    *(".au", ".avi", ".awb", ".bwf", ".caf", ".dts", ".eac3", ".flv", ".gsm"),
    *(".m4b", ".m4r", ".m4v", ".mka", ".mkv", ".mov", ".mp1", ".mp2", ".mp4"),
    *(".mpc", ".mpeg", ".mpg", ".mpga", ".oga", ".ogv", ".ogx", ".qcp", ".ra"),
    *(".rf64", ".rm", ".snd", ".spx", ".tak", ".tta", ".voc", ".w64"),
    *(".wave", ".weba", ".webm", ".wmv", ".wv"),
)
"""The endings by which sound, and video with sound, is known, in any case."""


def read_directory(
    directory: str | os.PathLike,
    sampling_rate: int | None = None,
    *,
    follow_links: bool = False,
    **arguments: Any,
) -> Recordings:
    """Reads all sound files of a folder and its subfolders.

    Files are known by their endings, or, if they have none, by how they begin: WAV,
    FLAC, OGG, MP3, and all that PyAV reads, with the sound of videos. What cannot be
    read is reported.

    Args:
        directory: The folder.
        sampling_rate: Samples per second to resample to. Default: `None`, those of
            most files.
        follow_links: Whether to go into folders that are links. Default: `False`.
        **arguments: Those of `read_files`.

    Returns:
        The recordings, in the order of their paths, what was skipped and why, and a
        report of all.

    Raises:
        ValueError: The folder does not exist, cannot be read, or holds no sound
            file that can be read; or an argument is out of its range.
        AudioError: With `errors="raise"`: a file cannot be read.
        ImportError: The decoder is not installed.

    Example:

    >>> import numpy as np
    >>> from keras_gated.datasets import audio
    >>> audio.write(np.sin(np.arange(900.0)), "tones/a.wav", 8000)
    >>> audio.read_directory("tones", verbose=False).lengths
    array([900])
    """
    every, skipped, others = find_files(
        directory, (*SUFFIXES, ""), "sound file", follow_links
    )
    paths = [path for path in every if path.suffix or _begins_as_sound(path)]
    if not paths:
        raise ValueError(f"The folder {str(directory)!r} holds no sound file.")
    if len(paths) < len(every):
        others[""] = others.get("", 0) + len(every) - len(paths)
    listing = Listing(paths, Path(directory), skipped, {"other_files": others})
    return read_files(listing, sampling_rate, **arguments)


def _begins_as_sound(path: Path) -> bool:
    try:
        with open_binary(path) as file:
            return looks_like_sound(file.read(16))
    except OSError:
        return True  # so that it is reported


def audio_dataset_from_directory(
    directory: str | os.PathLike,
    labels: None = None,
    label_mode: None = None,
    class_names: None = None,
    batch_size: int = 32,
    sampling_rate: int | None = None,
    output_sequence_length: None = None,
    ragged: bool = False,
    shuffle: bool = True,
    seed: int | None = None,
    validation_split: float | None = None,
    subset: str | None = None,
    follow_links: bool = False,
    verbose: bool = True,
    *,
    frame_length: int = 20,
    target_length: int = 10,
    hop: int | None = None,
    sequence_length: int | None = None,
    join: bool = False,
    remainder: str = "drop",
    standardize: bool | Standardization = True,
    max_shapes: int = 12,
    groups: Callable[[Path], Any] | None = None,
    decoder: str = "auto",
    channel: int | None = None,
    max_seconds: float | None = 86_400.0,
    workers: int | None = None,
    cache: bool = True,
    cache_dir: str | os.PathLike | None = None,
    errors: str = "skip",
) -> "tf.data.Dataset | tuple[tf.data.Dataset, tf.data.Dataset]":
    """Batches for a model that predicts waveforms, from a folder of sound files.

    The first arguments are those of `keras.utils.audio_dataset_from_directory`; the
    batches are those of `frames_dataset`. The targets are the samples that follow, so
    there are no class labels; subfolders are only folders. Files are mixed to one
    channel, unless `channel` picks one.

    Args:
        directory: The folder; its subfolders are read, too: all kinds of sound, as by
            `read_directory`.
        labels: Must be `None`.
        label_mode: Must be `None`.
        class_names: Must be `None`.
        batch_size: The largest number of sequences in a batch. Default: 32.
        sampling_rate: Samples per second to resample to. Default: `None`, those of
            most files.
        output_sequence_length: Must be `None`; `sequence_length` cuts recordings.
        ragged: Must be `False`; padding has weight 0.
        shuffle: Whether to put the files in a random order before they are split,
            and the sequences before each pass. Without it, validation has the last
            files in the order of their paths. Default: `True`.
        seed: The seed of all that is random. Needed where `subset` is one of two
            parts of what is shuffled. Default: `None`.
        validation_split: The fraction of the files, between 0 and 1, that is set
            aside for validation; one file at least. Default: `None`.
        subset: Which part to return: `"training"`, `"validation"` or `"both"`.
            Needed with `validation_split`. Default: `None`.
        follow_links: Whether to go into folders that are links. Default: `False`.
        verbose: Whether to show a progress bar and a report. Default: `True`.
        frame_length: Samples that a step sees. Default: 20.
        target_length: Samples that it predicts. Default: 10.
        hop: Samples from one step to the next. Default: `target_length`.
        sequence_length: Cuts the recordings into sequences of so many samples.
            Default: `None`, whole recordings.
        join: Whether recordings are joined before they are cut. Default: `False`.
        remainder: `"drop"` or `"pad"` the ends that are shorter than a sequence.
            Default: `"drop"`.
        standardize: Whether to bring the samples to mean 0 and standard deviation
            1, by those of the training part; or a pair of a mean and a standard
            deviation to use instead. Default: `True`.
        max_shapes: The largest number of lengths to pad to, if lengths differ.
            Default: 12.
        groups: Maps a path to the group of the file, such as its speaker (`lambda
            path: path.parent.name`); a split never parts a group. Default: `None`,
            each file is its own group.
        decoder: As in `read_files`.
        channel: As in `read_files`.
        max_seconds: As in `read_files`.
        workers: As in `read_files`.
        cache: As in `read_files`.
        cache_dir: As in `read_files`.
        errors: As in `read_files`.

    Returns:
        A `tf.data.Dataset` as that of `frames_dataset`; with `subset="both"` that of
        training and that of validation. Each has the attributes `file_paths` (its
        files), `recordings` (with what was skipped) and `standardization` (the mean
        and the standard deviation, for `keras_gated.GaussianMixture`, which keeps
        them with the model; `(0, 1)` if the samples are as recorded).

    Raises:
        ValueError: The folder holds no sound file that can be read, a part has
            no recording that is long enough for a sequence, or the arguments do not
            go together; or all samples of training are equal, so that they cannot be
            standardized.
        AudioError: With `errors="raise"`: a file cannot be read.
        ImportError: The decoder is not installed.

    Example:

    >>> import numpy as np
    >>> from keras_gated.datasets import audio, audio_dataset_from_directory
    >>> for k in range(4):
    ...     audio.write(np.sin(np.arange(900.0 + k)), f"four/tone{k}.wav", 8000)
    >>> train, valid = audio_dataset_from_directory(
    ...     "four", sequence_length=300, validation_split=0.25, subset="both", seed=1,
    ...     verbose=False,
    ... )
    >>> len(train.file_paths), len(valid.file_paths)
    (3, 1)
    """
    check_no_labels(labels, label_mode, class_names)
    if output_sequence_length is not None:
        accepted = "None; `sequence_length` cuts recordings into sequences"
        raise checks.error("output_sequence_length", output_sequence_length, accepted)
    if ragged is not False:
        raise checks.error("ragged", ragged, "False; padding has weight 0")
    check_standardize(standardize)
    check_split(validation_split, subset, shuffle, seed)
    recordings = read_directory(
        directory,
        sampling_rate,
        follow_links=follow_links,
        decoder=decoder,
        channel=channel,
        max_seconds=max_seconds,
        workers=workers,
        cache=cache,
        cache_dir=cache_dir,
        errors=errors,
        verbose=verbose,
    )
    parts = {"training": recordings}
    if validation_split is not None:
        both = recordings.split(validation_split, shuffle, seed, groups)
        parts = dict(zip(("training", "validation"), both, strict=True))
    standardization = Standardization.asked_for(
        standardize, parts["training"].standardization
    )
    datasets = []
    for name in wanted(subset):
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
