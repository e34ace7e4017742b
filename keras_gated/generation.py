"""Sampling from a trained next-step model, one step at a time."""

import contextlib
import math
import numbers
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops


def generate(
    model: keras.Model,
    primer: np.ndarray,
    steps: int,
    temperature: float = 1.0,
    seed: int | None = None,
) -> np.ndarray:
    """Samples how a model of binary frames goes on after a primer.

    The model reads the primer, then every sampled frame becomes its next input.
    Both run step by step from the recurrent state, in one compiled loop (XLA on
    TensorFlow and JAX; eager on PyTorch).

    Args:
        model: A Sequential or functional model from frames `(batch, time,
            notes)` to the logits of the next ones, of the same shape, whose
            layers treat every step alike, but for recurrent ones
            (`keras.layers.RNN` and what derives from it), and none of whose
            layers is itself a model.
        primer: What comes before, zeros and ones, `(time, notes)` or
            `(batch, time, notes)`, of one step at least. A frame of zeros
            starts from silence.
        steps: How many steps to sample, positive.
        temperature: Divides the logits: below 1 the samples keep to what is
            likely, and 0 plays just the notes that are more likely than not.
            Default: 1.
        seed: An integer makes the samples repeatable. Default: `None`.

    Returns:
        The continuation without the primer, `uint8`, `(steps, notes)` or
        `(batch, steps, notes)`.

    Raises:
        ValueError: An argument is out of its range, or the model cannot be run
            step by step.

    Example:

    >>> import keras, numpy as np
    >>> from keras_gated import GRUCell
    >>> from keras_gated.generation import generate
    >>> model = keras.Sequential([
    ...     keras.Input((None, 88)),
    ...     keras.layers.RNN(GRUCell(4), return_sequences=True),
    ...     keras.layers.Dense(88),
    ... ])
    >>> generate(model, np.zeros((1, 88)), steps=16, seed=1).shape
    (16, 88)
    """
    primer = np.asarray(primer)
    shape = getattr(model, "input_shape", None)
    if not isinstance(shape, tuple) or len(shape) != 3:
        raise _not_stepwise(model)
    notes = shape[-1]
    if primer.ndim not in (2, 3) or primer.shape[-1] != notes or 0 in primer.shape:
        raise ValueError(
            f"Argument `primer` must have the shape (time, {notes}) or (batch, "
            f"time, {notes}) and hold a step at least. Received: "
            f"primer.shape={primer.shape}"
        )
    if not np.isin(primer, (0, 1)).all():
        raise ValueError("Argument `primer` must hold zeros and ones only.")
    if not isinstance(steps, numbers.Integral) or steps < 1:
        raise ValueError(
            f"Argument `steps` must be a positive integer. Received: steps={steps!r}"
        )
    if not isinstance(temperature, numbers.Real) or not 0 <= temperature < math.inf:
        raise ValueError(
            "Argument `temperature` must be a finite number of at least 0. "
            f"Received: temperature={temperature!r}"
        )
    batch = primer.reshape(-1, *primer.shape[-2:]).astype("float32")
    stepper = _Stepper(model, batch)

    # A note is on where its logit exceeds logistic noise, which is to say with
    # the probability sigmoid(logit / temperature).
    shape = (int(steps), len(batch), 1, notes)
    tiny = np.finfo("float32").tiny
    uniform = keras.random.uniform(shape, minval=tiny, seed=seed)
    noise = temperature * (ops.log(uniform) - ops.log1p(-uniform))

    def run(primer: Any, noise: Any) -> tuple[Any, Any]:
        def read(carry: tuple, frame: Any) -> tuple[tuple, tuple]:
            carry = stepper(carry, frame)
            # TensorFlow's `ops.scan` wants outputs of the structure of the carry.
            return carry, carry

        def sample(carry: tuple, noise: Any) -> tuple[tuple, tuple]:
            return read(carry, ops.cast(carry[0] > noise, "float32"))

        carry, (primed, _) = ops.scan(read, stepper.start(), primer)
        _, (sampled, _) = ops.scan(sample, carry, noise)
        return primed, sampled

    # `scan` goes along the first axis: (time, batch, 1, notes).
    frames = ops.expand_dims(batch.swapaxes(0, 1), 2)
    logits = np.concatenate(
        [ops.convert_to_numpy(part) for part in _run_compiled(run, frames, noise)]
    )
    past = batch.shape[1]
    sampled = logits[past - 1 : -1] > ops.convert_to_numpy(noise)
    sampled = sampled[:, :, 0].swapaxes(0, 1)
    # Of a long sequence the beginning only: rounding grows along a recurrence.
    frames = np.concatenate([batch, sampled[:, :8]], axis=1)
    _check_causal(model, frames[:, :24], logits)
    return sampled.reshape(*primer.shape[:-2], *sampled.shape[1:]).astype("uint8")


class _Stepper:
    """A model as a pure function of its recurrent states and one frame."""

    def __init__(self, model: keras.Model, batch: np.ndarray) -> None:
        size, _, notes = batch.shape
        links = [
            nodes
            for layer in model.layers
            for nodes in (layer._inbound_nodes, layer._outbound_nodes)
        ]
        lengths = [len(nodes) for nodes in links]
        self.model = keras.models.clone_model(
            model,
            input_tensors=keras.Input(batch_shape=(size, 1, notes)),
            clone_function=_one_step,
        )
        # The layers that both models share shall not hold on to this one.
        for nodes, length in zip(links, lengths, strict=True):
            del nodes[length:]
        if tuple(self.model.output_shape) != (size, 1, notes):
            raise _not_stepwise(model)
        self.trainable = list(self.model.trainable_variables)
        self.non_trainable = list(self.model.non_trainable_variables)

    def start(self) -> tuple[Any, list[Any]]:
        """Logits and states before the first frame."""
        states = [ops.convert_to_tensor(v) for v in self.non_trainable]
        return ops.zeros(self.model.input_shape), states

    def __call__(self, carry: tuple[Any, list], frame: Any) -> tuple[Any, list]:
        logits, states = self.model.stateless_call(
            self.trainable, carry[1], frame, training=False
        )
        return ops.cast(logits, "float32"), list(states)


def _one_step(layer: keras.layers.Layer) -> keras.layers.Layer:
    """The layer itself, or, if it is recurrent, one that takes a step a call."""
    if isinstance(layer, keras.Model):
        raise ValueError(
            "A model within a model cannot be run step by step; put its layers into "
            f"the outer one. Received a model with the model {layer.name!r} inside"
        )
    if isinstance(layer, keras.layers.Bidirectional) or getattr(
        layer, "go_backwards", False
    ):
        raise ValueError(
            "A model that reads sequences backwards cannot be run step by step. "
            f"Received a model with the layer {layer.name!r} of class "
            f"{type(layer).__name__}"
        )
    return _OneStep(layer) if isinstance(layer, keras.layers.RNN) else layer


class _OneStep(keras.layers.Layer):
    """A recurrent layer that takes one step a call and keeps its states.

    Unlike those of a stateful Keras layer, the states are among the variables
    of the layer, and so a part of `stateless_call`.
    """

    def __init__(self, rnn: keras.layers.RNN) -> None:
        super().__init__(dtype=rnn.dtype_policy, name=rnn.name)
        self.rnn = rnn

    def build(self, input_shape: tuple[int, int, int]) -> None:
        zero = self.rnn.get_initial_state(batch_size=input_shape[0])
        self.structure = keras.tree.map_structure(lambda _: None, zero)
        self.states = [
            self.add_weight(
                shape=state.shape,
                dtype=keras.backend.standardize_dtype(state.dtype),
                initializer=lambda *_, state=state, **__: state,
                trainable=False,
                autocast=False,
            )
            for state in keras.tree.flatten(zero)
        ]

    def call(self, frames: Any, mask: Any = None, training: bool = False) -> Any:
        states = [ops.convert_to_tensor(state) for state in self.states]
        packed = keras.tree.pack_sequence_as(self.structure, states)
        output, new = self.rnn.cell(frames[:, 0], packed)
        for state, value in zip(self.states, keras.tree.flatten(new), strict=True):
            state.assign(value)
        return ops.expand_dims(output, 1) if self.rnn.return_sequences else output


def _run_compiled(function: Callable, *args: Any) -> Any:
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        args = [tf.convert_to_tensor(arg) for arg in args]
        function = tf.function(function, jit_compile=True)
        return function.get_concrete_function(*args)(*args)
    if keras.config.backend() == "jax":
        import jax

        return jax.jit(function)(*args)
    return function(*args)


def _check_causal(model: keras.Model, frames: np.ndarray, stepwise: np.ndarray) -> None:
    """Refuses a model whose steps depend on each other beyond its states."""
    with _states_kept(model):
        whole = ops.cast(model(frames, training=False), "float32")
    whole = ops.convert_to_numpy(whole)
    whole, stepwise = whole.swapaxes(0, 1), stepwise[: frames.shape[1], :, 0]
    # Wide enough for half precision, and far below what a wrong context does.
    if not np.allclose(whole, stepwise, 0.1, 0.1):
        raise _not_stepwise(model)


@contextlib.contextmanager
def _states_kept(model: keras.Model) -> Iterator[None]:
    """Lets stateful layers begin anew, and gives them back their states."""
    layers = [layer for layer in model.layers if getattr(layer, "stateful", False)]
    states = [v for layer in layers for v in keras.tree.flatten(layer.states)]
    values = [ops.convert_to_numpy(v).copy() for v in states]
    for layer in layers:
        layer.reset_state()
    try:
        yield
    finally:
        for state, value in zip(states, values, strict=True):
            state.assign(value)


def _not_stepwise(model: keras.Model) -> ValueError:
    return ValueError(
        "Argument `model` must map frames (batch, time, notes) to logits of the same "
        "shape, with no layer but recurrent ones that looks from one step at another: "
        "otherwise its logits step by step are not those of the whole sequence. "
        f"Received: model={model.name!r} with layers "
        f"{[type(layer).__name__ for layer in model.layers]}"
    )
