"""Folders of MIDI files."""

import contextlib
import os
import sqlite3
import subprocess
import sys

import numpy as np
import pretty_midi
import pytest
from midi_bytes import LONG

from keras_gated.datasets import (
    midi,
    midi_dataset_from_directory,
    midi_directory,
    piano_roll,
    store,
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
    """The files that were really parsed, in this process (with workers=1)."""
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
    printed = capsys.readouterr().out
    assert "7/7" in printed
    assert "5 skipped" in printed
    assert "skipped: not a file" in printed
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
        arguments = {"workers": 1, "verbose": 0, "cache_dir": cache_dir, **options}
        return read_directory(folder, **arguments), sorted(parsed)

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


@pytest.mark.parametrize("which", ["a byte of a roll", "a number beside it"])
def test_rolls_that_were_changed_are_read_anew(
    tmp_path, cache_dir, parsed, caplog, which
):
    rolls = write_tunes(tmp_path / "music", 3)
    options = {"workers": 1, "verbose": 0, "cache_dir": cache_dir}
    read_directory(tmp_path / "music", **options)
    if which == "a byte of a roll":
        data = bytearray((cache_dir / "midi_rolls.data").read_bytes())
        data[-1] ^= 1
        (cache_dir / "midi_rolls.data").write_bytes(data)
    else:
        kept = sqlite3.connect(cache_dir / "midi_rolls.sqlite", isolation_level=None)
        with contextlib.closing(kept):
            about = '["x", 0, 0, 9, []]'
            kept.execute("UPDATE entries SET about = ? WHERE size", (about,))
    parsed.clear()
    read = read_directory(tmp_path / "music", **options)
    assert read.unreleased_notes == 0
    for found, roll in zip(read.rolls, rolls, strict=True):
        np.testing.assert_array_equal(found, roll)
    assert len(parsed) == (1 if which == "a byte of a roll" else 3)
    assert "is damaged and is made anew" in caplog.text


def test_the_bytes_that_are_kept_are_those_that_were_read(
    tmp_path, cache_dir, monkeypatch
):
    """A file that changes while it is read is never kept as what it is now."""
    old, new = write_tunes(tmp_path / "new", 2, steps=9)
    path = tmp_path / "music" / "tune.mid"
    midi.write(old, path)

    def read_and_change(path):
        content = read_bytes(path)
        midi.write(new, path)
        return content

    read_bytes = midi_directory.read_bytes
    options = {"verbose": 0, "cache_dir": cache_dir}
    with monkeypatch.context() as patch:
        patch.setattr(midi_directory, "read_bytes", read_and_change)
        before = read_directory(tmp_path / "music", **options)
    after = read_directory(tmp_path / "music", **options)
    np.testing.assert_array_equal(before.rolls[0], old)
    np.testing.assert_array_equal(after.rolls[0], new)


def test_interrupted_reading_keeps_what_it_has(
    tmp_path, cache_dir, monkeypatch, parsed
):
    folder = tmp_path / "music"
    options = {"workers": 1, "verbose": 0, "cache_dir": cache_dir}
    write_tunes(folder, 4)
    spied = midi.parse

    def interrupt(path, *arguments):
        if "tune002" in os.fspath(path):
            raise KeyboardInterrupt
        return spied(path, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(midi, "parse", interrupt)
        with pytest.raises(KeyboardInterrupt):
            read_directory(folder, **options)
    parsed.clear()
    assert len(read_directory(folder, **options).paths) == 4
    assert parsed == ["tune002.mid", "tune003.mid"]


def test_processes_give_the_same(tmp_path, parsed):
    rolls = write_tunes(tmp_path, 30)
    (tmp_path / "a.mid").write_bytes(b"MThd")
    (tmp_path / "nöt \udcff.mid").write_bytes(b"")
    read = read_directory(tmp_path, cache=False, workers=2, verbose=0)
    assert parsed == [], "nothing was parsed here"
    assert len(read.skipped) == 2
    for found, roll in zip(read.rolls, rolls, strict=True):
        np.testing.assert_array_equal(found, roll)


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ({"parse_seconds": 0.01}, "longer than 0.01 seconds"),
        pytest.param(
            {"parse_memory": 256},
            "more than 256 MiB",
            marks=pytest.mark.skipif(sys.platform != "linux", reason="of Linux"),
        ),
    ],
)
@pytest.mark.parametrize("read", [read_directory, midi_dataset_from_directory])
def test_limits_of_a_folder_name_the_file(tmp_path, cache_dir, limit, reason, read):
    """To load the parser takes longer, too."""
    (tmp_path / "long.mid").write_bytes(LONG)
    options = {"verbose": 0, "cache_dir": cache_dir, "engine": "pretty_midi"}
    options |= {"max_steps": None, "max_seconds": None, "errors": "raise"}
    options["steps_per_quarter"] = 24
    with pytest.raises(midi.MIDIError, match=reason) as error:
        read(tmp_path, **limit, **options)
    assert "long.mid" in str(error.value)


@pytest.mark.parametrize(
    "limit", [{"parse_seconds": 0}, {"parse_memory": 255}, {"parse_memory": 0.5}]
)
def test_limits_are_checked(tmp_path, limit):
    with pytest.raises(ValueError, match=f"`{next(iter(limit))}` must be"):
        read_directory(tmp_path, **limit)


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
    assert "has one step" in whole.corpus.skipped[tmp_path / "short.mid"]
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
    groups = dataset(**split, subset="both", groups=lambda path: int(path.stem[4:]) % 3)
    of = [{int(path.stem[4:]) % 3 for path in part.file_paths} for part in groups]
    assert not of[0] & of[1]
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
        ({"validation_split": 1, "subset": "both"}, "above 0 and below 1"),
        ({"validation_split": 0.2, "subset": "test"}, "`subset` must be"),
        ({"validation_split": 0.2, "subset": "training"}, "give a `seed`"),
        (
            {"validation_split": 0.1, "subset": "both", "groups": lambda path: 1},
            "There is 1 group, and each of two parts needs one",
        ),
        ({"labels": "inferred"}, "`labels` must be None: the targets are the next"),
        ({"label_mode": "int"}, "`label_mode` must be None"),
        ({"class_names": ["a"]}, "`class_names` must be None"),
        ({"batch_size": None}, "`batch_size` must be a positive integer"),
    ],
)
def test_bad_splits(tmp_path, cache_dir, arguments, message):
    write_tunes(tmp_path, 3)
    with pytest.raises(ValueError, match=message):
        midi_dataset_from_directory(
            tmp_path, cache_dir=cache_dir, verbose=0, **arguments
        )


@pytest.mark.slow
def test_two_scripts_at_once_share_the_cache_and_need_no_guard(tmp_path, cache_dir):
    """Neither waits for the other's end nor spoils its rolls.

    Their processes do not run the script that started them.
    """
    rolls = write_tunes(tmp_path / "music", 40)
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from keras_gated.datasets import midi_directory\n"
        "print('the script runs')\n"
        "folder, cache_dir = sys.argv[1:]\n"
        'options = {"cache_dir": cache_dir, "verbose": 0, "workers": 2}\n'
        "read = midi_directory.read_directory(folder, **options)\n"
        "print(sum(read.rolls.lengths))\n"
    )
    runs = [
        subprocess.Popen(
            [sys.executable, script, tmp_path / "music", cache_dir],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "KERAS_BACKEND": "jax"},  # which loads sooner
        )
        for _ in range(2)
    ]
    for run in runs:
        printed = run.communicate(timeout=120)[0].splitlines()
        assert printed == ["the script runs", str(sum(map(len, rolls)))]
    with contextlib.closing(sqlite3.connect(cache_dir / "midi_rolls.sqlite")) as kept:
        entries = kept.execute("SELECT key FROM entries").fetchall()
    assert len({key for (key,) in entries} - {store.END}) == 40


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
