"""Cells as the recurrent operators of ONNX."""

from typing import Any, NamedTuple

import keras
import numpy as np

from keras_gated.cells.gru import GRUEquations, ResetAfterEquations
from keras_gated.cells.lstm import CoupledEquations, LSTMEquations
from keras_gated.cells.simplified_gru import SimplifiedGRUEquations
from keras_gated.cells.tanh import TanhEquations
from keras_gated.layers.cells_of_keras import (
    KerasGRUEquations,
    KerasResetAfterEquations,
    seen_by_loop,
)
from keras_gated.layers.rnn import RNN

OPEN = 50.0
"""What goes into a sigmoid that is to be 1 exactly, in float32."""
ACTIVATIONS = {
    "tanh": ("Tanh", (), ()),
    "sigmoid": ("Sigmoid", (), ()),
    "relu": ("Relu", (), ()),
    "hard_sigmoid": ("HardSigmoid", (1 / 6,), (0.5,)),
    "linear": ("Affine", (1.0,), (0.0,)),
    "softsign": ("Softsign", (), ()),
}
"""Of Keras, as ONNX has them: the name, alpha and beta."""
_NAMES = {getattr(keras.activations, name): name for name in ACTIVATIONS}
SYMMETRIC = ("sigmoid", "hard_sigmoid")
"""Those of which s(-a) is 1 - s(a)."""
_LOOPS = {
    layer.inner_loop
    for layer in (
        RNN,
        keras.layers.RNN,
        keras.layers.LSTM,
        keras.layers.GRU,
        keras.layers.SimpleRNN,
    )
}
"""Whose layers do nothing else than run their cells."""


class Operator(NamedTuple):
    """An operator of ONNX, with its weights as ONNX lays them out."""

    kind: str
    """`"RNN"`, `"LSTM"` or `"GRU"`."""
    weights: dict[str, np.ndarray]
    """`W`, `R`, `B` and, if there are peepholes, `P`."""
    attributes: dict[str, Any]
    units: int
    states: int


class NoOperatorError(ValueError):
    """ONNX has no operator for a layer; the message says why."""


def of_layer(layer: keras.layers.RNN) -> list[Operator]:
    """The operators that compute what a recurrent layer computes outside training.

    The equations of the operators are those of the ONNX specification
    (https://onnx.ai/onnx/operators/onnx__LSTM.html and its siblings).

    Args:
        layer: A built layer.

    Returns:
        One for each cell of a stack.

    Raises:
        NoOperatorError: There are none.
    """
    if type(layer).inner_loop not in _LOOPS:
        raise NoOperatorError(f"{type(layer).__name__} has a loop of its own")
    stacked = type(layer.cell) is keras.layers.StackedRNNCells
    return [_of_cell(cell) for cell in (layer.cell.cells if stacked else [layer.cell])]


def _of_cell(cell: Any) -> Operator:
    name = type(cell).__name__
    seen = seen_by_loop(cell)
    equations = getattr(seen, "equations", None)
    make = _KINDS.get(type(equations))
    if make is None:
        raise NoOperatorError(f"ONNX has no operator for {name}")
    if equations.layer_norm:
        raise NoOperatorError(f"the operators of ONNX have no layer_norm ({name})")
    if getattr(seen, "_zones", lambda: None)() is not None:
        raise NoOperatorError(f"the operators of ONNX have no zoneout ({name})")
    if seen.compute_dtype != "float32":
        raise NoOperatorError(
            f"onnxruntime has its operators in float32 alone ({name} computes in "
            f"{seen.compute_dtype})"
        )
    for activation in _activations(equations):
        if activation not in _NAMES:
            text = getattr(activation, "__name__", repr(activation))
            raise NoOperatorError(f"ONNX has no activation {text} ({name})")
    flips = make in (_gru, _simplified, _coupled)
    if flips and not isinstance(
        equations, (KerasGRUEquations, KerasResetAfterEquations)
    ):
        gate = _NAMES[equations.recurrent_activation]
        if gate not in SYMMETRIC:
            raise NoOperatorError(
                f"the operators of ONNX have 1 - z of a sigmoid alone ({name} has "
                f"{gate})"
            )
    return make(equations, seen.units, _arrays(seen))


class _Arrays(NamedTuple):
    """The weights of a cell, as arrays with a block of columns for each gate."""

    W: np.ndarray
    U: np.ndarray
    b: np.ndarray
    b_U: np.ndarray
    V: list[np.ndarray] | None

    def blocks(self, change: Any) -> "_Arrays":
        """These with other blocks: `change` takes and gives a list of them."""
        count = self.W.shape[-1] // self.U.shape[0]

        def changed(array: np.ndarray) -> np.ndarray:
            blocks = change(np.split(array, count, axis=-1))
            return np.concatenate(blocks, axis=-1)

        return _Arrays(*map(changed, self[:4]), self.V)


def _arrays(seen: Any) -> _Arrays:
    W, b = seen._projection(False)
    recurrent = seen._recurrence(False, None)
    array = keras.ops.convert_to_numpy
    W = array(W)
    U = np.concatenate([array(U) for U in recurrent.U.values()], axis=-1)
    b = np.zeros(W.shape[-1], W.dtype) if b is None else array(b)
    b_U = [array(part) for part in (recurrent.b_U or {}).values()]
    b_U = np.concatenate(b_U, axis=-1) if b_U else np.zeros_like(b)
    V = None if recurrent.V is None else [array(v) for v in recurrent.V]
    return _Arrays(W, U, b, b_U, V)


def _activations(equations: Any) -> list[Any]:
    gate = getattr(equations, "recurrent_activation", None)
    if gate is None:
        return [equations.activation]
    lstm = isinstance(equations, LSTMEquations)
    return [gate] + [equations.activation] * (1 + lstm)


def _operator(
    kind: str, equations: Any, units: int, arrays: _Arrays, **attributes: Any
) -> Operator:
    W, U, b, b_U, V = arrays
    weights = {"W": W.T[None], "R": U.T[None], "B": np.concatenate([b, b_U])[None]}
    if V is not None:
        weights["P"] = np.concatenate(V)[None]
    weights = {
        name: np.ascontiguousarray(value, "float32") for name, value in weights.items()
    }
    found = [ACTIVATIONS[_NAMES[a]] for a in _activations(equations)]
    names = [name for name, _, _ in found]
    if names != {"RNN": ["Tanh"], "GRU": ["Sigmoid", "Tanh"]}.get(
        kind, ["Sigmoid", "Tanh", "Tanh"]
    ):
        attributes["activations"] = names
        for argument, place in (("activation_alpha", 1), ("activation_beta", 2)):
            values = [value for one in found for value in one[place]]
            attributes |= {argument: values} if values else {}
    return Operator(kind, weights, attributes, units, 2 if kind == "LSTM" else 1)


def _rnn(equations: Any, units: int, arrays: _Arrays) -> Operator:
    return _operator("RNN", equations, units, arrays)


def _lstm(equations: Any, units: int, arrays: _Arrays) -> Operator:
    """Ours are i f c o, and i f o of the peepholes; theirs i o f c, and i o f."""
    V = arrays.V and [arrays.V[k] for k in (0, 2, 1)]
    arrays = arrays.blocks(lambda g: [g[0], g[3], g[1], g[2]])._replace(V=V)
    return _operator("LSTM", equations, units, arrays)


def _coupled(equations: Any, units: int, arrays: _Arrays) -> Operator:
    """The forget gate of -a is one minus the input gate of a."""
    V = arrays.V and [arrays.V[0], -arrays.V[0], arrays.V[1]]
    arrays = arrays.blocks(lambda g: [g[0], -g[0], g[1], g[2]])._replace(V=V)
    return _lstm(equations, units, arrays)


def _gru(equations: Any, units: int, arrays: _Arrays) -> Operator:
    """Their z weighs the old state: it is ours of -a."""
    kinds = KerasGRUEquations, KerasResetAfterEquations
    if not isinstance(equations, kinds):
        arrays = arrays.blocks(lambda g: [-g[0], *g[1:]])
    after = int(isinstance(equations, ResetAfterEquations))
    return _operator("GRU", equations, units, arrays, linear_before_reset=after)


def _simplified(equations: Any, units: int, arrays: _Arrays) -> Operator:
    """A reset gate that is 1: no weights, and a large bias."""
    b = arrays.blocks(lambda g: [-g[0], np.full_like(g[0], OPEN), g[1]]).b
    arrays = arrays.blocks(lambda g: [-g[0], np.zeros_like(g[0]), g[1]])
    arrays = arrays._replace(b=b)
    # After the product, so that one product gives all gates.
    return _operator("GRU", equations, units, arrays, linear_before_reset=1)


_KINDS = {
    TanhEquations: _rnn,
    LSTMEquations: _lstm,
    CoupledEquations: _coupled,
    GRUEquations: _gru,
    ResetAfterEquations: _gru,
    KerasGRUEquations: _gru,
    KerasResetAfterEquations: _gru,
    SimplifiedGRUEquations: _simplified,
}
