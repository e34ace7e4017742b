"""What all exported files share: a function with named inputs and outputs."""

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import keras

from keras_gated import stepping
from keras_gated.exporting.single_step import SingleStep, packed

Tensor = Any

HALF = "float16", "bfloat16"


class Form(NamedTuple):
    """A model, or one step of it, as what is exported."""

    function: Callable[..., dict[str, Tensor]]
    """Takes the inputs in their order, and gives the outputs by their names."""
    inputs: dict[str, keras.KerasTensor]
    outputs: list[str]
    variables: list[keras.Variable]


def form(model: keras.Model, step: bool, format_name: str) -> Form:
    """What is exported of a model.

    Args:
        model: A built model.
        step: Whether one step of it, with its states as inputs and outputs.
        format_name: What the file is called, for errors.

    Raises:
        ValueError: The model cannot be exported; the message names the layer and says
            what to do.
    """
    if keras.config.backend() != "tensorflow":
        raise ValueError(
            f"{format_name} is written on the backend TensorFlow alone. Received: the "
            f"backend {keras.config.backend()}; save the model with model.save, load "
            "it in a program that runs with KERAS_BACKEND=tensorflow, and export it "
            "there"
        )
    if not isinstance(model, keras.Model):
        raise ValueError(
            f"Argument `model` must be a keras.Model. Received: {type(model).__name__}"
        )
    stepping.input_shape(model)
    inputs = keras.tree.flatten(getattr(model, "inputs", None))
    if not inputs or inputs[0] is None:
        raise ValueError(
            f"The shapes of the inputs of the model {model.name!r}, which is "
            "subclassed, are not known: call it on a keras.Input, and export a "
            "keras.Model of that"
        )
    for layer in stepping.layers_within(model):
        if layer.compute_dtype in HALF and format_name != "SavedModel":
            raise ValueError(
                f"The layer {layer.name!r} computes in {layer.compute_dtype}, and "
                f"files of {format_name} are written in float32: make the same model "
                "with dtype='float32', give it the weights (set_weights), and export "
                "that"
            )
    if step:
        one = SingleStep(model)

        def run(*given: Tensor) -> dict[str, Tensor]:
            return one(dict(zip(one.inputs, given, strict=True)))

        return Form(run, one.inputs, one.outputs, model.variables)
    for layer in stepping.layers_within(model):
        if getattr(layer, "stateful", False):
            raise ValueError(
                f"The layer {layer.name!r} is stateful, and a file of {format_name} "
                "has no memory between calls: export the model with step=True, whose "
                "states are inputs and outputs, or make the layer with stateful=False"
            )
    names = ["x"] if len(inputs) == 1 else [f"x_{k}" for k in range(len(inputs))]
    count = len(keras.tree.flatten(model.outputs))
    outputs = ["y"] if count == 1 else [f"y_{k}" for k in range(count)]

    def whole(*given: Tensor) -> dict[str, Tensor]:
        ys = keras.tree.flatten(model(packed(model, given), training=False))
        return dict(zip(outputs, ys, strict=True))

    return Form(whole, dict(zip(names, inputs, strict=True)), outputs, model.variables)


def traced(form: Form, batch_size: int | None = None) -> Any:
    """The form as a `tf.function` with the shapes of its inputs.

    Args:
        form: The form.
        batch_size: The size of a batch, where the file must know it. Default: any.
    """
    import tensorflow as tf

    specs = [
        tf.TensorSpec((given.shape[0] or batch_size, *given.shape[1:]), given.dtype, k)
        for k, given in form.inputs.items()
    ]
    return tf.function(form.function, input_signature=specs, autograph=False)


@contextlib.contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Drops warnings of loggers: about gradients, which files have no need of.

    Args:
        *names: The loggers.
    """
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
