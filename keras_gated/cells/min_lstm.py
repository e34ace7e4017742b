"""The minimal long short-term memory, whose gates do not see the state."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_gated.cells.equations import Gates, Inputs, LinearEquations
from keras_gated.cells.min_gru import LinearCell
from keras_gated.cells.recurrence import Tensor


class MinLSTMEquations(LinearEquations):
    """The equations of `MinLSTMCell`, in the same letters."""

    gates = "ifh"

    def coefficients(self, x: Inputs) -> tuple[Tensor, Tensor, Gates]:
        x_i, x_f, x_h = x

        # f / (f + i) = 1 / (1 + i / f), where f and i may both be next to 0.
        f = ops.sigmoid(ops.log_sigmoid(x_f) - ops.log_sigmoid(x_i))
        i = 1 - f
        h_cand = self.activation(x_h)
        return f, i * h_cand, {"i": i, "f": f, "h_cand": h_cand}


@keras.saving.register_keras_serializable(package="keras_gated")
class MinLSTMCell(LinearCell):
    """The minimal long short-term memory, whose gates see the input alone.

    From `x` `(batch, input_dim)` and the previous state `h` `(batch, units)` (Feng et
    al., 2024, https://arxiv.org/abs/2410.01201, section 3.2; biases as in their code):

        f = σ(W_f x + b_f)                       forget gate
        i = σ(W_i x + b_i)                       input gate
        f, i = f / (f + i), i / (f + i)          which add up to 1
        h_cand = W_h x + b_h                     candidate
        h = f ⊙ h + i ⊙ h_cand

    Since `h` is linear in the state before, `keras_gated.RNN` need not go through the
    steps one after the other, and does not where that is faster (on PyTorch). The gates
    are sigmoids; `gate_activations` has them as they add up to 1.

    There is no recurrent kernel. `recurrent_initializer` is ignored, and the other
    arguments `recurrent_…` are errors.

    Args:
        units: Positive integer, the size of the state and of the output.
        activation: The activation of the candidate, a name or a callable, such as
            `keras_gated.cells.min_gru.positive`, the one of the paper's appendix.
            Default: `None`, the identity.
        weight_noise: Standard deviation of the noise added to the kernel
            while training. Default: 0.
        layer_norm: Whether the projected input is normalized. Default: `False`.
        layer_norm_epsilon: Added to the variance. Default: 1e-3.
        zoneout: The rate of zoneout. Default: 0.
        **kwargs: The further arguments of `keras.layers.SimpleRNNCell`, see
            `keras_gated.cells.base.RecurrentCell`.

    Attributes:
        kernel: `(input_dim, 3 * units)`, columns `W_i | W_f | W_h`.
        bias: `(3 * units,)`, `b_i | b_f | b_h`, or `None`.

    Raises:
        ValueError: An argument is out of its range, or would act on a recurrent kernel.

    Example:

    >>> import keras, numpy as np
    >>> from keras_gated import MinLSTMCell
    >>> layer = keras.layers.RNN(MinLSTMCell(4), return_sequences=True)
    >>> layer(np.ones((2, 5, 3), "float32")).shape == (2, 5, 4)
    True
    """

    title = "minLSTM"
    equations_class = MinLSTMEquations

    def __init__(
        self,
        units: int,
        activation: str | Callable | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, activation, **kwargs)
