"""Weights from and to layers of other libraries, where the equations coincide.

The conventions differ in three ways. First, `z` weighs the candidate here and in the
paper, and the old state elsewhere: their `z` is `1 - z` here, and because
`1 - σ(a) = σ(-a)` the columns of `z` change their sign. Second, PyTorch has two biases,
of which only the sum matters except in the candidate of a GRU. Third, the order of the
gates differs.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_gated.cells import GRUCell, LSTMCell, TanhCell
from keras_gated.layers.by_units import GRU, LAYERS, LSTM, CellRNN, TanhRNN
from keras_gated.layers.rnn import LAYER_ARGUMENTS, RNN

_OF_KERAS = {
    keras.layers.SimpleRNNCell: TanhRNN,
    keras.layers.LSTMCell: LSTM,
    keras.layers.GRUCell: GRU,
}
_TO_KERAS = {
    TanhCell: keras.layers.SimpleRNN,
    LSTMCell: keras.layers.LSTM,
    GRUCell: keras.layers.GRU,
}


def from_keras(layer: keras.layers.Layer) -> CellRNN:
    """Converts a layer of Keras to a layer of this package with the same outputs.

    Args:
        layer: A built `keras.layers.SimpleRNN`, `LSTM` or `GRU`, or a
            `keras.layers.RNN` over one of their cells.

    Returns:
        A built `TanhRNN`, `LSTM` (without peepholes) or `GRU` (with the
        `reset_after` that the layer has), with the same arguments.

    Raises:
        ValueError: The layer is of another class, or not built.

    Example:

    >>> import keras, numpy as np
    >>> from keras_gated import from_keras
    >>> theirs, x = keras.layers.GRU(4), np.ones((2, 5, 3), "float32")
    >>> expected = theirs(x)
    >>> bool(np.allclose(from_keras(theirs)(x), expected, atol=1e-6))
    True
    """
    cell = getattr(layer, "cell", None)
    layer_class = _OF_KERAS.get(type(cell))
    if layer_class is None:
        raise ValueError(
            "from_keras takes a SimpleRNN, LSTM or GRU of Keras, or an RNN over one "
            f"of their cells. Received: layer={layer!r}"
        )
    _check_built(layer, cell)
    config = {**_cell_config(cell), **_layer_config(layer)}
    config.pop("implementation", None)
    if layer_class is LSTM:
        config["peephole"] = False
    weights = _variables(cell)
    if layer_class is GRU:
        weights = [_negate_z(w) for w in weights]
    return _with_weights(layer_class(**config), weights, layer.states)


def to_keras(layer: RNN) -> keras.layers.Layer:
    """Converts a layer of this package to a layer of Keras with the same outputs.

    Args:
        layer: A built `RNN` over a `TanhCell`, an `LSTMCell` without peepholes or
            a `GRUCell`; or a `TanhRNN`, `LSTM` or `GRU`.

    Returns:
        A built `keras.layers.SimpleRNN`, `LSTM` or `GRU`.

    Raises:
        ValueError: Keras has no layer of these equations, or the layer is not
            built. The message gives the reason.

    Example:

    >>> import numpy as np
    >>> from keras_gated import GRU, to_keras
    >>> ours, x = GRU(4), np.ones((2, 5, 3), "float32")
    >>> expected = ours(x)
    >>> bool(np.allclose(to_keras(ours)(x), expected, atol=1e-6))
    True
    """
    cell = getattr(layer, "cell", None)
    layer_class = _TO_KERAS.get(type(cell))
    reason = None
    if layer_class is None:
        reason = f"it has no layer for {type(cell).__name__}"
    elif getattr(cell, "peephole", False):
        reason = "its LSTM has no peepholes"
    elif getattr(cell, "coupled", False):
        reason = "its LSTM has no coupled gates"
    elif cell.weight_noise:
        reason = "its layers have no weight noise"
    elif cell.layer_norm:
        reason = "its layers have no layer normalization"
    elif cell._zones():
        reason = "its layers have no zoneout"
    elif layer.learn_initial_state:
        reason = "its layers learn no initial state"
    if reason:
        raise ValueError(
            f"This layer has no twin in Keras: {reason}. Received: layer={layer!r}"
        )
    _check_built(layer, cell)
    config = {**_cell_config(cell), **_layer_config(layer)}
    ours = "weight_noise", "layer_norm", "zoneout", "peephole", "coupled"
    config = {n: v for n, v in config.items() if not n.startswith(ours)}
    weights = _variables(cell)
    if layer_class is keras.layers.GRU:
        weights = [_negate_z(w) for w in weights]
    return _with_weights(layer_class(**config), weights, layer.states)


def from_torch(module: Any) -> keras.layers.Layer:
    """Converts a recurrent module of PyTorch to a layer with the same outputs.

    The layer takes batch-major inputs. If the module is not `batch_first`, swap the
    first two axes of its inputs.

    Args:
        module: A `torch.nn.RNN`, `LSTM` or `GRU`.

    Returns:
        A built `TanhRNN`, `LSTM` or `ProjectedLSTM` (without peepholes) or `GRU` (with
        `reset_after`) that returns sequences; in a `keras.layers.Bidirectional`
        where the module is bidirectional, and in a `keras.Sequential`, with the
        dropout between, where it has several layers.

    Raises:
        ValueError: The module is of another class, or has no weights of its own.

    Example:

    >>> import torch, numpy as np  # doctest: +SKIP
    >>> from keras_gated import from_torch  # doctest: +SKIP
    >>> layer = from_torch(torch.nn.GRU(3, 4, batch_first=True))  # doctest: +SKIP
    >>> layer(np.ones((2, 5, 3), "float32")).shape  # doctest: +SKIP
    (2, 5, 4)
    """
    kind = getattr(module, "mode", None)
    if kind not in _OF_TORCH:
        raise ValueError(
            f"from_torch takes a torch.nn.RNN, LSTM or GRU. Received: module={module!r}"
        )
    layer_class, arguments = _OF_TORCH[kind]
    if getattr(module, "proj_size", 0):
        layer_class = LAYERS["projected_lstm"]
        arguments = {**arguments, "projection_units": module.proj_size}
    layers = []
    for k in range(module.num_layers):
        if layers and module.dropout:
            layers.append(keras.layers.Dropout(module.dropout))
        ways = [
            _with_weights(
                layer_class(
                    module.hidden_size,
                    use_bias=module.bias,
                    return_sequences=True,
                    go_backwards=suffix == "_reverse",
                    **arguments,
                ),
                _torch_weights(module, f"_l{k}{suffix}"),
            )
            for suffix in ("", "_reverse")[: 1 + module.bidirectional]
        ]
        layers.append(_bidirectional(*ways) if module.bidirectional else ways[0])
    return layers[0] if len(layers) == 1 else keras.Sequential(layers)


def from_addons(
    weights: Sequence[np.ndarray], recurrent_activation: Any = "sigmoid", **kwargs: Any
) -> CellRNN:
    """Makes a layer with the weights of a recurrent cell of TensorFlow Addons.

    Which of the cells it was is known by the shapes of the weights.

    Args:
        weights: The `get_weights()` of a `PeepholeLSTMCell`, `LayerNormLSTMCell` or
            `LayerNormSimpleRNNCell` of `tensorflow_addons.rnn`, or of the layer over
            it, with or without a bias.
        recurrent_activation: The one of an LSTM. In Keras 2, `"hard_sigmoid"` was
            another function, `min(max(0.2 x + 0.5, 0), 1)`; pass it as a callable if
            the cell used it.
        **kwargs: Further arguments of the layer, such as `return_sequences`, and
            `layer_norm_epsilon` if the cell's `norm_epsilon` or `layernorm_epsilon` was
            not its default (1e-3 of an LSTM, 1e-5 of a simple RNN).

    Returns:
        A built `LSTM` with peepholes, `LSTM` without them and with `layer_norm`, or
        `TanhRNN` with `layer_norm`. The three biases that a normalized LSTM adds up in
        Addons are one here.

    Raises:
        ValueError: The weights do not have the shapes of such a cell.
    """
    weights = [np.asarray(w) for w in weights]
    shapes = [w.shape for w in weights]
    units = shapes[1][0] if len(shapes) > 1 and len(shapes[1]) == 2 else 0
    inputs = shapes[0][0] if units and len(shapes[0]) == 2 else 0
    four, one = (4 * units,), (units,)
    of_lstm = [(inputs, 4 * units), (units, 4 * units)]
    of_tanh = [(inputs, units), (units, units)]
    bias = len(weights) in (4, 6, 9)  # of what follows the kernels
    kinds = {
        "peephole": [*of_lstm, *[four] * bias, *[one] * 3],
        "lstm": [*of_lstm, *[four] * (bias + 4), *[one] * 2],
        "tanh": [*of_tanh, *[one] * (bias + 1)],
    }
    kind = next((k for k, expected in kinds.items() if shapes == expected), None)
    if not inputs or kind is None:
        raise ValueError(
            "from_addons takes the weights of a PeepholeLSTMCell (kernel (inputs, "
            "4 * units), recurrent kernel (units, 4 * units), bias (4 * units,) "
            "unless it has none, and three peepholes (units,)), of a LayerNormLSTMCell "
            "(the same kernels and bias, gain and bias of three normalizations) or "
            "LayerNormSimpleRNNCell (kernel (inputs, units), recurrent kernel (units, "
            f"units), bias, gain (units,)). Received the shapes: {shapes}"
        )
    W, U, *others = weights
    b = others.pop(0) if bias else 0
    if kind == "tanh":
        kwargs = {"layer_norm_epsilon": 1e-5, **kwargs}
        layer = TanhRNN(units, use_bias=bias, layer_norm=True, **kwargs)
        return _with_weights(layer, [W, U, *[b] * bias, *others])
    kwargs["recurrent_activation"] = recurrent_activation
    if kind == "peephole":
        layer = LSTM(units, use_bias=bias, **kwargs)
        return _with_weights(layer, [W, U, *[b] * bias, np.stack(others)])
    gain_W, b_W, gain_U, b_U, *of_state = others
    layer = LSTM(units, peephole=False, layer_norm=True, **kwargs)
    return _with_weights(layer, [W, U, b + b_W + b_U, gain_W, gain_U, *of_state])


_OF_TORCH = {
    "RNN_TANH": (TanhRNN, {}),
    "RNN_RELU": (TanhRNN, {"activation": "relu"}),
    "LSTM": (LSTM, {"peephole": False}),
    "GRU": (GRU, {"reset_after": True}),
}


def _torch_weights(module: Any, suffix: str) -> list[np.ndarray]:
    def get(name: str) -> np.ndarray:
        weight = getattr(module, name + suffix, None)
        if not hasattr(weight, "detach"):
            raise ValueError(
                "from_torch takes a module with weights of its own, which one that was "
                f"quantized or scripted has not. Received: module={module!r}"
            )
        return weight.detach().cpu().double().numpy().T  # NumPy has no bfloat16

    W, U = get("weight_ih"), get("weight_hh")
    biases = [get("bias_ih"), get("bias_hh")] if module.bias else []
    if module.mode != "GRU":  # in PyTorch, too: i, f, c, o
        projection = [get("weight_hr")] if getattr(module, "proj_size", 0) else []
        return [W, U, *([sum(biases)] if biases else []), *projection]
    weights = [W, U, np.stack(biases)] if biases else [W, U]
    return [_negate_z(_swap_r_and_z(w)) for w in weights]


def _negate_z(weight: np.ndarray) -> np.ndarray:
    z, rest = np.split(weight, [weight.shape[-1] // 3], axis=-1)
    return np.concatenate([-z, rest], axis=-1)


def _swap_r_and_z(weight: np.ndarray) -> np.ndarray:
    r, z, h = np.split(weight, 3, axis=-1)
    return np.concatenate([z, r, h], axis=-1)


def _bidirectional(forward: CellRNN, backward: CellRNN) -> keras.layers.Layer:
    layer = keras.layers.Bidirectional(forward, backward_layer=backward)
    layer.build((None, None, forward.cell.kernel.shape[0]))
    layer.forward_layer.set_weights(forward.get_weights())
    return layer


def _variables(cell: keras.layers.Layer) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(w) for w in cell.weights]


def _with_weights(
    layer: Any, weights: list[np.ndarray], states: Sequence[Any] | None = None
) -> Any:
    batch = states[0].shape[0] if states else None
    layer.build((batch, None, len(weights[0])))
    for variable, weight in zip(layer.cell.weights, weights, strict=True):
        variable.assign(weight)
    for variable, state in zip(layer.states or (), states or (), strict=True):
        variable.assign(state)
    return layer


def _cell_config(cell: keras.layers.Layer) -> dict[str, Any]:
    config = cell.get_config()
    return {name: value for name, value in config.items() if name not in ("name",)}


def _layer_config(layer: keras.layers.RNN) -> dict[str, Any]:
    return {name: getattr(layer, name) for name in ("name", *LAYER_ARGUMENTS)}


def _check_built(layer: keras.layers.Layer, cell: keras.layers.Layer) -> None:
    if not cell.built:
        raise ValueError(
            "The layer has no weights yet: call it, or its build(), first. "
            f"Received: layer={layer!r}"
        )
