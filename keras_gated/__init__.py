"""Gated recurrent cells for Keras 3, and what their study needs."""

from keras_gated import callbacks, datasets, generation, losses, metrics
from keras_gated.cells import GRUCell, LSTMCell, SimplifiedGRUCell, TanhCell
from keras_gated.sizing import match_units

__version__ = "0.1.0"

__all__ = [
    "GRUCell",
    "LSTMCell",
    "SimplifiedGRUCell",
    "TanhCell",
    "callbacks",
    "datasets",
    "generation",
    "losses",
    "match_units",
    "metrics",
]
