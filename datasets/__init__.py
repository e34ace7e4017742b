"""Data sets and pipelines: piano rolls, MIDI and sound files, published sets, Bach.

They know nothing of cells or layers. What a module needs beyond NumPy it
imports when it is used, and says which extra to install where that is missing.
"""

from keras_gated.datasets import (
    audio,
    bach_chorales,
    midi,
    midi_directory,
    piano_roll,
)
from keras_gated.datasets.audio import audio_dataset_from_directory
from keras_gated.datasets.midi_directory import midi_dataset_from_directory

__all__ = [
    "audio",
    "audio_dataset_from_directory",
    "bach_chorales",
    "midi",
    "midi_dataset_from_directory",
    "midi_directory",
    "piano_roll",
]
