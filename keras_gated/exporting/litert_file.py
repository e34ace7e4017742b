"""LiteRT (TensorFlow Lite) files, of built-in operators alone."""

import os
import re
import tempfile
import warnings
from pathlib import Path

import keras

from keras_gated import stepping
from keras_gated.datasets import checks
from keras_gated.datasets.files import atomic_path
from keras_gated.exporting import saved_model
from keras_gated.exporting.forms import form, quiet


def to_litert(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    step: bool = False,
    batch_size: int = 1,
    quantize: bool = False,
) -> None:
    """Writes a model as a LiteRT file (`.tflite`) that needs no TensorFlow operators.

    Every interpreter runs it: those of phones, microcontrollers and browsers, and
    `ai_edge_litert.interpreter.Interpreter`. Its one signature has the inputs and
    outputs that `keras_gated.exporting.SingleStep` describes.

    The sequence model runs its loop in the interpreter, for sequences of any length;
    LiteRT must know the size of a batch then (`batch_size`). With `step=True` the file
    has no loop, and takes any batch.

    Args:
        model: A built model, on the backend TensorFlow.
        path: The file.
        step: Whether to write one step of the model, with its states as inputs and
            outputs. Default: `False`.
        batch_size: The size of a batch of sequences; ignored with `step=True`.
            Default: 1.
        quantize: Whether kernels are stored in 8 bits, and multiplied in 8 bits where
            LiteRT has an operator for that (dynamic range quantization; it keeps
            kernels of less than 1,024 weights as they are). Default: `False`.

    Raises:
        ValueError: The model cannot be exported; the message names the layer, or the
            operators that LiteRT lacks, and says what to do instead. There is no file
            then.

    Example:

    >>> import keras
    >>> from keras_gated import GRU, exporting
    >>> model = keras.Sequential([keras.Input((None, 3)), GRU(4)])
    >>> exporting.to_litert(model, "step.tflite", step=True)
    """
    import tensorflow as tf

    batch_size = checks.whole("batch_size", batch_size)
    what = form(model, step, "LiteRT")
    for layer in stepping.layers_within(model):
        if isinstance(layer.dtype_policy, keras.dtype_policies.QuantizedDTypePolicy):
            raise ValueError(
                f"The layer {layer.name!r} was quantized by Keras, and LiteRT has no "
                "operators for that: export the model as it was before, with "
                "quantize=True"
            )
    with (
        tempfile.TemporaryDirectory() as folder,
        quiet("tensorflow", "absl"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        saved_model.write(what, Path(folder) / "saved", None if step else batch_size)
        converter = tf.lite.TFLiteConverter.from_saved_model(f"{folder}/saved")
        if quantize:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        try:
            content = converter.convert()
        except Exception as error:  # of many kinds, with pages of text
            raise ValueError(_refused(model, step, str(error))) from error
    with atomic_path(path) as whole:
        whole.write_bytes(content)


def _refused(model: keras.Model, step: bool, text: str) -> str:
    """Which operators are missing, of what the converter says."""
    lacking = sorted(set(re.findall(r"'?tf\.(\w+)'? op", text)))
    why = f"has no operators for {', '.join(lacking)}" if lacking else "refuses it"
    way = (
        "model.export(path, format='litert') of Keras writes a file with those of "
        "TensorFlow (Flex)"
    )
    way = way if step else f"try step=True, which has no loop; {way}"
    return f"The model {model.name!r} cannot be a LiteRT file, which {why}: {way}"
