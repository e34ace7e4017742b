"""Curves, figures and sound in TensorBoard."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from keras_gated import generation, inspection, pictures
from keras_gated.datasets import checks, piano_roll
from keras_gated.datasets.files import require
from keras_gated.nade import layer as nade

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class TensorBoard(keras.callbacks.TensorBoard):
    """`keras.callbacks.TensorBoard`, for long trainings, too.

    Keras's writes the curves of epochs only where the number of updates is a multiple
    of `update_freq`, if that is an integer; this one writes all of them. And TensorFlow
    keeps every Python number that it has ever made a tensor of, some 20 KiB an epoch;
    this one writes NumPy's numbers.

    Args:
        log_dir: The folder of the TensorBoard run. Default: `"logs"`.
        **kwargs: As of `keras.callbacks.TensorBoard`.

    Raises:
        ImportError: TensorFlow is not installed, which writes for TensorBoard whatever
            the backend.

    Example:

    >>> from keras_gated.callbacks import TensorBoard
    >>> callback = TensorBoard("logs", update_freq=50)
    """

    def __init__(self, log_dir: str | os.PathLike = "logs", **kwargs: Any) -> None:
        require("tensorflow")
        super().__init__(os.fspath(log_dir), **kwargs)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        with self._writing_all():
            super().on_epoch_end(np.int64(epoch), _of_numpy(logs))

    def on_test_end(self, logs: dict[str, float] | None = None) -> None:
        with self._writing_all():
            super().on_test_end(_of_numpy(logs))

    def on_train_batch_end(
        self, batch: int, logs: dict[str, float] | None = None
    ) -> None:
        super().on_train_batch_end(batch, _of_numpy(logs))

    @contextmanager
    def _writing_all(self) -> Iterator[None]:
        # Not by `tf.summary.record_if`: Keras leaves its own within `on_test_end`.
        every = self.update_freq
        if every != "epoch":
            self.update_freq = 1
        try:
            yield
        finally:
            self.update_freq = every


def _of_numpy(logs: dict[str, float] | None) -> dict[str, np.float32]:
    return {name: np.float32(value) for name, value in (logs or {}).items()}


class _Summary(keras.callbacks.Callback):
    """Abstract base of the callbacks that write for TensorBoard every few epochs.

    Args:
        log_dir: The folder of the TensorBoard run.
        every: How many epochs apart they write.

    Raises:
        ImportError: matplotlib is not installed, or TensorFlow, which writes for
            TensorBoard whatever the backend.
        ValueError: `every` is not a positive integer.
    """

    def __init__(self, log_dir: str | os.PathLike, every: int) -> None:
        super().__init__()
        require("matplotlib", extra="examples")
        require("tensorflow")
        self.log_dir = os.fspath(log_dir)
        self.every = checks.whole("every", every)
        self._writer = None

    def write(self, epoch: int) -> None:
        """Writes to the default summary writer.

        Args:
            epoch: The number of the epoch that has ended, from 0.
        """
        raise NotImplementedError

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        import tensorflow as tf

        self._writer = tf.summary.create_file_writer(self.log_dir)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        if self._writer is not None:  # training may end before it begins
            self._writer.close()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        import tensorflow as tf

        if epoch % self.every == 0:
            # Whatever `keras.callbacks.TensorBoard(update_freq=N)` has said.
            with self._writer.as_default(), tf.summary.record_if(True):
                self.write(epoch)
            self._writer.flush()


class PianoRollImage(_Summary):
    """Draws for TensorBoard what the model predicts, above what was played.

    The figure has the tag `"piano_roll"`. It shows, for one sequence, the probability
    of every note at every step, given the steps before; in a model of whole frames,
    given the notes of the step that come first in the order, too.

    Args:
        log_dir: The folder of the TensorBoard run.
        roll: The sequence, `[T, 88]`, or `[T, 176]` with onsets, zeros and ones, with
            at least two steps.
        every: How many epochs apart it is drawn. Default: 5.
        features: `[T, features]`, what the model is told of each step of `roll`, as
            `piano_roll.next_step_dataset` takes it. Default: `None`, nothing.

    Raises:
        ImportError: matplotlib or TensorFlow is not installed.
        ValueError: `roll` or `features` has another shape, or `every` is not a positive
            integer.

    Example:

    >>> import numpy as np
    >>> from keras_gated.callbacks import PianoRollImage
    >>> callback = PianoRollImage("logs", np.eye(16, 88))
    """

    def __init__(
        self,
        log_dir: str | os.PathLike,
        roll: np.ndarray,
        every: int = 5,
        features: np.ndarray | None = None,
    ) -> None:
        super().__init__(log_dir, every)
        self.roll = np.asarray(roll, "float32")
        widths = piano_roll.KEYS, 2 * piano_roll.KEYS
        if self.roll.ndim != 2 or self.roll.shape[1] not in widths or len(roll) < 2:
            raise ValueError(
                f"Argument `roll` must be [T, {widths[0]}], or [T, {widths[1]}] with "
                f"onsets, with at least two steps. Received: shape {self.roll.shape}"
            )
        self.features = None if features is None else np.asarray(features, "float32")
        if self.features is not None and self.features.shape[:-1] != (len(roll),):
            raise ValueError(
                f"Argument `features` must be [{len(roll)}, features], as long as "
                f"`roll`. Received: shape {self.features.shape}"
            )

    def write(self, epoch: int) -> None:
        before, following = self.roll[None, :-1], self.roll[None, 1:]
        inputs = [before, following] if nade.head_of(self.model) else [before]
        if self.features is not None:
            inputs.append(self.features[None, 1:])
        logits = self.model(inputs if len(inputs) > 1 else before, training=False)[0]
        predicted = ops.convert_to_numpy(ops.sigmoid(logits))
        title = f"predicted, after epoch {epoch + 1}"
        figure = pictures.piano_rolls({title: predicted, "played": following[0]})
        _write_figure("piano_roll", figure, epoch)


class SoundSummary(_Summary):
    """Plays and draws in TensorBoard how a model continues a recording.

    The model reads the beginning of the recording and generates the rest. The tags
    `"sound/recorded"` (once) and `"sound/generated"` hold sound, `"waveforms"` a figure
    of both with their spectrograms.

    Args:
        log_dir: The folder of the TensorBoard run.
        recording: `[samples]`, in the unit of `datasets.audio.read`.
        sampling_rate: Samples per second.
        primer_seconds: How many seconds of it the model reads. Default: 0.5.
        every: How many epochs apart it generates. Default: 5.
        seed: The seed of the generated samples. Default: 0.

    Raises:
        ImportError: matplotlib or TensorFlow is not installed.
        ValueError: The recording is not longer than what the model reads, or a number
            is out of its range.

    Example:

    >>> import numpy as np
    >>> from keras_gated.callbacks import SoundSummary
    >>> callback = SoundSummary("logs", np.zeros(16_000), sampling_rate=8000)
    """

    def __init__(
        self,
        log_dir: str | os.PathLike,
        recording: np.ndarray,
        sampling_rate: int,
        primer_seconds: float = 0.5,
        every: int = 5,
        seed: int = 0,
    ) -> None:
        super().__init__(log_dir, every)
        self.recording = np.asarray(recording, "float32")
        self.sampling_rate = checks.whole("sampling_rate", sampling_rate)
        seconds = checks.number("primer_seconds", primer_seconds, above=0)
        self.primer = int(seconds * sampling_rate)
        if self.recording.ndim != 1 or not 0 < self.primer < len(self.recording):
            raise ValueError(
                "Argument `recording` must be [samples], more than the model reads: "
                f"{self.primer:,}. Received: shape {self.recording.shape}"
            )
        self.seed = seed

    def write(self, epoch: int) -> None:
        if epoch == 0:  # not when training begins, which it may several times
            self._write_sound("recorded", self.recording, 0)
        primer = self.recording[: self.primer]
        went_on = generation.generate_audio(
            self.model, primer, len(self.recording) - self.primer, seed=self.seed
        )
        sound = np.concatenate([primer, went_on])
        self._write_sound("generated", sound, epoch)
        both = {"recorded": self.recording, f"after epoch {epoch + 1}": sound}
        mark = self.primer / self.sampling_rate
        _write_figure(
            "waveforms", pictures.sounds(both, self.sampling_rate, mark), epoch
        )

    def _write_sound(self, name: str, sound: np.ndarray, epoch: int) -> None:
        import tensorflow as tf

        clipped = np.clip(sound, -1, 1)[None, :, None]
        tf.summary.audio(f"sound/{name}", clipped, self.sampling_rate, epoch)


class GateMonitor(_Summary):
    """Shows in TensorBoard what the gates of a layer do on a sequence.

    Every gate of the layer and its candidate (or the state of a layer without gates)
    has a histogram, with a tag such as `"gates/update"`; the tag `"gates"` holds the
    figure of `keras_gated.pictures.gates`. The values are those of
    `keras_gated.inspection.gates`: without dropout and noise, from the initial state,
    and the model stays unchanged.

    Args:
        log_dir: The folder of the TensorBoard run; use one folder per layer.
        probe: The sequence, `[T, features]`.
        layer: The layer, as in `inspection.gates`. Default: `None`, the first layer
            with gates, or else the first without.
        every: How many epochs apart it looks. Default: 5.

    Raises:
        ImportError: matplotlib or TensorFlow is not installed.
        ValueError: `probe` is not `[T, features]` or `every` not a positive integer;
            when training begins: the model takes sequences of another shape, or has
            no such layer.

    Example:

    >>> import keras, numpy as np
    >>> from keras_gated import GRU
    >>> from keras_gated.callbacks import GateMonitor
    >>> model = keras.Sequential([keras.Input((None, 3)), GRU(4)])
    >>> monitor = GateMonitor("logs", probe=np.eye(3))
    >>> for name, values in monitor.gates(model).items():  # in fit: callbacks=[monitor]
    ...     print(name, values.shape)
    update (3, 4)
    reset (3, 4)
    candidate (3, 4)
    """

    def __init__(
        self,
        log_dir: str | os.PathLike,
        probe: np.ndarray,
        layer: keras.layers.Layer | str | int | None = None,
        every: int = 5,
    ) -> None:
        super().__init__(log_dir, every)
        self.probe = np.asarray(probe, "float32")
        if self.probe.ndim != 2 or 0 in self.probe.shape:
            raise ValueError(
                "Argument `probe` must be [T, features], with at least one step. "
                f"Received: shape {self.probe.shape}"
            )
        self.layer = layer

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self.gates(self.model)  # to fail now, not after an epoch
        super().on_train_begin(logs)

    def write(self, epoch: int) -> None:
        import tensorflow as tf

        gates = self.gates(self.model)
        for name, values in gates.items():
            finite = values[np.isfinite(values)]
            tf.summary.histogram(f"gates/{name}", finite, epoch)
        layer = self._watched(self.model)
        title = f"{getattr(layer, 'name', layer)}, after epoch {epoch + 1}"
        _write_figure("gates", pictures.gates(self.probe, gates, title), epoch)

    def gates(self, model: keras.Model) -> dict[str, np.ndarray]:
        """The values of the gates on the probe.

        Args:
            model: A built model with one input.

        Returns:
            As `inspection.gates`, each `[T, units]`.

        Raises:
            ValueError: As for the class.
        """
        return inspection.gates(model, self.probe, self._watched(model))

    def _watched(self, model: keras.Model) -> keras.layers.Layer | str | int | None:
        """The layer of the argument, or the default's; `None` if there is none."""
        if self.layer is not None:
            return self.layer
        layers = inspection.recurrent_layers(model)
        own = [layer for layer in layers if hasattr(layer.cell, "gate_activations")]
        return min(own, key=lambda layer: len(layer.cell.gates) == 1, default=None)


def _write_figure(tag: str, figure: "Figure", step: int) -> None:
    """To the default summary writer."""
    import tensorflow as tf

    png = io.BytesIO()
    figure.savefig(png, format="png")
    image = tf.io.decode_png(png.getvalue(), channels=3)
    tf.summary.image(tag, image[None], step=step)
