"""ONNX files, with the recurrent operators of ONNX."""

import os
from typing import Any

import keras
import numpy as np

from keras_gated.datasets.files import atomic_path, require
from keras_gated.exporting.forms import Form, form, quiet, traced
from keras_gated.exporting.placeholders import Placeholders

OPSET = 18


def to_onnx(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    step: bool = False,
    native: bool = True,
) -> dict[str, str]:
    """Writes a model as an ONNX file, with ONNX's own recurrent operators.

    The tanh cell, the LSTM with peepholes or without, the GRU in both forms and the
    simplified GRU become one node each, `RNN`, `LSTM` or `GRU`, where
    `model.export(path, format="onnx")` of Keras writes a loop of a hundred nodes; so do
    `SimpleRNN`, `LSTM` and `GRU` of Keras, stacks of cells and layers in
    `Bidirectional`. Masks of any pattern, initial states and `go_backwards` are part of
    that. Other cells, and those with `layer_norm`, `zoneout` or an activation that
    ONNX does not have, become a loop in the same file.

    The inputs are called `x`, `(batch, time, features)`, or `x_0`, `x_1`, … if there
    are several, in the order of the model, and the outputs `y`, or `y_0`, …; what
    `step=True` adds is described by `keras_gated.exporting.SingleStep`. The lengths of
    batches and sequences are free. It needs the packages onnx and tf2onnx (the extra
    `export`), and the backend TensorFlow.

    Args:
        model: A built model that computes in float32.
        path: The file.
        step: Whether to write one step of the model, with its states as inputs and
            outputs, instead of the model of sequences. Default: `False`.
        native: Whether to use the recurrent operators; `False` writes loops.
            Default: `True`.

    Returns:
        What each recurrent layer became, by its name: the name of an operator, or
        `"loop: …"` and why; nothing with `step=True`, where there is no loop.

    Raises:
        ValueError: The model cannot be exported; the message names the layer and says
            what to do instead. There is no file then.
        ImportError: A package is not installed.

    The operators are those of the ONNX specification,
    https://onnx.ai/onnx/operators/onnx__LSTM.html, onnx__GRU.html and onnx__RNN.html.

    Example:

    >>> import keras
    >>> from keras_gated import GRU, MinGRU, to_onnx
    >>> layers = [GRU(4, return_sequences=True, name="below"), MinGRU(4, name="above")]
    >>> model = keras.Sequential([keras.Input((None, 3)), *layers])
    >>> to_onnx(model, "model.onnx")
    {'below': 'GRU', 'above': 'loop: ONNX has no operator for MinGRUCell'}
    """
    what = form(model, step, "ONNX")
    onnx, tf2onnx = require("onnx", "export"), require("tf2onnx", "export")
    placeholders = Placeholders(model if native and not step else None)
    function = traced(what)
    vars(np).setdefault("object", object)  # which tf2onnx looks for
    with placeholders(), quiet("tensorflow", "absl", "tf2onnx"):
        file, _ = tf2onnx.convert.from_function(
            function,
            function.input_signature,
            opset=OPSET,
            custom_op_handlers=placeholders.handlers,
        )
    _describe(file, what)
    try:
        onnx.checker.check_model(file)
    except onnx.checker.ValidationError as error:
        line = str(error).strip().splitlines()[0]
        raise ValueError(
            f"The model {model.name!r} cannot be an ONNX file ({line}); try "
            "native=False, which writes loops"
        ) from error
    with atomic_path(path) as whole:
        whole.write_bytes(file.SerializeToString())
    return placeholders.about


def _describe(file: Any, what: Form) -> None:
    """Orders inputs and outputs, and names the axes whose lengths are free."""
    for places, names in (
        (file.graph.input, what.inputs),
        (file.graph.output, what.outputs),
    ):
        by_name = {place.name: place for place in places}
        ordered = [by_name[name] for name in names if name in by_name]
        ordered = [
            type(place).FromString(place.SerializeToString()) for place in ordered
        ]
        del places[:]
        places.extend(ordered)
        for place in places:
            dims = place.type.tensor_type.shape.dim
            for dim, axis in zip(
                dims, ["batch", "time"][: len(dims) - 1], strict=False
            ):
                if not dim.HasField("dim_value"):
                    dim.dim_param = axis
