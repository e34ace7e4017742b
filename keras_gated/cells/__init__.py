"""The cells: one time step of each recurrent unit."""

from keras_gated.cells.base import GatedCell, RecurrentCell
from keras_gated.cells.equations import Equations, GatedEquations
from keras_gated.cells.gru import GRUCell
from keras_gated.cells.lstm import LSTMCell
from keras_gated.cells.recurrence import Recurrence
from keras_gated.cells.simplified_gru import SimplifiedGRUCell
from keras_gated.cells.tanh import TanhCell

__all__ = [
    "CELLS",
    "Equations",
    "GRUCell",
    "GatedCell",
    "GatedEquations",
    "LSTMCell",
    "Recurrence",
    "RecurrentCell",
    "SimplifiedGRUCell",
    "TanhCell",
]

CELLS = {
    "tanh": TanhCell,
    "lstm": LSTMCell,
    "gru": GRUCell,
    "simplified_gru": SimplifiedGRUCell,
}
"""The registry of cells, by name: layers by units, examples, benchmarks and pictures
read it, and each cell has a `title` for them."""
