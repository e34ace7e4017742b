"""MIDI files to rolls and back, and folders with files that are none."""

import os
from pathlib import Path

import mido
import numpy as np
import pretty_midi
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_gated.datasets import midi, piano_roll

NOTTINGHAM = Path(__file__).parents[3] / "shared" / "data" / "nottingham_midi"


def by_mido(path, steps_per_quarter):
    """An independent reading, straight from the messages."""
    file = mido.MidiFile(path)
    beat = file.ticks_per_beat

    def q(x):
        return (2 * x * steps_per_quarter + beat) // (2 * beat)

    cells = set()
    for track in file.tracks:
        time, sounding = 0, {}
        for message in track:
            time += message.time
            if message.type not in ("note_on", "note_off") or message.channel == 9:
                continue
            key = (message.channel, message.note)
            for start in sounding.pop(key, []):
                cells |= {(t, message.note - 21) for t in range(q(start), q(time))}
            if message.type == "note_on" and message.velocity:
                sounding.setdefault(key, []).append(time)
    roll = np.zeros((1 + max(t for t, _ in cells), 88), np.uint8)
    roll[tuple(np.array(sorted(cells)).T)] = 1
    return roll


def write_example(path):
    """Two instruments, a change of tempo, drums that do not count."""
    music = pretty_midi.PrettyMIDI(resolution=220, initial_tempo=100)
    piano, drums = pretty_midi.Instrument(0), pretty_midi.Instrument(0, is_drum=True)
    for start, end, pitch in [(0, 1, 60), (1, 2.5, 64), (1, 1.1, 67), (3, 4, 21)]:
        piano.notes.append(pretty_midi.Note(90, pitch, start * 0.6, end * 0.6))
    drums.notes.append(pretty_midi.Note(90, 40, 0.0, 9.0))
    music.instruments += [piano, drums]
    music.write(str(path))
    # A tempo twice as fast from the second quarter on: the grid does not care.
    file = mido.MidiFile(path)
    file.tracks[0].insert(1, mido.MetaMessage("set_tempo", tempo=300_000, time=220))
    file.save(path)


def test_reads_on_the_grid_of_the_score(tmp_path):
    path = tmp_path / "example.mid"
    write_example(path)
    roll = midi.read(path, steps_per_quarter=2)
    expected = np.zeros((8, 88), np.uint8)
    expected[0:2, 60 - 21] = expected[2:5, 64 - 21] = expected[6:8, 0] = 1
    np.testing.assert_array_equal(roll, expected)
    for steps_per_quarter in (1, 2, 3, 4, 12):
        np.testing.assert_array_equal(
            midi.read(path, steps_per_quarter), by_mido(path, steps_per_quarter)
        )


@settings(max_examples=25, deadline=None)
@given(
    hnp.arrays(
        np.uint8, st.tuples(st.integers(1, 20), st.just(88)), elements=st.integers(0, 1)
    ),
    st.integers(1, 12),
    st.floats(20, 300),
)
def test_round_trip(tmp_path_factory, roll, steps_per_quarter, tempo):
    roll[-1, 40] = 1  # silence at the end has no note to keep it
    path = tmp_path_factory.mktemp("midi") / "roll.mid"
    midi.write(roll, path, steps_per_quarter, tempo)
    np.testing.assert_array_equal(midi.read(path, steps_per_quarter), roll)
    np.testing.assert_array_equal(by_mido(path, steps_per_quarter), roll)


def test_a_folder_with_files_that_are_none(tmp_path, capsys):
    (tmp_path / "sub").mkdir()
    write_example(tmp_path / "good.mid")
    write_example(tmp_path / "sub" / "GOOD.MIDI")
    (tmp_path / "empty.mid").write_bytes(b"")
    (tmp_path / "text.mid").write_text("this is no music")
    (tmp_path / "cut.mid").write_bytes((tmp_path / "good.mid").read_bytes()[:60])
    pretty_midi.PrettyMIDI().write(str(tmp_path / "silent.mid"))
    (tmp_path / "notes.txt").write_text("not looked at")
    rolls, skipped = midi.read_directory(tmp_path, verbose=0)
    assert [path.name for path in rolls] == ["good.mid", "GOOD.MIDI"]
    assert {p.name for p in skipped} == {
        *("empty.mid", "text.mid", "cut.mid", "silent.mid")
    }
    for path, reason in skipped.items():
        assert str(path) in reason
    assert "no note" in skipped[tmp_path / "silent.mid"]


def test_bad_folders(tmp_path):
    with pytest.raises(ValueError, match="is not a folder"):
        midi.read_directory(tmp_path / "none")
    with pytest.raises(ValueError, match="holds no MIDI file"):
        midi.read_directory(tmp_path)
    (tmp_path / "bad.mid").write_bytes(b"MThd")
    with pytest.raises(ValueError, match="None of the 1 MIDI files"):
        midi.read_directory(tmp_path, verbose=0)
    with pytest.raises(FileNotFoundError, match="There is no file"):
        midi.read(tmp_path / "absent.mid")


def test_unreadable_folders(tmp_path, monkeypatch):
    """A folder that may not be listed ends it; one inside is reported."""
    midi.write(np.ones((2, 88)), tmp_path / "good.mid")
    (tmp_path / "closed").mkdir()
    listed = os.scandir

    def scandir(path):
        # What the system does to anyone but root, whom no permission stops.
        if os.fspath(path) == str(closed):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    closed = tmp_path / "closed"
    rolls, skipped = midi.read_directory(tmp_path, verbose=0)
    assert list(rolls) == [tmp_path / "good.mid"]
    assert "Permission denied" in skipped[closed]
    with pytest.raises(ValueError, match="cannot be read: Permission denied"):
        midi.read_directory(closed)


@pytest.mark.parametrize("value", [0, -1, 1.5, None])
def test_bad_steps(tmp_path, value):
    for call in (
        lambda: midi.read("x.mid", value),
        lambda: midi.write(np.ones((2, 88)), "x.mid", value),
    ):
        with pytest.raises(ValueError, match="`steps_per_quarter` must be"):
            call()


def test_bad_rolls_leave_no_file(tmp_path):
    for roll in (np.ones((2, 87)), np.full((2, 88), 3)):
        with pytest.raises(ValueError, match="piano roll"):
            midi.write(roll, tmp_path / "roll.mid")
    with pytest.raises(ValueError, match="`tempo` must be positive"):
        midi.write(np.ones((2, 88)), tmp_path / "roll.mid", tempo=0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not NOTTINGHAM.is_dir(), reason=f"no MIDI files in {NOTTINGHAM}")
def test_real_files_equal_the_independent_reading():
    for path in sorted(NOTTINGHAM.glob("*.mid"))[::25]:
        np.testing.assert_array_equal(midi.read(path), by_mido(path, 2), str(path))


def test_picture_of_what_was_read(tmp_path):
    write_example(tmp_path / "example.mid")
    axes = piano_roll.plot(midi.read(tmp_path / "example.mid"))
    assert axes.get_xlim()[1] == 7.5
