"""What `steps_per_quarter="auto"` chooses, beside other grids, and what they keep.

    python benchmarks/grid.py --midi-dir DIR

On a folder of MIDI files, on Bach's chorales, and on files of several tracks that are
made here as popular songs have them: straight, swung, with triplets, and played.
"""

import argparse
import contextlib
import random
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "examples"))
import quiet  # noqa: F401
import music21
import pretty_midi

from keras_gated.datasets import midi, midi_directory
from keras_gated.datasets.music import grid

BESIDE = (1, 2, 4, 12)
RESOLUTION = 480


def song(chance: random.Random, feel: str) -> pretty_midi.PrettyMIDI:
    """Sixteen bars: drums, bass, chords and a melody."""
    music = pretty_midi.PrettyMIDI(resolution=RESOLUTION, initial_tempo=120)
    for program, eighths, length, low in (
        (33, (0, 3, 4, 6), 0.5, 28),
        (0, (0, 4), 2.0, 48),
        (80, (0, 1, 2, 3, 4, 5, 6, 7), 0.5, 60),
    ):
        part = pretty_midi.Instrument(program)
        for bar in range(16):
            for eighth in eighths:
                if chance.random() < 0.2:
                    continue
                start, end = eighth / 2, eighth / 2 + length
                if feel == "swung":  # an eighth off the beat comes a sixth later
                    start += (eighth % 2) / 6
                if feel == "sixteenths" and program == 80 and chance.random() < 0.5:
                    start += 0.25
                if feel == "triplets" and program == 80 and bar % 2:
                    start = eighth // 2 + (eighth % 2) / 3
                    end = start + 1 / 3
                end = max(start + 1 / 6, min(end, 4.0))
                if feel == "played":
                    start, end = (x + chance.gauss(0, 0.03) for x in (start, end))
                times = [
                    round(max(0.0, 4 * bar + x) * RESOLUTION) for x in (start, end)
                ]
                times[1] -= RESOLUTION // 24  # released a little early
                seconds = (music.tick_to_time(tick) for tick in times)
                pitch = low + chance.choice([0, 2, 4, 7, 9])
                part.notes.append(pretty_midi.Note(90, pitch, *seconds))
        music.instruments.append(part)
    return music


def total_fit(paths: Iterable[Path]) -> grid.Fit:
    """How many notes each grid keeps, over all files that can be read."""
    fits = []
    for path in paths:
        with contextlib.suppress(midi.MIDIError):
            score = midi.read_score(path)
            fits.append(grid.fit(score.notes, score.ticks_per_quarter))
    return grid.total(fits)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--midi-dir", type=Path, metavar="DIR")
    args = parser.parse_args()
    print(f"{'':24}{'notes':>9}{'auto':>7}{'kept':>8}", *(f"{x:>7}" for x in BESIDE))

    def row(name: str, paths: Iterable[Path]) -> None:
        found = total_fit(paths)
        choice = grid.choose(found)
        shares = (found.kept[grid.GRIDS.index(steps)] / found.notes for steps in BESIDE)
        print(
            f"{name:24}{choice.notes:9,}{choice.steps_per_quarter!s:>7}"
            f"{choice.kept / choice.notes:8.1%}",
            *(f"{share:7.1%}" for share in shares),
            flush=True,
        )

    if args.midi_dir is not None:
        paths = sorted(args.midi_dir.rglob("*"))
        suffixes = midi_directory.SUFFIXES
        row(args.midi_dir.name, (p for p in paths if p.suffix.lower() in suffixes))
    works = [path for path in music21.corpus.getComposer("bach") if ".mxl" in path.name]
    row("Bach, 100 chorales", works[:100])
    with tempfile.TemporaryDirectory() as folder:
        for feel in ("straight", "sixteenths", "swung", "triplets", "played"):
            paths = []
            for seed in range(20):
                paths.append(Path(folder, f"{feel}{seed}.mid"))
                song(random.Random(seed), feel).write(str(paths[-1]))
            row(f"songs, {feel}", paths)
    return 0


if __name__ == "__main__":
    sys.exit(main())
