"""The sums over the hidden units of NADE."""

import functools
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

Tensor = Any

KEYS_AT_A_TIME = 8
"""Hidden units of so many keys are in memory together, while a model is trained."""


def of_hidden_units(
    training: bool,
    hidden: Tensor,
    frames: Tensor,
    key_input: Tensor,
    key_output: Tensor,
) -> Tensor:
    """The sums over hidden units in the logits of keys, which are in their order.

    Args:
        training: Whether gradients are wanted.
        hidden: What the hidden units are before the first key, `(..., H)`.
        frames: `(..., K)`.
        key_input: W, `(K, H)`.
        key_output: V, `(K, H)`.

    Returns:
        `(..., K)`.
    """

    def some_keys(hidden: Tensor, frames: Tensor, W: Tensor, V: Tensor) -> tuple:
        # Before the first key, and after each.
        added = [ops.expand_dims(hidden, -2), ops.expand_dims(frames, -1) * W]
        sums = ops.cumsum(ops.concatenate(added, axis=-2), axis=-2)
        units = ops.sigmoid(sums[..., :-1, :])
        return ops.sum(units * V, axis=-1), sums[..., -1, :]

    if training and hasattr(keras, "remat"):  # from Keras 3.9 on; else memory grows
        some_keys = keras.remat(some_keys)
    logits = []
    for begin in range(0, key_input.shape[0], KEYS_AT_A_TIME):
        end = begin + KEYS_AT_A_TIME
        part, hidden = some_keys(
            hidden, frames[..., begin:end], key_input[begin:end], key_output[begin:end]
        )
        logits.append(part)
    return ops.concatenate(logits, axis=-1)


@functools.cache
def hidden_units_for(training: bool) -> Callable:
    """`of_hidden_units`; in training by XLA on TensorFlow, three times as fast.

    Keras does not compile models by default there; on JAX it does. Compiled functions
    cannot be exported to other formats.

    Args:
        training: Whether gradients are wanted.
    """
    function = functools.partial(of_hidden_units, training)
    if not training or keras.config.backend() != "tensorflow":
        return function
    import tensorflow as tf

    return tf.function(function, jit_compile=True, autograph=False)
