"""Folders of MIDI files."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys

import numpy as np
import pretty_midi
import pytest

from keras_gated.datasets import (
    midi,
    midi_dataset_from_directory,
    midi_directory,
    piano_roll,
)

read_directory = midi_directory.read_directory


def write_tunes(folder, count, steps=12):
    """Different tunes, in the order of their names; their rolls."""
    generator = np.random.default_rng(count)
    rolls = []
    for k in range(count):
        roll = (generator.random((steps + k % 5, 88)) < 0.1).astype(np.uint8)
        roll[-1, 40] = 1
        rolls.append(roll)
        midi.write(roll, folder / f"tune{k:03}.mid")
    return rolls


@pytest.fixture
def parsed(monkeypatch):
    """The files that were really parsed, in this process."""
    paths, parse = [], midi.parse

    def spy(path, *arguments):
        paths.append(os.path.basename(path))
        return parse(path, *arguments)

    monkeypatch.setattr(midi, "parse", spy)
    return paths


@pytest.fixture
def cache_dir(tmp_path):
    return tmp_path / "cache"


def test_files_that_are_none_are_reported_and_nothing_else_is_lost(
    tmp_path, cache_dir, capsys
):
    folder = tmp_path / "music"
    write_tunes(folder, 2)
    write_tunes(folder / "sub", 1)
    (folder / "sub" / "tune000.mid").rename(folder / "sub" / "LOUD.MIDI")
    (folder / "empty.mid").write_bytes(b"")
    (folder / "text.mid").write_text("this is no music")
    (folder / "cut.mid").write_bytes((folder / "tune000.mid").read_bytes()[:60])
    pretty_midi.PrettyMIDI().write(str(folder / "silent.mid"))
    (folder / "gone.mid").symlink_to(folder / "nowhere")
    (folder / "notes.txt").write_text("not looked at")
    read = read_directory(folder, cache_dir=cache_dir)
    names = [path.name for path in read.paths]
    assert names == ["LOUD.MIDI", "tune000.mid", "tune001.mid"]
    bad = {"empty.mid", "text.mid", "cut.mid", "silent.mid", "gone.mid"}
    assert {path.name for path in read.skipped} == bad
    for path, reason in read.skipped.items():
        assert str(path) in reason
    assert "holds no note" in read.skipped[folder / "silent.mid"]
    assert "8/8" in capsys.readouterr().out
    assert "5 skipped" in str(read)
    with pytest.raises(midi.MIDIError, match=r"cut\.mid"):
        read_directory(folder, cache_dir=cache_dir, errors="raise", verbose=0)


def test_chance_is_not_kept(tmp_path, cache_dir):
    """Another reading is another draw, unless a seed says which."""
    write_tunes(tmp_path, 1)

    def draws(**options):
        arguments = {"verbose": 0, "cache_dir": cache_dir, **options}
        return {
            read_directory(tmp_path, transpose="random", **arguments).rolls.packed[0]
            for _ in range(12)
        }

    assert len(draws(seed=3)) == 1
    assert len(draws()) > 1


def test_bad_folders(tmp_path, cache_dir):
    with pytest.raises(ValueError, match="is not a folder"):
        read_directory(tmp_path / "none")
    with pytest.raises(ValueError, match="holds no MIDI file"):
        read_directory(tmp_path)
    (tmp_path / "bad.mid").write_bytes(b"MThd")
    with pytest.raises(ValueError, match="None of the 1 MIDI files"):
        read_directory(tmp_path, verbose=0, cache_dir=cache_dir)
    for arguments, message in (
        ({"errors": "ignore"}, "`errors` must be"),
        ({"workers": 0}, "`workers` must be"),
        ({"velocity": True}, "one by one"),
        ({"start": "end"}, "`start` must be"),
    ):
        with pytest.raises(ValueError, match=message):
            read_directory(tmp_path, **arguments)
    with pytest.raises(TypeError, match="tempo"):
        read_directory(tmp_path, tempo=3)


def test_unreadable_folders(tmp_path, cache_dir, monkeypatch):
    """A folder that may not be listed ends it; one inside is reported."""
    write_tunes(tmp_path, 1)
    (tmp_path / "closed").mkdir()
    listed = os.scandir

    def scandir(path):
        # What the system does to anyone but root, whom no permission stops.
        if os.fspath(path) == str(closed):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    closed = tmp_path / "closed"
    folder = read_directory(tmp_path, verbose=0, cache_dir=cache_dir)
    assert folder.paths == [tmp_path / "tune000.mid"]
    assert "Permission denied" in folder.skipped[closed]
    with pytest.raises(ValueError, match="cannot be read: Permission denied"):
        read_directory(closed)


def test_cache_is_by_content_and_options(tmp_path, cache_dir, parsed):
    folder = tmp_path / "music"
    rolls = write_tunes(folder, 3)

    def read(**options):
        parsed.clear()
        found = read_directory(folder, verbose=0, cache_dir=cache_dir, **options)
        return found, sorted(parsed)

    first, files = read()
    assert files == ["tune000.mid", "tune001.mid", "tune002.mid"]
    again, files = read()
    assert files == []
    for some in (first, again):
        for found, roll in zip(some.rolls, rolls, strict=True):
            np.testing.assert_array_equal(found, roll)
    _, files = read(engine="pretty_midi")
    assert files == [], "parsers agree"
    _, files = read(steps_per_quarter=3)
    assert len(files) == 3
    (folder / "tune001.mid").rename(folder / "moved.mid")
    midi.write(rolls[0][:3], folder / "tune002.mid")
    changed, files = read()
    assert files == ["tune002.mid"]
    assert changed.rolls.lengths == [len(rolls[1]), len(rolls[0]), 3]
    _, files = read(cache=False)
    assert len(files) == 3


@pytest.mark.parametrize("what", ["no database", "no folder"])
def test_a_cache_that_fails_stops_nothing(tmp_path, cache_dir, caplog, what):
    folder = tmp_path / "music"
    write_tunes(folder, 2)
    if what == "no folder":
        cache_dir.write_text("a file")
    else:
        cache_dir.mkdir()
        (cache_dir / "midi_rolls.sqlite").write_text("this is no database at all" * 99)
    read = read_directory(folder, verbose=0, cache_dir=cache_dir)
    assert len(read.paths) == 2
    assert "cannot be kept" in caplog.text


def test_interrupted_reading_keeps_what_it_has(
    tmp_path, cache_dir, monkeypatch, parsed
):
    folder = tmp_path / "music"
    write_tunes(folder, 4)
    spied = midi.parse

    def interrupt(path, *arguments):
        if "tune002" in os.fspath(path):
            raise KeyboardInterrupt
        return spied(path, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(midi, "parse", interrupt)
        with pytest.raises(KeyboardInterrupt):
            read_directory(folder, verbose=0, cache_dir=cache_dir)
    parsed.clear()
    assert len(read_directory(folder, verbose=0, cache_dir=cache_dir).paths) == 4
    assert parsed == ["tune002.mid", "tune003.mid"]


@pytest.fixture
def two_workers(monkeypatch):
    counts = dict.fromkeys(midi_directory.FILES_A_PROCESS, 1)
    monkeypatch.setattr(midi_directory, "FILES_A_PROCESS", counts)
    return {"workers": 2, "verbose": 0}


def test_processes_give_the_same(tmp_path, two_workers, parsed):
    rolls = write_tunes(tmp_path, 30)
    (tmp_path / "a.mid").write_bytes(b"MThd")
    (tmp_path / "nöt \udcff.mid").write_bytes(b"")
    read = read_directory(tmp_path, cache=False, **two_workers)
    assert parsed == [], "nothing was parsed here"
    assert len(read.skipped) == 2
    for found, roll in zip(read.rolls, rolls, strict=True):
        np.testing.assert_array_equal(found, roll)


def test_a_parser_that_dies_takes_one_file_with_it(tmp_path, two_workers, monkeypatch):
    """As a fault in a parser in C++ would: the process ends without a word."""
    write_tunes(tmp_path, 12)
    start = midi_directory._Worker._start

    def with_fault(self):
        start(self)
        send = self._send

        def send_or_kill(message):
            if "tune005" in message:
                self.process.send_signal(signal.SIGSEGV)
            send(message)

        self._send = send_or_kill

    monkeypatch.setattr(midi_directory._Worker, "_start", with_fault)
    read = read_directory(tmp_path, cache=False, **two_workers)
    assert 1 <= len(read.skipped) <= 2  # each process meets the fault at most once
    for reason in read.skipped.values():
        assert "brought its parser down" in reason
    assert len(read.paths) + len(read.skipped) == 12


def test_processes_that_do_not_start(tmp_path, two_workers, monkeypatch):
    write_tunes(tmp_path, 3)
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="did not start"):
        read_directory(tmp_path, cache=False, **two_workers)


def test_workers_do_not_load_keras():
    """What makes them start in a moment."""
    script = (
        "import sys; from importlib import util;"
        "spec = util.spec_from_file_location('w', sys.argv[1]);"
        "w = util.module_from_spec(spec); spec.loader.exec_module(w);"
        "w.import_light(sys.argv[2]);"
        "assert not {'keras', 'tensorflow'} & set(sys.modules)"
    )
    import keras_gated
    from keras_gated.datasets import midi_worker

    package = os.path.dirname(keras_gated.__file__)
    subprocess.run(
        [sys.executable, "-c", script, midi_worker.__file__, package], check=True
    )


def lengths(dataset):
    return sorted(
        int(w.sum()) for _, _, ws in dataset.as_numpy_iterator() for w in ws if w.any()
    )


def test_dataset_and_its_splits(tmp_path, cache_dir, capsys):
    rolls = write_tunes(tmp_path, 10)
    midi.write(rolls[0][-1:], tmp_path / "short.mid")

    def dataset(**arguments):
        return midi_dataset_from_directory(tmp_path, cache_dir=cache_dir, **arguments)

    whole = dataset(batch_size=4)
    assert lengths(whole) == sorted(len(roll) - 1 for roll in rolls)
    assert len(whole.file_paths) == 10
    assert "has one step" in whole.folder.skipped[tmp_path / "short.mid"]
    assert "11 MIDI files read" in capsys.readouterr().out
    split = {"validation_split": 0.3, "seed": 4, "verbose": 0}
    train, valid = dataset(**split, subset="both")
    assert (len(train.file_paths), len(valid.file_paths)) == (7, 3)
    assert not {*train.file_paths} & {*valid.file_paths}
    for name, part in (("training", train), ("validation", valid)):
        alone = dataset(**split, subset=name)
        assert alone.file_paths == part.file_paths
        assert lengths(alone) == lengths(part)
    windows = dataset(sequence_length=5, verbose=0)
    assert max(lengths(windows)) == 5
    in_order = dataset(shuffle=False, validation_split=0.2, subset="both", verbose=0)
    assert [path.name for path in in_order[1].file_paths] == [
        "tune008.mid",
        "tune009.mid",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"validation_split": 0.2}, "go together"),
        ({"subset": "both"}, "go together"),
        ({"validation_split": 1, "subset": "both"}, "between 0 and 1"),
        ({"validation_split": 0.2, "subset": "test"}, "`subset` must be one of"),
        ({"validation_split": 0.2, "subset": "training"}, "give a `seed`"),
        (
            {"validation_split": 0.1, "subset": "both"},
            "No music is left for validation",
        ),
    ],
)
def test_bad_splits(tmp_path, cache_dir, arguments, message):
    write_tunes(tmp_path, 3)
    with pytest.raises(ValueError, match=message):
        midi_dataset_from_directory(
            tmp_path, cache_dir=cache_dir, verbose=0, **arguments
        )


def test_two_readers_at_once_share_the_cache(tmp_path, cache_dir):
    """Neither waits for the other's end nor spoils its rolls."""
    rolls = write_tunes(tmp_path / "music", 40)
    script = (
        "import sys; from keras_gated.datasets.midi_directory import read_directory;"
        "read = read_directory(sys.argv[1], cache_dir=sys.argv[2], verbose=0);"
        "print(sum(read.rolls.lengths))"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "music"), str(cache_dir)]
    runs = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for run in runs:
        assert int(run.communicate(timeout=120)[0]) == sum(map(len, rolls))
    with contextlib.closing(sqlite3.connect(cache_dir / "midi_rolls.sqlite")) as kept:
        assert kept.execute("SELECT COUNT(*) FROM rolls").fetchone() == (40,)


def test_a_model_trains_on_it(tmp_path, cache_dir):
    import keras

    import keras_gated
    from keras_gated import losses, metrics

    write_tunes(tmp_path, 6)
    train = midi_dataset_from_directory(tmp_path, cache_dir=cache_dir, verbose=0)
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((None, piano_roll.KEYS)),
            keras_gated.GRU(8, return_sequences=True),
            keras.layers.Dense(piano_roll.KEYS),
        ]
    )
    model.compile("adam", losses.BernoulliNLL(), weighted_metrics=[metrics.FrameNLL()])
    history = model.fit(train, epochs=3, verbose=0).history
    began, *_, ended = history["frame_nll"]
    assert ended < began
