"""The gated recurrent unit, with the reset gate before or after the product."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_gated.cells.base import GatedCell, Tensor, Weights


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

    gates = ("z", "r", "h")

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
        x: Tensor,
        states: list[Tensor],
        weights: Weights,
        drop: Callable[[Tensor], Tensor],
    ) -> tuple[list[Tensor], dict[str, Tensor]]:
        sigmoid, tanh = self.recurrent_activation, self.activation
        (h,) = states
        x_zr, x_h = ops.split(x, [2 * self.units], axis=-1)

        if self.reset_after:
            u = drop(h) @ weights.U + weights.b_U
            u_zr, u_h = ops.split(u, [2 * self.units], axis=-1)
            z, r = ops.split(sigmoid(x_zr + u_zr), 2, axis=-1)
            h_cand = tanh(x_h + r * u_h)
        else:
            U_zr, U_h = ops.split(weights.U, [2 * self.units], axis=-1)
            z, r = ops.split(sigmoid(x_zr + drop(h) @ U_zr), 2, axis=-1)
            h_cand = tanh(x_h + drop(r * h) @ U_h)
        h = (1 - z) * h + z * h_cand
        return [h], {"update": z, "reset": r, "candidate": h_cand}

    def _current_weights(self, training: bool) -> Weights:
        weights = super()._current_weights(training)
        if self.reset_after and self.use_bias:
            b, b_U = ops.unstack(weights.b, 2)
            weights = weights._replace(b=b, b_U=b_U)
        return weights

    def _bias_shape(self) -> tuple[int, ...]:
        columns = 3 * self.units
        return (2, columns) if self.reset_after else (columns,)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "reset_after": self.reset_after}
