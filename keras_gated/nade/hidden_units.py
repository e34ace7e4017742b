"""The sums over the hidden units of NADE."""

import functools
from typing import Any

import keras
from keras import ops

Tensor = Any

AT_A_TIME = 8
"""So many intervals of each frame are in memory together."""


def of_hidden_units(
    hidden: Tensor,
    frames: Tensor,
    key_input: Tensor,
    key_output: Tensor,
    training: bool = False,
) -> Tensor:
    """The sums over hidden units in the logits of keys, which are in their order.

    A key that is off leaves the hidden units of the next one as they are, and most keys
    are off. So the units are computed once for each interval: the keys from one that is
    on, which does not belong to it, up to the next one, which does.

    Args:
        hidden: What the hidden units are before the first key, `(..., H)`.
        frames: `(..., K)`.
        key_input: W, `(K, H)`.
        key_output: V, `(K, H)`.
        training: Whether gradients are wanted.

    Returns:
        `(..., K)`.
    """
    shape, (keys, units) = ops.shape(frames), key_input.shape
    hidden, frames = ops.reshape(hidden, (-1, units)), ops.reshape(frames, (-1, keys))
    on = ops.cast(frames != 0, "int32")
    interval = ops.expand_dims(ops.cumsum(on, axis=-1) - on, 1)  # of each key

    def of_some(
        first: int, hidden: Tensor, frames: Tensor, W: Tensor, V: Tensor
    ) -> Tensor:
        numbers = first + ops.arange(AT_A_TIME, dtype="int32")[:, None]
        before = ops.where(interval < numbers, ops.expand_dims(frames, 1), 0)
        rise = ops.matmul(ops.reshape(before, (-1, keys)), W)
        sums = ops.expand_dims(hidden, 1) + ops.reshape(rise, (-1, AT_A_TIME, units))
        values = ops.sigmoid(ops.reshape(sums, (-1, units)))
        terms = ops.reshape(ops.matmul(values, ops.transpose(V)), ops.shape(before))
        return ops.sum(ops.where(interval == numbers, terms, 0), axis=1)

    def begin_at(first: int) -> Tensor:
        function = functools.partial(of_some, first)
        if training and hasattr(keras, "remat"):  # from Keras 3.9 on; else memory grows
            function = keras.remat(function)
        return function(hidden, frames, key_input, key_output)

    firsts, last = range(0, keys, AT_A_TIME), ops.max(interval, initial=0)
    try:
        known = int(last)
    except (TypeError, RuntimeError):  # it is being traced, and has no value yet
        none = functools.partial(ops.zeros_like, frames)
        parts = [
            ops.cond(last >= first, functools.partial(begin_at, first), none)
            for first in firsts
        ]
    else:
        parts = [begin_at(first) for first in firsts if first <= known]
    return ops.reshape(sum(parts), shape)
