"""Shards of rolls: what the pipeline writes, and what a model reads of it."""

import json
import shutil
import signal
import subprocess
import time

import corpus_scripts
import numpy as np
import pytest
import tensorflow as tf
from corpus_scripts import TWO_PROCESSES, files
from oracles import some

from keras_gated.datasets import midi, midi_records, piano_roll

pytest.importorskip("apache_beam", reason="the extra 'beam' is not installed")
SCRIPT = "prepare_midi_corpus.py"


def write_tunes(folder, count):
    """Tunes in folders; their rolls by name."""
    generator = np.random.default_rng(count)
    rolls = {}
    for k in range(count):
        roll = (generator.random((2 + 3 * (k % 9), 88)) < 0.1).astype(np.uint8)
        roll[-1, 40] = 1
        name = f"{'abc'[k % 3]}/tune{k:03}.{'MID' if k % 5 == 0 else 'mid'}"
        midi.write(roll, folder / name)
        rolls[name] = roll
    return rolls


def command(*arguments):
    return corpus_scripts.command(SCRIPT, *arguments)


@pytest.fixture(scope="module")
def prepare():
    return corpus_scripts.in_this_process(SCRIPT)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory, prepare):
    """Music, bad files among it, and its shards."""
    base = tmp_path_factory.mktemp("corpus")
    rolls = write_tunes(base / "music", 40)
    (base / "music" / "a" / "bad.mid").write_bytes(b"MThd, but not really")
    (base / "music" / "b" / "empty.mid").write_bytes(b"")
    (base / "music" / "read.me").write_text("no music")
    output, _ = prepare(base / "music", base / "shards", "--shards", 5)
    assert "40 rolls of 42 files" in output
    return base, rolls


def rolls_of(dataset):
    """The sequences of a data set of whole rolls, without the padding."""
    found = []
    for inputs, targets, weights in dataset.as_numpy_iterator():
        assert inputs.shape == targets.shape == (*weights.shape, 88)
        for x, y, w in zip(inputs, targets, weights, strict=True):
            steps = int(w.sum())
            assert w.tolist() == [1] * steps + [0] * (len(w) - steps)
            if steps:
                np.testing.assert_array_equal(x[1:steps], y[: steps - 1])
                found.append(np.concatenate([x[:1], y[:steps]]).astype(np.uint8))
    return found


def test_everything_is_there_once(corpus):
    base, rolls = corpus
    manifest = midi_records.read_manifest(base / "shards")
    assert (manifest["files"], manifest["rolls"]) == (42, 40)
    assert manifest["steps"] == sum(map(len, rolls.values()))
    assert sorted(manifest["skipped"]) == ["a/bad.mid", "b/empty.mid"]
    assert "is empty" in manifest["skipped"]["b/empty.mid"]
    data = midi_records.midi_dataset_from_records(base / "shards", 4, max_shapes=3)
    found = rolls_of(data)
    assert sorted(map(bytes, found)) == sorted(map(bytes, rolls.values()))
    shapes = {x.shape for x, *_ in data.as_numpy_iterator()}
    assert {shape[0] for shape in shapes} == {4}
    assert len(shapes) <= 3


def test_rolls_with_onsets(tmp_path, prepare):
    notes = [(0, 1, 60), (1, 3, 60), (3, 4, 60)]
    roll = piano_roll.with_onsets(*piano_roll.from_notes(notes, 1, onsets=True))
    midi.write(roll, tmp_path / "music" / "tune.mid")
    prepare(tmp_path / "music", tmp_path / "shards", "--shards", 1, "--onsets")
    manifest = midi_records.read_manifest(tmp_path / "shards")
    assert (manifest["steps"], manifest["lengths"]) == (4, {"4": 1})
    data = midi_records.midi_dataset_from_records(tmp_path / "shards", 1)
    ((inputs, targets, _),) = data.as_numpy_iterator()
    np.testing.assert_array_equal(inputs[0], roll[:-1])
    np.testing.assert_array_equal(targets[0], roll[1:])
    with pytest.raises(SystemExit, match="Shards hold rolls alone"):
        prepare(tmp_path / "music", tmp_path / "other", "--features", "meter")


def test_windows_predict_every_step_once(corpus):
    base, rolls = corpus
    data = midi_records.midi_dataset_from_records(base / "shards", 4, 7)
    predicted = []
    for x, y, w in data.as_numpy_iterator():
        assert x.shape[1] <= 7
        predicted += [row.astype(np.uint8).tobytes() for row in y[w == 1]]
    expected = [row.tobytes() for roll in rolls.values() for row in roll[1:]]
    assert sorted(predicted) == sorted(expected)


def test_workers_share_the_shards(corpus):
    base, rolls = corpus
    found = []
    for worker in range(3):
        data = midi_records.midi_dataset_from_records(
            base / "shards", 4, num_workers=3, worker=worker
        )
        found += rolls_of(data)
    assert sorted(map(bytes, found)) == sorted(map(bytes, rolls.values()))
    with pytest.raises(ValueError, match="fewer than the 9 workers"):
        midi_records.midi_dataset_from_records(base / "shards", num_workers=9)
    with pytest.raises(ValueError, match="`worker` must be an integer from 0 to 2"):
        midi_records.midi_dataset_from_records(base / "shards", num_workers=3, worker=3)


@pytest.mark.parametrize("sequence_length", [None, 5])
def test_shuffling_is_repeatable_from_the_middle(corpus, sequence_length):
    base, _ = corpus

    def made(seed):
        return midi_records.midi_dataset_from_records(
            base / "shards", 4, sequence_length, seed=seed
        )

    def order(data):
        return [x.tobytes() for x, *_ in data.as_numpy_iterator()]

    data = made(1)
    first, second, third = (order(data) for _ in range(3))
    assert first != second
    assert order(made(1)) == first
    assert order(made(2)) != first
    data.start_at(len(data) + 3)
    assert order(data) == second[3:] + third[:3]


@pytest.mark.slow
def test_two_processes_give_the_same_bytes(corpus, tmp_path):
    base, _ = corpus
    arguments = command(
        base / "music", tmp_path / "again", "--shards", 5, *TWO_PROCESSES
    )
    subprocess.run(arguments, check=True)
    assert files(tmp_path / "again") == files(base / "shards")


@pytest.mark.slow
def test_killed_and_run_again_nothing_is_lost_or_double(corpus, prepare, tmp_path):
    """Killed as soon as the first shard is there; its bytes are not touched again."""
    base, _ = corpus
    output = tmp_path / "again"
    arguments = command(base / "music", output, "--shards", 5)
    run = subprocess.Popen(
        arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list(output.glob("*.tfrecord")) and time.monotonic() < deadline:
        time.sleep(0.001)
    run.send_signal(signal.SIGKILL)
    run.wait()
    done = {
        path: path.stat().st_mtime_ns
        for path in output.glob("*.tfrecord")
        if (output / f".{path.name}.json").exists()
    }
    (output / f".{32 * 'f'}-rolls-00001-of-00005.tfrecord").write_bytes(b"unfinished")
    prepare(base / "music", output, "--shards", 5)
    assert files(output) == files(base / "shards")
    assert {path: path.stat().st_mtime_ns for path in done} == done
    # And with all there, nothing is read again.
    before = {path: path.stat().st_mtime_ns for path in output.glob("*.tfrecord")}
    prepare(base / "music", output, "--shards", 5)
    assert files(output) == files(base / "shards")
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_new_files_and_other_settings(prepare, tmp_path):
    music, output = tmp_path / "music", tmp_path / "shards"
    write_tunes(music, 6)
    prepare(music, output, "--shards", 2)
    midi.write(np.eye(88), music / "a" / "new.mid")
    prepare(music, output, "--shards", 2)
    assert midi_records.read_manifest(output)["rolls"] == 7
    _, errors = prepare(music, output, "--shards", 3, code=2)
    assert "other settings (shards)" in errors


def test_a_shard_that_was_changed_is_made_anew(corpus, prepare, tmp_path):
    base, _ = corpus
    prepare(base / "music", tmp_path / "shards", "--shards", 5)
    shard = next((tmp_path / "shards").glob("*.tfrecord"))
    content = bytearray(shard.read_bytes())
    content[-9] ^= 1
    shard.write_bytes(content)
    with pytest.raises(tf.errors.DataLossError):
        rolls_of(midi_records.midi_dataset_from_records(tmp_path / "shards"))
    prepare(base / "music", tmp_path / "shards", "--shards", 5)
    assert files(tmp_path / "shards") == files(base / "shards")


def test_sequences_that_are_missing_are_noticed(corpus, tmp_path):
    base, _ = corpus
    shards = shutil.copytree(base / "shards", tmp_path / "shards")
    for shard in shards.glob("*.tfrecord"):
        shard.write_bytes(b"")
    with pytest.raises(tf.errors.FailedPreconditionError):
        rolls_of(midi_records.midi_dataset_from_records(shards))


@pytest.mark.parametrize("name", ["../away.tfrecord", "{away}", "sub/../../away"])
def test_shards_lie_in_their_folder(tmp_path, name):
    away = tmp_path / "away.tfrecord"
    midi_records.write_shard(away, [("a.mid", piano_roll.pack(np.eye(88)))])
    (tmp_path / "shards").mkdir()
    manifest = {"shards": [name.format(away=away)], "lengths": {"88": 1}}
    (tmp_path / "shards" / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="lacks 1 shard"):
        midi_records.midi_dataset_from_records(tmp_path / "shards")


def test_limits_of_the_parser(prepare, tmp_path):
    write_tunes(tmp_path / "music", 2)
    slow = ("--shards", 1, "--parse-seconds", 0.0001)
    prepare(tmp_path / "music", tmp_path / "shards", *slow, code=2)
    manifest = midi_records.read_manifest(tmp_path / "shards")
    assert sorted(manifest["skipped"]) == ["a/tune000.MID", "b/tune001.mid"]
    assert all("0.0001 seconds" in why for why in manifest["skipped"].values())
    _, errors = prepare(
        tmp_path / "music", tmp_path / "other", "--parse-memory", 10, code=2
    )
    assert "--parse-memory 256 or more" in errors


def test_unfinished_or_missing(corpus, prepare, tmp_path):
    with pytest.raises(ValueError, match=r"no manifest\.json.*Run examples"):
        midi_records.midi_dataset_from_records(tmp_path)
    base, _ = corpus
    manifest = json.loads((base / "shards" / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="lacks 5 shards"):
        midi_records.midi_dataset_from_records(tmp_path)
    _, errors = prepare(tmp_path / "none", tmp_path / "out", code=2)
    assert "holds no MIDI file" in errors


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"[]", b"\xff\xfe{", b"[" * 99_999, b'{"shards": []}'),
        b'{"shards": 1, "lengths": {}}',
        b'{"shards": [1], "lengths": {}}',
        b'{"shards": [], "lengths": {"x": 1}}',
        b'{"shards": [], "lengths": {"5": "x"}}',
        b'{"shards": [], "lengths": {"2147483648": 1}}',
        b'{"shards": [], "lengths": {"5": 1}, "settings": []}',
    ],
)
def test_a_damaged_manifest_is_named(tmp_path, content):
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"manifest\.json' is no manifest.*Run examples"
    ):
        midi_records.midi_dataset_from_records(tmp_path)


@pytest.mark.parametrize("damage", some([b"", b"\xff", b"[]", b'{"inputs": 1}', None]))
def test_what_is_damaged_beside_a_shard_is_made_again(prepare, tmp_path, damage):
    write_tunes(tmp_path / "music", 3)
    output = tmp_path / "shards"
    prepare(tmp_path / "music", output, "--shards", 1)
    whole = files(output)
    (beside,) = output.glob(".rolls*.json")
    right = beside.read_bytes()
    wrong = right.replace(b'"rolls": 3', b'"rolls": 9')
    beside.write_bytes(wrong if damage is None else damage)
    prepare(tmp_path / "music", output, "--shards", 1)
    assert files(output) == whole
    assert beside.read_bytes() == right


@pytest.mark.parametrize("damage", ["", "[1]", "{", "\xff"])
def test_damaged_settings_are_named(prepare, tmp_path, damage):
    write_tunes(tmp_path / "music", 2)
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "settings.json").write_text(damage, encoding="latin-1")
    _, errors = prepare(tmp_path / "music", tmp_path / "shards", code=2)
    assert "settings.json' is damaged" in errors


@pytest.mark.slow
def test_a_model_trains_on_it(corpus):
    import keras

    import keras_gated
    from keras_gated import losses, metrics

    base, _ = corpus
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((None, piano_roll.KEYS)),
            keras_gated.GRU(8, return_sequences=True),
            keras.layers.Dense(piano_roll.KEYS),
        ]
    )
    model.compile("adam", losses.BernoulliNLL(), weighted_metrics=[metrics.FrameNLL()])
    data = midi_records.midi_dataset_from_records(
        base / "shards", 8, max_shapes=2, seed=1
    )
    history = model.fit(data, epochs=3, verbose=0).history
    began, *_, ended = history["frame_nll"]
    assert ended < began
