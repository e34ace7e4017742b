"""Turns a collection of MIDI files into shards of piano rolls, with Apache Beam.

    python examples/prepare_midi_corpus.py --input 'lakh/**' --output corpus

The shards are TFRecord files that `datasets.midi_records.midi_dataset_from_records`
streams to `model.fit`; `manifest.json` beside them says what they hold and what
was skipped and why. What has been written stays when the run is stopped: the same
command goes on where it was, and the same files give the same bytes, on any
runner. Arguments that are not listed here are Beam's:

    --direct_running_mode multi_processing --direct_num_workers 8   (this machine)
    --runner DataflowRunner --project ... --region ... --temp_location gs://...
    --runner FlinkRunner --flink_master ...       --runner SparkRunner ...

A shard is a unit of work: which one a file belongs to follows from its name, one
worker reads all its files and writes it, whole or not at all. A process of the worker's
own parses them, which a file may end, take too long or need too much memory: then that
file is skipped.
"""

import argparse
import collections
import contextlib
import hashlib
import json
import re
import sys
import tempfile
import uuid
from collections.abc import Iterable
from pathlib import Path

import quiet  # noqa: F401
import apache_beam as beam
import numpy as np
from apache_beam.io import fileio
from apache_beam.io.filesystem import FileMetadata
from apache_beam.io.filesystems import FileSystems
from apache_beam.options.pipeline_options import PipelineOptions

from keras_gated.datasets import midi, midi_directory, midi_records, piano_roll
from keras_gated.datasets.music.midi_engines import LARGEST_FILE
from keras_gated.datasets.processes import MEMORY, SECONDS, Processes

SETTINGS = "settings.json"
LOST = ("dropped_notes", "rounded_notes", "unreleased_notes")
"""The numbers of notes that were left out, in the order of `midi.findings`."""


# A MIDI file: its name from the collection's folder on, path, size, last change. (A
# plain tuple, because what workers exchange must not need a class of this script.)
File = tuple[str, str, int, float]


def parse_arguments() -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--input", required=True, metavar="GLOB", help="a folder, or a pattern: 'a/**'")
    add("--output", required=True, metavar="DIR", help="where the shards go")
    add(
        "--shards",
        type=int,
        default=16,
        metavar="N",
        help="several times as many as workers, each of 10 to 200 MB for large "
        "collections (default: %(default)s)",
    )
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
    add(
        "--parse-seconds",
        type=float,
        default=SECONDS,
        metavar="X",
        help="files that take longer are skipped (default: %(default)g)",
    )
    add(
        "--parse-memory",
        type=int,
        default=MEMORY,
        metavar="MIB",
        help="files that take more are skipped, on Linux (default: %(default)s)",
    )
    return parser.parse_known_args()


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


def pattern_and_base(pattern: str) -> tuple[str, str]:
    """The pattern to match, and the folder from which names count."""
    if not any(sign in pattern for sign in "*?["):
        folder = pattern.rstrip("/")
        return f"{folder}/**", f"{folder}/"
    fixed = pattern[: min(pattern.find(s) for s in "*?[" if s in pattern)]
    return pattern, fixed[: fixed.rfind("/") + 1]


def by_shard(found: FileMetadata, base: str, shards: int) -> tuple[int, File]:
    name = found.path.removeprefix(base)
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    changed = found.last_updated_in_seconds or 0.0
    file = (name, found.path, found.size_in_bytes, changed)
    return int.from_bytes(digest[:8], "big") % shards, file


def make_shard(
    numbered: tuple[int, Iterable[File]],
    output: str,
    shards: int,
    options: midi.Options,
    limits: tuple[float, int] = (SECONDS, MEMORY),
) -> dict:
    """Reads a shard's files and writes it, unless it is there; says what it holds."""
    number, files = numbered
    files = sorted(files)
    shard = f"rolls-{number:05d}-of-{shards:05d}.tfrecord"
    path, beside = (FileSystems.join(output, n) for n in (shard, f".{shard}.json"))
    inputs = sha256_of([(name, *rest) for name, _, *rest in files])
    if FileSystems.exists(path) and FileSystems.exists(beside):
        # If either is damaged, the shard is made again.
        with FileSystems.open(beside) as about, contextlib.suppress(Exception):
            known = json.load(about)
            with FileSystems.open(path) as file:
                content = hashlib.sha256(file.read()).hexdigest()
            summary = known["summary"]
            found = known["inputs"], known["sha256"], summary["sha256"]
            if found == (inputs, sha256_of(summary), content):
                return summary
    rolls, skipped, repaired, lost = [], {}, {}, np.zeros(len(LOST), np.int64)
    parser = "music.midi:packed_reader", options.to_json(), midi.MIDIError
    with Processes(*parser, 1, *limits) as process:
        for name, source, *_ in files:
            try:
                with FileSystems.open(source) as file:
                    content = file.read(LARGEST_FILE + 1)
            except Exception as error:  # each file system raises its own
                skipped[name] = f"{name!r} cannot be read: {error}"
                continue
            try:
                roll, about = process.submit(name, content)()
            except midi.MIDIError as error:
                skipped[name] = str(error)
            else:
                rolls.append((name, roll))
                _, *counts, problems = about
                lost += counts
                if problems:
                    repaired[name] = "; ".join(problems)
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder, shard)
        midi_records.write_shard(local, rolls, options.onsets)
        data = local.read_bytes()
    packed = piano_roll.PackedRolls((roll for _, roll in rolls), options.onsets)
    lengths = collections.Counter(packed.lengths)
    summary = {
        "shard": shard,
        "sha256": hashlib.sha256(data).hexdigest(),
        "files": len(files),
        "rolls": len(rolls),
        "steps": sum(length * count for length, count in lengths.items()),
        **dict(zip(LOST, lost.tolist(), strict=True)),
        "lengths": dict(sorted(lengths.items())),
        "skipped": skipped,
        "repaired": repaired,
    }
    write_whole(path, data)
    about = {"inputs": inputs, "summary": summary, "sha256": sha256_of(summary)}
    write_whole(beside, to_json(about))
    print(f"{shard}: {len(rolls):,} rolls, {len(skipped):,} skipped", flush=True)
    return summary


def sha256_of(value: object) -> str:
    # As JSON keeps it: names of numbers become texts.
    text = json.dumps(json.loads(json.dumps(value)))
    return hashlib.sha256(text.encode()).hexdigest()


UNFINISHED = re.compile(r"\.[0-9a-f]{32}-")
"""The names of files that `write_whole` has not finished; a killed run leaves them."""


def write_whole(path: str, data: bytes) -> None:
    """A file appears once it is whole, and takes the place of an older one."""
    folder, name = FileSystems.split(path)
    temporary = FileSystems.join(folder, f".{uuid.uuid4().hex}-{name.lstrip('.')}")
    with FileSystems.create(temporary) as file:
        file.write(data)
    if FileSystems.exists(path):
        FileSystems.delete([path])
    FileSystems.rename([temporary], [path])


def to_json(value: object) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()


def write_manifest(summaries: Iterable[dict], output: str, settings: dict) -> dict:
    summaries = sorted(summaries, key=lambda summary: summary["shard"])
    lengths: collections.Counter = collections.Counter()
    for summary in summaries:
        lengths.update({int(k): count for k, count in summary["lengths"].items()})
    manifest = {
        "settings": settings,
        **{
            total: sum(summary[total] for summary in summaries)
            for total in ("files", "rolls", "steps", *LOST)
        },
        "shards": [summary["shard"] for summary in summaries],
        "sha256": [summary["sha256"] for summary in summaries],
        "lengths": {str(k): lengths[k] for k in sorted(lengths)},
        **{
            what: {
                name: reason
                for summary in summaries
                for name, reason in sorted(summary[what].items())
            }
            for what in ("skipped", "repaired")
        },
    }
    write_whole(FileSystems.join(output, midi_records.MANIFEST), to_json(manifest))
    return manifest


def prepare_output(output: str, settings: dict) -> None:
    """Makes the folder, or sees that it was made with the same settings."""
    path = FileSystems.join(output, SETTINGS)
    if not FileSystems.exists(output):
        FileSystems.mkdirs(output)
    if FileSystems.exists(path):
        with FileSystems.open(path) as file:
            content = file.read()
        try:
            known = dict(json.loads(content))
        except (ValueError, TypeError, RecursionError) as error:
            raise ValueError(f"{path!r} is damaged ({error}); delete it.") from error
        if known != settings:
            different = [key for key in settings if known.get(key) != settings[key]]
            raise ValueError(
                f"{output!r} was made with other settings ({', '.join(different)}); "
                "choose another --output."
            )
    else:
        write_whole(path, to_json(settings))
    manifest = FileSystems.join(output, midi_records.MANIFEST)
    if FileSystems.exists(manifest):  # it is written again once all shards are there
        FileSystems.delete([manifest])
    (hidden,) = FileSystems.match([FileSystems.join(output, ".*")])
    unfinished = [
        found.path
        for found in hidden.metadata_list
        if UNFINISHED.match(FileSystems.split(found.path)[1])
    ]
    if unfinished:
        FileSystems.delete(unfinished)


def main() -> int:
    args, beam_arguments = parse_arguments()
    try:
        options = reading_options(args)
        if args.shards < 1:
            raise ValueError("--shards must be 1 or more.")
        if args.parse_seconds <= 0 or args.parse_memory < 256:
            raise ValueError(
                "--parse-seconds must be above 0, --parse-memory 256 or more."
            )
        pattern, base = pattern_and_base(args.input)
        settings = {
            "shards": args.shards,
            "rules": midi_directory.RULES,
            **{k: v for k, v in options.to_json().items() if k != "engine"},
        }
        prepare_output(args.output, settings)
        pipeline_options = PipelineOptions(beam_arguments)
    except (ValueError, ImportError, OSError) as error:
        print(f"prepare_midi_corpus.py: error: {error}", file=sys.stderr)
        return 2
    if not FileSystems.match([pattern], limits=[1])[0].metadata_list:
        print(
            f"prepare_midi_corpus.py: error: {args.input!r} holds no MIDI file, or is "
            "no folder",
            file=sys.stderr,
        )
        return 2
    output, shards = args.output, args.shards
    limits = args.parse_seconds, args.parse_memory
    suffixes = midi_directory.SUFFIXES
    with beam.Pipeline(options=pipeline_options) as pipeline:
        (
            pipeline
            | "Find files" >> fileio.MatchFiles(pattern)
            | beam.Filter(lambda found: found.path.lower().endswith(suffixes))
            | "By shard" >> beam.Map(by_shard, base, shards)
            | beam.GroupByKey()
            | beam.Reshuffle()
            | "Make shards" >> beam.Map(make_shard, output, shards, options, limits)
            | beam.combiners.ToList()
            | "Write manifest" >> beam.Map(write_manifest, output, settings)
        )
    manifest = midi_records.read_manifest(output)
    print(
        f"{manifest['rolls']:,} rolls of {manifest['files']:,} files, "
        f"{manifest['steps']:,} steps, in {len(manifest['shards'])} shards; "
        f"{len(manifest['skipped']):,} files skipped (see "
        f"{FileSystems.join(output, midi_records.MANIFEST)})."
    )
    if not manifest["rolls"]:
        print("prepare_midi_corpus.py: error: no MIDI file was read", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
