"""A model of one step whose states are inputs and outputs."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_gated import stepping

Tensor = Any


class SingleStep:
    """One step of a model: its states go in, and come out.

    This is the form for programs that get a frame at a time, such as a synthesizer or
    a page in a browser: they keep the states between calls. The model itself, its
    layers and weights stay as they are, and are shared.

    Names and order are the same in all exported files. Inputs: `x`, `(batch,
    features)`, or `x_0`, `x_1`, … if the model has several, in its order; then
    `state_0`, `state_1`, …, `(batch, size)`, in the order of the recurrent layers, and
    within a layer in the order of its cell's states. Outputs: `y` (or `y_0`, …),
    `(batch, size)`; then `new_state_0`, …, each for the state of its number.

    Args:
        model: A built Sequential or functional model. Its inputs are sequences,
            `(batch, time, features)`; one without time, `(batch, features)`, is given
            at every step.

    Attributes:
        inputs: The `keras.KerasTensor` of each input, by name, in order.
        outputs: The names of the outputs, in order.

    Raises:
        ValueError: The model cannot be run step by step: it is subclassed, reads
            sequences backwards, computes the initial state of a layer, or has a model
            inside; the message names the layer.

    Example:

    >>> import keras, numpy as np
    >>> from keras_gated import LSTM
    >>> from keras_gated.exporting import SingleStep
    >>> model = keras.Sequential(
    ...     [keras.Input((None, 3)), LSTM(4, return_sequences=True)]
    ... )
    >>> step = SingleStep(model)
    >>> list(step.inputs), step.outputs
    (['x', 'state_0', 'state_1'], ['y', 'new_state_0', 'new_state_1'])
    >>> states = step.initial_states(2)
    >>> sequence, frames = np.ones((2, 5, 3), "float32"), []
    >>> for t in range(5):
    ...     given = {"x": sequence[:, t], **states}
    ...     y, *new = step(given).values()
    ...     states = dict(zip(states, new))
    ...     frames.append(y)
    >>> bool(np.allclose(np.stack(frames, 1), model(sequence), atol=1e-6))
    True
    """

    def __init__(self, model: keras.Model) -> None:
        stepping.input_shape(model)
        if not getattr(model, "inputs", None):  # a subclassed one has none
            raise ValueError(
                "Only Sequential and functional models can be run step by step. "
                f"Received: the model {model.name!r} of class {type(model).__name__}; "
                "call its layers on a keras.Input, and make a keras.Model of that"
            )
        many = keras.tree.flatten(model.inputs)
        self._sequences = [len(given.shape) > 2 for given in many]
        frames = [
            keras.Input(
                batch_shape=(None, 1, *given.shape[2:])
                if sequence
                else (None, *given.shape[1:]),
                dtype=given.dtype,
            )
            for given, sequence in zip(many, self._sequences, strict=True)
        ]
        self.model = model
        self._layers: list[_ExplicitStep] = []
        with stepping.links_kept(model.layers):
            self._inner = keras.models.clone_model(
                model,
                input_tensors=packed(model, frames),
                clone_function=self._one_step,
            )
        self.inputs = dict(
            zip(_names("x", len(many)), map(self._of_frame, frames), strict=True)
        )
        sizes = [size for layer in self._layers for size in layer.sizes()]
        self.inputs |= {
            f"state_{k}": keras.KerasTensor((None, size), dtype)
            for k, (size, dtype) in enumerate(sizes)
        }
        self._ys = _names("y", len(self._inner.outputs))
        self.outputs = [*self._ys, *(f"new_state_{k}" for k in range(len(sizes)))]

    def _one_step(self, layer: keras.layers.Layer) -> keras.layers.Layer:
        stepping.check_steps(layer)
        if not isinstance(layer, keras.layers.RNN):
            return layer
        self._layers.append(_ExplicitStep(layer))
        return self._layers[-1]

    def _of_frame(self, frame: keras.KerasTensor) -> keras.KerasTensor:
        shape = frame.shape
        shape = (None, *shape[2:]) if len(shape) > 2 else shape
        return keras.KerasTensor(shape, frame.dtype)

    def initial_states(self, batch_size: int) -> dict[str, Tensor]:
        """The states before the first step.

        Args:
            batch_size: The number of sequences.

        Returns:
            Each state `(batch_size, size)`, by the name of its input: zeros, unless
            they were learned.
        """
        flat = [s for layer in self._layers for s in layer.first(batch_size)]
        return {f"state_{k}": state for k, state in enumerate(flat)}

    def __call__(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """Runs one step.

        Args:
            inputs: What `inputs` names.

        Returns:
            What `outputs` names, in that order.
        """
        given = [inputs[name] for name in self.inputs if not name.startswith("state_")]
        states = [inputs[name] for name in self.inputs if name.startswith("state_")]
        frames = [
            ops.expand_dims(x, 1) if sequence else x
            for x, sequence in zip(given, self._sequences, strict=True)
        ]
        rest = iter(states)
        for layer in self._layers:
            layer.given = [next(rest) for _ in layer.sizes()]
        try:
            inputs = packed(self._inner, frames)
            ys = keras.tree.flatten(self._inner(inputs, training=False))
            new = [state for layer in self._layers for state in layer.new]
        finally:
            for layer in self._layers:
                layer.given = layer.new = None
        ys = [y[:, 0] if len(y.shape) > 2 else y for y in ys]
        return dict(zip(self.outputs, [*ys, *new], strict=True))


def packed(model: keras.Model, inputs: Sequence[Tensor]) -> Any:
    """The inputs of a model in the structure in which it takes them.

    Args:
        model: A Sequential or functional model.
        inputs: Its inputs, in order.
    """
    if isinstance(model, keras.Sequential):
        return inputs[0]
    return keras.tree.pack_sequence_as(model.input, list(inputs))


def _names(letter: str, count: int) -> list[str]:
    return [letter] if count == 1 else [f"{letter}_{k}" for k in range(count)]


class _ExplicitStep(keras.layers.Layer):
    """A recurrent layer that runs one step, from the states that it was given.

    They are no arguments of its call, since a cloned model has no place for them:
    `SingleStep` hands them to the layer before it calls the model.
    """

    def __init__(self, rnn: keras.layers.RNN) -> None:
        super().__init__(dtype=rnn.dtype_policy, name=rnn.name)
        self.rnn, self.supports_masking = rnn, True
        self.given = self.new = None
        self.remembers = False
        """Whether the last output is a state, which a masked step shows again."""

    def first(self, batch_size: Any) -> list[Tensor]:
        states = keras.tree.flatten(self.rnn.get_initial_state(batch_size=batch_size))
        if self.remembers:
            shape = self.rnn.compute_output_shape((None, 1, 1))
            shape = shape[0] if self.rnn.return_state else shape
            states.append(ops.zeros((batch_size, shape[-1]), states[0].dtype))
        return states

    def sizes(self) -> list[tuple[int, str]]:
        """The size and the type of each state."""
        return [
            (state.shape[-1], keras.backend.standardize_dtype(state.dtype))
            for state in self.first(1)
        ]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        inner = args[0] if args else None
        computed = len(args) > 1 or kwargs.pop("initial_state", None) is not None
        if computed or isinstance(inner, (list, tuple)):
            raise ValueError(
                "A model that computes the initial state of a recurrent layer cannot "
                "be run step by step: export the layers after it as a model, whose "
                "states are inputs. Received a model with an `initial_state` for the "
                f"layer {self.name!r}"
            )
        return super().__call__(*args, **kwargs)

    def compute_output_shape(self, input_shape: tuple) -> Any:
        return self.rnn.compute_output_shape(input_shape)

    def call(self, frames: Tensor, mask: Any = None, training: bool = False) -> Any:
        if self.given is None:  # the symbolic call, which finds out about masks
            self.remembers = mask is not None and not self.rnn.zero_output_for_mask
            states = self.first(ops.shape(frames)[0])
        else:
            states = [ops.convert_to_tensor(state) for state in self.given]
        *states, shown = states if self.remembers else [*states, None]
        structure = self.rnn.get_initial_state(batch_size=1)
        output, new = self.rnn.cell(
            frames[:, 0], keras.tree.pack_sequence_as(structure, states)
        )
        new = keras.tree.flatten(new)
        if mask is not None:  # (batch, 1): a masked step changes no state
            shown = ops.zeros_like(output) if shown is None else shown
            output = ops.where(mask, output, shown)
            new = [ops.where(mask, *pair) for pair in zip(new, states, strict=True)]
        self.new = [*new, output] if self.remembers else new
        result = ops.expand_dims(output, 1) if self.rnn.return_sequences else output
        return (result, *new) if self.rnn.return_state else result
