"""MIDI files byte by byte, so that they can be wrong."""

import struct


def variable(number):
    """A number of variable length."""
    out = [number & 127]
    while number := number >> 7:
        out.insert(0, number & 127 | 128)
    return bytes(out)


def header(tracks=1, kind=1, size=6, more=b"", division=480):
    return b"MThd" + struct.pack(">IHHH", size, kind, tracks, division) + more


def track(events, size=None):
    return b"MTrk" + struct.pack(">I", len(events) if size is None else size) + events


def meta(kind, data):
    return b"\0\xff" + bytes([kind, len(data)]) + data


def on(pitch, wait=0, channel=0):
    return variable(wait) + bytes([0x90 | channel, pitch, 80])


def off(pitch, wait=0, channel=0):
    return variable(wait) + bytes([0x80 | channel, pitch, 0])


def end(wait):
    return variable(wait) + b"\xff\x2f\0"


END = end(0)
SCALE = b"".join(on(pitch) + off(pitch, 480) for pitch in (60, 62, 64))
"""Three quarter notes."""
LONG = header() + track(on(60) + off(60, 2**28 - 1) + END)
"""A note of half a million quarter notes in 40 bytes: with 24 steps in each, a roll of
more than a gigabyte."""
DENSE = header() + track(b"\0\x90" + b"\x3c\x40\1\x3c\0\0" * 690_000 + END)
"""As many notes as a file may hold; pretty_midi reads them for half a minute."""
