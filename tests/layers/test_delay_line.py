"""The tapped delay line, with and without the loop of Keras."""

import keras
import numpy as np
import pytest
from keras import ops
from oracles import array

from keras_gated import DelayLine, stepping


def expected(steps, delays, before=None):
    """The steps at the delays, by indexing."""
    batch, time, size = steps.shape
    before = np.zeros((batch, 50, size)) if before is None else before
    line = np.concatenate([before, steps], axis=1)
    taps = [line[:, before.shape[1] - d :][:, :time] for d in delays]
    return np.concatenate(taps, axis=-1)


@pytest.mark.parametrize("delays", [[0], [1], [0, 1, 2, 4], [7, 0, 3]])
@pytest.mark.parametrize("options", [{}, {"go_backwards": True}], ids=str)
def test_outputs_and_states(delays, options):
    """A sequence in two parts, and a mask that leaves nothing out."""
    steps = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    layer = DelayLine(delays, return_state=True, **options)
    parts = [steps[:, :2], steps[:, 2:]]
    first, state = layer(parts[0])
    second, _ = layer(parts[1], initial_state=[state], mask=np.ones((2, 3), bool))
    found = [array(first), array(second)]
    if options:
        steps = np.concatenate([part[:, ::-1] for part in parts], axis=1)
    both = expected(steps, delays).astype("float32")
    np.testing.assert_array_equal(np.concatenate(found, axis=1), both)
    assert first.shape[-1] == layer.compute_output_shape((2, 2, 3))[0][-1]


@pytest.mark.parametrize("zero", [False, True])
def test_masked_steps_are_left_out(zero):
    """As if they were not there; their outputs are those before them, or zeros."""
    random = np.random.default_rng(1)
    steps, mask = random.normal(size=(4, 9, 2)), random.random((4, 9)) < 0.6
    layer = DelayLine([0, 1, 3], return_state=True, zero_output_for_mask=zero)
    outputs, state = map(array, layer(steps.astype("float32"), mask=mask))
    for row, some, shown, last in zip(steps, mask, outputs, state, strict=True):
        there = expected(row[some][None], [0, 1, 3])[0]
        np.testing.assert_allclose(shown[some], there, 1e-6)
        held = np.concatenate([np.zeros((1, 6)), there])[np.cumsum(some)]
        np.testing.assert_allclose(shown[~some], 0 if zero else held[~some], 1e-6)
        line = np.concatenate([np.zeros((3, 2)), row[some]])[-3:]
        np.testing.assert_allclose(last, line.ravel(), 1e-6)


def test_saved_loaded_and_run_step_by_step(tmp_path):
    model = keras.Sequential([keras.Input((None, 3)), DelayLine([0, 2], name="past")])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].get_config() == model.layers[0].get_config()
    steps = np.random.default_rng(1).normal(size=(2, 6, 3)).astype("float32")
    stepper = stepping.stepper(loaded, 2)
    weights, carry = stepper.start()
    frames = np.expand_dims(steps.swapaxes(0, 1), 2)
    _, outputs = stepper.read(weights, carry, ops.convert_to_tensor(frames))
    np.testing.assert_array_equal(
        array(outputs)[:, :, 0].swapaxes(0, 1), array(model(steps))
    )


@pytest.mark.parametrize("delays", [[], [-1], [0.5]])
def test_bad_delays(delays):
    with pytest.raises(ValueError, match="Argument `delays` must be"):
        DelayLine(delays)
