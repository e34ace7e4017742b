"""A model of one step whose states are inputs and outputs."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
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
            `(batch, time, features)` or `(batch, time)`; one without time, `(batch,
            features)`, is given at every step.

    Attributes:
        inputs: The `keras.KerasTensor` of each input, by name, in order.
        outputs: The names of the outputs, in order.

    Raises:
        ValueError: The model cannot be run step by step: it is subclassed, reads
            sequences backwards, computes the initial state of a layer, has a model
            inside, or a layer that is not recurrent and yet looks at other steps; the
            message names the layer.

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
        try:
            self._build(model)
            apart = self._differs()
        except stepping.StepwiseError:
            raise
        except Exception as error:  # whatever a layer raises that is given one frame
            raise _combines(_first_apart(model), model) from error
        if apart:
            raise _combines(_first_apart(model), model)

    def _build(self, model: keras.Model) -> None:
        many = keras.tree.flatten(model.inputs)
        self._sequences = [
            len(given.shape) > 2 or given.shape[1:] == (None,) for given in many
        ]
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
        for layer in self._layers:
            stepping.check_place(layer)
        frames = [
            keras.KerasTensor((None, *x.shape[1 + sequence :]), x.dtype)
            for x, sequence in zip(frames, self._sequences, strict=True)
        ]
        self.inputs = dict(zip(_names("x", len(many)), frames, strict=True))
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

    def _differs(self) -> bool:
        """Whether the last of some steps gives something else than the sequence."""
        random = np.random.default_rng(0)
        whole, many = self.model, keras.tree.flatten(self.model.inputs)
        pairs = list(zip(many, self._sequences, strict=True))
        steps = max([x.shape[1] or 3 for x, sequence in pairs if sequence], default=1)
        rows = next((x.shape[0] for x in many if x.shape[0]), 2)
        given = [
            random.integers(
                0, 2, (rows, *([steps] if sequence else []), *x.shape[1 + sequence :])
            ).astype(x.dtype)
            for x, sequence in pairs
        ]
        with stepping.unchanged(whole):
            expected = keras.tree.flatten(whole(packed(whole, given), training=False))
        names, states = list(self.inputs)[: len(many)], self.initial_states(rows)
        for step in range(steps):
            frames = [
                x[:, step] if sequence else x
                for x, sequence in zip(given, self._sequences, strict=True)
            ]
            found = self({**dict(zip(names, frames, strict=True)), **states})
            states = {name: found[f"new_{name}"] for name in states}
        # Far above rounding, and below the effect of a wrong context.
        types = {layer.compute_dtype for layer in stepping.layers_within(whole)}
        close = 0.1 if types & {"float16", "bfloat16"} else 1e-3
        for name, sequence in zip(self._ys, expected, strict=True):
            one, all_of_it = (
                ops.convert_to_numpy(ops.cast(x, "float32"))
                for x in (found[name], sequence)
            )
            last = all_of_it[:, -1] if all_of_it.ndim > one.ndim else all_of_it
            if one.shape != last.shape or not np.allclose(
                one, last, close, close, equal_nan=True
            ):
                return True
        return False

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


def _first_apart(model: keras.Model) -> keras.layers.Layer | None:
    """The first layer that gives something else for a frame than for a sequence."""
    for layer in model.layers:
        part = object.__new__(SingleStep)
        try:
            part._build(keras.Model(model.inputs, layer.output))
            apart = part._differs()
        except Exception:
            apart = True
        if apart and not isinstance(layer, keras.layers.InputLayer):
            return layer
    return None


def _combines(layer: keras.layers.Layer | None, model: keras.Model) -> ValueError:
    which = (
        f"layer {layer.name!r} of class {type(layer).__name__}" if layer else "model"
    )
    return stepping.StepwiseError(
        "Only recurrent layers may look at other steps in a model that is run step by "
        f"step. Received the model {model.name!r}, whose {which} gives something else "
        "for a frame alone than within a sequence: export the model of sequences, or "
        "one of the other layers"
    )


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
            raise stepping.StepwiseError(
                "A model that computes the initial state of a recurrent layer cannot "
                "be run step by step: export the layers after it as a model, whose "
                "states are inputs. Received a model with an `initial_state` for the "
                f"layer {self.name!r}"
            )
        return super().__call__(*args, **kwargs)

    def call(self, frames: Tensor, mask: Any = None, training: bool = False) -> Any:
        # Shapes are found by a symbolic call of this, which sees the masks.
        if self.given is None:
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
