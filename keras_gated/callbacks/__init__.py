"""Callbacks: resuming, the best model, one progress bar, curves, figures, sound."""

from keras_gated.callbacks.backup import BackupAndRestore
from keras_gated.callbacks.backup_file import BackupError
from keras_gated.callbacks.not_a_number import TerminateOnNaN
from keras_gated.callbacks.progress import BestModel, EpochProgress
from keras_gated.callbacks.summaries import (
    GateMonitor,
    PianoRollImage,
    SoundSummary,
    TensorBoard,
)

__all__ = [
    "BackupAndRestore",
    "BackupError",
    "BestModel",
    "EpochProgress",
    "GateMonitor",
    "PianoRollImage",
    "SoundSummary",
    "TensorBoard",
    "TerminateOnNaN",
]
