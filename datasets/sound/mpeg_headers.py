"""MPEG audio (MP3): frames that follow each other, each with a header of its own."""

import struct
from typing import NamedTuple

from ..files import Finding
from .spans import AT_A_TIME, SEARCHED, Header, Span, cut_off

RATES = {0: (11_025, 12_000, 8000), 2: (22_050, 24_000, 16_000)}
RATES[3] = tuple(2 * rate for rate in RATES[2])
BIT_RATES = {
    (3, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (3, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (3, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""Bits per millisecond by version (3: MPEG-1; 2, 0: MPEG-2) and layer."""


def after_id3(span: Span) -> int:
    """Where the sound begins after tags of the kind ID3.

    Args:
        span: The file.
    """
    at = span.begin
    while len(head := span.read(at, 10)) == 10 and head[:3] == b"ID3":
        a, b, c, d = head[6:]
        size = (a & 127) << 21 | (b & 127) << 14 | (c & 127) << 7 | d & 127
        at += 10 + size + (10 if head[5] & 16 else 0)
    return at


class Frame(NamedTuple):
    """A frame of MPEG audio."""

    size: int
    """Its bytes."""
    samples: int
    kind: int
    """The bits of its header that are the same in all frames of a sound: version, layer
    and rate."""
    index_at: int
    """Where in it an index would begin."""


def read_frame(head: bytes) -> Frame | None:
    """Reads the header of a frame.

    Args:
        head: The four bytes with which it begins.

    Returns:
        The frame, or `None` if these are the header of none.
    """
    if len(head) < 4 or head[0] != 0xFF or head[1] < 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bits, rate, padding = head[2] >> 4, head[2] >> 2 & 3, head[2] >> 1 & 1
    if version == 1 or layer == 4 or bits in (0, 15) or rate == 3:
        return None
    bit_rates = BIT_RATES[(3, layer) if version == 3 else (2, min(layer, 2))]
    samples = 384 if layer == 1 else 576 if layer == 3 and version != 3 else 1152
    unit = 4 if layer == 1 else 1  # of size and padding, in bytes
    bytes_a_frame = samples * bit_rates[bits - 1] * 125 // RATES[version][rate]
    size = (bytes_a_frame // unit + padding) * unit
    one = head[3] >> 6 == 3
    side = (17 if one else 32) if version == 3 else (9 if one else 17)
    kind = (head[1] & 0xFE) << 8 | head[2] & 0x0C
    return Frame(size, samples, kind, 4 + side)


def read_mp3(span: Span, begin: int) -> Header:
    """What the frames of a file say, and their index, if it has one.

    Args:
        span: The file.
        begin: Where to look for the first frame.
    """
    at = _first_frame(span, begin)
    if at is None:
        return Header(known=False)
    first = read_frame(span.read(at, 4))
    head = span.read(at, first.size)
    sound = _indexed(span, at, first, head)
    return sound if at == begin else sound._replace(begin=at)


def _indexed(span: Span, at: int, first: Frame, head: bytes) -> Header:
    """Goes by the index in the first frame, if it has one, or else by all frames."""
    index = head[first.index_at :]
    if index[:4] in (b"Xing", b"Info") and len(index) >= 16:
        flags, frames, size = struct.unpack(">III", index[4:16])
        if flags & 3 != 3 or not frames or size < first.size:
            return _counted(span, at, "its index does not say its length")
        return _after_mp3(span, at, at + size, first)
    return _counted(span, at, "it has no index of its frames")


def _first_frame(span: Span, begin: int) -> int | None:
    """The place of the first frame that others follow."""
    block = span.read(begin, SEARCHED)
    at = block.find(b"\xff")
    while at >= 0:
        here, kinds = begin + at, []
        frame = read_frame(block[at : at + 4])
        while frame is not None and len(kinds) < 3:
            kinds.append(frame.kind)
            here += frame.size
            frame = read_frame(span.read(here, 4))
        # Three frames are not found by chance; a short sound has less.
        enough = len(kinds) == 3 or (at == 0 and kinds and here >= span.end)
        if enough and len({*kinds}) == 1:
            return begin + at
        at = block.find(b"\xff", at + 1)
    return None


def _after_mp3(span: Span, begin: int, end: int, first: Frame) -> Header:
    """What follows the frames of which an index knows."""
    if end >= span.end:
        return Header(lost=cut_off(end - begin, span.end - begin, first.size, "frames"))
    for at in (end, end + first.size):  # some do not count the frame of the index
        if span.read(at, 3) == b"ID3" or _first_frame(span, at) == at:
            return Header(end=at, following=True)
    if _no_frames(span, end, first):
        return Header()
    return Header("it is longer than its index says")


def _no_frames(span: Span, at: int, first: Frame) -> bool:
    """Whether nothing but tags or zeros follows, or less than a frame."""
    rest = span.read(at, 2 * SEARCHED)
    tags = (b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"3DI")
    return len(rest) <= first.size or rest.startswith(tags) or not rest.strip(b"\0")


def _counted(span: Span, at: int, doubt: str) -> Header:
    """Counts the samples in the frames that follow each other."""
    samples, first = 0, read_frame(span.read(at, 4))
    block, start = b"", at
    while True:
        if at + 4 > start + len(block):
            block, start = span.read(at, AT_A_TIME), at
        frame = read_frame(block[at - start : at - start + 4])
        if frame is None or at + frame.size > span.end:
            break
        if frame.kind != first.kind:
            if _first_frame(span, at) == at:
                return Header(doubt, samples=samples, end=at, following=True)
            break
        samples += frame.samples
        at += frame.size
    if frame is not None and at + frame.size > span.end:
        reason = "ends within a frame; something may be missing"
        notes = (Finding(reason, "perhaps cut off"),)
        return Header(doubt, notes=notes, samples=samples)
    if not _no_frames(span, at, first):
        return Header(doubt)
    return Header(doubt, samples=samples)
