"""What layers do inside models, beside the equations and other people's derivatives."""

import keras
import numpy as np
import pytest
from differentiate import jacobian
from oracles import (
    INPUTS,
    ROWS,
    TIME,
    UNITS,
    array,
    built,
    built_pair,
    precise_activations,
    sequences,
    some,
    with_forget_gate,
)

import keras_gated
from keras_gated import GRU, LSTM, RNN, TanhRNN
from keras_gated.inspection import gates, jacobian_norms, recurrent_layers


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def by_the_equations(cell, inputs, state=None):
    """The gates at every step of one sequence, in float64."""
    weights = [array(w).astype("float64") for w in cell.weights]
    coupled = getattr(cell, "coupled", False)
    W, U, b, *V = with_forget_gate(weights) if coupled else weights
    name, h = type(cell).__name__, np.zeros(cell.units) if state is None else state
    b, b_U = b if b.ndim == 2 else (b, np.zeros_like(b))
    c, steps = h, []
    for x in inputs:
        blocks = len(b) // cell.units
        a = np.split(x @ W + b, blocks)
        u = np.split(h @ U + b_U, blocks)
        if name == "TanhCell":
            h = np.tanh(a[0] + u[0])
            found = {"state": h}
        elif name == "LSTMCell":
            V_i, V_f, V_o = V[0] if V else (0, 0, 0)
            i = sigmoid(a[0] + u[0] + V_i * c)
            f = sigmoid(a[1] + u[1] + V_f * c)
            candidate = np.tanh(a[2] + u[2])
            c = f * c + i * candidate
            o = sigmoid(a[3] + u[3] + V_o * c)
            h = o * np.tanh(c)
            found = {"input": i, "candidate": candidate, "output": o}
            found |= {} if coupled else {"forget": f}
        else:
            z = sigmoid(a[0] + u[0])
            found = {"update": z}
            if name == "SimplifiedGRUCell":
                candidate = np.tanh(a[1] + u[1])
            else:
                found["reset"] = r = sigmoid(a[1] + u[1])
                U_h = U[:, 2 * cell.units :]
                after = r * u[2] if cell.reset_after else (r * h) @ U_h
                candidate = np.tanh(a[2] + after)
            found["candidate"] = candidate
            h = (1 - z) * h + z * candidate
        steps.append(found)
    return {name: np.stack([found[name] for found in steps]) for name in steps[0]}


def with_random_weights(model):
    rng = np.random.default_rng(2)
    model.set_weights([rng.normal(0, 0.7, w.shape) for w in model.get_weights()])
    return model


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, values in found.items():
        np.testing.assert_allclose(values, expected[name], 1e-4, 1e-5)


X, _ = sequences(batch=3)
# With seeds, for without them PyTorch draws dropout from its global generator.
NOISY = {"weight_noise": 0.3, "dropout": 0.3, "recurrent_dropout": 0.3, "seed": 6}


@pytest.mark.parametrize("row", some(ROWS, 2))
def test_gates_are_those_of_the_equations_and_leave_no_trace(row):
    layer = keras.layers.RNN(row.make(**NOISY))
    inputs = keras.Input((None, INPUTS))
    before = keras.layers.Dense(4)
    model = keras.Model(inputs, keras.layers.Dense(2)(layer(before(inputs))))
    with_random_weights(model)
    kept = [array(v).copy() for v in model.variables]  # the seeds are among them
    found = gates(model, X)
    for variable, value in zip(model.variables, kept, strict=True):
        np.testing.assert_array_equal(array(variable), value)
    kernel, bias = (array(w).astype("float64") for w in before.weights)
    for n, sequence in enumerate(X):
        expected = by_the_equations(layer.cell, sequence @ kernel + bias)
        assert_same({name: values[n] for name, values in found.items()}, expected)
    assert_same(gates(model, X[1]), {name: v[1] for name, v in found.items()})


class Subclassed(keras.Model):
    def __init__(self, *layers):
        super().__init__()
        self.inner = keras.Sequential(layers)
        self.head = keras.layers.Dense(2)

    def call(self, x):
        return self.head(self.inner(x))


def places():
    """Models with a GRU somewhere in them, and what the argument `layer` is."""
    frames = keras.Input((None, INPUTS))
    gru, other = GRU(UNITS, return_sequences=True), TanhRNN(2)
    in_a_row = keras.Sequential([frames, gru, other])
    yield "by itself", in_a_row, gru, gru
    yield "by name", in_a_row, gru, gru.name
    yield "by place", in_a_row, gru, 0
    yield "by place from the end", in_a_row, gru, np.int64(-2)
    lone = GRU(UNITS)
    yield "a layer", lone, lone, None
    gru = GRU(UNITS)
    inner = keras.Sequential([keras.layers.Dropout(0.5), gru], name="inner")
    nested = keras.Model(frames, [inner(frames), TanhRNN(2)(frames)])
    yield "inside a model that is named", nested, gru, "inner"
    gru = GRU(UNITS)
    yield "subclassed", Subclassed(keras.layers.Dropout(0.5), gru), gru, None
    two_ways = keras.layers.Bidirectional(GRU(UNITS, name="gru"))
    model = keras.Sequential([frames, two_ways])
    yield "forward", model, two_ways.forward_layer, "forward_gru"
    yield "backward", model, two_ways.backward_layer, two_ways.backward_layer
    # The last batch of two has one sequence and is filled.
    gru = GRU(UNITS, stateful=True)
    yield "stateful", keras.Sequential([keras.Input((None, INPUTS), 2), gru]), gru, None


@pytest.mark.parametrize("name", [name for name, *_ in places()])
def test_the_layer_may_be_anywhere(name):
    model, layer, asked = next(rest for this, *rest in places() if this == name)
    model(X[:2])
    with_random_weights(model)
    model(X[:2])  # from the states after which a stateful layer would go on
    found = gates(model, X, asked)
    for n, sequence in enumerate(X):
        read = sequence[::-1] if layer.go_backwards else sequence
        expected = by_the_equations(layer.cell, read)
        if layer.go_backwards:
            expected = {name: values[::-1] for name, values in expected.items()}
        assert_same({name: values[n] for name, values in found.items()}, expected)


def test_layers_are_found_once_and_in_order():
    shared = GRU(2, return_sequences=True)
    inner = keras.Sequential([shared, keras.layers.LSTM(2, return_sequences=True)])
    model = Subclassed(shared, inner, keras.layers.Bidirectional(TanhRNN(2)))
    names = [type(layer).__name__ for layer in recurrent_layers(model)]
    assert names == ["GRU", "LSTM", "TanhRNN", "TanhRNN"]


def test_masked_and_backward_steps_keep_their_place():
    layer = keras.layers.RNN(keras_gated.GRUCell(UNITS), go_backwards=True)
    model = keras.Sequential(
        [keras.Input((None, INPUTS)), keras.layers.Masking(), layer]
    )
    probe = X.copy()
    probe[0, 2] = probe[1, 4] = 0
    found = gates(with_random_weights(model), probe)
    for n, masked in enumerate(([2], [4], [])):
        read = [t for t in reversed(range(TIME)) if t not in masked]
        expected = by_the_equations(layer.cell, probe[n, read])
        for name, values in found.items():
            assert np.isnan(values[n, masked]).all()
            np.testing.assert_allclose(values[n, read], expected[name], 1e-4, 1e-5)


def test_models_of_tokens_and_of_other_initial_states():
    tokens = keras.layers.Embedding(9, INPUTS, mask_zero=True)
    model = keras.Sequential([keras.Input((None,)), tokens, GRU(UNITS)])
    with_random_weights(model)
    found = gates(model, np.array([3, 1, 8, 0]))
    expected = by_the_equations(
        model.layers[1].cell, array(tokens(np.array([3, 1, 8])))
    )
    assert np.isnan(found["update"][3]).all()
    assert_same({name: values[:3] for name, values in found.items()}, expected)

    frames, layer = keras.Input((None, INPUTS)), GRU(UNITS)
    first = keras.layers.Dense(UNITS)
    model = keras.Model(frames, layer(frames, initial_state=first(frames[:, 0])))
    with_random_weights(model)
    expected = by_the_equations(layer.cell, X[0], array(first(X[:1, 0]))[0])
    assert_same(gates(model, X[0]), expected)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "float64"])
def test_gates_are_in_float32_at_least(dtype):
    row = next(row for row in ROWS if row.id == "gru")
    exact = precise_activations(row) if dtype == "float64" else {}
    layer = GRU(UNITS, dtype=dtype, **exact)
    layer.build((None, None, INPUTS))
    expected = "float64" if dtype == "float64" else "float32"
    assert {values.dtype.name for values in gates(layer, X).values()} == {expected}


def small_models():
    frames, more = keras.Input((TIME, INPUTS)), keras.Input((TIME, 4))
    gru = GRU(4, name="watched", return_sequences=True)
    return {
        "gru": keras.Sequential([frames, gru]),
        "two": keras.Sequential([frames, gru, LSTM(4, name="another")]),
        "keras": keras.Sequential([frames, keras.layers.GRU(4)]),
        "several inputs": keras.Model([frames, more], gru(frames) + more),
        "not built": keras.Sequential([gru]),
        "nothing": None,
    }


@pytest.mark.parametrize("function", [gates, jacobian_norms])
@pytest.mark.parametrize(
    ("model", "sequence", "layer", "message"),
    [
        ("gru", X[0, :, 0], None, r"`sequence`.*\(None, 5, 3\).*shape \(5,\)"),
        ("gru", X[:0], None, r"at least one step.*shape \(0, 5, 3\)"),
        ("gru", X[0, :, :2], None, r"\(None, 5, 3\).*shape \(5, 2\)"),
        ("gru", X[:, :4], None, r"\(None, 5, 3\).*shape \(3, 4, 3\)"),
        ("gru", X.astype(str), None, r"must hold numbers"),
        ("gru", X, "gru_7", r"layer='gru_7'.*'watched': 'GRU'"),
        ("gru", X, 1, r"layer=1\b"),
        ("gru", X, GRU(2, name="mine"), r"layer=<GRU name=mine"),
        ("two", X, None, r"2 layers of the kind.*'watched', 'another'"),
        ("several inputs", X, None, "must have one input"),
        ("not built", X, None, "is not built"),
        ("nothing", X, None, "`model` must be a Keras model or layer"),
    ],
)
def test_what_cannot_be_inspected(function, model, sequence, layer, message):
    with pytest.raises(ValueError, match=message):
        function(small_models()[model], sequence, layer=layer)


def test_gates_of_other_cells():
    with pytest.raises(
        ValueError, match="no recurrent layer over a cell of keras_gated"
    ):
        gates(small_models()["keras"], X)


# Jacobians. Their outsiders: Keras's loop over Keras's cell, from the state in question
# to the end, and the derivative of that whole by the backend.


def norms_by_keras(cell, x, lags):
    """Of one sequence `[T, features]`."""
    run = keras.layers.RNN(cell, return_state=True, dtype=cell.dtype_policy)
    sizes = [array(state).shape[-1] for state in cell.get_initial_state(1)]

    def last(inputs, states):
        _, *states = run(inputs[None], initial_state=states)
        return keras.ops.concatenate(states, axis=-1)[0]

    norms = []
    for lag in range(1, lags + 1):
        past, rest = x[: len(x) - lag], x[len(x) - lag :]
        state = np.zeros(sum(sizes), x.dtype)
        if len(past):
            state = array(last(past, cell.get_initial_state(1)))

        def to_the_end(state, rest=rest):
            parts = keras.ops.split(state[None], len(sizes), axis=-1)
            return last(rest, parts)

        norms.append(np.linalg.norm(jacobian(to_the_end, state), 2))
    return norms


def over(cell):
    """A layer in float64 over a built cell."""
    layer = RNN(cell, dtype="float64")
    layer.build((None, None, INPUTS))
    return layer


@pytest.mark.parametrize("row", some(ROWS))
def test_norms_are_those_of_the_derivative_of_the_whole(row):
    """Keras computes in float64 on TensorFlow alone."""
    tolerance = 1e-10 if keras.config.backend() == "tensorflow" else 1e-4
    x, _ = sequences(dtype="float64")
    options = {"dtype": "float64", **precise_activations(row)}
    cell, twin = built_pair(row, **options)
    norms = jacobian_norms(over(cell), x)
    assert norms.shape == x.shape[:2]
    assert norms.dtype == "float64"
    for found, sequence, lags in zip(norms, x, (TIME, 1), strict=True):
        np.testing.assert_allclose(
            found[:lags], norms_by_keras(twin, sequence, lags), rtol=tolerance
        )
    if row.peepholes:  # which the twin has not
        cell, _ = built(row, **options)
        np.testing.assert_allclose(
            jacobian_norms(over(cell), x[0], lags=3),
            norms_by_keras(cell, x[0], 3),
            rtol=tolerance,
        )


def test_norms_of_tanh_are_those_of_the_formula():
    """The Jacobian of a step is diag(1 - h²) Uᵀ, where h = tanh(x W + h U + b)."""
    options = {"dtype": "float64", **precise_activations(ROWS[0])}
    cell, (W, U, b) = built(ROWS[0], **options)
    x, _ = sequences(dtype="float64", time=9)
    h, jacobians = np.zeros(UNITS), []
    for step in x[0]:
        h = np.tanh(step @ W + h @ U + b)
        jacobians.append((1 - h**2)[:, None] * U.T)
    product, expected = np.eye(UNITS), []
    for each in jacobians[::-1]:
        product = product @ each
        expected.append(np.linalg.norm(product, 2))
    found = jacobian_norms(over(cell), x)
    np.testing.assert_allclose(found[0], expected, rtol=1e-12)


def test_norms_of_stacked_cells_and_of_cells_of_keras():
    cells = [keras_gated.LSTMCell(2), keras_gated.TanhCell(3), keras.layers.GRUCell(2)]
    for cell in (keras.layers.StackedRNNCells(cells), keras.layers.LSTMCell(3)):
        model = keras.Sequential([keras.Input((None, INPUTS)), keras.layers.RNN(cell)])
        assert (jacobian_norms(with_random_weights(model), X) > 0).all()


def test_masked_steps_change_nothing():
    model = keras.Sequential(
        [keras.Input((None, INPUTS)), keras.layers.Masking(), LSTM(UNITS)]
    )
    with_random_weights(model)
    gaps = np.insert(X, [2, 5], 0, axis=1)
    norms, with_gaps = jacobian_norms(model, X), jacobian_norms(model, gaps)
    expected = np.insert(norms, 3, norms[:, 2], axis=1)
    expected = np.insert(expected, 0, 1, axis=1)
    np.testing.assert_allclose(with_gaps, expected, rtol=1e-5)


def test_backward_layers_end_at_the_first_step():
    forward, backward = GRU(UNITS), GRU(UNITS, go_backwards=True)
    for layer in (forward, backward):
        layer.build((None, None, INPUTS))
    backward.set_weights(forward.get_weights())
    np.testing.assert_array_equal(
        jacobian_norms(backward, X[:, ::-1]), jacobian_norms(forward, X)
    )


@pytest.mark.parametrize("slope", [0.0, 0.1, 10.0])
def test_norms_beyond_all_numbers(slope):
    layer = TanhRNN(1, activation="linear")
    layer.build((None, None, 1))
    layer.set_weights([np.ones((1, 1)), np.full((1, 1), slope), np.zeros(1)])
    norms = jacobian_norms(layer, np.zeros((400, 1), "float32"))
    with np.errstate(over="ignore"):
        expected = np.float64(slope) ** np.arange(1, 401)
    finite = expected < 1e300
    np.testing.assert_allclose(norms[finite], expected[finite], 1e-4, 1e-300)
    assert (norms[~finite] > 1e290).all()


@pytest.mark.parametrize(
    ("lags", "message"),
    [
        (TIME + 1, r"from 1 to 5, the number of steps.*lags=6"),
        (0, r"`lags` must be a positive integer.*lags=0"),
        (True, "lags=True"),
    ],
)
def test_lags_that_are_not_there(lags, message):
    with pytest.raises(ValueError, match=message):
        jacobian_norms(small_models()["gru"], X, lags=lags)


def test_states_that_are_not_finite():
    layer = TanhRNN(2, activation="linear")
    layer.build((None, None, INPUTS))
    layer.set_weights([np.full(w.shape, np.nan) for w in layer.get_weights()])
    with pytest.raises(ValueError, match="is not finite"):
        jacobian_norms(layer, X)
