"""What time and key signatures say about steps, and the batches that hold it."""

import itertools
from pathlib import Path

import mido
import numpy as np
import pytest

from keras_gated.datasets import (
    midi,
    midi_dataset_from_directory,
    midi_directory,
    piano_roll,
)

pretty_midi = pytest.importorskip("pretty_midi")
NOTTINGHAM = Path(__file__).parents[4] / "shared" / "data" / "nottingham_midi"
BOTH = ("meter", "key")
QUARTER = 96


def write_file(path, meters=(), keys=(), quarters=24, pitch=62):
    """A file of quarter notes; meters and keys begin at quarters."""
    file = mido.MidiFile(ticks_per_beat=QUARTER)
    track = file.add_track()
    events = [
        (at, mido.MetaMessage("time_signature", numerator=over, denominator=under))
        for at, over, under in meters
    ]
    events += [(at, mido.MetaMessage("key_signature", key=key)) for at, key in keys]
    for at in range(quarters):
        events.append((at, mido.Message("note_on", note=pitch, velocity=64)))
        events.append((at + 1, mido.Message("note_off", note=pitch, velocity=64)))
    now = 0
    for at, message in sorted(
        events, key=lambda event: (event[0], event[1].type == "note_on")
    ):
        track.append(message.copy(time=(at - now) * QUARTER))
        now = at
    path.parent.mkdir(exist_ok=True)
    file.save(path)
    return path


def check_bars(path, steps_per_quarter):
    """The bars are those of pretty_midi, where the grid has lines at them."""
    score = midi.read_score(path)
    columns = score.features(["meter"], steps_per_quarter).T
    peer = pretty_midi.PrettyMIDI(str(path))
    step = score.ticks_per_quarter / steps_per_quarter
    lines = [peer.time_to_tick(time) / step for time in peer.get_downbeats()]
    assert all(abs(line - round(line)) < 0.02 for line in lines)
    lines = [round(line) for line in lines if round(line) < columns.shape[1]]
    np.testing.assert_array_equal(np.flatnonzero(columns[4]), lines)
    # By hand: the phases grow evenly from a bar line to the next.
    for first, after in itertools.pairwise(lines):
        steps = after - first
        if round(4 * columns[5][first] * steps_per_quarter) != steps:
            continue  # a bar that a time signature cuts short
        part = np.arange(steps) / steps
        bar = columns[:2, first:after]
        np.testing.assert_allclose(
            bar, [np.cos(2 * np.pi * part), np.sin(2 * np.pi * part)], atol=1e-6
        )
        part = np.arange(steps) / steps_per_quarter
        beat = columns[2:4, first:after]
        np.testing.assert_allclose(
            beat, [np.cos(2 * np.pi * part), np.sin(2 * np.pi * part)], atol=1e-5
        )


def test_bars_are_those_of_pretty_midi(tmp_path):
    meters = [(0, 3, 4), (6, 6, 8), (12, 4, 4), (20, 2, 2)]
    path = write_file(tmp_path / "meters.mid", meters, quarters=30)
    for steps_per_quarter in (2, 4):
        check_bars(path, steps_per_quarter)


@pytest.mark.skipif(not NOTTINGHAM.is_dir(), reason=f"no MIDI files in {NOTTINGHAM}")
def test_bars_of_real_tunes_are_those_of_pretty_midi():
    for path in sorted(NOTTINGHAM.rglob("*.mid"))[::200]:
        check_bars(path, 4)


def test_keys_move_with_the_music(tmp_path):
    """D major, then B minor; nothing where no key is said."""
    path = write_file(tmp_path / "keys.mid", keys=[(4, "D"), (8, "Bm")])
    for transpose, tonics in ((0, (2, 11)), (3, (5, 2)), ("C", (0, 9))):
        reading = midi.read_all(
            path, midi.Options(1, transpose=transpose, features=["key"])
        )
        columns = reading.features
        assert columns.shape == (24, 13)
        assert columns.dtype == np.float32
        assert not columns[:4].any()
        for tonic, minor, part in zip(
            tonics, (0, 1), (columns[4:8], columns[8:]), strict=True
        ):
            assert (part[:, tonic] == 1).all()
            assert (part[:, :12].sum(1) == 1).all()
            assert (part[:, 12] == minor).all()
    silent = write_file(tmp_path / "none.mid")
    assert not midi.read_all(silent, midi.Options(features=["key"])).features.any()


def test_steps_that_do_not_exist_yet(tmp_path):
    """A continuation has the features that a longer piece has; a cut leaves out."""
    signatures = {"meters": [(0, 3, 4)], "keys": [(0, "G")]}
    short, long = (
        midi.read_score(write_file(tmp_path / f"{n}.mid", quarters=n, **signatures))
        for n in (7, 40)
    )
    expected = long.features(BOTH, 2)
    np.testing.assert_array_equal(short.features(BOTH, 2, steps=80), expected)
    np.testing.assert_array_equal(
        midi.step_features(BOTH, 80, 2, meters=[(0, 3, 4)], keys=[(0, 7)]), expected
    )
    changed = [(0, 3, 4), (6, 4, 4)]
    cut = write_file(tmp_path / "cut.mid", changed, [(0, "G"), (6, "Am")], 40)
    cut = midi.read_score(cut)
    np.testing.assert_array_equal(
        cut.features(BOTH, 2, before=6 * QUARTER, steps=80), expected
    )
    assert (cut.features(BOTH, 2) != expected).any()


def test_start_and_clock(tmp_path):
    file = write_file(tmp_path / "late.mid", [(0, 3, 4)])
    whole = midi.read_all(file, midi.Options(2, features=BOTH))
    late = pretty_midi.PrettyMIDI(str(file))
    late.instruments[0].notes = late.instruments[0].notes[2:]
    late.write(str(tmp_path / "late.mid"))
    begun = midi.read_all(file, midi.Options(2, features=BOTH, start="first_note"))
    np.testing.assert_array_equal(begun.features, whole.features[4:])
    assert len(begun.roll) == len(begun.features)
    with pytest.raises(ValueError, match="not the clock; leave out"):
        midi.Options(step_seconds=0.1, features=["meter"])
    for wrong in ("meter", ["tempo"], ["key", "key"]):
        with pytest.raises(ValueError, match="`features` must be a list of 'meter'"):
            midi.Options(features=wrong)


def test_signatures_that_are_none():
    for meters in ([(4, 3, 4)], [(0, 0, 4)], [(0, 3, 4), (0, 4, 4)], [(0, 3)], []):
        with pytest.raises(ValueError, match="`meters` must be rows of a tick, num"):
            midi.step_features(["meter"], 4, meters=meters)
    for keys in ([(0, 24)], [(-1, 2)], [(0, 2.5)]):
        with pytest.raises(ValueError, match="`keys` must be rows of a tick and a key"):
            midi.step_features(["key"], 4, keys=keys)
    with pytest.raises(ValueError, match=r"read with `midi\.read_all`"):
        midi.read("none.mid", features=["key"])


def test_folders_and_their_cache(tmp_path):
    """With one process and two, parsed and kept, beside the rolls of each file."""
    folder = tmp_path / "music"
    paths = [
        write_file(
            folder / f"{k}.mid", [(0, k + 2, 4)], [(0, key)] if key else [], 12 + k
        )
        for k, key in enumerate(["C", "Dm", None])
    ]
    options = {"steps_per_quarter": "auto", "onsets": True, "features": BOTH}
    for workers in (1, 2, 1, 2):
        common = {"cache_dir": tmp_path / f"cache{workers}", "verbose": False}
        corpus = midi_directory.read_directory(
            folder, workers=workers, transpose=1, **common, **options
        )
        assert corpus.steps_per_quarter == 1
        assert corpus.stated == {"meter": 3, "key": 2}
        for path, roll, features in zip(
            paths, corpus.rolls, corpus.features, strict=True
        ):
            alone = midi.read_all(path, midi.Options(1, transpose=1, onsets=True))
            np.testing.assert_array_equal(roll, alone.roll)
            score = midi.read_score(path)
            np.testing.assert_array_equal(
                features, score.features(BOTH, 1, semitones=1)
            )
        plain = midi_directory.read_directory(folder, workers=workers, **common)
        assert plain.features is None

    train, valid = midi_dataset_from_directory(
        folder,
        batch_size=4,
        seed=1,
        validation_split=0.4,
        subset="both",
        random_transpose=True,
        teacher_forcing=True,
        cache=False,
        verbose=False,
        **options,
    )
    for data, transposed in ((train, True), (valid, False)):
        for path in data.file_paths:
            roll, features = (
                sequence[corpus.paths.index(path)]
                for sequence in (corpus.rolls, corpus.features)
            )
            found = []
            for (frames, following, about), targets, weights in data:
                np.testing.assert_array_equal(following, targets)
                for row in np.flatnonzero(weights.numpy().sum(1) == len(roll) - 1):
                    steps = len(roll) - 1
                    found.append((frames[row, :steps], about[row, :steps]))
            ((frames, about),) = found
            moved = int(frames.numpy()[0].argmax() - roll[0].argmax())
            assert transposed or moved == -1  # the corpus is a semitone higher
            expected = features[1:].copy()
            expected[:, 6:18] = np.roll(expected[:, 6:18], moved, axis=1)
            np.testing.assert_array_equal(about, expected)


def test_features_are_those_of_the_predicted_step():
    """Whatever they are, in windows too, and nothing where there is no step."""
    lengths = [7, 4, 2]
    rolls = [np.eye(88, dtype=np.uint8)[:n] for n in lengths]
    features = [np.arange(n)[:, None] + 100 * i for i, n in enumerate(lengths)]
    data = piano_roll.next_step_dataset(rolls, 2, sequence_length=3, features=features)
    seen = []
    for (inputs, about), targets, weights in data.as_numpy_iterator():
        assert about.shape == (*weights.shape, 1)
        assert not about[weights == 0].any()
        there = weights > 0
        step = about[there][:, 0] % 100
        np.testing.assert_array_equal(targets[there].argmax(1), step)
        np.testing.assert_array_equal(inputs[there].argmax(1), step - 1)
        seen += about[there][:, 0].tolist()
    assert sorted(seen) == [*range(1, 7), *range(101, 104), 201]


@pytest.mark.parametrize(
    ("features", "tonic", "message"),
    [
        ([np.ones((3, 2))], None, "must hold an array"),
        ([np.ones((3, 2)), np.ones((5, 2))], None, r"T = 3, 4. Received: .*\(5, 2\)"),
        ([np.ones((3, 2)), np.ones((4, 3))], None, r"\(4, 3\)"),
        ([np.ones((3, 2)), np.full((4, 2), np.nan)], None, "finite"),
        ([np.ones((3, 13)), np.ones((4, 13))], 2, "`tonic` must be"),
    ],
)
def test_features_that_do_not_match(features, tonic, message):
    rolls = [np.ones((3, 88)), np.ones((4, 88))]
    with pytest.raises(ValueError, match=message):
        piano_roll.next_step_dataset(rolls, features=features, tonic=tonic)
