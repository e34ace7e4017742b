"""The tanh cell, the traditional recurrent unit."""

from collections.abc import Callable

import keras

from keras_gated.cells.base import RecurrentCell, Tensor, Weights


@keras.saving.register_keras_serializable(package="keras_gated")
class TanhCell(RecurrentCell):
    """The traditional recurrent cell, with no gates.

    From `x` `(batch, input_dim)` and the previous state `h` `(batch, units)`
    (Chung et al., 2014, https://arxiv.org/abs/1412.3555, equation 2):

        h = tanh(W x + U h + b)

    It computes what `keras.layers.SimpleRNNCell` computes, and adds
    `weight_noise` and `gate_activations` (whose only entry, `"candidate"`, is
    the new state).

    Args:
        units: Positive integer, the size of the state and of the output.
        activation: In the place of tanh, a name or a callable; `None` for the
            identity. Default: `"tanh"`.
        weight_noise: Standard deviation of the noise added to the kernels
            while training. Default: 0.
        **kwargs: The further arguments of `keras.layers.SimpleRNNCell`, see
            `keras_gated.cells.base.RecurrentCell`.

    Attributes:
        kernel: `W`, `(input_dim, units)`.
        recurrent_kernel: `U`, `(units, units)`.
        bias: `b`, `(units,)`, or `None`.

    Raises:
        ValueError: An argument is out of its range.

    Example:

    >>> import keras, numpy as np
    >>> from keras_gated import TanhCell
    >>> layer = keras.layers.RNN(TanhCell(4), return_sequences=True)
    >>> layer(np.ones((2, 5, 3), "float32")).shape == (2, 5, 4)
    True
    """

    gates = ("h",)

    def step(
        self,
        x: Tensor,
        states: list[Tensor],
        weights: Weights,
        drop: Callable[[Tensor], Tensor],
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        tanh = self.activation
        (h,) = states

        h = tanh(x + drop(h) @ weights.U)
        return [h], {"candidate": h}
