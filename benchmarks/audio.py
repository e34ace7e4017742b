"""Times sound: reading, batches, what they take of training, and what is generated.

    python benchmarks/audio.py

On noise that is made for it. In hours of sound a minute of wall-clock time: an
hour of each format, read without a cache, beside `soundfile.read` of the same files
one by one (which only decodes); and batches made from it. The share that the batches
take of an epoch of each cell at the paper's size, and what such an epoch takes. The
memory of a process, at its largest, that reads and passes over one hour and ten, as
float32 on disk 0.2 and 2.3 GB. And how many samples a second every cell generates,
one sound at a time and 16.
Medians over rounds; nothing else should run.
"""

import argparse
import importlib.metadata
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "examples"))
import quiet  # noqa: F401
import keras
import numpy as np
import soundfile

import keras_gated
from keras_gated import CELLS, GaussianMixture, generation, losses
from keras_gated.datasets import audio
from keras_gated.datasets.sound.decoders import decoder_name

RATE, MINUTES = 16_000, 60
FORMATS = {
    "WAV, 16 bit": ("wav", "PCM_16"),
    "WAV, float": ("wav", "FLOAT"),
    "FLAC, 16 bit": ("flac", "PCM_16"),
    "OGG Vorbis": ("ogg", "VORBIS"),
    "MP3": ("mp3", "MPEG_LAYER_III"),
}
BUDGET = 168_800


def wall(call: Callable) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def write(folder: Path, files: int, kind: str = "wav", subtype: str = "PCM_16") -> list:
    """Files of a minute each, of noise that fades in and out."""
    folder.mkdir()
    random = np.random.default_rng(0)
    paths = []
    for k in range(files):
        loudness = np.sin(np.linspace(0, 100 * (k + 1), 60 * RATE)) ** 2
        sound = 0.1 * loudness * random.normal(size=60 * RATE)
        paths.append(folder / f"{k:04}.{kind}")
        soundfile.write(paths[-1], sound, RATE, subtype)
    return paths


def read(paths: list[Path], rate: int | None, **options: object) -> audio.Recordings:
    return audio.read_files(paths, rate, verbose=False, **options)


def reading(base: Path, rounds: int) -> dict[str, dict]:
    """Hours a minute: an hour takes `1 / seconds` of a second's hours."""
    figures = {}
    for name, (kind, subtype) in FORMATS.items():
        paths = write(base / f"{kind}-{subtype}", MINUTES, kind, subtype)
        ways = {
            "read": lambda p=paths: read(p, None, cache=False),
            "read, resampled to 8 kHz": lambda p=paths: read(p, 8000, cache=False),
            "soundfile alone": lambda p=paths: [
                soundfile.read(path, dtype="float32") for path in p
            ],
        }
        seconds = {way: [] for way in ways}
        for _ in range(rounds):
            for way, call in ways.items():
                seconds[way].append(wall(call))
        kept = {"cache_dir": base / f"cache-{kind}-{subtype}"}
        read(paths, None, **kept)
        again = [
            wall(lambda p=paths, k=kept: read(p, None, **k)) for _ in range(rounds)
        ]
        seconds["read again, from the cache"] = again
        figures[name] = {
            way: round(60 / statistics.median(some), 1) for way, some in seconds.items()
        }
        print(name, figures[name], flush=True)
    return figures


def model_of(name: str) -> keras.Model:
    units = keras_gated.match_units(CELLS[name], BUDGET, 20)
    cell = CELLS[name](units, weight_noise=0.075)
    recurrent = keras_gated.RNN(cell, return_sequences=True)
    model = keras.Sequential(
        [keras.Input((None, 20)), recurrent, GaussianMixture(20, 10)]
    )
    model.compile(
        keras.optimizers.RMSprop(0.001, global_clipnorm=1.0),
        losses.GaussianMixtureNLL(20, 10),
    )
    return model


def batches(base: Path, rounds: int) -> dict[str, dict]:
    """What making the batches takes, by itself and of the training of each cell."""
    recordings = read(sorted((base / "wav-PCM_16").iterdir())[:20], 8000, cache=False)
    hours, figures = recordings.seconds / 3600, {}
    for length, batch_size in ((500, 16), (8000, 2)):
        data = audio.frames_dataset(
            recordings,
            sequence_length=length,
            batch_size=batch_size,
            shuffle=True,
            seed=1,
            standardization=recordings.standardization(),
        )
        ahead = iter(data.repeat())
        seconds = statistics.median(
            wall(lambda a=ahead, d=data: [next(a) for _ in range(len(d))])
            for _ in range(rounds)
        )
        training = {}
        for name in CELLS:
            model = model_of(name)
            model.fit(data.repeat(), steps_per_epoch=10, verbose=0)  # compiles

            def some(m: keras.Model = model, d: object = data) -> None:
                m.fit(d.repeat(), steps_per_epoch=100, verbose=0)

            an_epoch = statistics.median(wall(some) for _ in range(3))
            training[name] = an_epoch * len(data) / 100
        figures[f"{batch_size} sequences of {length} samples"] = {
            "hours a minute": round(hours / (seconds / 60), 1),
            "ms a batch": round(1e3 * seconds / len(data), 2),
            "share of an epoch": {
                name: round(seconds / epoch, 4) for name, epoch in training.items()
            },
            "seconds of training for a minute of sound": {
                name: round(epoch / hours / 60, 2) for name, epoch in training.items()
            },
        }
        print(figures, flush=True)
    return figures


PASS = """
import re, sys
from pathlib import Path
from keras_gated.datasets import audio
paths = sorted(Path(sys.argv[1]).iterdir())[: int(sys.argv[2])]
recordings = audio.read_files(paths, cache=False, verbose=0)
data = audio.frames_dataset(
    recordings, sequence_length=500, batch_size=64, shuffle=True
)
data.reduce(0, lambda n, *batch: n + 1)
account = open("/proc/self/status").read()
print(len(recordings), re.search(r"VmHWM:\\s+(\\d+)", account)[1])
"""


def memory(base: Path) -> dict[str, int]:
    """MiB at the most, of a process of its own."""
    write(base / "long", 600)
    figures = {}
    for name, files in (("1 minute", 1), ("1 hour", 60), ("10 hours", 600)):
        command = [sys.executable, "-c", PASS, base / "long", str(files)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        count, size = re.findall(r"\d+", done.stdout.splitlines()[-1])
        assert int(count) == files
        figures[name] = int(size) // 1024
        print(figures, flush=True)
    return figures


def generating(rounds: int, samples: int = 16_000) -> dict[str, dict]:
    """Samples a second, of all sounds together."""
    figures = {}
    for name in CELLS:
        model = model_of(name)
        figures[name] = {}
        for sounds in (1, 16):
            primer = 0.1 * np.random.default_rng(0).normal(size=(sounds, 1000))

            def generate(m: keras.Model = model, p: np.ndarray = primer) -> None:
                generation.generate_audio(m, p, samples, seed=1)

            generate()  # compiles
            seconds = statistics.median(wall(generate) for _ in range(rounds))
            figures[name][f"{sounds} at a time"] = round(sounds * samples / seconds)
        print(name, figures[name], flush=True)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    names = ("keras", "tensorflow", "numpy", "soundfile", "soxr")
    with tempfile.TemporaryDirectory() as base:
        result = {
            "decoder": decoder_name(),
            "hours of sound a minute, an hour at 16 kHz": reading(
                Path(base), args.rounds
            ),
            "batches": batches(Path(base), args.rounds),
            "MiB at the most, to read and pass over": memory(Path(base)),
            "samples generated a second": generating(args.rounds),
            "versions": {name: importlib.metadata.version(name) for name in names},
        }
    text = json.dumps(result, indent=1)
    Path(__file__).with_name("audio.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
