"""Sampling from a trained next-step model: frames of music, or sound."""

import contextlib
import math
import numbers
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_gated.mixture import GaussianMixture


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
    shape = _frames_shape(model)
    if shape is None:
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
    _check_whole("steps", steps)
    _check_temperature(temperature)
    batch = primer.reshape(-1, *primer.shape[-2:]).astype("float32")
    stepper = _stepper(model, len(batch))
    if stepper.output_shape != (len(batch), 1, notes):
        raise _not_stepwise(model)

    # A note is on where its logit exceeds logistic noise, which is to say with
    # the probability sigmoid(logit / temperature).
    shape = (int(steps), len(batch), 1, notes)
    tiny = np.finfo("float32").tiny
    uniform = keras.random.uniform(shape, minval=tiny, dtype="float32", seed=seed)
    noise = temperature * (ops.log(uniform) - ops.log1p(-uniform))

    def run(weights: list, carry: tuple, primer: Any, noise: Any) -> tuple[Any, Any]:
        def sample(carry: tuple, noise: Any) -> tuple[tuple, tuple]:
            frame = ops.cast(carry[0] > noise, "float32")
            carry = stepper.step(weights, carry, frame)
            # TensorFlow's `ops.scan` wants outputs of the structure of the carry.
            return carry, carry

        carry, primed = stepper.read(weights, carry, primer)
        _, (sampled, _) = ops.scan(sample, carry, noise)
        return primed, sampled

    # `scan` goes along the first axis: (time, batch, 1, notes).
    frames = ops.expand_dims(batch.swapaxes(0, 1), 2)
    parts = stepper.compiled(run)(*stepper.start(), frames, noise)
    logits = np.concatenate([ops.convert_to_numpy(part) for part in parts])
    past = batch.shape[1]
    sampled = logits[past - 1 : -1] > ops.convert_to_numpy(noise)
    sampled = sampled[:, :, 0].swapaxes(0, 1)
    # Of a long sequence the beginning only: rounding grows along a recurrence.
    frames = np.concatenate([batch, sampled[:, :8]], axis=1)
    _check_causal(model, frames[:, :24], logits)
    return sampled.reshape(*primer.shape[:-2], *sampled.shape[1:]).astype("uint8")


def generate_audio(
    model: keras.Model,
    primer: np.ndarray,
    samples: int,
    temperature: float = 1.0,
    seed: int | None = None,
) -> np.ndarray:
    """Samples how a model of a waveform goes on after a primer.

    Args:
        model: As in `stream_audio`.
        primer: As in `stream_audio`.
        samples: How many samples to draw, positive.
        temperature: As in `stream_audio`. Default: 1.
        seed: An integer makes the sound repeatable. Default: `None`.

    Returns:
        The continuation without the primer, `float32`, `(samples,)` or `(batch,
        samples)`.

    Raises:
        ValueError: An argument is out of its range, or the model cannot be run
            step by step.

    Example:

    >>> import keras, numpy as np
    >>> from keras_gated import GRU, GaussianMixture
    >>> from keras_gated.generation import generate_audio
    >>> model = keras.Sequential([
    ...     keras.Input((None, 20)),
    ...     GRU(8, return_sequences=True),
    ...     GaussianMixture(20, 10),
    ... ])
    >>> generate_audio(model, np.zeros(200), samples=1000, seed=1).shape
    (1000,)
    """
    _check_whole("samples", samples)
    stream = stream_audio(model, primer, temperature, seed, block=samples)
    with contextlib.closing(stream):
        return next(stream)[..., :samples]


def stream_audio(
    model: keras.Model,
    primer: np.ndarray,
    temperature: float = 1.0,
    seed: int | None = None,
    block: int = 8000,
) -> Iterator[np.ndarray]:
    """Goes on with a waveform without end, block by block.

    The model reads the primer, then every event that is sampled becomes the end
    of its next input. Each block runs in one compiled loop (XLA on TensorFlow and
    JAX; eager on PyTorch) on from the recurrent state, so that a block takes as
    long however much came before.

    Args:
        model: A Sequential or functional model from frames `(batch, time,
            frame_length)` to the parameters of a mixture, whose last layer is a
            `GaussianMixture`, for frames that begin its `event_dim` samples
            apart. Its other layers are as in `generate`.
        primer: What comes before, `(samples,)` or `(batch, samples)`, in the unit
            of `datasets.audio.read`, of one frame at least. It is standardized by
            the mixture's `event_mean` and `event_std`.
        temperature: As in `GaussianMixture.sample`: below 1 the samples keep to
            what is likely. Default: 1.
        seed: An integer makes the sound repeatable, with blocks of one size.
            Default: `None`.
        block: How many samples a block has, rounded up to whole events.
            Default: 8,000.

    Returns:
        An iterator over the next samples, `float32`, `(block,)` or `(batch, block)`,
        in the unit of the primer. They may go beyond -1 and 1; `datasets.audio.write`
        cuts them.

    Raises:
        ValueError: An argument is out of its range, or the model cannot be run
            step by step.
    """
    primer = np.asarray(primer)
    layers = model.layers if isinstance(model, keras.Model) else []
    mixture = layers[-1] if layers else None
    shape = _frames_shape(model) if isinstance(mixture, GaussianMixture) else None
    if shape is None:
        raise ValueError(
            "Argument `model` must map frames (batch, time, frame_length) to a "
            f"mixture, by a GaussianMixture as its last layer. Received: {model!r}"
        )
    length, hop = shape[-1], mixture.event_dim
    if primer.ndim not in (1, 2) or primer.shape[-1] < length or 0 in primer.shape:
        raise ValueError(
            "Argument `primer` must have the shape (samples,) or (batch, samples) and "
            f"hold {length} samples at least; of what `audio.read` gives, a channel is "
            f"samples[:, 0]. Received: primer.shape={primer.shape}"
        )
    if not np.isfinite(primer).all():
        raise ValueError("Argument `primer` must hold finite numbers only.")
    _check_whole("block", block)
    _check_temperature(temperature)
    sound = primer.reshape(-1, primer.shape[-1]).astype("float32")
    sound = (sound - mixture.event_mean) / mixture.event_std
    begins = np.arange(
        (sound.shape[1] - length) % hop, sound.shape[1] - length + 1, hop
    )
    frames = sound[:, begins[:, None] + np.arange(length)]
    stepper = _stepper(model, len(sound))
    seed = keras.random.SeedGenerator(seed)

    def run(weights: list, carry: tuple, frame: Any, *noise: Any) -> tuple:
        def sample(carry: tuple, noise: tuple) -> tuple[tuple, tuple]:
            carry, frame, _ = carry
            event = mixture.from_noise(carry[0], *noise, temperature)
            frame = ops.concatenate([frame, event], axis=-1)[..., -length:]
            carry = stepper.step(weights, carry, frame), frame, event
            return carry, carry

        event = ops.zeros((stepper.output_shape[0], 1, hop), "float32")
        (carry, frame, _), (_, _, events) = ops.scan(
            sample, (carry, frame, event), noise
        )
        return carry, frame, events

    if stepper.output_shape[:2] != (len(sound), 1):
        raise _not_stepwise(model)
    read = stepper.compiled(stepper.read)
    weights, start = stepper.start()
    carry, primed = read(weights, start, frames.swapaxes(0, 1)[:, :, None])
    if len(begins) < 8:  # too few to show whether a step sees those before it
        random = np.random.default_rng(0)
        more = random.normal(size=(len(sound), 8, length)).astype("float32")
        more = np.concatenate([frames, more], axis=1)
        _, primed_more = read(weights, start, more.swapaxes(0, 1)[:, :, None])
        _check_causal(model, more, ops.convert_to_numpy(primed_more))
    else:
        # Of a long sequence the beginning only: rounding grows along a recurrence.
        _check_causal(model, frames[:, :24], ops.convert_to_numpy(primed))
    frame = ops.convert_to_tensor(frames[:, -1:])
    go_on = stepper.compiled(run, temperature)

    def blocks(carry: tuple, frame: Any) -> Iterator[np.ndarray]:
        while True:
            noise = mixture.noise((-(-block // hop), len(sound), 1), seed)
            carry, frame, events = go_on(weights, carry, frame, *noise)
            events = ops.convert_to_numpy(events)[:, :, 0].swapaxes(0, 1)
            events = events.reshape(*primer.shape[:-1], -1)
            yield mixture.event_std * events + np.float32(mixture.event_mean)

    return blocks(carry, frame)


def _check_whole(name: str, value: Any) -> None:
    if not isinstance(value, numbers.Integral) or value < 1:
        raise ValueError(
            f"Argument `{name}` must be a positive integer. Received: {name}={value!r}"
        )


def _check_temperature(value: Any) -> None:
    if not isinstance(value, numbers.Real) or not 0 <= value < math.inf:
        raise ValueError(
            "Argument `temperature` must be a finite number of at least 0. "
            f"Received: temperature={value!r}"
        )


def _frames_shape(model: Any) -> tuple | None:
    """The shape (batch, time, size) of a model's one input; `None` if it has another.

    Raises:
        ValueError: It has none yet.
    """
    if isinstance(model, keras.Model) and not model.built:
        raise ValueError(
            f"The model {model.name!r} is not built, so that the size of its frames is "
            "not known: begin it with keras.Input((None, size)), or call it on a batch"
        )
    shape = getattr(model, "input_shape", None)
    if isinstance(shape, list) and len(shape) == 1:
        (shape,) = shape
    return shape if isinstance(shape, tuple) and len(shape) == 3 else None


_STEPPERS = weakref.WeakKeyDictionary()


def _stepper(model: keras.Model, size: int) -> "_Stepper":
    """That of a batch of this size, with what it has compiled for the model so far."""
    layers = model._flatten_layers(include_self=False)
    now = size, [(id(layer), *_configuration(layer)) for layer in layers]
    known, stepper = _STEPPERS.get(model, (None, None))
    if known != now:
        stepper = _Stepper(model, size)
        _STEPPERS[model] = now, stepper
    return stepper


def _configuration(layer: keras.layers.Layer) -> list[Any]:
    """What has been compiled for a layer holds as long as this is the same."""
    try:
        config = repr(layer.get_config())
    except NotImplementedError:  # a layer that cannot tell: like nothing else
        config = object()
    # Functions are themselves: two may have one name.
    names = ("activation", "recurrent_activation")
    return [config, *(getattr(layer, name, None) for name in names)]


class _Stepper:
    """A model as a pure function of its recurrent states and one frame."""

    def __init__(self, model: keras.Model, size: int) -> None:
        links = [
            nodes
            for layer in model.layers
            for nodes in (layer._inbound_nodes, layer._outbound_nodes)
        ]
        lengths = [len(nodes) for nodes in links]
        *_, frame_size = _frames_shape(model)
        frame = keras.Input(batch_shape=(size, 1, frame_size))
        if not isinstance(model, keras.Sequential):
            frame = keras.tree.map_structure(lambda _: frame, model.input)
        self.model = keras.models.clone_model(
            model, input_tensors=frame, clone_function=_one_step
        )
        # The layers that both models share shall not hold on to this one.
        for nodes, length in zip(links, lengths, strict=True):
            del nodes[length:]
        outputs = self.model.outputs
        if len(outputs) != 1:
            raise ValueError(
                "A model that is run step by step must have one output. Received "
                f"the model {model.name!r} with {len(outputs)}"
            )
        self.output_shape = tuple(outputs[0].shape)
        for layer in self.model.layers:
            if isinstance(layer, _OneStep) and len(layer._inbound_nodes) > 1:
                raise ValueError(
                    "A model that uses one recurrent layer in several places cannot be "
                    "run step by step, for it would have states of each. Received a "
                    f"model with the layer {layer.name!r} in several places"
                )
        self._compiled = {}

    def compiled(self, function: Callable, *constants: Any) -> Callable:
        """A function of this class or of a caller, compiled once.

        Args:
            function: What it refers to besides its arguments is the same at every
                call, or among the constants.
            *constants: Numbers that it was made with.
        """
        key = (function.__qualname__, *constants)
        if key not in self._compiled:
            self._compiled[key] = _compiled(function)
        return self._compiled[key]

    def start(self) -> tuple[list[Any], tuple[Any, list[Any]]]:
        """The weights; outputs and states before the first frame."""
        weights, states = (
            [ops.convert_to_tensor(v) for v in variables]
            for variables in (
                self.model.trainable_variables,
                self.model.non_trainable_variables,
            )
        )
        return weights, (ops.zeros(self.output_shape, "float32"), states)

    def read(self, weights: list, carry: tuple, frames: Any) -> tuple[tuple, Any]:
        """Outputs and states after frames `(time, batch, 1, size)`; all outputs."""

        def step(carry: tuple, frame: Any) -> tuple[tuple, tuple]:
            carry = self.step(weights, carry, frame)
            return carry, carry

        carry, (outputs, _) = ops.scan(step, carry, frames)
        return carry, outputs

    def step(self, weights: list, carry: tuple, frame: Any) -> tuple[Any, list]:
        """Outputs and states after one more frame `(batch, 1, size)`."""
        outputs, states = self.model.stateless_call(
            weights, carry[1], frame, training=False
        )
        (outputs,) = keras.tree.flatten(outputs)
        return ops.cast(outputs, "float32"), list(states)


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
        self.supports_masking = True

    def build(self, input_shape: tuple[int, int, int]) -> None:
        zero = self.rnn.get_initial_state(batch_size=input_shape[0])
        self.structure = keras.tree.map_structure(lambda _: None, zero)
        self.states = [self._variable(state) for state in keras.tree.flatten(zero)]
        shape = self.rnn.compute_output_shape(input_shape)
        size = keras.tree.flatten(shape)[-1] if self.rnn.return_state else shape[-1]
        self.shown = self._variable(ops.zeros((input_shape[0], size)))

    def _variable(self, value: Any) -> keras.Variable:
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
                "A model that makes the initial state of a recurrent layer itself "
                "cannot be run step by step. Received a model with an `initial_state` "
                f"for the layer {self.name!r}"
            )
        return super().__call__(*args, **kwargs)

    def call(self, frames: Any, mask: Any = None, training: bool = False) -> Any:
        states = [ops.convert_to_tensor(state) for state in self.states]
        packed = keras.tree.pack_sequence_as(self.structure, states)
        output, new = self.rnn.cell(frames[:, 0], packed)
        new = keras.tree.flatten(new)
        if mask is not None:  # (batch, 1): a step that does not count is no step
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


def _check_causal(model: keras.Model, frames: np.ndarray, stepwise: np.ndarray) -> None:
    """Refuses a model whose steps depend on each other beyond its states."""
    rows, size = len(frames), _frames_shape(model)[0] or len(frames)
    frames = frames[np.arange(size) % rows]  # the batch that a stateful model takes
    with _states_kept(model):
        (whole,) = keras.tree.flatten(model(frames, training=False))
    whole = ops.convert_to_numpy(ops.cast(whole, "float32"))[:rows]
    stepwise = stepwise[:, : len(whole)]
    if not np.isfinite(whole).all():
        raise ValueError(
            f"What the model {model.name!r} gives is no number (NaN or infinity): its "
            "training has failed, or the primer lies far beyond what it has seen."
        )
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
        "Argument `model` must map frames (batch, time, values) to an output for each "
        "(logits of the same shape, or a mixture), with no layer but recurrent ones "
        "that looks from one step at another: otherwise what it gives step by step is "
        "not what it gives of the whole sequence. "
        f"Received: model={model.name!r} with layers "
        f"{[type(layer).__name__ for layer in model.layers]}"
    )
