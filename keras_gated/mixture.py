"""A mixture of Gaussians as the output of a model of real-valued frames.

The last axis of its parameters is, for K components and events of E values,
`[log_weights (K) | means (K * E) | log_scales (K * E)]`. Covariances are diagonal.
"""

import itertools
import math
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_gated.datasets import checks

Tensor = Any

LOG_TWO_PI = math.log(2 * math.pi)


class Mixture(NamedTuple):
    """The separate parameters of mixtures."""

    log_weights: Tensor
    """`(..., K)`; their exponentials sum to one."""
    means: Tensor
    """`(..., K, E)`."""
    scales: Tensor
    """Standard deviations, `(..., K, E)`."""


def check_sizes(components: int, event_dim: int) -> tuple[int, int]:
    """Checks the sizes of a mixture.

    Args:
        components: K, the number of Gaussians.
        event_dim: E, the number of values of an event.

    Returns:
        Both as integers.

    Raises:
        ValueError: One is not a positive integer.
    """
    return checks.whole("components", components), checks.whole("event_dim", event_dim)


def split(parameters: Tensor, components: int, event_dim: int) -> list[Tensor]:
    """Splits the parameters of mixtures.

    Args:
        parameters: `(..., K * (1 + 2 * E))`.
        components: K.
        event_dim: E.

    Returns:
        `[log_weights (..., K), means (..., K, E), log_scales (..., K, E)]`.

    Raises:
        ValueError: The last axis has another size.
    """
    size = components * (1 + 2 * event_dim)
    if parameters.shape[-1] != size:
        raise ValueError(
            f"The parameters of {components} components of {event_dim} values are "
            f"{size} numbers (use the layer GaussianMixture). Received: shape "
            f"{tuple(parameters.shape)}"
        )
    weights, means, log_scales = _parts(parameters, components, event_dim)
    shape = (*ops.shape(parameters)[:-1], components, event_dim)
    return [weights, ops.reshape(means, shape), ops.reshape(log_scales, shape)]


def _parts(parameters: Tensor, components: int, event_dim: int) -> list[Tensor]:
    """The columns of each kind, sliced: `torch.export` rejects `ops.split` here."""
    ends = [0, components, components * (1 + event_dim), parameters.shape[-1]]
    return [parameters[..., begin:end] for begin, end in itertools.pairwise(ends)]


def gaussian_mixture_nll(
    y_true: Tensor, parameters: Tensor, components: int, event_dim: int
) -> Tensor:
    """Negative log-likelihood under mixtures of Gaussians, in nats.

    `-log Σ_k exp(log w_k - Σ_e (z_ke² / 2 + log s_ke) - E/2 log 2π)` with
    `z = (y - m) / s`; the sum over components by log-sum-exp.

    Args:
        y_true: The events, `(..., E)`.
        parameters: `(..., K * (1 + 2 * E))`.
        components: K.
        event_dim: E.

    Returns:
        `(...)`.
    """
    log_weights, means, log_scales = split(parameters, components, event_dim)
    z = (ops.expand_dims(y_true, -2) - means) * ops.exp(-log_scales)
    nats = ops.sum(0.5 * ops.square(z) + log_scales, axis=-1)
    return 0.5 * event_dim * LOG_TWO_PI - ops.logsumexp(log_weights - nats, axis=-1)


@keras.saving.register_keras_serializable(package="keras_gated")
class GaussianMixture(keras.layers.Layer):
    """Gives the parameters of a mixture of Gaussians with diagonal covariances.

    This is the output layer of Chung et al. (2014), section 4.1, for raw audio. It
    projects the inputs; one part of the projection becomes log-weights by log-softmax,
    one part the means, and one part the scales by `min_scale + softplus`. It computes
    in float32 at least, also under mixed precision.

    Args:
        components: K, the number of Gaussians. Default: 20.
        event_dim: E, the number of values of an event. Default: 10.
        min_scale: A lower bound of the standard deviations, in the unit of the
            events; without it silence would drive them to zero. Default: 1e-3.
        event_mean: The mean that was subtracted from the events to standardize them.
            The layer does not use it, but saves it with the model for
            `keras_gated.generation.generate_audio`, which undoes the
            standardization. Default: 0.
        event_std: The standard deviation by which the events were divided.
            Default: 1.
        kernel_initializer: Initializer of the projection. Default:
            `"glorot_uniform"`. The biases of the means are spread evenly from -1 to 1
            over the components, so that the components differ from the start.
        **kwargs: Further arguments of `keras.layers.Layer`.

    Call arguments:
        inputs: `(..., features)`.

    Returns:
        The parameters, `(..., K * (1 + 2 * E))`; `unpack` separates them.

    Raises:
        ValueError: An argument is not positive.

    Example:

    >>> import numpy as np
    >>> from keras_gated import GaussianMixture
    >>> layer = GaussianMixture(components=20, event_dim=10)
    >>> parameters = layer(np.zeros((2, 50, 195)))
    >>> log_weights, means, scales = layer.unpack(parameters)
    >>> tuple(means.shape)
    (2, 50, 20, 10)
    """

    def __init__(
        self,
        components: int = 20,
        event_dim: int = 10,
        min_scale: float = 1e-3,
        event_mean: float = 0.0,
        event_std: float = 1.0,
        kernel_initializer: Any = "glorot_uniform",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self.components, self.event_dim = check_sizes(components, event_dim)
        self.min_scale = checks.number("min_scale", min_scale, above=0)
        self.event_mean = checks.number("event_mean", event_mean)
        self.event_std = checks.number("event_std", event_std, above=0)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)

    def build(self, input_shape: tuple) -> None:
        size = self.components * (1 + 2 * self.event_dim)
        self.kernel = self.add_weight(
            name="kernel",
            shape=(input_shape[-1], size),
            initializer=self.kernel_initializer,
        )
        self.bias = self.add_weight(
            name="bias", shape=(size,), initializer=self._initial_bias
        )

    def _initial_bias(self, shape: tuple, dtype: Any = None) -> Tensor:
        K, E = self.components, self.event_dim
        means = ops.repeat(ops.linspace(-1.0, 1.0, K), E) if K > 1 else ops.zeros(E)
        bias = ops.concatenate([ops.zeros(K), means, ops.zeros(K * E)])
        return ops.cast(bias, dtype)

    def call(self, inputs: Tensor) -> Tensor:
        projected = ops.matmul(inputs, self.kernel) + self.bias
        if keras.backend.standardize_dtype(projected.dtype) != "float64":
            projected = ops.cast(projected, "float32")
        K, E = self.components, self.event_dim
        weights, means, scales = _parts(projected, K, E)
        return ops.concatenate(
            [
                ops.log_softmax(weights),
                means,
                ops.log(self.min_scale + ops.softplus(scales)),
            ],
            axis=-1,
        )

    def unpack(self, parameters: Tensor) -> Mixture:
        """Separates the parameters.

        Args:
            parameters: What the layer gave, `(..., K * (1 + 2 * E))`.

        Returns:
            `(log_weights (..., K), means (..., K, E), scales (..., K, E))`.
        """
        log_weights, means, log_scales = self._split(parameters)
        return Mixture(log_weights, means, ops.exp(log_scales))

    def sample(
        self, parameters: Tensor, temperature: float = 1.0, seed: Any = None
    ) -> Tensor:
        """Draws an event from each mixture.

        Args:
            parameters: `(..., K * (1 + 2 * E))`.
            temperature: Divides the log-weights and multiplies the variances; 0 gives
                the mean of the likeliest component. Default: 1.
            seed: An integer or a `keras.random.SeedGenerator`. Default: `None`.

        Returns:
            `(..., E)`.
        """
        temperature = checks.number("temperature", temperature, low=0)
        noise = self.noise(ops.shape(parameters)[:-1], seed)
        return self.from_noise(parameters, *noise, temperature)

    def noise(self, shape: tuple, seed: Any = None) -> tuple[Tensor, Tensor]:
        """The noise from which `from_noise` makes samples.

        Args:
            shape: The shape of the samples without their last axis.
            seed: As in `sample`.

        Returns:
            Gumbel noise `(*shape, K)` and normal noise `(*shape, E)`.
        """
        # Both draws would use the same random numbers if they had the same integer.
        another = seed + 2**30 if isinstance(seed, int) else seed
        tiny = 1e-30
        uniform = keras.random.uniform((*shape, self.components), tiny, seed=seed)
        normal = keras.random.normal((*shape, self.event_dim), seed=another)
        return -ops.log(-ops.log(uniform)), normal

    def from_noise(
        self, parameters: Tensor, gumbel: Tensor, normal: Tensor, temperature: float
    ) -> Tensor:
        """A sample of each mixture, from noise.

        Args:
            parameters: `(..., K * (1 + 2 * E))`.
            gumbel: Gumbel noise `(..., K)`, which chooses the component.
            normal: Normal noise `(..., E)`.
            temperature: As in `sample`.

        Returns:
            `(..., E)`.
        """
        log_weights, means, scales = self.unpack(parameters)
        which = ops.argmax(log_weights + temperature * gumbel, axis=-1)
        chosen = ops.one_hot(which, self.components, dtype=means.dtype)[..., None]
        mean, scale = (ops.sum(chosen * part, axis=-2) for part in (means, scales))
        return mean + math.sqrt(temperature) * scale * ops.cast(normal, mean.dtype)

    def mean(self, parameters: Tensor) -> Tensor:
        """The mean of each mixture.

        Args:
            parameters: `(..., K * (1 + 2 * E))`.

        Returns:
            `(..., E)`.
        """
        log_weights, means, _ = self._split(parameters)
        return ops.sum(ops.exp(log_weights)[..., None] * means, axis=-2)

    def mode(self, parameters: Tensor) -> Tensor:
        """The mean of a component at which each mixture is densest.

        The exact mode has no closed form; it is close to this if components are far
        apart.

        Args:
            parameters: `(..., K * (1 + 2 * E))`.

        Returns:
            `(..., E)`.
        """
        _, means, _ = self._split(parameters)
        each = ops.expand_dims(parameters, -2)  # every mean under the whole mixture
        nll = gaussian_mixture_nll(
            means,
            ops.repeat(each, self.components, axis=-2),
            self.components,
            self.event_dim,
        )
        best = ops.one_hot(ops.argmin(nll, axis=-1), self.components, dtype=means.dtype)
        return ops.sum(best[..., None] * means, axis=-2)

    def _split(self, parameters: Tensor) -> list[Tensor]:
        parameters = ops.convert_to_tensor(parameters)
        return split(parameters, self.components, self.event_dim)

    def compute_output_shape(self, input_shape: tuple) -> tuple:
        return (*input_shape[:-1], self.components * (1 + 2 * self.event_dim))

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "components": self.components,
            "event_dim": self.event_dim,
            "min_scale": self.min_scale,
            "event_mean": self.event_mean,
            "event_std": self.event_std,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }
