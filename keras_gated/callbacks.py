"""Callbacks: the best model so far, a progress bar over epochs, pictures."""

import io
import math
import os
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_gated.files import atomic_path, require

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
        from matplotlib.figure import Figure

        from keras_gated.datasets import piano_roll

        logits = self.model(self.roll[None, :-1], training=False)[0]
        predicted = keras.ops.convert_to_numpy(keras.ops.sigmoid(logits))
        figure = Figure((7, 5), layout="constrained")
        upper, lower = figure.subplots(2, sharex=True)
        piano_roll.plot(predicted, upper, f"predicted, after epoch {epoch + 1}")
        piano_roll.plot(self.roll[1:], lower, "played")
        with self._writer.as_default():
            _write_figure("piano_roll", figure, epoch)
        self._writer.flush()


class SoundSummary(keras.callbacks.Callback):
    """Lets one hear and see in TensorBoard how a model of a waveform goes on.

    Under the tags `"sound/recorded"` (once) and `"sound/generated"` there are players,
    under `"waveforms"` a picture of both with their spectrograms. The model reads
    the beginning of the recording and goes on by itself for as long as that lasts.

    Args:
        log_dir: The folder of the TensorBoard run.
        recording: `[samples]`, in the unit in which `datasets.audio.read` gives it.
        sample_rate: Samples a second.
        primer_seconds: How much of it the model reads. Default: 0.5.
        every: Epochs from one to the next. Default: 5.
        seed: Of the samples. Default: 0.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: The recording is not longer than what the model reads.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike,
        recording: np.ndarray,
        sample_rate: int,
        primer_seconds: float = 0.5,
        every: int = 5,
        seed: int = 0,
    ) -> None:
        super().__init__()
        require("matplotlib", extra="examples")
        self.recording = np.asarray(recording, "float32")
        self.primer = int(primer_seconds * sample_rate)
        if self.recording.ndim != 1 or not 0 < self.primer < len(self.recording):
            raise ValueError(
                "Argument `recording` must be [samples], more than the model reads: "
                f"{self.primer:,}. Received: shape {self.recording.shape}"
            )
        self.log_dir = os.fspath(log_dir)
        self.sample_rate = sample_rate
        self.every = every
        self.seed = seed
        self._writer = None

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        import tensorflow as tf

        self._writer = tf.summary.create_file_writer(self.log_dir)
        with self._writer.as_default():
            self._write_sound("recorded", self.recording, 0)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        if self._writer is not None:
            self._writer.close()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if epoch % self.every:
            return
        from keras_gated.generation import generate_audio

        primer = self.recording[: self.primer]
        went_on = generate_audio(
            self.model, primer, len(self.recording) - self.primer, seed=self.seed
        )
        sound = np.concatenate([primer, went_on])
        with self._writer.as_default():
            self._write_sound("generated", sound, epoch)
            _write_figure("waveforms", self._picture(sound, epoch), epoch)
        self._writer.flush()

    def _write_sound(self, name: str, sound: np.ndarray, epoch: int) -> None:
        import tensorflow as tf

        clipped = np.clip(sound, -1, 1)[None, :, None]
        tf.summary.audio(f"sound/{name}", clipped, self.sample_rate, epoch)

    def _picture(self, sound: np.ndarray, epoch: int) -> "Figure":
        from matplotlib.figure import Figure

        figure = Figure((9, 5), layout="constrained")
        panels = figure.subplots(2, 2, sharex=True)
        seconds = np.arange(len(sound)) / self.sample_rate
        rows = (("recorded", self.recording), (f"after epoch {epoch + 1}", sound))
        for (wave, spectrum), (title, row) in zip(panels, rows, strict=True):
            wave.plot(seconds, row, linewidth=0.4)
            # A little noise, below hearing, for the logarithm of silence.
            noise = 1e-6 * np.random.default_rng(0).normal(size=len(row))
            spectrum.specgram(row + noise, NFFT=256, Fs=self.sample_rate, noverlap=192)
            for axes in (wave, spectrum):
                axes.axvline(self.primer / self.sample_rate, color="tab:red")
                axes.set_title(title)
            spectrum.set_ylabel("Hz")
        for axes in panels[1]:
            axes.set_xlabel("seconds")
        return figure


def _write_figure(tag: str, figure: "Figure", step: int) -> None:
    """To the default summary writer."""
    import tensorflow as tf

    png = io.BytesIO()
    figure.savefig(png, format="png")
    image = tf.io.decode_png(png.getvalue(), channels=3)
    tf.summary.image(tag, image[None], step=step)


def _monitored(logs: dict[str, Any] | None, name: str) -> float:
    if name not in (logs or {}):
        raise ValueError(
            f"There is no figure {name!r} to watch. Available: {sorted(logs or {})}"
        )
    return float(logs[name])
