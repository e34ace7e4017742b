"""Recordings as bytes: 16 bits where they hold all of it, or else 32.

Sound of 16 bits that is neither mixed nor resampled takes half the room of 32-bit
floating-point numbers, and not a bit of it is lost.
"""

import functools
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from .. import checks
from ..files import os_errors_as, require
from .decoders import AudioError, check_rate, decode, decoder_name

if TYPE_CHECKING:
    import tensorflow as tf

BITS = (16, 32)
"""What samples may take."""
FULL_SCALE = 2**15
"""Integers of 16 bits are divided by it."""
LARGEST = 2**30
"""Bytes; a record may not have 2 ** 31."""


def packed_reader(
    sampling_rate: int,
    bits: int = 32,
    channel: int | None = None,
    decoder: str = "auto",
    max_seconds: float | None = 3600.0,
    errors: str = "raise",
) -> Callable[[str, bytes], tuple[bytes, list]]:
    """Makes a function that reads files with the same options.

    Args:
        sampling_rate: As in `read_packed`.
        bits: As in `read_packed`. Default: 32.
        channel: As in `read_packed`. Default: `None`.
        decoder: As in `read_packed`. Default: `"auto"`.
        max_seconds: As in `read_packed`. Default: 3,600, an hour.
        errors: As in `read_packed`. Default: `"raise"`.

    Returns:
        `read_packed`, as a function of a name and a path.

    Raises:
        ImportError: soundfile, PyAV or soxr is not installed. With only some of them
            other files would be read than elsewhere.
        ValueError: An argument is out of its range.
    """
    decoder_name(decoder)
    check_rate(sampling_rate)
    checks.one_of("bits", bits, BITS)
    checks.whole("channel", channel, 0, optional=True)
    checks.number("max_seconds", max_seconds, above=0, optional=True)
    for package in ("soundfile", "av", "soxr"):
        require(package, extra="audio")
    return functools.partial(
        read_packed,
        sampling_rate=sampling_rate,
        bits=bits,
        channel=channel,
        decoder=decoder,
        max_seconds=max_seconds,
        errors=errors,
    )


def read_packed(
    name: str,
    content: bytes,
    sampling_rate: int,
    bits: int,
    channel: int | None,
    decoder: str,
    max_seconds: float | None,
    errors: str,
) -> tuple[bytes, list]:
    """Reads a sound file as packed samples of one channel.

    Args:
        name: The name of the file, for messages.
        content: Its path on this machine: a decoder reads a file in parts.
        sampling_rate: Samples per second to resample to.
        bits: 32 for the samples as they are, in 16 bits where those hold all of them;
            or 16 to round them to 16 bits, which clips values beyond -1 and 1.
        channel: The number of the channel to keep, or `None` for the mean of all.
        decoder: As in `audio.read`.
        max_seconds: Longer sound is refused.
        errors: As in `audio.read`.

    Returns:
        The samples, `int16` or `float32`, and a list: their bits, their sum, the sum of
        their squares, and what was found, in words that go on from the name.

    Raises:
        AudioError: The file cannot be read, or is too long.
    """
    path = os.fsdecode(content)
    blocks = []
    try:
        with os_errors_as(AudioError, path):
            sound = decode(
                path, sampling_rate, True, decoder, max_seconds, channel, errors
            )
            blocks += (np.ravel(block) for block in sound.blocks)
    except AudioError as error:
        # The file may be a copy.
        raise AudioError(
            str(error).replace(repr(path), repr(name)), error.kind
        ) from error
    findings = [str(finding) for finding in sound.about]
    size = sum(block.nbytes for block in blocks)
    if size > LARGEST:
        raise AudioError(
            f"{name!r} has {size // 4:,} samples; a record holds {LARGEST // 4:,}.",
            "too long",
        )
    if bits == 16:
        clipped = sum(np.count_nonzero(np.abs(block) > 1) for block in blocks)
        if clipped:
            findings.append(
                f"has {clipped:,} samples beyond -1 and 1; they are clipped"
            )
        blocks = [_integers(block) / np.float32(FULL_SCALE) for block in blocks]
    elif all(np.array_equal(_integers(x), x * FULL_SCALE) for x in blocks):
        bits = 16
    total = sum(float(x.sum(dtype=np.float64)) for x in blocks)
    squares = sum(float(np.square(x, dtype=np.float64).sum()) for x in blocks)
    packed = ((_integers(x) if bits == 16 else x.astype("<f4")) for x in blocks)
    data = b"".join(x.tobytes() for x in packed)
    return data, [bits, total, squares, findings]


def _integers(samples: np.ndarray) -> np.ndarray:
    """The nearest integers of 16 bits."""
    scaled = np.rint(samples * np.float32(FULL_SCALE))
    return scaled.clip(-FULL_SCALE, FULL_SCALE - 1).astype("<i2")


def unpack(samples: "tf.Tensor", bits: "tf.Tensor") -> "tf.Tensor":
    """Packed samples as numbers, in the graph.

    Args:
        samples: As `read_packed` returns them, a scalar string.
        bits: Their bits, a scalar.

    Returns:
        `float32 [samples]`.
    """
    tf = require("tensorflow")
    return tf.cond(
        bits == 16,
        lambda: tf.cast(tf.io.decode_raw(samples, tf.int16), tf.float32) / FULL_SCALE,
        lambda: tf.io.decode_raw(samples, tf.float32),
    )
