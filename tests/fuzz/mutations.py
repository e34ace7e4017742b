"""Files changed by chance."""

import random
import re
from collections.abc import Sequence

LARGEST = 2**18
"""Bytes of a mutated file, at most."""
NUMBERS = [0, 1, 2, 3, 4, 7, 8, 15, 16, 24, 32, 64, 100, 127, 255, 1000, 4096, 65_535]
NUMBERS += [
    2**k + more for k in (7, 15, 16, 24, 28, 31, 32, 63, 64) for more in (-1, 0)
]
"""Numbers at which readers are wrong by one, overflow, or believe a size."""
TEXTS = [str(n) for n in NUMBERS] + ["-1", "0.5", "1e999", "NaN", "null", "", "é", "[]"]
TOKEN = re.compile(rb"\"[^\"]*\"|-?\d+(?:\.\d+)?|\w+|[^\w\s<>/]")
"""What a text consists of: strings, numbers, words, signs."""
ELEMENT = re.compile(rb"<(\w+)[^<>]*>(?:(?!<\1\b).)*?</\1>|<\w[^<>]*/>", re.DOTALL)
"""An element of XML with none of its kind in it."""
TEXT = re.compile(rb"[\t\n\r\x20-\x7e\xa0-\xff]*")


def mutated(content: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """A file, changed once or a few times.

    Args:
        content: The file.
        others: What parts may be taken from.
        chance: Decides.
    """
    for _ in range(chance.choice([1, 1, 1, 1, 2, 3, 6])):
        change = chance.choice(OF_TEXT if TEXT.fullmatch(content) else OF_BYTES)
        content = change(content, others, chance)[:LARGEST]
    return content


def _place(size: int, chance: random.Random) -> int:
    """A place in a file, every other time near its beginning, where headers are."""
    near = chance.random() < 0.5
    return chance.randrange(max(1, min(size, 128) if near else size))


def _stretch(content: bytes, chance: random.Random) -> tuple[int, int]:
    begin = _place(len(content), chance)
    size = chance.choice([1, 2, 4, 8, 16, 64, 256, 4096])
    return begin, min(len(content), begin + size)


def _flip(content: bytes, _: Sequence[bytes], chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 8])):
        if changed:
            changed[_place(len(changed), chance)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _bytes(content: bytes, _: Sequence[bytes], chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.choice([1, 2, 4, 16])):
        at = _place(len(changed), chance)
        changed[at : at + 1] = [
            chance.choice([0, 1, 127, 128, 255, chance.randrange(256)])
        ]
    return bytes(changed)


def _number(content: bytes, _: Sequence[bytes], chance: random.Random) -> bytes:
    """A size, an offset or a count, perhaps, in either order of bytes."""
    size = chance.choice([1, 2, 3, 4, 8])
    order = chance.choice(["big", "little"])
    at = _place(len(content), chance)
    there = int.from_bytes(content[at : at + size], order)
    number = chance.choice([*NUMBERS, there + 1, there - 1, 2 * there, -there])
    number %= 256**size
    return content[:at] + number.to_bytes(size, order) + content[at + size :]


def _cut(content: bytes, _: Sequence[bytes], chance: random.Random) -> bytes:
    return content[: chance.randrange(len(content) + 1)]


def _remove(content: bytes, _: Sequence[bytes], chance: random.Random) -> bytes:
    begin, end = _stretch(content, chance)
    return content[:begin] + content[end:]


def _insert(content: bytes, _: Sequence[bytes], chance: random.Random) -> bytes:
    at, size = _place(len(content), chance), chance.choice([1, 2, 4, 8, 100])
    some = bytes([chance.randrange(256)]) * size
    return content[:at] + chance.choice([some, chance.randbytes(size)]) + content[at:]


def _double(content: bytes, _: Sequence[bytes], chance: random.Random) -> bytes:
    begin, end = _stretch(content, chance)
    times = chance.choice([1, 1, 2, 50])
    return content[:end] + content[begin:end] * times + content[end:]


def _swap(content: bytes, _: Sequence[bytes], chance: random.Random) -> bytes:
    (a, b), (c, d) = sorted(_stretch(content, chance) for _ in range(2))
    b = min(b, c)
    return content[:a] + content[c:d] + content[b:c] + content[a:b] + content[d:]


def _splice(content: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    other = chance.choice(others)
    begin = _place(len(other), chance)
    return content[: _place(len(content), chance)] + other[begin:]


def _join(content: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    return content + chance.choice(others)


def _tokens(content: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """A token of a text removed, doubled, exchanged, or another number."""
    pattern = chance.choice([TOKEN, TOKEN, ELEMENT])
    found = [match.span() for match in pattern.finditer(content)]
    if not found:
        return content
    begin, end = chance.choice(found)
    token, (a, b) = content[begin:end], chance.choice(found)
    other = chance.choice(TEXTS).encode()
    new = chance.choice([b"", token * 2, content[a:b], other, b'"' + other + b'"'])
    return content[:begin] + new + content[end:]


def _lines(content: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """Lines of a text removed, doubled or moved."""
    lines = content.splitlines(keepends=True) or [b""]
    taken = lines.pop(chance.randrange(len(lines)))
    for _ in range(chance.choice([0, 1, 2])):
        lines.insert(chance.randrange(len(lines) + 1), taken)
    return b"".join(lines)


OF_BYTES = [_flip, _bytes, _number, _number, _cut, _remove, _insert, _double, _swap]
OF_BYTES += [_splice, _join]
OF_TEXT = [*[_tokens] * 20, *[_lines] * 4, *OF_BYTES]
