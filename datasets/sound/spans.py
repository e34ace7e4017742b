"""A stretch of a file in which a sound begins, and what its bytes say about it."""

from typing import BinaryIO, NamedTuple

from ..files import Finding

UNKNOWN_SIZES = (0xFFFFFFFF, 0xFFFFFFFF - 36, 0x80000000, 0x7FFFFFFF, 0x7FFFF000)
"""What FFmpeg, arecord and sox write as the size of sound that has no end yet."""
SEARCHED = 2**16
"""How far the first frame of an MP3 file is searched for, in bytes."""
AT_A_TIME = 2**20
"""How many bytes are searched at a time."""


class Header(NamedTuple):
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


class Span(NamedTuple):
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


def cut_off(
    promised: int, there: int, block: int = 1, what: str = "bytes"
) -> Finding | None:
    """What is missing of a sound, if its header promises more than there is.

    Args:
        promised: The bytes that the header promises.
        there: The bytes that are there.
        block: How many of them one of what is counted has; less is not missed.
            Default: 1.
        what: What is counted. Default: `"bytes"`.
    """
    there = max(0, there)
    if promised in UNKNOWN_SIZES or promised - there < block:
        return None
    missing = 100 - 100 * there / promised
    return Finding(
        f"is cut off: its header promises {promised // block:,} {what}, and "
        f"{there // block:,} are there; {missing:.3g} % is missing",
        "cut off",
    )
