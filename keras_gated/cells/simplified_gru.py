"""The gated recurrent unit without its reset gate."""

import keras
from keras import ops

from keras_gated.cells.activations import derivative
from keras_gated.cells.base import GatedCell, Product, Tensor, Weights


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

    title = "simplified GRU"
    gates = ("z", "h")

    def step(
        self,
        x: list[Tensor],
        states: list[Tensor],
        weights: Weights,
        product: Product,
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        sigmoid, tanh = self.recurrent_activation, self.activation
        (h,), (x_z, x_h) = states, x
        u_z, u_h = ops.split(product(h, weights.U), 2, axis=-1)

        z = sigmoid(x_z + u_z)
        h_cand = tanh(x_h + u_h)
        h = (1 - z) * h + z * h_cand
        return [h], {"z": z, "h_cand": h_cand}

    def partials(
        self, states: list[Tensor], gates: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        d_sigmoid = derivative(self.recurrent_activation)
        d_tanh = derivative(self.activation)
        (h,), z, h_cand = states, gates["z"], gates["h_cand"]
        return {
            "a_z": (h_cand - h) * d_sigmoid(z),
            "a_h": z * d_tanh(h_cand),
            "h": 1 - z,
        }

    def step_gradient(
        self,
        d_states: list[Tensor],
        partials: dict[str, Tensor],
        weights: Weights,
        product: Product,
    ) -> tuple[Tensor, list[Tensor]]:
        (d_h,) = d_states

        d_a_z = d_h * partials["a_z"]
        d_a_h = d_h * partials["a_h"]
        d_a = ops.concatenate([d_a_z, d_a_h], axis=-1)
        d_h = d_h * partials["h"] + product.backward(d_a, weights.U)
        return d_a, [d_h]

    def weights_gradient(
        self,
        d_x: Tensor,
        states: list[Tensor],
        gates: dict[str, Tensor],
        product: Product,
    ) -> dict[str, Tensor | tuple[Tensor, ...]]:
        (h,) = states
        return {"U": product.weight(h, d_x)}
