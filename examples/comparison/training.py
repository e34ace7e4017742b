"""A model by the paper's recipe: with what it is trained, built and trained."""

import argparse
import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

import keras_gated
from comparison.runs import whole_events
from keras_gated import CELLS, callbacks, distribution, optimizers

BACKUP, BEST = "backup.npz", "best.keras"
"""Of a training, in its folder."""
AT_ONCE = 16
"""The largest number of updates that run without returning to Python."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What a cell is trained with.

    Attributes:
        units: Of the cell. Default: `None`, as many as `budget` allows.
        budget: Parameters of the recurrent layer, where `units` is `None`.
        epochs: The largest number of passes over the training set. Default: 120.
        patience: Epochs without a better validation NLL after which to stop. Default:
            15.
        batch_size: Sequences per update. Default: 8.
        evaluation_batch_size: Of validation and test. Default: `None`, `batch_size`.
        sequence_length: Steps of music or samples of sound to which the sequences of
            training are cut. Default: `None`, whole ones.
        learning_rate: Of RMSProp, at the beginning. Default: 0.005.
        seed: Of weights, noise, and the order of the batches. Default: 1.
        decay: `"none"` or `"cosine"`, to 0 after `epochs`. Default: `"none"`.
        weight_noise: Standard deviation of the noise on the weights. Default: 0.075.
        gradient_norm: Gradients of a larger norm are scaled down to this one; `None`:
            they are not. Default: 1.
        truncate_gradient: The number of steps from one stop of the gradient to the
            next. Default: `None`, it is not stopped.
        head: The output of `build_joint`. Default: `None`, that of the paper's model.
        dropout: The share of the cell's outputs that are left out in training, of
            `build_joint`. Default: 0.
        tied_dropout: That of its tied units. Default: 0.2.
        cell_options: More arguments of the cell. Default: none.
        layer_options: More arguments of the recurrent layer. Default: none.
        optimizer_options: More arguments of RMSProp. Default: none.
    """

    units: int | None = None
    budget: int | None = None
    epochs: int = 120
    patience: int = 15
    batch_size: int = 8
    evaluation_batch_size: int | None = None
    sequence_length: int | None = None
    learning_rate: float = 0.005
    seed: int = 1
    decay: str = "none"
    weight_noise: float = 0.075
    gradient_norm: float | None = 1.0
    truncate_gradient: int | None = None
    head: str | None = None
    dropout: float = 0.0
    tied_dropout: float = 0.2
    cell_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    layer_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    optimizer_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, args: "Settings | argparse.Namespace") -> "Settings":
        """The settings among the arguments of `parser`; settings stay as they are."""
        if isinstance(args, cls):
            return args
        names = {field.name for field in dataclasses.fields(cls)}
        return cls(**{name: x for name, x in vars(args).items() if name in names})


def build(
    name: str,
    settings: Settings | argparse.Namespace,
    input_dim: int,
    head: Callable[[], keras.layers.Layer],
    loss: keras.losses.Loss,
    metrics: Sequence[keras.metrics.Metric],
    cells: Mapping[str, Callable[..., keras.layers.Layer]] = CELLS,
    encoding: keras_gated.RollEncoding | None = None,
) -> keras.Model:
    """The model of one cell, compiled by the paper's recipe.

    Args:
        name: The cell's, in `cells`.
        settings: What to train with, or the arguments that say so.
        input_dim: Inputs of a step.
        head: Makes the layer that gives the distribution of the next step.
        loss: Of the head's outputs.
        metrics: Weighted as the loss is; `train` needs one that is named `nll`.
        cells: What makes a cell of so many units, by name. Default: the classes of
            `keras_gated`.
        encoding: How music was read, which the model file says to who loads it.
            Default: `None`.

    Returns:
        A sequential model of the recurrent layer and the head, for inputs of shape
        `(batch, time, input_dim)`.
    """
    settings = Settings.of(settings)
    keras.utils.set_random_seed(settings.seed)
    units = settings.units or keras_gated.match_units(
        cells[name], settings.budget, input_dim
    )
    cell = cells[name](
        units, weight_noise=settings.weight_noise, **settings.cell_options
    )
    recurrent = keras_gated.RNN(
        cell,
        return_sequences=True,
        truncate_gradient=settings.truncate_gradient,
        **settings.layer_options,
    )
    layers = [keras.Input((None, input_dim)), recurrent, head()]
    if encoding is not None:
        layers.insert(1, encoding)
    model = keras.Sequential(layers, name=name)
    model.compile(
        optimizer=optimizers.RMSprop(
            settings.learning_rate,
            global_clipnorm=settings.gradient_norm,
            **settings.optimizer_options,
        ),
        loss=loss,
        weighted_metrics=metrics,
    )
    print(f"\n{name}: {units} units, {recurrent.count_params():,} parameters")
    return model


def train(
    model: keras.Model,
    settings: Settings | argparse.Namespace,
    data: Sequence,
    folder: Path,
    watchers: Sequence[keras.callbacks.Callback] = (),
    update_freq: int | str = "epoch",
) -> tuple[dict, dict]:
    """Trains a model, from where it was stopped, and goes back to its best epoch.

    Args:
        model: As `build` makes it; among its metrics is one named `nll`.
        settings: What to train with, or the arguments that say so.
        data: The data sets of training, validation and test.
        folder: For the best model, TensorBoard, and the backup, with which the next
            call with this folder goes on until `discard_backup`.
        watchers: More callbacks, the same in all processes.
        update_freq: Of `TensorBoard`.

    Returns:
        The row of the table, and the learning curves.

    Raises:
        ValueError: No epoch had a finite validation NLL.
        BackupError: The folder has the backup of another training.
    """
    settings = Settings.of(settings)
    workers = distribution.initialize()
    training, _, test = data
    clock, best, own = EpochClock(), folder / BEST, workers.folder(folder)
    watchers = [
        clock,
        callbacks.EpochProgress(("nll", "val_nll")),
        callbacks.BestModel(own / BEST, "val_nll"),
        *watchers,
        callbacks.TensorBoard(own, write_graph=False, update_freq=update_freq),
        keras.callbacks.EarlyStopping("val_nll", patience=settings.patience),
    ]
    if settings.decay == "cosine":
        watchers.append(keras.callbacks.LearningRateScheduler(cosine(settings)))
    # Nothing looks at a single update then. On PyTorch, Keras runs one at a time.
    if update_freq == "epoch" and keras.config.backend() != "torch":
        model.steps_per_execution = max(
            k for k in range(1, AT_ONCE + 1) if len(training) % k == 0
        )
    backup = callbacks.BackupAndRestore(folder / BACKUP, training, watchers)
    workers.prepare(model, training)
    history = _fit(model, data, settings.epochs, backup, workers)
    workers.wait()  # until the first has written the best model
    if not best.exists():
        raise ValueError(
            f"no epoch of {model.name} had a finite validation NLL; a smaller "
            f"--learning-rate than {settings.learning_rate} may help"
        )
    model.load_weights(best)
    scores = model.evaluate(workers.share(test), verbose=0, return_dict=True)
    recurrent = next(
        layer
        for layer in model.layers
        if isinstance(layer, keras.layers.RNN) and layer.weights
    )
    row = {
        "cell": model.name,
        "units": recurrent.cell.units,
        "parameters": recurrent.count_params(),
        "epochs": len(history["nll"]),
        "seconds": round(clock.seconds[-1], 1),
        "valid_nll": min(history["val_nll"]),
        **{f"test_{name}": score for name, score in scores.items() if name != "loss"},
    }
    if workers.is_first:
        _log_hyperparameters(folder, settings, row)
    curves = {"seconds": clock.seconds, **history}
    return row, {key: [float(x) for x in curve] for key, curve in curves.items()}


def discard_backup(folder: Path) -> None:
    """Removes the backup of a training whose results are written.

    Args:
        folder: As `train` had it.
    """
    (folder / BACKUP).unlink(missing_ok=True)


def _fit(
    model: keras.Model,
    data: Sequence,
    epochs: int,
    backup: callbacks.BackupAndRestore,
    workers: distribution.Workers,
) -> dict[str, list]:
    """Fits; on Ctrl-C the callbacks first write what they still hold."""
    training, validation, _ = data
    try:
        return model.fit(
            # Starting a data set anew every epoch takes time.
            workers.share(training.repeat()),
            steps_per_epoch=len(training),
            validation_data=workers.share(validation),
            epochs=epochs,
            shuffle=False,  # the data set shuffles
            verbose=0,
            callbacks=[backup, *backup.callbacks],
        ).history
    except KeyboardInterrupt:
        for watcher in backup.callbacks:
            watcher.on_train_end()
        raise


def cosine(settings: Settings) -> Callable[[int], float]:
    """The learning rate of an epoch: half a cosine from the first to 0."""
    return lambda epoch: (
        settings.learning_rate * (1 + math.cos(math.pi * epoch / settings.epochs)) / 2
    )


class EpochClock(keras.callbacks.Callback):
    """Notes the seconds that training has taken at the end of each epoch."""

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.seconds = []

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        self._start_time = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        before = self.seconds[-1] if self.seconds else 0.0
        self.seconds.append(before + time.perf_counter() - self._start_time)


def _log_hyperparameters(folder: Path, settings: Settings, row: dict) -> None:
    """For TensorBoard's HParams tab: a row for each cell, with its results."""
    import tensorflow as tf
    from tensorboard.plugins.hparams import api

    shown = {
        "cell": row["cell"],
        "units": row["units"],
        "parameters": row["parameters"],
        "learning_rate": settings.learning_rate,
        "decay": settings.decay,
        "truncate_gradient": settings.truncate_gradient or 0,
        "batch_size": settings.batch_size,
        "weight_noise": settings.weight_noise,
        "gradient_norm": settings.gradient_norm or 0,
        "seed": settings.seed,
    }
    figures = [name for name in row if name.startswith(("valid_", "test_"))]
    with whole_events(folder.parent, "hparams"):
        api.hparams_config(
            hparams=[api.HParam(name) for name in shown],
            metrics=[api.Metric(f"result/{figure}") for figure in figures],
        )
    with whole_events(folder, "results"):
        api.hparams(shown, trial_id=row["cell"])
        for figure in figures:
            tf.summary.scalar(f"result/{figure}", row[figure], step=row["epochs"])
