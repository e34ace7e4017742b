"""Cells with a `call` alone: the fast loop where it is safe, or else Keras's."""

import re

import keras
import numpy as np
import pytest
from differentiate import gradients
from keras import ops
from oracles import INPUTS, array, randomise, sequences, some

import keras_gated
from keras_gated import RNN

BACKEND = keras.config.backend()
DTYPE = "float64" if BACKEND == "tensorflow" else "float32"  # of activations
GAPS = np.array([[0, 1, 0, 1, 1], [1, 0, 0, 1, 0]], bool)
ALL = {"return_sequences": True, "return_state": True}
# Elsewhere Keras's loop is as fast, unless something needs the fast one.
ASKED = {} if BACKEND == "tensorflow" else {"recompute_states": True}


class TwoStates(keras.layers.Layer):
    """Its output is of another size than its states; layers inside."""

    state_size, output_size = (4, 2), 3

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(4, dtype=self.dtype_policy)
        self.shown = keras.layers.Dense(3, "tanh", dtype=self.dtype_policy)

    def build(self, input_shape):
        self.W = self.add_weight(shape=(input_shape[-1], 2), name="W")

    def call(self, inputs, states):
        h, s = states
        s = ops.tanh(inputs @ self.W + s * h[:, :2])
        h = ops.tanh(self.dense(ops.concatenate([h, s, inputs], -1)) + h)
        return self.shown(h), [h, s]


class OneState(keras.layers.Layer):
    """The state is no list."""

    state_size = 4

    def build(self, input_shape):
        self.U = self.add_weight(shape=(4, 4), name="U")
        self.W = self.add_weight(shape=(input_shape[-1], 4), name="W")

    def call(self, inputs, states, training=False):
        h = states[0] if isinstance(states, (list, tuple)) else states
        h = ops.tanh(inputs @ self.W + h @ self.U)
        return h, h


class OfKeras(keras.layers.GRUCell):
    def call(self, inputs, states, training=False):
        output, new_states = super().call(inputs, states, training)
        return output, new_states


class OfOurs(keras_gated.LSTMCell):
    def call(self, inputs, states, training=False):
        h, states = super().call(inputs, states, training)
        return h, states


SAFE = {
    "two states": TwoStates,
    "one state": OneState,
    "of Keras": lambda **k: OfKeras(4, **k),
    "of ours": lambda **k: OfOurs(4, **k),
}


@pytest.mark.parametrize("case", some(SAFE))
def test_fast_loop_equals_keras_loop_over_calls(case):
    x, states = sequences(dtype=DTYPE)
    # On JAX, Keras's loop shows the first state at a masked step, not the output.
    masked = not (BACKEND == "jax" and case == "two states")
    for options, call in (
        (ALL, {"mask": GAPS} if masked else {}),
        ({"go_backwards": True, "truncate_gradient": 9}, {}),
    ):
        results = []
        for fast in (True, False):
            layer = {**options, **(ASKED if fast else {})}
            if not fast:
                layer.pop("truncate_gradient", None)
            use = "auto" if fast else False
            rnn = RNN(SAFE[case](dtype=DTYPE), dtype=DTYPE, use_fast_loop=use, **layer)
            rnn.build(x.shape)
            rnn(x)  # builds the layers inside
            randomise(rnn)
            name = type(rnn.cell).__name__
            said = f"fast: the gradient of a call of {name} is automatic"
            assert rnn.loop == said or not fast
            sizes = keras.tree.flatten(rnn.state_size)
            initial = [s[:, :n] for s, n in zip(states, sizes, strict=False)]
            value, by_weight, by_input = gradients(
                rnn, [x], True, initial_state=initial, **call
            )
            outputs = keras.tree.flatten(rnn(x, **call))
            results.append([value, *by_weight, by_input, *map(array, outputs)])
        for ours, theirs in zip(*results, strict=True):
            tolerance = 1e-9 if DTYPE == "float64" else 2e-5
            np.testing.assert_allclose(ours, theirs, atol=tolerance, rtol=tolerance)


class Within(OneState):
    """Does something more than to compute a step."""

    def __init__(self, more, inside=None, **kwargs):
        super().__init__(**kwargs)
        self.more, self.inside, self.count = more, inside, 0

    def call(self, inputs, states, training=False):
        return super().call(self.more(self, inputs, training), states)


def count(cell, x, training):
    cell.count += 1
    return x


def add_loss(cell, x, training):
    cell.add_loss(ops.sum(x))
    return x


OTHER = keras.Variable(np.ones((), "float32"), name="other")
RANDOM = np.random.default_rng(0)
UNSAFE = {
    "dropout": (
        lambda cell, x, training: cell.inside(x, training=training),
        keras.layers.Dropout(0.5),
        "draws random numbers|other numbers while training",
    ),
    "batch normalization": (
        lambda cell, x, training: cell.inside(x, training=training),
        keras.layers.BatchNormalization(),
        "other numbers while training|assigns variables",
    ),
    "attribute": (count, None, "changes its attributes"),
    "loss": (add_loss, None, "adds losses"),
    "random": (
        lambda cell, x, training: x + RANDOM.normal(),
        None,
        "other numbers the second time",
    ),
    "other sequences": (
        lambda cell, x, training: x - ops.mean(x, axis=0),
        None,
        "does not treat each sequence for itself",
    ),
    "variable": (
        lambda cell, x, training: x * OTHER,
        None,
        "variables that are not its own",
    ),
    "control flow": (
        lambda cell, x, training: x if float(ops.max(x)) > -100 else -x,
        None,
        "cannot be compiled as a whole",
    ),
}
COMPILED = {"control flow"}


@pytest.mark.parametrize("case", UNSAFE)
def test_calls_that_are_not_safe_run_on_keras_loop(case):
    more, inside, reason = UNSAFE[case]
    if BACKEND == "torch" and case in COMPILED:
        pytest.skip("PyTorch compiles nothing")
    x, _ = sequences()
    layer = RNN(Within(more, inside))
    if ASKED:
        with pytest.raises(ValueError, match=reason):
            RNN(Within(more, inside), **ASKED).build(x.shape)
        return
    layer.build(x.shape)
    assert re.match(f"keras: a call of Within .*({reason})", layer.loop)
    layer(x, training=True)


def test_models_whose_inputs_are_known_later_have_the_fast_loop():
    """Variables have no values yet when the layers are built."""
    x, _ = sequences()
    first = RNN(OneState(), return_sequences=True, **ASKED)
    model = keras.Sequential([first, RNN(TwoStates(), **ASKED)])
    model.compile("sgd", "mse")
    model.fit(x, np.zeros((len(x), 3)), verbose=0)
    assert all(layer.loop.startswith("fast") for layer in model.layers)


def test_elsewhere_keras_loop_is_as_fast():
    layer = RNN(OneState())
    layer.build((2, 5, INPUTS))
    said = "fast" if BACKEND == "tensorflow" else f"keras: it is as fast on {BACKEND}"
    assert layer.loop.startswith(said)
