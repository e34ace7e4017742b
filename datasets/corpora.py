"""Collections of files to shards of records, with Apache Beam.

What `prepare_midi_corpus.py` and `prepare_audio_corpus.py` in `examples/` share. It is
part of the package, because what workers run must be importable where they are, and
they have the package. Nothing else imports it: it needs Apache Beam.

A shard is a unit of work. Which one a file belongs to follows from its name; one worker
reads all its files and writes it, whole or not at all, and beside it, in a hidden file,
what it was made of and its digest. So the same files give the same bytes on any runner,
and what is whole is not made again.
"""

import argparse
import collections
import contextlib
import dataclasses
import errno
import hashlib
import json
import re
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, NamedTuple

from . import records
from .files import FileError, require
from .processes import MEMORY, SECONDS, Processes

beam = require("apache_beam", extra="beam")
fileio = require("apache_beam.io.fileio", extra="beam")
FileSystems = require("apache_beam.io.filesystems", extra="beam").FileSystems
FileMetadata = require("apache_beam.io.filesystem", extra="beam").FileMetadata

SETTINGS = "settings.json"
"""The file beside the shards that says how they are made."""
LEAST_MEMORY = 256
"""MiB; with less no parser loads."""
UNFINISHED = re.compile(r"\.[0-9a-f]{32}-")
"""The names of files that `write_whole` has not finished; a killed run leaves them."""

File = tuple[str, str, int, float]
"""A file: its name from the collection's folder on, path, size, last change."""


class Record(NamedTuple):
    """What comes of a file."""

    features: dict[str, bytes | int]
    """Of the record."""
    length: int
    """Steps or samples."""
    totals: dict[str, int | float]
    """What is summed over all files."""
    repaired: str
    """What was wrong with the file; empty if nothing was."""


@dataclasses.dataclass
class Corpus:
    """How the shards of a collection are made; workers get a copy."""

    output: str
    """The folder of the shards."""
    shards: int
    """Their number."""
    settings: dict[str, Any]
    """What the shards depend on; others are refused when a run goes on."""
    reading: dict[str, Any]
    """The arguments of `reader`."""
    seconds: float = SECONDS
    """How long a file may take."""
    memory: int = MEMORY
    """How much memory, in MiB, it may take."""

    prefix: ClassVar[str]
    """With what the names of shards begin: what a record is, in the plural."""
    kind: ClassVar[str]
    """What a file is: `"MIDI file"`."""
    reader: ClassVar[str]
    """The function that reads files, as `worker.py` takes it."""
    error: ClassVar[type[FileError]]
    """What it raises."""
    unit: ClassVar[str]
    """Of a length: `"steps"`."""
    totals: ClassVar[tuple[str, ...]] = ()
    """What is summed besides files, records and lengths."""

    def takes(self, found: FileMetadata) -> bool:
        """Whether a file belongs to the collection.

        Args:
            found: What the file system says about it.
        """
        raise NotImplementedError

    def fetch(self, source: str, folder: str) -> bytes:
        """What the process that reads a file is sent.

        Args:
            source: The path of the file.
            folder: A folder on this machine, for a copy.

        Raises:
            Exception: It cannot be read: each file system raises its own.
        """
        raise NotImplementedError

    def record(self, name: str, data: bytes, about: list) -> Record:
        """Makes a record of what was read.

        Args:
            name: The name of the file.
            data: The bytes that `reader` returned.
            about: The list that it returned.
        """
        raise NotImplementedError

    def numbers(self, sums: dict[str, Any]) -> dict[str, Any]:
        """What the manifest says in numbers.

        Args:
            sums: Those of files, records, lengths and `totals`.
        """
        return sums

    def make_shard(self, numbered: tuple[int, Iterable[File | None]]) -> Iterator[dict]:
        """Reads a shard's files and writes it, unless it is there.

        Args:
            numbered: The number of the shard, and its files.

        Yields:
            What it holds; nothing, if there are no files.
        """
        number, files = numbered
        files = sorted(filter(None, files))
        if not files:
            return
        shard = f"{self.prefix}-{number:05d}-of-{self.shards:05d}.tfrecord"
        path, beside = (
            FileSystems.join(self.output, name) for name in (shard, f".{shard}.json")
        )
        inputs = sha256_of([(name, *rest) for name, _, *rest in files])
        if (summary := _made_before(path, beside, inputs)) is not None:
            yield summary
            return
        with tempfile.TemporaryDirectory() as folder:
            local = Path(folder, shard)
            about = self._write(local, files, folder)
            with open(local, "rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            summary = {"shard": shard, "sha256": digest, **about}
            with open(local, "rb") as file:
                write_whole(path, file)
        about = {"inputs": inputs, "summary": summary, "sha256": sha256_of(summary)}
        write_json(beside, about)
        print(
            f"{shard}: {summary[self.prefix]:,} {self.prefix}, "
            f"{len(summary['skipped']):,} skipped",
            flush=True,
        )
        yield summary

    def _write(self, shard: Path, files: list[File], folder: str) -> dict[str, Any]:
        """Writes a shard on this machine, a record at a time."""
        tf = require("tensorflow")
        skipped: dict[str, str] = {}
        repaired: dict[str, str] = {}
        lengths: collections.Counter[int] = collections.Counter()
        totals = dict.fromkeys(self.totals, 0)
        limits = self.seconds, self.memory
        with (
            Processes(self.reader, self.reading, self.error, 1, *limits) as process,
            tf.io.TFRecordWriter(str(shard)) as writer,
        ):
            for name, source, *_ in files:
                try:
                    content = self.fetch(source, folder)
                except Exception as error:
                    # This machine's disk is full, which is no fault of the file.
                    if getattr(error, "errno", None) == errno.ENOSPC:
                        raise
                    skipped[name] = f"{name!r} cannot be read: {error}"
                    continue
                try:
                    read = process.submit(name, content)()
                except self.error as error:
                    skipped[name] = str(error)
                    continue
                record = self.record(name, *read)
                writer.write(records.example(record.features))
                lengths[record.length] += 1
                for total, value in record.totals.items():
                    totals[total] += value
                if record.repaired:
                    repaired[name] = record.repaired
        return {
            "files": len(files),
            self.prefix: sum(lengths.values()),
            self.unit: sum(length * count for length, count in lengths.items()),
            **totals,
            "lengths": dict(sorted(lengths.items())),
            "skipped": skipped,
            "repaired": repaired,
        }

    def write_manifest(self, summaries: Iterable[dict]) -> None:
        """Writes what all shards hold.

        Args:
            summaries: What each holds.
        """
        summaries = sorted(summaries, key=lambda summary: summary["shard"])
        lengths: collections.Counter[int] = collections.Counter()
        for summary in summaries:
            lengths.update({int(k): count for k, count in summary["lengths"].items()})
        sums = {
            total: sum(summary[total] for summary in summaries)
            for total in ("files", self.prefix, self.unit, *self.totals)
        }
        manifest = {
            "settings": self.settings,
            **self.numbers(sums),
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
        write_json(FileSystems.join(self.output, records.MANIFEST), manifest)

    def prepare_output(self) -> None:
        """Makes the folder, or sees that it was made with the same settings.

        Raises:
            ValueError: It was made with other settings, or they are damaged.
        """
        path = FileSystems.join(self.output, SETTINGS)
        if not FileSystems.exists(self.output):
            FileSystems.mkdirs(self.output)
        if FileSystems.exists(path):
            with FileSystems.open(path) as file:
                content = file.read()
            try:
                known = dict(json.loads(content))
            except (ValueError, TypeError, RecursionError) as error:
                raise ValueError(
                    f"{path!r} is damaged ({error}); delete it."
                ) from error
            if known != self.settings:
                different = [
                    key for key in self.settings if known.get(key) != self.settings[key]
                ]
                raise ValueError(
                    f"{self.output!r} was made with other settings "
                    f"({', '.join(different)}); choose another --output."
                )
        else:
            write_json(path, self.settings)
        manifest = FileSystems.join(self.output, records.MANIFEST)
        if FileSystems.exists(manifest):  # written again once all shards are there
            FileSystems.delete([manifest])
        (hidden,) = FileSystems.match([FileSystems.join(self.output, ".*")])
        unfinished = [
            found.path
            for found in hidden.metadata_list
            if UNFINISHED.match(FileSystems.split(found.path)[1])
        ]
        if unfinished:
            FileSystems.delete(unfinished)


def _made_before(path: str, beside: str, inputs: str) -> dict | None:
    """What a shard holds, if it is there, whole, and of the same files."""
    if FileSystems.exists(path) and FileSystems.exists(beside):
        # If either is damaged, the shard is made again.
        with FileSystems.open(beside) as about, contextlib.suppress(Exception):
            known = json.load(about)
            digest = hashlib.sha256()
            with FileSystems.open(path) as file:
                while block := file.read(2**20):
                    digest.update(block)
            summary = known["summary"]
            found = known["inputs"], known["sha256"], summary["sha256"]
            if found == (inputs, sha256_of(summary), digest.hexdigest()):
                return summary
    return None


def sha256_of(value: object) -> str:
    """The digest of what JSON can hold.

    Args:
        value: The value.
    """
    # As JSON keeps it: names of numbers become texts.
    text = json.dumps(json.loads(json.dumps(value)))
    return hashlib.sha256(text.encode()).hexdigest()


def write_whole(path: str, data: BinaryIO | bytes) -> None:
    """A file appears once it is whole, and takes the place of an older one.

    Args:
        path: The file.
        data: Its bytes, or a file that holds them.
    """
    folder, name = FileSystems.split(path)
    temporary = FileSystems.join(folder, f".{uuid.uuid4().hex}-{name.lstrip('.')}")
    with FileSystems.create(temporary) as file:
        if isinstance(data, bytes):
            file.write(data)
        else:
            shutil.copyfileobj(data, file, 2**20)
    if FileSystems.exists(path):
        FileSystems.delete([path])
    FileSystems.rename([temporary], [path])


def write_json(path: str, value: object) -> None:
    """Writes a JSON file, whole or not at all.

    Args:
        path: The file.
        value: What it holds.
    """
    write_whole(path, (json.dumps(value, indent=1) + "\n").encode())


def pattern_and_base(pattern: str) -> tuple[str, str]:
    """The pattern to match, and the folder from which names count.

    Args:
        pattern: A folder, or a pattern.
    """
    if not any(sign in pattern for sign in "*?["):
        folder = pattern.rstrip("/")
        return f"{folder}/**", f"{folder}/"
    fixed = pattern[: min(pattern.find(s) for s in "*?[" if s in pattern)]
    return pattern, fixed[: fixed.rfind("/") + 1]


def by_shard(found: FileMetadata, base: str, shards: int) -> tuple[int, File]:
    """The number of the shard that a file belongs to, and the file.

    Args:
        found: What the file system says about it.
        base: The folder from which its name counts.
        shards: The number of shards.
    """
    name = found.path.removeprefix(base)
    digest = hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
    changed = found.last_updated_in_seconds or 0.0
    file = (name, found.path, found.size_in_bytes, changed)
    return int.from_bytes(digest[:8], "big") % shards, file


def argument_parser(description: str, shards: int = 16) -> argparse.ArgumentParser:
    """The arguments that all scripts have.

    Args:
        description: What the script does.
        shards: The number of shards, if nothing is said. Default: 16.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--input", required=True, metavar="GLOB", help="a folder, or a pattern: 'a/**'")
    add("--output", required=True, metavar="DIR", help="where the shards go")
    add(
        "--shards",
        type=int,
        default=shards,
        metavar="N",
        help="several times as many as workers, each of 10 to 200 MB for large "
        "collections (default: %(default)s)",
    )
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
    return parser


def run(
    parser: argparse.ArgumentParser,
    corpus: Callable[[argparse.Namespace], Corpus],
) -> int:
    """Prepares a corpus, as the command line says.

    Args:
        parser: Reads it; arguments that it does not know are Beam's.
        corpus: Makes the corpus from the arguments; it may raise a `ValueError`.

    Returns:
        The exit code: 2, if there is nothing to read, or what was asked for cannot be.
    """
    args, beam_arguments = parser.parse_known_args()

    def fail(reason: object) -> int:
        print(f"{parser.prog}: error: {reason}", file=sys.stderr)
        return 2

    try:
        if args.shards < 1:
            raise ValueError("--shards must be 1 or more.")
        if args.parse_seconds <= 0 or args.parse_memory < LEAST_MEMORY:
            raise ValueError(
                f"--parse-seconds must be above 0, --parse-memory {LEAST_MEMORY} or "
                "more."
            )
        corpus = corpus(args)
        pattern, base = pattern_and_base(args.input)
        corpus.prepare_output()
        options = beam.options.pipeline_options.PipelineOptions(beam_arguments)
    except (ValueError, ImportError, OSError) as error:
        return fail(error)
    if not FileSystems.match([pattern], limits=[1])[0].metadata_list:
        return fail(f"{args.input!r} holds no {corpus.kind}, or is no folder")
    with beam.Pipeline(options=options) as pipeline:
        files = (
            pipeline
            | "Find files" >> fileio.MatchFiles(pattern)
            | "Keep those of this kind" >> beam.Filter(corpus.takes)
            | "By shard" >> beam.Map(by_shard, base, args.shards)
        )
        # Some runners make as many parts of what is grouped as it came in, and files
        # come in one; the numbers of the shards, without a file, come in more.
        numbers = "Number shards" >> beam.Create(
            [(n, None) for n in range(args.shards)]
        )
        (
            (files, pipeline | numbers)
            | beam.Flatten()
            | beam.GroupByKey()
            | "Make shards" >> beam.FlatMap(corpus.make_shard)
            | beam.combiners.ToList()
            | "Write manifest" >> beam.Map(corpus.write_manifest)
        )
    manifest = records.read_manifest(args.output, parser.prog)
    number, length = manifest[corpus.prefix], manifest[corpus.unit]
    print(
        f"{number:,} {corpus.prefix} of {manifest['files']:,} files, "
        f"{length:,} {corpus.unit}, in {len(manifest['shards'])} shards; "
        f"{len(manifest['skipped']):,} files skipped (see "
        f"{FileSystems.join(args.output, records.MANIFEST)})."
    )
    return 0 if number else fail(f"no {corpus.kind} was read")
