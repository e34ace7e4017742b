"""The cells of later papers: their equations in NumPy, PyTorch's, and both loops."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import keras
import numpy as np
import pytest
from differentiate import gradients
from oracles import (
    BATCH,
    INPUTS,
    TIME,
    UNITS,
    array,
    precise_activations,
    sequences,
    some,
)

import keras_gated
from keras_gated import RNN
from keras_gated.cells.min_gru import positive

BACKEND = keras.config.backend()
SMALL = 2
"""Units of a projection."""
GAPS = np.array([[0, 1, 0, 1, 1], [1, 0, 0, 1, 0]], bool)
ALL = {"return_sequences": True, "return_state": True}


# The equations as the papers have them: a step maps the weights by name, the input and
# the states to the next states.


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def gates_of(w, x, h=None):
    a = x @ w["kernel"] + w["bias"]
    a = a if h is None else a + h @ w["recurrent_kernel"]
    return np.split(a, a.shape[-1] // UNITS, axis=-1)


def projected_lstm(w, x, states):
    h, c = states
    V_i, V_f, V_o = w.get("peephole_kernel", np.zeros((3, UNITS)))
    a_i, a_f, a_c, a_o = gates_of(w, x, h)
    c_new = sigmoid(a_f + V_f * c) * c + sigmoid(a_i + V_i * c) * np.tanh(a_c)
    m = sigmoid(a_o + V_o * c_new) * np.tanh(c_new)
    return [m @ w["projection_kernel"], c_new]


def coupled_lstm(w, x, states):
    h, c = states
    V_i, V_o = w["peephole_kernel"]
    a_i, a_c, a_o = gates_of(w, x, h)
    i = sigmoid(a_i + V_i * c)
    c_new = (1 - i) * c + i * np.tanh(a_c)
    m = sigmoid(a_o + V_o * c_new) * np.tanh(c_new)
    return [m @ w["projection_kernel"], c_new]


def indrnn(w, x, states):
    (h,) = states
    a = x @ w["kernel"] + w["recurrent_kernel"][0] * h + w["bias"]
    return [np.maximum(a, 0)]


def slstm(w, x, states, log_of=lambda a: -np.log1p(np.exp(-a))):
    """With the stabilizer, equations 15 to 17."""
    h, c, n, m = states
    a_i, a_f, a_c, a_o = gates_of(w, x, h)
    log_f = log_of(a_f)
    m_new = np.maximum(log_f + m, a_i)
    i, f = np.exp(a_i - m_new), np.exp(log_f + m - m_new)
    c, n = f * c + i * np.tanh(a_c), f * n + i
    return [sigmoid(a_o) * c / n, c, n, m_new]


def exponential_slstm(w, x, states):
    return slstm(w, x, states, lambda a: a)


def slstm_without_stabilizer(w, x, states):
    """Equations 8 to 14; `c` and `n` with their scale."""
    h, c, n = states
    a_i, a_f, a_c, a_o = gates_of(w, x, h)
    i, f = np.exp(a_i), sigmoid(a_f)
    c, n = f * c + i * np.tanh(a_c), f * n + i
    return [sigmoid(a_o) * c / n, c, n]


def min_gru(w, x, states, g=lambda a: a):
    (h,) = states
    a_z, a_h = gates_of(w, x)
    z = sigmoid(a_z)
    return [(1 - z) * h + z * g(a_h)]


def positive_min_gru(w, x, states):
    return min_gru(w, x, states, lambda a: np.where(a >= 0, a + 0.5, sigmoid(a)))


def min_lstm(w, x, states):
    (h,) = states
    a_i, a_f, a_h = gates_of(w, x)
    i, f = sigmoid(a_i), sigmoid(a_f)
    return [f / (f + i) * h + i / (f + i) * a_h]


@dataclass(frozen=True)
class Row:
    """A cell and its equations."""

    id: str
    name: str
    step: Callable
    parameters: Callable[[int, int], int]
    """Of units and inputs, in closed form."""
    arguments: dict = field(default_factory=dict)
    tanh: bool = True
    """Whether its activation is tanh."""

    @property
    def cell_class(self):
        return keras_gated.FURTHER_CELLS[self.name]

    @property
    def recurrent(self):
        return not self.name.startswith("min")

    def make(self, units=UNITS, **arguments):
        return self.cell_class(units, **{**self.arguments, **arguments})

    def built(self, dtype="float64", **arguments):
        """A cell with random weights, and these by name."""
        if dtype == "float64" and self.tanh and BACKEND != "tensorflow":
            arguments = {**precise_activations(self), **arguments}
        cell = self.make(dtype=dtype, **arguments)
        cell.build((None, INPUTS))
        random = np.random.default_rng(0)
        for weight in cell.trainable_variables:
            weight.assign(0.7 * random.normal(size=weight.shape))
        return cell, {w.name: array(w) for w in cell.trainable_variables}


P = {"projection_units": SMALL}
ROWS = [
    Row(
        "projected LSTM",
        "projected_lstm",
        projected_lstm,
        lambda u, d: 4 * u * (d + SMALL + 1) + 3 * u + u * SMALL,
        P,
    ),
    Row(
        "projected LSTM without peepholes",
        "projected_lstm",
        projected_lstm,
        lambda u, d: 4 * u * (d + SMALL + 1) + u * SMALL,
        {**P, "peephole": False},
    ),
    Row(
        "projected LSTM, coupled",
        "projected_lstm",
        coupled_lstm,
        lambda u, d: 3 * u * (d + SMALL + 1) + 2 * u + u * SMALL,
        {**P, "coupled": True},
    ),
    Row("IndRNN", "indrnn", indrnn, lambda u, d: u * (d + 2), tanh=False),
    Row("sLSTM", "slstm", slstm, lambda u, d: 4 * u * (d + u + 1)),
    Row(
        "sLSTM, exponential",
        "slstm",
        exponential_slstm,
        lambda u, d: 4 * u * (d + u + 1),
        {"forget_activation": "exponential"},
    ),
    Row("minGRU", "min_gru", min_gru, lambda u, d: 2 * u * (d + 1), tanh=False),
    Row(
        "minGRU, positive",
        "min_gru",
        positive_min_gru,
        lambda u, d: 2 * u * (d + 1),
        {"activation": positive},
        tanh=False,
    ),
    Row("minLSTM", "min_lstm", min_lstm, lambda u, d: 3 * u * (d + 1), tanh=False),
]
each_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.id)
ONE_EACH = [row for row in ROWS if not row.arguments or row.arguments == P]
each_cell = pytest.mark.parametrize("row", ONE_EACH, ids=lambda row: row.name)


def states_of(cell, dtype="float64", batch=BATCH):
    """Random states, that of a normalizer positive."""
    random = np.random.default_rng(5)
    sizes = keras.tree.flatten(cell.state_size)
    states = [random.normal(size=(batch, size)).astype(dtype) for size in sizes]
    if len(states) == 4:
        states[2] = np.abs(states[2]) + 0.5
    return states


def by_step(step, w, x, states):
    """The outputs of all steps and the last states, as `RNN` returns them."""
    outputs = []
    for t in range(x.shape[1]):
        states = step(w, x[:, t], states)
        outputs.append(states[0])
    return [np.stack(outputs, axis=1), *states]


def assert_same(ours, theirs, atol=1e-9):
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(array(a), array(b), atol=atol, rtol=atol)


@each_row
def test_equals_the_equations_of_the_paper(row):
    cell, w = row.built()
    assert cell.count_params() == row.parameters(UNITS, INPUTS)
    x, _ = sequences(dtype="float64")
    states = states_of(cell)
    expected = by_step(row.step, w, x, states)
    for layer_class in (RNN, keras.layers.RNN):
        layer = layer_class(cell, **ALL, dtype="float64")
        assert_same(layer(x, initial_state=states), expected)


def test_stabilizer_changes_no_output():
    cell, w = ROWS[4].built()
    x, _ = sequences(dtype="float64")
    h, c, n, m = states_of(cell)
    outputs, h, c, n, m = RNN(cell, **ALL, dtype="float64")(
        x, initial_state=[h, c, n, m]
    )
    states = states_of(cell)
    scale = np.exp(states.pop())
    states = [states[0], *(scale * state for state in states[1:])]
    expected = by_step(slstm_without_stabilizer, w, x, states)
    scaled = [array(state) * np.exp(array(m)) for state in (c, n)]
    assert_same([outputs, h, *scaled], expected)


@pytest.mark.parametrize("row", ROWS[4:6], ids=lambda row: row.id)
def test_large_exponents_are_finite(row):
    """From the empty memory, which has no scale yet, and in float32."""
    cell, _ = row.built("float32")
    layer = RNN(cell, **ALL)
    layer.build((1, None, INPUTS))
    for first in (-200, 200):
        x = np.full((1, 4, INPUTS), first, "float32")
        x[:, 1::2] *= -1
        _, by_weight, by_input = gradients(layer, [x], True)
        found = [*layer(x), *by_weight, by_input]
        assert all(np.isfinite(array(y)).all() for y in found)
        assert np.abs(array(layer(x)[0])).max() <= 1


def test_gates_next_to_zero_still_add_up_to_one():
    cell = keras_gated.MinLSTMCell(UNITS)
    cell.build((None, 3 * UNITS))
    cell.kernel.assign(np.eye(3 * UNITS))
    x = np.array([[-500] * UNITS + [-499] * UNITS + [1] * UNITS], "float32")
    gates = cell.gate_activations(x, cell.get_initial_state(1))
    np.testing.assert_allclose(array(gates["forget"]), sigmoid(1.0), rtol=1e-6)
    np.testing.assert_allclose(array(gates["input"]), sigmoid(-1.0), rtol=1e-6)


def test_projected_lstm_equals_that_of_pytorch():
    torch = pytest.importorskip("torch")
    module = torch.nn.LSTM(
        INPUTS, UNITS, proj_size=SMALL, batch_first=True, dtype=torch.float64
    )
    cell, _ = ROWS[1].built()
    W, U, P, b_W, b_U = (
        getattr(module, f"{name}_l0").detach().cpu().numpy().T
        for name in ("weight_ih", "weight_hh", "weight_hr", "bias_ih", "bias_hh")
    )
    cell.set_weights([W, U, b_W + b_U, P])
    x, _ = sequences(dtype="float64")
    states = states_of(cell)
    first = tuple(torch.tensor(state)[None] for state in states)
    outputs, last = module(torch.tensor(x), first)
    expected = [outputs.detach().numpy(), *(s[0].detach().numpy() for s in last)]
    ours = RNN(cell, **ALL, dtype="float64")(x, initial_state=states)
    assert_same(ours, expected)


# Each case has several options at once.
CASES = {
    "masked, backwards, from states": (
        {**ALL, "go_backwards": True},
        {"mask": GAPS, "states": True},
        {},
    ),
    "all that is random": (
        ALL,
        {"mask": GAPS, "states": True},
        {
            **{"dropout": 0.3, "recurrent_dropout": 0.4, "weight_noise": 0.2},
            **{"layer_norm": True, "zoneout": 0.3},
        },
    ),
    "states again, no bias": (
        {"return_sequences": True, "recompute_states": True},
        {},
        {"use_bias": False, "recurrent_dropout": 0.4},
    ),
}


def run(row, layer, call, arguments, fast, batch=BATCH, time=TIME):
    """Outputs and gradients of a layer, flat."""
    arguments, dtype = dict(arguments), "float64"
    if not row.recurrent:
        arguments.pop("recurrent_dropout", None)
    cell, _ = row.built(dtype=dtype, seed=5, **arguments)
    options = dict(layer)
    if not fast:
        for name in ("recompute_states", "truncate_gradient"):
            options.pop(name, None)
    rnn = RNN(cell, dtype=dtype, use_fast_loop=fast, **options)
    x, _ = sequences(dtype=dtype, batch=batch, time=time)
    rnn.build(x.shape)
    call = dict(call)
    if call.pop("states", False):
        call["initial_state"] = states_of(cell, dtype, batch)
    keras.utils.set_random_seed(11)  # PyTorch's dropout has no other seed
    value, by_weight, by_input = gradients(rnn, [x], True, **call)
    return [value, *by_weight, by_input, *keras.tree.flatten(rnn(x, **call))]


@pytest.mark.parametrize(("case", "row"), some(itertools.product(CASES, ONE_EACH)))
def test_fast_loop_equals_keras_loop(case, row):
    """Outputs, states, and the gradients of weights and inputs, in float64."""
    assert_same(*(run(row, *CASES[case], fast=fast) for fast in (True, False)))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow")
@pytest.mark.parametrize("row", some(ONE_EACH))
def test_cores_share_a_batch_in_blocks(row, monkeypatch):
    """Of three rows, with each product in several parts, and blocks of two steps."""
    from keras_gated.layers import loop_blocks as blocks
    from keras_gated.layers import loop_shards as shards

    monkeypatch.setattr(shards, "number", lambda batch: 2)
    monkeypatch.setattr(shards, "LARGEST", 20)
    monkeypatch.setattr(blocks, "most_steps", lambda batch, units: 3)
    monkeypatch.setattr(blocks, "size", lambda steps, most, training: 2)
    layer, _, arguments = CASES["all that is random"]
    call = {"mask": np.array([*GAPS, [0, 0, 0, 1, 0]], bool), "states": True}
    of_case = layer, call, arguments
    assert_same(*(run(row, *of_case, fast=f, batch=3) for f in (True, False)))


@pytest.mark.skipif(BACKEND != "torch", reason="of PyTorch")
@pytest.mark.parametrize("small", [0, 100], ids=["in order", "in blocks"])
@pytest.mark.parametrize("row", ONE_EACH[-2:], ids=lambda row: row.name)
def test_linear_recurrence_equals_loop(row, small, monkeypatch):
    """Of a length that is no multiple of a block's; truncation keeps the usual loop."""
    from keras_gated.layers import loop_linear

    monkeypatch.setattr(loop_linear, "SMALL", small)
    layer, _, arguments = CASES["all that is random"]
    mask = np.random.default_rng(2).random((BATCH, 41)) < 0.8
    of_case = {"mask": mask, "states": True}, arguments
    found = run(row, layer, *of_case, fast=True, time=41)
    looped = {**layer, "truncate_gradient": 41}
    assert_same(found, run(row, looped, *of_case, fast=True, time=41))
    assert_same(found, run(row, layer, *of_case, fast=False, time=41))
    assert "one linear recurrence" in RNN(row.make()).loop
    assert "one linear" not in RNN(row.make(), truncate_gradient=2).loop


@pytest.mark.skipif(BACKEND != "torch", reason="of PyTorch")
@pytest.mark.parametrize("steps", [1, 2, 16, 41])
def test_linear_recurrence_has_all_derivatives(steps):
    import torch

    from keras_gated.layers.loop_linear import _Recurrence

    a, b, first = (
        torch.rand(*shape, dtype=torch.float64, requires_grad=True)
        for shape in ((steps, 1, 2), (steps, 1, 2), (1, 2))
    )
    torch.autograd.gradcheck(_Recurrence.apply, (a, b, first), check_forward_ad=True)
    torch.autograd.gradgradcheck(_Recurrence.apply, (a, b, first))

    def gradient(a):
        return torch.func.grad(lambda a: _Recurrence.apply(a, b, first).sum())(a)

    mapped = torch.func.vmap(gradient)(torch.stack([a, 2 * a]))
    assert torch.allclose(mapped[1], gradient(2 * a))


@each_cell
def test_layer_is_saved_and_loaded(row, tmp_path):
    layer_class = keras_gated.LAYERS[row.name]
    assert layer_class is getattr(keras_gated, layer_class.__name__)
    arguments = {**row.arguments, "weight_noise": 0.1, "zoneout": 0.1}
    layer = layer_class(UNITS, **arguments, return_sequences=True)
    assert all(getattr(layer, name) == arguments[name] for name in arguments)
    model = keras.Sequential([keras.Input((None, INPUTS)), layer])
    size = keras.tree.flatten(layer.cell.state_size)[0]
    assert model.output_shape == (None, None, size)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].get_config() == layer.get_config()
    x, _ = sequences()
    np.testing.assert_array_equal(array(loaded(x)), array(model(x)))


def test_activation_of_the_appendix_is_saved():
    cell = keras_gated.MinGRUCell(3, positive)
    config = keras.saving.serialize_keras_object(cell)
    assert keras.saving.deserialize_keras_object(config).activation is positive


@each_cell
def test_mixed_precision(row):
    policy = "mixed_float16"  # whose range is the smaller one
    layer = RNN(row.make(dtype=policy, dropout=0.1), dtype=policy)
    x, _ = sequences()
    layer.build(x.shape)
    if row.name == "slstm":  # compiling takes long
        model = keras.Sequential([layer])
        model.compile("sgd", "mse")
        history = model.fit(x, np.zeros((BATCH, UNITS)), verbose=0).history
        assert np.isfinite(history["loss"]).all()
    full = RNN(row.make())
    full.build(x.shape)
    full.set_weights(layer.get_weights())
    assert layer(x).dtype != full(x).dtype
    half = array(keras.ops.cast(layer(x), "float32"))
    np.testing.assert_allclose(half, array(full(x)), atol=0.05)


@pytest.mark.skipif(BACKEND == "jax", reason="slow there")
def test_units_for_a_budget():
    for row in ONE_EACH:
        units = keras_gated.match_units(row.cell_class, 2_000, 7, **row.arguments)
        around = [row.parameters(units + k, 7) for k in (-1, 0, 1)]
        assert np.argmin(np.abs(np.array(around) - 2_000)) == 1


def test_recurrent_weights_of_an_indrnn():
    """Start in [-1, 1], differ from layer to layer, and are bounded as asked."""
    bound = 2 ** (1 / TIME)
    layer, other = (
        keras_gated.IndRNN(
            50, recurrent_constraint=keras.constraints.MaxNorm(bound), name=name
        )
        for name in "ab"
    )
    x, _ = sequences()
    for each in (layer, other):
        each(x)
    u, v = (array(each.cell.recurrent_kernel) for each in (layer, other))
    assert u.min() < -0.5 < 0.5 < u.max()
    assert np.abs(u).max() <= 1
    assert np.abs(u - v).max() > 0.1
    large = np.linspace(-3, 3, 50)[None]
    layer.cell.recurrent_kernel.assign(large)
    bounded = array(layer.cell.recurrent_constraint(layer.cell.recurrent_kernel))
    np.testing.assert_allclose(bounded, np.clip(large, -bound, bound), rtol=1e-5)


BAD = [
    ("projected_lstm", {"projection_units": 0}, "`projection_units` must be"),
    ("projected_lstm", {**P, "zoneout": [0.1]}, "one for each state, here 2"),
    ("slstm", {"forget_activation": "tanh"}, "'sigmoid' or 'exponential'"),
    ("slstm", {"zoneout": [0.1] * 4}, "`zoneout` must be a number"),
    ("indrnn", {"activation": "step"}, "`activation` must be"),
    ("min_gru", {"recurrent_dropout": 0.1}, "no recurrent kernel that `recurrent_dr"),
    ("min_lstm", {"recurrent_regularizer": "l2"}, "no recurrent kernel"),
    ("min_lstm", {"weight_noise": math.nan}, "`weight_noise` must be"),
]


@pytest.mark.parametrize(("name", "arguments", "message"), BAD, ids=range(len(BAD)))
def test_bad_argument(name, arguments, message):
    kind = keras_gated.FURTHER_CELLS[name]
    with pytest.raises(ValueError, match=message):
        kind(UNITS, **arguments).build((None, INPUTS))


@pytest.mark.skipif(BACKEND == "jax", reason="Keras has no such masks there")
def test_mask_of_each_unit_needs_states_of_one_size():
    layer = RNN(ROWS[0].make())
    x, _ = sequences()
    with pytest.raises(ValueError, match="`mask` must be boolean"):
        layer(x, mask=np.ones((BATCH, TIME, SMALL), bool))
