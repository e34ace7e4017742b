"""Sound files to samples, decoded by soundfile, PyAV or tensorflow-io.

All give the same samples of PCM and FLAC, bit for bit: integers of n bits are divided
by 2 ** (n - 1). Lossy formats differ in the last bits.

soundfile is the fastest. What it does not read, or only in part, PyAV reads. A sound of
which a part is missing is an error, or the part with a finding that says how much.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import logging
import os
import re
from collections.abc import Iterator

import numpy as np

from .. import checks
from ..files import FileError, Finding, open_binary, require
from .headers import FRAMES_OF_DELAY, WHOLE, Layout, inspect, looks_like_sound
from .pieces import Decoded, MissingSamplesError, in_form_of, mixed, resampled
from .pyav_decoder import DamagedError, NoSoundError, decode_by_pyav
from .soundfile_decoder import decode_by_soundfile
from .tensorflow_io_decoder import (
    check_tensorflow_io,
    decode_by_tensorflow_io,
    why_no_tensorflow_io,
)

DECODERS = ("auto", "soundfile", "pyav", "tensorflow-io")
"""The decoders; `"auto"` chooses for each file."""
UNCHECKED = "pyav, without checksums"
"""What gives something of a damaged file, when nothing else does."""
ERRORS = ("raise", "warn")
"""What to do about a sound of which a part is missing."""
LOWEST_RATE, HIGHEST_RATE = 100, 1_000_000
"""Rates beyond these, in samples per second, are refused as mistakes."""

LOUDEST = 1e12
"""Values beyond it, of which floats are capable, are damage: sums of them overflow."""

log = logging.getLogger("keras_gated")


class AudioError(FileError):
    """A sound file cannot be read; the message names it and says why."""


@dataclasses.dataclass
class Sound:
    """A sound file that has been opened."""

    sampling_rate: int
    """Samples per second."""
    channels: int
    """The number of channels."""
    decoder: str
    """The name of what decodes it; it may change before the last block."""
    blocks: Iterator[np.ndarray] = dataclasses.field(default_factory=lambda: iter(()))
    """The samples, `float32 [samples, channels]`, one block at a time."""
    findings: list[Finding] = dataclasses.field(default_factory=list)
    """What was noticed, complete after the last block; each goes on from the name of
    the file: `"holds 2 streams of sound; ..."`."""
    missing: Finding | None = None
    """What is missing of the sound, known after the last block."""

    @property
    def about(self) -> list[Finding]:
        """All that is to be said about it."""
        return [*self.findings, *filter(None, [self.missing])]


def error(path: str | os.PathLike, finding: Finding) -> AudioError:
    """The error that a finding about a file becomes.

    Args:
        path: The file.
        finding: What goes on from its name.
    """
    return AudioError(f"{os.fspath(path)!r} {finding}", finding.kind)


def decoder_name(decoder: str = "auto") -> str:
    """The name of the decoder that is tried first.

    Args:
        decoder: `"soundfile"`, `"pyav"`, `"tensorflow-io"` (which loads with
            TensorFlow 2.16 and 2.17), or `"auto"`: tensorflow-io if it loads, or else
            soundfile; and PyAV for what they do not read, or only in part. Default:
            `"auto"`.

    Returns:
        `"soundfile"`, `"pyav"` or `"tensorflow-io"`.

    Raises:
        ImportError: It is not installed, or does not load.
        ValueError: There is no such decoder.
    """
    checks.one_of("decoder", decoder, DECODERS)
    if decoder == "pyav":
        require("av", extra="audio")
        return decoder
    if decoder == "tensorflow-io":
        check_tensorflow_io()
        return decoder
    why = why_no_tensorflow_io() if decoder != "soundfile" else ""
    if decoder == "soundfile" or why:
        if decoder == "auto" and not installed("soundfile") and installed("av"):
            return "pyav"
        require("soundfile", extra="audio")
        return "soundfile"
    return "tensorflow-io"


def decode(
    path: str | os.PathLike,
    sampling_rate: int | None = None,
    mono: bool = False,
    decoder: str = "auto",
    max_seconds: float | None = None,
    channel: int | None = None,
    errors: str = "raise",
) -> Sound:
    """Opens a sound file.

    Args:
        path: The file.
        sampling_rate: Samples per second to resample to. Default: `None`, those of
            the file.
        mono: Whether to mix the channels to their mean. Default: `False`.
        decoder: As in `decoder_name`. Default: `"auto"`.
        max_seconds: Longer sound is refused. Default: `None`, no limit.
        channel: The number of the one channel to keep, from 0. Default: `None`, all
            of them, or their mean.
        errors: What to do if a part of the sound is missing: `"raise"`, or `"warn"`,
            which gives the rest, and a finding that says how much is missing. Default:
            `"raise"`.

    Returns:
        The rate, the channels, an iterator over the samples, and what was found.

    Raises:
        AudioError: (a `ValueError`) The file cannot be read; the iterator may raise
            it, too.
        FileNotFoundError: There is no such file.
        OSError: The file cannot be read.
        ImportError: The decoder, or what resamples, is not installed.
        ValueError: An argument is out of its range.
    """
    decoder_name(decoder)
    sampling_rate = check_rate(sampling_rate)
    checks.number("max_seconds", max_seconds, above=0, optional=True)
    checks.whole("channel", channel, 0, optional=True)
    checks.one_of("errors", errors, ERRORS)
    path = os.fspath(path)
    with open_binary(path) as file:  # the decoders' errors are less clear
        head = file.read(16)
        if not head:
            raise AudioError(f"{path!r} is not a sound file: it is empty.", "empty")
        layout = inspect(file)
    if layout.lost and errors == "raise":
        raise error(path, layout.lost)
    partly = errors == "warn"
    try:
        attempts = _Attempts(path, decoder, layout, looks_like_sound(head), partly)
    except AudioError as problem:
        raise error(path, layout.lost) if layout.lost else problem from None
    sound = attempts.sound
    if not LOWEST_RATE <= sound.sampling_rate <= HIGHEST_RATE:
        raise AudioError(
            f"{path!r} claims {sound.sampling_rate:,} samples per second; from "
            f"{LOWEST_RATE:,} to {HIGHEST_RATE:,} are read.",
            "a rate that is a mistake",
        )
    if channel is not None and channel >= sound.channels:
        raise AudioError(
            f"{path!r} has {sound.channels} channels; there is no channel={channel}.",
            "too few channels",
        )
    rate = sound.sampling_rate
    blocks = _checked(path, attempts.blocks(), rate, max_seconds)
    if channel is not None:
        blocks = (block[:, channel : channel + 1] for block in blocks)
    elif mono and sound.channels > 1:
        blocks = mixed(blocks, sound.findings)
    if mono or channel is not None:
        sound.channels = 1
    if sampling_rate is not None and sampling_rate != rate:
        blocks = resampled(blocks, sound.channels, rate, sampling_rate)
        sound.sampling_rate = sampling_rate
    sound.blocks = blocks
    return sound


def check_rate(sampling_rate: int | None) -> int | None:
    """Checks a rate to resample to.

    Args:
        sampling_rate: Samples per second, or `None`.

    Returns:
        The rate.

    Raises:
        ValueError: It is out of range.
    """
    return checks.whole(
        "sampling_rate", sampling_rate, LOWEST_RATE, HIGHEST_RATE, optional=True
    )


def installed(package: str) -> bool:
    """Whether a package is installed.

    Args:
        package: The name to import.
    """
    return importlib.util.find_spec(package) is not None


class _Attempts:
    """Decoders, one after the other, until one reads all of a file."""

    def __init__(
        self, path: str, decoder: str, layout: Layout, sound_like: bool, partly: bool
    ) -> None:
        self._path, self._layout = path, layout
        self._sound_like = sound_like
        self._partly = partly
        self._asked_for = decoder != "auto"
        names = list(_order(decoder, layout))
        if partly and "pyav" in names and (self._asked_for or installed("av")):
            names.append(UNCHECKED)
        self._names = iter(names)
        self._done = 0
        self._problems: dict[str, Exception] = {}
        opened = self._next()
        if opened is None:
            raise self._not_opened()
        self._decoded, name = opened
        self.sound = Sound(self._decoded.sampling_rate, self._decoded.channels, name)

    def _next(self) -> tuple[Decoded, str] | None:
        """Opens the file with the next decoder that can."""
        for name in self._names:
            if name == UNCHECKED and self._done:
                continue  # something is better, if it is right
            why = [self._layout.doubt] * (name == "pyav" and not self._asked_for)
            why += [f"{other}: {_reason(e)}" for other, e in self._problems.items()]
            try:
                decoded = DECODE[name](self._path, self._layout)
                if name == "soundfile" and not self._asked_for:
                    _check_promise(decoded, self._layout)
            except MemoryError:  # no fault of the file
                raise
            except ImportError as problem:
                if self._asked_for:
                    raise
                self._problems[name] = problem
            except Exception as problem:  # a bad byte makes the decoders raise anything
                self._problems[name] = problem
            else:
                why = " (" + "; ".join(filter(None, why)) + ")" if any(why) else ""
                log.info("%r is decoded by %s%s.", self._path, name, why)
                return decoded, name
        return None

    def _not_opened(self) -> AudioError:
        problems = self._problems
        for problem in problems.values():
            if isinstance(problem, NoSoundError):
                return AudioError(f"{self._path!r} is no sound: {problem}", "no sound")
            if isinstance(problem, DamagedError):
                return AudioError(
                    f"{self._path!r} is not a readable sound file: {problem}", "damaged"
                )
        reasons = [_reason(problem) for problem in problems.values()]
        if len(problems) > 1:
            reasons = [f"{name}: {_reason(e)}" for name, e in problems.items()]
        kind = "damaged" if self._layout.parts else "not sound"
        if self._sound_like and not self._layout.parts:
            lacks = any(isinstance(e, ImportError) for e in problems.values())
            kind = "needs PyAV" if lacks else "damaged, or of an unknown format"
        return AudioError(
            f"{self._path!r} is not a readable sound file: {'; '.join(reasons)}", kind
        )

    def blocks(self) -> Iterator[np.ndarray]:
        """The samples; where a decoder fails, the next goes on."""
        layout, problem, first = self._layout, None, self._decoded
        decoded, name = self._decoded, self.sound.decoder
        while True:
            read, failure = 0, None
            try:
                with contextlib.closing(decoded.blocks):
                    for block in decoded.blocks:
                        read += len(block)
                        if read > self._done:
                            new = block[len(block) - (read - self._done) :]
                            self._done = read
                            self.sound.decoder = name
                            yield new
            except MissingSamplesError as shortfall:
                failure = shortfall.finding
            except MemoryError:
                raise
            except Exception as exception:
                reason = f"cannot be decoded to its end: {_reason(exception)}"
                failure = Finding(reason, "damaged")
            if failure is None and not read:
                failure = Finding("holds no samples", "empty")
            if failure is None and read >= self._done:
                self.sound.decoder, problem = name, None
                break
            if problem is None or read >= self._done:
                problem, notes = failure or problem, decoded.notes
            self._problems[name] = ValueError(problem)
            opened = self._next()
            if opened is None or (self._done and not self._same_form(opened[0])):
                decoded = decoded._replace(notes=notes)
                break
            decoded, name = opened
            if not self._same_form(decoded):
                decoded = in_form_of(first, decoded)
        problem = layout.lost or problem
        if problem is not None and not (self._partly and self._done):
            raise error(self._path, problem)
        self.sound.findings[:0] = [*layout.notes, *decoded.notes]
        self.sound.missing = problem

    def _same_form(self, decoded: Decoded) -> bool:
        first = self._decoded
        return decoded[:2] == (first.sampling_rate, first.channels)


def _order(decoder: str, layout: Layout) -> tuple[str, ...]:
    """The decoders to try."""
    if decoder != "auto":
        return (decoder,)
    if not installed("soundfile"):
        return ("pyav",)
    if layout.samples is not None and not layout.parts:  # soundfile may read as many
        return ("soundfile", "pyav")
    if layout.doubt or not layout.known:
        return ("pyav", "soundfile")
    if layout != WHOLE or why_no_tensorflow_io():
        return ("soundfile", "pyav")
    return ("tensorflow-io", "soundfile", "pyav")


def _check_promise(decoded: Decoded, layout: Layout) -> None:
    """Refuses what would stop before the last of the frames that were counted."""
    samples = layout.samples or 0
    if decoded.promised < samples - FRAMES_OF_DELAY and not layout.parts:
        decoded.blocks.close()
        raise ValueError(
            f"it would read only {decoded.promised:,} of {samples:,} samples"
        )


def _reason(error: Exception) -> str:
    text = getattr(error, "error_string", None) or str(error) or type(error).__name__
    text = re.sub(r"^\{\{.*?\}\} *| \[Op:.*", "", text.splitlines()[0])  # TensorFlow's
    return text.rstrip(".")


def _checked(
    path: str, blocks: Iterator[np.ndarray], rate: int, max_seconds: float | None
) -> Iterator[np.ndarray]:
    total = 0
    for block in blocks:
        if not (right := np.abs(block) <= LOUDEST).all():  # nor is NaN
            at = total + int(np.argmin(right.all(axis=1)))
            raise AudioError(
                f"{path!r} holds values that are not finite, or beyond {LOUDEST:g}, "
                f"first in sample {at:,}.",
                "values that are not finite",
            )
        total += len(block)
        if max_seconds is not None and total > max_seconds * rate:
            raise AudioError(
                f"{path!r} lasts longer than {max_seconds:,.0f} seconds, the limit "
                "(max_seconds).",
                "too long",
            )
        yield block


DECODE = {
    "soundfile": decode_by_soundfile,
    "pyav": decode_by_pyav,
    UNCHECKED: functools.partial(decode_by_pyav, checked=False),
    "tensorflow-io": decode_by_tensorflow_io,
}
