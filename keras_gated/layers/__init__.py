"""Sequence layers over the cells."""

from keras_gated.layers.by_units import GRU, LSTM, SimplifiedGRU, TanhRNN
from keras_gated.layers.convert import from_addons, from_keras, from_torch, to_keras
from keras_gated.layers.rnn import RNN

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "SimplifiedGRU",
    "TanhRNN",
    "from_addons",
    "from_keras",
    "from_torch",
    "to_keras",
]
