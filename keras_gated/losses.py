"""Losses: negative log-likelihoods, one value per step."""

from typing import Any

import keras
from keras import ops

# Not public, but only Keras knows where a backend keeps the mask of a tensor.
from keras.src.backend.common.masking import get_keras_mask

from keras_gated import replicas
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
    """Reshapes the weights of steps or of whole sequences to multiply steps.

    Args:
        weight: `(batch, time)`, `(batch,)`, or either with a last axis of 1.
        rank: The number of axes of steps, 2 for `(batch, time)`.
        dtype: The dtype of the result. Default: `None`, that of the weights.

    Returns:
        The weights with `rank` axes. Scalars and further axes remain.
    """
    weight = ops.convert_to_tensor(weight, dtype=dtype)
    if len(weight.shape) == rank + 1 and weight.shape[-1] == 1:
        weight = ops.squeeze(weight, -1)
    while 0 < len(weight.shape) < rank:
        weight = ops.expand_dims(weight, -1)
    return weight


class StepLoss(keras.losses.Loss):
    """Abstract base of losses with one value per step.

    A weight of a whole sequence applies to each of its steps. Where copies of a model
    are trained together, each with its rows of a batch, the mean of their losses is
    that of the batch.
    """

    def __call__(
        self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        if sample_weight is not None:
            # Keras would divide by the sum of the weights before broadcasting them.
            steps = ops.shape(y_pred)[:-1]
            sample_weight = weigh_steps(sample_weight, len(steps))
            if len(sample_weight.shape) == len(steps):
                sample_weight = ops.broadcast_to(sample_weight, steps)
        loss = super().__call__(y_true, y_pred, sample_weight)
        if self.reduction != "mean_with_sample_weight" or replicas.count() == 1:
            return loss
        own = self._weight(y_pred, sample_weight, loss.dtype)
        mean = replicas.total(own) / replicas.count()
        return loss * ops.divide_no_nan(own, mean)

    def _weight(
        self, y_pred: Tensor, sample_weight: Tensor | None, dtype: str
    ) -> Tensor:
        """By what Keras divides the sum over steps."""
        weights = ops.ones(ops.shape(y_pred)[:-1], dtype=dtype)
        for weight in (sample_weight, get_keras_mask(y_pred)):
            if weight is not None:
                weights = weights * ops.cast(weight, dtype)
        return ops.sum(weights)


@keras.saving.register_keras_serializable(package="keras_gated")
class BernoulliNLL(StepLoss):
    """The negative log-likelihood of binary frames, in nats per step.

    The value of a step is the sum over notes of the binary cross-entropies of
    `sigmoid(logits)` (Chung et al., 2014, https://arxiv.org/abs/1412.3555,
    section 4.1). The default reduction is the mean over all steps with a weight:
    padding, whose weight is 0, is neither summed nor counted. The loss that Keras
    displays for several batches is the mean of their means; for the exact figure of
    a whole set use `keras_gated.metrics.FrameNLL`.

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
    """The negative log-likelihood of real-valued events, in nats per step.

    The events are distributed as mixtures of Gaussians with diagonal covariances
    (Chung et al., 2014, https://arxiv.org/abs/1412.3555, section 4.1); the layer
    `keras_gated.GaussianMixture` outputs their parameters. The default reduction is
    that of `BernoulliNLL`; for the exact figure of a whole set use
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
        ValueError: `components` or `event_dim` is not a positive integer, or the last
            axis of the parameters has another size.

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
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.components, self.event_dim = check_sizes(components, event_dim)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        return gaussian_mixture_nll(y_true, y_pred, self.components, self.event_dim)

    def get_config(self) -> dict[str, Any]:
        sizes = {"components": self.components, "event_dim": self.event_dim}
        return {**super().get_config(), **sizes}
