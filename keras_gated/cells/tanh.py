"""The tanh cell, the traditional recurrent unit."""

import keras

from keras_gated.cells.activations import derivative
from keras_gated.cells.base import Product, RecurrentCell, Tensor, Weights


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

    title = "tanh"
    gates = ("h",)

    def step(
        self,
        x: list[Tensor],
        states: list[Tensor],
        weights: Weights,
        product: Product,
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        tanh = self.activation
        (h,), (x_h,) = states, x

        h = tanh(x_h + product(h, weights.U))
        return [h], {"h_cand": h}

    def partials(
        self, states: list[Tensor], gates: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        d_tanh = derivative(self.activation)
        return {"h": d_tanh(gates["h_cand"])}

    def step_gradient(
        self,
        d_states: list[Tensor],
        partials: dict[str, Tensor],
        weights: Weights,
        product: Product,
    ) -> tuple[Tensor, list[Tensor]]:
        (d_h,) = d_states

        d_x = d_h * partials["h"]
        d_h = product.backward(d_x, weights.U)
        return d_x, [d_h]

    def weights_gradient(
        self,
        d_x: Tensor,
        states: list[Tensor],
        gates: dict[str, Tensor],
        product: Product,
    ) -> dict[str, Tensor | tuple[Tensor, ...]]:
        (h,) = states
        return {"U": product.weight(h, d_x)}
