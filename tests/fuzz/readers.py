"""The readers: their seeds, how they are called, and the errors that they document."""

import argparse
import contextlib
import functools
import hashlib
import io
import json
import shutil
import tempfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fuzz import seeds
from fuzz.shells import OGG, ZIP, Shell
from keras_gated.callbacks import BackupError, backup_file
from keras_gated.datasets import (
    audio,
    audio_records,
    corpora,
    midi,
    midi_directory,
    midi_records,
)
from keras_gated.datasets.music import midi_repair
from keras_gated.datasets.music.midi_options import Options
from keras_gated.datasets.sets import published
from keras_gated.datasets.sound import headers
from keras_gated.datasets.worker import receive


class Reader(NamedTuple):
    """A reader of files."""

    seeds: Callable[[], dict[str, bytes]]
    """Whole files, by their names."""
    call: Callable[[Path], object]
    """Reads a file; returns what came of it, in words or numbers that are few. What
    must be true of it is asserted."""
    errors: tuple[type[Exception], ...] = ()
    """What it may raise for a bad file: in a line, which names it."""
    modules: tuple[str, ...] = ()
    """Files of the package, with wildcards, whose coverage is told."""
    shells: dict[str, Shell] = {}  # noqa: RUF012
    """By the endings of names, how inner parts are reached."""
    share: float = 1.0
    """How many files it gets, of those of the others."""
    seconds: int = 10
    """How much of its process's time a file may take."""


def chosen(path: Path, *ways: list) -> list:
    """One of each of the ways, as the content of the file decides."""
    number = zlib.crc32(path.read_bytes())
    picked = []
    for some in ways:
        number, which = divmod(number, len(some))
        picked.append(some[which])
    return picked


OPTIONS = [
    {},
    {"steps_per_quarter": "auto", "unreleased_notes": "keep", "short_notes": "keep"},
    {"step_seconds": 0.1, "start": "first_note", "outside_notes": "keep"},
    {"steps_per_quarter": "4/3", "features": ["meter", "key"], "transpose": "C"},
    {"velocity": True, "drums": True, "pedal": True, "steps_per_quarter": 4},
    {"onsets": True, "strict": True, "transpose": 3},
]


def read_midi(path: Path) -> object:
    (options,) = chosen(path, OPTIONS)
    readings, error = [], None
    for engine in ("symusic", "pretty_midi"):
        try:
            readings.append(midi.read_all(path, Options(engine=engine, **options)))
        except midi.MIDIError as problem:
            error = problem
    if not readings:
        raise error
    for other in readings[1:]:
        assert np.array_equal(readings[0].roll, other.roll), "the parsers differ"
        assert np.array_equal(readings[0].onsets, other.onsets), "the parsers differ"
    score = midi.read_score(path)
    assert np.isfinite(score.seconds(score.notes[:, :2])).all()
    return sorted(problem.lstrip("0123456789 ") for problem in readings[0].problems)


def repair_midi(path: Path) -> object:
    content, problems = midi_repair.repair(path.read_bytes())
    again, none = midi_repair.repair(content)
    assert (again, none) == (content, []), "it has to be repaired again"
    if midi_repair.looks_whole(content):
        tracks = [list(midi_repair.events(x)) for x in midi_repair.bodies(content)]
        assert len(tracks) == int.from_bytes(content[10:12])
        for body in midi_repair.bodies(content):
            midi_repair.names_in_utf8(body)
    return sorted({problem.lstrip("0123456789 ") for problem in problems})


def continue_piece(path: Path) -> object:
    piece = midi.read_piece(path)
    if not piece.pitched:
        return "no pitched notes"
    drums, only_new, cuts = chosen(path, [0, 1], [False, True], [None, 1])
    seam = midi.find_seam(piece, 1, 2, cuts)
    roll, out = (
        np.eye(88, dtype=np.uint8)[30 : 30 + seam.steps],
        path.with_suffix(".out"),
    )
    options = {"only_new": only_new, "repeat_drums": min(drums, seam.bar)}
    midi.continue_piece(piece, roll, seam, out, 1, **options)
    made = midi.read_piece(out)
    if not only_new:
        _stands(piece, made, seam.tick if seam.cuts else None)
    fixed = midi.fixed_roll(piece, piece.pitched[:1], 1)
    replaced = piece.pitched[1:2]
    midi.replace_voices(piece, np.maximum(fixed, 0), replaced, out, 1)
    made = midi.read_piece(out)
    if not replaced:
        _stands(piece, made, None)
    return len(piece.score.problems), bool(replaced)


def _stands(piece: midi.Piece, made: midi.Piece, seam: int | None) -> None:
    """All messages of a piece are in what was made of it, at the same ticks."""
    for old, new in zip(piece.tracks, made.tracks, strict=False):
        there = {(tick, str(message.copy(time=0))) for tick, message in new}
        for tick, message in old:
            if seam is None or tick < seam:
                assert (tick, str(message.copy(time=0))) in there, f"lost: {message}"


def read_sound(path: Path) -> object:
    decoder, rate, mono, channel, errors = chosen(
        path,
        ["auto", "auto", "soundfile", "pyav"],
        [None, 4000],
        [False, True],
        [None, None, 0],
        ["raise", "warn"],
    )
    options = {"mono": mono, "channel": channel, "decoder": decoder, "errors": errors}
    samples, found = audio.read(path, rate, max_seconds=3600.0, **options)
    assert samples.dtype == np.float32
    assert samples.ndim == 2
    assert len(samples) or rate, "no samples"
    assert np.isfinite(samples).all()
    assert rate in (None, found)
    return decoder, samples.shape[1], errors


def read_header(path: Path) -> object:
    content = path.read_bytes()
    headers.looks_like_sound(content[:16])
    layout = headers.inspect(io.BytesIO(content))
    for begin, end in layout.parts:
        assert 0 <= begin <= end <= len(content), layout.parts
    return len(layout.parts), layout.doubt, bool(layout.lost), len(layout.notes)


def in_folder(path: Path, others: dict[str, bytes]) -> Path:
    """A folder that holds the file and others that are whole, beside it."""
    folder = path.parent / "folder"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, content in others.items():
        (folder / name).write_bytes(content)
    shutil.copy(path, folder / path.name)
    return folder


def read_midi_folder(path: Path) -> object:
    folder = in_folder(path, {"good.mid": seeds.tunes()["tune.mid"]})
    options = {"cache_dir": path.parent / "cache", "workers": 1, "verbose": False}
    first, again = (midi_directory.read_directory(folder, **options) for _ in range(2))
    assert len(first.paths) + len(first.skipped) == 2, "a file is neither"
    assert folder / "good.mid" in first.paths
    for corpus in (first, again):
        number = corpus.paths.index(folder / "good.mid")
        assert np.array_equal(corpus.rolls[number], seeds.TUNE.repeat(2, axis=0))
    assert first.rolls.packed == again.rolls.packed, "the cache gives another roll"
    return sorted(finding.kind for finding in first.skipped.values())


def read_sound_folder(path: Path) -> object:
    folder = in_folder(path, {"good.wav": seeds.sounds()["0.wav"]})
    (errors,) = chosen(path, ["skip", "warn"])
    options = {"workers": 1, "verbose": False, "max_seconds": 3600.0, "errors": errors}
    paths = sorted(folder.iterdir())
    options["cache_dir"] = path.parent / "cache"
    first, again = (audio.read_files(paths, **options) for _ in range(2))
    assert len(first.paths) + len(first.skipped) == 2, "a file is neither"
    assert folder / "good.wav" in first.paths
    for number in range(len(first)):
        assert np.array_equal(first[number], again[number]), "the cache differs"
    return sorted(finding.kind for finding in first.skipped.values())


def read_with_cache(path: Path, kind: str) -> object:
    """Reads a folder, with a cache one file of which is the one at `path`."""
    cache, others = path.parent / "kept", _caches(kind)[1]
    shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir()
    for name, content in others.items():
        (cache / name).write_bytes(content)
    shutil.copy(path, cache / path.name)
    folder = path.parent / kind
    if kind == "midi":
        assert _rolls(folder, cache) == _caches(kind)[0], "the cache gives other rolls"
    else:
        for _ in seeds.sounds():  # each that is damaged is decoded anew the next time
            with contextlib.suppress(OSError):
                _samples(folder, cache)
        assert _samples(folder, cache) == _caches(kind)[0], "it gives other samples"
    return len(list(cache.iterdir()))


def _rolls(folder: Path, cache: Path) -> list[bytes]:
    if not folder.exists():
        folder.mkdir()
        for name in ("tune.mid", "1.mid"):
            (folder / name).write_bytes(seeds.tunes()[name])
    options = {"cache_dir": cache, "workers": 1, "verbose": False}
    return midi_directory.read_directory(folder, **options).rolls.packed


def _samples(folder: Path, cache: Path) -> list[bytes]:
    if not folder.exists():
        folder.mkdir()
        for name in ("0.wav", "2.wav"):
            (folder / name).write_bytes(seeds.sounds()[name])
    options = {"cache_dir": cache, "workers": 1, "verbose": False}
    recordings = audio.read_files(sorted(folder.iterdir()), 8000, **options)
    return [recording.tobytes() for recording in recordings]


@functools.cache
def _caches(kind: str) -> tuple[list[bytes], dict[str, bytes]]:
    """What a folder holds, and the files of a whole cache of it."""
    with tempfile.TemporaryDirectory() as name:
        cache = Path(name, "cache")
        read = _rolls if kind == "midi" else _samples
        found = read(Path(name, kind), cache)
        files = (p for p in cache.iterdir() if p.suffix in (".data", ".sqlite"))
        return found, {path.name: path.read_bytes() for path in files}


def read_messages(path: Path) -> object:
    stream, count = io.BytesIO(path.read_bytes()), 0
    while (message := receive(stream)) is not None:
        data, fields = message
        assert isinstance(data, bytes)
        assert isinstance(fields, list)
        count += 1
    return count


def messages() -> dict[str, bytes]:
    """What a process that reads files says."""
    from keras_gated.datasets.worker import send

    stream = io.BytesIO()
    send(stream, b"")
    send(stream, b"some data", None, ["symusic", 0, 0, 0, []])
    send(stream, b"", ["'a.mid' is empty.", "empty"])
    return {"answers": stream.getvalue()}


def read_matrices(path: Path) -> object:
    whole = hashlib.sha256(seeds.matrices()[path.name]).hexdigest()
    published.SHA256[path.name] = whole  # as if it were the published one
    splits = published.load(path.name, path.parent)
    for roll in (roll for split in splits for roll in split):
        assert roll.dtype == np.uint8
        assert roll.shape[1] in (88, 176)
    return [len(split) for split in splits]


def read_records(
    path: Path, corpus: Callable[[], dict[str, bytes]], dataset: Callable
) -> object:
    from tensorflow.errors import DataLossError, FailedPreconditionError

    others = {name: data for name, data in corpus().items() if name != path.name}
    batches = dataset(in_folder(path, others), batch_size=2, shuffle=False)
    try:
        return len(list(batches.as_numpy_iterator()))
    except (DataLossError, FailedPreconditionError):  # in the graph, without a name
        return "a shard is damaged"


def _reader_of_records(
    corpus: Callable[[], dict[str, bytes]], dataset: Callable, module: str
) -> Reader:
    call = functools.partial(read_records, corpus=corpus, dataset=dataset)
    return Reader(corpus, call, (ValueError,), (module, "records.py"), share=0.2)


def rolls_corpus(output: Path) -> corpora.Corpus:
    import prepare_midi_corpus as preparation

    options = Options().to_json()
    settings = {"shards": 1, "rules": midi_directory.RULES, "onsets": False}
    return preparation.Rolls(str(output), 1, settings, options)


def prepare_corpus(path: Path) -> object:
    """A file of a collection; or what an earlier preparation has left."""
    output = path.parent / "output"
    shutil.rmtree(output, ignore_errors=True)
    corpus = rolls_corpus(output)
    corpus.prepare_output()
    folder = in_folder(path, {"good.mid": seeds.tunes()["tune.mid"]})
    if path.suffix == ".json":
        (folder / path.name).unlink()
    files = [(p.name, str(p), p.stat().st_size, 0.0) for p in sorted(folder.iterdir())]
    if path.name == "settings.json":
        shutil.copy(path, output / path.name)
        corpus.prepare_output()
    elif path.suffix == ".json":
        (made,) = corpus.make_shard((0, files))
        beside = output / f".{made['shard']}.json"
        known = json.loads(beside.read_text())
        text = path.read_text("utf-8", "surrogateescape")
        text = text.replace("INPUTS", known["inputs"])
        beside.write_text(text, "utf-8", "surrogateescape")
    (summary,) = corpus.make_shard((0, files))
    corpus.write_manifest([summary])
    manifest = midi_records.read_manifest(output)
    assert manifest["rolls"] == summary["rolls"]
    assert manifest["rolls"] + len(manifest["skipped"]) == len(files)
    return manifest["rolls"]


def prepared() -> dict[str, bytes]:
    """MIDI files, and the settings and the summary that a preparation keeps."""
    corpus = rolls_corpus(Path("output"))
    summary = {"shard": "rolls-00000-of-00001.tfrecord", "sha256": "0" * 64, "files": 1}
    summary |= {"rolls": 1, "steps": 8, **dict.fromkeys(corpus.totals, 0)}
    summary |= {"lengths": {"8": 1}, "skipped": {}, "repaired": {}}
    beside = {"inputs": "INPUTS", "summary": summary}
    texts = {"settings.json": corpus.settings, "summary.json": beside}
    texts = {
        name: json.dumps(value, indent=1).encode() for name, value in texts.items()
    }
    return texts | dict(list(seeds.tunes().items())[-5:])


def load_model(path: Path) -> object:
    import generate_music
    import keras

    arguments = {"model": path, "steps_per_quarter": None, "in_c": False}
    model = generate_music.load_model(path)
    encoding = generate_music.encoding_of(model, argparse.Namespace(**arguments))
    keras.backend.clear_session()
    return str(encoding.steps_per_quarter)


def read_study(path: Path) -> object:
    from study.records import Records

    folder = path.parent / "records"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    is_committed = path.suffix == ".jsonl"
    if not is_committed:
        shutil.copy(path, folder)
    return len(Records(folder, [path] if is_committed else []).read())


def synthesize(path: Path) -> object:
    sound = midi.synthesize(path, 2000, max_seconds=900.0)
    assert np.isfinite(sound).all()
    return "sound" if sound.any() else "silence"


def to_musicxml(path: Path) -> object:
    out = path.parent / "out.musicxml"
    out.unlink(missing_ok=True)
    midi.write_musicxml(path, out)
    return out.stat().st_size > 0


def read_notation(path: Path) -> object:
    score = midi.read_score(path)
    assert (score.notes[:, 0] < score.notes[:, 1]).all()
    assert ((score.notes[:, 2:4] >= 0) & (score.notes[:, 2:4] < 128)).all()
    score.features(["meter", "key"])
    return len(score.problems), len(score.parts)


def _sounds(*endings: str) -> Callable[[], dict[str, bytes]]:
    return lambda: seeds.of(endings, seeds.sounds())


OTHER_SOUND = (".w64", ".au", ".caf", ".m4a", ".aac", ".wma", ".webm", ".mka", ".ac3")
OTHER_SOUND += (".eac3", ".mp2", ".avi", ".ts", ".mov", ".wv", ".tta", ".flv")
SOUND = {"call": read_sound, "errors": (audio.AudioError,), "modules": ("sound/*.py",)}
MIDI = {"seeds": seeds.tunes, "errors": (midi.MIDIError,)}
READERS = {
    "midi.read": Reader(call=read_midi, modules=("music/midi*.py",), share=4, **MIDI),
    "midi repair": Reader(
        seeds.tunes, repair_midi, (), ("music/midi_repair.py",), share=4
    ),
    "midi.continue_piece": Reader(
        call=continue_piece, modules=("music/midi_[chmpv]*.py",), share=2, **MIDI
    ),
    "midi.synthesize": Reader(
        call=synthesize, modules=("music/midi_sound.py",), share=0.2, **MIDI
    ),
    "midi.write_musicxml": Reader(
        call=to_musicxml,
        modules=("music/notation_writing.py",),
        share=0.05,
        seconds=120,
        **MIDI,
    ),
    "midi folder": Reader(
        seeds.tunes, read_midi_folder, (), ("music/midi_directory.py",), share=0.3
    ),
    "midi cache": Reader(
        lambda: _caches("midi")[1],
        functools.partial(read_with_cache, kind="midi"),
        modules=("store.py",),
        share=0.5,
    ),
    "notation": Reader(
        seeds.scores,
        read_notation,
        (midi.MIDIError,),
        ("music/notation.py",),
        {".mxl": ZIP},
        share=0.8,
        seconds=60,
    ),
    "sound headers": Reader(
        seeds.sounds, read_header, (), ("sound/*headers.py",), {".ogg": OGG}, 16
    ),
    "audio.read WAV": Reader(_sounds(".wav"), **SOUND),
    "audio.read AIFF": Reader(_sounds(".aiff"), **SOUND),
    "audio.read FLAC": Reader(_sounds(".flac"), **SOUND),
    "audio.read OGG": Reader(_sounds(".ogg"), shells={".ogg": OGG}, **SOUND),
    "audio.read MP3": Reader(_sounds(".mp3"), **SOUND),
    "audio.read others": Reader(_sounds(*OTHER_SOUND), **SOUND),
    "sound folder": Reader(
        seeds.sounds, read_sound_folder, (), ("sound/re*.py",), share=0.3
    ),
    "sound cache": Reader(
        lambda: _caches("sound")[1],
        functools.partial(read_with_cache, kind="sound"),
        modules=("store.py",),
        share=0.2,
    ),
    "worker's answers": Reader(messages, read_messages, (), ("worker.py",), share=4),
    "published sets": Reader(
        seeds.matrices,
        read_matrices,
        (ValueError, OSError),
        ("sets/published.py",),
        share=0.5,
    ),
    "records": _reader_of_records(
        seeds.corpus,
        midi_records.midi_dataset_from_records,
        "music/midi_records.py",
    ),
    "sound records": _reader_of_records(
        seeds.sound_corpus,
        audio_records.audio_dataset_from_records,
        "sound/audio_records.py",
    ),
    "corpus": Reader(
        prepared, prepare_corpus, (ValueError,), ("corpora.py",), share=0.4
    ),
    "models": Reader(
        seeds.models, load_model, (ValueError,), (), {".keras": ZIP}, share=0.4
    ),
    "backups": Reader(
        seeds.backups,
        backup_file.read,
        (BackupError,),
        ("callbacks/backup_file.py",),
        {".npz": ZIP},
    ),
    "study": Reader(seeds.records, read_study, (ValueError,), share=0.5),
}
