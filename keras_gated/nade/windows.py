"""What the keys around each key say about it, the same for all keys."""

from typing import Any

import keras
import numpy as np
from keras import ops

Tensor = Any

UNITS_AT_A_TIME = 16
"""Units that are in memory together."""


class KeyWindows(keras.layers.Layer):
    """The units of `NADE` that are tied over keys.

    Args:
        units: M, the number of units of each key.
        window: The number of keys that are seen on either side of each.
        descending: Whether higher keys come before lower ones.
        marks: Columns of frames for each key: all keys of the first mark, and then of
            the next, which may depend on the first mark of the same key.
        dropout: The share of units that are left out in training.
        **kwargs: Further arguments of `keras.layers.Layer`.
    """

    def __init__(
        self,
        units: int,
        window: int,
        descending: bool,
        marks: int,
        dropout: float,
        **kwargs: Any,
    ) -> None:
        super().__init__(name="windows", **kwargs)
        self.units, self.window, self.marks = units, window, marks
        self.descending = descending
        self.dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy)

    def build(self, features: int, keys: int, rows: int) -> None:
        """Makes the weights.

        Args:
            features: The size of the features.
            keys: The number of keys.
            rows: What is known of each key before the frame.
        """
        self.keys, self.rows = keys, rows
        units, normal = self.marks * self.units, keras.initializers.RandomNormal
        offsets = 2 * self.window + 1
        self.kernel = self.add_weight(
            (offsets, rows + self.marks, units), normal(stddev=0.05), name="kernel"
        )
        self.feature_kernel = self.add_weight(
            (features, units), "glorot_uniform", name="feature_kernel"
        )
        self.bias = self.add_weight((keys, units), "zeros", name="bias")
        self.output_kernel = self.add_weight(
            (units,), normal(stddev=0.05), name="output_kernel"
        )
        self.key_output = self.add_weight((keys, units), "zeros", name="key_output")
        self.built = True

    def call(
        self, features: Tensor, frames: Tensor, known: Tensor | None, training: bool
    ) -> Tensor:
        """The parts of the logits.

        Args:
            features: `(..., F)`.
            frames: `(..., marks * keys)`.
            known: What is known of each key before the frame, `(..., rows * keys)`.
            training: Whether units are left out.

        Returns:
            `(..., marks * keys)`.
        """
        seen = [frames] if known is None else [known, frames]
        shape = ops.shape(frames)
        x = self._rows_last(ops.concatenate(seen, axis=-1))
        kernel, of_features = self._masked_kernel(x.dtype), self._project(features)
        of_features = ops.reshape(of_features, (-1, 1, of_features.shape[-1]))
        bias, output = (ops.cast(w, x.dtype) for w in (self.bias, self._output()))
        logits = 0.0
        for begin in range(0, self.units, UNITS_AT_A_TIME):
            # The same units of all marks.
            some = np.arange(begin, min(begin + UNITS_AT_A_TIME, self.units))
            some = (some + self.units * np.arange(self.marks)[:, None]).ravel()
            kernel_, of_features_, bias_, output_ = (
                part if len(some) == part.shape[-1] else ops.take(part, some, axis=-1)
                for part in (kernel, of_features, bias, output)
            )
            units = ops.conv(x, kernel_, padding="same") + of_features_ + bias_
            units = self.dropout(ops.relu(units), training=training) * output_
            by_mark = ops.reshape(
                units, (-1, self.keys, self.marks, len(some) // self.marks)
            )
            logits = logits + ops.sum(by_mark, axis=-1)
        return ops.reshape(ops.swapaxes(logits, 1, 2), shape)

    def begin(self, features: Tensor, known: Tensor | None) -> Tensor:
        """The units before the first key of a frame, `(..., marks * keys, units)`."""
        dtype = features.dtype
        units = ops.expand_dims(self._project(features), -2) + ops.cast(
            self.bias, dtype
        )
        if known is not None:
            x = self._rows_last(ops.cast(known, dtype))
            kernel = ops.cast(self.kernel[:, : self.rows], dtype)
            seen = ops.conv(x, kernel, padding="same")
            units = units + ops.reshape(seen, ops.shape(units))
        shape = ops.shape(units)[:-1]
        units = ops.reshape(units, (*shape, self.marks, self.units))
        units = ops.swapaxes(units, -2, -3)
        return ops.reshape(units, (*shape[:-1], self.marks * self.keys, self.units))

    def logit(self, units: Tensor, frames: Tensor, place: Tensor) -> Tensor:
        """The part of a key's logit, where the keys before it are known.

        Args:
            units: From `begin`.
            frames: The frame, with zeros from that key on, `(..., marks * keys)`.
            place: The number of the column.

        Returns:
            `(...,)`.
        """
        dtype, W = units.dtype, self.window
        key, mark = place % self.keys, place // self.keys
        by_mark = ops.reshape(frames, (*ops.shape(frames)[:-1], self.marks, self.keys))
        padded = ops.pad(by_mark, [(0, 0)] * (by_mark.ndim - 1) + [(W, W)])
        around = ops.take(padded, key + ops.arange(2 * W + 1, dtype="int32"), axis=-1)
        kernel = ops.cast(self.kernel[:, self.rows :], dtype)
        kernel = ops.reshape(kernel, (2 * W + 1, self.marks, self.marks, self.units))
        kernel = ops.take(kernel, mark, axis=2)
        units = ops.take(units, place, axis=-2)
        units = units + ops.einsum("...md,dmu->...u", around, kernel)
        output = ops.reshape(self._output(), (self.keys, self.marks, self.units))
        output = ops.take(ops.take(output, key, axis=0), mark, axis=0)
        return ops.sum(ops.relu(units) * ops.cast(output, dtype), axis=-1)

    def _project(self, features: Tensor) -> Tensor:
        return ops.matmul(features, ops.cast(self.feature_kernel, features.dtype))

    def _output(self) -> Tensor:
        return self.output_kernel + self.key_output

    def _masked_kernel(self, dtype: str) -> Tensor:
        """The kernel, without what comes at or after a key in the order."""
        offsets = np.arange(-self.window, self.window + 1)
        before = offsets > 0 if self.descending else offsets < 0
        own = offsets == 0
        earlier = np.arange(self.marks)[:, None] < np.arange(self.marks)
        of_frame = before[:, None, None] | (own[:, None, None] & earlier)
        of_known = np.ones((len(offsets), self.rows, self.marks), bool)
        mask = np.concatenate([of_known, of_frame], axis=1)
        mask = np.repeat(mask, self.units, axis=-1)
        return ops.cast(self.kernel, dtype) * ops.cast(mask, dtype)

    def _rows_last(self, x: Tensor) -> Tensor:
        """`(..., rows * keys)` as `(batch, keys, rows)`."""
        x = ops.reshape(x, (-1, x.shape[-1] // self.keys, self.keys))
        return ops.swapaxes(x, 1, 2)
