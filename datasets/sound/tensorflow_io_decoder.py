"""Sound files to samples by tensorflow-io, in a graph."""

import functools
import os
import warnings
from typing import TYPE_CHECKING

from ..files import require
from .headers import WHOLE, Layout
from .pieces import BLOCK, Decoded, MissingSamplesError
from .soundfile_decoder import decode_by_soundfile, name_of

if TYPE_CHECKING:
    import tensorflow as tf

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
LARGEST_AT_ONCE = 2**24
"""tensorflow-io, which holds all samples in memory, decodes files of up to so many."""


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


def check_tensorflow_io() -> None:
    """Raises an `ImportError` if tensorflow-io cannot be used."""
    if why := why_no_tensorflow_io():
        raise ImportError(
            f"decoder='tensorflow-io' needs the extra `tfio`, and TensorFlow 2.16 or "
            f"2.17: {why} (decoder='soundfile' reads the same files.)"
        )


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
    check_tensorflow_io()
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


def decode_by_tensorflow_io(path: str, layout: Layout = WHOLE) -> Decoded:
    """Decodes a file by tensorflow-io, after soundfile has read all of it.

    Args:
        path: The file.
        layout: What its bytes say. Default: it is one sound, and whole.

    Returns:
        The samples. Integers of n bits are divided by 2 ** (n - 1).

    Raises:
        ValueError: tensorflow-io does not read such files, or the file is damaged.
        ImportError: tensorflow-io or soundfile is not installed.
    """
    tf = require("tensorflow")
    soundfile = require("soundfile", extra="audio")
    with soundfile.SoundFile(name_of(path)) as file:
        kind = file.format.removesuffix("EX"), file.subtype
        frames, channels = file.frames, file.channels
    if kind not in KINDS:
        raise ValueError(f"tensorflow-io does not read {' '.join(kind)}")
    if layout != WHOLE:
        raise ValueError("tensorflow-io reads only what its header describes exactly")
    if frames * channels > LARGEST_AT_ONCE:
        raise ValueError(
            f"its {frames:,} samples are too many to be held in memory, as "
            "tensorflow-io does; decoder='soundfile' reads them"
        )
    # tensorflow-io may hang on a damaged file or end the process; so soundfile, which
    # does neither, reads every file first.
    checked = decode_by_soundfile(path, layout)
    try:
        shape = sum(len(block) for block in checked.blocks), checked.channels
    except MissingSamplesError as shortfall:
        raise ValueError(shortfall.finding) from shortfall
    content = tf.io.read_file(os.fsencode(path))
    samples = decode_in_graph(content, *KINDS[kind], shape).numpy()
    size = max(1, BLOCK // checked.channels)
    blocks = (samples[k : k + size] for k in range(0, len(samples), size))
    return checked._replace(blocks=blocks)
