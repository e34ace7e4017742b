"""Keras's own cells, as the fast loop sees them."""

import operator
from typing import Any

import keras
from keras import ops

from keras_gated.cells.base import RecurrentCell
from keras_gated.cells.equations import Equations, Inputs, Result, States
from keras_gated.cells.gru import GRUEquations, ResetAfterEquations
from keras_gated.cells.lstm import LSTMEquations
from keras_gated.cells.recurrence import Recurrence, Tensor
from keras_gated.cells.tanh import TanhEquations
from keras_gated.layers.called_cell import CalledCell


class _OfKeras:
    """`z` weighs the old state, and the candidate has the rest."""

    def step(self, x: Inputs, states: States, recurrent: Recurrence) -> Result:
        _, gates = super().step(x, states, recurrent)
        (h,), z, h_cand = states, gates["z"], gates["h_cand"]
        return [z * h + (1 - z) * h_cand], gates


class KerasGRUEquations(_OfKeras, GRUEquations):
    """Those of `keras.layers.GRUCell(reset_after=False)`."""


class KerasResetAfterEquations(_OfKeras, ResetAfterEquations):
    """Those of `keras.layers.GRUCell()`."""


class CellOfKeras:
    """What the fast loop reads of a cell, of one of Keras's.

    Args:
        cell: A `SimpleRNNCell`, `LSTMCell` or `GRUCell` of Keras.
    """

    def __init__(self, cell: keras.layers.Layer) -> None:
        self.cell = cell

    units = property(operator.attrgetter("cell.units"))
    compute_dtype = property(operator.attrgetter("cell.compute_dtype"))
    state_size = property(operator.attrgetter("cell.state_size"))

    @property
    def equations_class(self) -> type[Equations]:
        if isinstance(self.cell, keras.layers.GRUCell):
            after = self.cell.reset_after
            return KerasResetAfterEquations if after else KerasGRUEquations
        lstm = isinstance(self.cell, keras.layers.LSTMCell)
        return LSTMEquations if lstm else TanhEquations

    @property
    def equations(self) -> Equations:
        kind, activations = self.equations_class, {"activation": self.cell.activation}
        if kind is not TanhEquations:
            activations["recurrent_activation"] = self.cell.recurrent_activation
        return kind(**activations)

    @property
    def obstacle(self) -> str | None:
        """Why the fast loop does not apply; `None` if it does."""
        cell = self.cell
        if isinstance(cell, keras.layers.SimpleRNNCell):
            return None
        if cell.recurrent_dropout or (cell.dropout and cell.implementation == 1):
            return f"keras.layers.{type(cell).__name__} has a dropout mask of each gate"
        return None

    def get_dropout_mask(self, inputs: Tensor) -> Tensor | None:
        return self.cell.get_dropout_mask(inputs)

    def get_recurrent_dropout_mask(self, h: Tensor) -> Tensor | None:
        return self.cell.get_recurrent_dropout_mask(h)

    def _check_step(self, input_shape: tuple, state_shapes: list[tuple]) -> None:
        """Products of other shapes are errors of their own."""

    def _current(self, name: str) -> Tensor:
        return ops.convert_to_tensor(getattr(self.cell, name), dtype=self.compute_dtype)

    def _biases(self) -> tuple[Tensor | None, Tensor | None]:
        if not self.cell.use_bias:
            return None, None
        bias = self._current("bias")
        return ops.unstack(bias, 2) if len(bias.shape) == 2 else (bias, None)

    def _projection(self, training: bool) -> tuple[Tensor, Tensor | None]:
        return self._current("kernel"), self._biases()[0]

    def _kernel_norm(self, training: bool) -> None:
        return None

    def _zone(self, inputs: Tensor, training: bool) -> None:
        return None

    def _recurrence(self, training: bool, drop: Tensor | None) -> Recurrence:
        by_product, (_, b_U) = self.equations_class.by_product, self._biases()
        U = by_product(self._current("recurrent_kernel"))
        return Recurrence(
            U,
            None if b_U is None else by_product(b_U),
            drop=None if drop is None else dict.fromkeys(U, drop),
        )


def seen_by_loop(cell: Any) -> Any:
    """A cell as the fast loop sees it; one that it cannot run as it is."""
    kinds = keras.layers.SimpleRNNCell, keras.layers.LSTMCell, keras.layers.GRUCell
    if type(cell) in kinds:
        return CellOfKeras(cell)
    if type(cell).call is RecurrentCell.call:
        return cell
    stack = isinstance(cell, keras.layers.StackedRNNCells)
    layer = isinstance(cell, keras.layers.Layer) and not stack
    return CalledCell(cell) if layer else cell
