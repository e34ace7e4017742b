"""What all cells share: arguments, weights, dropout, weight noise, configuration.

Shapes, here and in every cell file: `batch` sequences, `input_dim` features of
a step, `units` of the state, and `n` column blocks of a kernel, one a gate.
"""

import functools
import math
import numbers
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import keras
from keras import ops

Tensor = Any
"""A tensor of the Keras backend in use."""


class Weights(NamedTuple):
    """A cell's weights in the letters of the paper, as its `step` takes them."""

    W: Tensor
    """Input kernel, `(input_dim, n * units)`."""
    U: Tensor | tuple[Tensor, ...]
    """Recurrent kernel, `(units, n * units)`; in a tuple, the columns of each
    of several recurrent products."""
    b: Tensor | float = 0.0
    """Bias of the projected input, `(n * units,)`; 0 where there is none."""
    b_U: Tensor | float = 0.0
    """Bias of the recurrent product, `(n * units,)`; 0 where there is none."""
    V: tuple[Tensor, ...] | None = None
    """Peepholes, each `(units,)`; only an LSTM has them."""


def normal(
    shape: tuple[int, ...],
    stddev: float,
    dtype: str,
    seed: keras.random.SeedGenerator,
) -> Tensor:
    """`keras.random.normal`, in a twentieth of its time where XLA compiles for a CPU.

    There TensorFlow leaves the choice of the generator to the compiled code, unless
    it is named; it is the same in the end, and so are the numbers.
    """
    if keras.backend.backend() != "tensorflow":
        return keras.random.normal(shape, stddev=stddev, dtype=dtype, seed=seed)
    import tensorflow as tf

    # As Keras makes it what XLA takes.
    state = ops.cast(seed.next() % (tf.int32.max - 1), "int32")
    return tf.random.stateless_normal(
        shape, state, stddev=stddev, dtype=dtype, alg="philox"
    )


class Product:
    """The product of a state with a recurrent kernel, and its gradient.

    Args:
        drop: The recurrent dropout mask, of the state's shape; `None` outside
            training. It acts on the way into a product, nowhere else.
    """

    def __init__(self, drop: Tensor | None = None) -> None:
        self.dropped = (lambda h: h) if drop is None else (lambda h: h * drop)

    def __call__(self, h: Tensor, U: Tensor) -> Tensor:
        return self.dropped(h) @ U

    def backward(self, d_product: Tensor, U: Tensor) -> Tensor:
        """The gradient of the state."""
        return self.dropped(d_product @ ops.transpose(U))

    def weight(self, h: Tensor, d_product: Tensor) -> Tensor:
        """The gradient of the kernel, summed over the rows."""
        return ops.transpose(self.dropped(h)) @ d_product


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

    It extends the simplest cell of Keras for what that already holds and
    `keras.layers.RNN` relies on: the arguments of Keras's cells, their
    configuration, and the dropout masks that are drawn once a sequence.

    A concrete cell names its `gates` and writes its equations: `step`, and for
    the fast loop of `keras_gated.RNN` the gradient of `step` in three pure
    functions. `partials` and `weights_gradient` are called once for all steps,
    `step_gradient` at every step, with nothing in it that does not depend on
    the step after.

    Args:
        units: Positive integer, the size of the state and of the output.
        activation: The candidate's activation, a name or a callable; `None`
            for the identity. Default: `"tanh"`.
        weight_noise: Standard deviation of the Gaussian noise added to the
            kernel, the recurrent kernel and the peepholes (not to the biases)
            while training. It is drawn once for every batch of sequences; the
            gradient is taken at the noisy weights and applied to the clean
            ones (Graves, 2011, https://papers.nips.cc/paper/4329). Default: 0.
        **kwargs: The further arguments of `keras.layers.SimpleRNNCell`:
            `use_bias`, `kernel_initializer`, `recurrent_initializer`,
            `bias_initializer`, `kernel_regularizer`, `recurrent_regularizer`,
            `bias_regularizer`, `kernel_constraint`, `recurrent_constraint`,
            `bias_constraint`, `dropout` and `recurrent_dropout` (one mask for
            the input and one for the state, each drawn once a sequence and
            shared by the gates: the tied weights of Gal and Ghahramani, 2016,
            https://arxiv.org/abs/1512.05287), `seed`, and those of
            `keras.layers.Layer` (`name`, `dtype`, `trainable`).

    Raises:
        ValueError: An argument is out of its range.
    """

    title: str
    """What tables and pictures call the cell."""

    gates: tuple[str, ...]
    """The column blocks of the kernels, in the letters of the paper."""

    step_arguments: tuple[str, ...] = ("units", "use_bias", "activation")
    """The arguments that `step` depends on: with the same ones it is the same."""

    def __init__(
        self,
        units: int,
        activation: str | Callable | None = "tanh",
        *,
        weight_noise: float = 0.0,
        **kwargs: Any,
    ) -> None:
        # Before Keras rounds them off.
        for name in ("dropout", "recurrent_dropout"):
            _number(name, kwargs.get(name, 0.0), 1)
        units = _whole("units", units)
        super().__init__(units, _activation("activation", activation), **kwargs)
        self.weight_noise = weight_noise
        # Keras tracks lists and dicts that are attributes of a layer; tensors
        # that live only as long as one sequence must not be tracked.
        self._sequence = SimpleNamespace(noise=None)

    def __setattr__(self, name: str, value: Any) -> None:
        """Arguments that change later are as good as those of the constructor."""
        argument = _ARGUMENTS.get(name)
        super().__setattr__(name, argument(name, value) if argument else value)

    def step(
        self,
        x: list[Tensor],
        states: list[Tensor],
        weights: Weights,
        product: Product,
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        """One time step, a pure function.

        Args:
            x: The projected input `W x + b` by gate, each `(batch, units)`.
            states: The previous states, each `(batch, units)`.
            weights: The weights, noisy while training.
            product: Multiplies a state with a recurrent kernel.

        Returns:
            The next states, the output first, and by their letters the gates
            and whatever else the gradient needs, each `(batch, units)`.
        """
        raise NotImplementedError

    def partials(
        self, states: list[Tensor], gates: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """The partial derivatives of `step` that are products of elements.

        Args:
            states: The previous states, each `(rows, units)`: a row for every
                step of every sequence.
            gates: The gates that `step` returned, each `(rows, units)`.

        Returns:
            What `step_gradient` multiplies with, each `(rows, units)`.
        """
        raise NotImplementedError

    def step_gradient(
        self,
        d_states: list[Tensor],
        partials: dict[str, Tensor],
        weights: Weights,
        product: Product,
    ) -> tuple[Tensor, list[Tensor]]:
        """From the gradient of a step's new states that of what made them.

        Args:
            d_states: The gradients of the new states, each `(batch, units)`.
            partials: Those of this step, each `(batch, units)`.
            weights: As in `step`.
            product: As in `step`.

        Returns:
            The gradients of the projected input, `(batch, n * units)`, and of
            the previous states, each `(batch, units)`.
        """
        raise NotImplementedError

    def weights_gradient(
        self,
        d_x: Tensor,
        states: list[Tensor],
        gates: dict[str, Tensor],
        product: Product,
    ) -> dict[str, Tensor | tuple[Tensor, ...]]:
        """The gradients of the weights of the recurrence, over all steps.

        Args:
            d_x: The gradient of the projected input, `(rows, n * units)`.
            states: As in `partials`.
            gates: As in `partials`.
            product: As in `step`, for all rows.

        Returns:
            The gradients by the letters of `Weights`.
        """
        raise NotImplementedError

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if len(input_shape) != 2 or input_shape[-1] is None:
            raise ValueError(
                f"{type(self).__name__} takes the inputs of one step, of shape "
                "(batch, features) with a known number of features (a recurrent "
                "layer over it takes (batch, time, features)). Received: "
                f"input_shape={tuple(input_shape)}"
            )
        columns = len(self.gates) * self.units
        self.kernel = self.add_weight(
            name="kernel",
            shape=(input_shape[-1], columns),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        self.recurrent_kernel = self.add_weight(
            name="recurrent_kernel",
            shape=(self.units, columns),
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

    def call(
        self,
        inputs: Tensor,
        states: list[Tensor] | Tensor,
        training: bool = False,
    ) -> tuple[Tensor, list[Tensor] | Tensor]:
        """One time step of a batch.

        Called by hand while training, outside a recurrent layer, the cell keeps
        its dropout masks and weight noise from step to step until
        `reset_dropout_mask()` and `reset_recurrent_dropout_mask()` are called.

        Args:
            inputs: `(batch, input_dim)`.
            states: The previous states, each `(batch, units)`, in a list, or
                the bare tensor where there is but one.
            training: Whether dropout and weight noise act. Default: `False`.

        Returns:
            The output `(batch, units)`, and the next states in the form in
            which the previous ones came.

        Raises:
            ValueError: `inputs` or `states` have another rank, size or number.
        """
        inputs = ops.convert_to_tensor(inputs, dtype=self.compute_dtype)
        drop_in = self.get_dropout_mask(inputs) if training else None
        if drop_in is not None:
            inputs = inputs * drop_in
        new_states, _ = self._step(inputs, states, training)
        listed = isinstance(states, (list, tuple))
        return new_states[0], new_states if listed else new_states[0]

    def gate_activations(
        self, inputs: Tensor, states: list[Tensor] | Tensor
    ) -> dict[str, Tensor]:
        """What the gates do at one step, outside training.

        Args:
            inputs: `(batch, input_dim)`.
            states: The previous states, as `call` takes them.

        Returns:
            The gates and the candidate by name (`"update"`, `"reset"`,
            `"input"`, `"forget"`, `"output"`, `"candidate"`: those that the
            cell has), each `(batch, units)`.

        Raises:
            ValueError: `inputs` or `states` have another rank, size or number.
        """
        inputs = ops.convert_to_tensor(inputs, dtype=self.compute_dtype)
        if not self.built:
            self.build(tuple(inputs.shape))
        _, gates = self._step(inputs, states, training=False)
        return {GATE_NAMES[k]: gate for k, gate in gates.items() if k in GATE_NAMES}

    def _step(
        self, inputs: Tensor, states: list[Tensor] | Tensor, training: bool
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        if not isinstance(states, (list, tuple)):
            states = [states]
        self._check_step(inputs.shape, [s.shape for s in states])
        inputs = ops.convert_to_tensor(inputs, dtype=self.compute_dtype)
        states = [ops.convert_to_tensor(s, dtype=self.compute_dtype) for s in states]
        drop_h = self.get_recurrent_dropout_mask(states[0]) if training else None
        weights = self._current_weights(training)
        x = ops.split(inputs @ weights.W + weights.b, len(self.gates), axis=-1)
        return self.step(x, states, weights, Product(drop_h))

    def _current_weights(self, training: bool) -> Weights:
        """The weights as they are at this step, with their noise while training."""
        weights = Weights(
            W=self._current("kernel", training),
            U=self._current("recurrent_kernel", training),
        )
        if self.use_bias:
            weights = weights._replace(b=self._current("bias", training))
        return weights

    def _current(self, name: str, training: bool) -> Tensor:
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
        return ("kernel", "recurrent_kernel")

    # `keras.layers.RNN` calls the next two before and after its loop, which
    # makes them the beginning and the end of a sequence.

    def get_dropout_mask(self, step_input: Tensor) -> Tensor | None:
        self._weight_noise()
        # Of whole numbers, as in a piano roll, Keras could make no mask.
        return super().get_dropout_mask(ops.cast(step_input, self.compute_dtype))

    def reset_dropout_mask(self) -> None:
        self._sequence.noise = None
        super().reset_dropout_mask()

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
        return {**super().get_config(), "weight_noise": self.weight_noise}


class GatedCell(RecurrentCell):
    """Abstract base of the cells with gates.

    Args:
        units: Positive integer, the size of the state and of the output.
        activation: The candidate's activation. Default: `"tanh"`.
        recurrent_activation: The gates' activation, a name or a callable;
            `None` for the identity. Default: `"sigmoid"`.
        **kwargs: See `RecurrentCell`. `implementation`, which Keras's cells with
            gates have, makes no difference here.
    """

    step_arguments = (*RecurrentCell.step_arguments, "recurrent_activation")

    def __init__(
        self,
        units: int,
        activation: str | Callable | None = "tanh",
        recurrent_activation: str | Callable | None = "sigmoid",
        **kwargs: Any,
    ) -> None:
        kwargs.pop("implementation", None)  # Keras's choice between two of its ways
        super().__init__(units, activation, **kwargs)
        self.recurrent_activation = recurrent_activation

    def get_config(self) -> dict[str, Any]:
        recurrent_activation = keras.activations.serialize(self.recurrent_activation)
        return {**super().get_config(), "recurrent_activation": recurrent_activation}


def _whole(name: str, value: Any) -> int:
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < 1:
        raise ValueError(
            f"Argument `{name}` must be a positive integer. Received: {name}={value!r}"
        )
    return int(value)


def _number(name: str, value: Any, high: float = math.inf) -> float:
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not real or not 0 <= value <= high or math.isinf(value):
        accepted = f"from 0 to {high}" if math.isfinite(high) else "of at least 0"
        raise ValueError(
            f"Argument `{name}` must be a finite number {accepted}. "
            f"Received: {name}={value!r}"
        )
    return float(value)


def _activation(name: str, value: Any) -> Callable:
    try:
        return keras.activations.get(value)
    except ValueError as error:
        raise ValueError(
            f"Argument `{name}` must be the name of a Keras activation (such as "
            "'tanh', 'sigmoid' or 'relu'), a callable, or None for the identity. "
            f"Received: {name}={value!r}"
        ) from error


_ARGUMENTS = {
    "units": _whole,
    "activation": _activation,
    "recurrent_activation": _activation,
    "dropout": functools.partial(_number, high=1),
    "recurrent_dropout": functools.partial(_number, high=1),
    "weight_noise": _number,
}
"""How each argument that can be wrong becomes a cell's attribute."""
