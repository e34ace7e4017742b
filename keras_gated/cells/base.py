"""What all cells share: arguments, weights, dropout, weight noise, configuration."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gated.cells.equations import Equations, Gates, States
from keras_gated.cells.noise import normal
from keras_gated.cells.recurrence import (
    Normalization,
    Recurrence,
    Tensor,
    project,
    zoned,
)
from keras_gated.datasets import checks

GATE_NAMES = {
    "i": "input",
    "f": "forget",
    "o": "output",
    "z": "update",
    "r": "reset",
    "c_cand": "candidate",
    "h_cand": "candidate",
}
"""What the letters of the equations are called."""


class RecurrentCell(keras.layers.SimpleRNNCell):
    """Abstract base of the cells.

    It extends Keras's simplest cell, which has what `keras.layers.RNN` relies on: the
    arguments of Keras's cells, their configuration, and dropout masks that are drawn
    once per sequence.

    A concrete cell names its `equations_class`, and adds the arguments and weights that
    its equations have beyond those of every cell.

    Args:
        units: Positive integer, the size of the state and of the output.
        activation: The activation of the candidate, a name or a callable; `None`
            for the identity. Default: `"tanh"`.
        weight_noise: Standard deviation of the Gaussian noise added to the
            kernel, the recurrent kernel and the peepholes (not to the biases)
            while training. It is drawn once for every batch of sequences; the
            gradient is taken at the noisy weights and applied to the clean
            ones (Graves, 2011, https://papers.nips.cc/paper/4329). Default: 0.
        layer_norm: Whether what goes into the gates is normalized over the units of
            all gates, the projected input and each product with the state on its own
            (Ba et al., 2016, https://arxiv.org/abs/1607.06450, equations 20 to 22).
            Each has a gain; the biases stay what they are. Default: `False`.
        layer_norm_epsilon: Added to the variance. Default: 1e-3.
        zoneout: The probability with which a unit of a state stays as it was at a
            step, a number for all states or a list with one for each; drawn at every
            step while training, and otherwise its expectation (Krueger et al., 2017,
            https://arxiv.org/abs/1606.01305, equation 4). On JAX `keras.layers.RNN`
            cannot draw at every step; `keras_gated.RNN` can. Default: 0.
        **kwargs: The further arguments of `keras.layers.SimpleRNNCell`:
            `use_bias`, `kernel_initializer`, `recurrent_initializer`,
            `bias_initializer`, `kernel_regularizer`, `recurrent_regularizer`,
            `bias_regularizer`, `kernel_constraint`, `recurrent_constraint`,
            `bias_constraint`, `dropout` and `recurrent_dropout` (one mask for
            the input and one for the state, each drawn once per sequence and
            shared by the gates: the tied weights of Gal and Ghahramani, 2016,
            https://arxiv.org/abs/1512.05287), `seed`, and those of
            `keras.layers.Layer` (`name`, `dtype`, `trainable`).

    Raises:
        ValueError: An argument is out of its range.
    """

    title: str
    """What tables and pictures call the cell."""

    equations_class: type[Equations]
    """The equations, whose fields are attributes of the cell."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "step" in vars(cls):
            raise TypeError(
                f"{cls.__name__} has a `step` of its own, which would not be called: "
                "write it in a subclass of keras_gated.cells.Equations and name that "
                "as the cell's `equations_class`."
            )

    def __init__(
        self,
        units: int,
        activation: str | Callable | None = "tanh",
        *,
        weight_noise: float = 0.0,
        layer_norm: bool = False,
        layer_norm_epsilon: float = 1e-3,
        zoneout: float | Sequence[float] = 0.0,
        **kwargs: Any,
    ) -> None:
        # Keras would silently clip them to this range.
        for name in ("dropout", "recurrent_dropout"):
            _share(name, kwargs.get(name, 0.0))
        units = checks.whole("units", units)
        super().__init__(units, _activation("activation", activation), **kwargs)
        self.weight_noise = weight_noise
        self.layer_norm = bool(layer_norm)
        self.layer_norm_epsilon = layer_norm_epsilon
        self.zoneout = zoneout
        # Not a list or dict, which Keras would track: the noise of one sequence is not
        # part of the layer.
        self._sequence = SimpleNamespace(noise=None)

    def __setattr__(self, name: str, value: Any) -> None:
        """Arguments that are set later are checked, too."""
        argument = _ARGUMENTS.get(name)
        super().__setattr__(name, argument(name, value) if argument else value)

    @property
    def equations(self) -> Equations:
        """The equations with the arguments as they are now."""
        fields = dataclasses.fields(self.equations_class)
        return self.equations_class(**{f.name: getattr(self, f.name) for f in fields})

    @property
    def gates(self) -> str:
        """The column blocks of the kernels, a letter of the paper for each."""
        return self.equations_class.gates

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if len(input_shape) != 2 or input_shape[-1] is None:
            raise ValueError(
                f"{type(self).__name__} takes the inputs of one step, of shape "
                "(batch, features) with a known number of features (a recurrent "
                "layer over it takes (batch, time, features)). Received: "
                f"input_shape={tuple(input_shape)}"
            )
        self._zones()
        columns = len(self.gates) * self.units
        self.kernel = self.add_weight(
            name="kernel",
            shape=(input_shape[-1], columns),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.recurrent_kernel = None
        if self._recurrent_shape() is not None:
            self.recurrent_kernel = self.add_weight(
                name="recurrent_kernel",
                shape=self._recurrent_shape(),
                initializer=self.recurrent_initializer,
                regularizer=self.recurrent_regularizer,
                constraint=self.recurrent_constraint,
            )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=self._bias_shape(),
                initializer=self._initial_bias,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )
        if self.layer_norm:
            self._build_norms()

    def _build_norms(self) -> None:
        columns = len(self.gates) * self.units
        self.kernel_gain = self._gain("kernel_gain", columns)
        if self.equations_class.products:
            self.recurrent_gain = self._gain("recurrent_gain", columns)

    def _gain(self, name: str, columns: int) -> keras.Variable:
        return self.add_weight(name=name, shape=(columns,), initializer="ones")

    def call(
        self,
        inputs: Tensor,
        states: list[Tensor] | Tensor,
        training: bool = False,
    ) -> tuple[Tensor, list[Tensor] | Tensor]:
        """One time step of a batch.

        If you call the cell yourself while training, it keeps its dropout masks and
        weight noise from step to step until you call `reset_dropout_mask()` and
        `reset_recurrent_dropout_mask()`. Recurrent layers do so after each sequence.

        Args:
            inputs: `(batch, input_dim)`.
            states: The previous states, a list of `(batch, units)`, or a tensor if
                there is only one.
            training: Whether dropout, zoneout and weight noise apply. Default:
                `False`.

        Returns:
            The output `(batch, units)`, and the next states in the same form as
            `states`.

        Raises:
            ValueError: `inputs` or `states` have the wrong rank, size or number.
        """
        inputs = ops.convert_to_tensor(inputs, dtype=self.compute_dtype)
        inputs, zone = self._zone_of_step(inputs, training)
        drop_in = self.get_dropout_mask(inputs) if training else None
        if drop_in is not None:
            inputs = inputs * drop_in
        new_states, _ = self._step(inputs, states, training)
        listed = isinstance(states, (list, tuple))
        if zone is not None:
            new_states = zoned(zone, states if listed else [states], new_states)
        return new_states[0], new_states if listed else new_states[0]

    def gate_activations(
        self, inputs: Tensor, states: list[Tensor] | Tensor
    ) -> dict[str, Tensor]:
        """The activations of the gates at one step, outside training.

        Args:
            inputs: `(batch, input_dim)`.
            states: The previous states, as `call` takes them.

        Returns:
            The gates that the cell has and the candidate, by name (`"update"`,
            `"reset"`, `"input"`, `"forget"`, `"output"`, `"candidate"`; others by
            their letters), each `(batch, units)`.

        Raises:
            ValueError: `inputs` or `states` have the wrong rank, size or number.
        """
        inputs = ops.convert_to_tensor(inputs, dtype=self.compute_dtype)
        if not self.built:
            self.build(tuple(inputs.shape))
        _, gates = self._step(inputs, states, training=False)
        return {
            GATE_NAMES.get(letter, letter): gate
            for letter, gate in gates.items()
            if letter in GATE_NAMES or letter in self.gates
        }

    def _step(
        self, inputs: Tensor, states: list[Tensor] | Tensor, training: bool
    ) -> tuple[States, Gates]:
        if not isinstance(states, (list, tuple)):
            states = [states]
        self._check_step(inputs.shape, [s.shape for s in states])
        inputs = ops.convert_to_tensor(inputs, dtype=self.compute_dtype)
        states = [ops.convert_to_tensor(s, dtype=self.compute_dtype) for s in states]
        drop_h = self.get_recurrent_dropout_mask(states[0]) if training else None
        x = ops.split(self._project(inputs, training), len(self.gates), axis=-1)
        recurrent = self._recurrence(training, drop_h)
        return self.equations.checked_step(x, states, recurrent)

    def _project(self, inputs: Tensor, training: bool) -> Tensor:
        W, b = self._projection(training)
        return project(inputs, W, b, self._kernel_norm(training))

    def _projection(self, training: bool) -> tuple[Tensor, Tensor | None]:
        """`W`, and `b` if there is one."""
        b, _ = self._biases(training)
        return self._current("kernel", training), b

    def _recurrence(self, training: bool, drop: Tensor | None) -> Recurrence:
        """What multiplies the states at this step."""
        kind = self.equations_class
        _, b_U = self._biases(training)
        b_U = None if b_U is None else kind.by_product(b_U)
        drop = None if drop is None else dict.fromkeys(kind.products, drop)
        U, V = self._products(training), self._further_weights(training)
        if self.layer_norm:  # the bias follows the normalization
            return Recurrence(U, None, V, self._norms(training, b_U or {}), drop)
        return Recurrence(U, b_U, V, None, drop)

    def _norms(
        self, training: bool, biases: dict[str, Tensor]
    ) -> dict[str, Normalization]:
        """The layer normalizations in a step, from the biases of its products."""
        if not self.equations_class.products:
            return {}
        gains = self.equations_class.by_product(self._current("recurrent_gain"))
        return {
            gates: self._norm(gain, biases.get(gates)) for gates, gain in gains.items()
        }

    def _kernel_norm(self, training: bool) -> Normalization | None:
        """That of the projected input, if it has one."""
        return self._norm(self._current("kernel_gain")) if self.layer_norm else None

    def _norm(self, gain: Tensor, bias: Tensor | None = None) -> Normalization:
        epsilon = ops.convert_to_tensor(self.layer_norm_epsilon, self.compute_dtype)
        return Normalization(gain, bias, epsilon)

    def _biases(self, training: bool) -> tuple[Tensor | None, Tensor | None]:
        """The bias of the projected input, and that of the recurrent products."""
        return (self._current("bias", training) if self.use_bias else None), None

    def _products(self, training: bool) -> dict[str, Tensor]:
        """`Recurrence.U`."""
        if not self.equations_class.products:
            return {}
        U = self._current("recurrent_kernel", training)
        return self.equations_class.by_product(U)

    def _further_weights(self, training: bool) -> tuple[Tensor, ...] | None:
        """`Recurrence.V`."""
        return None

    def _zones(self) -> list[float] | None:
        """The rate of zoneout of each state; `None` if all are 0."""
        sizes = keras.tree.flatten(self.state_size)
        rates = self.zoneout
        rates = list(rates) if isinstance(rates, Sequence) else [rates] * len(sizes)
        if len(rates) != len(sizes):
            raise ValueError(
                "Argument `zoneout` must be a number or a list of one for each state, "
                f"here {len(sizes)}. Received: zoneout={self.zoneout!r}"
            )
        return rates if any(rates) else None

    def _zone(self, inputs: Tensor, training: bool) -> list[Tensor] | None:
        """The share of each state that stays as it was, at all steps.

        Args:
            inputs: `(batch, time, input_dim)`.
            training: Whether units are drawn.

        Returns:
            For each state `(batch, time, units)`, or `(batch, time, 1)` where nothing
            is drawn; `None` if there is no zoneout.
        """
        rates = self._zones()
        if rates is None:
            return None
        batch, time, _ = ops.shape(inputs)
        sizes = keras.tree.flatten(self.state_size)
        zone = []
        for rate, size in zip(rates, sizes, strict=True):
            columns = size if training else 1
            share = ops.ones((batch, time, columns), dtype=self.compute_dtype)
            if training:
                kept = keras.random.dropout(share, rate, seed=self.seed_generator)
                share = ops.cast(kept == 0, self.compute_dtype)
            zone.append(share if training else share * rate)
        return zone

    def _zone_of_step(
        self, inputs: Tensor, training: bool
    ) -> tuple[Tensor, list[Tensor] | None]:
        """Parts the inputs of a step from what zoneout keeps.

        Keras's loop cannot draw at every step. `keras_gated.RNN` draws before it, and
        appends to the features of a step what is drawn for it.
        """
        if self._zones() is None:
            return inputs, None
        widths = [self.kernel.shape[0], *keras.tree.flatten(self.state_size)]
        *ends, whole = np.cumsum(widths).tolist()
        if inputs.shape[-1] == whole:
            inputs, *zone = ops.split(inputs, ends, axis=-1)
            return inputs, zone
        zone = self._zone(ops.expand_dims(inputs, 1), training)
        return inputs, [of_state[:, 0] for of_state in zone]

    def _current(self, name: str, training: bool = False) -> Tensor:
        value = ops.convert_to_tensor(getattr(self, name), dtype=self.compute_dtype)
        noise = self._weight_noise() if training else {}
        return value + noise[name] if name in noise else value

    def _weight_noise(self) -> dict[str, Tensor]:
        if self._sequence.noise is None and self.weight_noise:
            self._sequence.noise = {
                name: normal(
                    getattr(self, name).shape,
                    self.weight_noise,
                    self.compute_dtype,
                    self.seed_generator,
                )
                for name in self._noisy_weights()
            }
        return self._sequence.noise or {}

    def _noisy_weights(self) -> tuple[str, ...]:
        names = "kernel", "recurrent_kernel"
        return tuple(name for name in names if getattr(self, name) is not None)

    # `keras.layers.RNN` calls the next two methods before and after its loop: they mark
    # the beginning and the end of a sequence.

    def get_dropout_mask(self, step_input: Tensor) -> Tensor | None:
        self._weight_noise()
        # Keras cannot make a mask for integers, such as those of a piano roll.
        return super().get_dropout_mask(ops.cast(step_input, self.compute_dtype))

    def reset_dropout_mask(self) -> None:
        self._sequence.noise = None
        super().reset_dropout_mask()

    def _recurrent_shape(self) -> tuple[int, ...] | None:
        """That of the recurrent kernel; `None` if there is none."""
        return self.output_size, len(self.gates) * self.units

    def _bias_shape(self) -> tuple[int, ...]:
        return (len(self.gates) * self.units,)

    def _initial_bias(self, shape: tuple[int, ...], dtype: str | None = None) -> Tensor:
        return self.bias_initializer(shape, dtype=dtype)

    def _check_step(self, input_shape: tuple, state_shapes: list[tuple]) -> None:
        name = type(self).__name__
        input_dim = self.kernel.shape[0]
        shape = tuple(input_shape)
        if len(shape) != 2 or shape[-1] != input_dim:
            raise ValueError(
                f"{name} takes `inputs` of shape (batch, {input_dim}). "
                f"Received: inputs.shape={shape}"
            )
        sizes = keras.tree.flatten(self.state_size)
        shapes = [tuple(s) for s in state_shapes]
        if len(shapes) != len(sizes) or any(
            len(shape) != 2 or shape[-1] != size
            for shape, size in zip(shapes, sizes, strict=True)
        ):
            expected = ", ".join(f"(batch, {size})" for size in sizes)
            raise ValueError(
                f"{name} takes {len(sizes)} state(s) of shape {expected}. "
                f"Received: {len(shapes)} of shape {shapes}"
            )

    def get_initial_state(self, batch_size: int | None = None) -> list[Tensor]:
        """The states before the first step: zeros, each `(batch_size, units)`."""
        return [
            ops.zeros((batch_size, size), dtype=self.compute_dtype)
            for size in keras.tree.flatten(self.state_size)
        ]

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "weight_noise": self.weight_noise,
            "layer_norm": self.layer_norm,
            "layer_norm_epsilon": self.layer_norm_epsilon,
            "zoneout": self.zoneout,
        }


class GatedCell(RecurrentCell):
    """Abstract base of the cells with gates.

    Args:
        units: Positive integer, the size of the state and of the output.
        activation: The activation of the candidate. Default: `"tanh"`.
        recurrent_activation: The activation of the gates, a name or a callable;
            `None` for the identity. Default: `"sigmoid"`.
        **kwargs: See `RecurrentCell`. `implementation`, an argument of Keras's gated
            cells, is ignored.
    """

    def __init__(
        self,
        units: int,
        activation: str | Callable | None = "tanh",
        recurrent_activation: str | Callable | None = "sigmoid",
        **kwargs: Any,
    ) -> None:
        kwargs.pop("implementation", None)
        super().__init__(units, activation, **kwargs)
        self.recurrent_activation = recurrent_activation

    def get_config(self) -> dict[str, Any]:
        recurrent_activation = keras.activations.serialize(self.recurrent_activation)
        return {**super().get_config(), "recurrent_activation": recurrent_activation}


def _activation(name: str, value: Any) -> Callable:
    try:
        return keras.activations.get(value)
    except ValueError as error:
        raise ValueError(
            f"Argument `{name}` must be the name of a Keras activation (such as "
            "'tanh', 'sigmoid' or 'relu'), a callable, or None for the identity. "
            f"Received: {name}={value!r}"
        ) from error


_share = functools.partial(checks.number, low=0, high=1)


def _shares(name: str, value: Any) -> Any:
    """A share, or a list of shares."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return _share(name, value)
    return [_share(name, share) for share in value]


_ARGUMENTS = {
    "units": checks.whole,
    "activation": _activation,
    "recurrent_activation": _activation,
    "dropout": _share,
    "recurrent_dropout": _share,
    "weight_noise": functools.partial(checks.number, low=0),
    "layer_norm_epsilon": functools.partial(checks.number, low=0),
    "zoneout": _shares,
}
"""How each argument that can be wrong becomes a cell's attribute."""
