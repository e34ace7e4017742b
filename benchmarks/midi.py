"""Times the reading of MIDI files beside pretty_midi's own piano roll.

    python benchmarks/midi.py --midi-dir DIR

CPU time of `datasets.midi.read` with both parsers and of
`pretty_midi.PrettyMIDI(file).get_piano_roll(fs=100)`, which take turns over
groups of the files; and the wall-clock time of `read_directory` with one and two
processes, and from its cache (and of processes that read a part each and share
nothing, for what the machine can do). Ratios are medians over the rounds of the ratio
within a round. With `--data-dir`, the share of an epoch of training that the
batches of the published sets take; with `--beam`, files a second of
examples/prepare_midi_corpus.py. Nothing else should run.
"""

import argparse
import collections
import cProfile
import importlib.metadata
import json
import pstats
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "examples"))
import quiet  # noqa: F401
import keras
import pretty_midi
import tensorflow as tf

import keras_gated
from keras_gated import losses
from keras_gated.datasets import (
    jsb_chorales,
    midi,
    midi_directory,
    muse_data,
    nottingham,
    piano_midi,
    piano_roll,
)

warnings.simplefilter("ignore")  # pretty_midi's, about tempi on other tracks
PARSERS = ("pretty_midi", "symusic")


def cpu(call: Callable) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


def wall(call: Callable) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def one_by_one(paths: list[Path], rounds: int, group: int = 50) -> dict[str, list]:
    """CPU seconds of each round."""
    options = {parser: midi.Options(engine=parser) for parser in PARSERS}
    contenders = {
        "peer": lambda path: pretty_midi.PrettyMIDI(str(path)).get_piano_roll(fs=100),
        "peer, parsing alone": lambda path: pretty_midi.PrettyMIDI(str(path)),
        **{
            parser: lambda path, parser=parser: midi.read_all(path, options[parser])
            for parser in PARSERS
        },
    }
    seconds = {name: [0.0] * rounds for name in contenders}
    for k in range(rounds):
        for first in range(0, len(paths), group):
            some = paths[first : first + group]
            for name, call in contenders.items():
                seconds[name][k] += cpu(lambda c=call, s=some: [c(p) for p in s])
    return seconds


def folders(directory: Path, rounds: int) -> dict[str, list]:
    """Wall-clock seconds of each round."""
    seconds = collections.defaultdict(list)
    paths = sorted(directory.rglob("*.mid"))
    for _ in range(rounds):
        for count in (1, 2):
            with tempfile.TemporaryDirectory() as cache_dir:

                def read(count: int = count, cache_dir: str = cache_dir) -> None:
                    midi_directory.read_directory(
                        directory,
                        workers=count,
                        cache_dir=cache_dir,
                        engine="pretty_midi",
                        verbose=False,
                    )

                seconds[f"{count} process{'es' * (count > 1)}"].append(wall(read))
                if count == 2:
                    seconds["cache"].append(wall(read))
            seconds[f"{count} apart"].append(apart(paths, count))
    return seconds


SHARE = """
import sys
from keras_gated.datasets import midi
number, count, *paths = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
for path in paths[int(number) :: int(count)]:
    midi.read_all(path, midi.Options(engine="pretty_midi"))
print("done", flush=True)
"""


def apart(paths: list[Path], count: int) -> float:
    """Processes that share nothing but the machine read a part of the files each."""
    command = [sys.executable, "-c", SHARE]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [
        subprocess.Popen([*command, str(k), str(count), *map(str, paths)], **pipes)
        for k in range(count)
    ]
    for process in processes:
        process.stdout.readline()

    def read() -> None:
        for process in processes:
            process.stdin.write("\n")
            process.stdin.flush()
        for process in processes:
            process.stdout.readline()

    seconds = wall(read)
    for process in processes:
        process.communicate()
    return seconds


def shares_of_epochs(data_dir: Path) -> dict[str, dict]:
    """What making the batches takes of an epoch of a GRU of 46 units."""
    shares = {}
    for module in (jsb_chorales, nottingham, muse_data, piano_midi):
        train, _, _ = module.load_data(data_dir)
        data = piano_roll.next_step_dataset(train, batch_size=16, shuffle=True, seed=1)
        model = keras.Sequential(
            [
                keras.Input((None, piano_roll.KEYS)),
                keras_gated.GRU(46, return_sequences=True),
                keras.layers.Dense(piano_roll.KEYS),
            ]
        )
        model.compile("rmsprop", losses.BernoulliNLL())
        model.fit(data, verbose=0)  # compiles
        epochs, passes, begun_once, batches = [], [], [], iter(data.repeat())
        for _ in range(7):
            epochs.append(wall(lambda d=data, m=model: m.fit(d, verbose=0)))
            passes.append(wall(lambda d=data: [None for _ in d]))
            begun_once.append(
                wall(lambda b=batches, d=data: [next(b) for _ in range(len(d))])
            )
        epoch = statistics.median(epochs)
        steps = {tuple(inputs.shape) for inputs, *_ in data}
        padded = sum(float(tf.size(weights)) for *_, weights in data)
        true = sum(len(roll) - 1 for roll in train)
        shares[module.__name__.rpartition(".")[2]] = {
            "share": round(statistics.median(passes) / epoch, 3),
            "share with repeat()": round(statistics.median(begun_once) / epoch, 3),
            "epoch_seconds": round(epoch, 2),
            "shapes": len(steps),
            "padding": round(1 - true / padded, 3),
        }
    return shares


def beam(directory: Path, copies: int = 10) -> dict[str, float]:
    """Wall-clock seconds of the pipeline; some of them are its start."""
    script = Path(__file__).parents[1] / "examples" / "prepare_midi_corpus.py"
    seconds = {}
    with tempfile.TemporaryDirectory() as base:
        for k in range(copies):
            shutil.copytree(directory, Path(base, "many", str(k)))
        one = Path(base, "one")
        one.mkdir()
        shutil.copy(next(iter(sorted(directory.rglob("*.mid")))), one)
        for name, folder, engine, workers in (
            ("start, 1 worker", one, "symusic", 1),
            ("start, 2 workers", one, "symusic", 2),
            ("pretty_midi, 1 worker", Path(base, "many"), "pretty_midi", 1),
            ("pretty_midi, 2 workers", Path(base, "many"), "pretty_midi", 2),
            ("symusic, 1 worker", Path(base, "many"), "symusic", 1),
            ("symusic, 2 workers", Path(base, "many"), "symusic", 2),
        ):
            command = [
                *(sys.executable, script, "--input", folder, "--engine", engine),
                *("--output", Path(base, name), "--shards", "32"),
                *("--direct_running_mode", "multi_processing"),
                *("--direct_num_workers", str(workers)),
            ]
            seconds[name] = wall(
                lambda c=command: subprocess.run(c, check=True, capture_output=True)
            )
    files = copies * len([*directory.rglob("*.mid")])
    rates = {
        name: round(files / (s - seconds[f"start, {name.partition(', ')[2]}"]))
        for name, s in seconds.items()
        if not name.startswith("start")
    }
    return {
        "files": files,
        "seconds": {name: round(s, 1) for name, s in seconds.items()},
        "files a second, after the start": rates,
    }


def profile(paths: list[Path]) -> dict[str, float]:
    """Where the time of the pretty_midi engine goes, as shares."""
    profiler = cProfile.Profile()
    options = midi.Options(engine="pretty_midi")
    profiler.runcall(lambda: [midi.read_all(path, options) for path in paths])
    stats = pstats.Stats(profiler).stats
    shares = {"mido reads the messages": 0.0, "pretty_midi pairs the notes": 0.0}
    total = max(entry[3] for entry in stats.values())
    for (file, _, function), entry in stats.items():
        if file.endswith("midifiles.py") and function == "_load":
            shares["mido reads the messages"] = entry[3] / total
        if file.endswith("pretty_midi.py") and function == "__init__":
            shares["pretty_midi pairs the notes"] = entry[3] / total
    return {**shares, "the rest, the roll": 1 - sum(shares.values())}


def ratio(seconds: dict[str, list], slow: str, fast: str) -> float:
    pairs = zip(seconds[slow], seconds[fast], strict=True)
    return statistics.median(a / b for a, b in pairs)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--midi-dir", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data-dir", type=Path, help="the published sets")
    parser.add_argument("--beam", action="store_true")
    args = parser.parse_args()
    paths = sorted(args.midi_dir.rglob("*.mid"))
    one_by_one(paths[:50], 1)  # imports, caches
    single = one_by_one(paths, args.rounds)
    folder = folders(args.midi_dir, args.rounds)
    per_file = {
        name: 1e3 * statistics.median(rounds) / len(paths)
        for name, rounds in {**single, **folder}.items()
    }
    peer = statistics.median(single["peer"])
    result = {
        "files": len(paths),
        "ms_per_file": {name: round(ms, 3) for name, ms in per_file.items()},
        "times as fast as the peer": {
            **{name: round(ratio(single, "peer", name), 2) for name in PARSERS},
            "cache": round(peer / statistics.median(folder["cache"]), 1),
        },
        "2 processes over 1": round(ratio(folder, "1 process", "2 processes"), 2),
        "2 processes over 1, sharing nothing": round(
            ratio(folder, "1 apart", "2 apart"), 2
        ),
        "cache over 1 process": round(ratio(folder, "1 process", "cache"), 1),
        "shares of the pretty_midi engine": {
            name: round(share, 2) for name, share in profile(paths[::5]).items()
        },
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("pretty_midi", "mido", "symusic", "numpy", "apache-beam")
        },
    }
    if args.data_dir is not None:
        result["tf.data"] = shares_of_epochs(args.data_dir)
    if args.beam:
        result["beam"] = beam(args.midi_dir)
    print(json.dumps(result, indent=1))
    text = json.dumps({**result, "seconds": {**single, **folder}}, indent=1)
    Path(__file__).with_name("midi.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
