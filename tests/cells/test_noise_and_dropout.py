"""Weight noise and dropout: when they act, on what, and how long."""

import itertools

import keras
import numpy as np
import pytest
from differentiate import gradients
from keras import ops
from oracles import INPUTS, ROWS, UNITS, array, built, sequences, some

from keras_gated.cells.noise import normal

each_cell = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)


def recorder(cell):
    """Remembers the state of the random generators; the result brings it back."""
    state = cell.seed_generator.state
    before = array(state).copy()

    def rewind():
        keras.utils.set_random_seed(2)  # PyTorch's dropout draws from its global one
        state.assign(before)

    rewind()
    return rewind


@each_cell
@pytest.mark.parametrize(
    "option", ["weight_noise", "dropout", "recurrent_dropout"], ids=str
)
def test_acts_in_training_only_and_anew_for_every_batch(row, option):
    cell, _ = built(row, **{option: 0.4})
    plain, _ = built(row)
    layer = keras.layers.RNN(cell, return_sequences=True)
    x, _ = sequences()
    evaluated = array(layer(x))
    np.testing.assert_array_equal(evaluated, array(layer(x, training=False)))
    reference = keras.layers.RNN(plain, return_sequences=True)(x)
    np.testing.assert_allclose(evaluated, array(reference), atol=1e-6)
    first, second = (array(layer(x, training=True)) for _ in range(2))
    assert np.abs(first - evaluated).max() > 1e-3
    assert np.abs(first - second).max() > 1e-3


@pytest.mark.parametrize(
    ("unroll", "option", "row"),
    some(
        itertools.product(
            [True, False], ["weight_noise", "dropout", "recurrent_dropout"], ROWS
        )
    ),
)
def test_stays_the_same_along_a_sequence(unroll, option, row):
    """A long sequence equals its steps taken one by one with the same draw."""
    cell, _ = built(row, seed=1, **{option: 0.4})
    layer = keras.layers.RNN(cell, return_sequences=True, unroll=unroll)
    x, _ = sequences()
    layer(x)
    rewind = recorder(cell)
    whole = array(layer(x, training=True))
    rewind()
    states = cell.get_initial_state(len(x))
    steps = []
    for t in range(x.shape[1]):  # the draw is kept until it is reset
        y, states = cell(ops.convert_to_tensor(x[:, t]), states, training=True)
        steps.append(array(y))
    cell.reset_dropout_mask()
    cell.reset_recurrent_dropout_mask()
    np.testing.assert_allclose(np.stack(steps, axis=1), whole, atol=1e-6)


def current_weights(cell):
    """What a step while training computes with, by the names of the weights."""
    recurrent = cell._recurrence(training=True, drop=None)
    weights = {
        "kernel": cell._current("kernel", training=True),
        "recurrent_kernel": np.concatenate(
            [array(recurrent.U[gates]) for gates in cell.equations.products], axis=-1
        ),
        "bias": cell._current("bias", training=True),
    }
    if recurrent.V:
        weights["peephole_kernel"] = np.stack([array(V) for V in recurrent.V])
    return {name: array(weight) for name, weight in weights.items()}


@each_cell
def test_noise_is_on_kernels_and_peepholes_with_its_deviation(row):
    """Seen from outside: the weights that explain a noisy step."""
    cell = row.make(units=64, weight_noise=0.3, activation=None)
    cell.build((None, 50))
    clean = {w.name: array(w).copy() for w in cell.trainable_variables}
    noisy = current_weights(cell)
    difference = {name: noisy[name] - clean[name] for name in clean if name != "bias"}
    for name, noise in difference.items():
        n = noise.size
        assert abs(noise.mean()) < 4 * 0.3 / np.sqrt(n), name
        assert abs(noise.std() - 0.3) < 4 * 0.3 / np.sqrt(2 * n), name
    np.testing.assert_array_equal(noisy["bias"], clean["bias"])
    same = current_weights(cell)
    np.testing.assert_array_equal(same["kernel"], noisy["kernel"])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_noise_is_what_keras_draws(dtype):
    ours, theirs = (keras.random.SeedGenerator(7) for _ in range(2))
    for _ in range(2):
        drawn = normal((5, 4), 0.3, dtype, ours)
        expected = keras.random.normal((5, 4), stddev=0.3, dtype=dtype, seed=theirs)
        assert keras.backend.standardize_dtype(drawn.dtype) == dtype
        np.testing.assert_array_equal(array(drawn), array(expected))


@pytest.mark.parametrize("row", some(ROWS))
def test_gradient_is_taken_at_the_noisy_weights_and_applied_to_the_clean(row):
    noisy_cell, _ = built(row, weight_noise=0.3)
    layer = keras.layers.RNN(noisy_cell)
    x, _ = sequences()
    layer(x)
    rewind = recorder(noisy_cell)
    noisy = current_weights(noisy_cell)
    noisy_cell.reset_dropout_mask()
    rewind()
    _, by_weight, by_input = gradients(layer, [x], training=True)

    clean_cell, _ = built(row)
    at_noisy = keras.layers.RNN(clean_cell)
    at_noisy(x)
    for variable in clean_cell.trainable_variables:
        variable.assign(noisy[variable.name])
    _, expected, expected_by_input = gradients(at_noisy, [x])
    np.testing.assert_allclose(by_input, expected_by_input, atol=1e-5)
    for ours, theirs in zip(by_weight, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)

    model = keras.Sequential([layer])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    weights = [array(w).copy() for w in noisy_cell.trainable_variables]
    model.fit(x, np.zeros((len(x), UNITS), "float32"), epochs=3, verbose=0)
    for variable, weight in zip(noisy_cell.trainable_variables, weights, strict=True):
        np.testing.assert_array_equal(array(variable), weight)  # bit for bit


def test_dropout_keeps_the_expected_share_and_scale():
    cell = keras.layers.RNN(ROWS[0].make(1, dropout=0.25, activation=None))
    x = np.ones((4000, 1, INPUTS), "float32")
    cell(x)
    cell.cell.set_weights(
        [
            np.eye(INPUTS, 1, dtype="float32"),
            np.zeros((1, 1), "float32"),
            np.zeros(1, "float32"),
            *cell.cell.get_weights()[3:],
        ]
    )
    kept = array(cell(x, training=True))[:, 0]
    values, counts = np.unique(np.round(kept, 5), return_counts=True)
    np.testing.assert_allclose(values, [0, 4 / 3], atol=1e-5)
    assert abs(counts[0] / len(x) - 0.25) < 0.03


@each_cell
def test_a_seed_makes_training_repeatable(row):
    """The noise of the same seed is the same, and of another is another."""

    x, _ = sequences()

    def run(seed):
        keras.utils.set_random_seed(5)
        layer = keras.layers.RNN(row.make(seed=seed, weight_noise=0.3, dropout=0.3))
        return [array(layer(x, training=True)) for _ in range(2)]

    first = run(3)
    np.testing.assert_array_equal(first, run(3))
    assert np.abs(np.subtract(first, run(4))).max() > 1e-3
