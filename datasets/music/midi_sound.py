"""The sound of MIDI files."""

import importlib.util
import logging
import math
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .. import checks
from ..files import require
from .midi_engines import MIDIError, parse_messages
from .score import DRUMS

if TYPE_CHECKING:
    import mido

MOST_TICKS = 5_000_000
"""In what pretty_midi is given: it takes memory for each, and ten million at most."""
TAIL = 1.0
"""Seconds after the last message, in which notes die away."""


def synthesize(
    path: str | os.PathLike,
    sampling_rate: int = 44_100,
    sound_font: str | os.PathLike | None = None,
    max_seconds: float | None = 3600.0,
) -> np.ndarray:
    """Makes the sound of a MIDI file, with its instruments, drums and controls.

    Where the package tinysoundfont is installed, it plays a sound font; else
    pretty_midi makes sine tones, without drums, and the log says how to get more.

    Args:
        path: The file.
        sampling_rate: Samples per second, positive. Default: 44,100.
        sound_font: An `.sf2` file. Default: `None`, TimGM6mb, a font of all General
            MIDI instruments that pretty_midi brings.
        max_seconds: Longer music is refused, as it would take gigabytes; `None` for no
            limit. Default: 3,600, an hour.

    Returns:
        Samples from -1 to 1, `float32 [samples]`, the loudest at 0.9.

    Raises:
        MIDIError: (a `ValueError`) The file is not a readable MIDI file, or exceeds the
            limit.
        FileNotFoundError: There is no such file, or sound font.
        ImportError: pretty_midi is not installed; or there is a `sound_font`, and
            tinysoundfont is not installed.
        ValueError: An argument is out of its range.

    Example:

    >>> from keras_gated.datasets import midi, piano_roll
    >>> midi.write(piano_roll.from_notes([(0, 2, 60)], 1), "note.mid", tempo=120)
    >>> len(midi.synthesize("note.mid", 8000)) >= 4000  # half a second, and its end
    True
    """
    sampling_rate = checks.whole("sampling_rate", sampling_rate)
    for what, file in (("file", path), ("sound font", sound_font)):
        if file is not None and not Path(file).is_file():
            raise FileNotFoundError(f"There is no {what} {os.fspath(file)!r}.")
    checks.number("max_seconds", max_seconds, above=0, optional=True)
    pretty_midi = require("pretty_midi", extra="examples")
    score, _, midi = parse_messages(path)
    if not midi.tracks:
        raise MIDIError(f"{os.fspath(path)!r} holds no track.", "no notes")
    ticks = [sum(message.time for message in track) for track in midi.tracks]
    seconds = float(score.seconds(np.array([max(ticks)]))[0])
    if max_seconds is not None and seconds > max_seconds:
        raise MIDIError(
            f"{os.fspath(path)!r} lasts {seconds:,.0f} seconds, longer than the "
            f"limit, {max_seconds:,.0f} (max_seconds).",
            "too long",
        )
    has_player = importlib.util.find_spec("tinysoundfont") is not None
    if sound_font is not None and not has_player:
        raise ImportError(f"A sound font needs the package {GET_PLAYER}")
    if has_player:
        font = sound_font or Path(pretty_midi.__file__).with_name("TimGM6mb.sf2")
        sound = _played(midi, sampling_rate, font)
    else:
        log = logging.getLogger("keras_gated")
        log.warning("Sine tones, without drums; instruments need %s", GET_PLAYER)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tempi outside the first track
            parsed = pretty_midi.PrettyMIDI(mido_object=_with_few_ticks(midi))
        # One at a time: pretty_midi keeps all, and divides silence by its peak.
        length = round((parsed.get_end_time() + TAIL) * sampling_rate)
        sound = np.zeros(length, np.float32)
        for instrument in parsed.instruments:
            part = instrument.synthesize(sampling_rate)[:length]
            sound[: len(part)] += part
    peak = max(float(np.abs(sound).max(initial=0)), 1e-9)
    return np.multiply(0.9 / peak, sound, dtype=np.float32)


def _with_few_ticks(midi: "mido.MidiFile") -> "mido.MidiFile":
    """The messages with longer ticks if there are more than pretty_midi takes."""
    times = [np.cumsum([message.time for message in track]) for track in midi.tracks]
    factor = math.ceil(max(max(track, default=0) for track in times) / MOST_TICKS)
    if factor > 1:
        midi.ticks_per_beat /= factor
        for track, now in zip(midi.tracks, times, strict=True):
            waits = np.diff(now // factor, prepend=0).tolist()
            for message, wait in zip(track, waits, strict=True):
                message.time = wait
    return midi


# Without its dependencies: it names pyaudio, which it needs only to play aloud, and
# which has no wheel for Linux.
GET_PLAYER = "tinysoundfont: pip install --no-deps tinysoundfont"


def _played(
    midi: "mido.MidiFile", sampling_rate: int, font: str | os.PathLike
) -> np.ndarray:
    """The sound of messages, played with a sound font: the mean of left and right."""
    import tinysoundfont

    synth = tinysoundfont.Synth(samplerate=sampling_rate)
    synth.sfload(os.fspath(font))
    for channel in range(16):
        synth.program_change(channel, 0, channel == DRUMS)
    pieces, seconds, done = [], 0.0, 0

    def until(seconds: float) -> None:
        nonlocal done
        samples = round(seconds * sampling_rate) - done
        if samples > 0:
            stereo = np.frombuffer(synth.generate(samples), np.float32)
            pieces.append(stereo.reshape(-1, 2).mean(axis=1))
            done += samples

    for message in midi:
        seconds += message.time
        until(seconds)
        kind = message.type
        if kind == "note_on":
            synth.noteon(message.channel, message.note, message.velocity)
        elif kind == "note_off":
            synth.noteoff(message.channel, message.note)
        elif kind == "program_change":
            drums = message.channel == DRUMS
            synth.program_change(message.channel, message.program, drums)
        elif kind == "control_change":
            synth.control_change(message.channel, message.control, message.value)
        elif kind == "pitchwheel":
            synth.pitchbend(message.channel, message.pitch + 2**13)
    until(seconds + TAIL)
    return np.concatenate(pieces)
