"""The gated recurrent unit, with the reset gate before or after the product."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_gated.cells.activations import derivative
from keras_gated.cells.base import GatedCell, Product, Tensor, Weights


@keras.saving.register_keras_serializable(package="keras_gated")
class GRUCell(GatedCell):
    """The gated recurrent unit as Chung et al. (2014) define it.

    From `x` `(batch, input_dim)` and the previous state `h` `(batch, units)`
    (https://arxiv.org/abs/1412.3555, equations 5 to 8; biases added):

        z = σ(W_z x + U_z h + b_z)                   update gate
        r = σ(W_r x + U_r h + b_r)                   reset gate
        h_cand = tanh(W_h x + U_h (r ⊙ h) + b_h)     candidate
        h = (1 - z) ⊙ h + z ⊙ h_cand

    Two conventions differ from `keras.layers.GRUCell`, so that weights do not
    move between the two as they are:

    * `z` weighs the candidate. In Keras, PyTorch and ONNX it weighs the old
      state: theirs is `1 - z`, so the signs of the columns of `z` flip.
    * The reset gate comes before the product with `U_h`. With
      `reset_after=True` it comes after it, as in Keras's default, PyTorch and
      cuDNN, and the recurrent product has a bias of its own:
      `h_cand = tanh(W_h x + b_h + r ⊙ (U_h h + b_Uh))`.

    Args:
        units: Positive integer, the size of the state and of the output.
        activation: The candidate's activation, a name or a callable; `None`
            for the identity. Default: `"tanh"`.
        recurrent_activation: The gates' activation. Default: `"sigmoid"`.
        reset_after: Whether the reset gate acts after the recurrent product
            instead of before it. Default: `False`.
        weight_noise: Standard deviation of the noise added to the kernels
            while training. Default: 0.
        **kwargs: The further arguments of `keras.layers.GRUCell`, see
            `keras_gated.cells.base.RecurrentCell`.

    Attributes:
        kernel: `(input_dim, 3 * units)`, columns `W_z | W_r | W_h`.
        recurrent_kernel: `(units, 3 * units)`, columns `U_z | U_r | U_h`.
        bias: `(3 * units,)`, `b_z | b_r | b_h`; with `reset_after=True`
            `(2, 3 * units)`, the input's and the recurrent product's; or
            `None`.

    Raises:
        ValueError: An argument is out of its range.

    Example:

    >>> import keras, numpy as np
    >>> from keras_gated import GRUCell
    >>> layer = keras.layers.RNN(GRUCell(4), return_sequences=True)
    >>> layer(np.ones((2, 5, 3), "float32")).shape == (2, 5, 4)
    True
    >>> gates = layer.cell.gate_activations(np.ones((2, 3)), np.zeros((2, 4)))
    >>> sorted(gates)
    ['candidate', 'reset', 'update']
    """

    title = "GRU"
    gates = ("z", "r", "h")
    step_arguments = (*GatedCell.step_arguments, "reset_after")

    def __init__(
        self,
        units: int,
        activation: str | Callable | None = "tanh",
        recurrent_activation: str | Callable | None = "sigmoid",
        *,
        reset_after: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(units, activation, recurrent_activation, **kwargs)
        self.reset_after = bool(reset_after)

    def step(
        self,
        x: list[Tensor],
        states: list[Tensor],
        weights: Weights,
        product: Product,
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        sigmoid, tanh = self.recurrent_activation, self.activation
        (h,), (x_z, x_r, x_h) = states, x

        if self.reset_after:
            u = product(h, weights.U) + weights.b_U
            u_z, u_r, u_h = ops.split(u, 3, axis=-1)
            z = sigmoid(x_z + u_z)
            r = sigmoid(x_r + u_r)
            h_cand = tanh(x_h + r * u_h)
        else:
            U_zr, U_h = weights.U
            u_z, u_r = ops.split(product(h, U_zr), 2, axis=-1)
            z = sigmoid(x_z + u_z)
            r = sigmoid(x_r + u_r)
            h_cand = tanh(x_h + product(r * h, U_h))
        h = (1 - z) * h + z * h_cand
        gates = {"z": z, "r": r, "h_cand": h_cand}
        return [h], {**gates, "u_h": u_h} if self.reset_after else gates

    def partials(
        self, states: list[Tensor], gates: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        d_sigmoid = derivative(self.recurrent_activation)
        d_tanh = derivative(self.activation)
        (h,), z, r, h_cand = states, gates["z"], gates["r"], gates["h_cand"]

        a_h = z * d_tanh(h_cand)
        partials = {
            "a_z": (h_cand - h) * d_sigmoid(z),
            "a_h": a_h,
            "h": 1 - z,
            "r": r,
        }
        if self.reset_after:
            return {**partials, "a_r": a_h * gates["u_h"] * d_sigmoid(r)}
        return {**partials, "rh_a_r": h * d_sigmoid(r)}

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
        if self.reset_after:
            d_a_zr = ops.concatenate([d_a_z, d_h * partials["a_r"]], axis=-1)
            d_u = ops.concatenate([d_a_zr, d_a_h * partials["r"]], axis=-1)
            d_h = d_h * partials["h"] + product.backward(d_u, weights.U)
        else:
            U_zr, U_h = weights.U
            d_rh = product.backward(d_a_h, U_h)
            d_a_r = d_rh * partials["rh_a_r"]
            d_a_zr = ops.concatenate([d_a_z, d_a_r], axis=-1)
            d_h = (
                d_h * partials["h"]
                + d_rh * partials["r"]
                + product.backward(d_a_zr, U_zr)
            )
        return ops.concatenate([d_a_zr, d_a_h], axis=-1), [d_h]

    def weights_gradient(
        self,
        d_x: Tensor,
        states: list[Tensor],
        gates: dict[str, Tensor],
        product: Product,
    ) -> dict[str, Tensor | tuple[Tensor, ...]]:
        (h,), r = states, gates["r"]
        d_a_zr, d_a_h = d_x[:, : 2 * self.units], d_x[:, 2 * self.units :]
        if self.reset_after:
            d_u = ops.concatenate([d_a_zr, d_a_h * r], axis=-1)
            gradients = {"U": product.weight(h, d_u)}
            if self.use_bias:
                gradients["b_U"] = ops.sum(d_u, axis=0)
            return gradients
        return {"U": (product.weight(h, d_a_zr), product.weight(r * h, d_a_h))}

    def _current_weights(self, training: bool) -> Weights:
        weights = super()._current_weights(training)
        if not self.reset_after:
            U, columns = weights.U, 2 * self.units
            return weights._replace(U=(U[:, :columns], U[:, columns:]))
        if self.use_bias:
            b, b_U = ops.unstack(weights.b, 2)
            return weights._replace(b=b, b_U=b_U)
        return weights

    def _bias_shape(self) -> tuple[int, ...]:
        columns = 3 * self.units
        return (2, columns) if self.reset_after else (columns,)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "reset_after": self.reset_after}
