"""Layer normalization and zoneout, beside the papers' equations in NumPy."""

import keras
import numpy as np
import pytest
from oracles import ROWS, UNITS, array, built, precise_activations, sequences

import keras_gated
from keras_gated import RNN


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def normalized(a, gain, epsilon):
    """Ba et al. (2016), equation 4."""
    mean, deviation = a.mean(-1, keepdims=True), a.std(-1, keepdims=True)
    return gain * (a - mean) / np.sqrt(deviation**2 + epsilon)


def tanh(w, x, states, epsilon):
    W, U, b, gain = w
    (h,) = states
    return [np.tanh(normalized(x @ W + h @ U, gain, epsilon) + b)]


def lstm(w, x, states, epsilon):
    """Equations 20 to 22; the memory stays normalized, as in TensorFlow Addons."""
    W, U, b, gain_W, gain_U, gain_c, b_c, *V = w
    V_i, V_f, V_o = V[0] if V else (0, 0, 0)
    h, c = states
    a = normalized(x @ W, gain_W, epsilon) + normalized(h @ U, gain_U, epsilon) + b
    i, f, g, o = np.split(a, 4, axis=-1)
    c = sigmoid(f + V_f * c) * c + sigmoid(i + V_i * c) * np.tanh(g)
    c = normalized(c, gain_c, epsilon) + b_c
    return [sigmoid(o + V_o * c) * np.tanh(c), c]


def coupled(w, x, states, epsilon):
    W, U, b, gain_W, gain_U, gain_c, b_c, (V_i, V_o) = w
    h, c = states
    a = normalized(x @ W, gain_W, epsilon) + normalized(h @ U, gain_U, epsilon) + b
    i, g, o = np.split(a, 3, axis=-1)
    i = sigmoid(i + V_i * c)
    c = normalized((1 - i) * c + i * np.tanh(g), gain_c, epsilon) + b_c
    return [sigmoid(o + V_o * c) * np.tanh(c), c]


def gru(w, x, states, epsilon):
    W, U, b, gain_W, gain_U = w
    (h,), n = states, 2 * UNITS
    x_z, x_r, x_h = np.split(normalized(x @ W, gain_W, epsilon) + b, 3, axis=-1)
    u = normalized(h @ U[:, :n], gain_U[:n], epsilon)
    z, r = sigmoid(x_z + u[:, :UNITS]), sigmoid(x_r + u[:, UNITS:])
    h_cand = np.tanh(x_h + normalized((r * h) @ U[:, n:], gain_U[n:], epsilon))
    return [(1 - z) * h + z * h_cand]


def gru_reset_after(w, x, states, epsilon):
    """As in Haste, whose `z` is `1 - z` here."""
    W, U, (b, b_U), gain_W, gain_U = w
    (h,) = states
    x_z, x_r, x_h = np.split(normalized(x @ W, gain_W, epsilon) + b, 3, axis=-1)
    u_z, u_r, u_h = np.split(normalized(h @ U, gain_U, epsilon) + b_U, 3, axis=-1)
    z, r = sigmoid(x_z + u_z), sigmoid(x_r + u_r)
    return [(1 - z) * h + z * np.tanh(x_h + r * u_h)]


def simplified_gru(w, x, states, epsilon):
    W, U, b, gain_W, gain_U = w
    (h,) = states
    a = normalized(x @ W, gain_W, epsilon) + normalized(h @ U, gain_U, epsilon) + b
    z, h_cand = np.split(a, 2, axis=-1)
    z = sigmoid(z)
    return [(1 - z) * h + z * np.tanh(h_cand)]


BY_PAPER = {
    "tanh": tanh,
    "lstm": lstm,
    "lstm_without_peepholes": lstm,
    "lstm_coupled": coupled,
    "gru": gru,
    "gru_reset_after": gru_reset_after,
    "simplified_gru": simplified_gru,
}
each_cell = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)


@each_cell
def test_layer_normalization_and_expected_zoneout(row):
    """A step and a sequence, from a state, with rates of zoneout for each state."""
    rates = [0.3, 0.1][: 1 + (row.cell_class is keras_gated.LSTMCell)]
    options = {"layer_norm": True, "layer_norm_epsilon": 0.02, "zoneout": rates}
    own = precise_activations(row)
    cell, weights = built(row, dtype="float64", **options, **own)
    x, states = sequences(dtype="float64")
    states = states[: len(rates)]
    layer = RNN(cell, return_state=True, dtype="float64")
    _, *found = layer(x, initial_state=states)
    one, _ = cell(x[:, 0], list(states))
    for t in range(x.shape[1]):
        new = BY_PAPER[row.id](weights, x[:, t], states, 0.02)
        states = [
            rate * old + (1 - rate) * state
            for rate, old, state in zip(rates, states, new, strict=True)
        ]
        if t == 0:
            np.testing.assert_allclose(array(one), states[0], atol=1e-12)
    for ours, theirs in zip(found, states, strict=True):
        np.testing.assert_allclose(array(ours), theirs, atol=1e-12)


@pytest.mark.parametrize("fast", [True, False], ids=["fast", "keras"])
def test_zoneout_draws_units_at_every_step(fast):
    """A unit either stays as it was or is what the step makes of it."""
    keras.utils.set_random_seed(0)
    cell = keras_gated.LSTMCell(50, zoneout=[0.25, 0.6], seed=1)
    layer = RNN(cell, return_sequences=True, return_state=True, use_fast_loop=fast)
    x = np.random.default_rng(0).normal(size=(4, 50, 3)).astype("float32")
    outputs = array(layer(x, training=True)[0])
    before = np.concatenate([np.zeros_like(outputs[:, :1]), outputs[:, :-1]], 1)
    stayed = outputs == before
    assert abs(stayed.mean() - 0.25) < 4 * np.sqrt(0.25 * 0.75 / stayed.size)
    for axis in range(3):  # drawn anew for every sequence, step and unit
        of_each = np.moveaxis(stayed, axis, 0).reshape(stayed.shape[axis], -1)
        assert len(np.unique(of_each, axis=0)) == len(of_each)
    # Of one step, beside the step without zoneout.
    plain = keras_gated.LSTMCell(50)
    plain.build((None, 3))
    plain.set_weights(cell.get_weights())
    h, c = (np.full((4, 50), value, "float32") for value in (0.3, -0.2))
    _, *zoned = layer(x[:, :1], initial_state=[h, c], training=True)
    _, new = plain(x[:, 0], [h, c])
    for rate, old, made, got in zip((0.25, 0.6), (h, c), new, zoned, strict=True):
        made, got = array(made), array(got)
        kept = got == old
        np.testing.assert_allclose(got[~kept], made[~kept], atol=1e-6)
        assert abs(kept.mean() - rate) < 4 * np.sqrt(rate * (1 - rate) / kept.size)


def test_bad_zoneout():
    for wrong in (1.1, -0.1, "x", [0.1, 2.0], None):
        with pytest.raises(ValueError, match="zoneout"):
            keras_gated.GRUCell(4, zoneout=wrong)
    with pytest.raises(ValueError, match=r"one for each state, here 2"):
        keras_gated.LSTM(4, zoneout=[0.1])(np.zeros((2, 5, 3), "float32"))


def test_learned_initial_state_begins_at_zero_learns_and_is_saved(tmp_path):
    random = np.random.default_rng(0)
    x = random.normal(size=(32, 3, 2)).astype("float32")
    y = np.full((32, 3, 4), 0.7, "float32")
    for stacked in (False, True):
        cells = [keras_gated.LSTMCell(4), keras_gated.GRUCell(4)]
        layer = RNN(
            cells if stacked else cells[0],
            return_sequences=True,
            learn_initial_state=True,
            truncate_gradient=2,
        )
        model = keras.Sequential([keras.Input((3, 2)), layer])
        zeros = RNN(layer.cell, return_sequences=True)
        np.testing.assert_array_equal(array(layer(x)), array(zeros(x)))
        model.compile("adam", "mse")
        model.fit(x, y, epochs=2, verbose=0)
        learned = [array(state) for state in layer.initial_states]
        assert len(learned) == (3 if stacked else 2)
        assert all(np.abs(state).min() > 0 for state in learned)
        first = [np.tile(state, (32, 1)) for state in learned]
        nested = [first[:2], first[2]] if stacked else first
        expected = zeros(x, initial_state=nested)
        np.testing.assert_allclose(array(layer(x)), array(expected), atol=1e-6)
        model.save(tmp_path / "model.keras")
        loaded = keras.saving.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(array(loaded(x)), array(model(x)))
    with pytest.raises(ValueError, match="learn_initial_state"):
        keras_gated.GRU(4, stateful=True, learn_initial_state=True)
