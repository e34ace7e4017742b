"""Sound files: to read one or to write one; and the public names for many."""

import logging
import os
from pathlib import Path

import numpy as np

from .. import checks
from ..files import atomic_path, require
from .audio_directory import audio_dataset_from_directory, read_directory
from .decoders import AudioError, decode, error
from .frames import frames_dataset
from .reader import read_files
from .recordings import Recordings, Standardization
from .tensorflow_io_decoder import decode_in_graph

__all__ = [
    "AudioError",
    "Recordings",
    "Standardization",
    "audio_dataset_from_directory",
    "decode_in_graph",
    "frames_dataset",
    "read",
    "read_directory",
    "read_files",
    "write",
]

WRITTEN = (".wav", ".flac", ".ogg", ".mp3")
"""The endings of the files that `write` writes, in any case."""
WRITTEN_AT_ONCE = 2**16
"""Samples; libsndfile ends the process over two millions of OGG Vorbis at once."""

log = logging.getLogger("keras_gated")


def read(
    path: str | os.PathLike,
    sampling_rate: int | None = None,
    *,
    mono: bool = False,
    channel: int | None = None,
    decoder: str = "auto",
    max_seconds: float | None = 86_400.0,
    errors: str = "raise",
) -> tuple[np.ndarray, int]:
    """Reads a sound file: WAV, FLAC, OGG, MP3, and with PyAV what FFmpeg reads.

    What should be known of a sound (its channels cancel each other, it is several
    sounds, a part is missing) is a warning in the log, which names the file.

    Args:
        path: The file.
        sampling_rate: Samples per second to resample to (by soxr, in high quality).
            Default: `None`, those of the file.
        mono: Whether to mix the channels to their mean. Default: `False`.
        channel: The number of the one channel to keep, from 0. Default: `None`, all
            of them, or their mean.
        decoder: `"soundfile"`, `"pyav"`, `"tensorflow-io"` (which loads with
            TensorFlow 2.16 and 2.17), or `"auto"`: tensorflow-io if it loads, else
            soundfile; and PyAV for what they do not read, or only in part. All give
            the same samples of PCM and FLAC. Default: `"auto"`.
        max_seconds: Longer files are refused; `None` for no limit. Default: 86,400,
            a day.
        errors: What to do if a part of the sound is missing, because the file is cut
            off or damaged: `"raise"`, or `"warn"`, which gives the rest and warns how
            much is missing. Default: `"raise"`.

    Returns:
        The samples, `float32 [samples, channels]`, where integers of n bits are
        divided by 2 ** (n - 1); and the number of samples per second.

    Raises:
        AudioError: (a `ValueError`) The file is not a readable sound file, is cut
            off, holds NaN, infinity or values beyond 1e12, lacks the channel, or
            exceeds the limit; the message names it.
        FileNotFoundError: There is no such file.
        OSError: The file cannot be read.
        ImportError: The decoder is not installed.
        ValueError: An argument is out of its range.

    Example:

    >>> import numpy as np
    >>> from keras_gated.datasets import audio
    >>> audio.write(0.5 * np.sin(np.arange(8000)), "tone.wav", 8000)
    >>> samples, sampling_rate = audio.read("tone.wav", sampling_rate=4000)
    >>> samples.shape, sampling_rate
    ((4000, 1), 4000)
    """
    sound = decode(path, sampling_rate, mono, decoder, max_seconds, channel, errors)
    samples = np.concatenate(list(sound.blocks))
    for finding in sound.about:
        log.warning("%s.", error(path, finding))
    return samples, sound.sampling_rate


def write(
    samples: np.ndarray, path: str | os.PathLike, sampling_rate: int, bits: int = 16
) -> None:
    """Writes a sound file, in integers.

    Args:
        samples: `[samples]` or `[samples, channels]`, from -1 to 1; values beyond are
            clipped.
        path: The file to write. Its ending says whether it is WAV, FLAC, OGG or MP3;
            missing folders are made.
        sampling_rate: Samples per second, positive.
        bits: Bits of a sample, 16 or 24 (for WAV and FLAC). Default: 16.

    Raises:
        ImportError: soundfile is not installed.
        ValueError: An argument is out of its range.
    """
    sampling_rate = checks.whole("sampling_rate", sampling_rate)
    suffix = Path(path).suffix.lower()
    if suffix not in WRITTEN or bits not in (16, 24):
        raise ValueError(
            f"Sound is written to files that end in {', '.join(WRITTEN)}, with 16 or "
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
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with (
        atomic_path(path) as file,
        soundfile.SoundFile(file, "w", sampling_rate, channels, subtype) as sound,
    ):
        for begin in range(0, len(samples), WRITTEN_AT_ONCE):
            sound.write(samples[begin : begin + WRITTEN_AT_ONCE].clip(-1, 1))
