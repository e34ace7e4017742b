"""The six sets of the study, music and speech behind one protocol."""

import dataclasses
import functools
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import comparison
import keras
import numpy as np
from comparison import Settings, music, sound

import keras_gated
from keras_gated import callbacks, inspection, metrics
from keras_gated.datasets import (
    fsdd,
    jsb_chorales,
    muse_data,
    nottingham,
    piano_midi,
)
from study.variants import TRAINABLE

if TYPE_CHECKING:
    import tensorflow as tf

JOINT_SHAPES = 4
"""The most shapes of batches of models of whole frames."""
PROBE_STEPS = 200
"""The largest number of steps of a sequence on which gates are watched."""


class Sources(NamedTuple):
    """The folders of the data; `None`: where `load_data` of the set finds it."""

    music: Path | None = None
    speech: Path | None = None


class Batches(NamedTuple):
    """The data sets of a task.

    `evaluation` has the sequences of training in batches for evaluation, by which the
    training NLL is computed.
    """

    training: "tf.data.Dataset"
    validation: "tf.data.Dataset"
    test: "tf.data.Dataset"
    evaluation: "tf.data.Dataset"


class Task(Protocol):
    """A set, and how cells are trained on it.

    Attributes:
        title: The name of the set for people.
        kind: `"music"` or `"speech"`; tasks of a kind have their sizes and a figure in
            common.
        budget: Parameters of the recurrent layer.
        inputs: Inputs of a step by which these are counted.
    """

    title: str
    kind: ClassVar[str]
    budget: int
    inputs: int

    def load(self, sources: Sources) -> Any:
        """Reads the data, once per process.

        Raises:
            OSError, ValueError: It is not there, or not what it should be.
        """

    def build(self, cell: str, settings: Settings, data: Any) -> keras.Model:
        """The compiled model of a cell, with metrics named `nll`, `nll_sequence`."""

    def batches(self, settings: Settings, data: Any) -> Batches:
        """The data sets of training, validation, test and evaluation."""

    def probe(self, data: Any, batches: Batches) -> np.ndarray:
        """The beginning of a test sequence, `[steps, inputs]`, `float32`."""


@dataclasses.dataclass(frozen=True)
class Music:
    """Piano rolls. The paper counts parameters at about 100 inputs; a roll has 88."""

    kind: ClassVar[str] = "music"
    title: str
    load_data: Callable[[Path | None], music.Rolls]
    budget: int = 20_000
    inputs: int = 100

    def load(self, sources: Sources) -> music.Rolls:
        return _read_once(self.load_data, sources.music)

    def build(self, cell: str, settings: Settings, data: music.Rolls) -> keras.Model:
        if settings.head:
            return comparison.build_joint(settings, cell=cell)
        return comparison.build(cell, settings, *music.likelihood(), TRAINABLE)

    def batches(self, settings: Settings, data: music.Rolls) -> Batches:
        size, seed = settings.batch_size, settings.seed
        large = settings.evaluation_batch_size or size
        joint = {}
        if settings.head:  # whose compilation takes longer
            joint["max_shapes"] = JOINT_SHAPES
            joint["teacher_forcing"] = bool(comparison.HEADS[settings.head])
        cut = music.batches(data, size, seed, settings.sequence_length, large, **joint)
        # Training is on pieces that are cut, evaluation on whole ones.
        return Batches(*cut, evaluation=music.batches(data, large, seed, **joint)[0])

    def probe(self, data: music.Rolls, batches: Batches) -> np.ndarray:
        return data[2][0][:PROBE_STEPS].astype("float32")


@dataclasses.dataclass(frozen=True)
class Speech:
    """Spoken digits, of 8,000 samples per second."""

    kind: ClassVar[str] = "speech"
    title: str
    budget: int = 168_800
    inputs: int = sound.FRAME

    def load(self, sources: Sources) -> sound.Parts:
        return _read_once(_digits, sources.speech)

    def build(self, cell: str, settings: Settings, data: sound.Parts) -> keras.Model:
        return comparison.build(cell, settings, *sound.likelihood(data), TRAINABLE)

    def batches(self, settings: Settings, data: sound.Parts) -> Batches:
        cut = sound.batches(
            data, settings.batch_size, settings.seed, settings.sequence_length
        )
        return Batches(*cut, evaluation=cut[0])

    def probe(self, data: sound.Parts, batches: Batches) -> np.ndarray:
        return next(iter(batches.test))[0][0, :PROBE_STEPS].numpy()


TASKS: dict[str, Task] = {
    "jsb_chorales": Music("JSB Chorales", jsb_chorales.load_data),
    "piano_midi": Music("Piano-midi.de", piano_midi.load_data),
    "nottingham": Music("Nottingham", nottingham.load_data),
    "muse_data": Music("MuseData", muse_data.load_data),
    "speech_500": Speech("spoken digits, 500 samples"),
    "speech_8000": Speech("spoken digits, 8,000 samples"),
}
"""The sets by name. The learning rates that are tried depend on their order."""


@functools.cache
def _read_once(read: Callable[[Path | None], Any], folder: Path | None) -> Any:
    return read(folder)


def _digits(folder: Path | None) -> sound.Parts:
    return fsdd.load_data(folder, sampling_rate=8000, verbose=0)


_match_units = functools.cache(keras_gated.match_units)


def units_of(task: Task, cell: str) -> int:
    """The units of a cell: those of Table 1, and for others as many as fit."""
    return _match_units(TRAINABLE[cell], task.budget, task.inputs)


def train(
    task: Task,
    cell: str,
    settings: Settings,
    sources: Sources,
    folder: Path,
    watch_gates: bool = False,
) -> dict:
    """Trains and evaluates one model.

    Args:
        task: The set.
        cell: The name of the cell.
        settings: What to train with.
        sources: The folders of the data.
        folder: For the best model, and TensorBoard.
        watch_gates: Whether TensorBoard shows the gates on a test sequence, at four
            times of the training.

    Returns:
        The results by their names in a record. If no epoch had a finite validation
        NLL, `valid_nll` is infinite and `failure` says so; otherwise that is `None`.

    Raises:
        BackupError: The folder has the backup of a training with other data, or of
            another plan. One of other versions, or a damaged one, is replaced.
    """
    data = task.load(sources)
    keras.utils.clear_session()  # names must not depend on what was trained before
    model = task.build(cell, settings, data)
    batches = task.batches(settings, data)
    watchers = []
    if watch_gates:
        every = max(1, settings.epochs // 4)
        probe = task.probe(data, batches)
        watchers.append(callbacks.GateMonitor(folder, probe, every=every))
    recurrent = inspection.recurrent_layers(model)[0]
    results = {
        "units": recurrent.cell.units,
        "parameters": recurrent.count_params(),
        "parameters_of_model": model.count_params(),
        "updates": settings.epochs * len(batches.training),
    }
    began = time.perf_counter()
    try:
        row, curves = comparison.train(model, settings, batches[:3], folder, watchers)
        batches.evaluation.start_at(0)  # a sum of another order would round otherwise
        scores = model.evaluate(batches.evaluation, verbose=0, return_dict=True)
    except callbacks.BackupError as error:
        if not all(what.startswith("versions.") for what in error.differing):
            raise
        print(f"{error} It was removed.", file=sys.stderr)
        comparison.discard_backup(folder)
        return train(task, cell, settings, sources, folder, watch_gates)
    except ValueError as error:
        seconds = time.perf_counter() - began
        figures = {"valid_nll": math.inf, "seconds": seconds, "failure": str(error)}
    else:
        figures = {
            "train_nll": scores["nll"],
            "valid_nll": row["valid_nll"],
            "test_nll_step": row["test_nll"],
            "test_nll_sequence": row["test_nll_sequence"],
            **({} if settings.head else _with_noise(task, model, batches.test)),
            "seconds": row["seconds"],
            "curves": {
                key: [round(x, 5) for x in curves[key]]
                for key in ("nll", "val_nll", "seconds")
            },
            "failure": None,
        }
    finally:
        keras.backend.clear_session()
    return results | figures


def _with_noise(task: Task, model: keras.Model, test: "tf.data.Dataset") -> dict:
    """The test NLL of music with the noise of the weights left on.

    So the authors' code monitors training, and what the paper reports may be this.
    """
    if task.kind != "music":
        return {}
    kinds = [metrics.FrameNLL(kind) for kind in ("step", "sequence")]
    for inputs, targets, weights in test:
        logits = model(inputs, training=True)
        for metric in kinds:
            metric.update_state(targets, logits, weights)
    names = ("test_nll_step_noisy", "test_nll_sequence_noisy")
    return {
        name: float(metric.result()) for name, metric in zip(names, kinds, strict=True)
    }
