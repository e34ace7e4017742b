"""Looks inside models and runs them step by step, with the private parts of Keras.

Keras has no public way to find the layers inside any layer, to see the arguments of a
recurrent layer inside a model, or to run a model as a pure function of its recurrent
states and one frame. All that this takes of Keras's private parts is used in this file
alone: `_flatten_layers` of a layer, its `_inbound_nodes` and `_outbound_nodes`, and
that `RNN.call` calls `inner_loop`. tests/test_stepping.py tests each of them.
"""

import contextlib
import functools
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

Tensor = Any

Carry = tuple[Tensor, list[Tensor]]
"""What a step passes to the next: its outputs `(batch, 1, size)`, and the states."""


def layers_within(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers inside a model or another layer, at any depth, each once, in order.

    Args:
        layer: A model, a wrapper, or any other layer.

    Returns:
        The layers, each followed by those inside it.
    """
    found = {}
    for inner in layer._flatten_layers(include_self=False, recursive=False):
        for each in (inner, *layers_within(inner)):
            found.setdefault(id(each), each)
    return list(found.values())


def input_shape(model: keras.layers.Layer) -> Any:
    """The shape of a model's input, such as `(None, None, 88)`.

    Args:
        model: A built model, or a layer.

    Returns:
        A tuple; a list or a dictionary of them where there are several inputs; `None`
        where the model does not say, as a subclassed one.

    Raises:
        ValueError: The model is not built.
    """
    if not model.built:
        raise ValueError(
            f"The model {model.name!r} is not built, so that the size of its frames is "
            "not known: begin it with keras.Input((None, size)), or call it on a batch"
        )
    shape = getattr(model, "input_shape", None)
    if isinstance(shape, list) and len(shape) == 1:
        (shape,) = shape
    return shape


def unchanged(model: keras.layers.Layer) -> keras.StatelessScope:
    """A scope in which calling a model changes nothing.

    Inside it all variables are read and not written, seeds included, and the states of
    stateful layers are zero.

    Args:
        model: A built model, or a layer.

    Returns:
        The scope, to be entered with `with`.
    """
    states = [
        state
        for layer in (model, *layers_within(model))
        if getattr(layer, "stateful", False)
        for state in keras.tree.flatten(layer.states)
        if state is not None
    ]
    return keras.StatelessScope([(state, np.zeros(state.shape)) for state in states])


def call_of_layer(
    model: keras.layers.Layer, layer: keras.layers.RNN, batch: Tensor
) -> tuple[Tensor, Any, Any]:
    """The arguments with which a model calls a recurrent layer inside it.

    The model stays unchanged.

    Args:
        model: A built model.
        layer: The layer, anywhere in the model.
        batch: The input of the model.

    Returns:
        The sequences `(batch, time, features)`, the initial states and the mask (or
        `None`) of the first call of the layer.

    Raises:
        ValueError: The model does not call the layer.
    """
    calls, inner_loop = [], layer.inner_loop

    def record(
        sequences: Tensor, initial_state: Any, mask: Any, training: bool = False
    ) -> Any:
        # Outside the scope, the variables of a stateful layer have other values.
        states = keras.tree.map_structure(
            lambda x: x.value if isinstance(x, keras.Variable) else x, initial_state
        )
        calls.append((sequences, states, mask))
        return inner_loop(sequences, initial_state, mask, training)

    layer.inner_loop = record
    try:
        with unchanged(model):
            model(batch, training=False)
    finally:
        del layer.inner_loop
    if not calls:
        raise ValueError(
            f"The model {model.name!r} does not call its layer {layer.name!r}."
        )
    return calls[0]


# Models step by step.


def stepper(model: keras.Model, size: int) -> "Stepper":
    """The stepper of a model; the same one until a layer of the model is changed.

    Args:
        model: A built Sequential or functional model.
        size: The number of sequences in a batch.

    Returns:
        The stepper, with the functions compiled so far. It does not keep the model
        alive.

    Raises:
        ValueError: The model cannot be run step by step.
    """
    now = size, [(id(layer), *_configuration(layer)) for layer in layers_within(model)]
    known, made = _STEPPERS.get(model, (None, None))
    if known != now:
        made = Stepper(model, size)
        _STEPPERS[model] = now, made
    return made


_STEPPERS = weakref.WeakKeyDictionary()


def _configuration(layer: keras.layers.Layer) -> list[Any]:
    """A description of a layer; compiled functions are valid until it changes."""
    try:
        config = repr(layer.get_config())
    except NotImplementedError:  # unknown, so never the same
        config = object()
    # Functions are compared by identity: two may have one name.
    names = ("activation", "recurrent_activation")
    return [config, *(getattr(layer, name, None) for name in names)]


class Stepper:
    """A model as a pure function of its recurrent states and one frame.

    A model of several inputs takes a list of one frame of each, in the order of its
    inputs, wherever one of a single input takes a frame.

    Args:
        model: A built Sequential or functional model.
        size: The number of sequences in a batch.

    Attributes:
        model: A model of one step, which shares its layers and weights with the model.
        output_shape: The shape of the output of a step: `(batch, 1, size)` if the
            model has an output for each frame.

    Raises:
        ValueError: The model cannot be run step by step.
    """

    def __init__(self, model: keras.Model, size: int) -> None:
        shapes = input_shape(model)
        several = isinstance(shapes, list)
        frame = [
            keras.Input(batch_shape=(size, 1, shape[-1]))
            for shape in (shapes if several else [shapes])
        ]
        if isinstance(model, keras.Sequential):
            (frame,) = frame
        else:
            frame = keras.tree.pack_sequence_as(model.input, frame)
        with links_kept(model.layers):
            self.model = keras.models.clone_model(
                model, input_tensors=frame, clone_function=_one_step
            )
        outputs = self.model.outputs
        if len(outputs) != 1:
            raise ValueError(
                "A model that is run step by step must have one output. Received "
                f"the model {model.name!r} with {len(outputs)}"
            )
        self.output_shape = tuple(outputs[0].shape)
        for layer in self.model.layers:
            if isinstance(layer, _OneStep):
                check_place(layer)
        self._compiled = {}

    def compiled(self, function: Callable, *constants: Any) -> Callable:
        """Compiles a function (XLA on TensorFlow and JAX), unless it already has.

        Args:
            function: Takes the stepper, the constants, and then tensors. It may refer
                to nothing else that changes.
            *constants: Hashable arguments; the function is compiled for each choice.

        Returns:
            The compiled function, which takes the tensors.
        """
        key = function, *constants
        if key not in self._compiled:
            partial = functools.partial(function, self, *constants)
            self._compiled[key] = _compiled(partial)
        return self._compiled[key]

    def start(self) -> tuple[list[Tensor], Carry]:
        """The current weights, and the carry before the first frame."""
        first = {
            id(variable): state
            for layer in self.model.layers
            if isinstance(layer, _OneStep)
            for variable, state in zip(layer.states, layer.first(), strict=True)
        }
        weights = [ops.convert_to_tensor(v) for v in self.model.trainable_variables]
        states = [
            first[id(v)] if id(v) in first else ops.convert_to_tensor(v)
            for v in self.model.non_trainable_variables
        ]
        return weights, (ops.zeros(self.output_shape, "float32"), states)

    def step(
        self, weights: list[Tensor], carry: Carry, frame: Tensor | list[Tensor]
    ) -> Carry:
        """Runs one frame.

        Args:
            weights: From `start`.
            carry: From `start` or the step before.
            frame: `(batch, 1, size)`, or a list of such.

        Returns:
            The carry after it; its outputs are in float32.
        """
        outputs, states = self.model.stateless_call(
            weights, carry[1], frame, training=False
        )
        (outputs,) = keras.tree.flatten(outputs)
        return ops.cast(outputs, "float32"), list(states)

    def take(self, carry: Carry, rows: Tensor) -> Carry:
        """Selects sequences of a batch.

        Args:
            carry: From `start` or a step.
            rows: The number of the sequence that takes each place, `(batch,)`.

        Returns:
            The carry of those sequences.
        """
        of_steps = {
            id(variable)
            for layer in self.model.layers
            if isinstance(layer, _OneStep)
            for variable in (*layer.states, layer.shown)
        }
        variables = self.model.non_trainable_variables
        states = [
            ops.take(state, rows, axis=0) if id(variable) in of_steps else state
            for variable, state in zip(variables, carry[1], strict=True)
        ]
        return ops.take(carry[0], rows, axis=0), states

    def read(
        self, weights: list[Tensor], carry: Carry, frames: Tensor | list[Tensor]
    ) -> tuple[Carry, Tensor]:
        """Runs several frames, one after the other.

        Args:
            weights: As in `step`.
            carry: As in `step`.
            frames: `(time, batch, 1, size)`, or a list of such.

        Returns:
            The carry after the last frame, and the outputs of all, `(time, batch, 1,
            size)`.
        """

        def step(carry: Carry, frame: Tensor) -> tuple[Carry, Carry]:
            carry = self.step(weights, carry, frame)
            # TensorFlow's `ops.scan` needs outputs of the structure of the carry.
            return carry, carry

        carry, (outputs, _) = ops.scan(step, carry, frames)
        return carry, outputs


@contextlib.contextmanager
def links_kept(layers: list[keras.layers.Layer]) -> Iterator[None]:
    """Removes the links that symbolic calls inside the block add to layers.

    They connect a layer with the model that it is part of: a layer that two models
    share would keep both alive.

    Args:
        layers: The layers.
    """
    links = [
        nodes
        for layer in layers
        for nodes in (layer._inbound_nodes, layer._outbound_nodes)
    ]
    lengths = [len(nodes) for nodes in links]
    try:
        yield
    finally:
        for nodes, length in zip(links, lengths, strict=True):
            del nodes[length:]


class StepwiseError(ValueError):
    """A model cannot be run step by step; the message names the layer and says why."""


def check_place(layer: keras.layers.Layer) -> None:
    """Checks that a layer of one step, which has states, is called once in its model.

    Args:
        layer: The layer, made for the model.

    Raises:
        StepwiseError: It is called in several places.
    """
    if len(layer._inbound_nodes) > 1:
        raise StepwiseError(
            "A model that uses one recurrent layer in several places cannot be "
            "run step by step, because each place has its own states. Received "
            f"a model with the layer {layer.name!r} in several places"
        )


def check_steps(layer: keras.layers.Layer) -> None:
    """Checks that a layer of a model can be run step by step.

    Args:
        layer: The layer.

    Raises:
        StepwiseError: It cannot.
    """
    if isinstance(layer, keras.Model):
        raise StepwiseError(
            "A model within a model cannot be run step by step; put its layers into "
            f"the outer one. Received a model with the model {layer.name!r} inside"
        )
    if isinstance(layer, keras.layers.Bidirectional) or getattr(
        layer, "go_backwards", False
    ):
        raise StepwiseError(
            "A model that reads sequences backwards cannot be run step by step. "
            f"Received a model with the layer {layer.name!r} of class "
            f"{type(layer).__name__}"
        )


def _one_step(layer: keras.layers.Layer) -> keras.layers.Layer:
    """The layer itself or, if it is recurrent, a layer of a single step."""
    check_steps(layer)
    return _OneStep(layer) if isinstance(layer, keras.layers.RNN) else layer


class _OneStep(keras.layers.Layer):
    """A recurrent layer that runs one step per call and keeps its states.

    Unlike those of a stateful Keras layer, the states are variables of the layer, and
    so `stateless_call` takes and returns them.
    """

    def __init__(self, rnn: keras.layers.RNN) -> None:
        super().__init__(dtype=rnn.dtype_policy, name=rnn.name)
        self.rnn = rnn
        self.supports_masking = True

    def build(self, input_shape: tuple[int, int, int]) -> None:
        self.size = input_shape[0]
        first = self.rnn.get_initial_state(batch_size=self.size)
        self.structure = keras.tree.map_structure(lambda _: None, first)
        self.states = [self._variable(state) for state in keras.tree.flatten(first)]
        shape = self.rnn.compute_output_shape(input_shape)
        size = keras.tree.flatten(shape)[-1] if self.rnn.return_state else shape[-1]
        self.shown = self._variable(ops.zeros((input_shape[0], size)))

    def first(self) -> list[Tensor]:
        """The states before the first step; learned ones may change."""
        return keras.tree.flatten(self.rnn.get_initial_state(batch_size=self.size))

    def _variable(self, value: Tensor) -> keras.Variable:
        return self.add_weight(
            shape=value.shape,
            dtype=keras.backend.standardize_dtype(value.dtype),
            initializer=lambda *_, **__: value,
            trainable=False,
            autocast=False,
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if len(args) > 1 or kwargs.pop("initial_state", None) is not None:
            raise ValueError(
                "A model that computes the initial state of a recurrent layer cannot "
                "be run step by step. Received a model with an `initial_state` "
                f"for the layer {self.name!r}"
            )
        return super().__call__(*args, **kwargs)

    def call(self, frames: Tensor, mask: Any = None, training: bool = False) -> Tensor:
        states = [ops.convert_to_tensor(state) for state in self.states]
        packed = keras.tree.pack_sequence_as(self.structure, states)
        output, new = self.rnn.cell(frames[:, 0], packed)
        new = keras.tree.flatten(new)
        if mask is not None:  # (batch, 1): a masked step changes no state
            shown = ops.cast(self.shown, output.dtype)
            if self.rnn.zero_output_for_mask:
                shown = ops.zeros_like(output)
            output = ops.where(mask, output, shown)
            new = [ops.where(mask, *pair) for pair in zip(new, states, strict=True)]
        for variable, value in zip(
            [*self.states, self.shown], [*new, output], strict=True
        ):
            variable.assign(value)
        return ops.expand_dims(output, 1) if self.rnn.return_sequences else output


def _compiled(function: Callable) -> Callable:
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        function = tf.function(function, jit_compile=True)

        def on_tensors(*args: Any) -> Any:
            return function(*keras.tree.map_structure(tf.convert_to_tensor, args))

        return on_tensors
    if keras.config.backend() == "jax":
        import jax

        return jax.jit(function)
    return function
