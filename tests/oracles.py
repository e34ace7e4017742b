"""The table of cells, and for each of them computations nobody here wrote.

All weights are random and different, biases and peepholes included; batch,
time, input and units all differ, so that no two axes can be confused.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import keras
import numpy as np
import onnx
import pytest
from onnx import helper

import keras_gated

BATCH, TIME, INPUTS, UNITS = 2, 5, 3, 4


@dataclass(frozen=True)
class Row:
    """A cell: how to make it, what it has, and what computes the same."""

    id: str
    cell_class: type
    gates: set[str]
    parameters: Callable[[int, int], int]
    """Of units and inputs, in closed form."""
    keras_twin: type
    """Keras's cell of the same equation."""
    to_keras: Callable[[list], list]
    """Our weights as the twin's."""
    to_onnx: Callable[[list], dict]
    """Our weights as an ONNX operator: op, W, R, B and, if any, P and attributes."""
    arguments: dict = field(default_factory=dict)
    keras_arguments: dict = field(default_factory=dict)
    own: dict = field(default_factory=dict)
    """Its arguments beyond those of every cell, with values to save and load."""
    peepholes: bool = False
    same_weights: bool = True
    """Whether the twin has a weight for each of ours."""

    def make(self, units=UNITS, **arguments):
        return self.cell_class(units, **{**self.arguments, **arguments})

    def twin(self, units=UNITS, **arguments):
        return self.keras_twin(units, **{**self.keras_arguments, **arguments})


def some(values, first=1):
    """As parameters: every third value is tested always, the others by `test-slow`.

    Where they are the pairs of two lists of at least three, the length of the second of
    which is no multiple of three, each element of both is among those tested always.
    """

    def parameter(number, value):
        parts = value if isinstance(value, tuple) else (value,)
        names = [getattr(p, "id", getattr(p, "name", str(p))) for p in parts]
        marks = [] if number % 3 == first else [pytest.mark.slow]
        return pytest.param(*parts, id="-".join(names), marks=marks)

    return [parameter(n, value) for n, value in enumerate(values)]


def negate_first_third(array):
    """Keras, PyTorch and ONNX call `1 - z` what the paper calls `z`."""
    z, rest = np.split(array, [array.shape[-1] // 3], axis=-1)
    return np.concatenate([-z, rest], axis=-1)


def with_open_reset_gate(weights):
    """The simplified GRU as a full one: r = sigmoid(50), which is 1 exactly."""
    W, U, b = weights
    units = len(U)

    def insert(array, reset):
        z, h = np.split(array, 2, axis=-1)
        return np.concatenate([z, reset, h], axis=-1)

    return [
        insert(W, np.zeros((len(W), units))),
        insert(U, np.zeros((units, units))),
        insert(b, np.full(units, 50.0)),
    ]


def gru_to_keras(weights):
    return [negate_first_third(w) for w in weights]


def onnx_op(op, W, U, b, order, b_U=None, P=None, **attributes):
    """Transposes kernels and puts the blocks of gates in ONNX's order."""

    def blocks(array):
        parts = np.split(array, len(order), axis=-1)
        return np.concatenate([parts[k] for k in order], axis=-1)

    b_U = np.zeros_like(b) if b_U is None else b_U
    weights = {
        "W": blocks(W).T[None],
        "R": blocks(U).T[None],
        "B": np.concatenate([blocks(b), blocks(b_U)])[None],
    }
    if P is not None:
        weights["P"] = P
    return {"op": op, "weights": weights, "attributes": attributes}


def lstm_to_onnx(weights):
    W, U, b, *V = weights
    # ours: i f c o, V: i f o; theirs: i o f c, P: i o f
    P = np.concatenate(V[0][[0, 2, 1]])[None] if V else None
    return onnx_op("LSTM", W, U, b, order=(0, 3, 1, 2), P=P)


def with_forget_gate(weights):
    """The coupled LSTM as a whole one: f = sigmoid(-a) where i = sigmoid(a)."""

    def insert(array):
        i, c, o = np.split(array, 3, axis=-1)
        return np.concatenate([i, -i, c, o], axis=-1)

    W, U, b, V = weights
    return [*map(insert, (W, U, b)), np.stack([V[0], -V[0], V[1]])]


def gru_to_onnx(weights):
    W, U, b = gru_to_keras(weights)
    b, b_U = b if b.ndim == 2 else (b, None)
    after = int(b_U is not None)
    return onnx_op("GRU", W, U, b, (0, 1, 2), b_U, linear_before_reset=after)


ROWS = [
    Row(
        "tanh",
        keras_gated.TanhCell,
        {"candidate"},
        lambda u, d: u * (d + u + 1),
        keras.layers.SimpleRNNCell,
        list,
        lambda w: onnx_op("RNN", *w, order=(0,)),
    ),
    Row(
        "lstm",
        keras_gated.LSTMCell,
        {"input", "forget", "candidate", "output"},
        lambda u, d: 4 * u * (d + u + 1) + 3 * u,
        keras.layers.LSTMCell,
        lambda w: w[:3],  # the same only where the peepholes are zero
        lstm_to_onnx,
        own={
            "recurrent_activation": "hard_sigmoid",
            "unit_forget_bias": False,
            "peephole": True,
            "coupled": True,
            "peephole_initializer": "he_normal",
            "peephole_regularizer": keras.regularizers.L2(0.05),
            "peephole_constraint": "unit_norm",
        },
        peepholes=True,
    ),
    Row(
        "lstm_without_peepholes",
        keras_gated.LSTMCell,
        {"input", "forget", "candidate", "output"},
        lambda u, d: 4 * u * (d + u + 1),
        keras.layers.LSTMCell,
        list,
        lstm_to_onnx,
        {"peephole": False},
    ),
    Row(
        "lstm_coupled",
        keras_gated.LSTMCell,
        {"input", "candidate", "output"},
        lambda u, d: 3 * u * (d + u + 1) + 2 * u,
        keras.layers.LSTMCell,
        lambda w: with_forget_gate(w)[:3],
        lambda w: lstm_to_onnx(with_forget_gate(w)),
        {"coupled": True},
        peepholes=True,
        same_weights=False,
    ),
    Row(
        "gru",
        keras_gated.GRUCell,
        {"update", "reset", "candidate"},
        lambda u, d: 3 * u * (d + u + 1),
        keras.layers.GRUCell,
        gru_to_keras,
        gru_to_onnx,
        {},
        {"reset_after": False},
    ),
    Row(
        "gru_reset_after",
        keras_gated.GRUCell,
        {"update", "reset", "candidate"},
        lambda u, d: 3 * u * (d + u + 2),
        keras.layers.GRUCell,
        gru_to_keras,
        gru_to_onnx,
        {"reset_after": True},
        {"reset_after": True},
        own={"recurrent_activation": "hard_sigmoid", "reset_after": True},
    ),
    Row(
        "simplified_gru",
        keras_gated.SimplifiedGRUCell,
        {"update", "candidate"},
        lambda u, d: 2 * u * (d + u + 1),
        keras.layers.GRUCell,
        lambda w: gru_to_keras(with_open_reset_gate(w)),
        lambda w: gru_to_onnx(with_open_reset_gate(w)),
        {},
        {"reset_after": False},
        own={"recurrent_activation": "hard_sigmoid"},
        same_weights=False,
    ),
]


def randomise(cell, seed=0, peepholes=1.0, scale=0.7):
    """Gives a built cell random weights; returns them as float64 arrays."""
    random = np.random.default_rng(seed)
    for weight in cell.trainable_variables:
        factor = peepholes if weight.name == "peephole_kernel" else 1.0
        weight.assign(factor * scale * random.normal(size=weight.shape))
    return [array(w).astype("float64") for w in cell.trainable_variables]


def built(row, seed=0, **arguments):
    """A cell with random weights, and these."""
    cell = row.make(**arguments)
    cell.build((None, INPUTS))
    return cell, randomise(cell, seed)


def built_pair(row, seed=0, dtype=None, **arguments):
    """A cell with random weights (peepholes 0), and Keras's with the same."""
    cell, twin = (make(dtype=dtype, **arguments) for make in (row.make, row.twin))
    for layer in (cell, twin):
        layer.build((None, INPUTS))
    weights = row.to_keras(randomise(cell, seed, peepholes=0.0))
    for variable, weight in zip(twin.trainable_variables, weights, strict=True):
        variable.assign(weight)
    return cell, twin


def precise_activations(row):
    """Arguments with which a cell computes in float64 on every backend.

    Keras's own activations compute in float32 at most on JAX and PyTorch.
    """
    if keras.config.backend() == "jax":
        import jax

        activations = {
            "activation": jax.numpy.tanh,
            "recurrent_activation": jax.nn.sigmoid,
        }
    elif keras.config.backend() == "torch":
        import torch

        activations = {
            "activation": torch.tanh,
            "recurrent_activation": torch.sigmoid,
        }
    else:
        return {}
    if not issubclass(row.cell_class, keras_gated.GatedCell):
        del activations["recurrent_activation"]
    return activations


def array(tensor):
    return keras.ops.convert_to_numpy(tensor)


def sequences(seed=0, dtype="float32", batch=BATCH, time=TIME):
    """Inputs, and states enough for any cell."""
    random = np.random.default_rng(seed + 100)
    x = random.normal(size=(batch, time, INPUTS)).astype(dtype)
    states = [random.normal(size=(batch, UNITS)).astype(dtype) for _ in range(2)]
    return x, states


def onnx_model(operator, dtype, outputs):
    """A one-node ONNX model over `X` and the initial states."""
    W = operator["weights"]
    names = ["X", "W", "R", "B", "", "initial_h"]
    if operator["op"] == "LSTM":
        names += ["initial_c", *(["P"] if "P" in W else [])]
    node = helper.make_node(
        operator["op"], names, outputs, hidden_size=UNITS, **operator["attributes"]
    )
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    free = [name for name in names if name and name not in W]
    graph = helper.make_graph(
        [node],
        "oracle",
        [helper.make_tensor_value_info(n, kind, [None] * 3) for n in free],
        [helper.make_tensor_value_info(n, kind, None) for n in outputs],
        [onnx.numpy_helper.from_array(w.astype(dtype), n) for n, w in W.items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8
    )


def run_onnx(row, weights, x, states, engine):
    """All outputs `[batch, time, units]`, and the final states, by ONNX."""
    operator = row.to_onnx(weights)
    outputs = ["Y", "Y_h"] + ["Y_c"] * (operator["op"] == "LSTM")
    model = onnx_model(operator, x.dtype, outputs)
    feed = {"X": x.swapaxes(0, 1), "initial_h": states[0][None]}
    if operator["op"] == "LSTM":
        feed["initial_c"] = states[1][None]
    Y, *final = engine(model, feed)
    return Y[:, 0].swapaxes(0, 1), [state[0] for state in final]


def onnxruntime_engine(model, feed):
    import onnxruntime

    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, feed)


def onnx_reference_engine(model, feed):
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(model).run(None, feed)
