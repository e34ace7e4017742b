"""The gated recurrent unit without its reset gate."""

from collections.abc import Callable

import keras
from keras import ops

from keras_gated.cells.base import GatedCell, Tensor, Weights


@keras.saving.register_keras_serializable(package="keras_gated")
class SimplifiedGRUCell(GatedCell):
    """The gated recurrent unit without its reset gate.

    From `x` `(batch, input_dim)` and the previous state `h` `(batch, units)`
    (Chung et al., 2014, https://arxiv.org/abs/1412.3555, equations 5 to 7 with
    `r = 1`; biases added):

        z = σ(W_z x + U_z h + b_z)               update gate
        h_cand = tanh(W_h x + U_h h + b_h)       candidate
        h = (1 - z) ⊙ h + z ⊙ h_cand

    Args:
        units: Positive integer, the size of the state and of the output.
        activation: The candidate's activation, a name or a callable; `None`
            for the identity. Default: `"tanh"`.
        recurrent_activation: The gate's activation. Default: `"sigmoid"`.
        weight_noise: Standard deviation of the noise added to the kernels
            while training. Default: 0.
        **kwargs: The further arguments of `keras.layers.GRUCell` (but
            `reset_after`), see `keras_gated.cells.base.RecurrentCell`.

    Attributes:
        kernel: `(input_dim, 2 * units)`, columns `W_z | W_h`.
        recurrent_kernel: `(units, 2 * units)`, columns `U_z | U_h`.
        bias: `(2 * units,)`, `b_z | b_h`, or `None`.

    Raises:
        ValueError: An argument is out of its range.

    Example:

    >>> import keras, numpy as np
    >>> from keras_gated import SimplifiedGRUCell
    >>> layer = keras.layers.RNN(SimplifiedGRUCell(4), return_sequences=True)
    >>> layer(np.ones((2, 5, 3), "float32")).shape == (2, 5, 4)
    True
    """

    gates = ("z", "h")

    def step(
        self,
        x: Tensor,
        states: list[Tensor],
        weights: Weights,
        drop: Callable[[Tensor], Tensor],
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        sigmoid, tanh = self.recurrent_activation, self.activation
        (h,) = states
        a_z, a_h = ops.split(x + drop(h) @ weights.U, 2, axis=-1)

        z = sigmoid(a_z)
        h_cand = tanh(a_h)
        h = (1 - z) * h + z * h_cand
        return [h], {"update": z, "candidate": h_cand}
