"""Rolls that tell repeated notes from held ones."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_gated.datasets import (
    midi,
    midi_dataset_from_directory,
    midi_directory,
    piano_roll,
)

NOTTINGHAM = Path(__file__).parents[4] / "shared" / "data" / "nottingham_midi"
ENGINES = ("pretty_midi", "symusic")


@st.composite
def tunes(draw):
    """Notes on the grid; those of a key do not overlap, and many touch."""
    notes = []
    for pitch in draw(st.sets(st.integers(30, 100), min_size=1, max_size=4)):
        at = 0
        for _ in range(draw(st.integers(1, 6))):
            start = at + draw(st.sampled_from([0, 0, 0, 1, 3]))
            at = start + draw(st.integers(1, 4))
            notes.append([start, at, pitch])
    return np.array(sorted(notes, key=lambda note: (note[0], note[2])))


def roll_of(notes):
    return piano_roll.with_onsets(*piano_roll.from_notes(notes, 1, onsets=True))


def repeated(count, pitch=60):
    """A key that is struck in each step."""
    return [(step, step + 1, pitch) for step in range(count)]


@given(tunes(), st.integers(-5, 5))
def test_notes_and_back(notes, semitones):
    """The identity, also packed and transposed; and every state in one way."""
    roll = roll_of(notes)
    assert roll.shape == (notes[:, 1].max(), 176)
    np.testing.assert_array_equal(piano_roll.to_notes(roll), notes)
    (unpacked,) = piano_roll.PackedRolls([piano_roll.pack(roll)], onsets=True)
    np.testing.assert_array_equal(unpacked, roll)
    moved = piano_roll.transpose(roll, semitones)
    np.testing.assert_array_equal(
        piano_roll.to_notes(moved), np.add(notes, [0, 0, semitones])
    )
    keys, again = piano_roll.halves(roll)
    before = np.pad(keys, ((1, 0), (0, 0)))[:-1]
    assert not (again & ~(keys & before)).any()
    np.testing.assert_array_equal(keys, piano_roll.from_notes(notes, 1))


@settings(max_examples=20, deadline=None)
@given(tunes())
def test_files_and_back(tmp_path_factory, notes):
    roll = roll_of(notes)
    path = tmp_path_factory.getbasetemp() / "repeated.mid"
    midi.write(roll, path, 4)
    plain = piano_roll.from_notes(notes, 1)
    for engine in ENGINES:
        options = midi.Options(4, onsets=True, engine=engine)
        np.testing.assert_array_equal(midi.read_all(path, options).roll, roll)
        np.testing.assert_array_equal(midi.read(path, 4, engine=engine), plain)


def test_velocities_and_silence_before_the_first_note(tmp_path):
    midi.write(roll_of([(3, 4, 60), (4, 6, 60)]), tmp_path / "late.mid")
    options = midi.Options(onsets=True, velocity=True, start="first_note")
    roll = midi.read_all(tmp_path / "late.mid", options).roll
    assert roll[:, [39, 88 + 39]].tolist() == [[80, 0], [80, 1], [80, 0]]


@pytest.mark.skipif(not NOTTINGHAM.is_dir(), reason=f"no MIDI files in {NOTTINGHAM}")
def test_nottingham_keeps_its_notes():
    for path in sorted(NOTTINGHAM.rglob("*.mid"))[::100]:
        reading = midi.read_all(path, midi.Options(4, onsets=True))
        notes = int(reading.onsets.sum())
        assert len(piano_roll.to_notes(reading.roll)) == notes, path
        assert len(piano_roll.to_notes(reading.roll[:, :88])) <= notes


@pytest.mark.parametrize("random_transpose", [False, True])
def test_batches(random_transpose):
    """Both halves move by the same number of keys, and predict the next step."""
    rolls = [roll_of(repeated(6)), roll_of([(0, 2, 60), (2, 4, 60)])] * 20
    data = piano_roll.next_step_dataset(
        piano_roll.PackedRolls(map(piano_roll.pack, rolls), onsets=True),
        8,
        random_transpose=random_transpose,
        seed=1,
    )
    played = set()
    for inputs, targets, weights in data.as_numpy_iterator():
        for frames, following, weight in zip(inputs, targets, weights, strict=True):
            steps = int(weight.sum())
            roll = np.concatenate([frames[:1], following[:steps]])
            semitones = roll[0].argmax() - 39
            np.testing.assert_array_equal(
                piano_roll.transpose(roll, -semitones), rolls[0 if steps == 5 else 1]
            )
            np.testing.assert_array_equal(frames[1:steps], following[: steps - 1])
            played.add(int(semitones))
    assert played == ({*range(-5, 7)} if random_transpose else {0})


def test_rolls_of_two_widths_do_not_go_together():
    roll = roll_of(repeated(3))
    with pytest.raises(ValueError, match=r"rolls\[1\] with 88"):
        piano_roll.next_step_dataset([roll, roll[:, :88]])
    with pytest.raises(ValueError, match=r"\[T, 88\], or \[T, 176\] with onsets"):
        piano_roll.to_notes(roll[:, :100])


def test_folders_and_their_cache(tmp_path):
    """With one process and two, parsed and kept; other options have other rolls."""
    rolls = [roll_of([*repeated(4 + k), (0, 3, 70)]) for k in range(4)]
    for k, roll in enumerate(rolls):
        midi.write(roll, tmp_path / "music" / f"{k}.mid")

    def read(workers, **options):
        common = {"cache_dir": tmp_path / f"cache{workers}", "verbose": False}
        return midi_directory.read_directory(
            tmp_path / "music", workers=workers, **common, **options
        ).rolls

    for workers in (1, 2, 1, 2):
        found = read(workers, onsets=True)
        assert found.lengths == [4, 5, 6, 7]
        assert all(map(np.array_equal, found, rolls))
        plain = read(workers)
        assert all(map(np.array_equal, plain, (roll[:, :88] for roll in rolls)))
    data = midi_dataset_from_directory(
        tmp_path / "music",
        batch_size=4,
        onsets=True,
        teacher_forcing=True,
        verbose=False,
        cache=False,
    )
    ((frames, following), targets, _) = next(data.as_numpy_iterator())
    assert frames.shape[-1] == 176
    np.testing.assert_array_equal(following, targets)


def test_files_go_on_with_repeated_notes(tmp_path):
    """Repeated notes are notes of the file; a kept voice says where it repeats."""
    midi.write(roll_of(repeated(4)), tmp_path / "bar.mid", 1)
    piece = midi.read_piece(tmp_path / "bar.mid")
    seam = midi.find_seam(piece, 1, bars=1)
    added = roll_of([(0, 1, 62), (1, 3, 62), (3, 4, 62)])
    midi.continue_piece(piece, added, seam, tmp_path / "two.mid", 1)
    both = midi.read_all(tmp_path / "two.mid", midi.Options(1, onsets=True))
    expected = [*map(list, repeated(4)), [4, 5, 62], [5, 7, 62], [7, 8, 62]]
    assert piano_roll.to_notes(both.roll).tolist() == expected

    fixed = midi.fixed_roll(piece, piece.voices, 1, semitones=2, onsets=True)
    assert fixed.shape == (4, 176)
    assert fixed[:, [41, 88 + 41]].tolist() == [[1, 0], [1, 1], [1, 1], [1, 1]]
    np.testing.assert_array_equal(
        fixed[:, :88], midi.fixed_roll(piece, piece.voices, 1, semitones=2)
    )
    fixed = midi.fixed_roll(piece, piece.voices, 1, onsets=True)
    free = fixed[:, :88] == -1
    assert (fixed[1:, 88:][free[1:]] == -1).all()
    assert (fixed[0, 88:][free[0]] == 0).all()  # there was silence before
    midi.replace_voices(piece, added, piece.voices, tmp_path / "new.mid", 1)
    new = midi.read_all(tmp_path / "new.mid", midi.Options(1, onsets=True))
    np.testing.assert_array_equal(new.roll, added)


def test_picture():
    """Thin lines part the notes, and the keys are drawn as ever."""
    roll = roll_of(repeated(3))
    axes = piano_roll.plot(roll)
    (lines,) = axes.collections
    assert [segment[0].tolist() for segment in lines.get_segments()] == [
        [0.5, 59.5],
        [1.5, 59.5],
    ]
    assert axes.images[0].get_array().shape == (88, 3)
    assert not piano_roll.plot(roll[:, :88]).collections
