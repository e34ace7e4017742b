"""Times the reading of MIDI files beside pretty_midi's own piano roll.

    python benchmarks/midi.py --midi-dir DIR

CPU time of `datasets.midi.read` with both parsers and of
`pretty_midi.PrettyMIDI(file).get_piano_roll(fs=100)`, which take turns over
groups of the files; and the wall-clock time of `read_directory` with one and two
processes, and from its cache. Ratios are medians over the rounds of the ratio
within a round. Nothing else should run.
"""

import argparse
import cProfile
import importlib.metadata
import json
import os
import pstats
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pretty_midi

from keras_gated.datasets import midi, midi_directory

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
    seconds: dict[str, list] = {"1 process": [], "2 processes": [], "cache": []}
    # One process, as for two: started, and fed through a pipe.
    midi_directory.FILES_A_PROCESS = dict.fromkeys(PARSERS, 1)
    for _ in range(rounds):
        for count in (1, 2):
            with tempfile.TemporaryDirectory() as cache_dir:

                def read(count: int = count, cache_dir: str = cache_dir) -> None:
                    midi_directory.read_directory(
                        directory,
                        workers=count,
                        cache_dir=cache_dir,
                        engine="pretty_midi",
                        verbose=0,
                    )

                seconds[f"{count} process{'es' * (count > 1)}"].append(wall(read))
                if count == 2:
                    seconds["cache"].append(wall(read))
    return seconds


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
        "cache over 1 process": round(ratio(folder, "1 process", "cache"), 1),
        "shares of the pretty_midi engine": {
            name: round(share, 2) for name, share in profile(paths[::5]).items()
        },
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("pretty_midi", "mido", "symusic", "numpy")
        },
    }
    print(json.dumps(result, indent=1))
    text = json.dumps({**result, "seconds": {**single, **folder}}, indent=1)
    Path(__file__).with_name("midi.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
