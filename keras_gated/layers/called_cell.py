"""Any cell of Keras as the fast loop sees it: by its `call`, as a whole."""

import dataclasses
import weakref
from collections.abc import Callable

import keras
from keras import ops

from keras_gated.cells.equations import Equations, Inputs, Result, States
from keras_gated.cells.recurrence import Recurrence, Tensor


class CallEquations(Equations):
    """A call of a cell as a step, from its inputs and the values of its variables.

    The states of the loop are the output, which the call is not given, and then those
    of the cell.
    """

    activation: Callable | None = None
    cell: weakref.ref = dataclasses.field(kw_only=True)
    """Not the cell, which loops that are shared would keep alive."""
    config: str = dataclasses.field(kw_only=True)
    """Its configuration: if that changes, it is another step."""

    gates = "x"
    products = ()

    def step(self, x: Inputs, states: States, recurrent: Recurrence) -> Result:
        cell = self.cell()
        values = zip(floating(cell), recurrent.V or (), strict=True)
        with keras.StatelessScope(values):
            output, new_states = call(cell, x[0], states[1:])
        return [output, *new_states], {}


class CalledCell:
    """What the fast loop reads of a cell, of one that has a `call` alone.

    Args:
        cell: A cell as `keras.layers.RNN` takes it, that has been built.
    """

    def __init__(self, cell: keras.layers.Layer) -> None:
        self.cell = cell

    @property
    def equations(self) -> CallEquations:
        try:
            config = repr(self.cell.get_config())
        except NotImplementedError:
            config = ""
        return CallEquations(cell=weakref.ref(self.cell), config=config)

    @property
    def compute_dtype(self) -> str:
        return self.cell.compute_dtype

    @property
    def units(self) -> int:
        """The size of its output, as `keras.layers.RNN` takes it."""
        sizes = keras.tree.flatten(self.cell.state_size)
        return getattr(self.cell, "output_size", None) or sizes[0]

    @property
    def state_size(self) -> list[int]:
        """The sizes of the states of the loop."""
        return [self.units, *keras.tree.flatten(self.cell.state_size)]

    def no_output(self, states: States) -> Tensor:
        """The output before the first step.

        Keras shows the first state there under a mask, on JAX.
        """
        if states[0].shape[-1] == self.units:
            return states[0]
        zero = ops.zeros_like(states[0][:, :1])
        return ops.broadcast_to(zero, (ops.shape(zero)[0], self.units))

    def get_dropout_mask(self, inputs: Tensor) -> None:
        return None

    def get_recurrent_dropout_mask(self, h: Tensor) -> None:
        return None

    def _check_step(self, input_shape: tuple, state_shapes: list[tuple]) -> None:
        """Other shapes are errors of its call."""

    def _projection(self, training: bool) -> tuple[None, None]:
        return None, None

    def _kernel_norm(self, training: bool) -> None:
        return None

    def _recurrence(self, training: bool, drop: None) -> Recurrence:
        variables = floating(self.cell)
        return Recurrence({}, V=tuple(ops.convert_to_tensor(v) for v in variables))

    def _zone(self, inputs: Tensor, training: bool) -> None:
        return None


def floating(cell: keras.layers.Layer) -> list[keras.Variable]:
    """The variables of a cell that may have a gradient."""
    return [
        v for v in cell.variables if "float" in keras.backend.standardize_dtype(v.dtype)
    ]


def call(
    cell: keras.layers.Layer, inputs: Tensor, states: States, training: bool = False
) -> tuple[Tensor, States]:
    """Calls a cell as `keras.layers.RNN` does.

    Args:
        cell: The cell.
        inputs: `(batch, input_dim)`.
        states: Its states, flat.
        training: Whether it is trained.

    Returns:
        The output, and the next states, flat.
    """
    structure = cell.state_size
    if not keras.tree.is_nested(structure):
        structure = [structure]
    packed = keras.tree.pack_sequence_as(structure, states)
    more = {"training": training} if cell._call_has_training_arg else {}
    output, new_states = cell(inputs, packed, **more)
    return output, keras.tree.flatten(new_states)
