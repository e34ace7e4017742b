"""The sequence layers by units: `GRU(64)` for `RNN(GRUCell(64))`."""

from operator import attrgetter
from typing import Any

import keras

from keras_gated.cells import GRUCell, LSTMCell, SimplifiedGRUCell, TanhCell
from keras_gated.cells.base import RecurrentCell
from keras_gated.layers.rnn import RNN

_OF_LAYER = (
    "return_sequences",
    "return_state",
    "go_backwards",
    "stateful",
    "unroll",
    "zero_output_for_mask",
    "truncate_gradient",
    "path",
    "activity_regularizer",
    "name",
    "autocast",
    "input_shape",
    "input_dim",
)
_OF_BOTH = ("dtype", "trainable")


class ByUnits(RNN):
    """Abstract base of the layers that make their cell themselves.

    Args:
        units: Positive integer, the size of the state and of the output.
        *activations: As the cell takes them: `activation`, and for a cell with
            gates `recurrent_activation`.
        **kwargs: The arguments of `RNN` (but `cell`) and those of the cell.

    Raises:
        ValueError: An argument is out of its range.
        TypeError: An argument is unknown to both.
    """

    cell_class: type[RecurrentCell]
    implementation = 2
    """What Keras calls one product for all gates; there is no other way here."""
    use_cudnn = False
    """There is no cuDNN kernel here."""

    def __init__(self, units: int, *activations: Any, **kwargs: Any) -> None:
        # Choices that Keras's layers offer and that this loop has not to make.
        kwargs.pop("implementation", None)
        if kwargs.pop("use_cudnn", "auto") is True:
            raise ValueError(
                f"{type(self).__name__} has no cuDNN kernel: `use_cudnn` may be "
                "'auto' or False. Received: use_cudnn=True"
            )
        both = {name: kwargs.pop(name) for name in _OF_BOTH if name in kwargs}
        layer = {name: kwargs.pop(name) for name in _OF_LAYER if name in kwargs}
        cell = self.cell_class(units, *activations, **both, **kwargs)
        super().__init__(cell, **both, **layer)
        self.input_spec = keras.layers.InputSpec(ndim=3)

    units = property(attrgetter("cell.units"))
    activation = property(attrgetter("cell.activation"))
    use_bias = property(attrgetter("cell.use_bias"))
    kernel_initializer = property(attrgetter("cell.kernel_initializer"))
    recurrent_initializer = property(attrgetter("cell.recurrent_initializer"))
    bias_initializer = property(attrgetter("cell.bias_initializer"))
    kernel_regularizer = property(attrgetter("cell.kernel_regularizer"))
    recurrent_regularizer = property(attrgetter("cell.recurrent_regularizer"))
    bias_regularizer = property(attrgetter("cell.bias_regularizer"))
    kernel_constraint = property(attrgetter("cell.kernel_constraint"))
    recurrent_constraint = property(attrgetter("cell.recurrent_constraint"))
    bias_constraint = property(attrgetter("cell.bias_constraint"))
    dropout = property(attrgetter("cell.dropout"))
    recurrent_dropout = property(attrgetter("cell.recurrent_dropout"))
    weight_noise = property(attrgetter("cell.weight_noise"))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["cell"]
        return {**self.cell.get_config(), **config}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ByUnits":
        return cls(**config)


@keras.saving.register_keras_serializable(package="keras_gated")
class TanhRNN(ByUnits):
    """`RNN(TanhCell(units))`, with the arguments of `keras.layers.SimpleRNN`.

    Args:
        units: Positive integer, the size of the state and of the output.
        *activations: `activation`. Default: `"tanh"`.
        **kwargs: See `RNN` and `TanhCell`.

    Raises:
        ValueError: An argument is out of its range.

    Example:

    >>> import numpy as np
    >>> from keras_gated import TanhRNN
    >>> TanhRNN(4)(np.ones((2, 5, 3), "float32")).shape == (2, 4)
    True
    """

    cell_class = TanhCell


@keras.saving.register_keras_serializable(package="keras_gated")
class LSTM(ByUnits):
    """`RNN(LSTMCell(units))`, with the arguments of `keras.layers.LSTM`.

    With `peephole=False` it computes what `keras.layers.LSTM` computes; by
    default it has peepholes.

    Args:
        units: Positive integer, the size of the states and of the output.
        *activations: `activation` and `recurrent_activation`. Default:
            `"tanh"` and `"sigmoid"`.
        **kwargs: See `RNN` and `LSTMCell`.

    Raises:
        ValueError: An argument is out of its range.

    Example:

    >>> import numpy as np
    >>> from keras_gated import LSTM
    >>> layer = LSTM(4, peephole=False, return_state=True)
    >>> output, h, c = layer(np.ones((2, 5, 3), "float32"))
    >>> output.shape == h.shape == c.shape == (2, 4)
    True
    """

    cell_class = LSTMCell
    recurrent_activation = property(attrgetter("cell.recurrent_activation"))
    unit_forget_bias = property(attrgetter("cell.unit_forget_bias"))
    peephole = property(attrgetter("cell.peephole"))


@keras.saving.register_keras_serializable(package="keras_gated")
class GRU(ByUnits):
    """`RNN(GRUCell(units))`, with the arguments of `keras.layers.GRU`.

    The reset gate comes before the product, as in the paper, where Keras has it
    after by default (`reset_after=True`); and `z` weighs the candidate, where in
    Keras it weighs the old state. `from_keras` minds both.

    Args:
        units: Positive integer, the size of the state and of the output.
        *activations: `activation` and `recurrent_activation`. Default:
            `"tanh"` and `"sigmoid"`.
        **kwargs: See `RNN` and `GRUCell`.

    Raises:
        ValueError: An argument is out of its range.

    Example:

    >>> import numpy as np
    >>> from keras_gated import GRU
    >>> layer = GRU(4, return_sequences=True)
    >>> layer(np.ones((2, 5, 3), "float32")).shape == (2, 5, 4)
    True
    """

    cell_class = GRUCell
    recurrent_activation = property(attrgetter("cell.recurrent_activation"))
    reset_after = property(attrgetter("cell.reset_after"))


@keras.saving.register_keras_serializable(package="keras_gated")
class SimplifiedGRU(ByUnits):
    """`RNN(SimplifiedGRUCell(units))`, with the arguments of `keras.layers.GRU`.

    Args:
        units: Positive integer, the size of the state and of the output.
        *activations: `activation` and `recurrent_activation`. Default:
            `"tanh"` and `"sigmoid"`.
        **kwargs: See `RNN` and `SimplifiedGRUCell`.

    Raises:
        ValueError: An argument is out of its range.

    Example:

    >>> import numpy as np
    >>> from keras_gated import SimplifiedGRU
    >>> SimplifiedGRU(4)(np.ones((2, 5, 3), "float32")).shape == (2, 4)
    True
    """

    cell_class = SimplifiedGRUCell
    recurrent_activation = property(attrgetter("cell.recurrent_activation"))
