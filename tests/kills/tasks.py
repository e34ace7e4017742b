"""The programs that are killed, with small data that is made for them."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np

from keras_gated.datasets import audio, midi

DATA, RESULTS = "data", "results"
"""Folders: of the data, beside those in which a program runs, and of its results."""


@dataclasses.dataclass(frozen=True)
class Task:
    """A program and what it reads.

    Attributes:
        script: Its path in the project.
        arguments: Among them `RESULTS` and, relative to the folder in which it runs,
            the data.
        make_data: Writes the data into a folder. Default: there is none.
    """

    script: str
    arguments: str
    make_data: Callable[[Path], None] = lambda folder: None


def small_music(folder: Path, files: int = 10) -> None:
    """Writes small MIDI files that a cell can learn something from.

    Args:
        folder: For the files.
        files: Their number. Default: 10.
    """
    random = np.random.default_rng(0)
    for n in range(files):
        roll = np.zeros((40, 88), np.uint8)
        for t in range(40):
            roll[t, 40 + (t + n) % 5] = 1
        roll[random.integers(0, 40, 3), 60] = 1
        midi.write(roll, folder / f"{n}.mid")


def collection(folder: Path) -> None:
    """Writes several hundred MIDI files, and some that are damaged.

    Args:
        folder: For the files.
    """
    small_music(folder, 600)
    for path in sorted(folder.iterdir())[::50]:
        path.write_bytes(path.read_bytes()[:30])


def tones(folder: Path, files: int = 30) -> None:
    """Writes recordings of sine tones in noise.

    Args:
        folder: For the files.
        files: Their number. Default: 30.
    """
    random, rate = np.random.default_rng(0), 8000
    for n in range(files):
        time = np.arange(rate) / rate
        tone = 0.3 * np.sin(2 * np.pi * (200 + 30 * n) * time)
        audio.write(tone + 0.02 * random.normal(size=rate), folder / f"{n}.wav", rate)


def recordings(folder: Path) -> None:
    """Writes several hundred recordings, and some that are damaged.

    Args:
        folder: For the files.
    """
    tones(folder, 400)
    for path in sorted(folder.iterdir())[::50]:
        path.write_bytes(path.read_bytes()[:30])


DEMO = f"--midi-dir ../{DATA} --log-dir {RESULTS} --units 5"
TASKS = {
    "demo": Task(
        "examples/polyphonic_music.py",
        f"{DEMO} --no-joint --cells tanh gru --epochs 70 --patience 70",
        small_music,
    ),
    "joint": Task(
        "examples/polyphonic_music.py",
        f"{DEMO} --cells tanh --epochs 30",
        small_music,
    ),
    "speech": Task(
        "examples/speech.py",
        f"--audio-dir ../{DATA} --log-dir {RESULTS} --units 8 --cells lstm "
        "simplified_gru --epochs 20 --patience 20",
        tones,
    ),
    "study": Task(
        "tests/kills/small_study.py",
        f"--study-dir {RESULTS} --sets jsb_chorales --cells gru --afresh",
    ),
    "midi_corpus": Task(
        "examples/prepare_midi_corpus.py",
        f"--input ../{DATA} --output {RESULTS} --shards 60",
        collection,
    ),
    "audio_corpus": Task(
        "examples/prepare_audio_corpus.py",
        f"--input ../{DATA} --output {RESULTS} --shards 60 --sampling-rate 6000",
        recordings,
    ),
}
"""By their names. Without a kill each takes half a minute or a little more."""
