"""The chorales: against music21's own MIDI export, the cache, the split."""

import sys

import numpy as np
import pretty_midi
import pytest

from keras_gated.datasets import bach_chorales

music21 = pytest.importorskip("music21", reason="the extra 'examples' is not installed")


@pytest.fixture(scope="session")
def works(chorales_home):
    return bach_chorales.load_notes(chorales_home, verbose=0)


@pytest.mark.parametrize(
    "number", ["2.6", "28.6", "40.8", "245.3", "248.5", "281", "366", "438"]
)
def test_equals_an_independent_reading(number, tmp_path):
    """The score exported to MIDI by music21, sampled in time by pretty_midi."""
    path = bach_chorales._score_path(music21, number)
    score = music21.converter.parse(path, forceSource=True)
    # Repeats are played once here, so the export must not unfold them either,
    # and one tempo makes time a measure of score position.
    for bar in score.recurse().getElementsByClass(music21.stream.Measure):
        for repeat in list(bar.getElementsByClass(music21.bar.Repeat)):
            bar.remove(repeat)
        for side in ("leftBarline", "rightBarline"):
            if isinstance(getattr(bar, side), music21.bar.Repeat):
                setattr(bar, side, None)
    for mark in list(score.recurse().getElementsByClass(music21.tempo.TempoIndication)):
        mark.activeSite.remove(mark)
    score.write("midi", tmp_path / "score.mid")
    music = pretty_midi.PrettyMIDI(str(tmp_path / "score.mid"))
    quarter = music.tick_to_time(music.resolution)
    steps_per_quarter = 4
    roll = bach_chorales.piano_roll.from_notes(
        bach_chorales._score_notes(music21, path),
        bach_chorales.TICKS_PER_QUARTER // steps_per_quarter,
    )
    # Ties are one note; the sums over parts count each voice.
    strokes = {(n.start, n.pitch) for i in music.instruments for n in i.notes}
    notes = bach_chorales._score_notes(music21, path)
    assert len({(start, pitch) for start, _, pitch in notes.tolist()}) == len(strokes)
    middles = (np.arange(len(roll)) + 0.5) * quarter / steps_per_quarter
    sampled = np.zeros_like(roll)
    for instrument in music.instruments:
        for note in instrument.notes:
            on = (note.start <= middles) & (middles < note.end)
            sampled[on, note.pitch - 21] = 1
    np.testing.assert_array_equal(roll, sampled)


@pytest.mark.slow
def test_statistics(works):
    """What README says of the set."""
    assert len(works) == 348
    rolls = [bach_chorales.piano_roll.from_notes(n, 240) for n in works.values()]
    assert sum(map(len, rolls)) == 38_083
    assert sum(int((~roll.any(1)).sum()) for roll in rolls) == 338
    assert min(map(len, rolls)) == 48
    assert max(map(len, rolls)) == 386


def test_three_of_five_are_for_training(tmp_path, monkeypatch):
    def works(verbose):
        return {str(k): np.array([[0, 480, 60 + k]], np.int32) for k in range(7)}

    monkeypatch.setattr(bach_chorales, "_parse", works)
    parts = bach_chorales.load_data(cache_dir=tmp_path)
    keys = [[int(roll[0].argmax()) - 39 for roll in part] for part in parts]
    assert keys == [[0, 1, 2, 5, 6], [3], [4]]
    for steps in (1, 4):
        parts = bach_chorales.load_data(steps, cache_dir=tmp_path)
        assert {len(roll) for part in parts for roll in part} == {steps}


def test_onsets_tell_repeated_notes_from_held_ones(tmp_path, monkeypatch):
    notes = np.array([[0, 480, 60], [480, 960, 60], [960, 1920, 60]], np.int32)
    monkeypatch.setattr(bach_chorales, "_parse", lambda verbose: {"1": notes})
    ((roll,), _, _) = bach_chorales.load_data(1, tmp_path, onsets=True)
    assert bach_chorales.piano_roll.to_notes(roll).tolist() == [
        [0, 1, 60],
        [1, 2, 60],
        [2, 4, 60],
    ]
    ((plain,), _, _) = bach_chorales.load_data(1, tmp_path)
    np.testing.assert_array_equal(roll[:, :88], plain)


def test_the_same_music_is_heard_in_any_key_and_notation():
    notes = np.array([[0, 480, 60], [480, 960, 64]], np.int32)
    tied = np.array([[0, 240, 62], [240, 480, 62], [480, 960, 66]], np.int32)
    other = np.array([[0, 480, 60], [480, 960, 65]], np.int32)
    assert bach_chorales._heard(notes) == bach_chorales._heard(tied)
    assert bach_chorales._heard(notes) != bach_chorales._heard(other)


@pytest.mark.slow
def test_split(chorales_home):
    parts = bach_chorales.load_data(cache_dir=chorales_home)
    assert [len(part) for part in parts] == [210, 69, 69]
    sets = [{roll.tobytes() for roll in part} for part in parts]
    assert sum(map(len, sets)) == len(set.union(*sets)) == 348
    again = bach_chorales.load_data(cache_dir=chorales_home)
    for part, same in zip(parts, again, strict=True):
        for a, b in zip(part, same, strict=True):
            np.testing.assert_array_equal(a, b)
    finer = bach_chorales.load_data(steps_per_quarter=4, cache_dir=chorales_home)
    assert abs(len(finer[0][0]) - 2 * len(parts[0][0])) <= 1


@pytest.mark.slow
def test_no_chorale_stands_there_twice(works):
    """Nor in another key, however its notes are tied."""
    rolls = [bach_chorales.piano_roll.from_notes(n, 240) for n in works.values()]
    lowest = [int(np.argmax(roll.any(0))) for roll in rolls]
    pairs = zip(rolls, lowest, strict=True)
    heard = {np.roll(roll, -low, axis=1).tobytes() for roll, low in pairs}
    assert len(heard) == len(works)


def few_works():
    return {
        "1.1": np.array([[0, 480, 60], [480, 960, 62]], np.int32),
        "2.1": np.array([[0, 960, 64]], np.int32),
    }


@pytest.mark.parametrize(
    "damage", ["cut", "garbage", "empty", "other", "middle", "changed"]
)
def test_a_damaged_file_is_made_again(tmp_path, monkeypatch, damage):
    path = tmp_path / "bach_chorales_v4.npz"
    bach_chorales._write(path, few_works())
    content = path.read_bytes()
    if damage == "other":
        with open(path, "wb") as file:
            np.savez(file, something=np.zeros(3))
    elif damage == "changed":
        with np.load(path) as file:
            arrays = {**file, "notes": file["notes"] + 1}
        np.savez_compressed(path, **arrays)
    else:
        path.write_bytes(
            {
                "cut": content[:200],
                "garbage": b"\0" * 500,
                "empty": b"",
                "middle": content[:60] + b"\xff" * 64 + content[124:],
            }[damage]
        )
    calls = []
    monkeypatch.setattr(
        bach_chorales, "_parse", lambda verbose: calls.append(1) or few_works()
    )
    works = bach_chorales.load_notes(tmp_path)
    assert list(works) == ["1.1", "2.1"]
    assert calls == [1]
    bach_chorales.load_notes(tmp_path)
    assert calls == [1], "the second time it is read from the file"


def test_no_pickle_is_loaded(tmp_path, monkeypatch):
    path = tmp_path / "bach_chorales_v4.npz"
    evil = np.array([{"a": 1}], dtype=object)
    np.savez(path, names=evil, counts=evil, notes=evil, allow_pickle=True)
    monkeypatch.setattr(bach_chorales, "_parse", lambda verbose: few_works())
    assert list(bach_chorales.load_notes(tmp_path)) == ["1.1", "2.1"]


def test_an_interrupted_first_use_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(bach_chorales, "_parse", lambda verbose: few_works())

    def interrupted(file, **arrays):
        with open(file, "wb") as half:
            half.write(b"half of it")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez_compressed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bach_chorales.load_notes(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_no_obstacle(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bach_chorales, "_parse", lambda verbose: few_works())
    (tmp_path / "file").write_text("not a folder")
    works = bach_chorales.load_notes(tmp_path / "file")
    assert list(works) == ["1.1", "2.1"]
    assert "could not be kept" in capsys.readouterr().out


def test_without_music21_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "music21", None)
    with pytest.raises(ImportError, match=r"keras-gated\[examples\]"):
        bach_chorales.load_data(cache_dir=tmp_path)


@pytest.mark.parametrize("value", [0, -2, 1.5, None])
def test_bad_steps(value):
    with pytest.raises(ValueError, match="`steps_per_quarter` must be"):
        bach_chorales.load_data(value)


def test_progress_bar_on_first_use(tmp_path, monkeypatch, capsys):
    corpus = music21.corpus.chorales.ChoraleListRKBWV
    few = dict(list(corpus().byRiemenschneider.items())[:3])
    monkeypatch.setattr(
        corpus, "prepareList", lambda self: setattr(self, "byRiemenschneider", few)
    )
    assert len(bach_chorales.load_notes(tmp_path)) == 3
    printed = capsys.readouterr().out
    assert "Reading 3 chorales" in printed
    assert "3/3" in printed
