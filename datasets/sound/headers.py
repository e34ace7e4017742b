"""What the bytes of a sound file say about its sound, before it is decoded.

A few reads tell whether a file holds all that its header promises, whether it holds
several sounds one after the other, and whether soundfile would stop before the end.
What the decoders notice themselves (that it is no sound, that a frame is damaged) is
not looked for here.
"""

import struct
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from ..files import Finding

UNKNOWN_SIZES = (0xFFFFFFFF, 0xFFFFFFFF - 36, 0x80000000, 0x7FFFFFFF, 0x7FFFF000)
"""What FFmpeg, arecord and sox write as the size of sound that has no end yet."""
PLAIN = (1, 3, 6, 7, 0xFFFE)
"""The codecs in WAV files whose samples all have the same size: PCM and its kin."""
MP3_IN_WAV = 0x55
OGG_PAGE = 27 + 255 + 255 * 255
"""The largest page of an OGG file, in bytes."""
SEARCHED = 2**16
"""How far the first frame of an MP3 file is searched for, in bytes."""
AT_A_TIME = 2**20
"""How many bytes are searched at a time."""
FOREIGN = (
    *(b"#!AMR", b"wvPk", b"TTA1", b"MAC ", b"MPCK", b"\x1aE\xdf\xa3", b"0&\xb2u"),
    *(b"\x0bw", b"FLV", b"G@", b"\0\0\1\xba", b".RMF"),
)
"""How files begin in which nothing else is searched for: AMR, WavPack, TTA, Monkey's
Audio, Musepack, Matroska, WMA, AC-3, Flash, MPEG streams, RealMedia."""
MAGIC = (b"fLaC", b"OggS", b"ID3", b"caff", b".snd", b"riff", *FOREIGN[:8])
"""How files of sound begin: FLAC, OGG, MP3, CAF, AU, W64, and others."""


class Layout(NamedTuple):
    """What a file holds, by its bytes; by default one sound, and all of it."""

    parts: tuple[tuple[int, int], ...] = ()
    """The first byte of each sound in it and the first after it; empty, if it is one
    that fills the file."""
    doubt: str = ""
    """Why soundfile may read it only in part."""
    lost: Finding | None = None
    """How much of what is promised is not there."""
    notes: tuple[Finding, ...] = ()
    """What else should be known."""
    samples: int | None = None
    """How many samples there are at least, where the frames have been counted."""
    known: bool = True
    """Whether it begins as a kind of file does that soundfile can tell. In others it
    finds MP3 where there is none."""
    open_ended: bool = False
    """Whether its header leaves its length open, although soundfile reads it whole."""


WHOLE = Layout()
"""One sound that fills the file."""


class _Sound(NamedTuple):
    """What the bytes say about one sound."""

    doubt: str = ""
    lost: Finding | None = None
    notes: tuple[Finding, ...] = ()
    samples: int | None = None
    begin: int | None = None
    """Its first byte, if something else is before it."""
    end: int | None = None
    """The first byte after it, if it does not fill the file."""
    following: bool = False
    """Whether another sound begins there."""
    known: bool = True
    open_ended: bool = False


class _Span(NamedTuple):
    """A sound begins at `begin`, and the file ends at `end`."""

    file: BinaryIO
    begin: int
    end: int

    def read(self, at: int, size: int) -> bytes:
        if not 0 <= at < self.end:
            return b""
        self.file.seek(at)
        return self.file.read(min(size, self.end - at))

    def find(self, pattern: bytes, at: int) -> int:
        """The place of a pattern, or -1."""
        while len(block := self.read(at, AT_A_TIME)) >= len(pattern):
            if (found := block.find(pattern)) >= 0:
                return at + found
            at += len(block) - len(pattern) + 1
        return -1


def inspect(file: BinaryIO) -> Layout:
    """Looks at the bytes of a sound file.

    Args:
        file: The file, of any kind.

    Returns:
        What they say: of kinds that are not known here, nothing.
    """
    begin, size = 0, file.seek(0, 2)
    parts, sounds = [], []
    while True:
        sound = _look(_Span(file, begin, size))
        sounds.append(sound)
        end = size if sound.end is None else sound.end
        parts.append((begin if sound.begin is None else sound.begin, end))
        if not sound.following or end <= begin:
            break
        begin = end
    counts = [sound.samples for sound in sounds]
    notes = [note for sound in sounds for note in sound.notes]
    if len(parts) > 1:
        reason = f"is {len(parts)} sounds, one after the other; all are read"
        notes.append(Finding(reason, "several sounds in one file"))
    return Layout(
        parts=() if parts == [(0, size)] else tuple(parts),
        doubt=next((sound.doubt for sound in sounds if sound.doubt), ""),
        lost=next((sound.lost for sound in sounds if sound.lost), None),
        notes=tuple(notes),
        samples=None if None in counts else sum(counts),
        known=all(sound.known for sound in sounds),
        open_ended=any(sound.open_ended for sound in sounds),
    )


def looks_like_sound(head: bytes) -> bool:
    """Whether a file begins as files of sound do.

    Args:
        head: Its first bytes, 12 at least.
    """
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"FORM"):
        return head[8:12] in (b"WAVE", b"AIFF", b"AIFC")
    aac = len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0
    # Text in UTF-16 begins like MPEG's rare layer 1.
    mp3 = not head.startswith(b"\xff\xfe") and _frame(head[:4]) is not None
    return head.startswith(MAGIC) or head[4:8] == b"ftyp" or aac or mp3


def _look(span: _Span) -> _Sound:
    head = span.read(span.begin, 16)
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return _wav(span, ">" if head[:4] == b"RIFX" else "<")
    if head[:4] == b"RIFF":  # as AVI
        (size,) = struct.unpack("<I", head[4:8].ljust(4, b"\0"))
        return _Sound(lost=_cut(size, span.end - span.begin - 8), known=False)
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return _aiff(span)
    if head[:4] == b"caff":
        return _caf(span)
    if head[:12] == b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb":
        return _w64(span)
    if head[:4] == b".snd":
        begin, size = struct.unpack(">II", head[4:12].ljust(8, b"\0"))
        return _Sound(lost=_cut(size, span.end - span.begin - begin))
    if head[:4] == b"OggS":
        return _ogg(span)
    if head[4:8] == b"ftyp":
        return _mp4(span)
    if head.startswith(FOREIGN):
        return _Sound(known=False)
    begin = _after_id3(span)
    if span.read(begin, 4) == b"fLaC":
        return _flac(span, begin)
    return _mp3(span, begin)


def _cut(
    promised: int, there: int, block: int = 1, what: str = "bytes"
) -> Finding | None:
    """What is missing of a sound, if its header promises more than there is."""
    there = max(0, there)
    if promised in UNKNOWN_SIZES or promised - there < block:
        return None
    missing = 100 - 100 * there / promised
    return Finding(
        f"is cut off: its header promises {promised // block:,} {what}, and "
        f"{there // block:,} are there; {missing:.3g} % is missing",
        "cut off",
    )


def _chunks(
    span: _Span, at: int, head: str, least: int = 0, even: int = 2
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


def _wav(span: _Span, order: str) -> _Sound:
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
        return _Sound()
    begin, length = data
    if long and length == 0xFFFFFFFF:
        length = long
    there = span.end - begin
    doubt = "it is MP3 within WAV" if codec == MP3_IN_WAV else ""
    if length == 0 and there and not _ends_in_chunks(span, begin, order):
        return _Sound("its header leaves its length open")
    if length >= there:
        lost = _cut(length, there)
        if codec in PLAIN:
            lost = _cut(length, there, max(1, block), "samples")
        return _Sound(doubt, lost, open_ended=length in UNKNOWN_SIZES)
    return _after(span, begin + length + length % 2, order, doubt)


def _aiff(span: _Span) -> _Sound:
    block = 0
    for name, begin, length in _chunks(span, span.begin + 12, ">4sI"):
        if name == b"COMM" and span.read(span.begin + 8, 4) == b"AIFF":
            values = span.read(begin, 8).ljust(8, b"\0")
            channels, bits = struct.unpack(">H4xH", values)
            block = channels * (-(-bits // 8))
        elif name == b"SSND":
            there = span.end - begin
            if length == 0:  # soundfile goes by the number of samples in COMM
                return _Sound()
            if length < there:
                return _after(span, begin + length + length % 2, ">")
            if block:
                return _Sound(lost=_cut(length - 8, there - 8, block, "samples"))
            return _Sound(lost=_cut(length - 8, there - 8))
    return _Sound()


def _after(span: _Span, at: int, order: str, doubt: str = "") -> _Sound:
    """What follows the samples of WAV and AIFF."""
    end = at
    for name, begin, length in _chunks(span, at, f"{order}4sI"):
        if name in (b"RIFF", b"RIFX", b"RF64", b"FORM") and begin - 8 > span.begin:
            return _Sound(doubt, end=begin - 8, following=True)
        if not name.isascii() or not name.decode().isprintable():
            break
        end = begin + length + length % 2
        if end >= span.end:
            return _Sound(doubt)
    rest = span.end - end
    ignored = span.read(end, SEARCHED)
    if rest < 8 or ignored.startswith(b"TAG") or not ignored.strip(b"\0"):
        return _Sound(doubt)
    reason = f"holds {rest:,} bytes after its sound, which are not read"
    return _Sound(doubt, notes=(Finding(reason, "bytes after the sound"),))


def _ends_in_chunks(span: _Span, at: int, order: str) -> bool:
    """Whether nothing but chunks follows, as after a sound without samples."""
    for name, begin, length in _chunks(span, at, f"{order}4sI"):
        if not name.isascii() or not name.decode().isprintable():
            return False
        at = begin + length + length % 2
    return at >= span.end


def _caf(span: _Span) -> _Sound:
    for name, begin, length in _chunks(span, span.begin + 8, ">4sQ", even=1):
        if name == b"data" and length < 2**63:  # or else it has no end yet
            return _Sound(lost=_cut(length, span.end - begin))
        if length >= 2**63:
            break
    return _Sound()


def _w64(span: _Span) -> _Sound:
    for name, begin, length in _chunks(span, span.begin + 40, "<16sQ", 24, 8):
        if name.startswith(b"data"):
            return _Sound(lost=_cut(length, span.end - begin))
    return _Sound()


def _flac(span: _Span, at: int) -> _Sound:
    info = span.read(at + 8, 34)
    known = int.from_bytes(info[13:18], "big") % 2**36
    doubt = "" if known else "its header leaves its length open"
    # Another header, as STREAMINFO of 34 bytes begins.
    end = span.find(b"fLaC\0\0\0\x22", at + 42)
    if end < 0:
        return _Sound(doubt)
    return _Sound(doubt, end=end, following=True)


def _mp4(span: _Span) -> _Sound:
    at = span.begin
    while len(head := span.read(at, 16)) >= 8:
        size, name = struct.unpack(">I4s", head[:8])
        if name == b"ftyp" and at > span.begin:
            return _Sound(end=at, following=True, known=False)
        if size == 1 and len(head) == 16:
            (size,) = struct.unpack(">Q", head[8:])
        if size < 8:  # the last one may leave its size open
            break
        if at + size > span.end and name in (b"mdat", b"moov"):
            return _Sound(lost=_cut(size, span.end - at), known=False)
        at += size
    return _Sound(known=False)


def _ogg(span: _Span) -> _Sound:
    at, streams = span.begin, 0
    while len(page := span.read(at, 27 + 255)) > 27 and page[:4] == b"OggS":
        if not page[5] & 2:  # it does not begin a stream
            break
        streams += 1
        at += _page_size(page)
    doubt = "it holds several streams" if streams > 1 else ""
    following = span.find(b"OggS\0\2", at)
    if following >= 0:
        return _Sound(doubt, end=following, following=True)
    begin = max(span.begin, span.end - OGG_PAGE)
    last = span.read(begin, OGG_PAGE)
    place = last.rfind(b"OggS\0")
    if place < 0:
        return _Sound(doubt)
    page = last[place:]
    if len(page) < 27 or len(page) < _page_size(page):
        reason = (
            "is cut off: it ends within a page; how much of the sound is missing "
            "cannot be known"
        )
        return _Sound(doubt, Finding(reason, "cut off"), end=begin + place)
    if not page[5] & 4:
        reason = "lacks the mark of its end; something may be missing"
        return _Sound(doubt, notes=(Finding(reason, "perhaps cut off"),))
    return _Sound(doubt)


def _page_size(page: bytes) -> int:
    count = page[26]
    return 27 + count + sum(page[27 : 27 + count])


def _after_id3(span: _Span) -> int:
    at = span.begin
    while len(head := span.read(at, 10)) == 10 and head[:3] == b"ID3":
        a, b, c, d = head[6:]
        size = (a & 127) << 21 | (b & 127) << 14 | (c & 127) << 7 | d & 127
        at += 10 + size + (10 if head[5] & 16 else 0)
    return at


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


class _Frame(NamedTuple):
    """A frame of MPEG audio."""

    size: int
    """Its bytes."""
    samples: int
    kind: int
    """The bits of its header that are the same in all frames of a sound: version, layer
    and rate."""
    index_at: int
    """Where in it an index would begin."""


def _frame(head: bytes) -> _Frame | None:
    """Reads the four bytes with which a frame of MPEG audio begins."""
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
    return _Frame(size, samples, kind, 4 + side)


def _mp3(span: _Span, begin: int) -> _Sound:
    at = _first_frame(span, begin)
    if at is None:
        return _Sound(known=False)
    first = _frame(span.read(at, 4))
    head = span.read(at, first.size)
    sound = _indexed(span, at, first, head)
    return sound if at == begin else sound._replace(begin=at)


def _indexed(span: _Span, at: int, first: _Frame, head: bytes) -> _Sound:
    """Goes by the index in the first frame, if it has one, or else by all frames."""
    index = head[first.index_at :]
    if index[:4] in (b"Xing", b"Info") and len(index) >= 16:
        flags, frames, size = struct.unpack(">III", index[4:16])
        if flags & 3 != 3 or not frames or size < first.size:
            return _counted(span, at, "its index does not say its length")
        return _after_mp3(span, at, at + size, first)
    return _counted(span, at, "it has no index of its frames")


def _first_frame(span: _Span, begin: int) -> int | None:
    """The place of the first frame that others follow."""
    block = span.read(begin, SEARCHED)
    at = block.find(b"\xff")
    while at >= 0:
        here, kinds = begin + at, []
        frame = _frame(block[at : at + 4])
        while frame is not None and len(kinds) < 3:
            kinds.append(frame.kind)
            here += frame.size
            frame = _frame(span.read(here, 4))
        # Three frames are not found by chance; a short sound has less.
        enough = len(kinds) == 3 or (at == 0 and kinds and here >= span.end)
        if enough and len({*kinds}) == 1:
            return begin + at
        at = block.find(b"\xff", at + 1)
    return None


def _after_mp3(span: _Span, begin: int, end: int, first: _Frame) -> _Sound:
    """What follows the frames of which an index knows."""
    if end >= span.end:
        return _Sound(lost=_cut(end - begin, span.end - begin, first.size, "frames"))
    for at in (end, end + first.size):  # some do not count the frame of the index
        if span.read(at, 3) == b"ID3" or _first_frame(span, at) == at:
            return _Sound(end=at, following=True)
    if _no_frames(span, end, first):
        return _Sound()
    return _Sound("it is longer than its index says")


def _no_frames(span: _Span, at: int, first: _Frame) -> bool:
    """Whether nothing but tags or zeros follows, or less than a frame."""
    rest = span.read(at, 2 * SEARCHED)
    tags = (b"TAG", b"APETAGEX", b"LYRICSBEGIN", b"3DI")
    return len(rest) <= first.size or rest.startswith(tags) or not rest.strip(b"\0")


def _counted(span: _Span, at: int, doubt: str) -> _Sound:
    """Counts the samples in the frames that follow each other."""
    samples, first = 0, _frame(span.read(at, 4))
    block, start = b"", at
    while True:
        if at + 4 > start + len(block):
            block, start = span.read(at, AT_A_TIME), at
        frame = _frame(block[at - start : at - start + 4])
        if frame is None or at + frame.size > span.end:
            break
        if frame.kind != first.kind:
            if _first_frame(span, at) == at:
                return _Sound(doubt, samples=samples, end=at, following=True)
            break
        samples += frame.samples
        at += frame.size
    if frame is not None and at + frame.size > span.end:
        reason = "ends within a frame; something may be missing"
        notes = (Finding(reason, "perhaps cut off"),)
        return _Sound(doubt, notes=notes, samples=samples)
    if not _no_frames(span, at, first):
        return _Sound(doubt)
    return _Sound(doubt, samples=samples)
