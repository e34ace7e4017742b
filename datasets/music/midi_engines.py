"""MIDI files: checked, repaired, and parsed by one of two engines."""

import functools
import importlib.util
import os
import struct
from typing import TYPE_CHECKING

from .. import checks
from ..files import FileError, open_binary, require
from . import midi_notes, midi_repair
from .score import Score

if TYPE_CHECKING:
    import mido

ENGINES = ("auto", "pretty_midi", "symusic")
"""The parsers; `"auto"` is symusic if it is installed."""
LARGEST_FILE = 4 * 2**20
"""Larger files, in bytes, are refused: they would take minutes and gigabytes."""


class MIDIError(FileError):
    """A MIDI file cannot be read; the message names it and says why."""


def parse(
    path: str | os.PathLike,
    engine: str = "auto",
    content: bytes | None = None,
    strict: bool = False,
) -> Score:
    """Reads a MIDI file.

    Args:
        path: The file; with `content`, its name in messages.
        engine: `"pretty_midi"`, `"symusic"` (several times faster), or `"auto"`,
            symusic if it is installed. Files in which notes of one key overlap are
            read by pretty_midi in any case. Default: `"auto"`.
        content: The bytes of the file. Default: they are read from `path`.
        strict: Whether to refuse files that have to be repaired. Default: `False`.

    Returns:
        The score. With `engine="auto"`, what symusic cannot read is read by
        pretty_midi if it is installed.

    Raises:
        MIDIError: (a `ValueError`) The file is not a readable MIDI file.
        FileNotFoundError: There is no such file.
        OSError: The file cannot be read.
        ImportError: The parser is not installed.
        ValueError: There is no such engine.
    """
    return parse_and_repair(path, engine, content, strict)[0]


def parse_and_repair(
    path: str | os.PathLike,
    engine: str = "auto",
    content: bytes | None = None,
    strict: bool = False,
) -> tuple[Score, bytes]:
    """Reads a MIDI file, as `parse` does.

    Args:
        path: As in `parse`.
        engine: As in `parse`.
        content: As in `parse`.
        strict: As in `parse`.

    Returns:
        The score, and the bytes that it was read from: those of the file, repaired if
        need be.
    """
    name = engine_name(engine)
    path = os.fspath(path)
    content = read_bytes(path) if content is None else content
    _check_size(content, path)
    problems: list[str] = []
    if not midi_repair.looks_whole(content):
        content, problems = midi_repair.repair(content)
    _check_header(content, path)
    if problems and strict:
        message = f"{path!r} is damaged: {'; '.join(problems)}."
        raise MIDIError(message, "damaged")
    try:
        return _read(name, content)._replace(problems=tuple(problems)), content
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # a bad byte makes the parsers raise anything
        reason = f"{error}" or type(error).__name__
        failed = MIDIError(f"{path!r} is not a readable MIDI file: {reason}")
        if strict:
            raise failed from error
        # Bytes that look like an event may have hidden what is wrong.
        others = ["pretty_midi"] if engine == "auto" and _has_pretty_midi() else []
        if not problems:
            content, problems = midi_repair.repair(content)
            others = [name, *others]
        score = _first_that_reads(others, content)
        if score is None:
            raise failed from error
        return score._replace(problems=tuple(problems)), content


def parse_messages(path: str | os.PathLike) -> tuple[Score, bytes, "mido.MidiFile"]:
    """Reads a MIDI file, as `parse_and_repair` does, and all of its messages.

    Args:
        path: The file.

    Returns:
        The score, the bytes, repaired if need be, and the messages in them.
    """
    require("mido", extra="examples")
    score, content = parse_and_repair(path)
    try:
        return score, content, midi_notes.read_with_mido(content)
    except Exception as error:  # mido raises anything
        reason = str(error) or type(error).__name__
        raise MIDIError(
            f"{os.fspath(path)!r} cannot be read by mido: {reason}"
        ) from error


def _read(name: str, content: bytes) -> Score:
    if name == "symusic":
        return midi_notes.read_with_symusic(content)
    return midi_notes.read_with_pretty_midi(content)


def _first_that_reads(names: list[str], content: bytes) -> Score | None:
    """The score by the first parser that reads the file."""
    for name in names:
        try:
            return _read(name, content)
        except MemoryError:
            raise
        except Exception:  # the first error is the one that is told
            continue
    return None


def read_bytes(path: str | os.PathLike) -> bytes:
    """Reads a file, up to one byte more than is accepted.

    Args:
        path: The file.

    Raises:
        FileNotFoundError: There is no such file.
        OSError: The file cannot be read.
    """
    with open_binary(path) as file:
        return file.read(LARGEST_FILE + 1)


def _check_size(content: bytes, path: str) -> None:
    if len(content) > LARGEST_FILE:
        raise MIDIError(
            f"{path!r} has more than {LARGEST_FILE:,} bytes; larger files are not "
            "read.",
            "too large",
        )


def _check_header(content: bytes, path: str) -> None:
    """Refuses files that need not be parsed."""
    if not content:
        raise MIDIError(f"{path!r} is not a MIDI file: it is empty.", "empty")
    if len(content) < 14 or content[:4] != b"MThd":
        raise MIDIError(
            f"{path!r} is not a MIDI file: it does not begin with a MIDI header.",
            "not a MIDI file",
        )
    kind, _, division = struct.unpack(">HHH", content[8:14])
    if kind == 2:
        raise MIDIError(
            f"{path!r} is a MIDI file of format 2: its tracks are pieces of their own, "
            "not parts of one.",
            "format 2",
        )
    if division & 0x8000:
        raise MIDIError(
            f"{path!r} counts film frames (SMPTE), of a rate that there is not.",
            "film frames",
        )
    if division == 0:
        raise MIDIError(
            f"{path!r} has a resolution of 0 ticks a quarter note.", "no resolution"
        )


def engine_name(engine: str) -> str:
    """The name of the parser that will be used.

    Args:
        engine: As in `parse`.

    Returns:
        `"pretty_midi"` or `"symusic"`.

    Raises:
        ImportError: It is not installed.
        ValueError: There is no such engine.
    """
    checks.one_of("engine", engine, ENGINES)
    if engine == "symusic":
        require("symusic", extra="fast-midi")
    if engine == "pretty_midi" or not _has_symusic():
        require("pretty_midi", extra="examples")
        return "pretty_midi"
    return "symusic"


@functools.cache
def _has_symusic() -> bool:
    return importlib.util.find_spec("symusic") is not None


@functools.cache
def _has_pretty_midi() -> bool:
    return importlib.util.find_spec("pretty_midi") is not None
