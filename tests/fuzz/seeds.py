"""Small whole files of every format, made here."""

import functools
import io
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

import fuzz_midi
import fuzz_sound
import numpy as np

from keras_gated.datasets import midi, midi_records, piano_roll
from keras_gated.datasets.sets import published

TUNE = piano_roll.from_notes([(0, 2, 60), (2, 3, 64), (2, 4, 67), (4, 8, 60)], 1)
ABC = b"""X:1
T:A tune
M:3/4
L:1/8
Q:1/4=100
K:Gmin
|: G2 "Gm"B2 d2 | [DG]4 z2 :| {g}f2 (3efg a2 | d6- | d6 |]
"""
KRN = b"""**kern\t**kern
*M4/4\t*M4/4
*k[b-]\t*k[b-]
4c\t4e
[2d\t2f
=1\t=1
4d]\t8g
4r\t8a
*-\t*-
"""
MEI = b"""<?xml version="1.0"?>
<mei xmlns="http://www.music-encoding.org/ns/mei" meiversion="4.0.0"><music><body><mdiv>
<score><scoreDef meter.count="4" meter.unit="4" key.sig="1f"><staffGrp>
<staffDef n="1" lines="5" clef.shape="G" clef.line="2"/></staffGrp></scoreDef>
<section><measure n="1"><staff n="1"><layer n="1">
<note pname="c" oct="4" dur="4"/><note pname="e" oct="4" dur="8" accid="f"/>
<rest dur="8"/><chord dur="2"><note pname="g" oct="4"/><note pname="b" oct="4"/></chord>
</layer></staff></measure></section></score></mdiv></body></music></mei>
"""


def of(names: Iterable[str], files: dict[str, bytes]) -> dict[str, bytes]:
    """The files whose names end like one of these."""
    return {name: x for name, x in files.items() if name.endswith(tuple(names))}


@functools.cache
def tunes() -> dict[str, bytes]:
    """MIDI files: some by chance, one with a pedal, drums and film frames."""
    some = sorted((fuzz_midi.valid_file(seed) for seed in range(100)), key=len)
    files = {f"{number}.mid": content for number, content in enumerate(some[:20])}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tune.mid")
        midi.write(TUNE, path, 1)
        files["tune.mid"] = path.read_bytes()
    from midi_bytes import SCALE, header, meta, on, track

    for name, division in (("film", 0xE728), ("coarse", 1), ("fine", 32_767)):
        events = b"\0\xb0\x40\x7f" + on(36, 0, 9) + meta(0x58, b"\3\2\x18\x08") + SCALE
        events += meta(3, "tr\xe4ck".encode("latin-1")) + b"\0\xff\x2f\0"
        files[f"{name}.mid"] = header(division=division) + track(events)
    return files


@functools.cache
def scores() -> dict[str, bytes]:
    """Files that music21 reads."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "tune.mid")
        path.write_bytes(tunes()["tune.mid"])
        midi.write_musicxml(path, path.with_suffix(".musicxml"))
        xml = path.with_suffix(".musicxml").read_bytes()
    import zipfile

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(
            "META-INF/container.xml",
            '<?xml version="1.0"?><container><rootfiles>'
            '<rootfile full-path="tune.musicxml"/></rootfiles></container>',
        )
        file.writestr("tune.musicxml", xml)
    files = {"tune.musicxml": xml, "tune.xml": xml, "tune.mxl": out.getvalue()}
    return files | {"tune.abc": ABC, "tune.krn": KRN, "tune.mei": MEI}


@functools.cache
def sounds() -> dict[str, bytes]:
    """Files of all formats of sound, by names that end like them."""
    with tempfile.TemporaryDirectory() as folder:
        files = fuzz_sound.seeds(Path(folder))
    endings = {"WAVEX": "wav", "RF64": "wav", "AIFF": "aiff", "AU": "au", "WMA": "wma"}
    named = {}
    for number, (name, content) in enumerate(files.items()):
        kind = name.split()[0]
        kind = kind.rpartition(".")[2] if name[0].islower() else kind
        named[f"{number}.{endings.get(kind, kind).lower()}"] = content
    return named


@functools.cache
def matrices() -> dict[str, bytes]:
    """A set as it was published, in small."""
    from scipy.io import savemat

    rolls = np.empty((1, 2), object)
    rolls[0, :] = TUNE.astype(np.float64), np.eye(88, dtype=np.uint8)[:4]
    files = {}
    for compressed in (False, True):
        out = io.BytesIO()
        parts = dict.fromkeys(published.PARTS, rolls)
        savemat(out, parts, do_compression=compressed)
        files[f"{compressed}.mat"] = out.getvalue()
    return files


@functools.cache
def corpus() -> dict[str, bytes]:
    """A shard and its manifest, and what the preparation keeps."""
    packed = [("a.mid", piano_roll.pack(TUNE)), ("b.mid", piano_roll.pack(np.eye(88)))]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rolls-00000-of-00001.tfrecord")
        midi_records.write_shard(path, packed)
        shard = path.read_bytes()
    manifest = {"settings": {"onsets": False}, "rolls": 2, "steps": len(TUNE) + 88}
    manifest |= {"shards": [path.name], "lengths": {str(len(TUNE)): 1, "88": 1}}
    text = json.dumps(manifest, indent=1).encode()
    return {"rolls-00000-of-00001.tfrecord": shard, "manifest.json": text}


@functools.cache
def sound_corpus() -> dict[str, bytes]:
    """The same of sound: a recording in 16 bits and one in 32."""
    import tensorflow as tf

    from keras_gated.datasets import audio_records, records

    short, long = (np.sin(np.arange(n)) / 2 for n in (100, 130))
    packed = [
        ("a.wav", (short * 2**15).astype("<i2").tobytes(), 16),
        ("b.wav", long.astype("<f4").tobytes(), 32),
    ]
    examples = [records.example(audio_records.features(*record)) for record in packed]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "recordings-00000-of-00001.tfrecord")
        with tf.io.TFRecordWriter(str(path)) as writer:
            for example in examples:
                writer.write(example)
        shard = path.read_bytes()
    manifest = {"settings": {"sampling_rate": 8000}, "recordings": 2, "samples": 230}
    manifest |= {"seconds": 230 / 8000, "mean": 0.0, "std": 0.35}
    manifest |= {"shards": [path.name], "lengths": {"100": 1, "130": 1}}
    return {path.name: shard, "manifest.json": json.dumps(manifest, indent=1).encode()}


@functools.cache
def models() -> dict[str, bytes]:
    """A model as the demo saves it."""
    import keras

    import keras_gated

    model = keras.Sequential(
        [
            keras.Input((None, 88)),
            keras_gated.RollEncoding(2),
            keras_gated.GRU(4, return_sequences=True),
            keras.layers.Dense(88),
        ]
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "best.keras")
        model.save(path)
        return {"best.keras": path.read_bytes()}


def backups() -> dict[str, bytes]:
    """A backup of a training as it begins."""
    import keras

    from keras_gated import callbacks

    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("adam", "mse")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "backup.npz")
        backup = callbacks.BackupAndRestore(path)
        model.fit(np.ones((2, 3)), np.ones((2, 2)), verbose=0, callbacks=[backup])
        return {"backup.npz": path.read_bytes()}


def records() -> dict[str, bytes]:
    """Records of the study."""
    from study.records import COMMITTED

    lines = (COMMITTED / "jsb_chorales.jsonl").read_bytes().splitlines(keepends=True)
    return {"0.json": lines[0], "1.json": lines[-1], "all.jsonl": b"".join(lines[:2])}
