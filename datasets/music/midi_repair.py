"""Repairs MIDI files that are a little wrong, and says what was wrong with them.

Parsers either refuse such files or read some part of them. This module takes a file
apart into chunks and events (Standard MIDI Files 1.0), leaves out what cannot be, and
puts together a file that every parser reads.
"""

import collections
import re
import struct
from collections.abc import Iterator

FARTHEST_HEADER = 2**16
"""How many bytes of a wrapper (RIFF, MacBinary) may stand before the header."""
FILM = {24: (24, 10**6), 25: (25, 10**6), 29: (30, 1_001_000), 30: (30, 10**6)}
"""By the number in the header: film frames in a quarter note, and its microseconds."""
END_OF_TRACK = b"\xff\x2f\x00"
TRACK_NAME = b"\xff\x03"
LONGEST_WAIT = 2**28 - 1
"""The largest number of ticks between two events that a file can say."""
LENGTHS = {0x00: (0, 2), 0x20: (1,), 0x21: (1,), 0x2F: (0,), 0x51: (3,), 0x54: (5,)}
LENGTHS |= {0x58: (4,), 0x59: (2,)}
"""The numbers of bytes that a meta event of each kind may have."""
NAMES = {0x51: "tempo", 0x54: "SMPTE offset", 0x58: "time signature"}
NAMES |= {0x59: "key signature"}
LARGEST_DENOMINATOR = 7
"""The power of two of 128th notes; time signatures have none beyond."""


def _pattern(text: bytes, **parts: bytes) -> re.Pattern:
    """A pattern in which names stand for parts."""
    for name, part in parts.items():
        text = text.replace(name.encode(), part)
    return re.compile(text, re.DOTALL | re.VERBOSE)


def _counted(body: bytes) -> bytes:
    """A pattern: a number up to 127, and as many bytes, LESS of them but the last."""
    lengths = range(1, 128)
    some = (b"\\x%02x" % n + body.replace(b"LESS", b"%d" % (n - 1)) for n in lengths)
    return b"(?:\\x00|" + b"|".join(some) + b")"


EVENTS = _pattern(
    rb"""
    (?: WAIT (?:
        # Messages of channels, the next ones without their status
        [\x80-\xbf\xe0-\xef] DATA{2} (?: WAIT DATA{2} )*+
        | [\xc0-\xdf] DATA (?: WAIT DATA )*+
        | \xf0 SYSTEM
        | \xff (?:
            \x00 (?: \x00 | \x02 .. )
            | [\x20\x21] \x01 .
            | \x51 \x03 (?! \x00{3} ) ...
            | \x54 \x05 DATA ....
            | \x58 \x04 [^\x00] [\x00-\x07] ..
            | \x59 \x02 [\x00-\x07\xf9-\xff] [\x00\x01]
            # All others but the end of the track
            | [\x01-\x1f\x22-\x2e\x30-\x50\x52\x53\x55-\x57\x5a-\x7f] TEXT
        )
    ) )*+ WAIT
    """,
    WAIT=rb"(?:[\x80-\xff]{0,3}+[\x00-\x7f])",
    SYSTEM=_counted(rb"[\x00-\x7f]{LESS}[\x00-\x7f\xf7]"),
    TEXT=_counted(rb".{LESS}."),
    DATA=rb"[\x00-\x7f]",
)
"""The events of a track that are surely right, without its end. A right track may hold
others: texts of 128 bytes and more, after a meta event messages without status, and
system messages in parts, which symusic misreads."""


def looks_whole(content: bytes) -> bool:
    """Whether the chunks of a file fit together, and their events are right.

    Args:
        content: The bytes of a file.

    Returns:
        `True` if the file need not be repaired before it is parsed; of the others, some
        need not either.
    """
    if len(content) < 14 or content[:4] != b"MThd":
        return False
    size, kind, promised, division = struct.unpack(">IHHH", content[4:14])
    if kind > 1 or division >= 0x8000:
        return False
    start, tracks = 8 + size, 0
    while start + 8 <= len(content) and content[start : start + 4] == b"MTrk":
        begin = start + 8
        start = begin + int.from_bytes(content[start + 4 : begin])
        tracks += 1
        end = start - len(END_OF_TRACK)
        if content[end:start] != END_OF_TRACK or not EVENTS.fullmatch(
            content, begin, end
        ):
            return False
    return size == 6 and start == len(content) and tracks == promised


def repair(content: bytes) -> tuple[bytes, list[str]]:
    """Makes a MIDI file that every parser reads of one that is a little wrong.

    Left out are wrappers around the file, chunks that are not tracks, bytes that belong
    to no event, and meta events of impossible lengths or values. A track that is cut
    off keeps its whole events. Where time is counted in film frames (SMPTE), a quarter
    note is made a second, and tempi, which such files do not heed, are left out.

    Args:
        content: The bytes of a file.

    Returns:
        The repaired bytes, without system messages in parts, and what was wrong, in
        words; the same bytes if there is no MIDI header.
    """
    begin = content.find(b"MThd\0\0\0", 0, FARTHEST_HEADER)
    begin = 0 if content.startswith(b"MThd") else begin
    if begin < 0 or len(content) < begin + 14:
        return content, []
    problems: collections.Counter[str] = collections.Counter()
    if begin:
        problems[f"{begin} bytes of a wrapper stand before the header"] += 1
    size, kind, promised, division = struct.unpack(
        ">IHHH", content[begin + 4 : begin + 14]
    )
    if size != 6:
        problems[f"the header has {size} bytes instead of 6"] += 1
    start = begin + 8 + size if 6 <= size < len(content) else begin + 14
    frames, per_frame = 256 - (division >> 8), division & 0xFF
    film = FILM.get(frames) if division >= 0x8000 and per_frame else None
    tracks = [
        _repair_track(body, number, problems, film is not None)
        for number, body in enumerate(_tracks(content, start, problems))
    ]
    if film is not None and tracks:
        problems["it counts film frames; a quarter note is taken for a second"] += 1
        frames, tempo = film
        division = frames * per_frame
        tracks[0] = b"\0\xff\x51\3" + tempo.to_bytes(3) + tracks[0]
    if len(tracks) != promised:
        problems[f"it has {len(tracks)} tracks, and its header says {promised}"] += 1
    if kind > 2 or (kind == 2 and len(tracks) == 1):
        problems[f"its format is {kind}"] += 1
        kind = 1
    if not problems and b"\xf7" not in content:
        return content, []
    kind = 1 if kind == 0 and len(tracks) > 1 else kind
    header = b"MThd" + struct.pack(">IHHH", 6, kind, len(tracks), division)
    chunks = [b"MTrk" + struct.pack(">I", len(track)) + track for track in tracks]
    said = [what + f" ({n} times)" * (n > 1) for what, n in problems.items()]
    return header + b"".join(chunks), said


def _tracks(
    content: bytes, start: int, problems: collections.Counter[str]
) -> Iterator[bytes]:
    """The bodies of the tracks, as long as they are, whatever their chunks say."""
    number = 0
    while start < len(content):
        name, body = content[start : start + 4], start + 8
        size = int.from_bytes(content[start + 4 : body])
        end = body + size
        if name != b"MTrk":
            if _is_chunk(content, start):
                problems[f"the chunk {name.decode()!r} is not a track"] += 1
            else:
                found = content.find(b"MTrk", start)
                end = len(content) if found < 0 else found
                problems[f"{end - start} byte(s) belong to no chunk"] += 1
        else:
            if not (end == len(content) or _is_chunk(content, end)):
                found = content.find(b"MTrk", body)
                real = len(content) if found < 0 else found
                if end <= len(content):
                    if content[end - 3 : end] != END_OF_TRACK:
                        problems[f"the length of track {number} is wrong"] += 1
                else:
                    problems[f"track {number} ends {end - real} byte(s) early"] += 1
                end = real
            yield content[body:end]
            number += 1
        start = end


def _is_chunk(content: bytes, start: int) -> bool:
    """Whether a chunk begins here, and ends within the file if it is not a track."""
    name = content[start : start + 4]
    size = int.from_bytes(content[start + 4 : start + 8])
    readable = len(name) == 4 and name.isascii() and name.decode().isprintable()
    return readable and (name == b"MTrk" or start + 8 + size <= len(content))


def bodies(content: bytes) -> list[bytes]:
    """The events of each track of a file that is whole, without the end of the track.

    Args:
        content: The bytes of a file that `looks_whole`, or that `repair` returned.
    """
    found, start = [], 14
    while start < len(content):
        size = int.from_bytes(content[start + 4 : start + 8])
        start += 8 + size
        found.append(content[start - size : start - len(END_OF_TRACK)])
    return found


def names_in_utf8(body: bytes) -> bytes:
    """Rewrites the names of a track: what is not UTF-8 is taken for Latin-1.

    Args:
        body: The events of a track.
    """
    track = bytearray()
    for wait, event in events(body):
        if event[:2] == TRACK_NAME:
            _, text = _number(event, 2)
            name = text_of(event[text:]).encode()
            event = TRACK_NAME + _variable(len(name)) + name
        track += _variable(wait) + event
    return bytes(track)


def events(body: bytes) -> Iterator[tuple[int, bytes]]:
    """The events of a track that is whole, without its end.

    Args:
        body: The events of a track, as `bodies` gives them.

    Yields:
        The ticks before an event, and the event, with its status byte; at last the
        ticks before the end of the track, and no bytes.
    """
    here, status = 0, None
    while here < len(body):
        wait, here = _number(body, here)
        event = b""
        if here < len(body):
            event, here, status = _event(body, here, status)
        yield wait, event


def text_of(data: bytes) -> str:
    """A text of a file: UTF-8, or, as the standard has it, Latin-1.

    Args:
        data: Its bytes.
    """
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")


class _CutError(Exception):
    """A track ends, or cannot be understood any further."""


def _repair_track(
    body: bytes, number: int, problems: collections.Counter[str], no_tempi: bool
) -> bytes:
    """The events of a track that are whole, each with its status byte, and an end."""
    track, here, waited, status, ended = bytearray(), 0, 0, None, False
    try:
        while here < len(body) and not ended:
            delta, here = _number(body, here)
            waited += delta
            event, here, status = _event(body, here, status)
            if event[0] == 0xF7 or (no_tempi and event[:2] == b"\xff\x51"):
                continue
            if event[0] == 0xFF and (wrong := _wrong_meta(event)):
                problems[f"track {number} has {wrong}"] += 1
                continue
            if 0xF0 <= event[0] < 0xFF and _is_wrong_message(event):
                problems[f"track {number} has a damaged system message"] += 1
                continue
            if event[0] < 0xF0 and max(event[1:]) > 127:
                problems[f"track {number} has values above 127"] += 1
                event = event[:1] + bytes(min(byte, 127) for byte in event[1:])
            ended = event == END_OF_TRACK
            track += _variable(_possible(waited, number, problems)) + event
            waited = 0
    except _CutError as error:
        problems[f"track {number} {error}"] += 1
    else:
        if not ended:
            problems[f"track {number} has no end"] += 1
        elif here < len(body):
            rest = len(body) - here
            problems[f"{rest} byte(s) follow the end of track {number}"] += 1
    if not ended:
        track += _variable(_possible(waited, number, problems)) + END_OF_TRACK
    return bytes(track)


def _possible(wait: int, number: int, problems: collections.Counter[str]) -> int:
    """The ticks between two events; there may be too many, with those left out."""
    if wait > LONGEST_WAIT:
        problems[f"track {number} has a wait that is too long"] += 1
    return min(wait, LONGEST_WAIT)


def _event(body: bytes, here: int, status: int | None) -> tuple[bytes, int, int | None]:
    """An event with its status byte, where the next begins, and the running status."""
    if here >= len(body):
        raise _CutError("ends in the middle of an event")
    code = body[here]
    if code >= 0x80:
        here += 1
    elif status is None:
        raise _CutError("has an event without a status byte")
    else:
        code = status
    if code == 0xFF:
        size, end = _number(body, here + 1)
        event = bytes([code]) + body[here : here + 1] + _variable(size)
        event += body[end : end + size]
        end += size
    elif code in (0xF0, 0xF7):
        size, end = _number(body, here)
        event, end = (
            bytes([code]) + _variable(size) + body[end : end + size],
            end + size,
        )
    else:
        size = {0xC: 1, 0xD: 1}.get(code >> 4, 2)
        if code > 0xF0:
            size = {0xF1: 1, 0xF2: 2, 0xF3: 1}.get(code, 0)
        else:
            status = code
        end = here + size
        event = bytes([code]) + body[here:end]
    if end > len(body):
        raise _CutError("ends in the middle of an event")
    return event, end, status


def _is_wrong_message(event: bytes) -> bool:
    """Whether a file may not hold a system message, or its data is no data."""
    if event[0] != 0xF0:
        return True
    _, begin = _number(event, 1)
    return max(event[begin:].removesuffix(b"\xf7"), default=0) > 127


def _wrong_meta(event: bytes) -> str | None:
    """What is wrong with a meta event."""
    kind, (size, begin) = event[1], _number(event, 2)
    data, name = event[begin:], NAMES.get(kind, f"meta event {kind}")
    if size not in LENGTHS.get(kind, (size,)):
        return f"a {name} of {size} bytes"
    impossible = (
        kind > 0x7F
        or (kind == 0x51 and data == b"\0\0\0")
        or (kind == 0x54 and data[0] > 0x7F)
        or (kind == 0x58 and (data[0] == 0 or data[1] > LARGEST_DENOMINATOR))
        or (kind == 0x59 and (7 < data[0] < 249 or data[1] > 1))
    )
    return f"an impossible {name}" if impossible else None


def _number(data: bytes, here: int) -> tuple[int, int]:
    """A number of variable length, and where it ends."""
    number = 0
    for end in range(here, here + 4):
        if end >= len(data):
            raise _CutError("ends in the middle of an event")
        number = number << 7 | data[end] & 0x7F
        if data[end] < 0x80:
            return number, end + 1
    raise _CutError("has a number of more than four bytes")


def _variable(number: int) -> bytes:
    """The bytes of a number of variable length."""
    last, *others = [number >> shift & 0x7F for shift in (0, 7, 14, 21)]
    while others and others[-1] == 0:
        others.pop()
    return bytes([*(byte | 0x80 for byte in reversed(others)), last])
