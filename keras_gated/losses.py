"""Losses: negative log-likelihoods, one value a step."""

from typing import Any

import keras
from keras import ops

from keras_gated.mixture import check_sizes, gaussian_mixture_nll

Tensor = Any


def bernoulli_nll(y_true: Tensor, logits: Tensor) -> Tensor:
    """Negative log-likelihood of independent Bernoulli variables, in nats.

    Args:
        y_true: Zeros and ones, `(..., notes)`.
        logits: The log-odds of a one, `(..., notes)`, of the same dtype.

    Returns:
        The sum over the notes, `(...)`.
    """
    return ops.sum(ops.binary_crossentropy(y_true, logits, from_logits=True), axis=-1)


def weigh_steps(weight: Tensor, rank: int, dtype: str | None = None) -> Tensor:
    """Weights of steps or of whole sequences, ready to multiply steps.

    Args:
        weight: `(batch, time)`, `(batch,)`, or either with a last axis of 1.
        rank: The number of axes of steps, 2 for `(batch, time)`.
        dtype: Default: `None`, that of the weights.

    Returns:
        The weights, with `rank` axes (or none, or more, if they came so).
    """
    weight = ops.convert_to_tensor(weight, dtype=dtype)
    if len(weight.shape) == rank + 1 and weight.shape[-1] == 1:
        weight = ops.squeeze(weight, -1)
    while 0 < len(weight.shape) < rank:
        weight = ops.expand_dims(weight, -1)
    return weight


class StepLoss(keras.losses.Loss):
    """Abstract base: one value a step, which weights of sequences weigh, too."""

    def __call__(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        if sample_weight is not None:
            # Keras would divide by the sum of the weights before it spreads them.
            steps = ops.shape(y_pred)[:-1]
            sample_weight = weigh_steps(sample_weight, len(steps))
            if len(sample_weight.shape) == len(steps):
                sample_weight = ops.broadcast_to(sample_weight, steps)
        return super().__call__(y_true, y_pred, sample_weight)


@keras.saving.register_keras_serializable(package="keras_gated")
class BernoulliNLL(StepLoss):
    """The negative log-likelihood of binary frames, in nats a step.

    A step's value is the sum over notes of the binary cross-entropies of
    `sigmoid(logits)` (Chung et al., 2014, https://arxiv.org/abs/1412.3555,
    section 4.1). The default reduction is the mean over the steps that count:
    padding of weight 0 is neither summed nor counted. Over several batches of
    different lengths Keras's displayed loss is a mean of batch means; the exact
    figure of a whole set is `keras_gated.metrics.FrameNLL`.

    Args:
        reduction: As in `keras.losses.Loss`. Default:
            `"mean_with_sample_weight"`, the mean over steps by their weight.
        name: Default: `"bernoulli_nll"`.
        dtype: The dtype of the computation, as in `keras.losses.Loss`.
            Default: `keras.config.floatx()`, also under mixed precision.

    Call arguments:
        y_true: Zeros and ones, `(batch, time, notes)`.
        y_pred: Logits, `(batch, time, notes)`.
        sample_weight: `(batch, time)`, or `(batch,)` for whole sequences; 0 for
            padding.

    Example:

    >>> import numpy as np
    >>> from keras_gated.losses import BernoulliNLL
    >>> loss = BernoulliNLL(reduction=None)
    >>> nats = loss(np.zeros((2, 5, 88)), np.zeros((2, 5, 88)))
    >>> nats.shape == (2, 5)
    True
    >>> round(float(nats[0, 0]), 3)  # 88 log(2)
    60.997
    """

    def __init__(
        self,
        reduction: str | None = "mean_with_sample_weight",
        name: str = "bernoulli_nll",
        dtype: str | None = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return bernoulli_nll(y_true, y_pred)


@keras.saving.register_keras_serializable(package="keras_gated")
class GaussianMixtureNLL(StepLoss):
    """The negative log-likelihood of real-valued events, in nats a step.

    Under mixtures of Gaussians with diagonal covariances (Chung et al., 2014,
    https://arxiv.org/abs/1412.3555, section 4.1), whose parameters the layer
    `keras_gated.GaussianMixture` gives. The default reduction is the mean over the
    steps that count, as that of `BernoulliNLL`; the exact figure of a whole set is
    `keras_gated.metrics.EventNLL`.

    Args:
        components: K, the number of Gaussians. Default: 20.
        event_dim: E, the number of values of an event. Default: 10.
        reduction: As in `keras.losses.Loss`. Default:
            `"mean_with_sample_weight"`, the mean over steps by their weight.
        name: Default: `"gaussian_mixture_nll"`.
        dtype: The dtype of the computation, as in `keras.losses.Loss`.
            Default: `keras.config.floatx()`, also under mixed precision.

    Call arguments:
        y_true: Events, `(batch, time, E)`.
        y_pred: Parameters, `(batch, time, K * (1 + 2 * E))`.
        sample_weight: `(batch, time)`, or `(batch,)` for whole sequences; 0 for
            padding.

    Raises:
        ValueError: A number is not positive, or the parameters are not of K
            components of E values.

    Example:

    >>> import numpy as np
    >>> from keras_gated import GaussianMixture
    >>> from keras_gated.losses import GaussianMixtureNLL
    >>> parameters = GaussianMixture(20, 10)(np.zeros((2, 5, 195)))
    >>> loss = GaussianMixtureNLL(20, 10, reduction=None)
    >>> loss(np.zeros((2, 5, 10)), parameters).shape == (2, 5)
    True
    """

    def __init__(
        self,
        components: int = 20,
        event_dim: int = 10,
        reduction: str | None = "mean_with_sample_weight",
        name: str = "gaussian_mixture_nll",
        dtype: str | None = None,
    ) -> None:
        check_sizes(components, event_dim)
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.components = components
        self.event_dim = event_dim

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return gaussian_mixture_nll(y_true, y_pred, self.components, self.event_dim)

    def get_config(self) -> dict[str, Any]:
        sizes = {"components": self.components, "event_dim": self.event_dim}
        return {**super().get_config(), **sizes}
