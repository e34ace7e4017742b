"""Sound files to samples, decoded by soundfile or tensorflow-io.

Both give the same samples of PCM and FLAC, bit for bit: integers of n bits are divided
by 2 ** (n - 1). Lossy formats differ in the last bits.
"""

import functools
import importlib.util
import logging
import os
import re
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .. import checks
from ..files import FileError, open_binary, require

if TYPE_CHECKING:
    import tensorflow as tf

DECODERS = ("auto", "soundfile", "tensorflow-io")
"""The decoders; `"auto"` is tensorflow-io if it loads."""
SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
"""The endings by which sound files are known, in any case."""
LOWEST_RATE, HIGHEST_RATE = 100, 1_000_000
"""Rates beyond these, in samples per second, are refused as mistakes."""
BLOCK = 2**18
"""The number of samples that are decoded at a time, to limit the memory."""
LARGEST_AT_ONCE = 2**24
"""tensorflow-io, which holds all samples in memory, decodes files of up to so many."""

KINDS = {
    ("WAV", "PCM_U8"): ("wav", "uint8"),
    ("WAV", "PCM_16"): ("wav", "int16"),
    ("WAV", "PCM_24"): ("wav", "int32"),
    ("WAV", "FLOAT"): ("wav", "float32"),
    ("FLAC", "PCM_S8"): ("flac", "uint8"),
    ("FLAC", "PCM_16"): ("flac", "int16"),
    ("FLAC", "PCM_24"): ("flac", "int32"),
    ("OGG", "VORBIS"): ("ogg", "float32"),
    ("MP3", "MPEG_LAYER_III"): ("mp3", "float32"),
}
"""By soundfile's names of format and subtype: container and type for tensorflow-io. (It
would read 32-bit integers in WAV files as floating-point numbers.)"""

log = logging.getLogger("keras_gated")


class AudioError(FileError):
    """A sound file cannot be read; the message names it and says why."""


class Sound(NamedTuple):
    """A sound file that has been opened."""

    sampling_rate: int
    """Samples per second."""
    channels: int
    """The number of channels."""
    blocks: Iterator[np.ndarray]
    """The samples, `float32 [samples, channels]`, one block at a time."""


def decoder_name(decoder: str = "auto") -> str:
    """The name of the decoder that will be used.

    Args:
        decoder: `"soundfile"`, `"tensorflow-io"` (which loads with TensorFlow 2.16
            and 2.17), or `"auto"`, tensorflow-io if it loads, and soundfile for the
            files that it cannot read. Default: `"auto"`.

    Returns:
        `"soundfile"` or `"tensorflow-io"`.

    Raises:
        ImportError: It is not installed, or does not load.
        ValueError: There is no such decoder.
    """
    checks.one_of("decoder", decoder, DECODERS)
    why = why_no_tensorflow_io() if decoder != "soundfile" else ""
    if decoder == "tensorflow-io" and why:
        raise ImportError(
            f"decoder='tensorflow-io' needs the extra `tfio`, and TensorFlow 2.16 or "
            f"2.17: {why} (decoder='soundfile' reads the same files.)"
        )
    if decoder == "soundfile" or why:
        require("soundfile", extra="audio")
        return "soundfile"
    return "tensorflow-io"


@functools.cache
def why_no_tensorflow_io() -> str:
    """The reason why tensorflow-io cannot be used; empty if it can."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from tensorflow_io import audio

            # If the library does not load, the import only warns.
            audio.decode_wav(SHORTEST_WAV, dtype="int16")
    except Exception as error:  # an ImportError, or an error of TensorFlow
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return ""


SHORTEST_WAV = (
    b"RIFF\x26\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x40\x1f\0\0\x80\x3e\0\0\2\0\x10\0"
    b"data\2\0\0\0\1\0"
)


def decode(
    path: str | os.PathLike,
    sampling_rate: int | None = None,
    mono: bool = False,
    decoder: str = "auto",
    max_seconds: float | None = None,
) -> Sound:
    """Opens a sound file.

    Args:
        path: The file.
        sampling_rate: Samples per second to resample to. Default: `None`, those of
            the file.
        mono: Whether to mix the channels to their mean. Default: `False`.
        decoder: As in `decoder_name`. Default: `"auto"`.
        max_seconds: Longer sound is refused. Default: `None`, no limit.

    Returns:
        The rate, the channels, and an iterator over the samples.

    Raises:
        AudioError: (a `ValueError`) The file cannot be read; the iterator may raise
            it, too.
        FileNotFoundError: There is no such file.
        OSError: The file cannot be read.
        ImportError: The decoder, or what resamples, is not installed.
        ValueError: An argument is out of its range.
    """
    decoder_name(decoder)
    sampling_rate = check_rate(sampling_rate)
    checks.number("max_seconds", max_seconds, above=0, optional=True)
    path = os.fspath(path)
    with open_binary(path) as file:  # the decoders' errors are less clear
        if not file.read(1):
            raise AudioError(f"{path!r} is not a sound file: it is empty.")
    sound = _open(path, decoder)
    if not LOWEST_RATE <= sound.sampling_rate <= HIGHEST_RATE:
        raise AudioError(
            f"{path!r} claims {sound.sampling_rate:,} samples per second; from "
            f"{LOWEST_RATE:,} to {HIGHEST_RATE:,} are read."
        )
    rate, channels = sound.sampling_rate, sound.channels
    blocks = _checked(path, sound, max_seconds)
    if mono and channels > 1:
        channels = 1
        blocks = (block.mean(axis=1, keepdims=True) for block in blocks)
    if sampling_rate is not None and sampling_rate != rate:
        blocks = _resampled(blocks, channels, rate, sampling_rate)
        rate = sampling_rate
    return Sound(rate, channels, blocks)


def check_rate(sampling_rate: int | None) -> int | None:
    """Checks a rate to resample to.

    Args:
        sampling_rate: Samples per second, or `None`.

    Returns:
        The rate.

    Raises:
        ValueError: It is out of range.
    """
    return checks.whole(
        "sampling_rate", sampling_rate, LOWEST_RATE, HIGHEST_RATE, optional=True
    )


def _open(path: str, decoder: str) -> Sound:
    name = decoder_name(decoder)
    start = {"soundfile": _with_soundfile, "tensorflow-io": _with_tensorflow_io}[name]
    try:
        return start(path)
    except Exception as error:  # a bad byte makes the decoders raise anything
        if (decoder, name) == ("auto", "tensorflow-io") and has_soundfile():
            return _open(path, "soundfile")  # it reads more formats
        raise _unreadable(path, error) from error


def has_soundfile() -> bool:
    """Whether the package is installed."""
    return importlib.util.find_spec("soundfile") is not None


def _unreadable(path: str, error: Exception) -> AudioError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    reason = re.sub(r"^\{\{.*?\}\} *| \[Op:.*", "", reason)  # TensorFlow's own
    return AudioError(f"{path!r} is not a readable sound file: {reason}")


def _checked(
    path: str, sound: Sound, max_seconds: float | None
) -> Iterator[np.ndarray]:
    total = 0
    blocks = sound.blocks
    while True:
        try:
            block = next(blocks, None)
        except Exception as error:
            raise _unreadable(path, error) from error
        if block is None:
            break
        if not np.isfinite(block).all():
            at = total + int(np.argmin(np.isfinite(block).all(axis=1)))
            raise AudioError(
                f"{path!r} holds values that are not finite, first in sample {at:,}."
            )
        total += len(block)
        if max_seconds is not None and total > max_seconds * sound.sampling_rate:
            raise AudioError(
                f"{path!r} lasts longer than {max_seconds:,.0f} seconds, the limit "
                "(max_seconds)."
            )
        yield block
    if not total:
        raise AudioError(f"{path!r} holds no samples.")


def _resampled(
    blocks: Iterator[np.ndarray], channels: int, rate: int, wanted: int
) -> Iterator[np.ndarray]:
    soxr = require("soxr", extra="audio")
    stream = soxr.ResampleStream(rate, wanted, channels, dtype="float32")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.empty((0, channels), np.float32), last=True)


def _with_soundfile(path: str) -> Sound:
    soundfile = require("soundfile", extra="audio")
    file = soundfile.SoundFile(path)
    promised, channels = file.frames, file.channels

    def blocks() -> Iterator[np.ndarray]:
        read = 0
        with file:
            size = max(1, BLOCK // channels)
            while len(block := file.read(size, dtype="float32", always_2d=True)):
                read += len(block)
                yield block
        if read < promised:
            raise ValueError(
                f"it is cut off: its header promises {promised:,} samples, and "
                f"{read:,} can be read."
            )

    return Sound(file.samplerate, channels, blocks())


def _with_tensorflow_io(path: str) -> Sound:
    tf = require("tensorflow")

    soundfile = require("soundfile", extra="audio")
    with soundfile.SoundFile(path) as file:
        kind = file.format.removesuffix("EX"), file.subtype
        frames, channels = file.frames, file.channels
    if kind not in KINDS:
        raise ValueError(f"tensorflow-io does not read {' '.join(kind)}")
    if frames * channels > LARGEST_AT_ONCE:
        raise ValueError(
            f"its {frames:,} samples are too many to be held in memory, as "
            "tensorflow-io does; decoder='soundfile' reads them"
        )
    # tensorflow-io may hang on a damaged file or end the process; so soundfile, which
    # does neither, reads every file first.
    checked = _with_soundfile(path)
    shape = sum(len(block) for block in checked.blocks), checked.channels
    samples = decode_in_graph(tf.io.read_file(path), *KINDS[kind], shape).numpy()
    size = max(1, BLOCK // checked.channels)
    blocks = (samples[k : k + size] for k in range(0, len(samples), size))
    return Sound(checked.sampling_rate, checked.channels, blocks)


def decode_in_graph(
    content: "tf.Tensor",
    container: str,
    dtype: str = "float32",
    shape: tuple[int, int] | None = None,
) -> "tf.Tensor":
    """Decodes a sound file with operations of tensorflow-io, in a graph.

    For your own `tf.data` pipelines over files of one kind: `files
    .map(tf.io.read_file).map(lambda file: decode_in_graph(file, "flac", "int16"))`.
    Use it only on files that you trust: some damaged files make tensorflow-io hang or
    end the process. `audio.read` checks for that first.

    Args:
        content: The content of the file, a scalar string.
        container: `"wav"`, `"flac"`, `"ogg"` or `"mp3"`.
        dtype: The type of the samples of WAV and FLAC: `"uint8"` (8 bits),
            `"int16"`, `"int32"` (24 bits), and for WAV `"float32"`. Default:
            `"float32"`.
        shape: `(samples, channels)`. Default: `None`, as in the file.

    Returns:
        The samples, `float32 [samples, channels]`, scaled as by `audio.read`.

    Raises:
        tf.errors.InvalidArgumentError: The file cannot be read.
        ImportError: tensorflow-io is not installed, or does not load.
    """
    decoder_name("tensorflow-io")
    import tensorflow as tf
    from tensorflow_io import audio

    if container in ("wav", "flac"):
        decode = {"wav": audio.decode_wav, "flac": audio.decode_flac}[container]
        samples = decode(content, shape, dtype=dtype)
    else:
        decode = {"ogg": audio.decode_vorbis, "mp3": audio.decode_mp3}[container]
        samples = decode(content, shape)
    kind = samples.dtype
    samples = tf.cast(samples, tf.float32)
    if kind == tf.uint8:
        samples = samples / 128 - 1
    elif kind.is_integer:
        samples /= 2 ** (8 * kind.size - 1)
    return tf.ensure_shape(samples, (None, None))
