"""RMSProp for recurrent layers: gradients of any size are rescaled."""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

Tensor = Any
"""A tensor of the Keras backend in use."""


@keras.saving.register_keras_serializable(package="keras_gated")
class RMSprop(keras.optimizers.RMSprop):
    """`keras.optimizers.RMSprop` whose `global_clipnorm` holds for any gradient.

    Through hundreds of steps a gradient can grow without bound. Above 1.8e19 its
    norm exceeds what float32 holds, and Keras's own rescaling then makes every weight
    NaN. Here it is rescaled as smaller ones are (Pascanu et al., 2013,
    https://arxiv.org/abs/1211.5063), and where it is no number itself (NaN or
    infinity), the update takes it for zero.

    The arguments are those of `keras.optimizers.RMSprop`.

    Args:
        learning_rate: A number or a schedule. Default: 0.001.
        global_clipnorm: The norm of all gradients together above which they are
            scaled down to it. Default: `None`, they never are.
        rho: How much of the mean of the squares is kept. Default: 0.9.
        momentum: Default: 0.
        epsilon: Added to the root of the mean of the squares. Default: 1e-7.
        centered: Whether to divide by the deviation, not by the root of the mean of
            the squares. Default: `False`.
        weight_decay: Default: `None`.
        clipnorm: The largest norm of each gradient. Default: `None`.
        clipvalue: The largest value of a gradient. Default: `None`.
        use_ema: Whether to average the weights. Default: `False`.
        ema_momentum: How much of that average is kept. Default: 0.99.
        ema_overwrite_frequency: After how many updates it replaces the weights.
            Default: `None`.
        loss_scale_factor: What to multiply the loss by. Default: `None`.
        gradient_accumulation_steps: How many batches make an update. Default:
            `None`.
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
        """The norm of all gradients together above which they are scaled to it."""
        return self._global_clipnorm

    @global_clipnorm.setter
    def global_clipnorm(self, norm: float | None) -> None:
        real = isinstance(norm, numbers.Real) and not isinstance(norm, bool)
        if norm is not None and not (real and 0 < norm < math.inf):
            raise ValueError(
                "Argument `global_clipnorm` must be a positive number, or None for no "
                f"limit. Received: global_clipnorm={norm!r}"
            )
        self._global_clipnorm = norm

    def _clip_gradients(self, grads: Sequence[Tensor]) -> Sequence[Tensor]:
        # Where Keras clips: after loss scaling has been undone, and of gradients that
        # are accumulated their mean.
        if self.global_clipnorm is None or self.clipnorm:
            return super()._clip_gradients(grads)
        return rescale(grads, self.global_clipnorm)


def rescale(gradients: Sequence[Tensor], norm: float) -> list[Tensor]:
    """Scales gradients down to a norm, of all together, if theirs is larger.

    Args:
        gradients: Of any shapes; `None` where there is none.
        norm: The largest norm that is left as it is.

    Returns:
        The gradients, finite: zeros if any of them is NaN or infinite.
    """
    there = [g for g in gradients if g is not None and 0 not in g.shape]
    if not there:
        return list(gradients)
    largest = ops.max(ops.stack([ops.max(ops.abs(g)) for g in there]))
    finite = ops.isfinite(largest)
    # Divided by the largest their squares stay within the range.
    unit = ops.where(finite & (largest > 0), largest, ops.ones_like(largest))
    relative = ops.sqrt(sum(ops.sum(ops.square(g / unit)) for g in there))
    small = relative <= norm / unit

    def rescaled(g: Tensor) -> Tensor:
        scaled = ops.where(small, g, g / unit * (norm / relative))
        return ops.where(finite, scaled, ops.zeros_like(g))

    return [None if g is None else rescaled(g) for g in gradients]
