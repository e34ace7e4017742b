r"""Turns a collection of sound files into shards of samples, with Apache Beam.

    python examples/prepare_audio_corpus.py --input 'speech/**' \
        --sampling-rate 16000 --output corpus

The shards are TFRecord files that `datasets.audio_records.audio_dataset_from_records`
streams to `model.fit`; `manifest.json` beside them says what they hold, the mean and
the standard deviation of the samples, and what was skipped or repaired and why. What
has been written stays when the run is stopped: the same command goes on where it was,
and the same files give the same bytes, on any runner. Arguments that are not listed
here are Beam's:

    --direct_running_mode multi_processing --direct_num_workers 8   (this machine)
    --runner DataflowRunner --project ... --region ... --temp_location gs://...

docs/corpora.md tells of more runners, Dask and Spark, and which were tried.

All is read that `audio.read` reads. A record is a whole recording of one channel, so
that frames and sequences of any length can be cut from it. Its samples are those of
`audio_dataset_from_directory`, bit for bit: integers of 16 bits where those hold all of
them (sound of 16 bits that is neither mixed nor resampled), or else 32-bit
floating-point numbers, which `--bits 16` rounds. FLAC would take half of that, but only
Python could decode it, whenever a model reads it; this TensorFlow reads by itself.

A shard is a unit of work: which one a file belongs to follows from its name, one
worker reads all its files and writes it, whole or not at all. A process of the worker's
own decodes them, which a file may end, take too long or need too much memory: then that
file is skipped.
"""

import argparse
import os
import shutil
import sys
from pathlib import Path, PurePosixPath

import quiet  # noqa: F401
from apache_beam.io.filesystem import FileMetadata
from apache_beam.io.filesystems import FileSystems

from keras_gated.datasets import audio, corpora
from keras_gated.datasets.sound import audio_records, headers, packed_sound
from keras_gated.datasets.sound.audio_directory import SUFFIXES
from keras_gated.datasets.sound.reader import RULES
from keras_gated.datasets.sound.recordings import Standardization


class Recordings(corpora.Corpus):
    """A corpus of recordings."""

    prefix = "recordings"
    kind = "sound file"
    reader = "sound.packed_sound:packed_reader"
    error = audio.AudioError
    unit = "samples"
    totals = ("sum", "sum_of_squares")

    def takes(self, found: FileMetadata) -> bool:
        name = PurePosixPath(found.path)
        if name.name.startswith(".") or name.suffix:
            return name.suffix.lower() in SUFFIXES and name.name[0] != "."
        try:
            with FileSystems.open(found.path) as file:
                return headers.looks_like_sound(file.read(16))
        except Exception:  # each file system raises its own
            return True  # so that it is reported

    def fetch(self, source: str, folder: str) -> bytes:
        if os.path.lexists(source):
            return os.fsencode(source)
        # The ending stays: libsndfile knows some formats by it alone.
        copy = Path(folder, "sound" + PurePosixPath(source).suffix)
        with FileSystems.open(source) as file, open(copy, "wb") as local:
            shutil.copyfileobj(file, local, 2**20)
        return os.fsencode(copy)

    def record(self, name: str, data: bytes, about: list) -> corpora.Record:
        bits, *sums, findings = about
        features = audio_records.features(name, data, bits)
        totals = dict(zip(self.totals, sums, strict=True))
        samples = len(data) * 8 // bits
        return corpora.Record(features, samples, totals, "; ".join(findings))

    def numbers(self, sums: dict) -> dict:
        total, squares = (sums.pop(name) for name in self.totals)
        samples = sums["samples"]
        mean, std = Standardization.of(max(samples, 1), total, squares)
        seconds = samples / self.settings["sampling_rate"]
        return {**sums, "seconds": seconds, "mean": mean, "std": std}


def argument_parser() -> argparse.ArgumentParser:
    parser = corpora.argument_parser(__doc__)
    add = parser.add_argument
    add(
        "--sampling-rate",
        type=int,
        required=True,
        metavar="N",
        help="samples per second, to which all are resampled",
    )
    add(
        "--bits",
        type=int,
        default=32,
        choices=packed_sound.BITS,
        help="16 rounds all samples to 16 bits and clips those beyond -1 and 1; 32 "
        "leaves them as they are (default: %(default)s)",
    )
    add("--channel", type=int, metavar="N", help="one, from 0, instead of their mean")
    add("--decoder", default="auto", choices=("auto", "soundfile", "pyav"))
    add(
        "--max-seconds",
        type=float,
        default=3600.0,
        metavar="X",
        help="longer files are skipped (default: %(default)g)",
    )
    add(
        "--errors",
        default="skip",
        choices=("skip", "warn"),
        help="of files that are cut off or damaged, warn keeps the part that is there",
    )
    return parser


def recordings(args: argparse.Namespace) -> Recordings:
    reading = {
        "sampling_rate": args.sampling_rate,
        "bits": args.bits,
        "channel": args.channel,
        "decoder": args.decoder,
        "max_seconds": args.max_seconds,
        "errors": "warn" if args.errors == "warn" else "raise",
    }
    packed_sound.packed_reader(**reading)  # which checks them
    settings = {"shards": args.shards, "rules": RULES, **reading}
    limits = args.parse_seconds, args.parse_memory
    return Recordings(args.output, args.shards, settings, reading, *limits)


def main() -> int:
    return corpora.run(argument_parser(), recordings)


if __name__ == "__main__":
    sys.exit(main())
