"""Sampling binary frames, such as those of a piano roll, from a trained model."""

import weakref
from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from keras_gated import stepping
from keras_gated.datasets import checks
from keras_gated.generation.checking import check_stepwise, frames_shape, not_stepwise
from keras_gated.nade import NADE
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
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
    """Continues a sequence of binary frames, such as a piano roll, with a model.

    The model reads the primer, then every sampled frame becomes its next input.
    Both run step by step from the recurrent state, in one compiled loop (XLA on
    TensorFlow and JAX; eager on PyTorch).

    Args:
        model: A Sequential or functional model that maps frames `(batch, time,
            notes)` to the logits of the next frames, of the same shape; or one that
            maps the frames and the next frames to logits by a `NADE` as its last
            layer, whose keys are drawn one after the other. Only its recurrent layers
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
    features, head = _parts(model)
    primer = _check_primer(features, primer)
    steps = checks.whole("steps", steps)
    temperature = checks.number("temperature", temperature, low=0)
    seed = checks.whole("seed", seed, 0, 2**32 - 1, optional=True)
    particles = checks.whole("particles", particles)
    fixed = _check_fixed(fixed, (*primer.shape[:-2], steps, primer.shape[-1]))

    batch = primer.reshape(-1, *primer.shape[-2:]).astype("float32")
    batch = np.repeat(batch, particles, axis=0)
    size, _, notes = batch.shape
    try:
        stepper = stepping.stepper(features, size)
    except KeyError as error:  # Keras 3.8 finds only here that inputs are missing
        raise _not_for_head(model) from error
    if stepper.output_shape[:2] != (size, 1) or (
        head is None and stepper.output_shape[2] != notes
    ):
        raise not_stepwise(model)
    # A note is on if its logit exceeds logistic noise: with the probability
    # sigmoid(logit / temperature).
    shape, tiny = (steps, size, 1, notes), np.finfo("float32").tiny
    uniform = keras.random.uniform(shape, minval=tiny, dtype="float32", seed=seed)
    noise = temperature * (ops.log(uniform) - ops.log1p(-uniform))
    random = np.random.default_rng(seed)
    # The loop runs along the first axis: (time, batch, 1, notes).
    frames = np.expand_dims(batch.swapaxes(0, 1), 2)
    marks = -np.ones(shape[:2] + shape[3:], "float32")
    if fixed is not None:
        rows = np.repeat(fixed.reshape(-1, steps, notes), particles, axis=0)
        marks[:] = rows.swapaxes(0, 1)
    draws = random.random((steps, size // particles, 1), "float32")
    play = stepper.compiled(_play, head, particles)
    weights, carry = stepper.start()
    of_head = [ops.convert_to_tensor(w) for w in (head.weights if head else [])]
    what = frames, noise, marks[:, :, None], draws
    read, first, *found = play(weights, of_head, carry, *what)
    sampled, likelihoods, log_weights, ancestors = map(ops.convert_to_numpy, found)

    heard = np.concatenate([batch, sampled[:8, :, 0].swapaxes(0, 1)], axis=1)[:, :24]
    outputs = map(ops.convert_to_numpy, (read, first))
    if particles == 1:
        check_stepwise(features, heard, np.concatenate([*outputs]))
    else:
        check_stepwise(features, batch[:, :24], ops.convert_to_numpy(read))
    last = log_weights[-1].reshape(-1, particles)
    # Of the particles that are left, one by its weight.
    chosen = np.argmax(last + random.gumbel(size=last.shape), axis=1)
    at = chosen + particles * np.arange(len(chosen))
    result = np.empty((len(at), steps, notes), "uint8")
    total = np.zeros(len(at))
    for step in reversed(range(steps)):
        at = ancestors[step, at]
        result[:, step] = sampled[step, at, 0]
        total += likelihoods[step, at]
    result = result.reshape(*primer.shape[:-2], steps, notes)
    if return_log_likelihood:
        return result, total.reshape(primer.shape[:-2])
    return result


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


def _play(
    stepper: Stepper,
    head: NADE | None,
    particles: int,
    weights: list[Tensor],
    head_weights: list[Tensor],
    carry: Carry,
    primer: Tensor,
    noise: Tensor,
    fixed: Tensor,
    draws: Tensor,
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
        noise, fixed, uniform = at
        frame, logits = draw(carry[0], noise, fixed)
        of_keys = frame * logits - ops.softplus(logits)
        likelihood = ops.sum(of_keys, axis=(1, 2))
        next_frame = frame
        if particles > 1:
            given = ops.sum(ops.where(fixed < 0, 0.0, of_keys), axis=(1, 2))
            log_weight, ancestor = _resampled(log_weight + given, uniform, particles)
            next_frame = ops.take(frame, ancestor, axis=0)
            carry = stepper.take(carry, ancestor)
        carry = stepper.step(weights, carry, next_frame)
        state = _State(carry, frame, likelihood, log_weight, ancestor)
        return tuple(state), tuple(state)

    carry, primed = stepper.read(weights, carry, primer)
    size, zeros = noise.shape[1], ops.zeros(noise.shape[1], "float32")
    start = _State(
        carry, ops.zeros_like(noise[0]), zeros, zeros, ops.arange(size, dtype="int32")
    )
    _, states = ops.scan(sample, tuple(start), (noise, fixed, draws))
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
    head = model.layers[-1] if model.layers else None
    if not isinstance(head, NADE):
        return model, None
    if model not in _FEATURES:
        features, frames, *known = head.input
        inputs = [tensor for tensor in model.inputs if tensor is not frames]
        if known:  # a model that is run step by step has one output
            features = keras.layers.Concatenate(dtype="float32")([features, *known])
        try:
            (frames,) = inputs
            _FEATURES[model] = keras.Model(frames, features, name=model.name)
        except ValueError as error:  # several, or they are not enough
            raise _not_for_head(model) from error
    return _FEATURES[model], head


def _not_for_head(model: keras.Model) -> ValueError:
    return ValueError(
        "A model that ends in NADE must map [frames, next frames] to logits, and give "
        "the next frames to NADE alone, as they are. Received the model "
        f"{model.name!r} with {len(model.inputs)} inputs"
    )


def _check_primer(model: keras.Model, primer: np.ndarray) -> np.ndarray:
    """The primer as an array, if the model takes it."""
    shape = frames_shape(model)
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


def _check_fixed(fixed: np.ndarray | None, shape: tuple) -> np.ndarray | None:
    """What is fixed as an array of the shape of the continuation."""
    if fixed is None:
        return None
    fixed = np.asarray(fixed)
    if fixed.shape not in (shape, shape[-2:]):
        raise ValueError(
            f"Argument `fixed` must have the shape {shape[-2:]} (steps, notes), or "
            f"that of the continuation, {shape}. Received: fixed.shape={fixed.shape}"
        )
    if not np.isin(fixed, (-1, 0, 1)).all():
        raise ValueError("Argument `fixed` must hold 1, 0 and -1 (free) only.")
    return np.broadcast_to(fixed, shape)
