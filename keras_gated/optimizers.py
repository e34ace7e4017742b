"""RMSProp for recurrent layers: gradients of any size are rescaled."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_gated import replicas
from keras_gated.datasets import checks

Tensor = Any
"""A tensor of the Keras backend in use."""


@keras.saving.register_keras_serializable(package="keras_gated")
class RMSprop(keras.optimizers.RMSprop):
    """`keras.optimizers.RMSprop` whose `global_clipnorm` holds for any gradient.

    Over hundreds of steps a gradient can grow without bound. Above 1.8e19, its
    squared norm exceeds what float32 holds, and Keras's own rescaling then makes every
    weight NaN. This optimizer rescales such gradients like smaller ones (Pascanu et
    al., 2013, https://arxiv.org/abs/1211.5063). If a gradient is NaN or infinite, the
    update uses zero gradients instead. Under `tf.distribute.MirroredStrategy` the sum
    of the replicas' gradients is rescaled, not each.

    The arguments are those of `keras.optimizers.RMSprop`.

    Args:
        learning_rate: A number or a schedule. Default: 0.001.
        global_clipnorm: The largest norm of all gradients together; larger ones are
            scaled down to it. Default: `None`, no limit.
        rho: The decay rate of the mean of the squares. Default: 0.9.
        momentum: Default: 0.
        epsilon: Added to the root of the mean of the squares. Default: 1e-7.
        centered: Whether to divide by the standard deviation instead of the root of
            the mean of the squares. Default: `False`.
        weight_decay: Default: `None`.
        clipnorm: The largest norm of each gradient. Default: `None`.
        clipvalue: The largest value of a gradient. Default: `None`.
        use_ema: Whether to average the weights. Default: `False`.
        ema_momentum: The decay rate of that average. Default: 0.99.
        ema_overwrite_frequency: The number of updates after which the average
            replaces the weights.
            Default: `None`.
        loss_scale_factor: The factor by which the loss is multiplied. Default: `None`.
        gradient_accumulation_steps: The number of batches whose gradients are
            averaged for one update. Default: `None`.
        name: Default: `"rmsprop"`.
        **kwargs: Of `keras.optimizers.Optimizer`.

    Raises:
        ValueError: `global_clipnorm` is not positive, or another argument is out of
            its range.

    Example:

    >>> import keras, numpy as np
    >>> from keras_gated.optimizers import RMSprop
    >>> w = keras.Variable(np.zeros(2))
    >>> RMSprop(0.1, global_clipnorm=1.0).apply([np.full(2, 1e30, "float32")], [w])
    >>> print(w.numpy().round(3))
    [-0.316 -0.316]
    """

    @property
    def global_clipnorm(self) -> float | None:
        """The largest norm of all gradients together."""
        return self._global_clipnorm

    @global_clipnorm.setter
    def global_clipnorm(self, norm: float | None) -> None:
        self._global_clipnorm = checks.number(
            "global_clipnorm", norm, above=0, optional=True
        )

    def _clip_gradients(self, grads: Sequence[Tensor]) -> Sequence[Tensor]:
        # Keras clips at this point: after undoing the loss scaling, and on the mean of
        # accumulated gradients.
        if self.global_clipnorm is None or self.clipnorm:
            return super()._clip_gradients(grads)
        replica = replicas.in_strategy()
        if replica is None:
            return rescale(grads, self.global_clipnorm)
        there = iter(replica.all_reduce("SUM", [g for g in grads if g is not None]))
        sums = [None if g is None else next(there) for g in grads]
        # Keras sums what it gets here over the replicas, where it is the same.
        share = 1 / replica.num_replicas_in_sync
        rescaled = rescale(sums, self.global_clipnorm)
        return [None if g is None else g * share for g in rescaled]


def rescale(gradients: Sequence[Tensor], norm: float) -> list[Tensor]:
    """Scales gradients down to a global norm if theirs is larger.

    Args:
        gradients: Tensors of any shapes; `None` where there is no gradient.
        norm: The largest global norm.

    Returns:
        The rescaled gradients; zeros if any of them is NaN or infinite.
    """
    there = [g for g in gradients if g is not None and 0 not in g.shape]
    if not there:
        return list(gradients)
    largest = ops.max(ops.stack([ops.max(ops.abs(g)) for g in there]))
    finite = ops.isfinite(largest)
    # Squares of gradients that are divided by the largest do not overflow.
    unit = ops.where(finite & (largest > 0), largest, ops.ones_like(largest))
    relative = ops.sqrt(sum(ops.sum(ops.square(g / unit)) for g in there))
    small = relative <= norm / unit

    def rescaled(g: Tensor) -> Tensor:
        scaled = ops.where(small, g, g / unit * (norm / relative))
        return ops.where(finite, scaled, ops.zeros_like(g))

    return [None if g is None else rescaled(g) for g in gradients]
