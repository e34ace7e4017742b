"""The end of a training whose loss is no number, and where it came from."""

import math
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
from keras import ops


class TerminateOnNaN(keras.callbacks.Callback):
    """Ends a training whose loss is NaN or infinite, and says where that began.

    It works as `keras.callbacks.TerminateOnNaN(raise_error=True)`, and names the
    update, the batch and the layer: the first whose weights are not finite, or else the
    first whose outputs are not on the batch, in the order in which layers compute.

    Args:
        data: What is trained on, with `start_at` (see `BackupAndRestore`), in which to
            look for the batch. Default: `None`, only weights are looked at.

    Raises:
        FloatingPointError: In `fit`, after the update.

    Example:

    >>> import keras, numpy as np
    >>> from keras_gated.callbacks import TerminateOnNaN
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x = np.full((1, 2), np.inf)
    >>> try:
    ...     model.fit(x, np.ones(1), verbose=0, callbacks=[TerminateOnNaN()])
    ... except FloatingPointError as error:
    ...     print(str(error).partition(":")[0])
    The loss is nan after update 1 (batch 1 of epoch 1)
    """

    def __init__(self, data: Any = None) -> None:
        super().__init__()
        self.data = data

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        self._first = batch

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        loss = float((logs or {}).get("loss", 0.0))
        if math.isfinite(loss):
            return
        # Keras calls this after several updates with the number of either end.
        first, count = self._first, self.model.steps_per_execution
        before = self._epoch * (self.params["steps"] or 0) + first
        where = f"batch {first + 1}"
        if count > 1:
            where = f"one of the batches {first + 1} to {first + count}"
        raise FloatingPointError(
            f"The loss is {loss} after update {before + count:,} ({where} of epoch "
            f"{self._epoch + 1}): {self._origin(before, count)}"
        )

    def _origin(self, begin: int, count: int) -> str:
        """Where it came from, among `count` batches from `begin` on."""
        for layer in _innermost(self.model):
            if not all(_finite(weight) for weight in layer.weights):
                return (
                    f"the weights of layer {layer.name!r} are not finite; a smaller "
                    "learning rate or `global_clipnorm` may help."
                )
        if self.data is None:
            return "all weights are finite; look at the data and the loss."
        self.data.start_at(begin)
        for number, (inputs, *rest) in zip(range(count), self.data, strict=False):
            found = self._in_batch(inputs, rest)
            if found is not None:
                return f"in update {begin + number + 1:,}, {found}"
        return "all weights are finite, and so are all outputs on these batches now."

    def _in_batch(self, inputs: Any, rest: list[Any]) -> str | None:
        for name, part in zip(
            ("inputs", "targets", "weights"), (inputs, *rest), strict=False
        ):
            for tensor in keras.tree.flatten(part):
                if not _finite(tensor):
                    return f"the {name} of {_rows(tensor)} of the batch are not finite."
        for layer, outputs in _outputs_of_layers(self.model, inputs):
            for tensor in outputs:
                if not _finite(tensor):
                    return (
                        f"the outputs of layer {layer.name!r} ({type(layer).__name__}) "
                        f"are not finite for {_rows(tensor)} of the batch."
                    )
        return None


def _innermost(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """All layers with weights of their own, those within layers, too."""
    for layer in model._flatten_layers(include_self=False):
        inner = {id(w) for part in layer._layers for w in part.weights}
        if any(id(weight) not in inner for weight in layer.weights):
            yield layer


def _outputs_of_layers(
    model: keras.Model, inputs: Any
) -> list[tuple[keras.layers.Layer, list[Any]]]:
    """What layers return, in the order in which they have."""
    seen, layers = [], list(model._flatten_layers(include_self=False))

    def watched(layer: keras.layers.Layer) -> Any:
        call = layer.call

        def watching(*args: Any, **kwargs: Any) -> Any:
            outputs = call(*args, **kwargs)
            seen.append((layer, keras.tree.flatten(outputs)))
            return outputs

        return watching

    for layer in layers:
        layer.call = watched(layer)
    try:
        model(inputs, training=True)
    finally:
        for layer in layers:
            del layer.call
    return seen


def _finite(tensor: Any) -> bool:
    return bool(np.all(np.isfinite(_array(tensor))))


def _rows(tensor: Any) -> str:
    array = _array(tensor)
    wrong = ~np.isfinite(array.reshape(len(array), -1)).all(1)
    rows = ", ".join(map(str, np.flatnonzero(wrong)[:5]))
    return f"sequence{'s' if wrong.sum() > 1 else ''} {rows}"


def _array(tensor: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float32")))
