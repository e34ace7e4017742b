"""Gated recurrent cells and fast layers for Keras 3, and what their study needs."""

from keras_gated import (
    callbacks,
    datasets,
    generation,
    inspection,
    losses,
    metrics,
    optimizers,
    pictures,
)
from keras_gated.cells import CELLS, GRUCell, LSTMCell, SimplifiedGRUCell, TanhCell
from keras_gated.layers import (
    GRU,
    LSTM,
    RNN,
    SimplifiedGRU,
    TanhRNN,
    from_addons,
    from_keras,
    from_torch,
    to_keras,
)
from keras_gated.mixture import GaussianMixture
from keras_gated.sizing import match_units

__version__ = "0.1.0"

__all__ = [
    "CELLS",
    "GRU",
    "LSTM",
    "RNN",
    "GRUCell",
    "GaussianMixture",
    "LSTMCell",
    "SimplifiedGRU",
    "SimplifiedGRUCell",
    "TanhCell",
    "TanhRNN",
    "callbacks",
    "datasets",
    "from_addons",
    "from_keras",
    "from_torch",
    "generation",
    "inspection",
    "losses",
    "match_units",
    "metrics",
    "optimizers",
    "pictures",
    "to_keras",
]
