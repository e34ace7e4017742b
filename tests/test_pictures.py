"""The figures, by what is in them."""

import keras
import numpy as np
import pytest

from keras_gated import GRU, inspection, pictures

pytest.importorskip("matplotlib", reason="the extra 'examples' is not installed")

ROLL = (np.random.default_rng(0).random((12, 88)) > 0.9).astype("uint8")
GATES = {
    "update": np.linspace(0, 1, 36).reshape(12, 3)[:, [2, 0, 1]],
    "candidate": np.full((12, 3), -4.0),
}


def image(axes):
    return np.asarray(axes.images[0].get_array())


def test_gates_are_drawn_with_units_in_one_order():
    gates = {name: values.copy() for name, values in GATES.items()}
    gates["candidate"][0] = np.nan
    gates["candidate"][:, 0] = 2.0
    figure = pictures.gates(ROLL, gates, "a title")
    roll, update, candidate = figure.axes[:3]
    assert roll.get_title() == "a title"
    np.testing.assert_array_equal(image(roll), ROLL.T)
    np.testing.assert_array_equal(image(update), GATES["update"][:, [1, 2, 0]].T)
    assert update.images[0].get_clim() == (0, 1)
    assert candidate.images[0].get_clim() == (-4, 4)
    assert (image(candidate)[2, 1:] == 2).all()
    assert "update gate" in candidate.get_xlabel()


def test_a_gate_of_an_own_cell_is_drawn_as_a_gate():
    """It is known by its values."""
    figure = pictures.gates(ROLL, {"a": GATES["update"], "b": GATES["candidate"]})
    limits = [axes.images[0].get_clim() for axes in figure.axes[1:3]]
    assert limits == [(0, 1), (-4, 4)]


def test_a_sequence_is_drawn_as_what_it_is():
    sound = np.sin(np.arange(70))
    frames = np.lib.stride_tricks.sliding_window_view(sound, 15)[::5]
    wave = pictures.gates(frames, GATES).axes[0]
    np.testing.assert_array_equal(wave.lines[0].get_ydata(), sound[10:])
    numbers = np.random.default_rng(1).normal(size=(12, 3))
    np.testing.assert_array_equal(
        image(pictures.gates(numbers, GATES).axes[0]), numbers.T
    )


def test_gates_of_a_model_are_drawn_as_they_come():
    model = keras.Sequential([keras.Input((None, 88)), GRU(4)])
    found = inspection.gates(model, ROLL)
    shown = image(pictures.gates(ROLL, found).axes[1])
    np.testing.assert_array_equal(np.sort(shown, 0), np.sort(found["update"].T, 0))


def test_sounds_of_two_lengths():
    long, short = np.sin(np.arange(900)), np.zeros(400)
    figure = pictures.sounds({"long": long, "short": short}, 1000, mark=0.1)
    for wave, samples in ((figure.axes[0], long), (figure.axes[2], short)):
        seconds, drawn = wave.lines[0].get_data()
        np.testing.assert_array_equal(drawn, samples)
        assert seconds[-1] == (len(samples) - 1) / 1000
        assert list(wave.lines[1].get_xdata()) == [0.1, 0.1]


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: pictures.piano_rolls({}), "`rolls` must be a dictionary of one"),
        (lambda: pictures.piano_rolls(ROLL), "`rolls` must be a dictionary of one"),
        (lambda: pictures.piano_rolls({"": ROLL[:, 1:]}), r"\[12, 87\]"),
        (lambda: pictures.sounds({}, 1000), "`sounds` must be a dictionary"),
        (lambda: pictures.sounds({"a": np.zeros((2, 9))}, 9), r"\(2, 9\) for 'a'"),
        (lambda: pictures.sounds({"a": np.zeros(9)}, 0), "`sampling_rate` must be"),
        (lambda: pictures.gates(ROLL, {}), "`gates` must be a dictionary"),
        (lambda: pictures.gates(ROLL[0], GATES), r"`sequence` must be \[T, features\]"),
        (lambda: pictures.gates(ROLL, {**GATES, "x": ROLL}), r"'x': \(12, 88\)"),
        (lambda: pictures.gates(ROLL, {"x": ROLL[0]}), r"'x': \(88,\)"),
    ],
)
def test_what_cannot_be_drawn(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
