"""Callbacks: the best model so far, a progress bar over epochs, pictures."""

import io
import math
import os
from typing import Any

import keras
import numpy as np

from keras_gated.files import atomic_path, require


class BestModel(keras.callbacks.Callback):
    """Keeps the model of the best epoch in a file that is always whole.

    As `keras.callbacks.ModelCheckpoint(save_best_only=True)`, but the file is
    replaced in one move: an interruption at any moment leaves the best model up
    to then.

    Args:
        path: Where to save, ending in `.keras`.
        monitor: The figure that counts, smaller is better. Default:
            `"val_loss"`.

    Example:

    >>> from keras_gated.callbacks import BestModel
    >>> BestModel("best.keras", monitor="val_frame_nll").best
    inf
    """

    def __init__(self, path: str | os.PathLike, monitor: str = "val_loss") -> None:
        super().__init__()
        self.path = path
        self.monitor = monitor
        self.best = math.inf

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        figure = _monitored(logs, self.monitor)
        if figure < self.best:
            self.best = figure
            with atomic_path(self.path) as file:
                self.model.save(file)


class EpochProgress(keras.callbacks.Callback):
    """One progress bar for all epochs, instead of one an epoch.

    Use it with `fit(verbose=0)`.

    Args:
        show: The figures beside the bar. Default: `("loss", "val_loss")`.
    """

    def __init__(self, show: tuple[str, ...] = ("loss", "val_loss")) -> None:
        super().__init__()
        self.show = tuple(show)
        self._epoch = 0  # training may end before it begins

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self._epoch = 0
        self._bar = keras.utils.Progbar(
            self.params["epochs"], stateful_metrics=self.show, unit_name="epoch"
        )

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self._epoch = epoch + 1
        self._figures = [(name, _monitored(logs, name)) for name in self.show]
        self._bar.update(self._epoch, self._figures)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        if 0 < self._epoch < self.params["epochs"]:  # stopped early: end the line
            self._bar.update(self._epoch, self._figures, finalize=True)


class PianoRollImage(keras.callbacks.Callback):
    """Writes a picture for TensorBoard: what the model predicts, and the truth.

    Under the tag `"piano_roll"`: the probability of every note of every step of
    one sequence, given the steps before, above what was played.

    Args:
        log_dir: The folder of the TensorBoard run.
        roll: The sequence, `[T, 88]`, zeros and ones, of two steps or more.
        every: Epochs from one picture to the next. Default: 5.

    Raises:
        ImportError: matplotlib is not installed.
    """

    def __init__(
        self, log_dir: str | os.PathLike, roll: np.ndarray, every: int = 5
    ) -> None:
        super().__init__()
        require("matplotlib", extra="examples")
        self.log_dir = os.fspath(log_dir)
        self.roll = np.asarray(roll, "float32")
        self.every = every
        self._writer = None

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        import tensorflow as tf

        self._writer = tf.summary.create_file_writer(self.log_dir)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        if self._writer is not None:
            self._writer.close()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if epoch % self.every == 0:
            self._write(epoch)

    def _write(self, epoch: int) -> None:
        import tensorflow as tf
        from matplotlib.figure import Figure

        from keras_gated.datasets import piano_roll

        logits = self.model(self.roll[None, :-1], training=False)[0]
        predicted = keras.ops.convert_to_numpy(keras.ops.sigmoid(logits))
        figure = Figure((7, 5), layout="constrained")
        upper, lower = figure.subplots(2, sharex=True)
        piano_roll.plot(predicted, upper, f"predicted, after epoch {epoch + 1}")
        piano_roll.plot(self.roll[1:], lower, "played")
        png = io.BytesIO()
        figure.savefig(png, format="png")
        with self._writer.as_default():
            image = tf.io.decode_png(png.getvalue(), channels=3)
            tf.summary.image("piano_roll", image[None], step=epoch)
        self._writer.flush()


def _monitored(logs: dict[str, Any] | None, name: str) -> float:
    if name not in (logs or {}):
        raise ValueError(
            f"There is no figure {name!r} to watch. Available: {sorted(logs or {})}"
        )
    return float(logs[name])
