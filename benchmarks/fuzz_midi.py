"""Mutated MIDI files: what the readers of `midi` get out of them, beside others.

    python benchmarks/fuzz_midi.py --midi-dir DIR --files 20000

Valid files, from a folder or made here, have bytes changed, are cut, doubled and
joined. Our readers may refuse a file only with a `MIDIError`; anything else, a crash,
parsers that read different rolls, or a file that takes longer than five seconds ends
the script with an error.
"""

import argparse
import collections
import contextlib
import faulthandler
import io
import os
import random
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import mido
import numpy as np
import pretty_midi
import symusic

os.environ.setdefault("KERAS_BACKEND", "jax")  # none is used; this one loads fast

from keras_gated.datasets import midi
from keras_gated.datasets.music.midi_engines import LARGEST_FILE

SECONDS = 5.0
"""How long a file may take, of this process's time."""


def valid_file(seed: int) -> bytes:
    """A file of several tracks, with meta and system messages."""
    chance = random.Random(seed)
    file = mido.MidiFile(ticks_per_beat=chance.choice([96, 480, 1000]))
    for number in range(chance.randint(1, 4)):
        track = file.add_track(f"track {number}")
        tempo, key = chance.randint(10**5, 10**6), chance.choice(["C", "F#m", "Bb"])
        track.append(mido.MetaMessage("set_tempo", tempo=tempo))
        track.append(mido.MetaMessage("key_signature", key=key))
        track.append(mido.MetaMessage("time_signature", numerator=3))
        track.append(mido.MetaMessage("lyrics", text="la la"))
        track.append(mido.Message("sysex", data=[chance.randrange(128)] * 9))
        channel = chance.randrange(16)
        program = {"program": chance.randrange(128), "channel": channel}
        track.append(mido.Message("program_change", **program))
        for _ in range(chance.randint(1, 60)):
            key = {"note": chance.randrange(21, 109), "channel": channel}
            wait, length = chance.choice([0, 60, 480]), chance.choice([60, 240, 480])
            track.append(mido.Message("note_on", velocity=80, time=wait, **key))
            track.append(mido.Message("note_off", time=length, **key))
    out = io.BytesIO()
    file.save(file=out)
    return out.getvalue()


def mutated(files: list[bytes], seed: int) -> tuple[str, bytes]:
    """One of the files, changed, and how."""
    chance = random.Random(seed)
    content = bytearray(chance.choice(files))
    how = chance.choice(["a byte", "bytes", "cut", "removed", "doubled", "joined"])
    if how == "a byte":
        content[chance.randrange(len(content))] = chance.randrange(256)
    elif how == "bytes":
        for _ in range(chance.randint(2, 40)):
            content[chance.randrange(len(content))] = chance.randrange(256)
    elif how == "cut":
        del content[chance.randrange(len(content)) :]
    elif how == "joined":
        content += chance.choice(files)[chance.randrange(30) :]
    else:
        start = chance.randrange(len(content))
        stop = min(len(content), start + chance.choice([1, 2, 8, 100]))
        content[start:stop] = content[start:stop] * 2 if how == "doubled" else b""
    return how, bytes(content)


def by_us(engine: str) -> Callable[[bytes], object]:
    options = midi.Options(engine=engine, max_seconds=None)
    return lambda content: midi.read_all("mutated.mid", options, content)


def by_mido(content: bytes) -> bool:
    tracks = mido.MidiFile(file=io.BytesIO(content), clip=True).tracks
    return any(m.type == "note_on" for track in tracks for m in track)


def by_symusic(content: bytes) -> bool:
    return any(len(track.notes) for track in symusic.Score.from_midi(content).tracks)


def by_pretty_midi(content: bytes) -> bool:
    tracks = pretty_midi.PrettyMIDI(io.BytesIO(content)).instruments
    return any(track.notes for track in tracks)


OURS = {name: by_us(name) for name in ("auto", "pretty_midi", "symusic")}
PEERS = {"mido, clip": by_mido, "symusic": by_symusic, "pretty_midi": by_pretty_midi}


def read_all(files: list[bytes], count: int, seed: int) -> tuple[dict, float]:
    """How many files each reader reads, by the kind of change, and the slowest time.

    Args:
        files: Valid files.
        count: How many mutated files are made.
        seed: The seed of the first; the others have those that follow.

    Raises:
        Exception: One of our readers raised something else than a `MIDIError`.
        AssertionError: It took too long, or both parsers read another roll.
    """
    counts: dict[str, collections.Counter] = collections.defaultdict(
        collections.Counter
    )
    slowest = 0.0
    for number in range(seed, seed + count):
        how, content = mutated(files, number)
        counts["files"][how] += 1
        faulthandler.dump_traceback_later(60, exit=True)
        rolls = {}
        for name, read in OURS.items():
            begin = time.process_time()
            with contextlib.suppress(midi.MIDIError):
                rolls[name] = read(content).roll
                counts[f"ours: {name}"][how] += 1
            seconds = time.process_time() - begin
            slowest = max(slowest, seconds)
            assert seconds < SECONDS, f"seed {number}: {seconds:.1f} s"
        if {"pretty_midi", "symusic"} <= rolls.keys():
            same = np.array_equal(rolls["pretty_midi"], rolls["symusic"])
            assert same, f"seed {number}: the parsers give different rolls"
        for name, read in PEERS.items():
            # pretty_midi takes gigabytes for some that mido reads.
            with contextlib.suppress(Exception), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                counts[name][how] += bool(read(content))
    faulthandler.cancel_dump_traceback_later()
    return counts, slowest


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--midi-dir", type=Path, metavar="DIR")
    parser.add_argument("--files", type=int, default=2000, metavar="N")
    parser.add_argument("--seed", type=int, default=11)
    args = parser.parse_args()
    if args.midi_dir is None:
        files = [valid_file(seed) for seed in range(100)]
    else:
        paths = sorted(args.midi_dir.rglob("*.mid"))
        files = [path.read_bytes() for path in paths]
        files = [content for content in files if len(content) <= LARGEST_FILE]
    counts, slowest = read_all(files, args.files, args.seed)
    kinds = sorted(counts["files"])
    print(f"{'':20}{'all':>8}", *(f"{kind:>8}" for kind in kinds))
    for name, found in counts.items():
        numbers = (f"{found[kind]:8,}" for kind in kinds)
        print(f"{name:20}{found.total():8,}", *numbers)
    print(f"The slowest of ours took {slowest:.2f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
