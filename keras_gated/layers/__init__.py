"""Sequence layers over the cells."""

from keras_gated.layers.by_units import (
    GRU,
    LAYERS,
    LSTM,
    SimplifiedGRU,
    TanhRNN,
    layer_by_units,
)
from keras_gated.layers.convert import from_addons, from_keras, from_torch, to_keras
from keras_gated.layers.delay_line import DelayLine
from keras_gated.layers.rnn import RNN

# Those of further cells are not written out.
_FURTHER = {layer.__name__: layer for layer in LAYERS.values()}
globals().update(_FURTHER)

__all__ = [
    "GRU",
    "LAYERS",
    "LSTM",
    "RNN",
    "DelayLine",
    "SimplifiedGRU",
    "TanhRNN",
    "from_addons",
    "from_keras",
    "from_torch",
    "layer_by_units",
    "to_keras",
]
__all__ += sorted(_FURTHER.keys() - set(__all__))
