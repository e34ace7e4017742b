"""The gated recurrent unit, with the reset gate before or after the product."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_gated.cells.activations import derivative
from keras_gated.cells.base import GatedCell
from keras_gated.cells.equations import (
    VJP,
    GatedEquations,
    Gates,
    Inputs,
    Partials,
    Result,
    States,
)
from keras_gated.cells.recurrence import Recurrence, Tensor


class GRUEquations(GatedEquations):
    """The equations of `GRUCell`, in the same letters."""

    gates = "zrh"
    products = ("zr", "h")

    def step(self, x: Inputs, states: States, recurrent: Recurrence) -> Result:
        sigmoid, tanh = self.recurrent_activation, self.activation
        (h,), (x_z, x_r, x_h) = states, x

        u_z, u_r = recurrent.product("zr", h)
        z = sigmoid(x_z + u_z)
        r = sigmoid(x_r + u_r)
        (u_h,) = recurrent.product("h", r * h)
        h_cand = tanh(x_h + u_h)
        h = (1 - z) * h + z * h_cand
        return [h], {"z": z, "r": r, "h_cand": h_cand}

    def partials(self, states: States, gates: Gates) -> Partials:
        d_sigmoid = derivative(self.recurrent_activation)
        d_tanh = derivative(self.activation)
        (h,), z, r, h_cand = states, gates["z"], gates["r"], gates["h_cand"]
        return {
            "h/a_z": (h_cand - h) * d_sigmoid(z),
            "h/a_h": z * d_tanh(h_cand),
            "h/h": 1 - z,
            "rh/a_r": h * d_sigmoid(r),
            "rh/h": r,
        }

    def step_vjp(self, d_new: States, partials: Partials, recurrent: Recurrence) -> VJP:
        (d_h,) = d_new

        d_a_z = d_h * partials["h/a_z"]
        d_a_h = d_h * partials["h/a_h"]
        d_rh = recurrent.product_vjp("h", [d_a_h])
        d_a_r = d_rh * partials["rh/a_r"]
        d_h = d_h * partials["h/h"] + d_rh * partials["rh/h"]
        d_h = d_h + recurrent.product_vjp("zr", [d_a_z, d_a_r])
        return [d_a_z, d_a_r, d_a_h], [d_h]

    def multiplied(self, states: States, gates: Gates) -> dict[str, Tensor]:
        (h,) = states
        return {"zr": h, "h": gates["r"] * h}


class ResetAfterEquations(GRUEquations):
    """The equations of `GRUCell(reset_after=True)`."""

    products = ("zrh",)

    def step(self, x: Inputs, states: States, recurrent: Recurrence) -> Result:
        sigmoid, tanh = self.recurrent_activation, self.activation
        (h,), (x_z, x_r, x_h) = states, x

        u_z, u_r, u_h = recurrent.product("zrh", h)
        z = sigmoid(x_z + u_z)
        r = sigmoid(x_r + u_r)
        h_cand = tanh(x_h + r * u_h)
        h = (1 - z) * h + z * h_cand
        return [h], {"z": z, "r": r, "h_cand": h_cand, "u_h": u_h}

    def partials(self, states: States, gates: Gates) -> Partials:
        d_sigmoid = derivative(self.recurrent_activation)
        d_tanh = derivative(self.activation)
        (h,), z, r, h_cand = states, gates["z"], gates["r"], gates["h_cand"]
        h_a_h = z * d_tanh(h_cand)
        return {
            "h/a_z": (h_cand - h) * d_sigmoid(z),
            "h/a_r": h_a_h * gates["u_h"] * d_sigmoid(r),
            "h/a_h": h_a_h,
            "h/h": 1 - z,
            "a_h/u_h": r,
        }

    def step_vjp(self, d_new: States, partials: Partials, recurrent: Recurrence) -> VJP:
        (d_h,) = d_new

        d_a_z = d_h * partials["h/a_z"]
        d_a_r = d_h * partials["h/a_r"]
        d_a_h = d_h * partials["h/a_h"]
        d_u = [d_a_z, d_a_r, d_a_h * partials["a_h/u_h"]]
        d_h = d_h * partials["h/h"] + recurrent.product_vjp("zrh", d_u)
        return [d_a_z, d_a_r, d_a_h], [d_h]

    def multiplied(self, states: States, gates: Gates) -> dict[str, Tensor]:
        (h,) = states
        return {"zrh": h}

    def products_gradient(self, d_x: Tensor, gates: Gates) -> Tensor:
        d_a_z, d_a_r, d_a_h = ops.split(d_x, 3, axis=-1)
        return ops.concatenate([d_a_z, d_a_r, d_a_h * gates["r"]], axis=-1)


@keras.saving.register_keras_serializable(package="keras_gated")
class GRUCell(GatedCell):
    """The gated recurrent unit as Chung et al. (2014) define it.

    From `x` `(batch, input_dim)` and the previous state `h` `(batch, units)`
    (https://arxiv.org/abs/1412.3555, equations 5 to 8; biases added):

        z = σ(W_z x + U_z h + b_z)                   update gate
        r = σ(W_r x + U_r h + b_r)                   reset gate
        h_cand = tanh(W_h x + U_h (r ⊙ h) + b_h)     candidate
        h = (1 - z) ⊙ h + z ⊙ h_cand

    Two conventions differ from `keras.layers.GRUCell`, so weights must be converted
    (`from_keras`, `to_keras`):

    * `z` weighs the candidate. In Keras, PyTorch and ONNX it weighs the old
      state: their `z` is `1 - z` here, so the columns of `z` have opposite signs.
    * The reset gate comes before the product with `U_h`. With
      `reset_after=True` it comes after it, as in Keras's default, PyTorch and
      cuDNN, and the recurrent product has a bias of its own:
      `h_cand = tanh(W_h x + b_h + r ⊙ (U_h h + b_Uh))`.

    Args:
        units: Positive integer, the size of the state and of the output.
        activation: The activation of the candidate, a name or a callable; `None`
            for the identity. Default: `"tanh"`.
        recurrent_activation: The activation of the gates. Default: `"sigmoid"`.
        reset_after: Whether the reset gate acts after the recurrent product
            instead of before it. Default: `False`.
        weight_noise: Standard deviation of the noise added to the kernels
            while training. Default: 0.
        layer_norm: Whether what goes into the gates is normalized. Default: `False`.
        layer_norm_epsilon: Added to the variance. Default: 1e-3.
        zoneout: The rate of zoneout. Default: 0.
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

    @property
    def equations_class(self) -> type[GRUEquations]:
        return ResetAfterEquations if self.reset_after else GRUEquations

    def _bias_shape(self) -> tuple[int, ...]:
        columns = 3 * self.units
        return (2, columns) if self.reset_after else (columns,)

    def _biases(self, training: bool) -> tuple[Tensor | None, Tensor | None]:
        b, b_U = super()._biases(training)
        if self.reset_after and self.use_bias:
            b, b_U = ops.unstack(b, 2)
        return b, b_U

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "reset_after": self.reset_after}
