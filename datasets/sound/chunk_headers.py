"""Sound files that consist of chunks with names: WAV, AIFF, CAF and W64."""

import struct
from collections.abc import Iterator

from ..files import Finding
from .spans import SEARCHED, UNKNOWN_SIZES, Header, Span, cut_off

PLAIN = (1, 3, 6, 7, 0xFFFE)
"""The codecs in WAV files whose samples all have the same size: PCM and its kin."""
MP3_IN_WAV = 0x55


def _chunks(
    span: Span, at: int, head: str, least: int = 0, even: int = 2
) -> Iterator[tuple[bytes, int, int]]:
    """The chunks of a file: their names, where their content begins, and its size.

    Args:
        span: The file.
        at: Where the first begins.
        head: How name and size are written, for `struct`.
        least: What the size counts besides the content.
        even: Chunks begin at multiples of it.
    """
    size = struct.calcsize(head)
    while len(block := span.read(at, size)) == size:
        name, length = struct.unpack(head, block)
        length = max(0, length - least)
        yield name, at + size, length
        at += size + length + -length % even


def read_wav(span: Span, order: str) -> Header:
    """What a WAV file says.

    Args:
        span: The file.
        order: `"<"` if the lowest bytes of numbers come first, or else `">"`.
    """
    block = codec = long = 0
    data = None
    for name, begin, size in _chunks(span, span.begin + 12, f"{order}4sI"):
        if name == b"ds64":
            (long,) = struct.unpack("<8xQ", span.read(begin, 16).ljust(16, b"\0"))
        elif name == b"fmt ":
            values = span.read(begin, 14).ljust(14, b"\0")
            codec, block = struct.unpack(f"{order}H10xH", values)
        elif name == b"data":
            data = begin, size
            break
    if data is None:
        return Header()
    begin, length = data
    if long and length == 0xFFFFFFFF:
        length = long
    there = span.end - begin
    doubt = "it is MP3 within WAV" if codec == MP3_IN_WAV else ""
    if length == 0 and there and not _ends_in_chunks(span, begin, order):
        return Header("its header leaves its length open")
    if length >= there:
        lost = cut_off(length, there)
        if codec in PLAIN:
            lost = cut_off(length, there, max(1, block), "samples")
        return Header(doubt, lost, open_ended=length in UNKNOWN_SIZES)
    return _after(span, begin + length + length % 2, order, doubt)


def read_aiff(span: Span) -> Header:
    """What a AIFF file says.

    Args:
        span: The file.
    """
    block = 0
    for name, begin, length in _chunks(span, span.begin + 12, ">4sI"):
        if name == b"COMM" and span.read(span.begin + 8, 4) == b"AIFF":
            values = span.read(begin, 8).ljust(8, b"\0")
            channels, bits = struct.unpack(">H4xH", values)
            block = channels * (-(-bits // 8))
        elif name == b"SSND":
            there = span.end - begin
            if length == 0:  # soundfile goes by the number of samples in COMM
                return Header()
            if length < there:
                return _after(span, begin + length + length % 2, ">")
            if block:
                return Header(lost=cut_off(length - 8, there - 8, block, "samples"))
            return Header(lost=cut_off(length - 8, there - 8))
    return Header()


def _after(span: Span, at: int, order: str, doubt: str = "") -> Header:
    """What follows the samples of WAV and AIFF."""
    end = at
    for name, begin, length in _chunks(span, at, f"{order}4sI"):
        if name in (b"RIFF", b"RIFX", b"RF64", b"FORM") and begin - 8 > span.begin:
            return Header(doubt, end=begin - 8, following=True)
        if not name.isascii() or not name.decode().isprintable():
            break
        end = begin + length + length % 2
        if end >= span.end:
            return Header(doubt)
    rest = span.end - end
    ignored = span.read(end, SEARCHED)
    if rest < 8 or ignored.startswith(b"TAG") or not ignored.strip(b"\0"):
        return Header(doubt)
    reason = f"holds {rest:,} bytes after its sound, which are not read"
    return Header(doubt, notes=(Finding(reason, "bytes after the sound"),))


def _ends_in_chunks(span: Span, at: int, order: str) -> bool:
    """Whether nothing but chunks follows, as after a sound without samples."""
    for name, begin, length in _chunks(span, at, f"{order}4sI"):
        if not name.isascii() or not name.decode().isprintable():
            return False
        at = begin + length + length % 2
    return at >= span.end


def read_caf(span: Span) -> Header:
    """What a CAF file says.

    Args:
        span: The file.
    """
    for name, begin, length in _chunks(span, span.begin + 8, ">4sQ", even=1):
        if name == b"data" and length < 2**63:  # or else it has no end yet
            return Header(lost=cut_off(length, span.end - begin))
        if length >= 2**63:
            break
    return Header()


def read_w64(span: Span) -> Header:
    """What a W64 file says.

    Args:
        span: The file.
    """
    for name, begin, length in _chunks(span, span.begin + 40, "<16sQ", 24, 8):
        if name.startswith(b"data"):
            return Header(lost=cut_off(length, span.end - begin))
    return Header()
