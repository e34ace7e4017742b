"""Callbacks: the best model so far, a progress bar over epochs, pictures and sound."""

import contextlib
import io
import math
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from keras_gated.cells.base import GatedCell, RecurrentCell, Tensor
from keras_gated.datasets import piano_roll
from keras_gated.datasets.checks import whole
from keras_gated.datasets.files import atomic_path, require

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class BestModel(keras.callbacks.Callback):
    """Keeps the model of the best epoch in a file that is always whole.

    As `keras.callbacks.ModelCheckpoint(save_best_only=True)`, but the file is
    replaced in one move: an interruption at any moment leaves the best model up
    to then.

    Args:
        path: Where to save, ending in `.keras`.
        monitor: The figure that counts. Default: `"val_loss"`.
        mode: `"min"` where smaller is better, `"max"` where larger is; `"auto"` asks
            the metric, as Keras's callbacks do. Default: `"auto"`.

    Attributes:
        best: The figure of the model that is kept; `None` before the first.

    Raises:
        ValueError: `mode` is none of the three; at the end of an epoch: there is no
            such figure, or its metric does not say which way it is better.

    Example:

    >>> from keras_gated.callbacks import BestModel
    >>> best_model = BestModel("best.keras", monitor="val_frame_accuracy")
    """

    def __init__(
        self, path: str | os.PathLike, monitor: str = "val_loss", mode: str = "auto"
    ) -> None:
        super().__init__()
        if mode not in ("auto", "min", "max"):
            raise ValueError(
                "Argument `mode` must be 'auto', 'min' or 'max'. "
                f"Received: mode={mode!r}"
            )
        self.path = path
        self.monitor = monitor
        self.mode = mode
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
        directions = {  # with several outputs a figure has the output's name before it
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
    """Those of `compile`, which Keras keeps together in one."""
    return [
        inner
        for metric in model.metrics
        for inner in (metric, *getattr(metric, "metrics", ()))
    ]


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


class _Summary(keras.callbacks.Callback):
    """Abstract base of what writes for TensorBoard every few epochs.

    Args:
        log_dir: The folder of the TensorBoard run.
        every: Epochs from one to the next.
    """

    def __init__(self, log_dir: str | os.PathLike, every: int) -> None:
        super().__init__()
        require("matplotlib", extra="examples")
        whole("every", every)
        self.log_dir = os.fspath(log_dir)
        self.every = every
        self._writer = None

    def write(self, epoch: int) -> None:
        """Writes to the default summary writer.

        Args:
            epoch: The number of the epoch that has ended, from 0.
        """
        raise NotImplementedError

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        tf = require("tensorflow")

        self._writer = tf.summary.create_file_writer(self.log_dir)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        if self._writer is not None:  # training may end before it begins
            self._writer.close()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        if epoch % self.every == 0:
            tf = require("tensorflow")

            # Keras's TensorBoard(update_freq=N) lets nothing else through.
            with self._writer.as_default(), tf.summary.record_if(True):
                self.write(epoch)
            self._writer.flush()


class PianoRollImage(_Summary):
    """Writes a picture for TensorBoard: what the model predicts, and the truth.

    Under the tag `"piano_roll"`: the probability of every note of every step of
    one sequence, given the steps before, above what was played.

    Args:
        log_dir: The folder of the TensorBoard run.
        roll: The sequence, `[T, 88]`, zeros and ones, of two steps or more.
        every: Epochs from one picture to the next. Default: 5.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: `every` is not positive.
    """

    def __init__(
        self, log_dir: str | os.PathLike, roll: np.ndarray, every: int = 5
    ) -> None:
        super().__init__(log_dir, every)
        self.roll = np.asarray(roll, "float32")

    def write(self, epoch: int) -> None:
        from matplotlib.figure import Figure

        logits = self.model(self.roll[None, :-1], training=False)[0]
        predicted = keras.ops.convert_to_numpy(keras.ops.sigmoid(logits))
        figure = Figure((7, 5), layout="constrained")
        upper, lower = figure.subplots(2, sharex=True)
        piano_roll.plot(predicted, upper, f"predicted, after epoch {epoch + 1}")
        piano_roll.plot(self.roll[1:], lower, "played")
        _write_figure("piano_roll", figure, epoch)


class SoundSummary(_Summary):
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
        ValueError: The recording is not longer than what the model reads, or
            `every` is not positive.
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
        super().__init__(log_dir, every)
        self.recording = np.asarray(recording, "float32")
        self.primer = int(primer_seconds * sample_rate)
        if self.recording.ndim != 1 or not 0 < self.primer < len(self.recording):
            raise ValueError(
                "Argument `recording` must be [samples], more than the model reads: "
                f"{self.primer:,}. Received: shape {self.recording.shape}"
            )
        self.sample_rate = sample_rate
        self.seed = seed

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        super().on_train_begin(logs)
        with self._writer.as_default():
            self._write_sound("recorded", self.recording, 0)

    def write(self, epoch: int) -> None:
        from keras_gated.generation import generate_audio

        primer = self.recording[: self.primer]
        went_on = generate_audio(
            self.model, primer, len(self.recording) - self.primer, seed=self.seed
        )
        sound = np.concatenate([primer, went_on])
        self._write_sound("generated", sound, epoch)
        _write_figure("waveforms", self._picture(sound, epoch), epoch)

    def _write_sound(self, name: str, sound: np.ndarray, epoch: int) -> None:
        tf = require("tensorflow")

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


class GateMonitor(_Summary):
    """Lets one see in TensorBoard what the gates do on a sequence.

    For every gate of a recurrent layer (and the candidate; of a layer without gates,
    the state) there is a histogram, under tags such as `"gates/update"`, and under
    `"gates"` one picture: below the sequence a heat map for each, time to the right,
    a row a unit. All have their rows in the same order, by the mean of the update or
    forget gate at that epoch. Nothing is dropped or noisy, the sequence begins
    from the initial state, and the model remains as it was.

    Args:
        log_dir: The folder of the TensorBoard run; for each layer watched, one of
            its own.
        probe: The sequence, `[T, features]`, as the model takes it in a batch. A
            piano roll, 88 zeros and ones, is drawn as such; frames that overlap, as
            those of sound do, as a waveform; anything else as a heat map.
        layer: The layer (`keras_gated.RNN` or `keras.layers.RNN` over a cell of the
            package), or its name. Default: `None`, the first with gates, or else
            the first without.
        every: Epochs from one look to the next. Default: 5.

    Raises:
        ImportError: matplotlib is not installed.
        ValueError: `probe` has another shape than the model takes, or the model has
            no such layer or none to show (found out when training begins); or
            `every` is not positive.

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
        layer: keras.layers.Layer | str | None = None,
        every: int = 5,
    ) -> None:
        super().__init__(log_dir, every)
        self.probe = np.asarray(probe, "float32")
        if self.probe.ndim != 2 or 0 in self.probe.shape:
            raise ValueError(
                "Argument `probe` must be [T, features], of a step at least. "
                f"Received: shape {self.probe.shape}"
            )
        self.layer = layer

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        self.gates(self.model)  # what is wrong shall show now, not an epoch later
        super().on_train_begin(logs)

    def write(self, epoch: int) -> None:
        tf = require("tensorflow")

        gates = self.gates(self.model)
        for name, values in gates.items():
            finite = values[np.isfinite(values)]
            tf.summary.histogram(f"gates/{name}", finite, epoch)
        title = f"{self._find(self.model).name}, after epoch {epoch + 1}"
        _write_figure("gates", _picture_of_gates(self.probe, gates, title), epoch)

    def gates(self, model: keras.Model) -> dict[str, np.ndarray]:
        """What the gates do on the probe.

        Args:
            model: A built model with one input.

        Returns:
            The gates and the candidate by name, or `"state"`, each `float32 [T,
            units]`; NaN at steps that a mask skips.

        Raises:
            ValueError: As for the class.
        """
        if not model.built:
            raise ValueError(f"The model {model.name!r} has no weights yet: build it.")
        layer = self._find(model)
        # A subclassed model has no such attribute, and says itself what it takes.
        shape = getattr(model, "input_shape", (None, None, None))
        T, features = self.probe.shape
        if (
            not isinstance(shape, tuple)
            or len(shape) != 3
            or shape[1] not in (None, T)
            or shape[2] not in (None, features)
        ):
            raise ValueError(
                f"Argument `probe` must be [T, features] as the model {model.name!r} "
                f"takes it in a batch, {shape}. Received: shape {self.probe.shape}"
            )
        batch = np.repeat(self.probe[None], shape[0] or 1, axis=0)
        stateful = [
            (state, np.zeros(state.shape))
            for inner in _all_layers(model)
            if getattr(inner, "stateful", False)
            for state in keras.tree.flatten(inner.states)
        ]

        def look(batch: Tensor) -> dict[str, Tensor]:
            # In this scope variables are read and never written, seeds included.
            with keras.StatelessScope(stateful), _inner_loop_recorded(layer) as calls:
                model(batch, training=False)
            if not calls:
                raise ValueError(
                    f"The model {model.name!r} does not call its layer "
                    f"{layer.name!r}: there is nothing to show."
                )
            return _gates_of_sequence(layer, *calls[0])

        batch = ops.convert_to_tensor(batch)
        if keras.config.backend() == "tensorflow":
            tf = require("tensorflow")

            # A loop that is no graph takes milliseconds a step.
            look = tf.function(look, autograph=False).get_concrete_function(batch)
        gates = look(batch)
        return {name: ops.convert_to_numpy(gate) for name, gate in gates.items()}

    def _find(self, model: keras.Model) -> keras.layers.RNN:
        layers = list(_all_layers(model))
        if self.layer is not None:
            layers = [x for x in layers if x is self.layer or x.name == self.layer]
        shown = [
            layer
            for layer in layers
            if isinstance(layer, keras.layers.RNN)
            and isinstance(layer.cell, RecurrentCell)
        ]
        if shown:
            return min(shown, key=lambda x: not isinstance(x.cell, GatedCell))
        which = "" if self.layer is None else f" for layer={self.layer!r}"
        layers = {x.name: type(x).__name__ for x in _all_layers(model)}
        raise ValueError(
            f"The model {model.name!r} has no recurrent layer over a cell of "
            f"keras_gated{which}. Its layers are {layers}"
        )


def _all_layers(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    """The layers within, at any depth, in their order."""
    for inner in layer._flatten_layers(include_self=False, recursive=False):
        yield inner
        yield from _all_layers(inner)


@contextlib.contextmanager
def _inner_loop_recorded(layer: keras.layers.RNN) -> Iterator[list[tuple]]:
    """What `inner_loop` is called with: the inputs, initial states and masks.

    Here they are as the layer gets them, wherever in a model it stands.
    """
    calls, inner_loop = [], layer.inner_loop

    def record(
        sequences: Tensor, initial_state: Any, mask: Any, training: bool = False
    ) -> Any:
        calls.append((sequences, initial_state, mask))
        return inner_loop(sequences, initial_state, mask, training)

    layer.inner_loop = record
    try:
        yield calls
    finally:
        del layer.inner_loop


def _gates_of_sequence(
    layer: keras.layers.RNN, sequences: Tensor, states: list[Tensor], mask: Any
) -> dict[str, Tensor]:
    """Of the first sequence, the gates of all steps, each `[T, units]`."""
    cell, x = layer.cell, sequences[0]
    T = x.shape[0]
    if mask is None:
        mask = np.ones((1, T))
    counts = ops.cast(ops.reshape(keras.tree.flatten(mask)[0][0], (T, 1)), "bool")
    if layer.go_backwards:
        x, counts = ops.flip(x, axis=0), ops.flip(counts, axis=0)

    def step(states: list[Tensor], now: tuple) -> tuple[list[Tensor], list[Tensor]]:
        x, counts = now
        _, new = cell.call(x[None], states)
        pairs = zip(new, states, strict=True)
        return [ops.where(counts, new, old) for new, old in pairs], states

    # The states come one after the other; from them, the gates of all steps at once.
    _, before = ops.scan(step, [state[:1] for state in states], (x, counts))
    gates = cell.gate_activations(x, [state[:, 0] for state in before])
    if not isinstance(cell, GatedCell):
        gates = {"state": gates["candidate"]}
    for name, gate in gates.items():
        gate = ops.where(counts, ops.cast(gate, "float32"), float("nan"))
        gates[name] = ops.flip(gate, axis=0) if layer.go_backwards else gate
    return gates


_TITLES = {
    "update": "update gate (1: the candidate takes the place of the state)",
    "reset": "reset gate (0: the candidate does not see the state)",
    "input": "input gate (1: the candidate enters the memory)",
    "forget": "forget gate (1: the memory is kept)",
    "output": "output gate (1: the memory is shown)",
}


def _picture_of_gates(
    probe: np.ndarray, gates: dict[str, np.ndarray], title: str
) -> "Figure":
    from matplotlib.figure import Figure

    rows = 1 + len(gates)
    figure = Figure((10, 0.8 + 1.7 * rows), layout="constrained")
    upper, *panels = figure.subplots(rows, sharex=True)
    _plot_probe(probe, upper)
    upper.set_title(title)
    leading = next(name for name in ("update", "forget", "state") if name in gates)
    order = np.argsort(np.nan_to_num(gates[leading]).mean(axis=0), kind="stable")
    for axes, (name, values) in zip(panels, gates.items(), strict=True):
        if name in _TITLES:
            style = {"vmin": 0, "vmax": 1, "cmap": "viridis"}
        else:  # around zero; an activation other than tanh may go beyond 1
            limit = max(1.0, np.abs(values[np.isfinite(values)]).max(initial=0))
            style = {"vmin": -limit, "vmax": limit, "cmap": "RdBu_r"}
        image = _heat_map(axes, values[:, order], len(probe), **style)
        figure.colorbar(image, ax=axes, aspect=10, pad=0.01)
        axes.set_title(_TITLES.get(name, name), loc="left", fontsize="medium")
        axes.set(yticks=[], ylabel=f"{values.shape[1]} units")
    by = leading if leading == "state" else f"{leading} gate"
    panels[-1].set_xlabel(f"step   (units by their mean {by}, the lowest below)")
    for axes in (upper, *panels):
        axes.label_outer()
    return figure


def _plot_probe(probe: np.ndarray, axes: "Axes") -> None:
    T, features = probe.shape
    hop = _hop(probe)
    if features == piano_roll.KEYS and np.isin(probe, (0, 1)).all():
        piano_roll.plot(probe, axes)
    elif hop:  # of each frame what is new in it, in its step's place
        wave = probe[:, -hop:].ravel()
        places = (np.arange(len(wave)) + 0.5) / hop - 0.5
        axes.plot(places, wave, linewidth=0.6, color="black")
        axes.set(ylabel="waveform", xlim=(-0.5, T - 0.5))
    else:
        image = _heat_map(axes, probe, T, cmap="Greys")
        axes.figure.colorbar(image, ax=axes, aspect=10, pad=0.01)
        axes.set_ylabel("feature")


def _hop(probe: np.ndarray) -> int | None:
    """By how much each frame is ahead of the one before, if they overlap."""
    features = probe.shape[1]
    for hop in range(1, features):
        before, after = probe[:-1, hop:], probe[1:, :-hop]
        # Columns that are never used are equal and no overlap.
        if np.array_equal(before, after) and len(np.unique(before)) > 1:
            return hop
    return 1 if features == 1 else None


def _heat_map(axes: "Axes", values: np.ndarray, T: int, **style: Any) -> Any:
    """Of `[steps, rows]`, across T steps of the probe."""
    # Of what has more steps or rows than there are pixels, "nearest" drops some.
    sharp = values.shape[0] < 800 and values.shape[1] < 140
    return axes.imshow(
        values.T,
        origin="lower",
        aspect="auto",
        interpolation="nearest" if sharp else "auto",
        extent=(-0.5, T - 0.5, -0.5, values.shape[1] - 0.5),
        **style,
    )


def _write_figure(tag: str, figure: "Figure", step: int) -> None:
    """To the default summary writer."""
    tf = require("tensorflow")

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
