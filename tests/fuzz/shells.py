"""What hides the content of a file behind compression or checksums: opened, closed."""

import io
import random
import struct
import zipfile
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fuzz.mutations import mutated


class Shell(NamedTuple):
    """How a file is taken apart and put together."""

    open: Callable[[bytes], list]
    """Its parts: bytes, or lists whose last member is the bytes of the part."""
    close: Callable[[list], bytes]
    """A file of such parts, with checksums that agree."""

    def mutated(self, content: bytes, chance: random.Random) -> bytes:
        """The file with one of its parts changed."""
        parts = self.open(content)
        number = chance.randrange(len(parts))
        *about, part = parts[number]
        new = mutated(part, [part for *_, part in parts], chance)
        parts[number : number + 1] = [[*about, new]] * chance.choice([1] * 9 + [2])
        return self.close(parts)


def _of_zip(content: bytes) -> list:
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        return [[name, file.read(name)] for name in file.namelist()]


def _to_zip(parts: Sequence) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, part in {name: part for name, part in parts}.items():
            file.writestr(name, part)
    return out.getvalue()


def _of_ogg(content: bytes) -> list:
    """The pages of an OGG file."""
    starts = [i for i in range(len(content)) if content[i : i + 5] == b"OggS\0"]
    return [[content[a:b]] for a, b in zip(starts, [*starts[1:], None], strict=True)]


def _to_ogg(parts: Sequence) -> bytes:
    pages = (part[:22] + bytes(4) + part[26:] for (part,) in parts)
    return b"".join(p[:22] + _ogg_sum(p) + p[26:] if len(p) > 26 else p for p in pages)


def _ogg_sum(page: bytes) -> bytes:
    total = 0
    for byte in page:
        total = total << 8 & 0xFFFFFFFF ^ OGG_SUMS[total >> 24 ^ byte]
    return struct.pack("<I", total)


def _ogg_table() -> list[int]:
    table = []
    for value in range(256):
        value <<= 24
        for _ in range(8):
            value = value << 1 & 0xFFFFFFFF ^ 0x04C11DB7 * (value >> 31)
        table.append(value)
    return table


OGG_SUMS = _ogg_table()


ZIP = Shell(_of_zip, _to_zip)
OGG = Shell(_of_ogg, _to_ogg)
