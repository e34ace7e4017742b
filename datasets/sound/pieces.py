"""Decoded sound in pieces: of one form, one after the other, of parts of a file."""

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import BinaryIO, NamedTuple

import numpy as np

from ..files import Finding, open_binary, require

BLOCK = 2**18
"""The number of samples that are decoded at a time, to limit the memory."""
CANCELLED = 0.1
"""Channels cancel where their mean has less than this fraction of the power that it
would have if they were independent."""


class Decoded(NamedTuple):
    """What a decoder makes of a file."""

    sampling_rate: int
    """Samples per second."""
    channels: int
    """The number of channels."""
    blocks: Iterator[np.ndarray]
    """The samples, `float32 [samples, channels]`; if some are missing, it ends in a
    `MissingSamplesError`."""
    notes: list[Finding]
    """What was noticed; it grows while the blocks are decoded."""
    promised: int = 0
    """How many samples the decoder expects, if it says so."""


class MissingSamplesError(Exception):
    """Not all samples can be decoded.

    Args:
        reason: What is missing: `"is cut off: ..."`.
        kind: What it is, for reports.
    """

    def __init__(self, reason: str, kind: str = "cut off") -> None:
        super().__init__(reason)
        self.finding = Finding(reason, kind)


class _Window(io.RawIOBase):
    """Some bytes of a file, as a file.

    Args:
        file: The file; it is closed with the window.
        begin: The first byte.
        end: The first byte after the last.
    """

    def __init__(self, file: BinaryIO, begin: int, end: int) -> None:
        self._file, self._begin, self._end = file, begin, end
        self._at = begin

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {0: self._begin, 1: self._at, 2: self._end}[whence]
        self._at = max(self._begin, start + offset)
        return self._at - self._begin

    def tell(self) -> int:
        return self._at - self._begin

    def readinto(self, buffer: memoryview) -> int:
        self._file.seek(self._at)
        size = max(0, min(len(buffer), self._end - self._at))
        count = self._file.readinto(memoryview(buffer)[:size])
        self._at += count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def one_after_the_other(
    decode: Callable[[BinaryIO], Decoded], path: str, parts: Sequence[tuple[int, int]]
) -> Decoded:
    """Decodes several sounds in a file as one, in the form of the first.

    Args:
        decode: Decodes one.
        path: The file.
        parts: The first byte of each sound and the first after it; one at least.
    """
    files = (_Window(open_binary(path), begin, end) for begin, end in parts)
    first = decode(next(files))
    form = first.sampling_rate, first.channels

    def pieces() -> Iterator[tuple[int, np.ndarray]]:
        for block in first.blocks:
            yield first.sampling_rate, block
        for file in files:
            part = decode(file)
            with contextlib.closing(part.blocks):
                for block in part.blocks:
                    yield part.sampling_rate, block
            first.notes.extend(part.notes)

    return first._replace(blocks=in_one_form(pieces(), *form, first.notes))


def in_form_of(first: Decoded, other: Decoded) -> Decoded:
    """Gives a sound the rate and the channels of another.

    Args:
        first: Has that form.
        other: The sound.
    """
    pieces = ((other.sampling_rate, block) for block in other.blocks)
    blocks = in_one_form(pieces, first.sampling_rate, first.channels, other.notes)
    return Decoded(first.sampling_rate, first.channels, blocks, other.notes)


def in_one_form(
    pieces: Iterable[tuple[int, np.ndarray]],
    sampling_rate: int,
    channels: int,
    notes: list[Finding],
) -> Iterator[np.ndarray]:
    """Gives pieces of sound the same rate and the same channels.

    Args:
        pieces: The rate and the samples, `float32 [samples, channels]`, of each.
        sampling_rate: Samples per second of what comes out.
        channels: The number of channels of what comes out: where a piece has another,
            all are copies of its mean.
        notes: Is told of changes.

    Yields:
        Blocks of samples, none of them empty.
    """
    told: set[str] = set()
    rate, resampler = sampling_rate, None

    def rest() -> np.ndarray:
        return resampler.resample_chunk(np.empty((0, channels), np.float32), last=True)

    for new_rate, block in pieces:
        reason = ""
        if block.shape[1] != channels:
            reason = f"changes from {channels} to {block.shape[1]} channels"
            mean = block.mean(axis=1, keepdims=True)
            block = np.ascontiguousarray(np.broadcast_to(mean, (len(block), channels)))
        if new_rate != rate:
            if resampler is not None and len(end := rest()):
                yield end
            rate, resampler = new_rate, None
            if rate != sampling_rate:
                soxr = require("soxr", extra="audio")
                resampler = soxr.ResampleStream(
                    rate, sampling_rate, channels, dtype="float32"
                )
        if rate != sampling_rate:
            reason = f"changes from {sampling_rate:,} to {rate:,} samples per second"
        if resampler is not None:
            block = resampler.resample_chunk(block)
        if reason and reason not in told:
            told.add(reason)
            reason += "; it is converted to the form of its beginning"
            notes.append(Finding(reason, "changes its form in the middle"))
        if len(block):
            yield block
    if resampler is not None and len(end := rest()):
        yield end


def mixed(
    blocks: Iterator[np.ndarray], findings: list[Finding]
) -> Iterator[np.ndarray]:
    """The mean of the channels.

    Args:
        blocks: The samples, `float32 [samples, channels]`.
        findings: Is told of channels that cancel each other.

    Yields:
        The means, `float32 [samples, 1]`.
    """
    whole = left = 0.0
    cancelled = total = 0
    for block in blocks:
        mean = block.mean(axis=1, keepdims=True)
        # What the mean of independent channels would have, and what this one has.
        power = float(np.vdot(block, block)) / block.shape[1] ** 2
        kept = float(np.vdot(mean, mean))
        whole, left = whole + power, left + kept
        total += len(block)
        cancelled += len(block) * (kept < CANCELLED * power)
        yield mean
    if left < CANCELLED * whole or cancelled > total / 10:
        reason = (
            "has channels that cancel each other when they are mixed, in "
            f"{cancelled / total:.0%} of its length; `channel=0` takes one of them"
        )
        findings.append(Finding(reason, "channels that cancel"))


def resampled(
    blocks: Iterator[np.ndarray], channels: int, rate: int, wanted: int
) -> Iterator[np.ndarray]:
    """Resamples by soxr, in high quality.

    Args:
        blocks: The samples, `float32 [samples, channels]`.
        channels: The number of channels.
        rate: Samples per second of the blocks.
        wanted: Samples per second of what comes out.

    Yields:
        Blocks of samples.
    """
    soxr = require("soxr", extra="audio")
    stream = soxr.ResampleStream(rate, wanted, channels, dtype="float32")
    for block in blocks:
        yield stream.resample_chunk(block)
    yield stream.resample_chunk(np.empty((0, channels), np.float32), last=True)
