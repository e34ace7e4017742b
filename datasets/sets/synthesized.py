"""Sound for users without recordings: Bach's chorales as tones, or espeak-ng's speech.

Both write WAV files, once, into a folder of the cache.
"""

import contextlib
import functools
import hashlib
import itertools
import json
import logging
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from ..files import atomic_path, cache_directory
from ..music import midi
from . import bach_chorales

DIGESTS = ".sha256.json"
"""The ending of the file beside a folder that knows what was made in it."""
SAMPLING_RATE = 8000
CHORALES, QUARTERS, TEMPO = 60, 24, 120
SPEAKER = "espeak-ng"
VOICES = (
    "en-us+m3",
    "en-us+f2",
    "en-gb-x-rp+m1",
    "en-gb-x-rp+f4",
    "en-gb-scotland+m7",
    "en-us+f5",
)
log = logging.getLogger("keras_gated")

SENTENCES = (
    "The gate opens when the morning train has left.",
    "Seven grey geese crossed the frozen lake.",
    "She wound the clock before she went to bed.",
    "A kettle sings on the stove in the corner.",
    "Please carry both of the boxes upstairs.",
    "The orchestra tuned while the hall filled up.",
    "He counts the waves from the end of the pier.",
    "Fresh bread and cheese were on the table.",
    "They painted the old door a bright yellow.",
    "Rain has washed the dust from the leaves.",
    "My neighbour keeps a parrot that whistles.",
    "The map shows a path along the river.",
    "We heard thunder far behind the hills.",
    "Put the violin back into its case.",
    "Eight lamps lit the narrow staircase.",
    "The baker knows every child by name.",
    "A thin fog hid the masts in the harbour.",
    "You may borrow the ladder until Friday.",
    "The choir sang without a single wrong note.",
    "Snow fell softly on the empty square.",
    "His brother mends bicycles for a living.",
    "The soup needs a pinch of salt and pepper.",
    "Jump over the puddle and run for the bus.",
    "The judge asked the same question twice.",
    "Her violet scarf flew off in the wind.",
    "Nobody knew who had drawn the picture.",
    "Three ships lay at anchor in the bay.",
    "The cat sleeps on a pile of clean shirts.",
    "Turn the page and read the last line aloud.",
    "At noon the bells of the village ring.",
)


def chorales(cache_dir: str | os.PathLike | None = None, verbose: int = 1) -> Path:
    """Synthesizes the beginnings of Bach's chorales, 8,000 samples per second.

    Args:
        cache_dir: Where the folder `chorales_as_sound` is made. Default:
            `datasets/keras_gated` in Keras's folder.
        verbose: 1 shows a progress bar, 0 is silent. Default: 1.

    Returns:
        The folder, of 60 WAV files of some 12 seconds.

    Raises:
        ImportError: music21, pretty_midi or SciPy is not installed.
    """

    @functools.cache
    def rolls() -> list:
        return bach_chorales.load_data(cache_dir=cache_dir, verbose=verbose)[0]

    def write(number: int, path: Path) -> None:
        roll = rolls()[number][: 2 * QUARTERS]
        midi.write_wav(
            roll, path, steps_per_quarter=2, tempo=TEMPO, sampling_rate=SAMPLING_RATE
        )

    files = {
        f"chorale_{number:02d}.wav": functools.partial(write, number)
        for number in range(CHORALES)
    }
    return _made(cache_directory(cache_dir) / "chorales_as_sound", files, verbose)


def has_speaker() -> bool:
    """Whether the program espeak-ng is installed."""
    return shutil.which(SPEAKER) is not None


def speech(cache_dir: str | os.PathLike | None = None, verbose: int = 1) -> Path:
    """Synthesizes sentences with the program espeak-ng, in several voices.

    Args:
        cache_dir: Where the folder `speech_by_espeak` is made. Default:
            `datasets/keras_gated` in Keras's folder.
        verbose: 1 shows a progress bar, 0 is silent. Default: 1.

    Returns:
        The folder, of 180 WAV files of some 2.5 seconds, by voice.

    Raises:
        FileNotFoundError: The program is not installed.
        OSError: It failed.
    """
    if not has_speaker():
        raise FileNotFoundError(
            f"The program {SPEAKER} is not installed (apt-get install {SPEAKER})."
        )
    files = {
        f"{voice}/sentence_{number:02d}.wav": functools.partial(_speak, sentence, voice)
        for (number, sentence), voice in itertools.product(enumerate(SENTENCES), VOICES)
    }
    return _made(cache_directory(cache_dir) / "speech_by_espeak", files, verbose)


def _speak(sentence: str, voice: str, path: Path) -> None:
    with atomic_path(path) as file:
        command = [SPEAKER, "-z", "-v", voice, "-w", os.fspath(file), sentence]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        # The program reports success even if it cannot write.
        if done.returncode or not file.stat().st_size:
            raise OSError(f"{SPEAKER} failed: {done.stderr.strip()}")


def _made(folder: Path, files: dict[str, Callable], verbose: int) -> Path:
    """Writes what the folder lacks, or what has been changed since it was written."""
    digests = folder.with_name(folder.name + DIGESTS)
    known, lacking = _known(digests), []
    for name in files:
        if not (folder / name).is_file():
            lacking.append(name)
        elif _digest(folder / name) != known.get(name):
            log.warning("%s is not what was made, and is made anew.", folder / name)
            lacking.append(name)
    if lacking:
        from keras.utils import Progbar

        bar = Progbar(len(lacking), verbose=verbose, unit_name="file")
        try:
            for name in lacking:
                files[name](path=folder / name)
                known[name] = _digest(folder / name)
                bar.add(1)
        finally:
            if known:
                with atomic_path(digests) as file:
                    file.write_text(json.dumps(known, indent=1))
    return folder


def _known(path: Path) -> dict[str, str]:
    """The digests of the files that were made, by name."""
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(path.read_bytes())
        if isinstance(known, dict):
            return known
    return {}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
