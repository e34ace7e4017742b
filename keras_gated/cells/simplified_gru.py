"""The gated recurrent unit without its reset gate."""

import keras

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
from keras_gated.cells.recurrence import Recurrence


class SimplifiedGRUEquations(GatedEquations):
    """The equations of `SimplifiedGRUCell`, in the same letters."""

    gates = "zh"

    def step(self, x: Inputs, states: States, recurrent: Recurrence) -> Result:
        sigmoid, tanh = self.recurrent_activation, self.activation
        (h,), (x_z, x_h) = states, x
        u_z, u_h = recurrent.product("zh", h)

        z = sigmoid(x_z + u_z)
        h_cand = tanh(x_h + u_h)
        h = (1 - z) * h + z * h_cand
        return [h], {"z": z, "h_cand": h_cand}

    def partials(self, states: States, gates: Gates) -> Partials:
        d_sigmoid = derivative(self.recurrent_activation)
        d_tanh = derivative(self.activation)
        (h,), z, h_cand = states, gates["z"], gates["h_cand"]
        return {
            "h/a_z": (h_cand - h) * d_sigmoid(z),
            "h/a_h": z * d_tanh(h_cand),
            "h/h": 1 - z,
        }

    def step_vjp(self, d_new: States, partials: Partials, recurrent: Recurrence) -> VJP:
        (d_h,) = d_new

        d_a_z = d_h * partials["h/a_z"]
        d_a_h = d_h * partials["h/a_h"]
        d_h = d_h * partials["h/h"] + recurrent.product_vjp("zh", [d_a_z, d_a_h])
        return [d_a_z, d_a_h], [d_h]


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
        activation: The activation of the candidate, a name or a callable; `None`
            for the identity. Default: `"tanh"`.
        recurrent_activation: The activation of the gate. Default: `"sigmoid"`.
        weight_noise: Standard deviation of the noise added to the kernels
            while training. Default: 0.
        layer_norm: Whether what goes into the gates is normalized. Default: `False`.
        layer_norm_epsilon: Added to the variance. Default: 1e-3.
        zoneout: The rate of zoneout. Default: 0.
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
    equations_class = SimplifiedGRUEquations
