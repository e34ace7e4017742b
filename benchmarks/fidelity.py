"""How true `examples/generate_music.py` stays to files: what it writes, by mido.

    python benchmarks/fidelity.py --model runs/.../joint/best.keras \
        --midi-dir nottingham --output fidelity.json

Pieces of music21's corpus, written as MIDI, tunes of a folder, and files made here
(drums, pedals, many tempi and meters, words, bends, keys held on, shared channels) are
continued by 16 bars, some from a bar in their middle, some alone or in two candidates;
and where there are several voices all but one of them are found anew. Every file is
compared with its original, message by message. The exit code is 1 if anything is wrong.
"""

import argparse
import collections
import contextlib
import io
import json
import logging
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "examples"))
import quiet  # noqa: F401
import comparison
import fidelity_checks
import fidelity_files
import generate_music
import mido
import numpy as np

from keras_gated.datasets import piano_roll

BARS, CANDIDATES = 16, 2
COLUMNS = {
    "": "{what}",
    "check": "{check}",
    "files that pass": "{passed} of {files}",
}
EXTRAS = {0: ["--only-new"], 1: ["--candidates", str(CANDIDATES)], 2: ["cut"]}
"""What is done besides, by the number of the file modulo 4."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", type=Path, required=True, metavar="FILE", help="ends in NADE")
    add("--midi-dir", type=Path, metavar="DIR", help="of which 8 files are taken")
    add("--output", type=Path, metavar="FILE", help="the figures, as JSON")
    add("--seed", type=int, default=1, metavar="N")
    add("--steps-per-quarter", type=Fraction, metavar="N", help="as in generate_music")
    add("--in-c", action="store_true", help="as in generate_music")
    return parser.parse_args()


class Run:
    """A model that goes on with files and harmonizes them."""

    def __init__(self, args: argparse.Namespace, folder: Path) -> None:
        self.model = generate_music.load_model(args.model)
        self.stem = folder / "made"
        self.given = ["--model", str(args.model), "--seed", str(args.seed)]
        if args.steps_per_quarter:
            self.given += ["--steps-per-quarter", str(args.steps_per_quarter)]
        self.given += ["--in-c"] * args.in_c

    def make(self, path: Path, *options: str) -> tuple[list[Path], list[int], Fraction]:
        """Makes files of one.

        Returns:
            The files, how many notes the model made for each, and ticks in a step.
        """
        argv = [*self.given, "--midi", str(path), "--output", str(self.stem), *options]
        args = generate_music.parse_arguments(argv)
        generate_music.check(args)
        with contextlib.redirect_stdout(io.StringIO()):
            new = generate_music.make(args, self.model)
        paths = [self.stem.with_suffix(".mid")]
        paths += [Path(f"{self.stem}-{n + 1}.mid") for n in range(1, len(new.rolls))]
        steps = generate_music.encoding_of(self.model, args).steps_per_quarter
        notes = [len(piano_roll.to_notes(roll)) for roll in new.rolls]
        return paths, notes, mido.MidiFile(path).ticks_per_beat / Fraction(steps)

    def continuations(self, path: Path, number: int) -> Iterator[tuple[str, dict]]:
        """What is wrong with each of those of a file."""
        old = fidelity_checks.File(path)
        for extra in ([], EXTRAS.get(number % 4)):
            if extra is None:
                continue
            options, what, begun = ["--bars", str(BARS)], "continued", old
            if extra == ["cut"]:
                middle = max(1, old.bars() // 2)
                options += ["--primer-bars", str(middle)]
                what, begun = "continued from the middle", old.before(middle)
            else:
                options += extra
            found = self.make(path, *options)
            compare = fidelity_checks.of_continuation
            if extra == ["--only-new"]:
                what, compare = "the continuation alone", fidelity_checks.of_only_new
            for made, notes in zip(*found[:2], strict=True):
                new = fidelity_checks.File(made)
                yield what, compare(begun, new, found[2], BARS, notes)

    def harmonies(self, path: Path, number: int) -> Iterator[tuple[str, dict]]:
        """What is wrong with that of a file, if it has several voices."""
        old = fidelity_checks.File(path)
        if len(old.places) < 2:
            return
        track, channel = kept = old.places[number % len(old.places)]
        (made,), *_ = self.make(path, "--keep", f"{track}:{channel + 1}")
        new = fidelity_checks.File(made)
        yield "harmonized", fidelity_checks.of_harmony(old, new, [kept])


def main() -> int:
    args = parse_arguments()
    logging.getLogger("keras_gated").setLevel(logging.ERROR)  # of sine tones
    passed, of = collections.Counter(), collections.Counter()
    failures, seconds = [], collections.defaultdict(list)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = fidelity_files.made_here(folder) + fidelity_files.of_corpus(folder)
        if args.midi_dir is None:
            print("Without --midi-dir no tunes are tried.", file=sys.stderr)
        else:
            paths += fidelity_files.of_folder(args.midi_dir)
        run = Run(args, folder)
        for number, path in enumerate(paths):
            for make in (run.continuations, run.harmonies):
                begun = time.perf_counter()
                try:
                    found = [*make(path, number)]
                except (ValueError, OSError) as error:
                    found = [(make.__name__, {"is made": [str(error)]})]
                if found:
                    took = (time.perf_counter() - begun) / len(found)
                    seconds[make.__name__].append(took)
                for what, faults in found:
                    for check, lines in faults.items():
                        of[what, check] += 1
                        passed[what, check] += not lines
                        failures += [
                            f"{path.stem}, {what}: {check}: {x}" for x in lines
                        ]
    rows = [
        {"what": what, "check": check, "passed": passed[what, check], "files": files}
        for (what, check), files in of.items()
    ]
    print(comparison.format_table(rows, COLUMNS))
    times = {
        what: {"median": float(np.median(each)), "slowest": max(each)}
        for what, each in seconds.items()
    }
    print(f"\n{len(paths)} files.", *failures, sep="\n")
    for what, about in times.items():
        print(f"{what}: {about['median']:.1f} s each, {about['slowest']:.1f} at most")
    if args.output:
        record = {
            "command": shlex.join(["python", *sys.argv]),
            "versions": comparison.versions() | {"mido": str(mido.version_info)},
            "seed": args.seed,
            "files": [path.stem for path in paths],
            "seconds": times,
            "checks": rows,
            "failures": failures,
        }
        args.output.parent.mkdir(parents=True, exist_ok=True)
        args.output.write_text(json.dumps(record, indent=1) + "\n")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
