"""Sound files to samples by PyAV, which is FFmpeg in a wheel."""

import collections
from collections.abc import Iterator
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np

from ..files import Finding, open_binary, require
from .headers import FRAMES_OF_DELAY, WHOLE, Layout
from .pieces import (
    BLOCK,
    Decoded,
    MissingSamplesError,
    in_one_form,
    one_after_the_other,
)

FORMATS = (
    *("wav", "w64", "aiff", "caf", "au", "flac", "ogg", "mp3", "aac", "ac3", "eac3"),
    *("amr", "amrnb", "amrwb", "mov", "mp4", "matroska", "asf", "avi", "flv", "mpeg"),
    *("mpegts", "ape", "wv", "tta", "mpc", "mpc8", "dts", "dtshd", "truehd", "mlp"),
    *("tak", "shn", "voc", "gsm", "loas", "latm", "qcp", "spx", "rm", "oma", "dsf"),
    *("iff", "sox", "nistsphere", "ircam", "smjpeg", "mmf", "xwma", "qoa"),
)
"""FFmpeg's names of what holds sound. Nothing else is opened: FFmpeg takes some text
for playlists, and opens the files and addresses in them."""
TOLERANCE = 0.1
"""Containers count the silence that encoders add, and round; they may promise so many
seconds more than there are. As much may be damaged before it is an error."""
LENGTH_IS_GUESSED = {
    *("mp3", "aac", "ac3", "eac3", "amr", "amrnb", "amrwb", "dts", "dtshd", "mpeg"),
    *("mpegts", "truehd", "mlp", "loas", "latm", "flv", "wav", "w64", "rm", "gsm"),
}
"""Formats whose length FFmpeg guesses from their bits per second, or which `headers`
looks at."""
LENGTH_IS_EXACT = {"flac", "tta", "wv", "ape", "tak"}
"""Formats that say their number of samples."""


def decode_by_pyav(path: str, layout: Layout = WHOLE, checked: bool = True) -> Decoded:
    """Decodes the sound in a file, of any format that FFmpeg knows.

    Args:
        path: The file.
        layout: What its bytes say. Default: it is one sound, and whole.
        checked: Whether to leave out what does not agree with its checksum. Default:
            `True`.

    Returns:
        The samples. Integers of n bits are divided by 2 ** (n - 1).

    Raises:
        NoSoundError: The file holds no sound.
        DamagedError: Nothing of it can be decoded.
        ValueError: It is of no known format.
        ImportError: PyAV is not installed.
    """
    promised = None
    if layout.samples is not None and not layout.parts:
        promised = layout.samples - FRAMES_OF_DELAY

    def decode(file: BinaryIO) -> Decoded:
        try:
            return _decode(file, promised, checked)
        except BaseException:
            file.close()
            raise

    if layout.parts and checked:
        return one_after_the_other(decode, path, layout.parts)
    return decode(open_binary(path))


def _decode(file: BinaryIO, promised: int | None, checked: bool) -> Decoded:
    """Decodes a file that has so many samples at least; the last block closes it."""
    av = require("av", extra="audio")
    # Later ones read what files say of themselves when they are asked, which we do not.
    at_once = int(av.__version__.partition(".")[0]) < 19
    options = {"metadata_errors": "ignore"} if at_once else {}
    try:
        container = av.open(
            _Nameless(file),
            container_options={"format_whitelist": ",".join(FORMATS)},
            io_open=_refuse,
            **options,
        )
    except av.FFmpegError as error:
        raise ValueError(_reason(error)) from error
    notes: list[Finding] = []
    stream = container.streams.best("audio") or next(
        iter(container.streams.audio), None
    )
    if stream is None:
        what = ", ".join(sorted({other.type for other in container.streams}))
        container.close()
        raise NoSoundError(f"it holds no sound, only {what or 'nothing'}")
    count = len(container.streams.audio)
    if count > 1:
        number = container.streams.audio.index(stream) + 1
        reason = f"holds {count} streams of sound; number {number} is read"
        notes.append(Finding(reason, "several streams of sound"))
    if checked:
        stream.codec_context.options = {"err_detect": "crccheck+explode"}
    else:
        reason = "is damaged, and its checksums do not agree; some samples may be wrong"
        notes.append(Finding(reason, "damaged"))
    # The threads are the reader's.
    stream.codec_context.thread_count = 1
    pieces = _Pieces(av, container, stream)
    frames = iter(pieces)
    first = next(frames, None)
    if first is None:
        container.close()
        if pieces.lost:
            raise DamagedError(f"nothing of it can be decoded: {pieces.error}")
        raise ValueError(pieces.error or "it holds no samples")
    rate, channels = first[0], first[1].shape[1]

    def blocks() -> Iterator[np.ndarray]:
        total = 0
        with container, file:
            limit = pieces.length(rate)
            every = in_one_form(_gathered(first, frames, BLOCK), rate, channels, notes)
            for samples in every:
                # The encoder's silence at the end is not part of the sound.
                if limit and 0 < total + len(samples) - limit < TOLERANCE * rate:
                    samples = samples[: max(0, limit - total)]
                total += len(samples)
                yield samples
            tolerance = TOLERANCE * rate
            if {*container.format.name.split(",")} & LENGTH_IS_EXACT:
                tolerance = 0.0
        _check(pieces, total, limit, tolerance, promised, notes)

    return Decoded(rate, channels, blocks(), notes)


class NoSoundError(ValueError):
    """A file of video, pictures or text."""


class DamagedError(ValueError):
    """A sound of which nothing can be decoded."""


class _Nameless:
    """A file without its name, from which FFmpeg would guess; nor need it be text."""

    def __init__(self, file: BinaryIO) -> None:
        self._seek = file.seek
        self.read, self.tell = file.read, file.tell

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self._seek(offset, whence)
        except (OSError, ValueError):  # a damaged file points to before its beginning
            return -1


def _refuse(url: str, *_: Any) -> BinaryIO:
    raise PermissionError(f"it refers to another file, {url!r}")


class _Pieces:
    """The frames of a stream: rate and samples of each; and what could not be had."""

    def __init__(self, av: ModuleType, container: Any, stream: Any) -> None:
        self._av, self._container, self._stream = av, container, stream
        self.error = ""
        """The first error."""
        self.packets = 0
        self.sizes: collections.deque[int] = collections.deque([0, 0], 4)
        """The bytes of the last packets."""
        self.lost: list[int] = []
        """The numbers of the packets that could not be decoded."""
        self.lost_seconds = 0.0
        self.ended_early = False
        """Whether the file, rather than a packet, could not be read on."""

    def __iter__(self) -> Iterator[tuple[int, np.ndarray]]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except Exception as error:  # a bad byte makes PyAV raise IndexError, too
                self.error, self.ended_early = self.error or _reason(error), True
                return
            if packet is None:
                return
            self.packets += 1
            self.sizes.append(packet.size)
            try:
                frames = packet.decode()
            except self._av.EOFError:
                continue
            except self._av.FFmpegError as error:
                self.error = self.error or _reason(error)
                self.lost.append(self.packets)
                self.lost_seconds += self._seconds(packet)
                continue
            for frame in frames:
                if frame.samples and frame.sample_rate > 0:
                    yield frame.sample_rate, _samples(frame)

    def _seconds(self, packet: Any) -> float:
        if packet.duration and packet.time_base:
            return float(packet.duration * packet.time_base)
        context = self._stream.codec_context
        return (context.frame_size or 1024) / (context.sample_rate or 8000)

    def ends_in_a_short_packet(self) -> bool:
        """Whether the last packet is shorter than those before, where all are alike."""
        if self._container.format.name not in ("ac3", "eac3", "dts"):
            return False
        *before, last, _ = self.sizes  # and after the last an empty one
        return last < 0.9 * min(before, default=0)

    def length(self, rate: int) -> int | None:
        """How many samples the container promises, if it knows."""
        if {*self._container.format.name.split(",")} & LENGTH_IS_GUESSED:
            return None
        if self._stream.duration is not None and self._stream.time_base:
            return round(self._stream.duration * self._stream.time_base * rate)
        if self._container.duration is not None and len(self._container.streams) == 1:
            return round(self._container.duration * rate / self._av.time_base)
        return None


def _gathered(
    first: tuple[int, np.ndarray],
    frames: Iterator[tuple[int, np.ndarray]],
    block: int,
) -> Iterator[tuple[int, np.ndarray]]:
    """Joins frames, which are short, to blocks."""
    kind, parts, samples = (first[0], first[1].shape[1]), [first[1]], first[1].size
    for rate, part in frames:
        if (rate, part.shape[1]) != kind or samples >= block:
            yield kind[0], np.concatenate(parts)
            kind, parts, samples = (rate, part.shape[1]), [], 0
        parts.append(part)
        samples += part.size
    yield kind[0], np.concatenate(parts)


def _samples(frame: Any) -> np.ndarray:
    """The samples of a frame, `float32 [samples, channels]`."""
    samples = frame.to_ndarray()
    if frame.format.is_planar:
        samples = samples.T
    else:
        samples = samples.reshape(frame.samples, -1)
    kind = samples.dtype
    samples = samples.astype(np.float32)
    if kind == np.uint8:
        return samples / 128 - 1
    if kind.kind == "i":
        return samples / np.float32(2.0 ** (8 * kind.itemsize - 1))
    return samples


def _check(
    pieces: _Pieces,
    total: int,
    limit: int | None,
    tolerance: float,
    promised: int | None,
    notes: list[Finding],
) -> None:
    """Compares what was decoded with what the container and the packets promise."""
    expected, least = limit, total + tolerance
    if promised is not None:
        expected, least = promised, total
    if expected is not None and expected > least:
        raise MissingSamplesError(
            f"is cut off: it promises {expected:,} samples, and {total:,} can be "
            f"decoded; {100 - 100 * total / expected:.3g} % is missing"
        )
    if pieces.lost:
        # One that is cut off ends the sound of formats without a length.
        last = pieces.lost[0] >= pieces.packets - 1
        reason = (
            f"ends in what cannot be decoded ({pieces.error}); something may be missing"
            if last
            else f"is damaged: {len(pieces.lost):,} of {pieces.packets:,} packets "
            f"cannot be decoded ({pieces.error}), {pieces.lost_seconds:.3g} seconds"
        )
        if not last and pieces.lost_seconds > TOLERANCE:
            raise MissingSamplesError(reason, "damaged")
        notes.append(Finding(reason, "perhaps cut off" if last else "damaged"))
    elif pieces.ends_in_a_short_packet():
        reason = "ends within a packet; something may be missing"
        notes.append(Finding(reason, "perhaps cut off"))
    if pieces.ended_early:
        raise MissingSamplesError(f"cannot be read to its end: {pieces.error}")


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).splitlines()[0]
