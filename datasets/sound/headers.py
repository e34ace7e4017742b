"""What the bytes of a sound file say about its sound, before it is decoded.

A few reads tell whether a file holds all that its header promises, whether it holds
several sounds one after the other, and whether soundfile would stop before the end.
What the decoders notice themselves (that it is no sound, that a frame is damaged) is
not looked for here.
"""

import struct
from typing import BinaryIO, NamedTuple

from ..files import Finding
from .chunk_headers import read_aiff, read_caf, read_w64, read_wav
from .mpeg_headers import after_id3, read_frame, read_mp3
from .spans import Header, Span, cut_off

OGG_PAGE = 27 + 255 + 255 * 255
"""The largest page of an OGG file, in bytes."""
FOREIGN = (
    *(b"#!AMR", b"wvPk", b"TTA1", b"MAC ", b"MPCK", b"\x1aE\xdf\xa3", b"0&\xb2u"),
    *(b"\x0bw", b"FLV", b"G@", b"\0\0\1\xba", b".RMF"),
)
"""How files begin in which nothing else is searched for: AMR, WavPack, TTA, Monkey's
Audio, Musepack, Matroska, WMA, AC-3, Flash, MPEG streams, RealMedia."""
MAGIC = (b"fLaC", b"OggS", b"ID3", b"caff", b".snd", b"riff", *FOREIGN[:8])
"""How files of sound begin: FLAC, OGG, MP3, CAF, AU, W64, and others."""
FRAMES_OF_DELAY = 2 * 1152
"""So many samples fewer than the frames of MP3 hold may be decoded from them."""


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
        sound = _look(Span(file, begin, size))
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
    mp3 = not head.startswith(b"\xff\xfe") and read_frame(head[:4]) is not None
    return head.startswith(MAGIC) or head[4:8] == b"ftyp" or aac or mp3


def _look(span: Span) -> Header:
    head = span.read(span.begin, 16)
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return read_wav(span, ">" if head[:4] == b"RIFX" else "<")
    if head[:4] == b"RIFF":  # as AVI
        (size,) = struct.unpack("<I", head[4:8].ljust(4, b"\0"))
        return Header(lost=cut_off(size, span.end - span.begin - 8), known=False)
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return read_aiff(span)
    if head[:4] == b"caff":
        return read_caf(span)
    if head[:12] == b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb":
        return read_w64(span)
    if head[:4] == b".snd":
        begin, size = struct.unpack(">II", head[4:12].ljust(8, b"\0"))
        return Header(lost=cut_off(size, span.end - span.begin - begin))
    if head[:4] == b"OggS":
        return _read_ogg(span)
    if head[4:8] == b"ftyp":
        return _read_mp4(span)
    if head.startswith(FOREIGN):
        return Header(known=False)
    begin = after_id3(span)
    if span.read(begin, 4) == b"fLaC":
        return _read_flac(span, begin)
    return read_mp3(span, begin)


def _read_flac(span: Span, at: int) -> Header:
    info = span.read(at + 8, 34)
    known = int.from_bytes(info[13:18], "big") % 2**36
    doubt = "" if known else "its header leaves its length open"
    # Another header, as STREAMINFO of 34 bytes begins.
    end = span.find(b"fLaC\0\0\0\x22", at + 42)
    if end < 0:
        return Header(doubt)
    return Header(doubt, end=end, following=True)


def _read_mp4(span: Span) -> Header:
    at = span.begin
    while len(head := span.read(at, 16)) >= 8:
        size, name = struct.unpack(">I4s", head[:8])
        if name == b"ftyp" and at > span.begin:
            return Header(end=at, following=True, known=False)
        if size == 1 and len(head) == 16:
            (size,) = struct.unpack(">Q", head[8:])
        if size < 8:  # the last one may leave its size open
            break
        if at + size > span.end and name in (b"mdat", b"moov"):
            return Header(lost=cut_off(size, span.end - at), known=False)
        at += size
    return Header(known=False)


def _read_ogg(span: Span) -> Header:
    at, streams = span.begin, 0
    while len(page := span.read(at, 27 + 255)) > 27 and page[:4] == b"OggS":
        if not page[5] & 2:  # it does not begin a stream
            break
        streams += 1
        at += _page_size(page)
    doubt = "it holds several streams" if streams > 1 else ""
    following = span.find(b"OggS\0\2", at)
    if following >= 0:
        return Header(doubt, end=following, following=True)
    begin = max(span.begin, span.end - OGG_PAGE)
    last = span.read(begin, OGG_PAGE)
    place = last.rfind(b"OggS\0")
    if place < 0:
        return Header(doubt)
    page = last[place:]
    if len(page) < 27 or len(page) < _page_size(page):
        reason = (
            "is cut off: it ends within a page; how much of the sound is missing "
            "cannot be known"
        )
        return Header(doubt, Finding(reason, "cut off"), end=begin + place)
    if not page[5] & 4:
        reason = "lacks the mark of its end; something may be missing"
        return Header(doubt, notes=(Finding(reason, "perhaps cut off"),))
    return Header(doubt)


def _page_size(page: bytes) -> int:
    count = page[26]
    return 27 + count + sum(page[27 : 27 + count])
