"""The cells: one time step of each recurrent unit."""

from keras_gated.cells.base import GatedCell, RecurrentCell
from keras_gated.cells.equations import Equations, GatedEquations, LinearEquations
from keras_gated.cells.gru import GRUCell
from keras_gated.cells.indrnn import IndRNNCell
from keras_gated.cells.lstm import LSTMCell
from keras_gated.cells.min_gru import MinGRUCell
from keras_gated.cells.min_lstm import MinLSTMCell
from keras_gated.cells.projected_lstm import ProjectedLSTMCell
from keras_gated.cells.recurrence import Recurrence
from keras_gated.cells.simplified_gru import SimplifiedGRUCell
from keras_gated.cells.slstm import SLSTMCell
from keras_gated.cells.tanh import TanhCell

__all__ = [
    "CELLS",
    "FURTHER_CELLS",
    "Equations",
    "GRUCell",
    "GatedCell",
    "GatedEquations",
    "IndRNNCell",
    "LSTMCell",
    "LinearEquations",
    "MinGRUCell",
    "MinLSTMCell",
    "ProjectedLSTMCell",
    "Recurrence",
    "RecurrentCell",
    "SLSTMCell",
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

FURTHER_CELLS = {
    "projected_lstm": ProjectedLSTMCell,
    "indrnn": IndRNNCell,
    "slstm": SLSTMCell,
    "min_gru": MinGRUCell,
    "min_lstm": MinLSTMCell,
}
"""Cells of later papers, by name. They have layers by units; the study of the first
four and its pictures leave them out."""
