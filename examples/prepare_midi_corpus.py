"""Turns a collection of MIDI files into shards of piano rolls, with Apache Beam.

    python examples/prepare_midi_corpus.py --input 'lakh/**' --output corpus

The shards are TFRecord files that `datasets.midi_records.midi_dataset_from_records`
streams to `model.fit`; `manifest.json` beside them says what they hold and what
was skipped and why. What has been written stays when the run is stopped: the same
command goes on where it was, and the same files give the same bytes, on any
runner. Arguments that are not listed here are Beam's:

    --direct_running_mode multi_processing --direct_num_workers 8   (this machine)
    --runner DataflowRunner --project ... --region ... --temp_location gs://...

docs/corpora.md tells of more runners, Dask and Spark, and which were tried.

A shard is a unit of work: which one a file belongs to follows from its name, one
worker reads all its files and writes it, whole or not at all. A process of the worker's
own parses them, which a file may end, take too long or need too much memory: then that
file is skipped.
"""

import argparse
import sys

import quiet  # noqa: F401
from apache_beam.io.filesystem import FileMetadata
from apache_beam.io.filesystems import FileSystems

from keras_gated.datasets import corpora, midi, midi_directory, midi_records
from keras_gated.datasets.music.midi_engines import LARGEST_FILE


class Rolls(corpora.Corpus):
    """A corpus of piano rolls."""

    prefix = "rolls"
    kind = "MIDI file"
    reader = "music.midi:packed_reader"
    error = midi.MIDIError
    unit = "steps"
    # The notes that were left out, in the order of `midi.findings`.
    totals = ("dropped_notes", "rounded_notes", "unreleased_notes")

    def takes(self, found: FileMetadata) -> bool:
        return found.path.lower().endswith(midi_directory.SUFFIXES)

    def fetch(self, source: str, folder: str) -> bytes:
        with FileSystems.open(source) as file:
            return file.read(LARGEST_FILE + 1)

    def record(self, name: str, data: bytes, about: list) -> corpora.Record:
        _, *lost, problems = about
        features = midi_records.features(name, data, self.settings["onsets"])
        totals = dict(zip(self.totals, lost, strict=True))
        return corpora.Record(features, features["steps"], totals, "; ".join(problems))


def argument_parser() -> argparse.ArgumentParser:
    parser = corpora.argument_parser(__doc__)
    add = parser.add_argument
    add("--steps-per-quarter", default="2", metavar="N", help="a number, or 4/3")
    add("--step-seconds", type=float, metavar="X", help="on the clock instead")
    add("--short-notes", default="drop", choices=("drop", "keep"))
    add("--start", default="zero", choices=("zero", "first_note"))
    add("--transpose", default="0", metavar="N", help="semitones up, or C")
    add("--drums", action="store_true", help="read the drums, too")
    # Beam would take it silently for one of its own.
    add("--features", nargs="*", help=argparse.SUPPRESS)
    add("--onsets", action="store_true", help="mark keys that are struck again")
    add("--engine", default="auto", choices=("auto", "pretty_midi", "symusic"))
    return parser


def reading_options(args: argparse.Namespace) -> midi.Options:
    if args.features:
        sys.exit(
            "Shards hold rolls alone; features of steps are read from a folder, with "
            "midi_dataset_from_directory(features=...)."
        )
    if args.steps_per_quarter == "auto":
        sys.exit(
            "Shards are read apart, so that no grid can be chosen for all: choose one "
            "with midi_directory.read_directory(a_part, steps_per_quarter='auto')."
        )
    number = args.transpose.lstrip("-").isdigit()
    return midi.Options(
        args.steps_per_quarter,
        step_seconds=args.step_seconds,
        short_notes=args.short_notes,
        start=args.start,
        transpose=int(args.transpose) if number else args.transpose,
        drums=args.drums,
        onsets=args.onsets,
        engine=args.engine,
    )


def rolls(args: argparse.Namespace) -> Rolls:
    options = reading_options(args).to_json()
    settings = {
        "shards": args.shards,
        "rules": midi_directory.RULES,
        **{k: v for k, v in options.items() if k != "engine"},
    }
    limits = args.parse_seconds, args.parse_memory
    return Rolls(args.output, args.shards, settings, options, *limits)


def main() -> int:
    return corpora.run(argument_parser(), rolls)


if __name__ == "__main__":
    sys.exit(main())
