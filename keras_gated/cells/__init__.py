"""The cells: one time step of each recurrent unit."""

from keras_gated.cells.gru import GRUCell
from keras_gated.cells.lstm import LSTMCell
from keras_gated.cells.simplified_gru import SimplifiedGRUCell
from keras_gated.cells.tanh import TanhCell

__all__ = ["GRUCell", "LSTMCell", "SimplifiedGRUCell", "TanhCell"]
