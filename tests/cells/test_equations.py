"""Every cell against implementations nobody here wrote."""

import keras
import numpy as np
import onnx
import pytest
from differentiate import gradients
from oracles import (
    INPUTS,
    ROWS,
    UNITS,
    array,
    built,
    built_pair,
    onnx_reference_engine,
    onnxruntime_engine,
    precise_activations,
    run_onnx,
    sequences,
)

import keras_gated

each_cell = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
OLD_ONNX = onnx.__version__.startswith("1.18.")
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


def states_of(cell, states):
    return states[: len(keras.tree.flatten(cell.state_size))]


@each_cell
@pytest.mark.parametrize(
    ("dtype", "engine"),
    # onnxruntime has no float64 kernels for these operators; ONNX's own
    # reference evaluator computes them in any precision.
    [("float32", onnxruntime_engine), ("float64", onnx_reference_engine)],
)
def test_equals_onnx_operator(row, dtype, engine):
    precise = precise_activations(row) if dtype == "float64" else {}
    cell, weights = built(row, dtype=dtype, **precise)
    lstm = row.cell_class is keras_gated.LSTMCell
    if lstm and dtype == "float64" and OLD_ONNX:
        pytest.skip("the reference evaluator of onnx 1.18 gives no memory of an LSTM")
    x, states = sequences(dtype=dtype)
    states = states_of(cell, states)
    layer = keras.layers.RNN(
        cell, return_sequences=True, return_state=True, dtype=dtype
    )
    outputs, *final = layer(x, initial_state=states)
    expected_outputs, expected_final = run_onnx(row, weights, x, states, engine)
    assert outputs.shape == expected_outputs.shape
    for ours, theirs in zip(
        [outputs, *final], [expected_outputs, *expected_final], strict=True
    ):
        np.testing.assert_allclose(array(ours), theirs, atol=TOLERANCE[dtype], rtol=0)


# On JAX and PyTorch the products and activations of Keras's cells are in float32.
KERAS_DTYPES = ["float32"]
if keras.config.backend() == "tensorflow":
    KERAS_DTYPES.append("float64")


@each_cell
@pytest.mark.parametrize("dtype", KERAS_DTYPES)
def test_step_equals_keras_cell(row, dtype):
    cell, twin = built_pair(row, dtype=dtype)
    x, states = sequences(dtype=dtype)
    states = states_of(cell, states)
    ours, theirs = (c(x[:, 0], states) for c in (cell, twin))
    for a, b in zip(keras.tree.flatten(ours), keras.tree.flatten(theirs), strict=True):
        np.testing.assert_allclose(array(a), array(b), atol=TOLERANCE[dtype], rtol=0)


@each_cell
def test_gradients_equal_finite_differences(row):
    """Along random directions in the space of each weight and of the inputs."""
    cell, _ = built(row, dtype="float64", **precise_activations(row))
    x, states = sequences(dtype="float64")
    layer = keras.layers.RNN(cell, return_sequences=True, dtype="float64")
    call = {"initial_state": states_of(cell, states)}
    layer(x, **call)
    _, by_weight, by_input = gradients(layer, [x], **call)
    random = np.random.default_rng(3)

    def value(x=x):
        return gradients(layer, [x], **call)[0]

    def check(gradient, move, name):
        direction = random.normal(size=gradient.shape)
        step = 1e-6
        upper, lower = move(step * direction), move(-step * direction)
        slope = (upper - lower) / (2 * step)
        assert slope == pytest.approx((gradient * direction).sum(), rel=1e-7), name

    for variable, gradient in zip(layer.trainable_variables, by_weight, strict=True):
        clean = array(variable).copy()

        def moved(change, variable=variable, clean=clean):
            variable.assign(clean + change)
            result = value()
            variable.assign(clean)
            return result

        check(gradient, moved, variable.path)
    check(by_input, lambda change: value(x + change), "inputs")


@each_cell
def test_parameter_count_in_closed_form(row):
    cell = row.make(UNITS)
    cell.build((None, INPUTS))
    assert cell.count_params() == row.parameters(UNITS, INPUTS)


@each_cell
def test_gate_activations_compose_the_step(row):
    """The gates that a cell tells of are those that made its next state."""
    cell, _ = built(row)
    x, states = sequences()
    states = states_of(cell, states)
    gates = cell.gate_activations(x[:, 0], states)
    assert set(gates) == row.gates
    gates = {name: array(gate) for name, gate in gates.items()}
    for name, gate in gates.items():
        low = -1 if name == "candidate" else 0
        assert gate.shape == states[0].shape
        assert ((low < gate) & (gate < 1)).all(), name
    output, new_states = cell(x[:, 0], states)
    if "input" in gates:
        forget = gates.get("forget", 1 - gates["input"])
        c = forget * states[1] + gates["input"] * gates["candidate"]
        expected = [gates["output"] * np.tanh(c), c]
    else:
        z = gates.get("update", 1.0)
        expected = [(1 - z) * states[0] + z * gates["candidate"]]
    for ours, composed in zip(new_states, expected, strict=True):
        np.testing.assert_allclose(array(ours), composed, atol=1e-6)
    np.testing.assert_array_equal(array(output), array(new_states[0]))


def test_gate_activations_build_the_cell_and_take_lists():
    row = ROWS[0]
    gates = row.make().gate_activations([[1.0, 2.0, 3.0]], [np.zeros((1, UNITS))])
    assert gates["candidate"].shape == (1, UNITS)


def test_without_bias():
    for row in ROWS:
        cell, weights = built(row, use_bias=False)
        assert cell.bias is None
        assert len(weights) == 2 + row.peepholes
        twin = row.twin(use_bias=False)
        if row.peepholes or not row.same_weights:
            continue
        twin.build((None, INPUTS))
        for variable, w in zip(
            twin.trainable_variables, row.to_keras(weights), strict=True
        ):
            variable.assign(w)
        x, states = sequences()
        states = states_of(cell, states)
        np.testing.assert_allclose(
            array(cell(x[:, 0], states)[0]), array(twin(x[:, 0], states)[0]), atol=1e-6
        )


# The twin of the simplified GRU has an open reset gate only under a sigmoid.
@pytest.mark.parametrize("row", ROWS[1:-1], ids=lambda row: row.id)
def test_other_activations_go_where_keras_puts_them(row):
    activations = {"activation": "softsign", "recurrent_activation": "hard_sigmoid"}
    cell, twin = built_pair(row, **activations)
    x, states = sequences()
    states = states_of(cell, states)
    ours, theirs = (array(c(x[:, 0], states)[0]) for c in (cell, twin))
    np.testing.assert_allclose(ours, theirs, atol=1e-6)
