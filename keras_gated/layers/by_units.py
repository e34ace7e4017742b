"""The sequence layers by units: `GRU(64)` for `RNN(GRUCell(64))`."""

import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any

import keras

from keras_gated.cells import (
    CELLS,
    FURTHER_CELLS,
    GatedCell,
    GRUCell,
    LSTMCell,
    RecurrentCell,
    SimplifiedGRUCell,
    TanhCell,
)
from keras_gated.layers.rnn import LAYER_ARGUMENTS, RNN

_OF_LAYER = {
    *LAYER_ARGUMENTS,
    "learn_initial_state",
    "truncate_gradient",
    "recompute_states",
    "use_fast_loop",
}


class CellRNN(RNN):
    """Abstract base of the layers by units, which make their own cell.

    Its subclasses have the signatures of Keras's layers, written out so that editors
    can show and complete them, and further arguments after them.

    Args:
        arguments: The `locals()` of the constructor of a subclass: the arguments of the
            layer and of the cell, and under `kwargs` those of `keras.layers.Layer`.

    Raises:
        ValueError: An argument is out of its range, or unknown.
    """

    cell_class: type[RecurrentCell]
    implementation = 2
    """In Keras, 2 means one product for all gates; there is no other way here."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        kwargs = dict(arguments.pop("kwargs"))
        kwargs.pop("implementation", None)
        cell = {n: v for n, v in arguments.items() if n not in ("self", "__class__")}
        if cell.pop("use_cudnn", False) is True:
            raise ValueError(
                f"{type(self).__name__} has no cuDNN kernel: `use_cudnn` may be "
                "'auto' or False. Received: use_cudnn=True"
            )
        kwargs |= {name: cell.pop(name) for name in _OF_LAYER & cell.keys()}
        both = {n: kwargs[n] for n in ("dtype", "trainable") if n in kwargs}
        super().__init__(self.cell_class(**cell, **both), **kwargs)
        self.input_spec = keras.layers.InputSpec(ndim=3)
        self.use_cudnn = False

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
    layer_norm = property(attrgetter("cell.layer_norm"))
    layer_norm_epsilon = property(attrgetter("cell.layer_norm_epsilon"))
    zoneout = property(attrgetter("cell.zoneout"))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        del config["cell"]
        return {**self.cell.get_config(), **config}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "CellRNN":
        return cls(**config)


@keras.saving.register_keras_serializable(package="keras_gated")
class TanhRNN(CellRNN):
    """`RNN(TanhCell(units))`, with the signature of `keras.layers.SimpleRNN`.

    It computes what that layer computes and has the same weights.

    Args:
        units: Positive integer, the size of the state and of the output.
        activation: The activation of the candidate, a name or a callable; `None` for
            the identity. Default: `"tanh"`.
        use_bias: Whether there are biases. Default: `True`.
        kernel_initializer: Initializer of the input kernel. Default:
            `"glorot_uniform"`.
        recurrent_initializer: Initializer of the recurrent kernel. Default:
            `"orthogonal"`.
        bias_initializer: Initializer of the biases. Default: `"zeros"`.
        kernel_regularizer: Regularizer of the input kernel. Default: `None`.
        recurrent_regularizer: Regularizer of the recurrent kernel. Default: `None`.
        bias_regularizer: Regularizer of the biases. Default: `None`.
        activity_regularizer: Regularizer of the output. Default: `None`.
        kernel_constraint: Constraint of the input kernel. Default: `None`.
        recurrent_constraint: Constraint of the recurrent kernel. Default: `None`.
        bias_constraint: Constraint of the biases. Default: `None`.
        dropout: The fraction of the inputs to drop while training. Default: 0.
        recurrent_dropout: The fraction of the state to drop while training. Default: 0.
        return_sequences: Whether to return the outputs of all steps, `(batch, time,
            units)`, or that of the last. Default: `False`.
        return_state: Whether to return the last state as well. Default: `False`.
        go_backwards: Whether to begin with the last step. Default: `False`.
        stateful: Whether a batch begins with the last states of the batch before
            it. Default: `False`.
        unroll: Whether to unroll Keras's loop. Default: `False`.
        seed: Seed of dropout and noise. Default: `None`.
        weight_noise: Standard deviation of the noise on the kernels while training.
            Default: 0.
        layer_norm: Whether what goes into the gates is normalized over the units, see
            the cell. Default: `False`.
        layer_norm_epsilon: Added to the variance. Default: 1e-3.
        zoneout: The probability with which a unit of the state stays as it was at a
            step, or a list of one for each state. Default: 0.
        zero_output_for_mask: See `RNN`. Default: `False`.
        learn_initial_state: See `RNN`. Default: `False`.
        truncate_gradient: See `RNN`. Default: `None`.
        recompute_states: See `RNN`. Default: `False`.
        use_fast_loop: See `RNN`. Default: `"auto"`.
        **kwargs: Further arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Raises:
        ValueError: An argument is out of its range, or unknown.

    Example:

    >>> import numpy as np
    >>> from keras_gated import TanhRNN
    >>> TanhRNN(4)(np.ones((2, 5, 3), "float32")).shape == (2, 4)
    True
    """

    cell_class = TanhCell

    def __init__(
        self,
        units: int,
        activation: str | Callable | None = "tanh",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        seed: int | None = None,
        *,
        weight_noise: float = 0.0,
        layer_norm: bool = False,
        layer_norm_epsilon: float = 1e-3,
        zoneout: float | Sequence[float] = 0.0,
        zero_output_for_mask: bool = False,
        learn_initial_state: bool = False,
        truncate_gradient: int | None = None,
        recompute_states: bool = False,
        use_fast_loop: bool | str = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())


@keras.saving.register_keras_serializable(package="keras_gated")
class LSTM(CellRNN):
    """`RNN(LSTMCell(units))`, with the signature of `keras.layers.LSTM`.

    By default it has peepholes, which `keras.layers.LSTM` has not: its weights are one
    more. With `peephole=False` it computes what that layer computes, and weights move
    between the two as they are. `from_keras` minds it.

    Args:
        units: Positive integer, the size of the state and of the output.
        activation: The activation of the candidate, a name or a callable; `None` for
            the identity. Default: `"tanh"`.
        recurrent_activation: The activation of the gates. Default: `"sigmoid"`.
        use_bias: Whether there are biases. Default: `True`.
        kernel_initializer: Initializer of the input kernel. Default:
            `"glorot_uniform"`.
        recurrent_initializer: Initializer of the recurrent kernel. Default:
            `"orthogonal"`.
        bias_initializer: Initializer of the biases. Default: `"zeros"`.
        unit_forget_bias: Whether the forget gate's bias starts at 1. Default:
            `True`.
        kernel_regularizer: Regularizer of the input kernel. Default: `None`.
        recurrent_regularizer: Regularizer of the recurrent kernel. Default: `None`.
        bias_regularizer: Regularizer of the biases. Default: `None`.
        activity_regularizer: Regularizer of the output. Default: `None`.
        kernel_constraint: Constraint of the input kernel. Default: `None`.
        recurrent_constraint: Constraint of the recurrent kernel. Default: `None`.
        bias_constraint: Constraint of the biases. Default: `None`.
        dropout: The fraction of the inputs to drop while training. Default: 0.
        recurrent_dropout: The fraction of the state to drop while training. Default: 0.
        seed: Seed of dropout and noise. Default: `None`.
        return_sequences: Whether to return the outputs of all steps, `(batch, time,
            units)`, or that of the last. Default: `False`.
        return_state: Whether to return the last states as well. Default: `False`.
        go_backwards: Whether to begin with the last step. Default: `False`.
        stateful: Whether a batch begins with the last states of the batch before
            it. Default: `False`.
        unroll: Whether to unroll Keras's loop. Default: `False`.
        use_cudnn: Accepted for compatibility. There is no cuDNN kernel, so `True` is
            an error. Default: `"auto"`.
        peephole: Whether the gates see the memory. Default: `True`.
        coupled: Whether the cell forgets as much as it takes in. Default: `False`.
        peephole_initializer: Default: `"glorot_uniform"`.
        peephole_regularizer: Default: `None`.
        peephole_constraint: Default: `None`.
        weight_noise: Standard deviation of the noise on the kernels while training.
            Default: 0.
        layer_norm: Whether what goes into the gates is normalized over the units, see
            the cell. Default: `False`.
        layer_norm_epsilon: Added to the variance. Default: 1e-3.
        zoneout: The probability with which a unit of the state stays as it was at a
            step, or a list of one for each state. Default: 0.
        zero_output_for_mask: See `RNN`. Default: `False`.
        learn_initial_state: See `RNN`. Default: `False`.
        truncate_gradient: See `RNN`. Default: `None`.
        recompute_states: See `RNN`. Default: `False`.
        use_fast_loop: See `RNN`. Default: `"auto"`.
        **kwargs: Further arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Raises:
        ValueError: An argument is out of its range, or unknown.

    Example:

    >>> import numpy as np
    >>> from keras_gated import LSTM
    >>> layer = LSTM(4, peephole=False, return_state=True)
    >>> output, h, c = layer(np.ones((2, 5, 3), "float32"))
    >>> output.shape == h.shape == c.shape == (2, 4)
    True
    """

    cell_class = LSTMCell

    def __init__(
        self,
        units: int,
        activation: str | Callable | None = "tanh",
        recurrent_activation: str | Callable | None = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        unit_forget_bias: bool = True,
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        use_cudnn: bool | str = "auto",
        *,
        peephole: bool = True,
        coupled: bool = False,
        peephole_initializer: Any = "glorot_uniform",
        peephole_regularizer: Any = None,
        peephole_constraint: Any = None,
        weight_noise: float = 0.0,
        layer_norm: bool = False,
        layer_norm_epsilon: float = 1e-3,
        zoneout: float | Sequence[float] = 0.0,
        zero_output_for_mask: bool = False,
        learn_initial_state: bool = False,
        truncate_gradient: int | None = None,
        recompute_states: bool = False,
        use_fast_loop: bool | str = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())

    recurrent_activation = property(attrgetter("cell.recurrent_activation"))
    unit_forget_bias = property(attrgetter("cell.unit_forget_bias"))
    peephole = property(attrgetter("cell.peephole"))
    coupled = property(attrgetter("cell.coupled"))
    peephole_initializer = property(attrgetter("cell.peephole_initializer"))
    peephole_regularizer = property(attrgetter("cell.peephole_regularizer"))
    peephole_constraint = property(attrgetter("cell.peephole_constraint"))


@keras.saving.register_keras_serializable(package="keras_gated")
class GRU(CellRNN):
    """`RNN(GRUCell(units))`, with the signature of `keras.layers.GRU`.

    The weights of `keras.layers.GRU` have the same shapes and another meaning: here `z`
    weighs the candidate, there the old state. `set_weights(keras_layer.get_weights())`
    raises no error and gives wrong numbers; `from_keras` gives the right ones. Here the
    reset gate comes before the product, as in the paper, where Keras has it after by
    default (`reset_after=True`).

    Args:
        units: Positive integer, the size of the state and of the output.
        activation: The activation of the candidate, a name or a callable; `None` for
            the identity. Default: `"tanh"`.
        recurrent_activation: The activation of the gates. Default: `"sigmoid"`.
        use_bias: Whether there are biases. Default: `True`.
        kernel_initializer: Initializer of the input kernel. Default:
            `"glorot_uniform"`.
        recurrent_initializer: Initializer of the recurrent kernel. Default:
            `"orthogonal"`.
        bias_initializer: Initializer of the biases. Default: `"zeros"`.
        kernel_regularizer: Regularizer of the input kernel. Default: `None`.
        recurrent_regularizer: Regularizer of the recurrent kernel. Default: `None`.
        bias_regularizer: Regularizer of the biases. Default: `None`.
        activity_regularizer: Regularizer of the output. Default: `None`.
        kernel_constraint: Constraint of the input kernel. Default: `None`.
        recurrent_constraint: Constraint of the recurrent kernel. Default: `None`.
        bias_constraint: Constraint of the biases. Default: `None`.
        dropout: The fraction of the inputs to drop while training. Default: 0.
        recurrent_dropout: The fraction of the state to drop while training. Default: 0.
        seed: Seed of dropout and noise. Default: `None`.
        return_sequences: Whether to return the outputs of all steps, `(batch, time,
            units)`, or that of the last. Default: `False`.
        return_state: Whether to return the last state as well. Default: `False`.
        go_backwards: Whether to begin with the last step. Default: `False`.
        stateful: Whether a batch begins with the last states of the batch before
            it. Default: `False`.
        unroll: Whether to unroll Keras's loop. Default: `False`.
        reset_after: Whether the reset gate acts after the recurrent product, as in
            Keras's default. Default: `False`.
        use_cudnn: Accepted for compatibility. There is no cuDNN kernel, so `True` is
            an error. Default: `"auto"`.
        weight_noise: Standard deviation of the noise on the kernels while training.
            Default: 0.
        layer_norm: Whether what goes into the gates is normalized over the units, see
            the cell. Default: `False`.
        layer_norm_epsilon: Added to the variance. Default: 1e-3.
        zoneout: The probability with which a unit of the state stays as it was at a
            step, or a list of one for each state. Default: 0.
        zero_output_for_mask: See `RNN`. Default: `False`.
        learn_initial_state: See `RNN`. Default: `False`.
        truncate_gradient: See `RNN`. Default: `None`.
        recompute_states: See `RNN`. Default: `False`.
        use_fast_loop: See `RNN`. Default: `"auto"`.
        **kwargs: Further arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Raises:
        ValueError: An argument is out of its range, or unknown.

    Example:

    >>> import numpy as np
    >>> from keras_gated import GRU
    >>> layer = GRU(4, return_sequences=True)
    >>> layer(np.ones((2, 5, 3), "float32")).shape == (2, 5, 4)
    True
    """

    cell_class = GRUCell

    def __init__(
        self,
        units: int,
        activation: str | Callable | None = "tanh",
        recurrent_activation: str | Callable | None = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        reset_after: bool = False,
        use_cudnn: bool | str = "auto",
        *,
        weight_noise: float = 0.0,
        layer_norm: bool = False,
        layer_norm_epsilon: float = 1e-3,
        zoneout: float | Sequence[float] = 0.0,
        zero_output_for_mask: bool = False,
        learn_initial_state: bool = False,
        truncate_gradient: int | None = None,
        recompute_states: bool = False,
        use_fast_loop: bool | str = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())

    recurrent_activation = property(attrgetter("cell.recurrent_activation"))
    reset_after = property(attrgetter("cell.reset_after"))


@keras.saving.register_keras_serializable(package="keras_gated")
class SimplifiedGRU(CellRNN):
    """`RNN(SimplifiedGRUCell(units))`, with the signature of `keras.layers.GRU`.

    Keras has no such layer: it is the GRU without its reset gate.

    Args:
        units: Positive integer, the size of the state and of the output.
        activation: The activation of the candidate, a name or a callable; `None` for
            the identity. Default: `"tanh"`.
        recurrent_activation: The activation of the gates. Default: `"sigmoid"`.
        use_bias: Whether there are biases. Default: `True`.
        kernel_initializer: Initializer of the input kernel. Default:
            `"glorot_uniform"`.
        recurrent_initializer: Initializer of the recurrent kernel. Default:
            `"orthogonal"`.
        bias_initializer: Initializer of the biases. Default: `"zeros"`.
        kernel_regularizer: Regularizer of the input kernel. Default: `None`.
        recurrent_regularizer: Regularizer of the recurrent kernel. Default: `None`.
        bias_regularizer: Regularizer of the biases. Default: `None`.
        activity_regularizer: Regularizer of the output. Default: `None`.
        kernel_constraint: Constraint of the input kernel. Default: `None`.
        recurrent_constraint: Constraint of the recurrent kernel. Default: `None`.
        bias_constraint: Constraint of the biases. Default: `None`.
        dropout: The fraction of the inputs to drop while training. Default: 0.
        recurrent_dropout: The fraction of the state to drop while training. Default: 0.
        seed: Seed of dropout and noise. Default: `None`.
        return_sequences: Whether to return the outputs of all steps, `(batch, time,
            units)`, or that of the last. Default: `False`.
        return_state: Whether to return the last state as well. Default: `False`.
        go_backwards: Whether to begin with the last step. Default: `False`.
        stateful: Whether a batch begins with the last states of the batch before
            it. Default: `False`.
        unroll: Whether to unroll Keras's loop. Default: `False`.
        use_cudnn: Accepted for compatibility. There is no cuDNN kernel, so `True` is
            an error. Default: `"auto"`.
        weight_noise: Standard deviation of the noise on the kernels while training.
            Default: 0.
        layer_norm: Whether what goes into the gates is normalized over the units, see
            the cell. Default: `False`.
        layer_norm_epsilon: Added to the variance. Default: 1e-3.
        zoneout: The probability with which a unit of the state stays as it was at a
            step, or a list of one for each state. Default: 0.
        zero_output_for_mask: See `RNN`. Default: `False`.
        learn_initial_state: See `RNN`. Default: `False`.
        truncate_gradient: See `RNN`. Default: `None`.
        recompute_states: See `RNN`. Default: `False`.
        use_fast_loop: See `RNN`. Default: `"auto"`.
        **kwargs: Further arguments of `keras.layers.Layer`, such as `name` and `dtype`.

    Raises:
        ValueError: An argument is out of its range, or unknown.

    Example:

    >>> import numpy as np
    >>> from keras_gated import SimplifiedGRU
    >>> SimplifiedGRU(4)(np.ones((2, 5, 3), "float32")).shape == (2, 4)
    True
    """

    cell_class = SimplifiedGRUCell

    def __init__(
        self,
        units: int,
        activation: str | Callable | None = "tanh",
        recurrent_activation: str | Callable | None = "sigmoid",
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        recurrent_initializer: Any = "orthogonal",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        recurrent_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        recurrent_constraint: Any = None,
        bias_constraint: Any = None,
        dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        seed: int | None = None,
        return_sequences: bool = False,
        return_state: bool = False,
        go_backwards: bool = False,
        stateful: bool = False,
        unroll: bool = False,
        use_cudnn: bool | str = "auto",
        *,
        weight_noise: float = 0.0,
        layer_norm: bool = False,
        layer_norm_epsilon: float = 1e-3,
        zoneout: float | Sequence[float] = 0.0,
        zero_output_for_mask: bool = False,
        learn_initial_state: bool = False,
        truncate_gradient: int | None = None,
        recompute_states: bool = False,
        use_fast_loop: bool | str = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(locals())

    recurrent_activation = property(attrgetter("cell.recurrent_activation"))


def layer_by_units(cell_class: type[RecurrentCell]) -> type[CellRNN]:
    """The layer by units over a cell: `GRU` for `GRUCell`.

    Args:
        cell_class: A cell of this package, or a cell of your own that extends
            `RecurrentCell`.

    Returns:
        A subclass of `RNN`, written out above or else made here: with the name of the
        cell without `Cell`, and with the arguments of the layer and of the cell.

    Example:

    >>> import keras_gated
    >>> from keras_gated.layers import layer_by_units
    >>> layer_by_units(keras_gated.GRUCell) is keras_gated.GRU
    True
    """
    for layer_class in CellRNN.__subclasses__():
        if layer_class.cell_class is cell_class:
            return layer_class
    signature = _signature(cell_class)

    def initialize(self: CellRNN, *args: Any, **kwargs: Any) -> None:
        bound = signature.bind(self, *args, **kwargs)
        bound.apply_defaults()
        CellRNN.__init__(self, bound.arguments)

    initialize.__signature__ = signature
    shared = inspect.signature(TanhRNN.__init__).parameters
    own = [name for name in _of_cell(cell_class) if name not in shared]
    attributes = {name: property(attrgetter(f"cell.{name}")) for name in own}
    name = cell_class.__name__.removesuffix("Cell")
    layer_class = type(
        name,
        (CellRNN,),
        {
            **attributes,
            "__init__": initialize,
            "__doc__": _documentation(cell_class, signature.parameters),
            "__module__": cell_class.__module__,
            "cell_class": cell_class,
        },
    )
    package, registered, _ = keras.saving.get_registered_name(cell_class).partition(">")
    register = keras.saving.register_keras_serializable
    return register(package if registered else "Custom")(layer_class)


def _signature(cell_class: type[RecurrentCell]) -> inspect.Signature:
    """The signature of a written-out layer, and after it the cell's own arguments."""
    like = SimplifiedGRU if issubclass(cell_class, GatedCell) else TanhRNN
    parameters = dict(inspect.signature(like.__init__).parameters)
    kwargs = parameters.pop("kwargs")
    for name, parameter in _of_cell(cell_class).items():
        if name in parameters:
            parameters[name] = parameters[name].replace(default=parameter.default)
        else:
            parameters[name] = parameter.replace(kind=parameter.KEYWORD_ONLY)
    return inspect.Signature([*parameters.values(), kwargs])


def _of_cell(cell_class: type[RecurrentCell]) -> dict[str, inspect.Parameter]:
    """The arguments of a cell, and those that it passes on as `**kwargs`."""
    found = {}
    for kind in cell_class.__mro__:
        parameters = inspect.signature(kind).parameters.values()
        for p in parameters:
            if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
                found.setdefault(p.name, p)
        if kind is RecurrentCell or all(p.kind != p.VAR_KEYWORD for p in parameters):
            break
    return found


def _documentation(cell_class: type[RecurrentCell], names: Iterable[str]) -> str:
    """The docstring of a layer: of each argument what the cell or else `RNN` says."""
    like = SimplifiedGRU if issubclass(cell_class, GatedCell) else TanhRNN
    described = {}
    for kind in (*reversed(cell_class.__mro__), like, cell_class):
        _, _, text = (inspect.getdoc(kind) or "").partition("Args:\n")
        entries = re.findall(r"^ {4}(\w+): (.+(?:\n {8}.+)*)", text, re.MULTILINE)
        described |= entries
    lines = [f"    {name}: {described[name]}" for name in names if name in described]
    return "\n".join(
        [f"`RNN({cell_class.__name__}(units))`; see both.", "", "Args:", *lines]
    )


LAYERS = {
    name: layer_by_units(cell_class)
    for name, cell_class in {**CELLS, **FURTHER_CELLS}.items()
}
"""The layers by units of all registered cells, by the names of the cells."""
