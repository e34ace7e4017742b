"""Data sets and pipelines: piano rolls, MIDI files, Bach's chorales.

They know nothing of cells or layers. What a module needs beyond NumPy it
imports when it is used, and says which extra to install where that is missing.
"""

from keras_gated.datasets import bach_chorales, midi, piano_roll

__all__ = ["bach_chorales", "midi", "piano_roll"]
