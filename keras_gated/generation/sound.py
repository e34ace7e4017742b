"""Sampling sound from a trained model of waveforms."""

import contextlib
from collections.abc import Iterator

import keras
import numpy as np
from keras import ops

from keras_gated import stepping
from keras_gated.datasets import checks
from keras_gated.generation.checking import check_stepwise, frames_shape, not_stepwise
from keras_gated.mixture import GaussianMixture
from keras_gated.stepping import Carry, Stepper, Tensor


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
        raise not_stepwise(model)
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
    check_stepwise(model, frames[:, :24], outputs)
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


def _check_sound(
    model: keras.Model, primer: np.ndarray
) -> tuple[GaussianMixture, np.ndarray]:
    """Checks those of `stream_audio`; returns the last layer, and the primer."""
    layers = model.layers if isinstance(model, keras.Model) else []
    mixture = layers[-1] if layers else None
    shape = frames_shape(model) if isinstance(mixture, GaussianMixture) else None
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
