"""Grids of steps: fractions, and the choice of the coarsest that keeps the notes."""

import itertools
import logging
import random
from fractions import Fraction

import numpy as np
import pytest

from keras_gated.datasets import midi, midi_directory, piano_roll
from keras_gated.datasets.music import grid

pretty_midi = pytest.importorskip("pretty_midi")


def melody(lengths, resolution=480, shorter=0, rest=0):
    """Notes one after the other, of lengths in quarter notes, as tables of ticks."""
    rows, now = [], Fraction(0)
    for length in lengths:
        start, now = round(now * resolution), now + Fraction(length)
        rows.append((start, round((now - rest) * resolution) - shorter, 60))
    return np.array(rows)


def chosen(*arguments, resolution=480, **how):
    notes = melody(*arguments, resolution=resolution, **how)
    return grid.choose(grid.fit(notes, resolution))


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        (["1"] * 8, 1),
        (["1/2"] * 8, 2),
        (["1/4"] * 8, 4),
        (["1/3"] * 9, 3),
        (["1/3"] * 9 + ["1/4"] * 8, 12),
        (["1/6"] * 12, 6),
        (["3/4", "1/4"] * 4, 4),
        (["3/8", "1/8"] * 4, 8),
        (["4", "2", "3"], 1),
        (["5/6"] * 12, Fraction(6, 5)),
        (["5/12"] * 12, Fraction(12, 5)),
        (["3/5", "6/5"] * 6, Fraction(5, 3)),
        (["1/5"] * 10, 5),
    ],
)
@pytest.mark.parametrize("resolution", [96, 480, 1000, 1024])
def test_the_coarsest_grid_that_keeps_all(lengths, expected, resolution):
    """Also where ticks are rounded, and where notes end a little early."""
    for shorter in (0, resolution // 96):
        choice = chosen(lengths, resolution=resolution, shorter=shorter)
        assert choice == (expected, len(lengths), len(lengths))


def test_lengths_count_as_well_as_places():
    assert chosen(["1"] * 8, rest=Fraction(1, 2)).steps_per_quarter == 2
    assert chosen(["1"] * 8, rest=Fraction(1, 4)).steps_per_quarter == 4
    assert chosen(["1"] * 8, rest=Fraction(1, 3)).steps_per_quarter == 3


def test_one_in_a_hundred_may_change():
    few, more = ["1"] * 99 + ["1/4"] * 1, ["1"] * 98 + ["1/4"] * 2
    assert chosen(few) == (1, 100, 99)
    assert chosen(more).steps_per_quarter == 4
    assert "keeps the places and lengths of 99.0% of 100 notes; 1 change" in str(
        chosen(few)
    )


def test_music_that_was_played_freely_fits_no_grid():
    random_ = random.Random(1)
    notes = [
        (start, start + random_.randint(30, 900), 60)
        for start in random_.choices(range(10**5), k=400)
    ]
    choice = grid.choose(grid.fit(np.array(notes), 480))
    assert not choice.enough
    assert choice.steps_per_quarter in grid.WHOLE
    assert "step_seconds=" in str(choice)


@pytest.mark.parametrize("seed", range(30))
def test_no_coarser_grid_keeps_them(seed):
    """By fractions, without tolerance: music of exact lengths on a grid."""
    random_ = random.Random(seed)
    step = random_.choice(["1", "1/2", "1/3", "1/4", "1/6", "1/8", "1/12", "5/6"])
    count = random_.randint(20, 300)
    lengths = [random_.randint(1, 6) * Fraction(step) for _ in range(count)]
    times = [sum(lengths[:i], Fraction(0)) for i in range(count + 1)]

    def share(steps):
        def line(time):
            return (time * steps + Fraction(1, 2)).__floor__() / steps

        return (
            sum(line(a) == a and line(b) == b for a, b in itertools.pairwise(times))
            / count
        )

    fitting = [steps for steps in grid.GRIDS if share(steps) >= 0.99]
    assert chosen(lengths, resolution=1920).steps_per_quarter == fitting[0]


@pytest.mark.parametrize("engine", ["pretty_midi", "symusic"])
def test_a_file_on_a_grid_of_fractions(engine, tmp_path, caplog):
    """Written and read: the same steps, and the log says what was chosen."""
    roll = piano_roll.from_notes([(k, k + 1, 60 + k) for k in range(12)], 1)
    for steps in (Fraction(6, 5), Fraction(12, 5), 3, 4, 12, Fraction(1, 2)):
        path = tmp_path / "tune.mid"
        midi.write(roll, path, steps)
        for same in (steps, str(steps), float(steps) if steps != 3 else np.int64(3)):
            np.testing.assert_array_equal(midi.read(path, same, engine=engine), roll)
        if steps < 1:
            continue
        caplog.clear()
        with caplog.at_level(logging.INFO, "keras_gated"):
            found = midi.read(path, "auto", engine=engine)
        np.testing.assert_array_equal(found, roll)
        assert f"tune.mid': steps_per_quarter={steps} keeps" in caplog.text


def test_one_grid_for_a_folder(tmp_path):
    """Nothing is halved in silence: each alone would have a coarser grid."""
    folder, cache = tmp_path / "tunes", tmp_path / "cache"
    scale = piano_roll.from_notes([(k, k + 1, 60 + k) for k in range(12)], 1)
    midi.write(scale, folder / "triplets.mid", 3)
    midi.write(scale, folder / "sixteenths.mid", 4)
    (folder / "none.mid").write_bytes(b"no music")
    settings = {"cache_dir": cache, "verbose": False, "steps_per_quarter": "auto"}
    for workers in (1, 2):
        corpus = midi_directory.read_directory(folder, workers=workers, **settings)
        assert corpus.steps_per_quarter == 12
        assert corpus.grid == (12, 24, 24)
        assert corpus.rolls.lengths == [3 * 12, 4 * 12]
        assert "steps_per_quarter=12 keeps" in str(corpus)
        assert list(corpus.skipped) == [folder / "none.mid"]
        assert corpus.rounded_notes == 0
    alone = midi_directory.read_directory(folder, cache_dir=cache, verbose=False)
    assert (alone.grid, alone.steps_per_quarter) == (None, 2)
    assert alone.rounded_notes > 0


@pytest.mark.parametrize("bad", [0, -1, "0", "1/0", "two", None, True, float("inf")])
def test_bad_grids(bad):
    with pytest.raises(ValueError, match="`steps_per_quarter` must be a positive"):
        midi.Options(bad)
    with pytest.raises(ValueError, match="`steps_per_quarter` must be a positive"):
        midi.write(np.ones((2, 88)), "never.mid", bad)


def test_options_survive_json():
    for steps in (2, Fraction(4, 3), "auto", 0.1):
        options = midi.Options(steps, tracks=["a", 1])
        assert midi.Options(**options.to_json()) == options
