"""Shards of sound: what the pipeline writes, and what a model reads of it."""

import errno
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import corpus_scripts
import numpy as np
import pytest
import tensorflow as tf
from corpus_scripts import TWO_PROCESSES, files

from keras_gated.datasets import audio, audio_records, fsdd, processes
from keras_gated.datasets.sound import packed_sound

for package in ("apache_beam", "soundfile", "av", "soxr"):
    pytest.importorskip(package, reason="the extras 'beam' and 'audio' are needed")

SCRIPT = "prepare_audio_corpus.py"
RATE = 8000
SETTINGS = ("--sampling-rate", RATE, "--shards", 4)


def write_sounds(folder, count, seconds=0.05):
    """Noise in files of several kinds, some to be resampled or mixed."""
    generator = np.random.default_rng(count)
    for k in range(count):
        channels, rate = 1 + (k % 4 == 3), (RATE, RATE, 11025)[k % 3]
        size = int(seconds * rate) + 37 * (k % 5)
        samples = generator.normal(0.05, 0.2, (size, channels))
        ending = ("wav", "flac", "ogg", "WAV")[k % 4]
        audio.write(samples, folder / "abc"[k % 3] / f"same{k:03}.{ending}", rate)


@pytest.fixture(scope="module")
def prepare():
    return corpus_scripts.in_this_process(SCRIPT)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, prepare):
    """Sound, bad files among it, and its shards."""
    base = tmp_path_factory.mktemp("corpus")
    folder = base / "sound"
    write_sounds(folder, 24)
    whole = (folder / "a" / "same000.wav").read_bytes()
    audio.write(np.zeros(40), folder / "c" / "short.wav", RATE)
    (folder / "a" / "cut.wav").write_bytes(whole[:-100])
    (folder / "b" / "same000.wav").write_bytes(whole)
    (folder / "b" / "empty.flac").write_bytes(b"")
    (folder / "b" / "no_ending").write_bytes(whole)
    (folder / "b" / ".hidden.wav").write_bytes(whole)
    (folder / "b" / "text").write_text("no sound")
    (folder / "read.me").write_text("no sound")
    output, _ = prepare(folder, base / "shards", *SETTINGS)
    assert "27 recordings of 29 files" in output
    return base


def sequences(dataset):
    """The bytes of all sequences, without the padding, and the shapes of batches."""
    found, shapes = [], set()
    for inputs, targets, weights in dataset.as_numpy_iterator():
        assert inputs.shape[:2] == targets.shape[:2] == weights.shape
        shapes.add(inputs.shape)
        for x, y, w in zip(inputs, targets, weights, strict=True):
            steps = int(w.sum())
            assert w.tolist() == [1] * steps + [0] * (len(w) - steps)
            assert not x[steps:].any()
            assert not y[steps:].any()
            if steps:
                found.append(np.concatenate([x[:steps], y[:steps]], axis=1))
    return sorted(found, key=lambda rows: (rows.shape, rows.tolist())), shapes


def both(folder, shards, **arguments):
    """The sequences of a folder and of its shards."""
    directory = audio.audio_dataset_from_directory(
        folder,
        sampling_rate=RATE,
        batch_size=4,
        verbose=False,
        cache=False,
        **arguments,
    )
    streamed = audio_records.audio_dataset_from_records(shards, 4, **arguments)
    assert streamed.element_spec == directory.element_spec
    return sequences(directory)[0], sequences(streamed)[0], directory, streamed


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"sequence_length": 100},
        {"sequence_length": 100, "remainder": "pad", "max_shapes": 3},
        {"sequence_length": 90, "hop": 7, "frame_length": 12, "target_length": 5},
    ],
)
def test_sequences_are_those_of_the_folder(corpus, arguments):
    arguments |= {"standardize": False}
    expected, found, *_ = both(corpus / "sound", corpus / "shards", **arguments)
    assert len(expected) == len(found) > 20
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_array_equal(one, other)


def test_samples_are_standardized_as_those_of_the_folder(corpus):
    expected, found, directory, streamed = both(
        corpus / "sound", corpus / "shards", sequence_length=100
    )
    np.testing.assert_allclose(streamed.standardization, directory.standardization)
    np.testing.assert_allclose(np.stack(found), np.stack(expected), atol=1e-5)
    other = audio_records.audio_dataset_from_records(
        corpus / "shards", 4, 100, standardize=(1.0, 0.5)
    )
    plain = audio_records.audio_dataset_from_records(
        corpus / "shards", 4, 100, standardize=False
    )
    assert other.standardization == (1.0, 0.5)
    scaled = np.stack(sequences(plain)[0]) * 2 - 2
    np.testing.assert_allclose(np.stack(sequences(other)[0]), scaled, atol=1e-5)


def test_what_the_manifest_says(corpus):
    manifest = audio_records.read_manifest(corpus / "shards")
    recordings = audio.read_directory(
        corpus / "sound", RATE, verbose=False, cache=False
    )
    assert manifest["files"] == len(recordings) + len(manifest["skipped"]) == 29
    assert manifest["recordings"] == len(recordings)
    assert manifest["samples"] == recordings.lengths.sum()
    assert manifest["seconds"] == recordings.seconds
    counts = np.unique(recordings.lengths, return_counts=True)
    assert manifest["lengths"] == {
        str(n): c for n, c in zip(*map(np.ndarray.tolist, counts), strict=True)
    }
    assert sorted(manifest["skipped"]) == ["a/cut.wav", "b/empty.flac"]
    assert manifest["skipped"]["a/cut.wav"].startswith("'a/cut.wav' is cut off")
    # What needs no more than 16 bits takes no more.
    size = sum(
        len(x) for name, x in files(corpus / "shards").items() if "json" not in name
    )
    assert 2.5 < size / manifest["samples"] < 4


def test_lengths_are_few_and_batches_are_filled(corpus):
    data = audio_records.audio_dataset_from_records(corpus / "shards", 4, max_shapes=3)
    _, shapes = sequences(data)
    assert {shape[0] for shape in shapes} == {4}
    assert len(shapes) <= 3


def test_workers_share_the_shards_and_orders_repeat(corpus):
    def read(**arguments):
        data = audio_records.audio_dataset_from_records(
            corpus / "shards", 4, 100, standardize=False, **arguments
        )
        return np.concatenate([x[:, 0] for x, *_ in data.as_numpy_iterator()])

    def in_order(rows):
        return rows[np.lexsort(rows.T)]

    parts = [read(num_workers=3, worker=worker) for worker in range(3)]
    whole = read(shuffle=False)
    np.testing.assert_array_equal(in_order(np.concatenate(parts)), in_order(whole))
    np.testing.assert_array_equal(read(seed=1), read(seed=1))
    assert not np.array_equal(read(seed=1), read(seed=2))
    with pytest.raises(ValueError, match="fewer than the 9 workers"):
        read(num_workers=9)


@pytest.mark.parametrize(
    "arguments",
    [{}, {"sequence_length": 100}, {"sequence_length": 100, "remainder": "pad"}],
    ids=["whole", "cut", "cut and padded"],
)
def test_an_order_goes_on_from_the_middle(corpus, arguments):
    data = audio_records.audio_dataset_from_records(
        corpus / "shards", 4, seed=1, max_shapes=3, **arguments
    )
    passes = [[x.tobytes() for x, *_ in data.as_numpy_iterator()] for _ in range(2)]
    assert len(data) == len(passes[0])
    assert passes[0] != passes[1]
    data.start_at(2)
    rest = [x.tobytes() for x, *_ in data.as_numpy_iterator()]
    assert rest == passes[0][2:] + passes[1][:2]


def test_samples_of_16_bits(corpus, prepare, tmp_path):
    loud = np.array([0.5, 1.5, -2.0, 0.25] * 50, np.float32)
    import soundfile

    (tmp_path / "sound").mkdir()
    soundfile.write(tmp_path / "sound" / "loud.wav", loud, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "sound" / "soft.wav", loud / 4, RATE, subtype="FLOAT")
    prepare(tmp_path / "sound", tmp_path / "shards", *SETTINGS, "--bits", 16)
    manifest = audio_records.read_manifest(tmp_path / "shards")
    assert list(manifest["repaired"]) == ["loud.wav"]
    assert "100 samples beyond -1 and 1" in manifest["repaired"]["loud.wav"]
    data = audio_records.audio_dataset_from_records(
        tmp_path / "shards", 1, standardize=False, frame_length=4, target_length=196
    )
    found = {tuple(x[0, 0]) for x, *_ in data.as_numpy_iterator()}
    most = 1 - 2**-15
    assert found == {(0.5, most, -1.0, 0.25), tuple(loud[:4] / 4)}


def test_a_part_that_is_there(prepare, tmp_path):
    audio.write(np.full(400, 0.5), tmp_path / "sound" / "a.wav", RATE)
    path = tmp_path / "sound" / "a.wav"
    path.write_bytes(path.read_bytes()[:-200])
    prepare(path.parent, tmp_path / "none", *SETTINGS, code=2)
    prepare(path.parent, tmp_path / "shards", *SETTINGS, "--errors", "warn")
    manifest = audio_records.read_manifest(tmp_path / "shards")
    assert manifest["samples"] == 300
    assert "25 % is missing" in manifest["repaired"]["a.wav"]
    with pytest.raises(ValueError, match=r"All 300 samples of the 1 rec.*are equal"):
        audio_records.audio_dataset_from_records(tmp_path / "shards")
    with pytest.raises(ValueError, match="No sequence of 301 samples"):
        audio_records.audio_dataset_from_records(
            tmp_path / "shards", sequence_length=301, standardize=False
        )


def test_limits_of_the_decoder(prepare, tmp_path):
    write_sounds(tmp_path / "sound", 2, seconds=30)
    for number, (arguments, reason) in enumerate(
        [
            (("--parse-seconds", 0.0001), "0.0001 seconds"),
            (("--max-seconds", 0.1), "longer than 0 seconds"),
            (("--channel", 5), "there is no channel=5"),
        ]
    ):
        output = tmp_path / str(number)
        prepare(tmp_path / "sound", output, *SETTINGS, *arguments, code=2)
        manifest = audio_records.read_manifest(output)
        assert sorted(manifest["skipped"]) == ["a/same000.wav", "b/same001.flac"]
        assert all(reason in why for why in manifest["skipped"].values()), manifest
    # The least memory that is accepted is enough to load the decoders.
    prepare(tmp_path / "sound", tmp_path / "few", *SETTINGS, "--parse-memory", 256)
    assert not audio_records.read_manifest(tmp_path / "few")["skipped"]


def test_a_file_that_ends_its_process_is_skipped(tmp_path):
    """The limit of memory, with a file that needs more than it: ten minutes."""
    audio.write(np.zeros(600 * 48_000), tmp_path / "long.flac", 48_000)
    options = {"sampling_rate": 48_000, "max_seconds": None}
    arguments = "sound.packed_sound:packed_reader", options, audio.AudioError, 1
    content = os.fsencode(tmp_path / "long.flac")
    with (
        processes.Processes(*arguments, memory=96) as process,
        pytest.raises(
            audio.AudioError, match=r"'x/long\.flac' needed more than 96 MiB"
        ),
    ):
        process.submit("x/long.flac", content)()


def test_files_elsewhere_are_copied_first(corpus, prepare, tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "lexists", lambda path: False)
    prepare(corpus / "sound", tmp_path / "shards", *SETTINGS)
    assert files(tmp_path / "shards") == files(corpus / "shards")


def test_a_full_disk_is_no_fault_of_a_file(prepare, tmp_path, monkeypatch):
    write_sounds(tmp_path / "sound", 2)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os.path, "lexists", lambda path: False)
    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(RuntimeError, match="No space left"):
        prepare(tmp_path / "sound", tmp_path / "shards", *SETTINGS)


def test_other_settings_and_new_files(corpus, prepare, tmp_path):
    folder, output = tmp_path / "sound", tmp_path / "shards"
    write_sounds(folder, 5)
    prepare(folder, output, *SETTINGS)
    audio.write(np.full(400, 0.5), folder / "new.wav", RATE)
    prepare(folder, output, *SETTINGS)
    assert audio_records.read_manifest(output)["recordings"] == 6
    other = ("--sampling-rate", 4000, "--shards", 4, "--bits", 16)
    _, errors = prepare(folder, output, *other, code=2)
    assert "other settings (sampling_rate, bits)" in errors
    _, errors = prepare(folder, output, "--sampling-rate", 1, code=2)
    assert "`sampling_rate` must be an integer from 100" in errors
    (tmp_path / "empty").mkdir()
    for empty in ("empty", "none"):
        _, errors = prepare(tmp_path / empty, tmp_path / "out", *SETTINGS, code=2)
        assert "holds no sound file" in errors


def test_what_was_changed_is_made_anew(corpus, prepare, tmp_path):
    shards = tmp_path / "shards"
    prepare(corpus / "sound", shards, *SETTINGS)
    first, second, third, fourth = sorted(shards.glob("*.tfrecord"))
    content = bytearray(first.read_bytes())
    content[-9] ^= 1
    first.write_bytes(content)
    with pytest.raises(tf.errors.DataLossError):
        sequences(audio_records.audio_dataset_from_records(shards))
    second.unlink()
    with pytest.raises(ValueError, match="lacks 1 shards"):
        audio_records.audio_dataset_from_records(shards)
    beside = shards / f".{third.name}.json"
    beside.write_bytes(beside.read_bytes().replace(b'"samples": ', b'"samples": 1'))
    untouched = fourth.stat().st_mtime_ns
    prepare(corpus / "sound", shards, *SETTINGS)
    assert files(shards) == files(corpus / "shards")
    assert fourth.stat().st_mtime_ns == untouched


@pytest.mark.parametrize(
    "change",
    [
        {"mean": None},
        {"std": -1.0},
        {"std": float("nan")},
        {"samples": "many"},
        {"lengths": {"x": 1}},
        {"settings": []},
    ],
)
def test_a_damaged_manifest_is_named(corpus, tmp_path, change):
    manifest = json.loads((corpus / "shards" / "manifest.json").read_text()) | change
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(
        ValueError, match=r"manifest\.json' is no manifest.*prepare_audio_corpus"
    ):
        audio_records.audio_dataset_from_records(tmp_path)


def test_shards_of_rolls_are_no_sound(tmp_path):
    manifest = {"shards": ["rolls-00000-of-00001.tfrecord"], "lengths": {"88": 1}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="is no manifest"):
        audio_records.audio_dataset_from_records(tmp_path)


def test_what_the_graph_unpacks_is_what_was_packed(tmp_path):
    audio.write(np.random.default_rng(1).normal(0, 0.3, 500), tmp_path / "a.wav", RATE)
    for rate, bits in ((RATE, 16), (RATE // 2, 32)):
        read = packed_sound.packed_reader(rate)
        data, (found, total, squares, _) = read("a", os.fsencode(tmp_path / "a.wav"))
        samples, _ = audio.read(tmp_path / "a.wav", rate)
        np.testing.assert_array_equal(packed_sound.unpack(data, found), samples[:, 0])
        assert found == bits
        sums = samples.sum(), np.square(samples).sum()
        np.testing.assert_allclose((total, squares), sums, rtol=1e-4)


@pytest.mark.slow
def test_two_processes_give_the_same_bytes(corpus, tmp_path):
    arguments = corpus / "sound", tmp_path / "again", *SETTINGS, *TWO_PROCESSES
    subprocess.run(corpus_scripts.command(SCRIPT, *arguments), check=True)
    assert files(tmp_path / "again") == files(corpus / "shards")


@pytest.mark.slow
def test_killed_at_any_moment_it_goes_on(prepare, tmp_path):
    """Killed with all its processes again and again; the bytes are those of one run."""
    folder, output = tmp_path / "sound", tmp_path / "shards"
    write_sounds(folder, 300, seconds=2)
    settings = ("--sampling-rate", RATE, "--shards", 24)
    undisturbed = tmp_path / "undisturbed"
    prepare(folder, undisturbed, *settings)
    command = corpus_scripts.command(SCRIPT, folder, output, *settings)
    moments = random.Random(1)
    counts = []
    output.mkdir()
    for _ in range(8):
        before = {*output.iterdir()}
        run = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
        deadline = time.monotonic() + 120
        while not {*output.iterdir()} - before and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(moments.choice([0.0, moments.uniform(0, 0.5)]))
        os.killpg(run.pid, signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL  # it had not ended
        there = {path.name: path.read_bytes() for path in output.glob("recordings-*")}
        assert there.items() <= files(undisturbed).items()  # whole, or not there
        counts.append(len(there))
    assert 0 < counts[-1] < 24, "the moments were not those of the work"
    prepare(folder, output, *settings)
    assert files(output) == files(undisturbed)
    names = {path.name for path in output.iterdir()}
    assert names == {path.name for path in undisturbed.iterdir()}


REAL = os.environ.get(fsdd.DATA_DIR)


@pytest.mark.skipif(
    not REAL or not os.path.isdir(REAL), reason=f"{fsdd.DATA_DIR} names no folder"
)
def test_spoken_digits(prepare, tmp_path):
    output, _ = prepare(Path(REAL), tmp_path / "shards", "--sampling-rate", RATE)
    assert "3,000 recordings of 3,000 files" in output
    expected, found, *_ = both(
        REAL, tmp_path / "shards", sequence_length=2000, standardize=False
    )
    np.testing.assert_array_equal(np.stack(found), np.stack(expected))
