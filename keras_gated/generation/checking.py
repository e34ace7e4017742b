"""What models must be like to be run step by step, checked."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gated import stepping

Tensor = Any


def frames_shape(model: keras.Model, features: bool = False) -> tuple | None:
    """The shape of a model's input if that is (batch, time, size), else `None`.

    Args:
        model: The model.
        features: Whether it may have a second input, of features. Default: `False`.
    """
    shape = stepping.input_shape(model)
    if features and isinstance(shape, list) and [*map(len, shape)] == [3, 3]:
        shape = shape[0]
    return shape if isinstance(shape, tuple) and len(shape) == 3 else None


def check_features(
    model: keras.Model,
    features: np.ndarray | None,
    primer: tuple[int, ...],
    steps: int,
) -> list[np.ndarray]:
    """Checks the features of the steps of a primer and its continuation.

    Args:
        model: The model.
        features: As in `generate`.
        primer: The shape of the primer without its last axis.
        steps: The number of steps to sample.

    Returns:
        What the model is told with each frame, which is what is known of the next
        step, `float32 (batch, time, F)`, in a list; it is empty if the model has no
        such input. With the last frame, whose next step is not sampled, it is told the
        same as before.

    Raises:
        ValueError: The features are not those that the model takes.
    """
    shape = stepping.input_shape(model)
    if not isinstance(shape, list):
        if features is None:
            return []
        raise ValueError(
            f"The model {model.name!r} has no input of features; leave out the "
            "argument `features`."
        )
    time, size = primer[-1] + steps, shape[1][-1]
    if features is None:
        raise ValueError(
            f"The model {model.name!r} has an input of features; give `features` of "
            f"the shape ({time}, {size}): of each step of primer and continuation."
        )
    features = np.asarray(features, "float32")
    whole = (*primer[:-1], time, size)
    if features.shape not in (whole, whole[-2:]):
        raise ValueError(
            f"Argument `features` must have the shape {whole[-2:]} (primer steps + "
            f"steps, features), or {whole}. Received: features.shape={features.shape}"
        )
    if not np.isfinite(features).all():
        raise ValueError("Argument `features` must hold finite numbers only.")
    rows = np.broadcast_to(features, whole).reshape(-1, time, size)
    return [np.concatenate([rows[:, 1:], rows[:, -1:]], axis=1)]


def check_stepwise(
    model: keras.Model, frames: np.ndarray | list[np.ndarray], outputs: Tensor
) -> None:
    """Checks that a model gives step by step what it gives for the whole sequence.

    Args:
        model: The model.
        frames: Some frames, `(batch, time, size)`, or a list of those of each input.
            Use only the beginning of a long sequence, because rounding errors grow
            along a recurrence.
        outputs: The outputs of its stepper for these frames, or for more,
            `(time, batch, 1, size)`.

    Raises:
        ValueError: The outputs of the model itself are others, or are not finite.
    """
    several = isinstance(frames, list)
    first = frames[0] if several else frames
    rows, steps = first.shape[:2]
    shape = stepping.input_shape(model)
    size = (shape[0] if several else shape)[0] or rows
    places = np.arange(size) % rows  # the batch size may be fixed
    frames = keras.tree.map_structure(lambda part: part[places], frames)
    with stepping.unchanged(model):
        (whole,) = keras.tree.flatten(model(frames, training=False))
    whole = ops.convert_to_numpy(ops.cast(whole, "float32"))[:rows]
    if not np.isfinite(whole).all():
        raise ValueError(
            f"The output of the model {model.name!r} is not finite (NaN or infinity): "
            "its training has failed, or the primer is far from what it was trained on."
        )
    stepwise = ops.convert_to_numpy(outputs)[:steps, : len(whole), 0]
    # Wide enough for half precision, and far below the effect of a wrong context.
    if not np.allclose(whole.swapaxes(0, 1), stepwise, 0.1, 0.1):
        raise not_stepwise(model)


def not_stepwise(model: keras.Model) -> ValueError:
    """The error for a model that cannot be run step by step."""
    return ValueError(
        "Argument `model` must map frames (batch, time, values) to an output for each "
        "(logits of the same shape, or a mixture), and only its recurrent layers may "
        "combine steps: otherwise the outputs of a single step are not those of the "
        "whole sequence. "
        f"Received: model={model.name!r} with layers "
        f"{[type(layer).__name__ for layer in model.layers]}"
    )
