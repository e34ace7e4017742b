"""Sampling from a trained next-step model: frames of music, or sound samples."""

import contextlib
from collections.abc import Iterator

import keras
import numpy as np
from keras import ops

from keras_gated import stepping
from keras_gated.datasets import checks
from keras_gated.mixture import GaussianMixture
from keras_gated.stepping import Carry, Stepper, Tensor


def generate(
    model: keras.Model,
    primer: np.ndarray,
    steps: int,
    temperature: float = 1.0,
    seed: int | None = None,
) -> np.ndarray:
    """Continues a sequence of binary frames, such as a piano roll, with a model.

    The model reads the primer, then every sampled frame becomes its next input.
    Both run step by step from the recurrent state, in one compiled loop (XLA on
    TensorFlow and JAX; eager on PyTorch).

    Args:
        model: A Sequential or functional model that maps frames `(batch, time,
            notes)` to the logits of the next frames, of the same shape. Only its
            recurrent layers (`keras.layers.RNN` and subclasses) may combine steps,
            and none of its layers may be a model.
        primer: The beginning of the sequence, zeros and ones, `(time, notes)` or
            `(batch, time, notes)`, with at least one step. A single frame of zeros
            starts from silence.
        steps: The number of steps to sample, a positive integer.
        temperature: Divides the logits: below 1 likely notes become likelier, and 0
            plays exactly the notes that are more likely than not. Default: 1.
        seed: An integer from 0 to 2^32 - 1 makes the samples repeatable. Default:
            `None`.

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
    primer = _check_music(model, primer)
    steps = checks.whole("steps", steps)
    temperature = checks.number("temperature", temperature, low=0)
    seed = checks.whole("seed", seed, 0, 2**32 - 1, optional=True)

    batch = primer.reshape(-1, *primer.shape[-2:]).astype("float32")
    size, past, notes = batch.shape
    stepper = stepping.stepper(model, size)
    if stepper.output_shape != (size, 1, notes):
        raise _not_stepwise(model)
    # A note is on if its logit exceeds logistic noise: with the probability
    # sigmoid(logit / temperature).
    shape, tiny = (steps, size, 1, notes), np.finfo("float32").tiny
    uniform = keras.random.uniform(shape, minval=tiny, dtype="float32", seed=seed)
    noise = temperature * (ops.log(uniform) - ops.log1p(-uniform))

    # The loop runs along the first axis: (time, batch, 1, notes).
    frames = np.expand_dims(batch.swapaxes(0, 1), 2)
    parts = stepper.compiled(_play)(*stepper.start(), frames, noise)
    logits = np.concatenate([ops.convert_to_numpy(part) for part in parts])
    sampled = logits[past - 1 : -1] > ops.convert_to_numpy(noise)
    sampled = sampled[:, :, 0].swapaxes(0, 1)
    heard = np.concatenate([batch, sampled[:, :8]], axis=1)
    _check_stepwise(model, heard[:, :24], logits)
    return sampled.reshape(*primer.shape[:-2], steps, notes).astype("uint8")


def _play(
    stepper: Stepper, weights: list[Tensor], carry: Carry, primer: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """The logits after each frame of the primer, and after each sampled frame."""

    def sample(carry: Carry, noise: Tensor) -> tuple[Carry, Carry]:
        frame = ops.cast(carry[0] > noise, "float32")
        carry = stepper.step(weights, carry, frame)
        return carry, carry

    carry, primed = stepper.read(weights, carry, primer)
    _, (sampled, _) = ops.scan(sample, carry, noise)
    return primed, sampled


def generate_audio(
    model: keras.Model,
    primer: np.ndarray,
    samples: int,
    temperature: float = 1.0,
    seed: int | None = None,
) -> np.ndarray:
    """Continues a waveform with a model.

    Args:
        model: As in `stream_audio`.
        primer: As in `stream_audio`.
        samples: The number of samples to draw, a positive integer.
        temperature: As in `stream_audio`. Default: 1.
        seed: As in `generate`. Default: `None`.

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
    samples = checks.whole("samples", samples)
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
    """Continues a waveform endlessly, block by block.

    The model reads the primer, then every sampled event becomes the end of its next
    input. Each block runs in one compiled loop (XLA on TensorFlow and JAX; eager on
    PyTorch) and starts from the recurrent state after the last, so that the time for
    a block does not depend on how many came before.

    Args:
        model: A Sequential or functional model that maps frames `(batch, time,
            frame_length)` to the parameters of a mixture. Its last layer is a
            `GaussianMixture`, and each frame begins `event_dim` samples after the
            one before. For its other layers see `generate`.
        primer: The beginning of the waveform, `(samples,)` or `(batch, samples)`, in
            the unit of `datasets.audio.read`, with at least `frame_length` samples.
            It is standardized by the mixture's `event_mean` and `event_std`.
        temperature: As in `GaussianMixture.sample`: below 1 likely samples become
            likelier. Default: 1.
        seed: As in `generate`; the sound also depends on `block`. Default: `None`.
        block: The number of samples in a block, rounded up to whole events. Default:
            8,000.

    Returns:
        An iterator over the next samples, `float32`, `(block,)` or `(batch, block)`,
        in the unit of the primer. They may exceed -1 and 1; `datasets.audio.write`
        clips them.

    Raises:
        ValueError: An argument is out of its range, or the model cannot be run
            step by step.
    """
    mixture, primer = _check_sound(model, primer)
    block = checks.whole("block", block)
    temperature = checks.number("temperature", temperature, low=0)
    seed = checks.whole("seed", seed, 0, 2**32 - 1, optional=True)

    frames = _frames(model, mixture, primer)
    stepper = stepping.stepper(model, len(frames))
    if stepper.output_shape[:2] != (len(frames), 1):
        raise _not_stepwise(model)
    weights, carry = _read(model, stepper, frames)
    go_on = stepper.compiled(_go_on, mixture, temperature)
    noise_seed = keras.random.SeedGenerator(seed)

    def blocks(carry: Carry, frame: Tensor) -> Iterator[np.ndarray]:
        events = -(-block // mixture.event_dim)
        while True:
            noise = mixture.noise((events, len(frames), 1), noise_seed)
            carry, frame, sound = go_on(weights, carry, frame, *noise)
            sound = ops.convert_to_numpy(sound)[:, :, 0].swapaxes(0, 1)
            sound = sound.reshape(*primer.shape[:-1], -1)
            yield mixture.event_std * sound + np.float32(mixture.event_mean)

    return blocks(carry, ops.convert_to_tensor(frames[:, -1:]))


def _read(
    model: keras.Model, stepper: Stepper, frames: np.ndarray
) -> tuple[list[Tensor], Carry]:
    """The weights, and the carry after frames `(batch, time, frame_length)`.

    Raises:
        ValueError: The model cannot be run step by step.
    """

    def in_time(frames: np.ndarray) -> np.ndarray:
        return np.expand_dims(frames.swapaxes(0, 1), 2)

    read = stepper.compiled(Stepper.read)
    weights, start = stepper.start()
    carry, outputs = read(weights, start, in_time(frames))
    if frames.shape[1] < 8:  # too few to show whether a step depends on earlier ones
        random = np.random.default_rng(0)
        more = random.normal(size=(len(frames), 8, frames.shape[2])).astype("float32")
        frames = np.concatenate([frames, more], axis=1)
        _, outputs = read(weights, start, in_time(frames))
    _check_stepwise(model, frames[:, :24], outputs)
    return weights, carry


def _go_on(
    stepper: Stepper,
    mixture: GaussianMixture,
    temperature: float,
    weights: list[Tensor],
    carry: Carry,
    frame: Tensor,
    *noise: Tensor,
) -> tuple[Carry, Tensor, Tensor]:
    """The carry, the last frame, and the events `(time, batch, 1, event_dim)`."""

    def sample(carry: tuple, noise: tuple[Tensor, Tensor]) -> tuple[tuple, tuple]:
        carry, frame, _ = carry
        event = mixture.from_noise(carry[0], *noise, temperature)
        length = frame.shape[-1]
        frame = ops.concatenate([frame, event], axis=-1)[..., -length:]
        carry = stepper.step(weights, carry, frame), frame, event
        return carry, carry

    event = ops.zeros((stepper.output_shape[0], 1, mixture.event_dim), "float32")
    (carry, frame, _), (_, _, events) = ops.scan(sample, (carry, frame, event), noise)
    return carry, frame, events


# The checks, and the frames of a primer.


def _frames_shape(model: keras.Model) -> tuple | None:
    """The shape of a model's input if that is (batch, time, size), else `None`."""
    shape = stepping.input_shape(model)
    return shape if isinstance(shape, tuple) and len(shape) == 3 else None


def _check_music(model: keras.Model, primer: np.ndarray) -> np.ndarray:
    """Checks the model and the primer of `generate`; returns the primer as an array."""
    if not isinstance(model, keras.Model):
        raise checks.error("model", model, "a Keras model")
    shape = _frames_shape(model)
    if shape is None:
        raise _not_stepwise(model)
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


def _check_sound(
    model: keras.Model, primer: np.ndarray
) -> tuple[GaussianMixture, np.ndarray]:
    """Checks those of `stream_audio`; returns the last layer, and the primer."""
    layers = model.layers if isinstance(model, keras.Model) else []
    mixture = layers[-1] if layers else None
    shape = _frames_shape(model) if isinstance(mixture, GaussianMixture) else None
    if shape is None:
        raise ValueError(
            "Argument `model` must map frames (batch, time, frame_length) to a "
            f"mixture, by a GaussianMixture as its last layer. Received: {model!r}"
        )
    primer, length = np.asarray(primer), shape[-1]
    if primer.ndim not in (1, 2) or primer.shape[-1] < length or 0 in primer.shape:
        raise ValueError(
            "Argument `primer` must have the shape (samples,) or (batch, samples) and "
            f"hold {length} samples at least; of what `audio.read` gives, a channel is "
            f"samples[:, 0]. Received: primer.shape={primer.shape}"
        )
    if not np.isfinite(primer).all():
        raise ValueError("Argument `primer` must hold finite numbers only.")
    return mixture, primer


def _frames(
    model: keras.Model, mixture: GaussianMixture, primer: np.ndarray
) -> np.ndarray:
    """The standardized primer in frames; the last frame ends with it.

    Returns:
        `(batch, time, frame_length)`.
    """
    length, hop = stepping.input_shape(model)[-1], mixture.event_dim
    sound = primer.reshape(-1, primer.shape[-1]).astype("float32")
    sound = (sound - mixture.event_mean) / mixture.event_std
    windows = np.lib.stride_tricks.sliding_window_view(sound, length, axis=1)
    return windows[:, (sound.shape[1] - length) % hop :: hop].copy()


def _check_stepwise(model: keras.Model, frames: np.ndarray, outputs: Tensor) -> None:
    """Checks that a model gives step by step what it gives for the whole sequence.

    Args:
        model: The model.
        frames: Some frames, `(batch, time, size)`. Use only the beginning of a long
            sequence, because rounding errors grow along a recurrence.
        outputs: The outputs of its stepper for these frames, or for more,
            `(time, batch, 1, size)`.

    Raises:
        ValueError: The outputs of the model itself are others, or are not finite.
    """
    rows, size = len(frames), stepping.input_shape(model)[0] or len(frames)
    frames = frames[np.arange(size) % rows]  # the batch size may be fixed
    with stepping.unchanged(model):
        (whole,) = keras.tree.flatten(model(frames, training=False))
    whole = ops.convert_to_numpy(ops.cast(whole, "float32"))[:rows]
    if not np.isfinite(whole).all():
        raise ValueError(
            f"The output of the model {model.name!r} is not finite (NaN or infinity): "
            "its training has failed, or the primer is far from what it was trained on."
        )
    stepwise = ops.convert_to_numpy(outputs)[: frames.shape[1], : len(whole), 0]
    # Wide enough for half precision, and far below the effect of a wrong context.
    if not np.allclose(whole.swapaxes(0, 1), stepwise, 0.1, 0.1):
        raise _not_stepwise(model)


def _not_stepwise(model: keras.Model) -> ValueError:
    """The error for a model that cannot be run step by step."""
    return ValueError(
        "Argument `model` must map frames (batch, time, values) to an output for each "
        "(logits of the same shape, or a mixture), and only its recurrent layers may "
        "combine steps: otherwise the outputs of a single step are not those of the "
        "whole sequence. "
        f"Received: model={model.name!r} with layers "
        f"{[type(layer).__name__ for layer in model.layers]}"
    )
