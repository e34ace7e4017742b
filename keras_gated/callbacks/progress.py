"""The best model so far, and one progress bar for all epochs."""

import math
import os
from typing import Any

import keras

from keras_gated.datasets import checks
from keras_gated.datasets.files import atomic_path


class BestModel(keras.callbacks.Callback):
    """Saves the model of the best epoch; the file is never half written.

    It works as `keras.callbacks.ModelCheckpoint(save_best_only=True)`, but replaces the
    file in one move: an interruption at any moment leaves the best model so far.

    Args:
        path: Where to save, ending in `.keras`.
        monitor: The name of the quantity to compare. Default: `"val_loss"`.
        mode: `"min"` if smaller is better, `"max"` if larger is; `"auto"` asks the
            metric, as Keras's callbacks do. Default: `"auto"`.

    Attributes:
        best: The value of the saved model; `None` before the first.

    Raises:
        ValueError: `mode` is none of the three; at the end of an epoch, `monitor` is
            not logged, or its metric has no direction.

    Example:

    >>> from keras_gated.callbacks import BestModel
    >>> best_model = BestModel("best.keras", monitor="val_frame_accuracy")
    """

    def __init__(
        self, path: str | os.PathLike, monitor: str = "val_loss", mode: str = "auto"
    ) -> None:
        super().__init__()
        self.path = path
        self.monitor = monitor
        self.mode = checks.one_of("mode", mode, ("auto", "min", "max"))
        self.best = None

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        figure = _monitored(logs, self.monitor)
        if math.isnan(figure):
            return
        sign = -1 if self._larger_is_better() else 1
        if self.best is None or sign * figure < sign * self.best:
            self.best = figure
            with atomic_path(self.path) as file:
                self.model.save(file)

    def _larger_is_better(self) -> bool:
        if self.mode != "auto":
            return self.mode == "max"
        name = self.monitor.removeprefix("val_")
        if name.endswith("loss"):
            return False
        directions = {  # with several outputs, the output's name comes first
            metric.name: metric._direction
            for metric in _compiled_metrics(self.model)
            if name.endswith(metric.name) and hasattr(metric, "_direction")
        }
        if not directions:
            raise ValueError(
                f"The metric {self.monitor!r} does not say which way it is better: "
                "pass mode='min' or mode='max' to BestModel"
            )
        return directions[max(directions, key=len)] == "up"


def _compiled_metrics(model: keras.Model) -> list[keras.metrics.Metric]:
    """The metrics given to `compile`, which Keras wraps in one metric."""
    return [
        inner
        for metric in model.metrics
        for inner in (metric, *getattr(metric, "metrics", ()))
    ]


class EpochProgress(keras.callbacks.Callback):
    """Shows one progress bar for all epochs, instead of one per epoch.

    Use it with `fit(verbose=0)`.

    Args:
        show: The names of the quantities to show beside it. Default:
            `("loss", "val_loss")`.
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


def _monitored(logs: dict[str, Any] | None, name: str) -> float:
    if name not in (logs or {}):
        raise ValueError(
            f"There is no {name!r} to monitor. Available: {sorted(logs or {})}"
        )
    return float(logs[name])
