"""What is leaned on of Keras's private parts, each held against Keras as installed.

Tried with Keras 3.13.2, the lower bound of setup.cfg (`make test-keras`), and 3.15.1.
"""

import gc
import weakref

import keras
import numpy as np
import pytest
from oracles import array, sequences

import keras_gated
from keras_gated import generation, stepping

X, _ = sequences()


def test_flatten_layers_gives_the_layers_directly_inside():
    dense, both = keras.layers.Dense(2), keras.layers.Bidirectional(keras_gated.GRU(2))
    inner = keras.Sequential([dense, both])
    model = keras.Sequential([inner, dense])
    assert dense._flatten_layers(include_self=False) == []
    assert inner._flatten_layers(include_self=False, recursive=False) == [dense, both]
    ways = [both.forward_layer, both.backward_layer]
    cells = [way.cell for way in ways]
    found = stepping.layers_within(model)
    assert found == [inner, dense, both, ways[0], cells[0], ways[1], cells[1]]


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.RNN(keras_gated.LSTMCell(4)),
        keras_gated.GRU(4),
        keras.layers.LSTM(4),
        keras.layers.GRU(4),
        keras.layers.SimpleRNN(4, unroll=True),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_inner_loop_is_what_a_layer_calls(layer):
    model = keras.Sequential([keras.Input(X.shape[1:]), keras.layers.Masking(), layer])
    batch = keras.ops.convert_to_tensor(X * [[[1]] * 4 + [[0]]])
    found, states, mask = stepping.call_of_layer(model, layer, batch)
    np.testing.assert_array_equal(array(found), array(batch))
    assert [tuple(state.shape) for state in states] == len(states) * [(2, 4)]
    np.testing.assert_array_equal(array(mask), 2 * [[True] * 4 + [False]])
    assert "inner_loop" not in vars(layer)
    stray = keras_gated.GRU(2)
    with pytest.raises(ValueError, match="does not call its layer 'gru"):
        stepping.call_of_layer(model, stray, batch)
    assert "inner_loop" not in vars(stray)


def test_symbolic_calls_add_links_which_are_cut():
    model = keras.Sequential([keras.Input((None, 3)), keras.layers.Dense(3)])
    (dense,) = model.layers
    before = list(dense._inbound_nodes), list(dense._outbound_nodes)
    stepping.Stepper(model, 2)
    assert (dense._inbound_nodes, dense._outbound_nodes) == before
    dense(keras.Input((None, 3)))
    assert len(dense._inbound_nodes) == len(before[0]) + 1


class Counted(keras.layers.Layer):
    """How often it is called, which for a compiled model is how often it is traced."""

    calls = 0

    def call(self, x):
        self.calls += 1
        return x

    def get_config(self):
        return {}


def counted_model():
    counted, layer = Counted(), keras_gated.LSTM(4, return_sequences=True)
    head = keras.layers.Dense(3)
    return counted, keras.Sequential([keras.Input((None, 3)), counted, layer, head])


def test_a_step_is_a_pure_function():
    _, model = counted_model()
    stepper = stepping.stepper(model, len(X))
    weights, start = stepper.start()
    kept = [array(v).copy() for v in stepper.model.variables]
    carry = start
    for t, whole in enumerate(array(model(X)).swapaxes(0, 1)):
        carry = stepper.step(weights, carry, X[:, t : t + 1])
        np.testing.assert_allclose(array(carry[0])[:, 0], whole, atol=1e-6)
    again, outputs = stepper.read(weights, start, X.swapaxes(0, 1)[:, :, None])
    np.testing.assert_allclose(array(again[0]), array(carry[0]), atol=1e-6)
    np.testing.assert_allclose(array(outputs)[-1], array(carry[0]), atol=1e-6)
    for variable, value in zip(stepper.model.variables, kept, strict=True):
        np.testing.assert_array_equal(array(variable), value)


@pytest.mark.skipif(keras.config.backend() == "torch", reason="nothing is compiled")
def test_generating_again_compiles_nothing():
    counted, model = counted_model()
    primer = np.ones((4, 3))
    generation.generate(model, primer, 5)
    counted.calls = 0
    for _ in range(2):
        generation.generate(model, primer, 5, temperature=0.5, seed=1)
    assert counted.calls == 2  # the check of the whole sequence, which is eager


def test_a_stepper_lasts_while_the_model_does_and_no_longer():
    _, model = counted_model()
    stepper = stepping.stepper(model, 2)
    assert stepping.stepper(model, 2) is stepper
    model.layers[1].cell.activation = keras.activations.relu
    changed = stepping.stepper(model, 2)
    assert changed is not stepper
    gone = weakref.ref(model)
    del model
    keras.backend.clear_session()
    gc.collect()
    assert gone() is None
