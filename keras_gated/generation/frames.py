"""Sampling binary frames, such as those of a piano roll, from a trained model."""

import weakref
from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_gated import stepping
from keras_gated.datasets import checks
from keras_gated.generation.checking import (
    check_features,
    check_stepwise,
    frames_shape,
    not_stepwise,
)
from keras_gated.nade.layer import NADE, head_of
from keras_gated.stepping import Carry, Stepper, Tensor


def generate(
    model: keras.Model,
    primer: np.ndarray,
    steps: int,
    temperature: float = 1.0,
    seed: int | None = None,
    fixed: np.ndarray | None = None,
    particles: int = 1,
    return_log_likelihood: bool = False,
    features: np.ndarray | None = None,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Continues a sequence of binary frames, such as a piano roll, with a model.

    The model reads the primer, then every sampled frame becomes its next input.
    Both run step by step from the recurrent state, in one compiled loop (XLA on
    TensorFlow and JAX; eager on PyTorch).

    Args:
        model: A Sequential or functional model that maps frames `(batch, time,
            notes)` to the logits of the next frames, of the same shape; or one that
            maps the frames and the next frames to logits by a `NADE` as its last
            layer, whose keys are drawn one after the other. It may have a last input
            more, of features. Only its recurrent layers
            (`keras.layers.RNN` and subclasses) may combine steps, and none of its
            layers may be a model.
        primer: The beginning of the sequence, zeros and ones, `(time, notes)` or
            `(batch, time, notes)`, with at least one step. A single frame of zeros
            starts from silence.
        steps: The number of steps to sample, a positive integer.
        temperature: Divides the logits: below 1 likely notes become likelier, and 0
            plays exactly the notes that are more likely than not. Default: 1.
        seed: An integer from 0 to 2^32 - 1 makes the samples repeatable. Default:
            `None`.
        fixed: What is given of the frames, `(steps, notes)` or `(batch, steps,
            notes)`: 1 where a note is on, 0 where it is off, -1 where it is free.
            Default: `None`, all is free.
        particles: The number of continuations that are tried at a time, so that what
            is free fits to what is fixed later: after each step those under which the
            fixed notes are likely take the places of others (sequential importance
            resampling; Gordon, Salmond and Smith 1993), and one is returned. Default:
            1.
        return_log_likelihood: Whether to return the log-likelihood of the
            continuation, too. Default: `False`.
        features: What is known of each step of the primer and of the continuation,
            such as `datasets.midi.step_features` gives it, `(primer steps + steps, F)`
            or `(batch, primer steps + steps, F)`, for a model with such an input; it
            tells of a step when that step is predicted. Default: `None`, nothing.

    Returns:
        The continuation without the primer, `uint8`, `(steps, notes)` or
        `(batch, steps, notes)`; with `return_log_likelihood` also its log-likelihood
        under the model in nats, of all steps and notes, `float64 ()` or `(batch,)`.

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
    if not isinstance(model, keras.Model):
        raise checks.error("model", model, "a Keras model")
    body, head = _parts(model)
    primer = _check_primer(body, primer)
    steps = checks.whole("steps", steps)
    temperature = checks.number("temperature", temperature, low=0)
    seed = checks.whole("seed", seed, 0, 2**32 - 1, optional=True)
    particles = checks.whole("particles", particles)
    fixed = _check_fixed(fixed, (*primer.shape[:-2], steps, primer.shape[-1]))
    told = check_features(body, features, primer.shape[:-1], steps)

    rows = primer.reshape(-1, *primer.shape[-2:]).astype("float32")
    past, notes = rows.shape[1:]
    size = len(rows) * particles
    stepper = _stepper(model, body, head, size, notes)
    # A note is on if its logit exceeds logistic noise: with the probability
    # sigmoid(logit / temperature).
    shape, tiny = (steps, size, 1, notes), np.finfo("float32").tiny
    uniform = keras.random.uniform(shape, minval=tiny, dtype="float32", seed=seed)
    noise = temperature * (ops.log(uniform) - ops.log1p(-uniform))
    random = np.random.default_rng(seed)
    draws = random.random((steps, len(rows), 1), "float32")
    frames, marks, *told = (_by_time(some, particles) for some in (rows, fixed, *told))
    read = [frames, *(some[:past] for some in told)]
    rest = [some[past:] for some in told]
    play = stepper.compiled(_play, head, particles)
    weights, carry = stepper.start()
    of_head = [ops.convert_to_tensor(w) for w in (head.weights if head else [])]
    found = play(weights, of_head, carry, read, noise, marks, draws, rest)
    outputs, first, *found = map(ops.convert_to_numpy, found)

    heard = frames
    if particles == 1:
        heard = np.concatenate([frames, found[0][:8]])
        outputs = np.concatenate([outputs, first])
    heard = heard[:24]
    checked = [some[: len(heard), :, 0].swapaxes(0, 1) for some in (heard, *told)]
    check_stepwise(body, _given(checked[0], checked[1:]), outputs)
    music, likelihood = _traced(*found, particles, random)
    music = music.reshape(*primer.shape[:-2], steps, notes)
    if return_log_likelihood:
        return music, likelihood.reshape(primer.shape[:-2])
    return music


def _by_time(rows: np.ndarray, particles: int) -> np.ndarray:
    """As the loop takes them: `(time, batch * particles, 1, size)`."""
    return np.expand_dims(np.repeat(rows, particles, axis=0).swapaxes(0, 1), 2)


def _traced(
    sampled: np.ndarray,
    likelihoods: np.ndarray,
    log_weights: np.ndarray,
    ancestors: np.ndarray,
    particles: int,
    random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """What `_play` found, of one particle for each sequence, from the end backwards.

    Returns:
        The frames `uint8 (batch, steps, notes)`, and their log-likelihoods `(batch,)`.
    """
    last = log_weights[-1].reshape(-1, particles)
    # Of the particles that are left, one by its weight.
    chosen = np.argmax(last + random.gumbel(size=last.shape), axis=1)
    at = chosen + particles * np.arange(len(chosen))
    music = np.empty((len(at), len(sampled), sampled.shape[-1]), "uint8")
    total = np.zeros(len(at))
    for step in reversed(range(len(sampled))):
        at = ancestors[step, at]
        music[:, step] = sampled[step, at, 0]
        total += likelihoods[step, at]
    return music, total


class _State(NamedTuple):
    """What a step of the loop passes to the next."""

    carry: Carry
    frame: Tensor
    """The frame that was drawn, `(batch, 1, notes)`."""
    likelihood: Tensor
    """Its log-likelihood, `(batch,)`."""
    log_weight: Tensor
    """The log-weights of the particles, `(batch,)`."""
    ancestor: Tensor
    """Whose place each took, `int32 (batch,)`."""


def _given(frame: Tensor, rows: Sequence[Tensor]) -> Tensor | list[Tensor]:
    """What a model takes: the frame alone, or a list of it and the features."""
    return [frame, *rows] if rows else frame


def _play(
    stepper: Stepper,
    head: NADE | None,
    particles: int,
    weights: list[Tensor],
    head_weights: list[Tensor],
    carry: Carry,
    primer: list[Tensor],
    noise: Tensor,
    fixed: Tensor,
    draws: Tensor,
    told: list[Tensor],
) -> tuple[Tensor, ...]:
    """The outputs after each frame of the primer, and after each sampled one.

    Returns:
        Both, and what else `_State` holds of each step.
    """

    def draw(outputs: Tensor, noise: Tensor, fixed: Tensor) -> tuple[Tensor, Tensor]:
        if head is None:
            drawn = ops.cast(outputs > noise, "float32")
            return ops.where(fixed < 0, drawn, fixed), outputs
        with keras.StatelessScope(zip(head.weights, head_weights, strict=True)):
            size = head.kernel.shape[0]
            features, known = outputs[..., :size], outputs[..., size:]
            known = known if known.shape[-1] else None
            return head.from_noise(features, noise, 1.0, fixed, known)

    def sample(state: tuple, at: tuple) -> tuple[tuple, tuple]:
        carry, *_, log_weight, ancestor = state
        noise, fixed, uniform, *rows = at
        frame, logits = draw(carry[0], noise, fixed)
        of_keys = frame * logits - ops.softplus(logits)
        likelihood = ops.sum(of_keys, axis=(1, 2))
        next_frame = frame
        if particles > 1:
            given = ops.sum(ops.where(fixed < 0, 0.0, of_keys), axis=(1, 2))
            log_weight, ancestor = _resampled(log_weight + given, uniform, particles)
            next_frame = ops.take(frame, ancestor, axis=0)
            carry = stepper.take(carry, ancestor)
        carry = stepper.step(weights, carry, _given(next_frame, rows))
        state = _State(carry, frame, likelihood, log_weight, ancestor)
        return tuple(state), tuple(state)

    first, *rows = primer
    carry, primed = stepper.read(weights, carry, _given(first, rows))
    size, zeros = noise.shape[1], ops.zeros(noise.shape[1], "float32")
    start = _State(
        carry, ops.zeros_like(noise[0]), zeros, zeros, ops.arange(size, dtype="int32")
    )
    _, states = ops.scan(sample, tuple(start), (noise, fixed, draws, *told))
    (outputs, _), *rest = states
    return primed, outputs, *rest


def _resampled(
    log_weight: Tensor, uniform: Tensor, particles: int
) -> tuple[Tensor, Tensor]:
    """Lets likely particles take the places of unlikely ones, if weights differ much.

    Args:
        log_weight: `(batch * particles,)`.
        uniform: From 0 to 1, `(batch, 1)`.
        particles: The number of particles.

    Returns:
        The new log-weights, and the number of the particle that takes each place.
    """
    groups = ops.reshape(log_weight, (-1, particles))
    shares = ops.softmax(groups)
    own = ops.broadcast_to(ops.arange(particles, dtype="int32"), groups.shape)
    # Systematic resampling, where the effective number is less than a half.
    places = (uniform + ops.cast(ops.arange(particles), "float32")) / particles
    below = ops.expand_dims(ops.cumsum(shares, axis=-1), -2)
    drawn = ops.sum(ops.cast(below < ops.expand_dims(places, -1), "int32"), axis=-1)
    drawn = ops.minimum(drawn, particles - 1)
    few = 1 / ops.sum(ops.square(shares), axis=-1, keepdims=True) < particles / 2
    number = ops.where(few, drawn, own)
    groups = ops.where(few, 0.0, groups)
    first = particles * ops.expand_dims(ops.arange(groups.shape[0], dtype="int32"), -1)
    number = ops.cast(number + first, "int32")  # JAX may have made it wider
    return ops.reshape(groups, (-1,)), ops.reshape(number, (-1,))


_FEATURES = weakref.WeakKeyDictionary()


def _parts(model: keras.Model) -> tuple[keras.Model, NADE | None]:
    """A model of what comes before the head, and the head, if there is one."""
    head = head_of(model)
    if head is None:
        return model, None
    if model not in _FEATURES:
        features, frames, *known = head.input
        inputs = [tensor for tensor in model.inputs if tensor is not frames]
        inputs = inputs[0] if len(inputs) == 1 else inputs
        if known:  # a model that is run step by step has one output
            # With a name of its own: one by number may be that of a layer in the model.
            name = f"inputs_of_{head.name}"
            join = keras.layers.Concatenate(dtype="float32", name=name)
            features = join([features, *known])
        try:
            _FEATURES[model] = keras.Model(inputs, features, name=model.name)
        except ValueError as error:  # several, or they are not enough
            raise _not_for_head(model) from error
    return _FEATURES[model], head


def _stepper(
    model: keras.Model, body: keras.Model, head: NADE | None, size: int, notes: int
) -> Stepper:
    """The stepper of the body of a model, if it has an output for each frame."""
    try:
        stepper = stepping.stepper(body, size)
    except KeyError as error:  # Keras 3.13 finds only here that inputs are missing
        raise _not_for_head(model) from error
    if stepper.output_shape[:2] != (size, 1) or (
        head is None and stepper.output_shape[2] != notes
    ):
        raise not_stepwise(model)
    return stepper


def _not_for_head(model: keras.Model) -> ValueError:
    return ValueError(
        "A model that ends in NADE must map [frames, next frames] to logits, and give "
        "the next frames to NADE alone, as they are. Received the model "
        f"{model.name!r} with {len(model.inputs)} inputs"
    )


def _check_primer(model: keras.Model, primer: np.ndarray) -> np.ndarray:
    """The primer as an array, if the model takes it."""
    shape = frames_shape(model, features=True)
    if shape is None:
        raise not_stepwise(model)
    primer, notes = np.asarray(primer), shape[-1]
    if primer.ndim not in (2, 3) or primer.shape[-1] != notes or 0 in primer.shape:
        raise ValueError(
            f"Argument `primer` must have the shape (time, {notes}) or (batch, "
            f"time, {notes}) and hold a step at least. Received: "
            f"primer.shape={primer.shape}"
        )
    if not np.isin(primer, (0, 1)).all():
        raise ValueError("Argument `primer` must hold zeros and ones only.")
    return primer


def _check_fixed(fixed: np.ndarray | None, shape: tuple) -> np.ndarray:
    """What is fixed, `float32 (batch, steps, notes)`, if it has the right shape."""
    rows = (-1, *shape[-2:])
    if fixed is None:
        return -np.ones(shape, "float32").reshape(rows)
    fixed = np.asarray(fixed)
    if fixed.shape not in (shape, shape[-2:]):
        raise ValueError(
            f"Argument `fixed` must have the shape {shape[-2:]} (steps, notes), or "
            f"that of the continuation, {shape}. Received: fixed.shape={fixed.shape}"
        )
    if not np.isin(fixed, (-1, 0, 1)).all():
        raise ValueError("Argument `fixed` must hold 1, 0 and -1 (free) only.")
    return np.broadcast_to(fixed, shape).reshape(rows).astype("float32")
