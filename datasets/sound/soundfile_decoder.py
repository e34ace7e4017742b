"""Sound files to samples by soundfile, which is libsndfile in a wheel."""

import os
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from ..files import require
from .headers import FRAMES_OF_DELAY, WHOLE, Layout
from .pieces import BLOCK, Decoded, MissingSamplesError, one_after_the_other


def decode_by_soundfile(path: str, layout: Layout = WHOLE) -> Decoded:
    """Decodes a file by soundfile.

    Args:
        path: The file.
        layout: What its bytes say. Default: it is one sound, and whole.

    Returns:
        The samples. Integers of n bits are divided by 2 ** (n - 1).

    Raises:
        ValueError: soundfile does not know what the file is.
        RuntimeError: soundfile cannot read it.
        ImportError: soundfile is not installed.
    """

    def decode(file: BinaryIO | bytes | str) -> Decoded:
        return _decode(file, layout)

    if layout.parts:
        return one_after_the_other(decode, path, layout.parts)
    return decode(name_of(path))


def name_of(path: str) -> str | bytes:
    """The name for libsndfile: bytes, as it may not be UTF-8; but not on Windows.

    Args:
        path: The file.
    """
    return path if os.name == "nt" else os.fsencode(path)


def _decode(source: BinaryIO | bytes | str, layout: Layout) -> Decoded:
    soundfile = require("soundfile", extra="audio")
    file = soundfile.SoundFile(source)
    # soundfile seeks after each block to where it is, which MPEG does not survive: its
    # frames depend on those before, and samples beyond a seam would be wrong.
    file.seekable = lambda: False
    promised, channels = file.frames, file.channels
    if not layout.known and file.format == "MP3":
        file.close()
        raise ValueError("Format not recognised")

    def blocks() -> Iterator[np.ndarray]:
        read = 0
        with file:
            size = max(1, BLOCK // channels)
            while len(block := file.read(size, dtype="float32", always_2d=True)):
                read += len(block)
                yield block
        expected = promised
        if layout.samples is not None:
            expected = layout.samples - FRAMES_OF_DELAY
        if read < expected:
            raise MissingSamplesError(
                f"is cut off: its header promises {expected:,} samples, and {read:,} "
                f"can be read; {100 - 100 * read / expected:.3g} % is missing"
            )
        if layout.doubt and layout.samples is None:
            reason = f"may be read only in part by soundfile: {layout.doubt}"
            raise MissingSamplesError(
                f"{reason}; PyAV reads it", "read in part by soundfile"
            )

    return Decoded(file.samplerate, channels, blocks(), [], promised)
